"""Margin: on the scale of the embedding, the margin is so small that all impostor pairs satisfy it, or so large that
none can. Or the temperature of a loss on cosines is so high that all pairs count alike, or so low that only one counts.

The scale of the embeddings is that of the encoder before training. Cosines have one scale, [−1, 1].
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import is_own_loss, pair_loss
from keras_siamese.diagnosis.causes.base import (
    TRAINING_DATA,
    Cause,
    Finding,
    NotExamined,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    is_training_known,
    signals_of,
)


class Margin(Cause):
    stage = "objective"
    needs_embeddings = True
    needs = "a loss with a known margin of distances or temperature of cosines"

    def lacking(self, facts):
        if "margin" in facts:
            return "one encoder for both inputs" if facts.get("unshared") else "an encoder that Keras can copy"
        return self.needs if is_training_known(facts) or is_own_loss(facts) else TRAINING_DATA

    def judge(self, facts):
        has_margin = "margin" in facts and "untrained_distance" in facts
        if "temperature" in facts:
            tempered = self.of_temperature(facts)
        elif facts.get("loss_has_scale", 1) or "margin" in facts:
            tempered = NotExamined(self.name, self.lacking(facts))
        else:
            tempered = RuledOut(self.name)
        return self.of_margin(facts) if has_margin and not isinstance(tempered, Finding) else tempered

    def of_temperature(self, facts):
        """The answer of a loss that divides cosines by a temperature."""
        temperature, usual = facts["temperature"], facts["usual_temperature"]
        low, high = limits.SMALL_TEMPERATURE, limits.LARGE_TEMPERATURE
        is_high = temperature > high
        signals = signals_of(facts, temperature=(high if is_high else low, usual), loss_fallen=None)
        if low <= temperature <= high or not is_imperfect(facts, limits.WELL_EER):
            return RuledOut(self.name, signals)
        what = f"The loss divides cosines, which differ by 2 at most, by the temperature {temperature:.3g}: "
        what += "all pairs count nearly alike." if is_high else "only the hardest pair of each sample counts."
        advice = (
            "# either: if the loss takes a temperature\n"
            f"loss = {pair_loss(facts, facts.words['loss'], temperature=f'{usual:.3g}')}\n"
            "# or: if it takes a scale\n"
            f"loss = {pair_loss(facts, facts.words['loss'], scale=f'{1 / usual:.3g}')}"
        )
        strength = temperature / high if is_high else low / temperature
        return self.found(facts, "error", what, signals, strength, change(temperature=usual), advice)

    def of_margin(self, facts):
        """The answer of a loss with a margin."""
        margin, natural = facts["margin"], facts["untrained_distance"]
        reach = facts.get("reach", float("inf"))
        relative = margin / natural if natural else 0.0
        signals = signals_of(facts, margin=reach if np.isfinite(reach) else None)
        # A triplet margin is a gap between two distances, usually a fifth of one; a pair margin is one distance.
        usual = float(limits.USUAL_GAP) if facts.get("margin_is_gap") else 1.0
        small, large = limits.SMALL_MARGIN * usual, limits.LARGE_MARGIN * usual
        # If outputs have an upper end, that is the limit of a large margin.
        bound = small if relative < usual else large if np.isinf(reach) else None
        signals["margin_over_untrained_distance"] = Signal(relative, bound, usual)
        shown = {"active_impostors": limits.ALL_ACTIVE, "median_impostor_distance": None}
        signals |= signals_of(facts, impostor_distance=None, **shown)
        if not natural or not is_imperfect(facts, limits.WELL_EER):
            return RuledOut(self.name, signals)
        ratio = "times the distance of impostor pairs before training"
        if relative < small:
            what = f"The margin {margin:g} is {relative:.2g} {ratio}: it is too small to keep impostors apart."
            strength = small / max(relative, small / limits.STRONGEST)
        elif margin > reach or (relative > large and np.isinf(reach)):
            what = f"The margin {margin:g} is {relative:.3g} {ratio}: no pair can satisfy it, so all count alike."
            strength = relative / large
        else:
            return RuledOut(self.name, signals)
        better = float(f"{(usual if np.isfinite(reach) else usual * natural):.2g}")
        advice = f"loss = {pair_loss(facts, facts.words['loss'], margin=f'{better:g}')}"
        if np.isinf(reach):
            advice = (
                f"# either: on the scale of these distances\n{advice}\n"
                "# or: on the scale of embeddings of norm 1\n"
                "encoder = keras.Sequential([..., keras.layers.UnitNormalization()])\n"
                f"loss = {pair_loss(facts, facts.words['loss'], margin=f'{usual:g}')}"
            )

        def apply(recipe):
            if recipe.get("normalize", True) is None:  # the scale cannot be fixed, so the margin has to follow it
                return {**recipe, "margin": better}
            return {**recipe, "margin": usual, "normalize": True}

        return self.found(facts, "error", what, signals, strength, apply, advice)
