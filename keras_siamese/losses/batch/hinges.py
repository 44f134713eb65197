"""Batch losses on pairs: positive and negative pairs each have a margin, and their two means are added.

Contract: as in `base`. Pure functions of a `(rows, batch)` matrix and masks return one `Terms` for the positive and one
for the negative pairs. Each has its own mean, so the many negative pairs do not outweigh the few positive pairs.

    encoder.compile("adam", loss=BatchContrastiveLoss(margin=1.0))
    batch_contrastive(distances, positive, negative, margin=1.0)        # two Terms, each (rows,)
"""

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese.losses.batch.base import Terms, above_zero, check_margin, over, sum_above_zero
from keras_siamese.losses.batch.softmaxes import CosineLoss
from keras_siamese.losses.batch.triplets import DistanceLoss
from keras_siamese.ops import count, masked_sum


def batch_contrastive(distances, positive, negative, margin=1.0, positive_margin=0.0, squared=False):
    """[d − m₊]₊ over positive and [m − d]₊ over negative pairs, or their squares, each a mean over values > 0."""
    power = ops.square if squared else (lambda costs: costs)
    pulled, pushed = power(ops.relu(distances - positive_margin)), power(ops.relu(margin - distances))
    return [above_zero(pulled, positive), above_zero(pushed, negative)]


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
        **kwargs: `distance`, `block_size`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = BatchContrastiveLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.5
    """

    hinged = True

    def __init__(self, margin=1.0, positive_margin=0.0, squared=False, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance, open_low=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=0, high=self.margin)
        self.squared = bool(squared)

    def value_at_collapse(self, positive_fraction=None):
        return self.margin**2 if self.squared else self.margin

    def terms(self, rows):
        options = self.margin, self.positive_margin, self.squared
        return batch_contrastive(rows.matrix, rows.positive, rows.negative, *options)


@export
class SNRContrastiveLoss(BatchContrastiveLoss):
    """Signal-to-noise contrastive loss: `BatchContrastiveLoss` on the distance var(a − b) / var(a), a the anchor.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. Same value as pytorch-metric-learning's
    `SignalToNoiseRatioContrastiveLoss` without its normalisation, which has no effect if all norms are equal.

    Yuan, Deng, Tang, Tang, Chen, *Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning*, CVPR 2019,
    https://arxiv.org/abs/1904.02616

    Args:
        margin: m > 0.
        positive_margin: m₊ in [0, margin].
        **kwargs: `squared`, `block_size`, `reduction`, `name`, `dtype` as in `BatchContrastiveLoss`.

    >>> loss = SNRContrastiveLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]]))), 4)
    0.625
    """

    def __init__(self, margin=1.0, positive_margin=0.0, squared=False, **kwargs):
        super().__init__(margin, positive_margin, squared, distance=kwargs.pop("distance", "snr"), **kwargs)


def threshold_consistent_margin(similarity, positive, negative, positive_margin=0.9, negative_margin=0.5):
    """Mean of m₊ − s over positive pairs with s ≤ m₊, and of s − m₋ over negative pairs with s ≥ m₋."""
    pulled = over(positive_margin - similarity, positive & (similarity <= positive_margin))
    pushed = over(similarity - negative_margin, negative & (similarity >= negative_margin))
    return [pulled._replace(possible=positive), pushed._replace(possible=negative)]


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
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = ThresholdConsistentMarginLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))), 4)
    1.4
    """

    hinged = True

    def __init__(self, positive_weight=1.0, negative_weight=1.0, positive_margin=0.9, negative_margin=0.5, **kwargs):
        super().__init__(**kwargs)
        self.positive_weight = check_number("positive_weight", positive_weight, low=0, open_high=True)
        self.negative_weight = check_number("negative_weight", negative_weight, low=0, open_high=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=-1, high=1)
        self.negative_margin = check_number("negative_margin", negative_margin, low=-1, high=1)

    def terms(self, rows):
        margins = self.positive_margin, self.negative_margin
        pulled, pushed = threshold_consistent_margin(rows.matrix, rows.positive, rows.negative, *margins)
        pulled = pulled._replace(total=self.positive_weight * pulled.total)
        return [pulled, pushed._replace(total=self.negative_weight * pushed.total)]


def intra_pair_variance(
    similarity, positive, negative, positive_mean, negative_mean, positive_epsilon=0.01, negative_epsilon=0.01
):
    """[(1−ε₊)s̄₊ − s]₊² over positive and [s − (1+ε₋)s̄₋]₊² over negative pairs, s̄ the batch's means, scalars."""
    pulled = ops.square(ops.relu((1.0 - positive_epsilon) * positive_mean - similarity))
    pushed = ops.square(ops.relu(similarity - (1.0 + negative_epsilon) * negative_mean))
    sides = (pulled, positive), (pushed, negative)
    return [Terms(masked_sum(costs, mask), count(mask), mask, mask & (costs > 0)) for costs, mask in sides]


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
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = IntraPairVarianceLoss(positive_epsilon=0.0, negative_epsilon=0.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))), 4)
    0.125
    """

    hinged = True

    def __init__(self, positive_epsilon=0.01, negative_epsilon=0.01, **kwargs):
        super().__init__(**kwargs)
        self.positive_epsilon = check_number("positive_epsilon", positive_epsilon, low=0, high=1)
        self.negative_epsilon = check_number("negative_epsilon", negative_epsilon, low=0, high=1)

    def summarize(self, rows):
        sums = [masked_sum(rows.matrix, rows.positive), count(rows.positive)]
        return ops.stack([*sums, masked_sum(rows.matrix, rows.negative), count(rows.negative)], axis=1)

    def terms(self, rows):
        positive, positives, negative, negatives = ops.unstack(ops.sum(rows.summary, axis=0), 4)
        means = positive / ops.maximum(positives, 1.0), negative / ops.maximum(negatives, 1.0)
        epsilons = self.positive_epsilon, self.negative_epsilon
        return intra_pair_variance(rows.matrix, rows.positive, rows.negative, *means, *epsilons)


def batch_margin(distances, positive, negative, margin=0.2, beta=1.2):
    """[d_ap − β + m]₊ + [β − d_an + m]₊ over all triplets, divided by the number of these terms above zero."""
    pulled, pushed = ops.relu(distances - beta + margin), ops.relu(beta - distances + margin)
    positives, negatives = count(positive), count(negative)
    # Each positive pair is in one triplet for each negative of its anchor, and the reverse.
    sides = (*sum_above_zero(pulled, positive), negatives), (*sum_above_zero(pushed, negative), positives)
    total, active = (sum(side[part] * side[2] for side in sides) for part in (0, 1))
    return Terms(total, active, 2.0 * positives * negatives)


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
        **kwargs: `distance`, `block_size`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = BatchMarginLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    0.9
    """

    hinged = True
    margin_is_gap = True

    def __init__(self, margin=0.2, beta=1.2, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance)
        self.beta = check_margin("beta", beta, self.distance, open_low=True)

    def terms(self, rows):
        return [batch_margin(rows.matrix, rows.positive, rows.negative, self.margin, self.beta)]


def ranked_list(
    distances, positive, negative, margin, negative_temperature, positive_temperature=0.0, imbalance=0.5, alpha=None
):
    """(1−λ)·Σ w(d − (α−m)) / Σ w over positives with d > α − m, + λ·Σ w(α − d) / Σ w over negatives with d < α.

    One value for each row. w = e^{T₊(d−(α−m))} and e^{T₋(α−d)}; 1e-5·batch is added to the sums of weights.
    """
    alpha = 1.0 + margin / 2.0 if alpha is None else alpha
    floor = 1e-5 * ops.cast(ops.shape(distances)[1], distances.dtype)
    beyond, inside = distances - (alpha - margin), alpha - distances
    far, near = positive & (beyond > 0), negative & (inside > 0)

    def weighted_mean(gap, mask, temperature):
        gap = ops.where(mask, gap, 0.0)
        # Relative to the largest weight, which could overflow.
        top = ops.stop_gradient(ops.max(temperature * gap, axis=1, keepdims=True))
        weights = ops.where(mask, ops.exp(temperature * gap - top), 0.0)
        return ops.sum(weights * gap, axis=1) / (ops.sum(weights, axis=1) + floor * ops.exp(-top[:, 0]))

    pulled, pushed = weighted_mean(beyond, far, positive_temperature), weighted_mean(inside, near, negative_temperature)
    costs = (1.0 - imbalance) * pulled + imbalance * pushed
    return Terms(costs, ops.ones_like(costs), positive | negative, far | near)


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
        **kwargs: `distance`, `block_size`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = RankedListLoss(margin=0.4, negative_temperature=10.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    0.4578
    """

    hinged = True
    margin_is_gap = True

    def __init__(self, margin, negative_temperature, positive_temperature=0.0, imbalance=0.5, alpha=None, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance, open_low=True)
        self.negative_temperature = check_number("negative_temperature", negative_temperature, low=0, open_high=True)
        self.positive_temperature = check_number("positive_temperature", positive_temperature, low=0, open_high=True)
        self.imbalance = check_number("imbalance", imbalance, low=0, high=1)
        self.alpha = None if alpha is None else check_number("alpha", alpha, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        temperatures = self.negative_temperature, self.positive_temperature
        options = self.margin, *temperatures, self.imbalance, self.alpha
        return [ranked_list(rows.matrix, rows.positive, rows.negative, *options)]
