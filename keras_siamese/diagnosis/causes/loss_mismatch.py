"""Loss mismatch: the loss is made for another kind of output than the one that it is given.

The signs: the loss does not depend on the outputs of many training pairs, of either label, since cross-entropy cuts
off what is no probability, such as a distance above 1 or a logit. It wants more than the output can be for *both*
labels: logits are expected and probabilities given. It can fall for ever, or a loss of probabilities falls below 0: the
labels are not those that it expects. Or a loss of distances is given a similarity, or a loss of probabilities a
distance, so that equal embeddings are pushed to the wrong end.

A hinge is no such case: where it is flat for one label, it is at its least, and not flat for the other.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import logistic_head, pair_loss
from keras_siamese.diagnosis.causes.base import Cause, OfOutput, RuledOut, Signal, change, is_imperfect, signals_of


class LossMismatch(OfOutput, Cause):
    stage = "objective"
    reads = ("loss_falls_for_ever", "equal_end", "wanted_end")

    def judge(self, facts):
        if facts["loss_falls_for_ever"] or "cut_off_share" not in facts:
            return self.of_labels(facts)
        cut_off, out, least = facts["cut_off_share"], facts["out_of_reach"], facts["out_of_reach_least"]
        signals = {"pairs_cut_off_by_the_loss": Signal(cut_off, limits.MANY_CUT_OFF, 0.0)}
        signals["least_loss_over_that_of_a_guess"] = Signal(least, limits.OUT_OF_REACH / limits.TWICE, 0.0)
        signals |= signals_of(
            facts, stuck_share=None, equal_end=None, wanted_end=None, output_low=None, output_high=None
        )
        if facts["wants_probability"] and facts["least_loss"] < -limits.NEGATIVE_LOSS:
            return self.of_labels(facts)
        if not is_imperfect(facts, limits.WELL_EER):
            return RuledOut(self.name, signals)
        kinds = {"distances": facts["wants_distance"], "probabilities": facts["wants_probability"]}
        expected = next((kind for kind, is_expected in kinds.items() if is_expected), "")
        is_out = least >= limits.OUT_OF_REACH / limits.TWICE and out >= limits.OUT_OF_REACH
        is_varied = facts["output_low"] < facts["output_high"]
        if cut_off >= limits.MANY_CUT_OFF:
            kind = f" (of {expected})" if expected else ""
            what = (
                f"The outputs of {cut_off:.0%} of the training pairs are where the loss{kind} does not depend on the "
                "output for either label, so these pairs train nothing."
            )
            strength = cut_off / limits.MANY_CUT_OFF
        elif is_out and is_varied and is_imperfect(facts, limits.FAILED_EER):
            what = (
                f"The output lies between {facts['output_low']:.3g} and {facts['output_high']:.3g}, and the loss asks "
                "for values outside of this range for both labels, as if the output were a logit."
            )
            strength = out / limits.OUT_OF_REACH
        elif self.is_upside_down(facts) and is_imperfect(facts, limits.FAILED_EER):
            given = "distance" if facts["equal_end"] < 0 else "similarity"
            what = (
                f"The output is a {given} and the loss is one of {expected}: it "
                "pulls pairs that are the same away from where equal embeddings are."
            )
            strength = limits.STRONGEST
        else:
            return RuledOut(self.name, signals)
        return self.found(
            facts, "error", what, signals, strength, change(loss="contrastive"), self.advice_for(facts, expected)
        )

    def of_labels(self, facts):
        """The answer for a loss whose values say that it was made for other labels."""
        signals = signals_of(facts, loss_falls_for_ever=None, least_loss=(-limits.NEGATIVE_LOSS, 0.0), eer=None)
        is_known = "least_loss" in facts or facts["loss_falls_for_ever"]
        if not is_known or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        how = "has no lower bound" if facts["loss_falls_for_ever"] else f"falls to {facts['least_loss']:.3g}, below 0"
        what = f"The loss of a pair {how}: it expects other labels than these, usually 0 and 1 in place of -1 and 1."
        advice = "y = (y > 0).astype(int)  # labels 0 and 1"
        return self.found(facts, "error", what, signals, limits.STRONGEST, change(similar_label=1), advice)

    @staticmethod
    def is_upside_down(facts):
        """Whether nothing that is learned could turn the output, which is no distance or score as the loss expects."""
        is_opposite = facts["equal_end"] * facts["wanted_end"] < 0
        if facts["learned_head"] or not is_opposite or facts["out_of_reach"] >= limits.OUT_OF_REACH:
            return False
        return bool(facts["wants_distance"] if facts["equal_end"] > 0 else facts["wants_probability"])

    @staticmethod
    def advice_for(facts, expected):
        if expected == "probabilities" and facts["equal_end"] <= 0 and not facts["learned_head"]:
            return (
                f"# either: a loss of distances\nloss = {pair_loss(facts, margin=1.0)}\n"
                f"# or: put out a probability\n{logistic_head(facts)}"
            )
        if expected == "distances":
            return (
                'd = ks.layers.DistanceLayer("cosine")([u, v])  # 1 - cosine similarity is a distance\n'
                f"loss = {pair_loss(facts, margin=1.0)}"
            )
        return (
            "# either: if no sigmoid follows the last layer\n"
            "loss = keras.losses.BinaryCrossentropy(from_logits=True)\n"
            "# or: if one does\n"
            "loss = keras.losses.BinaryCrossentropy(from_logits=False)"
        )
