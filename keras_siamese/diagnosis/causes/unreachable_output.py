"""Unreachable output: the loss asks pairs of one label for an output that the comparator cannot give, whatever the
embeddings are: the sigmoid of a distance is never below ½, a softmax over one unit is always 1, a cosine distance is at
most 2.

What cannot be reached is measured by the loss: the least loss of the label among all outputs that can be reached, over
what a constant output would lose. If both labels are out of reach, the loss is made for another kind of output; see
`loss_mismatch`.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import logistic_head, pair_loss
from keras_siamese.diagnosis.causes.base import Cause, OfOutput, RuledOut, Signal, change, is_imperfect, signals_of


class UnreachableOutput(OfOutput, Cause):
    stage = "objective"
    reads = ("out_of_reach", "out_of_reach_least")

    def judge(self, facts):
        share, low, high = facts["out_of_reach"], facts["output_low"], facts["output_high"]
        signals = {"least_loss_over_that_of_a_guess": Signal(share, limits.OUT_OF_REACH, 0.0)}
        signals |= signals_of(facts, output_low=None, output_high=None, eer=limits.FAILED_EER)
        is_mismatch = facts["out_of_reach_least"] >= limits.OUT_OF_REACH / limits.TWICE and low < high
        if share < limits.OUT_OF_REACH or is_mismatch or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        label = facts["out_of_reach_label"]
        where = f"is {low:.3g} for all pairs" if low == high else f"lies between {low:.3g} and {high:.3g}"
        cost = f"{share:.0%} of" if share < 1 else f"{share:.2g} times" if share >= 2 else "at least"
        what = (
            f"The output {where}, whatever the embeddings are. For pairs of label {label:g}, the best output that the "
            f"model can give still costs {cost} the loss of a constant guess: the output that the loss wants for them "
            "cannot be reached."
        )
        if low == high:
            advice = (
                'output = keras.layers.Dense(1, activation="sigmoid")(merged)  # a softmax over one unit is always 1'
            )
        else:
            advice = (
                f"# either: put out a probability\n{logistic_head(facts)}\n"
                "# or: put out the distance itself, with a margin that can be reached\n"
                'd = ks.layers.DistanceLayer("euclidean")([u, v])\n'
                f"loss = {pair_loss(facts, margin=1.0)}"
            )
        return self.found(facts, "error", what, signals, share / limits.OUT_OF_REACH, change(head="logistic"), advice)
