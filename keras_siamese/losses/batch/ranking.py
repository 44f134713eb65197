"""Batch losses on the order of similarities: average precision of each anchor's ranking, and the overlap of histograms.

Contract: as in `softmaxes`: cosines of embeddings of any norm, identities `(batch,)`. Ranks and histograms are softened
so that they have a gradient. Memory is O(batch²): soft ranks are summed up one positive at a time, and soft histograms
are two numbers a pair, the node below it and the part of the way to the next.

    encoder.compile("adam", loss=FastAPLoss())
    smooth_ap(rows, temperature=0.01)                                   # Terms, each (rows,)
"""

from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export
from keras_siamese.losses.batch.base import Terms, of_rows
from keras_siamese.losses.batch.mining import over_positives, with_gradient
from keras_siamese.losses.batch.softmaxes import CosineLoss
from keras_siamese.ops import column, count


def soft_histograms(position, positive, negative, bins):
    """Histograms of each row's positives and negatives, each entry shared linearly between the two nodes around it.

    Args:
        position: `(rows, batch)` in [0, bins], in units of the distance of two nodes; what rounding puts beyond is
            counted at the outermost bin.
        positive, negative: `(rows, batch)` booleans, apart from each other.
        bins: number of intervals, one less than of nodes.

    Returns:
        `(rows, 2, bins + 1)`: at [:, 0] of the positives, at [:, 1] of the negatives. Of a NaN both nodes are NaN.
    """
    # Cut off after the cast as well: which integer a NaN becomes is the backend's choice.
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
    """1 − (1/|P|)·Σ_j h⁺_j·H⁺_j/H_j by row, over the histogram of squared distances 2 − 2s; `Terms` over rows with
    positives.
    """
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
    """Mean over anchors with positives of 1 − (1/|P|)·Σ_j h⁺_j·H⁺_j/H_j, the average precision of the anchor's ranking
    by a histogram of squared distances.

    h⁺_j is the number of positives and H_j, H⁺_j the numbers of all rows and of positives up to node j, of `bins` + 1
    nodes evenly over [0, 4]; a row between two nodes counts for both in part. y_true identities `(batch,)`; y_pred
    embeddings `(batch, dim)`, of any norm: distances are those of their directions, d² = 2 − 2·cos.
    pytorch-metric-learning's `FastAPLoss`.

    Cakir, He, Xia, Kulis, Sclaroff, *Deep Metric Learning to Rank*, CVPR 2019,
    https://openaccess.thecvf.com/content_CVPR_2019/html/Cakir_Deep_Metric_Learning_to_Rank_CVPR_2019_paper.html

    Args:
        bins: intervals of the histogram.
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    Example:

    >>> import numpy as np
    >>> loss = FastAPLoss()
    >>> round(float(loss(np.array([7, 7, 9]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], "float32"))), 4)
    0.5
    """

    def __init__(self, bins=10, **kwargs):
        super().__init__(**kwargs)
        self.bins = check_integer("bins", bins, low=1)

    def terms(self, rows):
        return [fast_ap(rows.matrix, rows.positive, rows.negative, self.bins)]

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


def smooth_ap(rows, temperature=0.01):
    """1 − mean_j R⁺_j/R_j over the rows j of the anchor's identity, itself included, R_j = 1 + Σ_{k≠j} σ((s_k − s_j)/τ)
    over all rows k and R⁺_j over those of the identity: `Terms` over rows with positives.
    """
    matrix, same = ops.stop_gradient(rows.matrix), ops.cast(ops.logical_not(rows.negative), rows.matrix.dtype)
    share = column(1.0 / ops.cast(rows.size, matrix.dtype))

    def step(chosen, entry, valid, precision, slopes):
        ahead = ops.where(chosen, 0.0, ops.sigmoid((matrix - entry) / temperature))
        rank = 1.0 + ops.sum(ahead, axis=1, keepdims=True)
        rank_inside = 1.0 + ops.sum(ahead * same, axis=1, keepdims=True)
        weight = ops.where(valid, share, 0.0) / rank
        # At j itself σ is 0 here, and so is its slope; R depends on s_j through all the others.
        slope = weight / temperature * ahead * (1.0 - ahead) * (same - rank_inside / rank)
        slopes = slopes + ops.where(chosen, -ops.sum(slope, axis=1, keepdims=True), slope)
        return precision + (weight * rank_inside)[:, 0], slopes

    start = ops.zeros_like(matrix[:, 0]), ops.zeros_like(matrix)
    precision, slopes = over_positives(rows, step, start, start=0)
    return of_rows(1.0 - with_gradient(precision, slopes, rows.matrix), rows.has_positive)


@export
class SmoothAPLoss(CosineLoss):
    """Mean over anchors with positives of 1 − mean_j R⁺_j/R_j, R_j = 1 + Σ_{k≠j} σ((s_k − s_j)/τ) the soft rank of row
    j among all rows k, and R⁺_j that among the rows of the anchor's identity.

    j and k run over the anchor itself as well, which is its own nearest, as in the authors' code. y_true identities
    `(batch,)`, of which some may have more rows than others; y_pred embeddings `(batch, dim)`, of any norm. Equal to
    pytorch-metric-learning's `SmoothAPLoss` where that is the paper's: it asks for rows in order of identity, and takes
    the number of identities for the number of rows that each has, so the two must be the same. Time is O(batch²) for
    each row that the largest identity has, memory O(batch²).

    Brown, Xie, Kalogeiton, Zisserman, *Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval*, ECCV 2020,
    https://arxiv.org/abs/2007.12163

    Args:
        temperature: τ > 0, the difference of cosines that moves a rank.
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    Example:

    >>> import numpy as np
    >>> loss = SmoothAPLoss()
    >>> round(float(loss(np.array([7, 7, 9]), np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], "float32"))), 4)
    0.1667
    """

    def __init__(self, temperature=0.01, **kwargs):
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, low=0, open_low=True, open_high=True)

    def terms(self, rows):
        return [smooth_ap(rows, self.temperature)]

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@export
class HistogramLoss(CosineLoss):
    """Σ_r p⁻_r·Φ⁺_r: the chance that a negative pair of the batch is more similar than a positive one, from histograms.

    p⁻ is the distribution of the negative pairs' cosines on `bins` + 1 nodes evenly over [−1, 1], Φ⁺ the positive
    pairs' cumulative one; a pair between two nodes counts for both in part. y_true identities `(batch,)`; y_pred
    embeddings `(batch, dim)`, of any norm. A row's value is the mean of Φ⁺ over its own negative pairs; without a
    positive or without a negative pair in the batch it is 0. pytorch-metric-learning's `HistogramLoss`, where every row
    has a positive (negative pairs of two rows without one are counted here, and not there), with its gradient; cosines
    of exactly 1 are an error there.

    Ustinova, Lempitsky, *Learning Deep Embeddings with Histogram Loss*, NIPS 2016, https://arxiv.org/abs/1611.00822

    Args:
        bins: intervals of the histogram.
        **kwargs: `block_size`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    Example:

    >>> import numpy as np
    >>> loss = HistogramLoss()
    >>> round(float(loss(np.array([7, 7, 9]), np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], "float32"))), 4)
    0.5
    """

    def __init__(self, bins=100, **kwargs):
        super().__init__(**kwargs)
        self.bins = check_integer("bins", bins, low=1)

    def summarize(self, rows):
        position = (rows.matrix + 1.0) * (self.bins / 2.0)
        return soft_histograms(position, rows.positive, rows.negative, self.bins)

    def terms(self, rows):
        positives = ops.sum(rows.summary[:, 0], axis=0)
        below = ops.cumsum(positives) / ops.maximum(ops.sum(positives), 1.0)
        against = rows.of_batch(rows.summary)[:, 1]
        return [Terms(ops.sum(against * below, axis=1), count(rows.negative))]

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}
