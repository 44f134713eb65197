"""Causes in what training is shown: kinds of pairs, identities, inputs, mining."""

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


class PairImbalance(Cause):
    """Genuine pairs weigh so little, or impostors do, that the loss falls by deciding for the common kind."""

    name = "pair_imbalance"
    reads = ("weighted_positive_fraction",)
    needs = "the training pairs: fit on a PairSequence, or DivergenceMonitor(…, train=…)"
    explains = ("margin", "threshold", "weak_features", "learning_rate", "mining")

    def judge(self, facts):
        fraction = facts["weighted_positive_fraction"]
        rare, kind = (fraction, "genuine") if fraction < 0.5 else (1 - fraction, "impostor")
        signals = {"weighted_positive_fraction": Signal(fraction, 0.05 if fraction < 0.5 else 0.95, 0.5)}
        if "genuine_loss" in facts:
            lost, kept = facts["genuine_loss"], facts["impostor_loss"]
            lost, kept = (lost, kept) if kind == "genuine" else (kept, lost)
            signals[f"loss_of_{kind}_pairs_over_others"] = Signal(min(lost / max(kept, 1e-12), 1e6), 1.5, 1.0)
            if lost <= 1.5 * kept:
                return RuledOut(self.name, signals)
        # Without any impostor pair there is nothing to keep embeddings apart: that is how a network collapses.
        if rare >= 0.05 or (rare == 0 and kind == "impostor") or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if rare < 0.025 else "warning",
            f"Only {rare:.1%} of the weight in the loss is on {kind} pairs: it falls by treating every pair as the "
            "other kind.",
            signals,
            "train = ks.data.PairSequence(x, labels, positive_fraction=0.5)\n"
            f"loss = ks.losses.ContrastiveLoss({'positive' if kind == 'genuine' else 'negative'}_weight="
            f"{(1 - rare) / max(rare, 1e-3):.3g})  # or, where the pairs are given",
            change(positive_fraction=0.5),
            0.1 / max(rare, 1e-3),
            self.explains if kind == "genuine" else (*self.explains, "collapse"),
        )


class IdentityImbalance(Cause):
    """One or two identities hold most of what training is shown: the others are hardly learned."""

    name = "identity_imbalance"
    reads = ("share_of_two", "drawn_identities")
    needs = "which identities are drawn: fit on a sequence of ks.data, or DivergenceMonitor(…, train=…)"
    explains = ("weak_features", "memorising", "mining", "learning_rate")

    def judge(self, facts):
        share, count, effective = facts["share_of_two"], facts["drawn_identities"], facts["effective_identities"]
        signals = {
            "share_of_two": Signal(share, 0.5, 2 / count),
            "effective_identities": Signal(effective, None, count),
        }
        if share <= 0.5 or count < 8 or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if share > 0.8 else "warning",
            f"Two of {count:.0f} identities make up {share:.0%} of what training is shown: it amounts to "
            f"{effective:.1f} identities.",
            signals,
            "train = ks.data.BalancedBatchSequence(x, labels)  # every identity as often as another\n"
            'train = ks.data.PairSequence(x, labels, weighting="balanced")  # the same for pairs',
            change(weighting="balanced"),
            share / 0.5 * 3,
        )


class InputScale(Cause):
    """Inputs reach the first layer on a scale that its initial weights are not made for, or one tower on another.

    Never alone: networks learn from large inputs too. So it counts only where verification leaves much to gain.
    """

    name = "input_scale"
    reads = ("input_scale",)
    needs = "samples that are arrays of numbers"
    explains = ("weak_features", "collapse", "memorising", "margin", "learning_rate", "mining", "label_noise")
    explains += ("wrong_distance", "threshold")

    def judge(self, facts):
        scale = facts["input_scale"]
        signals = {"input_scale": Signal(scale, 20.0, 1.0)}
        signals |= signals_of(facts, drawn_towers=(0.3, 0.0), held_out_towers=(0.3, 0.0))
        apart = max((abs(facts.get(name, 0.0)) for name in ("drawn_towers", "held_out_towers")), default=0.0)
        if apart > 0.3:
            return self.found(
                facts,
                "error",
                f"One input of the pairs is {10**apart:.3g} times as large as the other: it is preprocessed alone.",
                signals,
                "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), *encoder.layers])  # inside, for both",
                change(tower_scale=1.0),
                STRONGEST,
            )
        if 0.005 <= scale <= 20 or not is_imperfect(facts, 0.08):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if scale > 50 or scale < 0.002 else "warning",
            f"The first layer with weights sees inputs of size {scale:.3g} (root mean square), where about 1 suits its "
            "initial weights.",
            signals,
            "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), *encoder.layers])  # pixels in [0, 255]\n"
            "normalise = keras.layers.Normalization(); normalise.adapt(x)  # anything else, first in the encoder",
            change(input_scale=1.0),
            abs(np.log10(scale)) * 3,
        )


class Mining(Cause):
    """What the loss is shown is easier than the pairs at hand, so nothing is left to learn; or only the hardest, which
    are the wrong labels, or collapse the embedding.
    """

    name = "mining"
    reads = ("train_auc",)
    needs = "training batches with identities: fit on a sequence of ks.data, or DivergenceMonitor(…, train=…)"
    explains = ("weak_features", "learning_rate")

    def judge(self, facts):
        shown = [facts[name] for name in ("drawn_auc", "mined_accuracy") if name in facts]
        missed = 1 - facts["train_auc"]
        signals = {"missed_of_all_pairs": Signal(missed, 0.03)}
        signals |= signals_of(facts, drawn_auc=None, mined_accuracy=0.5)
        if not shown or missed <= 0.03 or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        easy = 1 - max(shown)
        signals["missed_of_shown_over_all"] = Signal(easy / missed, 0.2, 1.0)
        if easy < 0.2 * missed:
            what = (
                f"Of the pairs that training is shown {easy:.1%} are ranked wrong, of all training pairs {missed:.1%}: "
                "it sees only easy ones."
            )
            severity = "error" if missed > 0.06 else "warning"
            return self.of_kind(facts, severity, what, signals, min(missed / max(easy, 1e-3), 50) / 5)
        wrong = 1 - facts.get("mined_accuracy", 1.0)
        noisy = facts.get("impostor_like", 0.0) > facts.get("impostor_like_held_out", 0.0) + 0.02
        steady = facts.get("update_size_first", 0.0) < 1.0  # with larger steps the loss is not the first to blame
        if wrong > 0.5 and steady and (noisy or facts["spacing"] < 0.3):
            what = (
                f"Of the triplets that the loss takes {wrong:.0%} are ranked wrong, of all pairs {missed:.1%}: the "
                f"hardest {'are the wrong labels' if noisy else 'collapse the embedding'}."
            )
            return self.of_kind(facts, "error", what, signals, STRONGEST, ("collapse", "label_noise"))
        return RuledOut(self.name, signals)

    def of_kind(self, facts, severity, what, signals, strength, explains=()):
        return self.found(
            facts,
            severity,
            what,
            signals,
            'loss = ks.losses.BatchTripletLoss(positives="all", negatives="semi_hard")\n'
            "ks.callbacks.HardPairRefresh(train, every=5)  # for pairs: hard partners under the current encoder",
            change(positives="all", negatives="all", easy_pairs=False, online=False),
            strength,
            (*self.explains, *explains),
        )
