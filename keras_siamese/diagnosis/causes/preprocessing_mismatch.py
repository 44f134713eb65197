"""Preprocessing mismatch: held-out inputs were prepared in another way than training inputs.

Their range, orientation or channel order differs, on one side of the pairs or on both. Data sets differ for harmless
reasons too, so this counts only if held-out pairs are told apart much worse than training pairs.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, change, is_imperfect, signals_of


class PreprocessingMismatch(Cause):
    stage = "inputs"
    reads = ("held_out_spread", "gap")
    needs = "training samples that are arrays of numbers, as `train`"
    advice = (
        "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), *encoder.layers])  # inside the model\n"
        "x_valid = prepare(raw_valid)  # or by the one function that also made x_train: prepare(raw_train)"
    )

    def judge(self, facts):
        beyond = {
            "held_out_spread": (limits.SCALES_APART, 0.0),
            "held_out_shift": (limits.INPUTS_SHIFTED, 0.0),
            "held_out_difference": (limits.OTHER_VALUES, 0.0),
            "turned": (limits.TURNED, 0.0),
            "swapped_channels": (limits.SIGMAS, 0.0),
        }
        signals = signals_of(facts, **beyond, gap=(limits.GAP, 0.0), eer=None, train_eer=None)
        strength = {name: abs(facts.get(name, 0.0)) / limit for name, (limit, _) in beyond.items()}
        name = max(strength, key=strength.get)
        harms = facts["gap"] > limits.GAP and is_imperfect(facts, limits.FAILED_EER)
        if strength[name] <= 1 or not harms:
            return RuledOut(self.name, signals)
        if name == "turned":
            seen = "are turned, mirrored or reversed, compared with training inputs"
        elif name == "swapped_channels":
            seen = "have their channels in another order than training inputs"
        else:
            seen = (
                f"have {10 ** facts['held_out_spread']:.3g} times the spread of training inputs, and their mean is "
                f"shifted by {facts['held_out_shift']:.3g} of these spreads"
            )
        what = f"Held-out inputs {seen}: the two sets were not prepared in the same way."
        return self.found(facts, "error", what, signals, strength[name], change(preprocessing="same"))
