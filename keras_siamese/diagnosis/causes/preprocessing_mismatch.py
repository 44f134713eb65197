"""Preprocessing mismatch: held-out inputs were prepared in another way than training inputs.

Their range, orientation or channel order differs, on one side of the pairs or on both. Data sets differ for harmless
reasons too, so this counts only if held-out pairs are told apart better once the difference is undone, or much worse
than training pairs. No harmless reason makes values ten times as far apart as that, such as pixels in [0, 255] beside
[0, 1]: this is a warning in any case, unless the run verifies well.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import (
    ARRAYS,
    TRAINING_DATA,
    Cause,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    is_training_known,
    shown_are_easy,
    signals_of,
)


class PreprocessingMismatch(Cause):
    stage = "inputs"
    reads = ("held_out_spread", "gap")
    needs = TRAINING_DATA
    advice = (
        "# either: by one function\n"
        "x_train, x_valid = prepare(raw_train), prepare(raw_valid)\n"
        "# or: inside the model, such as pixels from 0 to 255, and nowhere else\n"
        "encoder = keras.Sequential([keras.layers.Rescaling(1 / 255), encoder])\n"
        "x_train, x_valid = raw_train, raw_valid"
    )

    def lacking(self, facts):
        return ARRAYS if is_training_known(facts) else TRAINING_DATA

    def judge(self, facts):
        beyond = {
            "held_out_spread": (limits.SCALES_APART, 0.0),
            "held_out_shift": (limits.INPUTS_SHIFTED, 0.0),
            "held_out_difference": (limits.OTHER_VALUES, 0.0),
            "turned": (limits.TURNED, 0.0),
            "swapped_channels": (limits.SIGMAS, 0.0),
            "one_side": (limits.SCALES_APART, 0.0),
        }
        # One side of the held-out pairs against the other, where both sides of the training pairs are alike.
        is_known = "drawn_towers" in facts and "held_out_towers" in facts
        apart = facts["held_out_towers"] - facts["drawn_towers"] if is_known else 0.0
        values = {name: facts.get(name, 0.0) for name in beyond} | {"one_side": apart}
        least_gain = limits.ERRORS_WORSE * facts.get("undone_gain_se", 0.0)
        gains = {"undone_gain": (least_gain, 0.0), "gap": (limits.GAP, 0.0)}
        signals = signals_of(facts, **beyond, **gains, eer=None, train_eer=None)
        if is_known:
            signals["one_side"] = Signal(apart, *beyond["one_side"])
        strength = {name: abs(values[name]) / limit for name, (limit, _) in beyond.items()}
        name = max(strength, key=strength.get)
        is_gap = facts["gap"] > limits.GAP and not shown_are_easy(facts)
        harms = is_gap and is_imperfect(facts, limits.FAILED_EER)
        harms = harms or facts.get("undone_gain", 0.0) > least_gain
        # If one side of the training pairs is scaled, its samples differ from those that the pairs are made of.
        is_scaled = abs(facts.get("drawn_towers", 0.0)) > limits.SCALES_APART
        is_gross = strength[name] >= limits.STRONGEST and is_imperfect(facts)
        if strength[name] <= 1 or not (harms or is_gross) or is_scaled:
            return RuledOut(self.name, signals)
        if name == "turned":
            seen = "are turned, mirrored or reversed, compared with training inputs"
        elif name == "swapped_channels":
            seen = "have their channels in another order than training inputs"
        elif name == "one_side":
            seen = f"are {10 ** abs(apart):.3g} times as large on one side of the pairs as on the other"
        else:
            seen = (
                f"have {10 ** facts['held_out_spread']:.3g} times the spread of training inputs, and their mean is "
                f"shifted by {facts['held_out_shift']:.3g} of these spreads"
            )
        what = f"Held-out inputs {seen}: the two sets were not prepared in the same way."
        if facts.get("undone_gain", 0.0) > least_gain:
            what += f" If that is undone, the EER is {facts['eer'] - facts['undone_gain']:.3f}, not {facts['eer']:.3f}."
        return self.found(
            facts, "error" if harms else "warning", what, signals, strength[name], change(preprocessing="same")
        )
