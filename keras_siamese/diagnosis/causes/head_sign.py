"""Head sign: the weights that follow a distance or a similarity have the sign that is opposite to what the labels need.

Such a head, of one number, has only a sign and an offset to learn. From the wrong side, it has to pass the weight 0, at
which the output says nothing and the encoder is not trained; until then the loss makes the encoder worse. A head over
many columns has no such place, so it is not examined.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import logistic_head
from keras_siamese.diagnosis.causes.base import Cause, OfOutput, RuledOut, Signal, change, is_imperfect, signals_of


class HeadSign(OfOutput, Cause):
    stage = "objective"
    reads = ("head_is_scalar", "equal_end", "wanted_end")

    def judge(self, facts):
        signals = {"output_of_equal_embeddings": Signal(facts["equal_end"], None, facts["wanted_end"])}
        signals |= signals_of(facts, head_is_scalar=None, eer=limits.FAILED_EER)
        is_opposite = facts["equal_end"] * facts["wanted_end"] < 0
        if not facts["head_is_scalar"] or not is_opposite or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        now, wanted = ("highest", "lowest") if facts["equal_end"] > 0 else ("lowest", "highest")
        what = (
            f"Equal embeddings give the {now} output, and the labels need the {wanted}: the weight after the "
            "comparison has the wrong sign, and training has not turned it."
        )
        advice = (
            "# either: start with the other sign; minus ones if the weight is positive now\n"
            'head = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones")\n'
            f"# or: a head of the right sign\n{logistic_head(facts)}"
        )
        return self.found(facts, "error", what, signals, limits.STRONGEST, change(head="logistic"), advice)
