"""Pair losses: y_true `(batch,)` holds 1 for "same", y_pred `(batch, 1)` a distance or a probability.

Contract: each loss is a pure function of `same` `(batch,)`, 1 for genuine and 0 for impostor pairs, and of distances
`(batch,)`, and a small Keras class that holds its options. The classes accept `(batch,)` and `(batch, 1)`.

    siamese.compile("adam", loss=ContrastiveLoss(margin=1.0))
    siamese.compile("adam", loss=ContrastiveLoss(similar_label=0))       # for data whose label 1 means "different"
    siamese.compile("adam", loss=WeightedBinaryCrossentropy("balanced")) # a model that returns probabilities
    siamese.compile("adam", loss=OnlineContrastiveLoss(margin=0.5))      # only the hard pairs of each batch
    contrastive(same, distance, margin=1.0)                              # (batch,)
"""

from __future__ import annotations

import math
from typing import Any, Literal

from keras import ops

from keras_siamese._checks import check_choice, check_number
from keras_siamese._export import export
from keras_siamese._replicas import gathered
from keras_siamese._types import LossOptions, PairOptions, Tensor, Unpack
from keras_siamese.losses.base import SiameseLoss, concrete, refuse_margin
from keras_siamese.losses.statistics import STATISTICS
from keras_siamese.ops import at_least_float32, pair_rows


def contrastive(same, distance, margin=1.0, positive_margin=0.0, squared=True):
    """y·[d − m₊]₊² + (1 − y)·[m − d]₊², or its terms unsquared: `(batch,)`."""
    power = ops.square if squared else (lambda hinge: hinge)
    return same * power(ops.relu(distance - positive_margin)) + (1.0 - same) * power(ops.relu(margin - distance))


def margin_loss(same, distance, margin=0.2, beta=1.2):
    """y·[d − β + m]₊ + (1 − y)·[β − d + m]₊: `(batch,)`."""
    return same * ops.relu(distance - beta + margin) + (1.0 - same) * ops.relu(beta - distance + margin)


def online_contrastive(same, distance, margin=0.5):
    """y·d² + (1 − y)·[m − d]₊² of the hard pairs, as `OnlineContrastiveLoss` defines them, else 0: `(batch,)`."""
    genuine = same > 0.5
    mean = ops.mean(distance)
    far = ops.full_like(distance, float("inf"))
    closest = ops.min(ops.where(genuine, far, distance))
    farthest = ops.max(ops.where(genuine, distance, -far))
    closest = ops.where(ops.all(genuine), mean, closest)
    farthest = ops.where(ops.any(genuine), farthest, mean)
    # Selects the easy pairs, so that a NaN, which is not easy, stays in the loss.
    easy = ops.where(genuine, distance <= closest, distance >= farthest)
    losses = contrastive(ops.cast(genuine, distance.dtype), distance, margin)
    return ops.where(easy, ops.zeros_like(losses), losses)


def weighted_binary_crossentropy(same, prediction, class_weight=None, from_logits=False):
    """w_y·BCE·B / Σ w_y, whose mean over the batch of B is Σ w_y·BCE / Σ w_y: `(batch,)`.

    `prediction` `(batch,)` holds probabilities of "same", or logits; `class_weight` is None, "balanced" or `(w₀, w₁)`.
    """
    # PyTorch's own function raises an error if it meets a NaN.
    missing = ops.isnan(same) | ops.isnan(prediction)
    columns = [ops.expand_dims(ops.where(missing, 0.5, one), 1) for one in (same, prediction)]
    losses = ops.binary_crossentropy(*columns, from_logits=from_logits)
    losses = ops.squeeze(losses, axis=1) if len(losses.shape) == 2 else losses
    losses = ops.where(missing, float("nan"), losses)
    if class_weight is None:
        return losses
    if isinstance(class_weight, str):
        genuine, impostor = ops.sum(same), ops.sum(1.0 - same)
        # Each class gets half of the weight; the common factor cancels. With one class, all weights are equal.
        weights = same / ops.maximum(genuine, 1.0) + (1.0 - same) / ops.maximum(impostor, 1.0)
    else:
        weights = class_weight[0] * (1.0 - same) + class_weight[1] * same
    total = ops.sum(weights)
    mean_weight = total / ops.cast(ops.shape(weights)[0], weights.dtype)
    return losses * weights / ops.where(total > 0, mean_weight, ops.ones_like(total))


class PairLoss(SiameseLoss):
    """Base class of the pair losses: y_true `(batch,)` 1 = same; y_pred `(batch, 1)`. A subclass defines `per_pair`.

    A label may lie between 0 and 1, as smoothed ones do. One outside, such as −1 for "different", raises an error when
    the loss is called eagerly. A compiled graph cannot raise errors; there, the loss of such a pair is NaN.

    Args:
        positive_weight, negative_weight: ≥ 0, factor for the losses of genuine and of impostor pairs.
        similar_label: the value of y_true that means "same", 1 (default) or 0.
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        positive_weight: float = 1.0,
        negative_weight: float = 1.0,
        similar_label: int = 1,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.positive_weight = check_number("positive_weight", positive_weight, low=0, open_high=True)
        self.negative_weight = check_number("negative_weight", negative_weight, low=0, open_high=True)
        self.similar_label = check_choice("similar_label", similar_label, (0, 1))

    def prepared(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        y_true, y_pred = super().prepared(y_true, y_pred)
        check_labels_between(y_true)
        return y_true, y_pred

    @property
    def distance_margin(self) -> float | None:
        return getattr(self, "margin", None)

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        if positive_fraction is None or self.expects != "distance":
            return None
        impostor, genuine = ops.convert_to_numpy(self.per_pair(ops.convert_to_tensor([0.0, 1.0]), ops.zeros(2)))
        weighted = (1.0 - positive_fraction) * self.negative_weight * impostor
        return float(weighted + positive_fraction * self.positive_weight * genuine)

    def values_and_statistics(
        self, y_true: Tensor, y_pred: Tensor, wanted: bool
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        label, prediction = pair_rows(y_true, y_pred)
        prediction = at_least_float32(prediction)
        label = ops.cast(label, prediction.dtype)
        label = ops.where((label >= 0) & (label <= 1), label, float("nan"))
        (label, prediction), own = gathered(label, prediction)
        same = label if self.similar_label == 1 else 1.0 - label
        losses, statistics = self.per_pair(same, prediction), {}
        if wanted:
            statistics = {
                "positive_distance": (ops.sum(same * prediction), ops.sum(same)),
                "negative_distance": (ops.sum((1.0 - same) * prediction), ops.sum(1.0 - same)),
                "active_fraction": (ops.sum(ops.cast(losses > 0, losses.dtype)), ops.sum(ops.ones_like(losses))),
            }
        if not self.positive_weight == self.negative_weight == 1.0:
            losses = losses * (self.positive_weight * same + self.negative_weight * (1.0 - same))
        return own(losses), statistics

    def statistic_names(self) -> tuple[str, ...]:
        return STATISTICS if self.expects == "distance" else ()

    def check_reach(self, low: float, high: float) -> None:
        if self.distance_margin is not None:
            refuse_margin(self, "margin", self.distance_margin, high, low, high)

    def per_pair(self, same: Tensor, prediction: Tensor) -> Tensor:
        """The loss of each pair `(batch,)` from `same` `(batch,)` (1 = same) and y_pred `(batch,)`."""
        raise NotImplementedError


@export
class ContrastiveLoss(PairLoss):
    """Contrastive loss: y·[d − m₊]₊² + (1 − y)·[m − d]₊².

    It pulls genuine pairs together and pushes impostor pairs beyond the margin. y_true `(batch,)` 1 = same; y_pred
    `(batch, 1)` distances. Same value as TensorFlow Addons' `ContrastiveLoss` by default, and as
    pytorch-metric-learning's formula with ``squared=False``.

    Hadsell, Chopra, LeCun, *Dimensionality Reduction by Learning an Invariant Mapping*, CVPR 2006,
    https://doi.org/10.1109/CVPR.2006.100

    Args:
        margin: m > 0, in units of the distance; impostor pairs beyond it have loss 0. If the model's distances cannot
            reach it, training stops with an error at the start.
        positive_margin: m₊ in [0, margin]; genuine pairs within it have loss 0.
        squared: whether the hinges are squared (default) or linear.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    >>> loss = ContrastiveLoss(margin=1.0, reduction="none")
    >>> [round(float(value), 2) for value in loss(ops.array([1, 0, 0]), ops.array([[0.5], [0.8], [1.2]]))]
    [0.25, 0.04, 0.0]
    """

    def __init__(
        self, margin: float = 1.0, positive_margin: float = 0.0, squared: bool = True, **kwargs: Unpack[PairOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=0, high=self.margin)
        self.squared = bool(squared)

    def per_pair(self, same: Tensor, prediction: Tensor) -> Tensor:
        return contrastive(same, prediction, self.margin, self.positive_margin, self.squared)


@export
class MarginLoss(PairLoss):
    """Margin loss: y·[d − β + m]₊ + (1 − y)·[β − d + m]₊.

    It pulls genuine pairs to distances below β − m and pushes impostor pairs beyond β + m. y_true `(batch,)` 1 = same;
    y_pred `(batch, 1)` distances. The paper samples the pairs by distance and can learn β; here β is fixed.

    Wu, Manmatha, Smola, Krähenbühl, *Sampling Matters in Deep Embedding Learning*, ICCV 2017,
    https://arxiv.org/abs/1706.07567

    Args:
        margin: m > 0, in units of the distance. If the model's distances cannot reach β ± m, training raises an error.
        beta: β > 0, in units of the distance.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    >>> loss = MarginLoss(margin=0.2, beta=1.2, reduction="none")
    >>> [round(float(value), 2) for value in loss(ops.array([1, 1, 0]), ops.array([[0.5], [1.3], [0.8]]))]
    [0.0, 0.3, 0.6]
    """

    margin_is_gap = True

    def __init__(self, margin: float = 0.2, beta: float = 1.2, **kwargs: Unpack[PairOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)
        self.beta = check_number("beta", beta, low=0, open_low=True, open_high=True)

    def per_pair(self, same: Tensor, prediction: Tensor) -> Tensor:
        return margin_loss(same, prediction, self.margin, self.beta)

    def check_reach(self, low: float, high: float) -> None:
        if not low <= self.beta <= high:
            where = f"a distance of the model, in [{low:g}, {high:g}]"
            raise ValueError(f"`beta` of {type(self).__name__} must be {where}; got {self.beta:g}")
        refuse_margin(self, "margin", self.margin, min(high - self.beta, self.beta - low), low, high)


@export
class OnlineContrastiveLoss(PairLoss):
    """Online contrastive loss: y·d² + (1 − y)·[m − d]₊² for the hard pairs of the batch, 0 for the others.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)` distances. A genuine pair is hard if its distance is larger than
    that of the closest impostor pair in the batch; an impostor pair is hard if it is closer than the farthest genuine
    pair. If the batch has only one kind of pairs, they are compared with their mean. The choice has no gradient.

    sentence-transformers' `OnlineContrastiveLoss` is the same with ``reduction="sum"`` and a siamese model with
    ``distance="cosine"``, except that it also uses the mean distance if there is only one pair of the other kind. The
    default reduction is the mean over all rows, so the loss does not grow with the batch.

    Args:
        margin: m > 0, in units of the distance; as in `ContrastiveLoss`.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    >>> loss = OnlineContrastiveLoss(margin=0.5, reduction="none")
    >>> [round(float(value), 2) for value in loss(ops.array([1, 1, 0, 0]), ops.array([[0.1], [0.6], [0.3], [0.7]]))]
    [0.0, 0.36, 0.04, 0.0]
    """

    mining = ("hard", "hard")

    def __init__(self, margin: float = 0.5, **kwargs: Unpack[PairOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)

    def per_pair(self, same: Tensor, prediction: Tensor) -> Tensor:
        return online_contrastive(same, prediction, self.margin)


@export
class WeightedBinaryCrossentropy(PairLoss):
    """Class-weighted binary cross-entropy: Σ w_y·BCE / Σ w_y, for unequal numbers of genuine and impostor pairs.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)` probabilities of "same" (a siamese model with ``head="logistic"``)
    or logits. The weighted mean is taken within each batch. "balanced" gives each class half of the weight, as
    scikit-learn's ``compute_sample_weight("balanced", y)``.

    Args:
        class_weight: None (default), "balanced", or ``{0: w0, 1: w1}`` by the value of y_true, each ≥ 0.
        from_logits: whether y_pred holds logits.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    >>> loss = WeightedBinaryCrossentropy("balanced")
    >>> round(float(loss(ops.array([1, 0, 0, 0]), ops.array([[0.9], [0.2], [0.2], [0.2]]))), 4)
    0.1643
    """

    expects = "score"

    def __init__(
        self,
        class_weight: Literal["balanced"] | dict[int, float] | None = None,
        from_logits: bool = False,
        **kwargs: Unpack[PairOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.class_weight = check_class_weight(class_weight)
        self.from_logits = bool(from_logits)

    @property
    def expected_range(self) -> tuple[float, float]:
        return (-math.inf, math.inf) if self.from_logits else super().expected_range

    def per_pair(self, same: Tensor, prediction: Tensor) -> Tensor:
        weight = self.class_weight
        if isinstance(weight, dict):
            weight = (weight[1 - self.similar_label], weight[self.similar_label])
        return weighted_binary_crossentropy(same, prediction, weight, self.from_logits)

    def check_reach(self, low: float, high: float) -> None:
        if self.from_logits and (low, high) == (0.0, 1.0):
            fault = "has from_logits=True, but the model returns probabilities in [0, 1]: use from_logits=False"
            raise ValueError(f"{type(self).__name__} {fault}")

    def get_config(self) -> dict[str, Any]:
        weight = self.class_weight
        # JSON keys are strings: a saved dict is loaded as {"0": …, "1": …}, which `check_class_weight` reads.
        weight = {str(label): value for label, value in weight.items()} if isinstance(weight, dict) else weight
        return {**super().get_config(), "class_weight": weight}


def check_labels_between(y_true):
    """Raises if the labels are known, and one of them is not in [0, 1]."""
    known = concrete(y_true)
    if known is None or not known.size:
        return
    low, high = float(known.min()), float(known.max())
    if not (low >= 0 and high <= 1):  # also if one is NaN
        hint = 'Write 1 for "same" and 0 for "different", or the other way round with similar_label=0'
        raise ValueError(f"`y_true` must hold labels in [0, 1]; got labels from {low:g} to {high:g}. {hint}")


def check_class_weight(class_weight):
    if class_weight is None or isinstance(class_weight, str):
        return check_choice("class_weight", class_weight, (None, "balanced"))
    if not isinstance(class_weight, dict) or {str(label) for label in class_weight} != {"0", "1"}:
        raise ValueError(f'`class_weight` must be None, "balanced" or {{0: w0, 1: w1}}; got {class_weight!r}')
    return {
        int(label): check_number(f"class_weight[{label}]", weight, low=0, open_high=True)
        for label, weight in class_weight.items()
    }
