"""Wrong distance: the same embeddings verify better when they are compared differently."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, is_imperfect


class WrongDistance(Cause):
    """The embeddings tell identities apart under another distance than the one that verification uses."""

    name = "wrong_distance"
    stage = "objective"
    reads = ("swap_gain", "eer_cosine", "eer_euclidean")
    needs = "embeddings that can be compared by another distance"

    def judge(self, facts):
        gain, low = facts["swap_gain"], facts["swap_gain_low"]
        better = min(("cosine", "euclidean"), key=lambda name: facts[f"eer_{name}"])
        signals = {
            "eer": Signal(facts["eer"]),
            f"eer_{better}": Signal(facts[f"eer_{better}"]),
            "eer_gained": Signal(gain, limits.SWAP_GAIN, 0.0, low, gain + (gain - low)),
            "norm_variation": Signal(facts["norm_variation"]),
        }
        if gain <= limits.SWAP_GAIN or low <= limits.SWAP_GAIN_LOW or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if gain > limits.LARGE_SWAP_GAIN else "warning",
            f"The same embeddings verify better by {better} (EER {facts[f'eer_{better}']:.3f}) than by "
            f"{facts.words['distance'] or 'the distance in use'} (EER {facts['eer']:.3f}).",
            signals,
            f'siamese = ks.SiameseWrapper(encoder, distance="{better}")  # train and verify by the same distance\n'
            "keras.Sequential([..., keras.layers.UnitNormalization()])  # or make the norms equal",
            lambda recipe: (
                {**recipe, "distance": better, "verify_distance": better}
                | ({"normalize": True} if better == "cosine" else {})
            ),
            gain / limits.SWAP_GAIN,
        )
