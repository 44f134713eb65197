"""Causes in the labels and the split: inverted labels, label noise, leakage."""

import numpy as np

from keras_siamese.diagnosis.causes.base import (
    STRONGEST,
    Cause,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    signals_of,
)

EXCESS = 0.02  # share of genuine pairs that score as impostors do, more than of held-out ones


class InvertedLabels(Cause):
    """The pair labels say different where they mean same: ranking is worse than chance, which noise cannot be.

    Training pairs of known identity are the better witness: an encoder that ranks *them* worse than chance was trained
    to. Held-out pairs alone count where training data are not known; where they are, held-out pairs worse than chance
    beside well-ranked training pairs mean that the held-out labels are inverted, if they are labels of pairs.
    """

    name = "inverted_labels"
    reads = ("auc",)
    explains = ("collapse", "margin", "memorising", "threshold", "pair_imbalance", "mining", "weak_features")
    explains += ("learning_rate", "wrong_distance", "label_noise")

    def judge(self, facts):
        errors, critical = facts["below_chance"], facts["below_chance_critical"]
        is_below, is_above = errors > critical, errors < -critical
        signals = {
            "auc": Signal(facts["auc"], None, 0.5),
            "standard_errors_below_half": Signal(errors, critical, 0.0),
        }
        trained = facts.get("train_below_chance")
        if trained is not None:
            reach = facts["train_below_chance_critical"]
            signals["train_auc"] = Signal(facts["train_auc"], None, 0.5)
            signals["train_standard_errors_below_half"] = Signal(trained, reach, 0.0)
        conventions = facts.get("loss_similar_label"), facts.get("pairs_similar_label")
        if None not in conventions and conventions[0] != conventions[1]:
            names = ("similar_label_of_loss", "similar_label_of_pairs")
            signals |= {name: Signal(label) for name, label in zip(names, conventions, strict=True)}
            if is_imperfect(facts, 0.1):
                what = (
                    f"The loss takes the label {conventions[0]:g} for the same, and the training pairs say "
                    f"{conventions[1]:g}: it pulls impostors together and pushes genuine pairs apart."
                )
                return self.in_training(facts, what, signals, STRONGEST)
        if is_below and trained is not None and trained < -reach and "identities" not in facts:
            what = (
                f"Held-out pairs are ranked worse than chance (AUC {facts['auc']:.3f}) while training pairs are ranked "
                "well: the held-out labels are inverted."
            )
            advice = "monitor = ks.callbacks.DivergenceMonitor(validation, similar_label=0)"
            apply = change(validation_similar_label=1)
            return self.found(facts, "error", what, signals, advice, apply, errors / critical)
        if is_below and trained is None:
            what = (
                f"Held-out pairs are ranked worse than chance (AUC {facts['auc']:.3f}, {errors:.1f} standard errors "
                "below ½): labels are inverted, in the loss or in these pairs."
            )
            return self.in_training(facts, what, signals, errors / critical)
        if trained is not None and trained > reach and not is_above:
            what = (
                f"Even training pairs are ranked worse than chance (AUC {facts['train_auc']:.3f}, {trained:.1f} "
                "standard errors below ½): the loss pulls impostors together and pushes genuine pairs apart. Its "
                "labels are inverted."
            )
            return self.in_training(facts, what, signals, trained / reach)
        return RuledOut(self.name, signals)

    def in_training(self, facts, what, signals, strength):
        label = 1 - int(facts.get("loss_similar_label", 1))
        loss = facts.words["loss"] if "loss_similar_label" in facts else "ContrastiveLoss"
        advice = (
            f"loss = ks.losses.{loss}(similar_label={label})  # if label {label} means the same in your pairs\n"
            "train = ks.data.PairSequence(x, labels)  # or let the package make the pairs: 1 = same"
        )

        def apply(recipe):
            return {**recipe, "similar_label": 1 - recipe.get("similar_label", 1)}

        return self.found(facts, "error", what, signals, advice, apply, strength)


class LabelNoise(Cause):
    """Many genuine training pairs score as impostors do, more than held-out ones: their labels are wrong.

    An encoder tells its own identities apart better than new ones, so of right labels the share is the smaller one in
    training. Noise on both sides shows in neither; then the encoder verifies badly, and this is not the cause named.
    """

    name = "label_noise"
    reads = ("impostor_like", "train_eer")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"
    explains = ("weak_features", "pair_imbalance", "memorising", "learning_rate", "collapse")

    def judge(self, facts):
        share, null = facts["impostor_like"], facts.get("impostor_like_held_out", 0.0)
        error = float(np.hypot(facts["impostor_like_se"], facts.get("impostor_like_held_out_se", 0.0)))
        low, high = max(share - 2 * error, 0.0), min(share + 2 * error, 1.0)
        least = null + EXCESS
        signals = {
            "impostor_like_genuine_pairs": Signal(share, least, null, low, high),
            "train_eer": Signal(facts["train_eer"]),
            "eer": Signal(facts["eer"]),
        }
        signals |= signals_of(facts, suspected_labels=None)
        worse = facts["train_eer"] - facts["eer"]
        if not is_imperfect(facts) or low <= null or share <= least or worse < -0.02:
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if share > 2 * least else "warning",
            f"{share:.1%} of the genuine training pairs score as impostors do, of held-out ones {null:.1%}, and "
            f"training identities verify no better (EER {facts['train_eer']:.3f}) than held-out ones "
            f"({facts['eer']:.3f}): labels are wrong.",
            signals,
            "suspects = monitor.diagnosis.evidence.facts.rows['suspected_labels']  # rows of the training data\n"
            "x, labels = np.delete(x, suspects, 0), np.delete(labels, suspects)  # or look at them, and correct them",
            change(label_noise=0.0),
            share / least,
        )


class Leakage(Cause):
    """Held-out data hold samples, or identities, that training has seen: their figures are too good.

    Equal names on both sides are no proof, for both may have been numbered from 0: samples of one name must also be
    nearer to each other, across the sides, than samples of two.
    """

    name = "leakage"
    explains_flag = False
    reads = ("duplicates",)
    needs = "training samples: DivergenceMonitor(…, train=(x, labels))"

    def examine(self, facts):
        if "duplicates" not in facts and "shared_names" not in facts:
            return super().examine(facts)
        return self.judge(facts)

    def judge(self, facts):
        signals = signals_of(facts, duplicates=(0.01, 0.0), near_duplicates=(0.05, 0.0), shared_names=(0.0, 0.0))
        # Of K identities that have nothing in common the AUC is ½, give or take √(1/12K), as of K uniform ranks.
        least = max(0.7, 0.5 + 3 * np.sqrt(1 / (12 * max(facts.get("shared_names", 0.0), 1.0))))
        signals |= signals_of(facts, shared_auc=(float(least), 0.5))
        copies = facts.get("duplicates", 0.0) > 0.01, facts.get("near_duplicates", 0.0) > 0.05
        shared = facts.get("shared_names", 0.0) > 0 and facts.get("shared_auc", 0.5) > least
        if not any(copies) and not shared:
            return RuledOut(self.name, signals)
        parts = []
        if shared:
            parts.append(f"{facts['shared_names']:.0f} identities are on both sides")
        if any(copies):
            share = facts.get("duplicates", 0.0) + facts.get("near_duplicates", 0.0)
            parts.append(f"{share:.1%} of the held-out samples are, or nearly are, training samples")
        return self.found(
            facts,
            "error",
            f"{' and '.join(parts)}: the held-out figures are of what training has seen, and too good.".capitalize(),
            signals,
            "train, valid, test = ks.data.split_identities(x, labels, (0.7, 0.15, 0.15), seed=0)\n"
            "print(ks.data.check_leakage(train, valid))",
            change(leak=None),
            STRONGEST,
        )
