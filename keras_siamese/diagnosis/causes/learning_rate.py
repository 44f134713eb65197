"""Learning rate: steps are so small that they hardly move the weights, or so large that every epoch replaces them."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, is_imperfect, signals_of


class LearningRate(Cause):
    stage = "optimisation"
    after_nan = True
    reads = ("update_size_first",)
    needs = "the run's steps: train with a DivergenceMonitor, or diagnose(…, probe=True)"

    def judge(self, facts):
        first, largest = facts["update_size_first"], facts["update_size_largest"]
        sizes = {
            "update_size_first": (limits.SMALL_UPDATE, limits.USUAL_UPDATE),
            "update_size_last": None,
        }
        shown = {"learning_rate": None, "untrained_eer": None, "train_eer": None, "loss_rises": 1.0}
        probed = dict.fromkeys(
            ("probe_loss_fallen", "overfit_loss_left", "rate_loss_left", "best_rate_loss_left", "best_rate_factor")
        )
        signals = signals_of(facts, **sizes, **shown, **probed)
        gained = facts.get("untrained_eer", 0.5) - facts.get("train_eer", facts.get("eer", 0.5))
        if not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        if largest < limits.SMALL_UPDATE and gained < limits.LITTLE_GAINED:
            factor = power_of_ten(limits.USUAL_UPDATE / max(largest, limits.TINY), 4)
            note = f"{factor:g} times the rate"
            what = (
                f"In one epoch the weights move by {largest:.2g} of their size, while a tenth is usual: the encoder "
                "has hardly changed since its initialization."
            )
            severity = "error" if largest < limits.SMALL_UPDATE / limits.STRONGEST else "warning"
            strength = limits.SMALL_UPDATE / max(largest, limits.SMALL_UPDATE / limits.STRONGEST)
        elif first > limits.LARGE_UPDATE:
            factor = 1 / power_of_ten(first / limits.USUAL_UPDATE, 3)
            note = f"1/{1 / factor:g} of the rate"
            what = (
                f"In the first epoch the weights move by {first:.2g} times their size, while a tenth is usual: each "
                "step destroys the initial weights and what earlier steps have learned."
            )
            severity, strength = "error" if first > limits.TWICE * limits.LARGE_UPDATE else "warning", first
        else:
            return RuledOut(self.name, signals)
        rate = facts.get("learning_rate", float(limits.USUAL_RATE)) * factor
        advice = f"siamese.compile(keras.optimizers.Adam({rate:.2g}), loss=loss)  # {note}"

        def apply(recipe):
            return {**recipe, "learning_rate": recipe.get("learning_rate", float(limits.USUAL_RATE)) * factor}

        return self.found(facts, severity, what, signals, strength, apply, advice)


def power_of_ten(ratio, most):
    """The power of ten nearest to `ratio`, between 10 and 10 to the power of `most`."""
    return float(10 ** np.clip(np.round(np.log10(ratio)), 1, most))
