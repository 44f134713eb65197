"""Batch losses on pairs of rows: two views of one image, or a question and its answer.

Contract: within each identity, in the order of the batch, rows 2t and 2t + 1 (counted from 0) are a pair. The first is
the anchor (or view 1), the second its positive (or view 2). The usual batch has two rows for each image, whose number
is the identity. VICReg and Barlow Twins compare features instead of rows and take O(batch·dim + dim²) memory.

    encoder.compile("adam", loss=MultipleNegativesRankingLoss())        # y_true: [0, 0, 1, 1, …]
    vicreg(first, second, valid)                                        # Terms, each (batch,)
"""

from __future__ import annotations

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._types import BatchOptions, LossOptions, Tensor, Unpack
from keras_siamese.losses.batch.base import EmbeddingLoss, Terms, of_rows
from keras_siamese.losses.batch.rows import Batch, Rows
from keras_siamese.losses.batch.softmaxes import CosineLoss
from keras_siamese.ops import column, masked_logsumexp, masked_sum, zero_diagonal


def paired(batch):
    """Masks of a `Batch`'s rows that are first and second in a pair, and the second of each first, all `(batch,)`."""
    order, place, first, size = batch.places
    within = place - first
    leads, follows = (within % 2 == 0) & (within + 1 < size), within % 2 == 1
    return leads, follows, ops.take(order, ops.minimum(place + 1, ops.shape(place)[0] - 1))


def compared(rows):
    """What the anchors among `rows` are compared with: masks `(rows,)` of anchors, `(rows, batch)` of the own positive
    and of all positives that count, and the matrix inside of these, 0 elsewhere."""
    leads, follows, follower = paired(rows.batch)
    leads = rows.of_batch(leads)
    own = rows.columns == column(rows.of_batch(follower))
    among = (own | (rows.negative & follows[None, :])) & column(leads)
    # A NaN in a row that is in no pair does not reach other rows.
    return leads, own, among, ops.where(among, rows.matrix, 0.0)


def multiple_negatives_ranking(rows, scale=20.0):
    """`Terms` over anchors of −log softmax(scale·s) at the own positive, among it and those of other identities."""
    leads, own, among, similarity = compared(rows)
    logits = scale * similarity
    return of_rows(masked_logsumexp(logits, among) - masked_sum(logits, own), leads)


@export
class MultipleNegativesRankingLoss(CosineLoss):
    """Multiple negatives ranking loss: mean over pairs of −log(e^{c·cos(a_i, p_i)} / Σ_j e^{c·cos(a_i, p_j)}).

    Each anchor's positive is compared with the positives of other identities in the batch; other positives of its own
    identity are not in the sum. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm. Rows 1 and
    2 of an identity, in the order of the batch, are an anchor and its positive, rows 3 and 4 the next pair, and so on;
    an odd last row is not used. A single pair has loss 0. If each identity has two rows, the value is that of
    sentence-transformers' `MultipleNegativesRankingLoss`.

    Henderson, Al-Rfou, Strope, Sung, Lukacs, Guo, Kumar, Miklos, Kurzweil, *Efficient Natural Language Response
    Suggestion for Smart Reply*, 2017, https://arxiv.org/abs/1705.00652

    Args:
        scale: c > 0, the inverse temperature.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = MultipleNegativesRankingLoss(scale=1.0)
    >>> queries, answers = ops.array([[1.0, 0.0], [0.0, 1.0]]), ops.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(loss(ops.array([0, 1, 0, 1]), ops.concatenate([queries, answers]))), 4)
    0.3133
    """

    is_of_anchors = False  # each identity has two rows, and those of other batches are not its views

    def __init__(self, scale: float = 20.0, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [multiple_negatives_ranking(rows, self.scale)]


def siglip(rows, scale=10.0, bias=-10.0):
    """`Terms` over anchors of −log σ(t·s + b) at the own positive and −log σ(−t·s − b) at those of others."""
    leads, own, among, similarity = compared(rows)
    logits = scale * similarity + bias
    costs = ops.softplus(ops.where(own, -logits, logits))
    return of_rows(masked_sum(costs, among), leads)


@export
class SigLIPLoss(CosineLoss):
    """Sigmoid loss on paired views (SigLIP): mean over anchors i of Σ_j softplus(−y_ij·(t·cos(a_i, p_j) + b)).

    y_ij is 1 for the anchor's own positive and −1 for the positives of other identities. Each pair is a classification
    of its own, without a softmax over the batch, so small batches work too. Other positives of the anchor's identity
    are not in the sum. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm, in pairs of rows as
    in `MultipleNegativesRankingLoss`. If each identity has two rows, the value is that of open_clip's `SigLipLoss`.

    The paper learns t and b, from t = 10 and b = −10 on: see `keras_siamese.layers.LearnedScale`.

    Zhai, Mustafa, Kolesnikov, Beyer, *Sigmoid Loss for Language Image Pre-Training*, ICCV 2023,
    https://arxiv.org/abs/2303.15343

    Args:
        scale: t > 0, the inverse temperature.
        bias: b. A negative one makes up for the many negative pairs at the start of training.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = SigLIPLoss(scale=1.0, bias=0.0)
    >>> queries, answers = ops.array([[1.0, 0.0], [0.0, 1.0]]), ops.array([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(loss(ops.array([0, 1, 0, 1]), ops.concatenate([queries, answers]))), 4)
    1.0064
    """

    is_of_anchors = False  # as in MultipleNegativesRankingLoss

    def __init__(self, scale: float = 10.0, bias: float = -10.0, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)
        self.bias = check_number("bias", bias, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [siglip(rows, self.scale, self.bias)]


class ViewLoss(EmbeddingLoss):
    """Base class of the losses that compare the features of two views of each image."""

    def terms(self, first: Tensor, second: Tensor, valid: Tensor) -> list[Terms]:
        """`Terms` for each row from the views `(batch, dim)`; only the `valid` rows `(batch,)` count."""
        raise NotImplementedError

    def costs_of(self, batch: Batch, wanted: bool) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        leads, _, follower = paired(batch)
        # Rows that are not in a pair become 0, so a NaN in them does not reach other rows.
        first, second = batch.embeddings, ops.take(batch.embeddings, follower, axis=0)
        views = [ops.where(column(leads), view, 0.0) for view in (first, second)]
        return [(term.total, term.count) for term in self.terms(*views, leads)], []


def centred(view, valid):
    """`view` `(batch, dim)` minus its mean over the `valid` rows `(batch,)`, 0 in other rows; and their number."""
    pairs = ops.sum(ops.cast(valid, view.dtype))
    mean = ops.sum(view, axis=0, keepdims=True) / ops.maximum(pairs, 1.0)
    return ops.where(column(valid), view - mean, 0.0), pairs


def vicreg(first, second, valid, invariance=25.0, variance=25.0, covariance=1.0, eps=1e-4):
    """`Terms` of `VICRegLoss` over the `valid` rows, which share the variance and the covariance evenly."""
    dim = first.shape[1]
    shared = 0.0
    for view in (first, second):
        view, pairs = centred(view, valid)
        covariances = ops.matmul(ops.transpose(view), view) / ops.maximum(pairs - 1.0, 1.0)
        spread = ops.sum(ops.square(view), axis=0) / ops.maximum(pairs - 1.0, 1.0)
        flat = ops.mean(ops.relu(1.0 - ops.sqrt(spread + eps)))
        redundant = ops.sum(ops.square(zero_diagonal(covariances))) / dim
        shared = shared + ops.where(pairs > 1.0, 0.5 * variance * flat + covariance * redundant, 0.0)
    return of_rows(invariance * ops.mean(ops.square(first - second), axis=1) + shared, valid)


@export
class VICRegLoss(ViewLoss):
    """VICReg loss: λ·mean (z − z′)² + μ·mean_d ½(v(z_d) + v(z′_d)) + ν·(1/dim)·Σ_{d≠e}(cov(z)²_de + cov(z′)²_de).

    v(x) = [1 − √(var x + ε)]₊. The terms make the two views agree, keep the variance of each feature, and decorrelate
    the features. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, not normalised, in pairs of rows as in
    `MultipleNegativesRankingLoss`: the views z and z′ of one image. The first row of a pair has the value: its own
    first term plus the batch's other two (0 for a single image). Same value as pytorch-metric-learning's `VICRegLoss`.

    Bardes, Ponce, LeCun, *VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning*, ICLR
    2022, https://arxiv.org/abs/2105.04906

    Args:
        invariance: λ ≥ 0.
        variance: μ ≥ 0.
        covariance: ν ≥ 0.
        eps: ε > 0, added to a feature's variance.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = VICRegLoss()
    >>> round(float(loss(ops.array([7, 7, 9, 9]), ops.array([[0.0], [1.0], [2.0], [1.0]]))), 3)
    37.375
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        eps: float = 1e-4,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.invariance = check_number("invariance", invariance, low=0, open_high=True)
        self.variance = check_number("variance", variance, low=0, open_high=True)
        self.covariance = check_number("covariance", covariance, low=0, open_high=True)
        self.eps = check_number("eps", eps, low=0, open_low=True, open_high=True)

    def terms(self, first: Tensor, second: Tensor, valid: Tensor) -> list[Terms]:
        return [vicreg(first, second, valid, self.invariance, self.variance, self.covariance, self.eps)]


# Added to a feature's variance, as the batch normalisation in the authors' code does.
VARIANCE_FLOOR = 1e-5


def barlow_twins(first, second, valid, redundancy=0.005):
    """`Terms` of `BarlowTwinsLoss`, Σ_d (1 − C_dd)² + λ·Σ_{d≠e} C²_de, over the `valid` rows, which share it evenly."""
    standard = []
    for view in (first, second):
        view, pairs = centred(view, valid)
        variance = ops.sum(ops.square(view), axis=0, keepdims=True) / ops.maximum(pairs, 1.0)
        standard.append(view * ops.rsqrt(variance + VARIANCE_FLOOR))
    correlations = ops.matmul(ops.transpose(standard[0]), standard[1]) / ops.maximum(pairs, 1.0)
    agreement = ops.sum(ops.square(1.0 - ops.diagonal(correlations)))
    redundant = ops.sum(ops.square(zero_diagonal(correlations)))
    cost = ops.where(pairs > 1.0, agreement + redundancy * redundant, 0.0)
    return Terms(ops.where(valid, cost, 0.0), ops.cast(valid, "float32"))


@export
class BarlowTwinsLoss(ViewLoss):
    """Barlow Twins loss: Σ_d (1 − C_dd)² + λ·Σ_{d≠e} C²_de, C the correlations between two views' features.

    C_de = mean ẑ_d·ẑ′_e with ẑ = (z − mean z) / √(var z + 1e-5). y_true identities `(batch,)`; y_pred embeddings
    `(batch, dim)` in pairs of rows as in `MultipleNegativesRankingLoss`: the views z and z′ of one image. Mean and
    variance are over the pairs and divide by their number, as in the paper's equation and the authors' code (its
    pseudo-code divides the variance by one less). The first row of each pair has the batch's value; for a single image
    it is 0. A constant feature has correlation 0.

    Zbontar, Jing, Misra, LeCun, Deny, *Barlow Twins: Self-Supervised Learning via Redundancy Reduction*, ICML 2021,
    https://arxiv.org/abs/2103.03230

    Args:
        redundancy: λ ≥ 0, the weight of the correlations between different features.
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = BarlowTwinsLoss()
    >>> round(float(loss(ops.array([7, 7, 9, 9]), ops.array([[0.0], [1.0], [2.0], [1.0]]))), 4)
    1.0
    """

    def __init__(self, redundancy: float = 0.005, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.redundancy = check_number("redundancy", redundancy, low=0, open_high=True)

    def terms(self, first: Tensor, second: Tensor, valid: Tensor) -> list[Terms]:
        return [barlow_twins(first, second, valid, self.redundancy)]
