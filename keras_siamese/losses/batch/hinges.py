"""Batch losses on pairs: positive and negative pairs each have a margin, and their two means are added.

Contract: as in `base`. Pure functions of the two sides of `Rows` return one `Terms` for the positive and one for the
negative pairs. Each has its own mean, so the many negative pairs do not outweigh the few positive pairs.

    encoder.compile("adam", loss=BatchContrastiveLoss(margin=1.0))
    batch_contrastive(*rows.sides, margin=1.0)                          # two Terms, each (rows,)
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._types import BatchOptions, DistanceOptions, Tensor, Unpack
from keras_siamese.losses.batch.base import Terms, above_zero, check_margin, over, sum_above_zero
from keras_siamese.losses.batch.rows import Rows
from keras_siamese.losses.batch.softmaxes import CosineLoss
from keras_siamese.losses.batch.triplets import DistanceLoss
from keras_siamese.ops import count, masked, masked_sum


def batch_contrastive(positive, negative, margin=1.0, positive_margin=0.0, squared=False):
    """[d − m₊]₊ over positive and [m − d]₊ over negative pairs, or their squares, each a mean over values > 0."""
    power = ops.square if squared else (lambda costs: costs)
    pulled = power(ops.relu(positive.entries - positive_margin))
    pushed = power(ops.relu(margin - negative.entries))
    return [above_zero(pulled, positive.mask), above_zero(pushed, negative.mask)]


@export
class BatchContrastiveLoss(DistanceLoss):
    """Contrastive loss on all pairs in a batch: mean of [d − m₊]₊ (positive) + mean of [m − d]₊ (negative pairs).

    Each mean is over the values above zero. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. Same value
    as pytorch-metric-learning's `ContrastiveLoss`.

    Hadsell, Chopra, LeCun, *Dimensionality Reduction by Learning an Invariant Mapping*, CVPR 2006,
    https://doi.org/10.1109/CVPR.2006.100

    Args:
        margin: m > 0, in units of the distance.
        positive_margin: m₊ in [0, margin].
        squared: whether the hinges are squared.
        **kwargs: `distance`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = BatchContrastiveLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.5
    """

    hinged = True

    def __init__(
        self,
        margin: float = 1.0,
        positive_margin: float = 0.0,
        squared: bool = False,
        **kwargs: Unpack[DistanceOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance, open_low=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=0, high=self.margin)
        self.squared = bool(squared)

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        return self.margin**2 if self.squared else self.margin

    def terms(self, rows: Rows) -> list[Terms]:
        return batch_contrastive(*rows.sides, self.margin, self.positive_margin, self.squared)


@export
class SNRContrastiveLoss(BatchContrastiveLoss):
    """Signal-to-noise contrastive loss: `BatchContrastiveLoss` on the distance var(a − b) / var(a), a the anchor.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. Same value as pytorch-metric-learning's
    `SignalToNoiseRatioContrastiveLoss` without its normalisation, which has no effect if all norms are equal.

    The gradient by an embedding is bounded, because the ratio has no bound for anchors of almost no variance. With
    ``squared=True`` it is not bounded: an embedding of zeros then gives infinite gradients in float16.

    Yuan, Deng, Tang, Tang, Chen, *Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning*, CVPR 2019,
    https://arxiv.org/abs/1904.02616

    Args:
        margin: m > 0.
        positive_margin: m₊ in [0, margin].
        squared: whether the hinges are squared.
        **kwargs: `distance` (by default "snr"), `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in
            `DistanceLoss`.

    >>> loss = SNRContrastiveLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]]))), 4)
    0.625
    """

    def __init__(
        self,
        margin: float = 1.0,
        positive_margin: float = 0.0,
        squared: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(margin, positive_margin, squared, distance=kwargs.pop("distance", "snr"), **kwargs)


def threshold_consistent_margin(similarity, positive, negative, positive_margin=0.9, negative_margin=0.5):
    """Mean of m₊ − s over positive pairs with s ≤ m₊, and of s − m₋ over negative pairs with s ≥ m₋."""
    pulled = over(positive_margin - similarity, positive & (similarity <= positive_margin))
    pushed = over(similarity - negative_margin, negative & (similarity >= negative_margin))
    return [pulled._replace(possible=lambda: positive), pushed._replace(possible=lambda: negative)]


@export
class ThresholdConsistentMarginLoss(CosineLoss):
    """Threshold-consistent margin loss: λ₊·mean[m₊ − s₊] + λ₋·mean[s₋ − m₋], over pairs past their margin.

    These are positive pairs with s ≤ m₊ and negative pairs with s ≥ m₋. y_true identities `(batch,)`; y_pred embeddings
    `(batch, dim)`, of any norm. Add this regulariser to another loss; it makes one threshold suit all identities. Same
    value as pytorch-metric-learning's `ThresholdConsistentMarginLoss`.

    Zhang, Xu, Li, Koutra, et al., *Threshold-Consistent Margin Loss for Open-World Deep Metric Learning*, ICLR 2024,
    https://arxiv.org/abs/2307.04047

    Args:
        positive_weight: λ₊ ≥ 0.
        negative_weight: λ₋ ≥ 0.
        positive_margin: m₊ in [−1, 1]; positive pairs should have a higher cosine.
        negative_margin: m₋ in [−1, 1]; negative pairs should have a lower cosine.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = ThresholdConsistentMarginLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))), 4)
    1.4
    """

    hinged = True

    def __init__(
        self,
        positive_weight: float = 1.0,
        negative_weight: float = 1.0,
        positive_margin: float = 0.9,
        negative_margin: float = 0.5,
        **kwargs: Unpack[BatchOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.positive_weight = check_number("positive_weight", positive_weight, low=0, open_high=True)
        self.negative_weight = check_number("negative_weight", negative_weight, low=0, open_high=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=-1, high=1)
        self.negative_margin = check_number("negative_margin", negative_margin, low=-1, high=1)

    def terms(self, rows: Rows) -> list[Terms]:
        margins = self.positive_margin, self.negative_margin
        pulled, pushed = threshold_consistent_margin(rows.matrix, rows.positive, rows.negative, *margins)
        pulled = pulled._replace(total=self.positive_weight * pulled.total)
        return [pulled, pushed._replace(total=self.negative_weight * pushed.total)]


def intra_pair_variance(sides, counts, means, positive_epsilon=0.01, negative_epsilon=0.01):
    """[(1−ε₊)s̄₊ − s]₊² over positive and [s − (1+ε₋)s̄₋]₊² over negative pairs.

    s̄ are the `means` of the batch, scalars, `counts` the numbers of the rows' pairs `(rows,)`; positive pairs first.
    """
    low, high = (1.0 - positive_epsilon) * means[0], (1.0 + negative_epsilon) * means[1]
    terms = []
    for gap, (_, mask), pairs in zip((low - sides[0].entries, sides[1].entries - high), sides, counts, strict=True):
        beyond = masked(ops.relu(gap), mask)
        terms.append(Terms(ops.sum(beyond * beyond, axis=1), pairs, lambda n=pairs: n, lambda b=beyond: ops.sign(b)))
    return terms


@export
class IntraPairVarianceLoss(CosineLoss):
    """Intra-pair variance loss: mean[(1−ε₊)s̄₊ − s₊]₊² + mean[s₋ − (1+ε₋)s̄₋]₊².

    s̄₊ and s̄₋ are the mean cosines of the batch's positive and negative pairs. y_true identities `(batch,)`; y_pred
    embeddings `(batch, dim)`, of any norm. Add this regulariser to another loss; it makes pairs of one kind equally
    similar. Same value as pytorch-metric-learning's `IntraPairVarianceLoss`.

    Yu, Tao, *Deep Metric Learning with Tuplet Margin Loss*, ICCV 2019, https://doi.org/10.1109/ICCV.2019.00659

    Args:
        positive_epsilon: ε₊ in [0, 1].
        negative_epsilon: ε₋ in [0, 1].
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = IntraPairVarianceLoss(positive_epsilon=0.0, negative_epsilon=0.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))), 4)
    0.125
    """

    hinged = True

    def __init__(
        self, positive_epsilon: float = 0.01, negative_epsilon: float = 0.01, **kwargs: Unpack[BatchOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.positive_epsilon = check_number("positive_epsilon", positive_epsilon, low=0, high=1)
        self.negative_epsilon = check_number("negative_epsilon", negative_epsilon, low=0, high=1)

    def summarize(self, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
        return [masked_sum(*side) for side in rows.sides], [count(side.mask) for side in rows.sides]

    def terms(self, rows: Rows) -> list[Terms]:
        sums, counts = rows.summary
        means = [ops.sum(one) / ops.maximum(ops.sum(n), 1.0) for one, n in zip(sums, counts, strict=True)]
        epsilons = self.positive_epsilon, self.negative_epsilon
        counts = [rows.of_batch(n) for n in counts]
        return intra_pair_variance(rows.sides, counts, means, *epsilons)


def batch_margin(positive, negative, margin=0.2, beta=1.2):
    """[d_ap − β + m]₊ + [β − d_an + m]₊ over all triplets, divided by the number of these terms above zero."""
    pulled, pushed = ops.relu(positive.entries - (beta - margin)), ops.relu((beta + margin) - negative.entries)
    positives, negatives = count(positive.mask), count(negative.mask)
    # Each positive pair is in one triplet for each negative of its anchor, and the reverse.
    sides = (*sum_above_zero(pulled, positive.mask), negatives), (*sum_above_zero(pushed, negative.mask), positives)
    total, active = (sum(side[part] * side[2] for side in sides) for part in (0, 1))
    return Terms(total, active, lambda: 2.0 * positives * negatives)


@export
class BatchMarginLoss(DistanceLoss):
    """Margin loss: sum of [d(a, p) − β + m]₊ + [β − d(a, n) + m]₊ over all triplets / number of terms above zero.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. Same value as pytorch-metric-learning's `MarginLoss`
    with a fixed β.

    Wu, Manmatha, Smola, Krähenbühl, *Sampling Matters in Deep Embedding Learning*, ICCV 2017,
    https://arxiv.org/abs/1706.07567

    Args:
        margin: m ≥ 0, in units of the distance.
        beta: β > 0, the distance that separates positive from negative pairs.
        **kwargs: `distance`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = BatchMarginLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    0.9
    """

    hinged = True
    margin_is_gap = True

    def __init__(self, margin: float = 0.2, beta: float = 1.2, **kwargs: Unpack[DistanceOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance)
        self.beta = check_margin("beta", beta, self.distance, open_low=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [batch_margin(*rows.sides, self.margin, self.beta)]


def ranked_list(positive, negative, margin, negative_temperature, positive_temperature=0.0, imbalance=0.5, alpha=None):
    """(1−λ)·Σ w(d − (α−m)) / Σ w over positives with d > α − m, + λ·Σ w(α − d) / Σ w over negatives with d < α.

    One value for each row. w = e^{T₊(d−(α−m))} and e^{T₋(α−d)}; 1e-5·batch is added to the sums of weights.
    """
    alpha = 1.0 + margin / 2.0 if alpha is None else alpha
    floor = 1e-5 * ops.cast(ops.shape(negative.entries)[1], negative.entries.dtype)
    beyond = masked(ops.relu(positive.entries - (alpha - margin)), positive.mask)
    inside = masked(ops.relu(alpha - negative.entries), negative.mask)

    def weighted_mean(gap, temperature):
        active = ops.sign(ops.stop_gradient(gap))
        if temperature == 0.0:
            return ops.sum(gap, axis=1) / (ops.sum(active, axis=1) + floor)
        # Relative to the largest weight, which could overflow.
        top = temperature * ops.stop_gradient(ops.max(gap, axis=1, keepdims=True))
        exponent = temperature * gap - top
        exponent = exponent + ops.relu(-80.0 - ops.stop_gradient(exponent))
        weights = ops.exp(exponent) * active
        return ops.sum(weights * gap, axis=1) / (ops.sum(weights, axis=1) + floor * ops.exp(-top[:, 0]))

    pulled, pushed = weighted_mean(beyond, positive_temperature), weighted_mean(inside, negative_temperature)
    costs = (1.0 - imbalance) * pulled + imbalance * pushed
    sides = (
        lambda: count(positive.mask) + count(negative.mask),
        lambda: sum(map(count, map(ops.sign, (beyond, inside)))),
    )
    return Terms(costs, ops.ones_like(costs), *sides)


@export
class RankedListLoss(DistanceLoss):
    """Ranked list loss: mean over rows of (1−λ)·wmean[d − (α−m)] + λ·wmean[α − d].

    The first weighted mean is over positives with d > α − m, with weights e^{T₊(d−(α−m))}; the second is over negatives
    with d < α, with weights e^{T₋(α−d)}. 1e-5·batch is added to the sums of weights. y_true identities `(batch,)`;
    y_pred embeddings `(batch, dim)`, best of unit norm. Same value as pytorch-metric-learning's `RankedListLoss`.

    Wang, Hua, Kodirov, Hu, Garnier, Robertson, *Ranked List Loss for Deep Metric Learning*, CVPR 2019,
    https://arxiv.org/abs/1903.03238

    Args:
        margin: m > 0, between positives and negatives, in units of the distance.
        negative_temperature: T₋ ≥ 0; 10 in the paper's simple form.
        positive_temperature: T₊ ≥ 0.
        imbalance: λ in [0, 1], the share of the negative side.
        alpha: α > 0, the distance that negatives should exceed; None (default) is 1 + m/2.
        **kwargs: `distance`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = RankedListLoss(margin=0.4, negative_temperature=10.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    0.4578
    """

    hinged = True
    margin_is_gap = True

    def __init__(
        self,
        margin: float,
        negative_temperature: float,
        positive_temperature: float = 0.0,
        imbalance: float = 0.5,
        alpha: float | None = None,
        **kwargs: Unpack[DistanceOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance, open_low=True)
        self.negative_temperature = check_number("negative_temperature", negative_temperature, low=0, open_high=True)
        self.positive_temperature = check_number("positive_temperature", positive_temperature, low=0, open_high=True)
        self.imbalance = check_number("imbalance", imbalance, low=0, high=1)
        self.alpha = None if alpha is None else check_number("alpha", alpha, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        temperatures = self.negative_temperature, self.positive_temperature
        options = self.margin, *temperatures, self.imbalance, self.alpha
        return [ranked_list(*rows.sides, *options)]
