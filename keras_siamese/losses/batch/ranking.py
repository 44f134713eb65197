"""Batch losses on rankings: average precision of each anchor's ranking, and the overlap of two histograms.

Contract: as in `softmaxes`. Ranks and histograms are smoothed so that they have a gradient. Memory is O(batch²): ranks
are summed one positive at a time, and a pair's part in a histogram is two numbers: a node and the position after it.

    encoder.compile("adam", loss=FastAPLoss())
    smooth_ap(rows, temperature=0.01)                                   # Terms, each (rows,)
"""

from __future__ import annotations

from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export
from keras_siamese._types import BatchOptions, Tensor, Unpack
from keras_siamese.losses.batch.base import Terms, of_rows
from keras_siamese.losses.batch.mining import over_positives, with_gradient
from keras_siamese.losses.batch.rows import Rows
from keras_siamese.losses.batch.softmaxes import CosineLoss
from keras_siamese.ops import column, count


def soft_histograms(position, positive, negative, bins):
    """Histograms of each row's positives and negatives; an entry between two nodes is split linearly between them.

    `position` `(rows, batch)` is in [0, bins], in units of the distance between nodes; values outside (by rounding) are
    counted in the outermost bin. Returns `(rows, 2, bins + 1)`: [:, 0] for the positives, [:, 1] for the negatives.
    """
    # Clipped after the cast: backends turn a NaN into different integers.
    lower = ops.cast(ops.floor(ops.stop_gradient(position)), "int32")
    lower = ops.minimum(ops.maximum(lower, 0), bins - 1)
    part = position - ops.cast(lower, position.dtype)
    rows, nodes = ops.shape(position)[0], bins + 1
    cells = (2 * column(ops.arange(rows, dtype="int32")) + ops.cast(negative, "int32")) * nodes + lower
    counted = positive | negative

    def by_cell(weights):
        summed = ops.segment_sum(ops.reshape(weights, (-1,)), ops.reshape(cells, (-1,)), num_segments=rows * 2 * nodes)
        return ops.reshape(summed, (rows, 2, nodes))

    above = by_cell(ops.where(counted, part, 0.0))
    below = by_cell(ops.cast(counted, position.dtype)) - above
    return below + ops.pad(above[:, :, :-1], ((0, 0), (0, 0), (1, 0)))


def fast_ap(similarity, positive, negative, bins=10):
    """`Terms` of 1 − (1/|P|)·Σ_j h⁺_j·H⁺_j/H_j for each row with positives, from a histogram of d² = 2 − 2s."""
    histograms = soft_histograms((2.0 - 2.0 * similarity) * (bins / 4.0), positive, negative, bins)
    hits = histograms[:, 0]
    hits_within, all_within = ops.cumsum(hits, axis=1), ops.cumsum(hits + histograms[:, 1], axis=1)
    found = all_within > 0
    precision = ops.where(found, hits_within, 0.0) / ops.where(found, all_within, 1.0)
    positives = count(positive)
    average = ops.sum(hits * precision, axis=1) / ops.maximum(positives, 1.0)
    return of_rows(1.0 - average, positives > 0)


@export
class FastAPLoss(CosineLoss):
    """FastAP loss: the mean over anchors with positives of 1 − (1/|P|)·Σ_j h⁺_j·H⁺_j/H_j.

    This is 1 minus the average precision of the anchor's ranking, from a histogram of d² = 2 − 2·cos with `bins` + 1
    nodes spread evenly over [0, 4]. h⁺_j is the number of positives at node j; H⁺_j and H_j are the numbers of
    positives and of all rows up to node j. A row between two nodes is split between them. y_true identities `(batch,)`;
    y_pred embeddings `(batch, dim)`, of any norm. Same value as pytorch-metric-learning's `FastAPLoss`.

    Cakir, He, Xia, Kulis, Sclaroff, *Deep Metric Learning to Rank*, CVPR 2019,
    https://openaccess.thecvf.com/content_CVPR_2019/html/Cakir_Deep_Metric_Learning_to_Rank_CVPR_2019_paper.html

    Args:
        bins: number of intervals of the histogram.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = FastAPLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))), 4)
    0.5
    """

    def __init__(self, bins: int = 10, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.bins = check_integer("bins", bins, low=1)

    def terms(self, rows: Rows) -> list[Terms]:
        return [fast_ap(rows.matrix, rows.positive, rows.negative, self.bins)]


def smooth_ap(rows, temperature=0.01):
    """`Terms` of 1 − mean_j R⁺_j/R_j for each row with positives; j runs over the anchor's identity, itself included.

    R_j = 1 + Σ_{k≠j} σ((s_k − s_j)/τ) over all rows k, and R⁺_j the same over the rows of the identity.
    """
    matrix, same = ops.stop_gradient(rows.matrix), ops.cast(ops.logical_not(rows.negative), rows.matrix.dtype)
    share = column(1.0 / ops.cast(rows.size, matrix.dtype))

    def step(chosen, entry, valid, precision, slopes):
        ahead = ops.where(chosen, 0.0, ops.sigmoid((matrix - entry) / temperature))
        rank = 1.0 + ops.sum(ahead, axis=1, keepdims=True)
        rank_inside = 1.0 + ops.sum(ahead * same, axis=1, keepdims=True)
        weight = ops.where(valid, share, 0.0) / rank
        # At j itself σ and its slope are 0 here; the derivative by s_j comes from all other rows.
        slope = weight / temperature * ahead * (1.0 - ahead) * (same - rank_inside / rank)
        slopes = slopes + ops.where(chosen, -ops.sum(slope, axis=1, keepdims=True), slope)
        return precision + (weight * rank_inside)[:, 0], slopes

    start = ops.zeros_like(matrix[:, 0]), ops.zeros_like(matrix)
    precision, slopes = over_positives(rows, step, start, start=0)
    return of_rows(1.0 - with_gradient(precision, slopes, rows.matrix), rows.has_positive)


@export
class SmoothAPLoss(CosineLoss):
    """Smooth-AP loss: the mean over anchors with positives of 1 − mean_j R⁺_j/R_j.

    R_j = 1 + Σ_{k≠j} σ((s_k − s_j)/τ) is the soft rank of row j among all rows k, and R⁺_j its rank among the rows of
    the anchor's identity. As in the authors' code, j and k include the anchor, which is its own nearest row. y_true
    identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm. Identities may have different numbers of rows.
    pytorch-metric-learning's `SmoothAPLoss` gives the same value for n identities with n rows each, in order of
    identity. Time is O(batch²) for each row of the largest identity, memory O(batch²).

    Brown, Xie, Kalogeiton, Zisserman, *Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval*, ECCV 2020,
    https://arxiv.org/abs/2007.12163

    Args:
        temperature: τ > 0, the difference of cosines that changes a rank.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = SmoothAPLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))), 4)
    0.1667
    """

    def __init__(self, temperature: float = 0.01, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [smooth_ap(rows, self.temperature)]


@export
class HistogramLoss(CosineLoss):
    """Histogram loss Σ_r p⁻_r·Φ⁺_r: the probability that a negative pair is more similar than a positive pair.

    p⁻ is the histogram of the cosines of the batch's negative pairs, with `bins` + 1 nodes spread evenly over [−1, 1];
    Φ⁺ is the cumulative histogram of the positive pairs. A pair between two nodes is split between them. y_true
    identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm. The value of a row is the mean of Φ⁺ over its
    own negative pairs. A batch without positive or without negative pairs has loss 0. Same value and gradient as
    pytorch-metric-learning's `HistogramLoss` if every row has a positive; that class omits negative pairs of two rows
    without a positive, and raises an error for cosines of exactly 1.

    Ustinova, Lempitsky, *Learning Deep Embeddings with Histogram Loss*, NIPS 2016, https://arxiv.org/abs/1611.00822

    Args:
        bins: number of intervals of the histogram.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = HistogramLoss()
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))), 4)
    0.5
    """

    def __init__(self, bins: int = 100, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.bins = check_integer("bins", bins, low=1)

    def summarize(self, rows: Rows) -> tuple[Tensor, Tensor]:
        position = (rows.matrix + 1.0) * (self.bins / 2.0)
        return soft_histograms(position, rows.positive, rows.negative, self.bins)

    def terms(self, rows: Rows) -> list[Terms]:
        positives = ops.sum(rows.summary[:, 0], axis=0)
        below = ops.cumsum(positives) / ops.maximum(ops.sum(positives), 1.0)
        against = rows.of_batch(rows.summary)[:, 1]
        return [Terms(ops.sum(against * below, axis=1), count(rows.negative))]
