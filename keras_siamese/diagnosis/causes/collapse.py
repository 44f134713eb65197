"""Collapse: the encoder gives every input nearly the same embedding."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import (
    Cause,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    is_told_apart,
    signals_of,
)


class Collapse(Cause):
    """The encoder gives every input nearly the same embedding."""

    name = "collapse"
    stage = "optimisation"
    reads = ("spread", "spacing")

    def judge(self, facts):
        spread, spacing = facts["spread"], facts["spacing"]
        signals = {"spread": Signal(spread, limits.POINT, 1.0), "spacing": Signal(spacing, limits.POINT, 1.0)}
        signals |= signals_of(facts, effective_rank=None, loss_from_collapsed_value=limits.AT_COLLAPSE)
        on_floor = facts.get("loss_from_collapsed_value", 1.0) < limits.AT_COLLAPSE
        only_genuine = facts.get("weighted_positive_fraction") == 1
        if only_genuine:
            signals["weighted_positive_fraction"] = Signal(1.0, limits.COMMON_KIND, 0.5)
        # A few dimensions lower the spread, a common offset lowers the spacing of directions; one point lowers both.
        collapsed = (spread < limits.POINT and spacing < limits.POINT) or (
            only_genuine and spacing < limits.LOOSE_SPACING
        )
        learned = is_told_apart(facts) and not only_genuine
        if not collapsed or learned or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        what = f"Embeddings nearly coincide: their spread is {spread:.3f} (1 is uniform, 0 is a single point)"
        what += ", and the loss is that of identical embeddings" if on_floor else ""
        what += "; training has no impostor pairs, which alone keep embeddings apart" if only_genuine else ""
        return self.found(
            facts,
            "error" if spread < limits.COLLAPSED or on_floor or only_genuine else "warning",
            f"{what}.",
            signals,
            "keras.Sequential([..., keras.layers.Dense(64), keras.layers.UnitNormalization()])  # a fixed scale\n"
            "siamese.compile(keras.optimizers.Adam(learning_rate / 10), loss=loss)\n"
            'loss = ks.losses.BatchTripletLoss(negatives="semi_hard")  # the hardest negatives cause collapse\n'
            "ks.data.PairSequence(x, labels, positive_fraction=0.5)  # enough impostors",
            change(positive_fraction=0.5) if only_genuine else steadied(facts),
            limits.STRONGEST if only_genuine else limits.POINT / max(spread, limits.POINT / limits.STRONGEST),
            stage="data" if only_genuine else None,
        )


def steadied(facts):
    """A repair of a collapse: a fixed scale, not the hardest triplets and, if steps were large, smaller ones."""
    factor = 10 ** np.clip(np.round(np.log10(facts.get("update_size_first", 1.0) / limits.USUAL_UPDATE)), 0, 3)

    def apply(recipe):
        rate = recipe.get("learning_rate", float(limits.USUAL_RATE)) / factor
        mining = {"positives": "all", "negatives": "all", "online": False}
        return {**recipe, "normalize": True, "learning_rate": float(rate), "positive_fraction": 0.5, **mining}

    return apply
