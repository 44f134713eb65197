"""Learning rate: steps are so small that they hardly move the weights, or so large that every epoch replaces them; or a
schedule makes them small before the encoder has learned.

A monitor measures the steps. After a run without one, the weights tell: biases begin at values that all runs share, so
they show how far the run has come, and steps that are too large leave all kernels many times larger than new ones.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import (
    Cause,
    NotExamined,
    RuledOut,
    has_hardly_moved,
    is_imperfect,
    moved_an_epoch,
    signals_of,
)


class LearningRate(Cause):
    stage = "optimisation"
    after_nan = True
    needs = "the run's steps: train with a DivergenceMonitor, or diagnose(…, probe=True)"

    of_loop = (
        "# of your own loop: the model that it trains, with the weights that it has after each epoch\n"
        "monitor.start(model)\n"
        "print(np.abs(model.get_weights()[0]).sum())  # before and after an epoch"
    )

    def lacking(self, facts):
        return "an epoch after which the weights were finite" if "not_finite" in facts else self.needs

    def judge(self, facts):
        first, moved = facts.get("update_size_first", 0.0), moved_an_epoch(facts)
        grown = facts.get("weights_grown", 0.0) if "update_size_first" not in facts else 0.0
        if moved is None and not grown and "rate_left" not in facts:
            return NotExamined(self.name, self.lacking(facts))
        sizes = {
            "update_size_first": (limits.SMALL_UPDATE, limits.USUAL_UPDATE),
            "update_size_last": None,
        }
        if "update_size_first" not in facts:
            sizes = {"weights_grown": (limits.LARGE_GROWTH, 1.0), "biases_moved": None}
        shown = {"learning_rate": None, "untrained_eer": None, "train_eer": None, "loss_rises": 1.0}
        shown["rate_left"] = (limits.RATE_LEFT, 1.0)
        probed = dict.fromkeys(
            ("probe_loss_fallen", "overfit_loss_left", "rate_loss_left", "best_rate_loss_left", "best_rate_factor")
        )
        signals = signals_of(facts, **sizes, **shown, **probed)
        gained = facts.get("untrained_eer", 0.5) - facts.get("train_eer", facts.get("eer", 0.5))
        if "first_eer" in facts:  # if steps are so small, the first epoch has left what it was given: new or pretrained
            gained = min(gained, facts["first_eer"] - facts.get("eer", 0.5))
        left = facts.get("rate_left", 1.0)
        if not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        stands = moved == 0 and "update_size_largest" in facts and facts.get("learning_rate") != 0
        if stands and gained < limits.LITTLE_GAINED and facts.get("trainable_share", 1.0) > 0:
            what = (
                "The weights have not changed at all in this run, although its learning rate is above 0: all gradients "
                "are 0, the steps are those of another model, or their results are not put back into this one."
            )
            return self.found(facts, "error", what, signals, limits.STRONGEST, None, self.of_loop)
        if has_hardly_moved(facts) and gained < limits.LITTLE_GAINED:
            factor = power_of_ten(limits.USUAL_UPDATE / max(moved, limits.TINY), 4)
            what = (
                f"In one epoch the weights move by {moved:.2g} of their size, while a tenth is usual: the encoder "
                "has hardly changed since training began."
            )
            severity = "error" if moved < limits.SMALL_UPDATE / limits.STRONGEST else "warning"
            strength = limits.SMALL_UPDATE / max(moved, limits.SMALL_UPDATE / limits.STRONGEST)
        elif first > limits.LARGE_UPDATE:
            factor = 1 / power_of_ten(first / limits.USUAL_UPDATE, 3)
            what = (
                f"In the first epoch the weights move by {first:.2g} times their size, while a tenth is usual: each "
                "step destroys the initial weights and what earlier steps have learned."
            )
            severity, strength = "error" if first > limits.TWICE * limits.LARGE_UPDATE else "warning", first
        elif grown > limits.LARGE_GROWTH:
            factor = 1 / power_of_ten(grown, 3)
            what = (
                f"All kernels are at least {grown:.2g} times as large as new ones: the steps were so large that they "
                "have destroyed the initial weights and what earlier steps had learned."
            )
            severity, strength = "error", grown / limits.LARGE_GROWTH
        elif left < limits.RATE_LEFT and facts.get("train_eer", facts.get("eer", 0.0)) > limits.UNLEARNED:
            return self.decayed(facts, left, signals)
        else:
            return RuledOut(self.name, signals)
        tried = facts.get("best_rate_factor", 1.0)
        if (tried - 1) * (factor - 1) > 0:  # measured, in the same direction
            factor = tried
        return self.found(facts, severity, what, signals, strength, *self.other_rate(facts, factor))

    @staticmethod
    def other_rate(facts, factor):
        """`(repair, advice)`: `factor` times the rate; the usual rate in place of 0."""
        usual = float(limits.USUAL_RATE)
        note = f"{factor:g} times the rate" if factor > 1 else f"1/{1 / factor:g} of the rate"
        if facts.get("learning_rate") == 0:
            note = "in place of 0"

        def apply(recipe):
            return {**recipe, "learning_rate": recipe.get("learning_rate", usual) * factor or usual}

        rate = apply({"learning_rate": facts.get("learning_rate", usual)})["learning_rate"]
        return apply, f"siamese.compile(keras.optimizers.Adam({rate:.2g}), loss=loss)  # {note}"

    def decayed(self, facts, left, signals):
        """The finding that the schedule leaves a `left` share of the rate after the first quarter of the run."""
        what = (
            f"After the first quarter of the run, the learning rate is {left:.2g} of what it was at most: the schedule "
            "stops the encoder before it has learned its training identities."
        )
        advice = (
            "steps = epochs * len(train)  # of the whole run\n"
            "rate = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=steps)\n"
            "siamese.compile(keras.optimizers.Adam(rate), loss=loss)"
        )
        severity = "error" if left < limits.RATE_LEFT / limits.STRONGEST else "warning"
        strength = limits.RATE_LEFT / max(left, limits.RATE_LEFT / limits.STRONGEST)
        return self.found(facts, severity, what, signals, strength, lambda recipe: {**recipe, "schedule": None}, advice)


def power_of_ten(ratio, most):
    """The power of ten nearest to `ratio`, between 10 and 10 to the power of `most`."""
    return float(10 ** np.clip(np.round(np.log10(ratio)), 1, most))
