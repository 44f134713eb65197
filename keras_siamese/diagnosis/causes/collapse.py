"""Collapse: the encoder gives every input nearly the same embedding."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import pair_loss, smaller_rate
from keras_siamese.diagnosis.causes.base import (
    Cause,
    RuledOut,
    Signal,
    change,
    has_hardly_moved,
    implied_share,
    is_imperfect,
    moved_an_epoch,
    signals_of,
)


class Collapse(Cause):
    stage = "optimisation"
    needs_embeddings = True
    reads = ("spread", "spacing")
    advice = (
        "# one of these, or several: embeddings of a fixed scale\n"
        "encoder = keras.Sequential([..., keras.layers.Dense(64), keras.layers.UnitNormalization()])\n"
        "# smaller steps\n"
        "siamese.compile(keras.optimizers.Adam({rate}), loss=loss)\n"
        "# in a triplet loss, not the hardest negatives, which cause collapse\n"
        'loss = ks.losses.BatchTripletLoss(negatives="semi_hard")\n'
        "# enough impostors\n"
        "train = ks.data.PairSequence(x, labels, positive_fraction=0.5)"
    )

    def judge(self, facts):
        usual = self.advice.format(rate=smaller_rate(facts))
        spread, spacing, point = facts["spread"], facts["spacing"], (limits.POINT, 1.0)
        signals = signals_of(facts, spread=point, spacing=point, effective_rank=None)
        signals |= signals_of(facts, loss_from_collapsed_value=limits.AT_COLLAPSE)
        on_floor = facts.get("loss_from_collapsed_value", 1.0) < limits.AT_COLLAPSE
        share = facts.get("weighted_positive_fraction", 0.5)
        by_loss = share > 1 - limits.RARE_KIND and facts.get("positive_fraction", 1.0) <= 1 - limits.RARE_KIND
        if "weighted_positive_fraction" not in facts and (implied := implied_share(facts)) is not None:
            share = 1.0 if implied > 1 - limits.SMALLEST_SHARE else share
        only_genuine = share == 1 or by_loss
        if only_genuine:
            signals["weighted_positive_fraction"] = Signal(share, 1 - limits.RARE_KIND, 0.5)
        # Few dimensions lower the spread, a common offset lowers the spacing of directions; a collapse lowers both.
        is_point = spread < limits.POINT and spacing < limits.POINT
        collapsed = is_point or (only_genuine and spacing < limits.LOOSE_SPACING)
        learned = facts.get("train_eer", 1.0) < limits.TOLD_APART and not only_genuine
        # Untrained embeddings of inputs that resemble each other nearly coincide too; see `learning_rate`.
        is_new = has_hardly_moved(facts) and moved_an_epoch(facts) > 0
        if not collapsed or learned or is_new or not is_imperfect(facts, limits.FAILED_EER):
            return RuledOut(self.name, signals)
        what = f"Embeddings nearly coincide: their spread is {spread:.3f} (1 is uniform, 0 is a single point)"
        what += ", and the loss is that of identical embeddings" if on_floor else ""
        if by_loss and share < 1:
            what += f"; only {1 - share:.1%} of the weight is on impostor pairs, which keep embeddings apart."
            repair, advice = change(negative_weight=1.0), f"loss = {pair_loss(facts, negative_weight=1.0)}"
            return self.found(facts, "error", what, signals, limits.STRONGEST, repair, advice, stage="objective")
        if only_genuine:
            what += "; training has no impostor pairs, and only these keep embeddings apart."
            repair = change(positive_fraction=0.5)
            return self.found(facts, "error", what, signals, limits.STRONGEST, repair, usual, stage="data")
        # Steps that are too large collapse an embedding by themselves; otherwise it is the hardest pairs that do it.
        large = facts.get("update_size_first", 0.0) > limits.LARGE_UPDATE
        if "update_size_first" not in facts:
            large = facts.get("weights_grown", 1.0) > limits.LARGE_GROWTH
        is_blown_up = large and not facts.get("loss_mines", 1)
        stage = "generalisation" if is_blown_up else None
        strength = limits.POINT / max(spread, limits.POINT / limits.STRONGEST)
        severity = "error" if spread < limits.COLLAPSED or on_floor else "warning"
        return self.found(facts, severity, f"{what}.", signals, strength, steadied(facts), usual, stage=stage)


def steadied(facts):
    """A repair of a collapse: a fixed scale, not the hardest triplets and, if steps were large, smaller ones."""
    times = max(facts.get("update_size_first", 1.0) / limits.USUAL_UPDATE, 1.0)
    factor = 10 ** np.clip(np.round(np.log10(times)), 0, 3)

    def apply(recipe):
        rate = recipe.get("learning_rate", float(limits.USUAL_RATE)) / factor
        mining = {"positives": "all", "negatives": "all", "online": False}
        return {**recipe, "normalize": True, "learning_rate": float(rate), "positive_fraction": 0.5, **mining}

    return apply
