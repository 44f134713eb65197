"""Identity imbalance: one or two identities make up most of the training data."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, change, is_imperfect


class IdentityImbalance(Cause):
    """One or two identities make up most of what training is shown, so the others are hardly learned."""

    name = "identity_imbalance"
    stage = "data"
    reads = ("share_of_two", "drawn_identities")
    needs = "which identities are drawn: fit on a sequence of ks.data, or DivergenceMonitor(…, train=…)"

    def judge(self, facts):
        share, count, effective = facts["share_of_two"], facts["drawn_identities"], facts["effective_identities"]
        signals = {
            "share_of_two": Signal(share, limits.SHARE_OF_TWO, 2 / count),
            "effective_identities": Signal(effective, None, count),
        }
        if share <= limits.SHARE_OF_TWO or count < limits.FEW_DRAWN or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if share > limits.LARGE_SHARE_OF_TWO else "warning",
            f"Two of {count:.0f} identities make up {share:.0%} of what training is shown: that is as little as "
            f"{effective:.1f} identities of equal size.",
            signals,
            "train = ks.data.BalancedBatchSequence(x, labels)  # draws all identities equally often\n"
            'train = ks.data.PairSequence(x, labels, weighting="balanced")  # the same for pairs',
            change(weighting="balanced"),
            3 * share / limits.SHARE_OF_TWO,
        )
