"""Batch losses with a log-sum-exp: each anchor's positives are compared with all of its negatives, as in a softmax.

Contract: each loss is a pure function from cosines s (or distances d) of positives and of negatives, the two sides of
`Rows`, to `Terms`, and a small Keras class that holds its options. The cosines are computed here, so embeddings may
have any norm. The log-sum-exp of the negatives is one number for each anchor, so memory is O(batch²).

    encoder.compile("adam", loss=SupConLoss(temperature=0.1))
    ntxent(*rows.sides, temperature=0.1)                                # Terms, each (rows,)
"""

from __future__ import annotations

import math

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._types import BatchOptions, DistanceLike, DistanceOptions, Tensor, Unpack
from keras_siamese.distances import cosines
from keras_siamese.losses.batch.base import BatchLoss, Terms, of_rows, over
from keras_siamese.losses.batch.rows import Rows, Side
from keras_siamese.losses.batch.triplets import DistanceLoss
from keras_siamese.ops import (
    LOWEST,
    column,
    count,
    masked,
    masked_logsumexp,
    masked_max,
    masked_min,
    masked_sum,
    safe_sqrt,
)


class CosineLoss(BatchLoss):
    """Base class of the batch losses that use cosine similarities, in [−1, 1] for embeddings of any norm.

    Args:
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.
    """

    compares_cosines = True

    def measure(self, a: Tensor, b: Tensor) -> Tensor:
        return cosines(a, b)

    def as_distances(self, matrix: Tensor) -> Tensor:
        return 1.0 - matrix


def found(log_sum):
    """Whether each `masked_logsumexp` in `log_sum` `(rows,)` was taken over at least one entry."""
    return log_sum > 0.5 * LOWEST


def ntxent(positive, negative, temperature=0.07):
    """−log e^{s_p/τ} / (e^{s_p/τ} + Σ_N e^{s_n/τ}) over positive pairs."""
    against = column(masked_logsumexp(negative.entries / temperature, negative.mask))
    return over(ops.softplus(against - positive.entries / temperature), positive.mask)


@export
class NTXentLoss(CosineLoss):
    """NT-Xent loss (InfoNCE): the mean over positive pairs of −log e^{s_p/τ} / (e^{s_p/τ} + Σ_N e^{s_n/τ}).

    The denominator does not contain the anchor's other positives. y_true identities `(batch,)`; y_pred embeddings
    `(batch, dim)`, of any norm. Same value as pytorch-metric-learning's `NTXentLoss`, and as SimCLR's loss if each
    identity has two rows.

    Chen, Kornblith, Norouzi, Hinton, *A Simple Framework for Contrastive Learning of Visual Representations*, ICML
    2020, https://arxiv.org/abs/2002.05709

    Args:
        temperature: τ > 0.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = NTXentLoss(temperature=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(self, temperature: float = 0.07, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [ntxent(*rows.sides, self.temperature)]


def supcon(logits, rows):
    """−mean_P log softmax(logits) over anchors with positives and negatives; `logits` are as in `nca`."""
    shares, positive = rows.positive_side(ops.log_softmax(logits, axis=1))
    positives = count(positive)
    mean = masked_sum(shares, positive) / ops.maximum(positives, 1.0)
    others = ops.cast(ops.shape(logits)[1], positives.dtype) - 1  # the size may be a tensor
    return of_rows(-mean, (positives > 0) & (positives < others))


@export
class SupConLoss(CosineLoss):
    """Supervised contrastive loss: the mean over anchors of −mean_P log(e^{s_p/τ} / Σ_{P∪N} e^{s/τ}).

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm. The mean skips anchors without a
    positive; a batch with only one identity has loss 0. Same value as pytorch-metric-learning's `SupConLoss`.

    Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan, *Supervised Contrastive Learning*, NeurIPS
    2020, https://arxiv.org/abs/2004.11362

    Args:
        temperature: τ > 0.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = SupConLoss(temperature=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [supcon(rows.logits(1.0 / self.temperature), rows)]


def multi_similarity(positive, negative, alpha=2.0, beta=50.0, base=0.5):
    """(1/α)·log(1 + Σ_P e^{−α(s−λ)}) + (1/β)·log(1 + Σ_N e^{β(s−λ)}) of each row."""
    pulled = ops.softplus(masked_logsumexp(alpha * (base - positive.entries), positive.mask, few=True)) / alpha
    pushed = ops.softplus(masked_logsumexp(beta * (negative.entries - base), negative.mask)) / beta
    return Terms(pulled + pushed, ops.ones_like(pulled))


def mined(similarity, positive, negative, epsilon):
    """The sides of `(rows, batch)` cosines with the pairs that `MultiSimilarityLoss` selects from boolean masks."""
    hardest_negative, hardest_positive = masked_max(similarity, negative), masked_min(similarity, positive)
    kept = similarity - epsilon < column(hardest_negative), similarity + epsilon > column(hardest_positive)
    return Side(similarity, positive & kept[0]), Side(similarity, negative & kept[1])


@export
class MultiSimilarityLoss(CosineLoss):
    """Multi-similarity loss: mean over rows of log(1 + Σ_P e^{−α(s−λ)})/α + log(1 + Σ_N e^{β(s−λ)})/β.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm. Without positives or negatives, a row's
    term is 0. Same value as pytorch-metric-learning's `MultiSimilarityLoss`; `epsilon` adds its `MultiSimilarityMiner`.

    Wang, Han, Huang, Dong, Scott, *Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning*, CVPR
    2019, https://arxiv.org/abs/1904.06627

    Args:
        alpha: α > 0, how sharply positive pairs are weighted.
        beta: β > 0, how sharply negative pairs are weighted.
        base: λ in [−1, 1], the cosine around which the weight of a pair changes.
        epsilon: None (default) uses all pairs. A margin ε ≥ 0 selects pairs as the paper does: positives less similar
            than the most similar negative plus ε, and negatives more similar than the least similar positive minus ε.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = MultiSimilarityLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.1044
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float | None = None,
        **kwargs: Unpack[BatchOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.alpha = check_number("alpha", alpha, low=0, open_low=True, open_high=True)
        self.beta = check_number("beta", beta, low=0, open_low=True, open_high=True)
        self.base = check_number("base", base, low=-1, high=1)
        self.epsilon = None if epsilon is None else check_number("epsilon", epsilon, low=0, open_high=True)

    @property
    def cosine_temperature(self) -> float | None:
        return 1 / self.beta

    def terms(self, rows: Rows) -> list[Terms]:
        mines = self.epsilon is not None
        sides = mined(rows.matrix, rows.positive, rows.negative, self.epsilon) if mines else rows.sides
        return [multi_similarity(*sides, self.alpha, self.beta, self.base)]


def circle(positive, negative, margin=0.4, scale=80.0):
    """softplus(lse_P(−γ[1+m−s]₊(s−1+m)) + lse_N(γ[s+m]₊(s−m))) of each row, [·]₊ constant; mean over values > 0."""
    weights = ops.relu(1.0 + margin - ops.stop_gradient(positive.entries))
    pulled = masked_logsumexp(-scale * weights * (positive.entries - (1.0 - margin)), positive.mask, few=True)
    weights = ops.relu(ops.stop_gradient(negative.entries) + margin)
    pushed = masked_logsumexp(scale * weights * (negative.entries - margin), negative.mask)
    valid = found(pulled) & found(pushed)
    costs = ops.softplus(ops.where(valid, pulled + pushed, 0.0))
    term = of_rows(costs, valid)
    return Terms(term.total, ops.cast(valid & (costs > 0), "float32"), lambda: term.count)


@export
class CircleLoss(CosineLoss):
    """Circle loss: mean over anchors of softplus(lse_P(−γ·α_p(s−1+m)) + lse_N(γ·α_n(s−m))), where it is above zero.

    α_p = [1+m−s]₊ and α_n = [s+m]₊ are weights without a gradient. y_true identities `(batch,)`; y_pred embeddings
    `(batch, dim)`, of any norm. An anchor without positives or negatives has loss 0. Same value as
    pytorch-metric-learning's `CircleLoss`.

    Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei, *Circle Loss: A Unified Perspective of Pair Similarity Optimization*,
    CVPR 2020, https://arxiv.org/abs/2002.10857

    Args:
        margin: m in [0, 1]. The loss pulls positives to s ≥ 1 − m and pushes negatives to s ≤ m.
        scale: γ > 0.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = CircleLoss(scale=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.5459
    """

    hinged = True

    def __init__(self, margin: float = 0.4, scale: float = 80.0, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, high=1)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [circle(*rows.sides, self.margin, self.scale)]


def tuplet_margin(positive, negative, margin=0.1, scale=64.0):
    """log(1 + Σ_N e^{σ(s_n − cos(θ_p − m))}) over positive pairs, with cos(θ − m) = s·cos m + √(1 − s²)·sin m."""
    sine = safe_sqrt(1.0 - ops.square(positive.entries))
    eased = positive.entries * math.cos(margin) + sine * math.sin(margin)
    against = column(masked_logsumexp(scale * negative.entries, negative.mask))
    return over(ops.softplus(against - scale * eased), positive.mask)


@export
class TupletMarginLoss(CosineLoss):
    """Tuplet margin loss: the mean over positive pairs of log(1 + Σ_N e^{σ(s_n − cos(θ_p − m))}).

    θ_p is the angle between anchor and positive. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any
    norm. Equals pytorch-metric-learning's `TupletMarginLoss`, but its gradient is finite for identical embeddings too.

    Yu, Tao, *Deep Metric Learning with Tuplet Margin Loss*, ICCV 2019, https://doi.org/10.1109/ICCV.2019.00659

    Args:
        margin: m in [0, 90] degrees, by which the angle of a positive pair is reduced.
        scale: σ > 0.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = TupletMarginLoss(margin=0.0, scale=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(self, margin: float = 5.73, scale: float = 64.0, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, high=90)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [tuplet_margin(*rows.sides, math.radians(self.margin), self.scale)]


def nca(logits, rows):
    """−log Σ_P softmax(logits) over anchors with positives; `logits` are about −1e30 in the row's own column."""
    of_positive = masked_logsumexp(*rows.positive_side(ops.log_softmax(logits, axis=1)), few=True)
    return of_rows(-of_positive, found(of_positive))


@export
class NCALoss(DistanceLoss):
    """NCA loss (neighbourhood components analysis): mean of −log Σ_P softmax_{j≠i}(−scale·d²) over anchors.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. The mean skips anchors without positives. Same value
    as pytorch-metric-learning's `NCALoss`.

    Goldberger, Hinton, Roweis, Salakhutdinov, *Neighbourhood Components Analysis*, NIPS 2004,
    https://www.cs.toronto.edu/~hinton/absps/nca.pdf

    Args:
        scale: > 0, the inverse temperature.
        **kwargs: as in `DistanceLoss`; `distance` is "squared_euclidean" by default.

    >>> loss = NCALoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.1269
    """

    def __init__(
        self, scale: float = 1.0, distance: DistanceLike = "squared_euclidean", **kwargs: Unpack[BatchOptions]
    ) -> None:
        super().__init__(distance=distance, **kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [nca(rows.logits(-self.scale), rows)]


@export
class SoftNearestNeighborLoss(DistanceLoss):
    """Soft nearest neighbor loss: the mean over anchors of −log(Σ_P e^{−d²/T} / Σ_{j≠i} e^{−d²/T}).

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. The mean skips anchors without positives (TensorFlow
    Similarity includes them). It equals `NCALoss` with the scale 1/T.

    Frosst, Papernot, Hinton, *Analyzing and Improving Representations with the Soft Nearest Neighbor Loss*, ICML 2019,
    https://arxiv.org/abs/1902.01889

    Args:
        temperature: T > 0.
        **kwargs: as in `DistanceLoss`; `distance` is "squared_euclidean" by default.

    >>> loss = SoftNearestNeighborLoss(temperature=2.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(
        self, temperature: float = 1.0, distance: DistanceLike = "squared_euclidean", **kwargs: Unpack[BatchOptions]
    ) -> None:
        super().__init__(distance=distance, **kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [nca(rows.logits(-1.0 / self.temperature), rows)]


def generalized_lifted(positive, negative, positive_margin=0.0, negative_margin=1.0):
    """[lse_P(d − m₊) + lse_N(m₋ − d)]₊ of each row; 0 for rows without positives or without negatives."""
    pulled = masked_logsumexp(positive.entries - positive_margin, positive.mask, few=True)
    pushed = masked_logsumexp(negative_margin - negative.entries, negative.mask)
    valid = found(pulled) & found(pushed)
    costs = ops.relu(ops.where(valid, pulled + pushed, 0.0))
    sides = lambda: ops.cast(valid, "float32"), lambda: ops.cast(costs > 0, "float32")
    return Terms(costs, ops.ones_like(costs), *sides)


@export
class GeneralizedLiftedLoss(DistanceLoss):
    """Generalized lifted structure loss: the mean over rows of [lse_P(d − m₊) + lse_N(m₋ − d)]₊.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. Rows without positives or without negatives have
    loss 0 (pytorch-metric-learning's `GeneralizedLiftedStructureLoss` uses the term that exists).

    Hermans, Beyer, Leibe, *In Defense of the Triplet Loss for Person Re-Identification*, 2017,
    https://arxiv.org/abs/1703.07737

    Args:
        negative_margin: m₋ ≥ 0, in units of the distance.
        positive_margin: m₊ ≥ 0, in units of the distance.
        **kwargs: `distance`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = GeneralizedLiftedLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.0
    """

    hinged = True

    def __init__(
        self, negative_margin: float = 1.0, positive_margin: float = 0.0, **kwargs: Unpack[DistanceOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.negative_margin = check_number("negative_margin", negative_margin, low=0, open_high=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=0, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [generalized_lifted(*rows.sides, self.positive_margin, self.negative_margin)]


def lifted_struct(positive, lse_rows, lse_partners, has_negative):
    """½[lse_{N(a)∪N(p)}(m − d) + d_ap]₊² over positive pairs, from the log-sum-exp of a `(rows,)` and that of each p.

    `positive` and `lse_partners` are `Side`s. Without negatives the log-sum-exp is −1e30, so that the hinge is 0.
    """
    against = ops.logaddexp(column(lse_rows), lse_partners.entries)
    costs = ops.relu(masked(against + positive.entries, positive.mask))
    pairs = count(positive.mask) * ops.cast(has_negative, "float32")
    return Terms(0.5 * ops.sum(costs * costs, axis=1), pairs, lambda: pairs, lambda: ops.sign(costs))


@export
class LiftedStructLoss(DistanceLoss):
    """Lifted structure loss: the mean over positive pairs of ½[lse_{N(a)∪N(p)}(m − d) + d(a, p)]₊².

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. The negatives of both ends of a pair are used. Same
    defaults and values as tensorflow-addons' `LiftedStructLoss` and pytorch-metric-learning's `LiftedStructureLoss`.

    Oh Song, Xiang, Jegelka, Savarese, *Deep Metric Learning via Lifted Structured Feature Embedding*, CVPR 2016,
    https://arxiv.org/abs/1511.06452

    Args:
        margin: m ≥ 0, in units of the distance.
        **kwargs: `distance`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = LiftedStructLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    2.4733
    """

    hinged = True

    def __init__(self, margin: float = 1.0, **kwargs: Unpack[DistanceOptions]) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_high=True)

    def summarize(self, rows: Rows) -> Tensor:
        return masked_logsumexp(self.margin - rows.matrix, rows.negatives)

    def terms(self, rows: Rows) -> list[Terms]:
        partners = ops.broadcast_to(rows.summary[None, :], ops.shape(rows.matrix))
        sides = rows.positive_side(rows.matrix), rows.of_batch(rows.summary), rows.positive_side(partners)
        return [lifted_struct(*sides, count(rows.negatives) > 0)]
