"""Label noise: more of the genuine training pairs than of the held-out ones score as impostors do, so labels are wrong.

An encoder tells its own identities apart better than new ones, so with correct labels the share is smaller in training.
This holds only for an encoder that training has changed: one that is frozen, or hardly moves, treats both alike. Noise
on both sides cannot be seen in this way; the encoder then verifies badly for no visible reason.

A network also learns wrong labels by heart, above all systematic ones, such as two identities under one name. A linear
model of the raw inputs cannot: fitted on wrong labels, it verifies training identities worse than held-out ones.

A few wrong labels are usual and harmless, so they are information only.
"""

from dataclasses import replace

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import label_of, trains_on_pairs
from keras_siamese.diagnosis.causes.base import TRAINING_DATA, Cause, RuledOut, Signal, change, is_imperfect, signals_of


class LabelNoise(Cause):
    stage = "labels"
    reads = ("impostor_like", "train_eer")
    needs = TRAINING_DATA

    def judge(self, facts):
        share, null = facts["impostor_like"], facts.get("impostor_like_held_out", 0.0)
        low, high = interval_of(facts, "impostor_like")
        least = null + limits.LABEL_EXCESS
        signals = {"impostor_like_genuine_pairs": Signal(share, least, null, low, high)}
        signals |= signals_of(facts, train_eer=None, eer=None, suspected_labels=None)
        learned = facts["eer"] - facts["train_eer"] > limits.TRAINED_BETTER
        changed = min(facts.get("trainable_share", 1.0), facts.get("moved_share", 1.0)) >= limits.FROZEN
        changed = changed and facts.get("update_size_largest", 1.0) >= limits.SMALL_UPDATE
        if not is_imperfect(facts) or low <= null or share <= least or learned or not changed:
            return self.learned_by_heart(facts, signals)
        what = (
            f"{share:.1%} of the genuine training pairs score as impostors do, but only {null:.1%} of the held-out "
            f"ones, and training identities (EER {facts['train_eer']:.3f}) verify no better than held-out ones (EER "
            f"{facts['eer']:.3f}): labels are wrong."
        )
        severity = "error" if share > limits.TWICE * least else "warning"
        by_linear = np.inf
        if "linear_impostor_like" in facts:
            by_linear = facts["linear_impostor_like"] - facts["linear_impostor_like_held_out"]
        severity = severity if max(share - null, by_linear) > limits.FEW_WRONG else "info"
        return self.found(facts, severity, what, signals, share / least, change(label_noise=0.0), advised(facts))

    def learned_by_heart(self, facts, signals):
        """The answer where the network's own scores show no wrong labels: what a linear model shows."""
        if "linear_impostor_like" not in facts or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        share, null = facts["linear_impostor_like"], facts["linear_impostor_like_held_out"]
        low, high = interval_of(facts, "linear_impostor_like")
        trained, held_out = facts["linear_train_eer"], facts["reference_linear"]
        least = null + limits.LABEL_EXCESS
        by_linear = {"impostor_like_by_linear_model": Signal(share, least, null, low, high)}
        by_linear |= signals_of(facts, linear_train_eer=None, reference_linear=None)
        signals = by_linear | signals
        if low <= null or share <= least or trained <= held_out:
            return RuledOut(self.name, signals)
        what = (
            f"By a linear model fitted on these labels, {share:.1%} of the genuine training pairs score as impostors "
            f"do, but only {null:.1%} of the held-out ones, and it verifies training identities (EER {trained:.3f}) "
            f"worse than held-out ones (EER {held_out:.3f}): labels are wrong, and the network has learned them."
        )
        reach = limits.ERRORS_WORSE * np.hypot(facts["linear_train_eer_se"], facts["linear_eer_se"])
        is_clear = share - null > limits.FEW_WRONG and trained - held_out > reach
        severity = "warning" if is_clear else "info"
        # The network's own share is below its limit, which has not decided.
        own = signals["impostor_like_genuine_pairs"]
        signals["impostor_like_genuine_pairs"] = replace(own, threshold=None, null=None)
        return self.found(facts, severity, what, signals, share / least, change(label_noise=0.0), advised(facts))


def advised(facts):
    """Lines of code that leave the suspected rows out of the training data or, if there are none, show some samples."""
    are_pairs, has_rows = trains_on_pairs(facts), bool(facts.rows.get("suspected_labels"))
    if not has_rows and are_pairs:
        return (
            "# no row stands out: look at some genuine pairs, and at how their labels were made\n"
            f"genuine = np.flatnonzero(y == {label_of(facts, same=True)})[:20]\n"
            "print(left_train[genuine], right_train[genuine])"
        )
    if not has_rows:
        return (
            "# no row stands out: look at the samples of some identities, and at how their labels were made\n"
            "print(x[labels == labels[0]])"
        )
    what = "pairs" if are_pairs else "data"
    lines = [
        f"suspects = diagnosis.facts.rows['suspected_labels']  # rows of the training {what}",
        "# look at them and correct them, or leave them out:",
    ]
    if are_pairs:
        lines += [
            "left_train, right_train = np.delete(left_train, suspects, 0), np.delete(right_train, suspects, 0)",
            "y = np.delete(y, suspects)",
        ]
    else:
        lines.append("x, labels = np.delete(x, suspects, 0), np.delete(labels, suspects)")
    return "\n".join(lines)


def interval_of(facts, name):
    """`(low, high)` of the share `name` of the training pairs, for the comparison with that of the held-out ones."""
    reach = limits.ERRORS_WORSE * float(np.hypot(facts[f"{name}_se"], facts.get(f"{name}_held_out_se", 0.0)))
    return max(facts[name] - reach, 0.0), min(facts[name] + reach, 1.0)
