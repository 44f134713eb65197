"""Batch losses with a log-sum-exp: each anchor's positives are compared with all of its negatives, as in a softmax.

Contract: each loss is a pure function from a `(rows, batch)` matrix of cosines s (or distances d) and the masks of
positives and negatives to `Terms`, and a small Keras class that holds its options. The cosines are computed here, so
embeddings may have any norm. The log-sum-exp of the negatives is one number for each anchor, so memory is O(batch²).

    encoder.compile("adam", loss=SupConLoss(temperature=0.1))
    supcon(similarity, positive, negative, temperature=0.1)             # Terms, each (rows,)
"""

import math

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese.losses.batch.base import BatchLoss, Terms, cosines, of_rows, over
from keras_siamese.losses.batch.triplets import DistanceLoss
from keras_siamese.ops import LOWEST, column, count, masked_logsumexp, masked_max, masked_min, masked_sum, safe_sqrt


class CosineLoss(BatchLoss):
    """Base class of the batch losses that use cosine similarities, in [−1, 1] for embeddings of any norm.

    Args:
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.
    """

    compares_cosines = True

    def measure(self, a, b):
        return cosines(a, b)

    def as_distances(self, matrix):
        return 1.0 - matrix


def found(log_sum):
    """Whether each `masked_logsumexp` in `log_sum` `(rows,)` was taken over at least one entry."""
    return log_sum > 0.5 * LOWEST


def ntxent(similarity, positive, negative, temperature=0.07):
    """−log e^{s_p/τ} / (e^{s_p/τ} + Σ_N e^{s_n/τ}) over positive pairs."""
    logits = similarity / temperature
    against = column(masked_logsumexp(logits, negative))
    return over(ops.softplus(against - logits), positive)


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
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = NTXentLoss(temperature=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(self, temperature=0.07, **kwargs):
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [ntxent(rows.matrix, rows.positive, rows.negative, self.temperature)]


def supcon(similarity, positive, negative, temperature=0.1):
    """−mean_P log(e^{s_p/τ} / Σ_{P∪N} e^{s/τ}) over anchors with positives and negatives."""
    shares = ops.log_softmax(ops.where(positive | negative, similarity / temperature, LOWEST), axis=1)
    positives = count(positive)
    mean = masked_sum(shares, positive) / ops.maximum(positives, 1.0)
    return of_rows(-mean, (positives > 0) & ops.any(negative, axis=1))


@export
class SupConLoss(CosineLoss):
    """Supervised contrastive loss: the mean over anchors of −mean_P log(e^{s_p/τ} / Σ_{P∪N} e^{s/τ}).

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm. The mean skips anchors without a
    positive; a batch with only one identity has loss 0. Same value as pytorch-metric-learning's `SupConLoss`.

    Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan, *Supervised Contrastive Learning*, NeurIPS
    2020, https://arxiv.org/abs/2004.11362

    Args:
        temperature: τ > 0.
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = SupConLoss(temperature=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(self, temperature=0.1, **kwargs):
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [supcon(rows.matrix, rows.positive, rows.negative, self.temperature)]


def multi_similarity(similarity, positive, negative, alpha=2.0, beta=50.0, base=0.5, epsilon=None):
    """(1/α)·log(1 + Σ_P e^{−α(s−λ)}) + (1/β)·log(1 + Σ_N e^{β(s−λ)}) of each row, over mined pairs if ε is given."""
    if epsilon is not None:
        hardest_negative, hardest_positive = masked_max(similarity, negative), masked_min(similarity, positive)
        kept = similarity - epsilon < column(hardest_negative), similarity + epsilon > column(hardest_positive)
        positive, negative = positive & kept[0], negative & kept[1]
    pulled = ops.softplus(masked_logsumexp(alpha * (base - similarity), positive)) / alpha
    pushed = ops.softplus(masked_logsumexp(beta * (similarity - base), negative)) / beta
    return of_rows(pulled + pushed, ops.ones_like(pulled, dtype="bool"))


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
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = MultiSimilarityLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.1044
    """

    def __init__(self, alpha=2.0, beta=50.0, base=0.5, epsilon=None, **kwargs):
        super().__init__(**kwargs)
        self.alpha = check_number("alpha", alpha, low=0, open_low=True, open_high=True)
        self.beta = check_number("beta", beta, low=0, open_low=True, open_high=True)
        self.base = check_number("base", base, low=-1, high=1)
        self.epsilon = None if epsilon is None else check_number("epsilon", epsilon, low=0, open_high=True)

    @property
    def cosine_temperature(self):
        return 1 / self.beta

    def terms(self, rows):
        options = self.alpha, self.beta, self.base, self.epsilon
        return [multi_similarity(rows.matrix, rows.positive, rows.negative, *options)]


def circle(similarity, positive, negative, margin=0.4, scale=80.0):
    """softplus(lse_P(−γ[1+m−s]₊(s−1+m)) + lse_N(γ[s+m]₊(s−m))) of each row, [·]₊ constant; mean over values > 0."""
    fixed = ops.stop_gradient(similarity)
    pulled = masked_logsumexp(-scale * ops.relu(1.0 + margin - fixed) * (similarity - (1.0 - margin)), positive)
    pushed = masked_logsumexp(scale * ops.relu(fixed + margin) * (similarity - margin), negative)
    valid = found(pulled) & found(pushed)
    costs = ops.softplus(ops.where(valid, pulled + pushed, 0.0))
    term = of_rows(costs, valid)
    return Terms(term.total, ops.cast(valid & (costs > 0), "float32"), term.count)


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
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = CircleLoss(scale=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.5459
    """

    hinged = True

    def __init__(self, margin=0.4, scale=80.0, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, high=1)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [circle(rows.matrix, rows.positive, rows.negative, self.margin, self.scale)]


def tuplet_margin(similarity, positive, negative, margin=0.1, scale=64.0):
    """log(1 + Σ_N e^{σ(s_n − cos(θ_p − m))}) over positive pairs, with cos(θ − m) = s·cos m + √(1 − s²)·sin m."""
    sine = safe_sqrt(1.0 - ops.square(similarity))
    eased = similarity * math.cos(margin) + sine * math.sin(margin)
    against = column(masked_logsumexp(scale * similarity, negative))
    return over(ops.softplus(against - scale * eased), positive)


@export
class TupletMarginLoss(CosineLoss):
    """Tuplet margin loss: the mean over positive pairs of log(1 + Σ_N e^{σ(s_n − cos(θ_p − m))}).

    θ_p is the angle between anchor and positive. y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any
    norm. Equals pytorch-metric-learning's `TupletMarginLoss`, but its gradient is finite for identical embeddings too.

    Yu, Tao, *Deep Metric Learning with Tuplet Margin Loss*, ICCV 2019, https://doi.org/10.1109/ICCV.2019.00659

    Args:
        margin: m in [0, 90] degrees, by which the angle of a positive pair is reduced.
        scale: σ > 0.
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = TupletMarginLoss(margin=0.0, scale=1.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.3133
    """

    def __init__(self, margin=5.73, scale=64.0, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, high=90)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [tuplet_margin(rows.matrix, rows.positive, rows.negative, math.radians(self.margin), self.scale)]


def nca(distances, positive, negative, scale=1.0):
    """−log Σ_P softmax_{j≠i}(−scale·d_ij) over anchors with positives."""
    shares = ops.log_softmax(ops.where(positive | negative, -scale * distances, LOWEST), axis=1)
    of_positive = masked_logsumexp(shares, positive)
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

    def __init__(self, scale=1.0, distance="squared_euclidean", **kwargs):
        super().__init__(distance=distance, **kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [nca(rows.matrix, rows.positive, rows.negative, self.scale)]


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

    def __init__(self, temperature=1.0, distance="squared_euclidean", **kwargs):
        super().__init__(distance=distance, **kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [nca(rows.matrix, rows.positive, rows.negative, 1.0 / self.temperature)]


def generalized_lifted(distances, positive, negative, positive_margin=0.0, negative_margin=1.0):
    """[lse_P(d − m₊) + lse_N(m₋ − d)]₊ of each row; 0 for rows without positives or without negatives."""
    pulled = masked_logsumexp(distances - positive_margin, positive)
    pushed = masked_logsumexp(negative_margin - distances, negative)
    valid = found(pulled) & found(pushed)
    costs = ops.relu(ops.where(valid, pulled + pushed, 0.0))
    return Terms(costs, ops.ones_like(costs), ops.cast(valid, "float32"), ops.cast(costs > 0, "float32"))


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
        **kwargs: `distance`, `block_size`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = GeneralizedLiftedLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.0
    """

    hinged = True

    def __init__(self, negative_margin=1.0, positive_margin=0.0, **kwargs):
        super().__init__(**kwargs)
        self.negative_margin = check_number("negative_margin", negative_margin, low=0, open_high=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=0, open_high=True)

    def terms(self, rows):
        margins = self.positive_margin, self.negative_margin
        return [generalized_lifted(rows.matrix, rows.positive, rows.negative, *margins)]


def lifted_struct(distances, positive, lse_rows, lse_columns):
    """½[lse_{N(a)∪N(p)}(m − d) + d_ap]₊² over positive pairs, from the log-sum-exp of a `(rows,)` and p `(batch,)`."""
    against = ops.logaddexp(column(lse_rows), ops.expand_dims(lse_columns, 0))
    costs = 0.5 * ops.square(ops.relu(ops.where(positive, against + distances, 0.0)))
    return Terms(ops.sum(costs, axis=1), count(positive), positive, costs > 0)


@export
class LiftedStructLoss(DistanceLoss):
    """Lifted structure loss: the mean over positive pairs of ½[lse_{N(a)∪N(p)}(m − d) + d(a, p)]₊².

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. The negatives of both ends of a pair are used. Same
    defaults and values as tensorflow-addons' `LiftedStructLoss` and pytorch-metric-learning's `LiftedStructureLoss`.

    Oh Song, Xiang, Jegelka, Savarese, *Deep Metric Learning via Lifted Structured Feature Embedding*, CVPR 2016,
    https://arxiv.org/abs/1511.06452

    Args:
        margin: m ≥ 0, in units of the distance.
        **kwargs: `distance`, `block_size`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = LiftedStructLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    2.4733
    """

    hinged = True

    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_high=True)

    def summarize(self, rows):
        return masked_logsumexp(self.margin - rows.matrix, rows.negative)

    def terms(self, rows):
        own = rows.of_batch(rows.summary)
        return [lifted_struct(rows.matrix, rows.positive & column(rows.has_negative), own, rows.summary)]
