"""Identity imbalance: one or two identities make up most of what training is shown; the others are hardly learned."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class IdentityImbalance(Cause):
    stage = "data"
    reads = ("share_of_two", "drawn_identities")
    needs = "the identities of the training samples: train=(x, labels), or fit on a sequence of ks.data"
    advice = (
        "# either: batches for a loss on embeddings, which draw all identities equally often\n"
        "train = ks.data.BalancedBatchSequence(x, labels)\n"
        "# or: pairs that do\n"
        'train = ks.data.PairSequence(x, labels, weighting="balanced")'
    )

    def judge(self, facts):
        share, count, effective = facts["share_of_two"], facts["drawn_identities"], facts["effective_identities"]
        nulls = {"share_of_two": (limits.SHARE_OF_TWO, 2 / count), "effective_identities": (None, count)}
        signals = signals_of(facts, **nulls)
        if share <= limits.SHARE_OF_TWO or count < limits.FEW_DRAWN or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        what = (
            f"Two of {count:.0f} identities make up {share:.0%} of what training is shown. This is as varied as "
            f"{effective:.1f} identities of equal size would be."
        )
        severity = "error" if share > limits.LARGE_SHARE_OF_TWO else "warning"
        strength = limits.WEIGHT_OF_DATA * share / limits.SHARE_OF_TWO
        return self.found(facts, severity, what, signals, strength, change(weighting="balanced"))
