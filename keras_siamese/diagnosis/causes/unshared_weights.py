"""Unshared weights: each of the two inputs has an encoder of its own."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, change


class UnsharedWeights(Cause):
    """Each of the two inputs has an encoder of its own: what one learns, the other does not."""

    name = "unshared_weights"
    stage = "inputs"
    reads = ("unshared",)
    needs = "the model"

    def judge(self, facts):
        signals = {"unshared": Signal(facts["unshared"], 0.5, 0.0), "eer": Signal(facts["eer"])}
        if not facts["unshared"]:
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error",
            "The two inputs have two encoders that do not share their weights. Only training can bring their "
            "embeddings into one space, and each encoder sees only half of the samples.",
            signals,
            'siamese = ks.SiameseWrapper(encoder, distance="euclidean")  # one encoder for both inputs',
            change(shared=True),
            limits.STRONGEST,
        )
