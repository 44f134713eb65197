"""Wrong distance: the same embeddings verify better under another distance than the one that verification uses.

Where the loss trains the comparison itself and equal embeddings are at the end that it wants, verification uses the
distance of training. Another distance may still do better on new items, by what it leaves out, such as their norms, but
that is no fault. Inner products of embeddings whose norms vary have no such end.

Where a loss of batches trains one distance and verification uses another, a smaller gain is proof enough: the distance
of the loss is then the one that was meant.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, change, is_imperfect, signals_of


class WrongDistance(Cause):
    stage = "objective"
    needs_embeddings = True
    reads = ("swap_gain", "eer_cosine", "eer_euclidean")
    needs = "a score that is a distance of embeddings, with no learned layers in between"

    def lacking(self, facts):
        return "one encoder for both inputs" if facts.get("unshared") else self.needs

    def judge(self, facts):
        gain, low = facts["swap_gain"], facts["swap_gain_low"]
        better = min(("cosine", "euclidean"), key=lambda name: facts[f"eer_{name}"])
        signals = signals_of(facts, eer=None, **{f"eer_{better}": None})
        signals["eer_gained"] = Signal(gain, limits.SWAP_GAIN, 0.0, low, gain + (gain - low))
        signals |= signals_of(facts, norm_variation=None)
        if facts.get("loss_gain", 0.0) > limits.LEAST_GAIN and facts["loss_gain_low"] > 0 and is_imperfect(facts):
            is_clear = gain > limits.SWAP_GAIN and low > limits.SWAP_GAIN_LOW
            if not is_clear:
                return self.not_that_of_the_loss(facts, signals)
        if (
            gain <= limits.SWAP_GAIN
            or low <= limits.SWAP_GAIN_LOW
            or not is_imperfect(facts)
            or facts.get("trained_by_it")
        ):
            return RuledOut(self.name, signals)
        what = (
            f"The same embeddings verify better with {better} (EER {facts[f'eer_{better}']:.3f}) than with "
            f"{facts.words['distance'] or 'the distance in use'} (EER {facts['eer']:.3f})."
        )
        advice = (
            "# either: train and verify with it\n"
            f'siamese = ks.SiameseWrapper(encoder, distance="{better}")\n'
            "# or: make the norms equal\n"
            "encoder = keras.Sequential([..., keras.layers.UnitNormalization()])"
        )
        severity = "error" if gain > limits.CLEARLY * limits.SWAP_GAIN else "warning"
        scale = {"normalize": True} if better == "cosine" else {}
        repair = change(distance=better, verify_distance=better, **scale)
        return self.found(facts, severity, what, signals, gain / limits.SWAP_GAIN, repair, advice)

    def not_that_of_the_loss(self, facts, signals):
        """The finding that the distance that the loss trains verifies better than the one in use."""
        gain, low = facts["loss_gain"], facts["loss_gain_low"]
        signals["eer_gained_by_distance_of_loss"] = Signal(gain, limits.LEAST_GAIN, 0.0, low, gain + (gain - low))
        name = facts.words.get("loss_distance") or "the distance of the loss"
        what = (
            f"The loss trains {name}, and the embeddings verify better with it (EER {facts['eer_of_loss']:.3f}) than "
            f"with {facts.words['distance'] or 'the distance in use'} (EER {facts['eer']:.3f})."
        )
        advice = (
            "# either: verify with the distance of the loss\n"
            "monitor = ks.callbacks.DivergenceMonitor(validation, distance=loss.distance)\n"
            "# or: make the norms equal\n"
            "encoder = keras.Sequential([..., keras.layers.UnitNormalization()])"
        )
        repair = change(verify_distance=None, normalize=True)
        return self.found(facts, "warning", what, signals, gain / limits.LEAST_GAIN, repair, advice)
