"""Pair imbalance: genuine or impostor pairs have so little weight that the loss falls by treating all pairs as the
other kind.

If nothing is known of the pairs that training was shown, the logged loss tells their share: it is the mean of the
losses of both kinds. That is clear only if these are far apart. If the pairs are balanced, and the loss itself gives
impostors little weight, nothing keeps embeddings apart: that is `collapse`.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import is_own_loss, label_of, pair_loss
from keras_siamese.diagnosis.causes.base import (
    Cause,
    NotExamined,
    RuledOut,
    Signal,
    change,
    implied_share,
    is_imperfect,
)


class PairImbalance(Cause):
    stage = "data"
    needs = "the training pairs: train=([left, right], y), or fit on a PairSequence"

    def judge(self, facts):
        fraction = facts.get("weighted_positive_fraction", implied_share(facts))
        if fraction is None:
            return NotExamined(self.name, self.needs)
        is_genuine = fraction < 0.5
        rare, kind = (fraction, "genuine") if is_genuine else (1 - fraction, "impostor")
        bound = limits.RARE_KIND if is_genuine else 1 - limits.RARE_KIND
        is_known = "weighted_positive_fraction" in facts
        signals = {"weighted_positive_fraction" if is_known else "implied_fraction": Signal(fraction, bound, 0.5)}
        if "genuine_loss" in facts:
            losses = facts["genuine_loss"], facts["impostor_loss"]
            lost, kept = losses if is_genuine else losses[::-1]
            ratio = lost / max(kept, limits.TINY)
            signals[f"loss_of_{kind}_pairs_over_others"] = Signal(ratio, limits.LOSS_RATIO, 1.0)
            if lost <= limits.LOSS_RATIO * kept:
                return RuledOut(self.name, signals)
        # Without any impostor pair nothing keeps embeddings apart: that is `collapse`.
        none_left = rare == 0 if is_known else rare < limits.SMALLEST_SHARE
        by_loss = facts.get("positive_fraction", 1.0) <= 1 - limits.RARE_KIND
        is_collapse = kind == "impostor" and (none_left or (is_known and by_loss))
        if rare >= limits.RARE_KIND or is_collapse or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        what = (
            f"Only {rare:.1%} of the weight in the loss is on {kind} pairs: the loss falls by treating every pair as "
            "the other kind."
        )
        if not is_known:
            what = f"The logged loss tells that {what[0].lower()}{what[1:]}"
        at_least = max(rare, limits.SMALLEST_SHARE)
        weight = f"{(1 - rare) / at_least:.3g}"
        if is_own_loss(facts):
            option = "positive_weight" if is_genuine else "negative_weight"
            weighed = f"loss = {pair_loss(facts, **{option: weight})}"
        else:
            weights = f"np.where(y == {label_of(facts, is_genuine)}, {weight}, 1)"
            weighed = f"siamese.fit([left_train, right_train], y, sample_weight={weights})"
        advice = (
            "# either: draw as many pairs of each kind\n"
            "train = ks.data.PairSequence(x, labels, positive_fraction=0.5)\n"
            "# or: weigh them, if the pairs are given\n"
            f"{weighed}"
        )
        severity = "error" if rare < limits.RARE_KIND / limits.TWICE else "warning"
        strength = limits.TWICE * limits.RARE_KIND / at_least
        return self.found(facts, severity, what, signals, strength, change(positive_fraction=0.5), advice)
