"""Unshared weights: each of the two inputs has its own encoder, so what one encoder learns, the other does not."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, signals_of


class UnsharedWeights(Cause):
    stage = "inputs"
    reads = ("unshared",)
    needs = "the model"
    advice = 'siamese = ks.SiameseWrapper(encoder, distance="euclidean")  # one encoder for both inputs'

    def judge(self, facts):
        signals = signals_of(facts, unshared=(0.5, 0.0), eer=None)
        if not facts["unshared"]:
            return RuledOut(self.name, signals)
        what = (
            "The two inputs have two encoders that do not share their weights. Only training can bring their "
            "embeddings into one space, and each encoder sees only half of the samples."
        )
        return self.found(facts, "error", what, signals, limits.STRONGEST, change(shared=True))
