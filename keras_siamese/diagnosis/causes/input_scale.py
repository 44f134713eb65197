"""Input scale: inputs reach the first layer much larger or smaller than its initial weights are made for, or one input
of a pair on another scale than the other.

Networks can learn from large inputs too, so the scale counts only if verification can still improve.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of

RESCALED = "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), encoder])"


class InputScale(Cause):
    stage = "inputs"
    reads = ("input_scale",)
    needs = "samples that are arrays of numbers"
    advice = (
        f"# either: for pixels in [0, 255]\n{RESCALED}\n"
        "# or: for anything else\n"
        "normalise = keras.layers.Normalization()\n"
        "normalise.adapt(x)\n"
        "encoder = keras.Sequential([normalise, encoder])"
    )

    def judge(self, facts):
        scale, towers = facts["input_scale"], (limits.SCALES_APART, 0.0)
        signals = signals_of(facts, input_scale=(limits.LARGE_INPUT, 1.0), drawn_towers=towers, held_out_towers=towers)
        # If both sides of the training pairs are alike and those of held-out ones are not: `preprocessing_mismatch`.
        apart = abs(facts.get("drawn_towers", facts.get("held_out_towers", 0.0)))
        if apart > limits.SCALES_APART:
            what = f"One input of the pairs is {10**apart:.3g} times as large as the other: only one is preprocessed."
            advice = f"{RESCALED}  # inside the encoder, so for both inputs"
            return self.found(facts, "error", what, signals, limits.STRONGEST, change(tower_scale=1.0), advice)
        if limits.SMALL_INPUT <= scale <= limits.LARGE_INPUT or not is_imperfect(facts, limits.SCALED_EER):
            return RuledOut(self.name, signals)
        what = (
            f"The first layer with weights sees inputs of size {scale:.3g} (root mean square), while its initial "
            "weights are made for about 1."
        )
        is_far = scale > limits.TWICE * limits.LARGE_INPUT or limits.TWICE * scale < limits.SMALL_INPUT
        severity, strength = "error" if is_far else "warning", limits.WEIGHT_OF_DATA * abs(np.log10(scale))
        return self.found(facts, severity, what, signals, strength, change(input_scale=1.0))
