"""Input scale: inputs are much larger or smaller than the initial weights expect, or one input than the other."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, change, is_imperfect, signals_of


class InputScale(Cause):
    """Inputs reach the first layer on a scale that its initial weights are not made for, or one input on another.

    Networks can learn from large inputs too, so the scale counts only if verification can still improve.
    """

    name = "input_scale"
    stage = "inputs"
    reads = ("input_scale",)
    needs = "samples that are arrays of numbers"

    def judge(self, facts):
        scale = facts["input_scale"]
        towers = (limits.TOWERS_APART, 0.0)
        signals = {"input_scale": Signal(scale, limits.LARGE_INPUT, 1.0)}
        signals |= signals_of(facts, drawn_towers=towers, held_out_towers=towers)
        apart = max(abs(facts.get(name, 0.0)) for name in ("drawn_towers", "held_out_towers"))
        if apart > limits.TOWERS_APART:
            return self.found(
                facts,
                "error",
                f"One input of the pairs is {10**apart:.3g} times as large as the other: only one is preprocessed.",
                signals,
                "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), *encoder.layers])  # inside, for both",
                change(tower_scale=1.0),
                limits.STRONGEST,
            )
        if limits.SMALL_INPUT <= scale <= limits.LARGE_INPUT or not is_imperfect(facts, limits.SCALED_EER):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if scale > limits.VERY_LARGE_INPUT or scale < limits.VERY_SMALL_INPUT else "warning",
            f"The first layer with weights sees inputs of size {scale:.3g} (root mean square), while its initial "
            "weights are made for about 1.",
            signals,
            "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), *encoder.layers])  # pixels in [0, 255]\n"
            "normalise = keras.layers.Normalization(); normalise.adapt(x)  # anything else, first in the encoder",
            change(input_scale=1.0),
            3 * abs(np.log10(scale)),
        )
