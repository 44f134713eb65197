"""NaN gradient: the loss of some pairs is finite and its gradient is not, so one step with them makes all weights NaN.

√d² has no finite derivative at d = 0, where two embeddings are equal, arccos none at a cosine of 1 or −1, and a
division by ‖z‖ none at z = 0. Or the loss is NaN itself and leaves the weights as they are, as where labels name
classes that the output has not.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, signals_of

SHOWN = 5  # rows; the report lists all
PLACES = {"equal": "two equal embeddings", "zero": "an embedding of zeros"}


class NanGradient(Cause):
    stage = "objective"
    after_nan = True
    needs = "a compiled model and its training data"
    advice = (
        "# either: a distance whose gradient is finite everywhere\n"
        "distance = ks.layers.DistanceLayer()\n"
        "# or: by hand, with the constant inside the root and not after it\n"
        "distance = keras.ops.sqrt(keras.ops.maximum(squared, 1e-7))\n"
        "unit = z / keras.ops.sqrt(keras.ops.maximum(keras.ops.sum(z**2, -1, keepdims=True), 1e-7))\n"
        "angle = keras.ops.arccos(keras.ops.clip(cosine, -1 + 1e-6, 1 - 1e-6))"
    )

    of_values = (
        "print(np.isfinite(x).all())\n"
        "print(np.unique(labels))  # of a loss of classes: whole numbers from 0 to the number of columns - 1"
    )

    def judge(self, facts):
        if "not_finite" not in facts:
            return self.of_loss(facts) if "loss_not_finite_since" in facts else RuledOut(self.name)
        found = [place for place in PLACES if facts.get(f"nan_at_{place}")]
        elsewhere = facts.get("nan_elsewhere", 0.0)
        signals = signals_of(facts, nan_at_equal=0.0, nan_at_zero=0.0, equal_pairs=0.0, zero_pairs=0.0)
        signals |= signals_of(facts, nan_elsewhere=0.0, nan_losses=0.0, update_size_first=limits.LARGE_UPDATE)
        met = [place for place in found if facts.get(f"{place}_pairs")]
        if met:
            counts = [f"{facts[f'{place}_pairs']:.0f} training pairs have {PLACES[place]}" for place in met]
            what = (
                f"{' and '.join(counts)}, where the gradient of the comparison is not finite: one step with such a "
                f"pair makes all weights NaN. {self.rows(facts, met)}"
            )
            return self.found(facts, "error", what, signals, limits.STRONGEST, self.repair)
        if elsewhere:
            what = (
                f"{elsewhere:.0%} of the training steps make finite weights NaN although their loss is finite: a root "
                "of 0, as on the diagonal of a distance matrix, or a division by 0."
            )
            return self.found(facts, "error", what, signals, limits.STRONGEST, self.repair)
        if found and facts.get("update_size_first", 0.0) <= limits.LARGE_UPDATE:
            place = " and at ".join(PLACES[one] for one in found)
            what = f"The gradient of the comparison is not finite at {place}. "
            if "equal_pairs" in facts:
                what += "No training pair has such embeddings at first; they come if all units of a layer become 0."
            else:
                what += "Pass the training data to find out which pairs lie there."
            return self.found(facts, "warning", what, signals, 1.0, self.repair)
        return RuledOut(self.name, signals)

    def of_loss(self, facts):
        """The finding that the loss is not finite, although all weights are."""
        signals = signals_of(facts, losses_not_finite=0.0, loss_not_finite_since=None)
        what = (
            f"The logged loss is NaN or infinite since epoch {facts['loss_not_finite_since']:.0f}, although all "
            "weights are finite: these steps teach the encoder nothing. Samples or labels are NaN, or a label names a "
            "class that the output does not have."
        )
        return self.found(facts, "error", what, signals, limits.STRONGEST, None, self.of_values)

    def rows(self, facts, places):
        """The first rows of the training data that lie there, in words."""
        rows = sorted({row for place in places for row in facts.rows.get(f"{place}_pairs", ())})
        more = ", …" if len(rows) > SHOWN else ""
        return f"Rows {', '.join(map(str, rows[:SHOWN]))}{more}." if rows else ""

    repair = staticmethod(change(epsilon=1e-7))  # keras.config.epsilon()
