"""Causes in how the loss and the optimizer move the embedding: collapse, margin, learning rate."""

import numpy as np

from keras_siamese.diagnosis.causes.base import (
    Cause,
    RuledOut,
    Signal,
    change,
    is_imperfect,
    is_told_apart,
    signals_of,
)

POINT = 0.25  # spread and spacing, below which embeddings are nearly one point


class Collapse(Cause):
    """The encoder gives every input nearly the same embedding."""

    name = "collapse"
    reads = ("spread", "spacing")
    explains = ("threshold", "weak_features", "learning_rate")

    def judge(self, facts):
        spread, spacing = facts["spread"], facts["spacing"]
        signals = {"spread": Signal(spread, POINT, 1.0), "spacing": Signal(spacing, POINT, 1.0)}
        signals |= signals_of(facts, effective_rank=None, loss_from_collapsed_value=0.02)
        on_floor = facts.get("loss_from_collapsed_value", 1.0) < 0.02
        only_genuine = facts.get("weighted_positive_fraction") == 1.0
        if only_genuine:
            signals["weighted_positive_fraction"] = Signal(1.0, 0.95, 0.5)
        # Few dimensions in use lower the spread, and a common offset the directions; a point does both.
        collapsed = (spread < POINT and spacing < POINT) or (only_genuine and spacing < 0.5)
        if not collapsed or not is_imperfect(facts, 0.1) or (is_told_apart(facts) and not only_genuine):
            return RuledOut(self.name, signals)
        what = f"Embeddings nearly coincide: spread {spread:.3f} where 1 is uniform and 0 is one point"
        what += ", and the loss sits where identical embeddings put it" if on_floor else ""
        what += "; training has no impostor pairs, which alone keep them apart" if only_genuine else ""
        return self.found(
            facts,
            "error" if spread < 0.1 or on_floor or only_genuine else "warning",
            f"{what}.",
            signals,
            "keras.Sequential([..., keras.layers.Dense(64), keras.layers.UnitNormalization()])  # fix the scale\n"
            "siamese.compile(keras.optimizers.Adam(learning_rate / 10), loss=loss)\n"
            'loss = ks.losses.BatchTripletLoss(negatives="semi_hard")  # not the hardest, which collapse it\n'
            "ks.data.PairSequence(x, labels, positive_fraction=0.5)  # enough impostors",
            change(positive_fraction=0.5) if only_genuine else steadied(facts),
            10.0 if only_genuine else POINT / max(spread, 1e-3),
            (*self.explains, "margin", "pair_imbalance") if only_genuine else self.explains,
        )


def steadied(facts):
    """A repair of a collapse: a fixed scale, not the hardest triplets and, if steps were large, smaller ones."""
    factor = 10 ** np.clip(np.round(np.log10(facts.get("update_size_first", 1.0) / 0.1)), 0, 3)

    def apply(recipe):
        rate = recipe.get("learning_rate", 1e-3) / factor
        mining = {"positives": "all", "negatives": "all", "online": False}
        return {**recipe, "normalize": True, "learning_rate": float(rate), "positive_fraction": 0.5, **mining}

    return apply


class Margin(Cause):
    """The margin leaves the impostor pairs either all satisfied or none.

    What is small depends on the scale that embeddings have of themselves: that of the encoder before training.
    """

    name = "margin"
    reads = ("margin", "untrained_distance")
    needs = "a loss with a margin, and an encoder that Keras can copy"
    explains = ("collapse", "threshold", "weak_features", "mining", "pair_imbalance", "learning_rate")

    def judge(self, facts):
        margin, natural = facts["margin"], facts["untrained_distance"]
        reach = facts.get("reach", float("inf"))
        signals = {
            "margin": Signal(margin, reach if np.isfinite(reach) else None),
            "margin_over_untrained_distance": Signal(margin / natural if natural else 0.0, 0.1, 1.0),
        }
        signals |= signals_of(facts, impostor_distance=None, active_impostors=0.99, median_impostor_distance=None)
        if not natural or not is_imperfect(facts, 0.05):
            return RuledOut(self.name, signals)
        relative = margin / natural
        # A triplet margin is a gap between two distances, a fifth of them by custom; a pair margin is one distance.
        small, large = (0.01, 5.0) if facts.get("margin_is_gap") else (0.1, 8.0)
        if relative < small:
            what = f"The margin {margin:g} is {relative:.2g} of the distance that impostor pairs have untrained: too "
            what += "small to keep them apart."
            strength = small / max(relative, 1e-4)
        elif margin > reach or (relative > large and np.isinf(reach)):
            what = f"The margin {margin:g} is {relative:.3g} times the distance that impostor pairs have untrained: "
            what += "no pair can satisfy it, and none matters more than another."
            strength = relative / large
        else:
            return RuledOut(self.name, signals)
        usual = 0.2 if facts.get("margin_is_gap") else 1.0
        better = float(f"{(usual if np.isfinite(reach) else usual * natural):.2g}")
        return self.found(
            facts,
            "error",
            what,
            signals,
            f"loss = ks.losses.{facts.words['loss']}(margin={better:g})  # on the scale of the distances at hand\n"
            "encoder = keras.Sequential([..., keras.layers.UnitNormalization()])  # which fixes that scale",
            lambda recipe: {**recipe, "margin": usual, "normalize": True},
            strength,
        )


class LearningRate(Cause):
    """Steps are so small that weights hardly move, or so large that each epoch replaces them."""

    name = "learning_rate"
    reads = ("update_size_first",)
    needs = "the run's steps: train with a DivergenceMonitor, or diagnose(…, probe=True)"
    explains = ("weak_features", "mining", "margin")

    def judge(self, facts):
        first, last, largest = (facts[f"update_size_{name}"] for name in ("first", "last", "largest"))
        signals = {
            "update_size_first": Signal(first, 0.01, 0.1),
            "update_size_last": Signal(last, 0.5, 0.05),
        }
        signals |= signals_of(facts, learning_rate=None, untrained_eer=None, train_eer=None, loss_rises=1.0)
        signals |= signals_of(facts, probe_loss_fallen=None)
        trained = facts.get("train_eer", facts["eer"])
        gained = facts.get("untrained_eer", 0.5) - trained
        rate = facts.get("learning_rate", 1e-3)
        if largest < 0.01 and gained < 0.1 and is_imperfect(facts, 0.1):
            factor = float(10 ** np.clip(np.round(np.log10(0.1 / max(largest, 1e-9))), 1, 4))
            return self.found(
                facts,
                "error" if largest < 0.001 else "warning",
                f"In an epoch the weights move by {largest:.2g} of their size, where a tenth is usual: the encoder is "
                "nearly the untrained one.",
                signals,
                f"siamese.compile(keras.optimizers.Adam({rate * factor:.2g}), loss=loss)  # {factor:g} times the rate",
                lambda recipe: {**recipe, "learning_rate": recipe.get("learning_rate", 1e-3) * factor},
                0.01 / max(largest, 1e-6),
            )
        if first > 1.0 and is_imperfect(facts, 0.1):
            factor = float(10 ** np.clip(np.round(np.log10(first / 0.1)), 1, 3))
            return self.found(
                facts,
                "error" if first > 3.0 else "warning",
                f"In the first epoch the weights move by {first:.2g} times their size, where a tenth is usual: what "
                "they began with, and what a step has learned, is lost in the next.",
                signals,
                f"siamese.compile(keras.optimizers.Adam({rate / factor:.2g}), loss=loss)  # 1/{factor:g} of the rate",
                lambda recipe: {**recipe, "learning_rate": recipe.get("learning_rate", 1e-3) / factor},
                first,
            )
        return RuledOut(self.name, signals)
