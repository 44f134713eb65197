"""Angular loss: keeps the negatives of a positive pair outside a cone around the middle of the pair.

Contract: as in `softmaxes`. Because (a+p)·n = a·n + p·n, the loss of a pair depends on two rows of the matrix of
cosines. A loop handles the k-th positive of all anchors at once, one `(rows, batch)` matrix for each k. It runs once
for the value and once for the gradient, which depends on the weights of both rows and cannot be computed beforehand.

    encoder.compile("adam", loss=AngularLoss(angle=40.0))
"""

from __future__ import annotations

import math

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._types import BatchOptions, Unpack
from keras_siamese.losses.batch.base import Terms
from keras_siamese.losses.batch.rows import Rows, partner
from keras_siamese.losses.batch.softmaxes import CosineLoss
from keras_siamese.ops import MULTIPLIES, column, lowered, softmax, unit


def angular(rows, tangent_square):
    """`Terms` of Σ_p log(1 + Σ_N e^{4t²·(a+p)·n − 2(1+t²)·a·p}) for each row, over positive pairs with negatives.

    a, p and n are the embeddings at norm 1; `tangent_square` is t².
    """
    push, pull = 4.0 * tangent_square, 2.0 * (1.0 + tangent_square)

    def held(k, pushed, own, matrix, units, negative, has_negative, *places):
        """For the k-th positive of each row: its column, each negative's share of the sum, the exponent of the pair,
        and whether the pair counts.
        """
        index, valid = partner(k, *places)
        # If `rows` is the whole batch, the matrix already holds the cosines of the positives.
        across = ops.take(pushed if rows.whole else units, index, axis=0)
        against = own + (across if rows.whole else push * ops.matmul(across, ops.transpose(units)))
        shares = softmax(against, axis=1)
        # The largest share is 1 / Σ e^(exponent − largest exponent).
        log_sum = ops.max(against, axis=1) - ops.log(ops.max(shares, axis=1))
        together = ops.take_along_axis(matrix, column(index), axis=1)[:, 0]
        return index, shares, log_sum - pull * together, valid & has_negative

    # All tensors are arguments: with `block_size`, JAX traces this function again and cannot use tensors from outside.
    @ops.custom_gradient
    def sums(*tensors):
        matrix, units, size = tensors[0], tensors[1], tensors[-1]
        largest, pushed = ops.max(size), pushed_by(push * matrix, tensors[2])

        def forwards(k, total):
            *_, exponent, counts = held(k, *pushed, *tensors)
            return k + 1, total + ops.where(counts, ops.softplus(exponent), 0.0)

        start = ops.ones((), dtype="int32"), ops.zeros_like(matrix[:, 0])
        total = ops.while_loop(lambda k, _: k < largest, forwards, start)[1]

        def gradient(*args, upstream=None):
            # PyTorch passes the inputs, and `upstream` as a keyword; the other backends pass only `upstream`.
            upstream = args[0] if upstream is None else upstream
            pushed = pushed_by(push * matrix, tensors[2])

            def backwards(k, to_matrix, to_units):
                index, shares, exponent, counts = held(k, *pushed, *tensors)
                slope = ops.where(counts, ops.sigmoid(exponent), 0.0)
                pulled = at_columns(index, -pull * upstream * slope, to_matrix)
                if rows.whole:
                    # With the other row as its anchor, the pair has the same loss and the same gradient for this row.
                    both = upstream + ops.take(upstream, index)
                    return k + 1, pulled + shares * column(push * both * slope), to_units
                weights = shares * column(push * upstream * slope)
                to_units = to_units + ops.matmul(ops.transpose(weights), ops.take(units, index, axis=0))
                across = ops.matmul(weights, units)
                to_units = to_units + ops.segment_sum(across, index, num_segments=ops.shape(units)[0])
                return k + 1, pulled + weights, to_units

            start = ops.ones((), dtype="int32"), ops.zeros_like(matrix), ops.zeros_like(units)
            slopes = ops.while_loop(lambda k, *_: k < largest, backwards, start)[1:]
            return (*slopes, *(None for _ in tensors[2:]))

        return total, gradient

    masks = rows.negatives, rows.has_negative
    places = rows.batch.places.order, rows.place, rows.first, rows.size
    total = sums(rows.matrix, unit(rows.batch.embeddings), *masks, *places)
    positives = ops.cast(rows.size - 1, total.dtype)
    return Terms(total, ops.where(rows.has_negative, positives, 0.0))


def pushed_by(pushed, negative):
    """The matrix `pushed` of 4t²·a·n, and the same with about −1e30 for rows that are no negatives."""
    return pushed, lowered(pushed, negative)


def at_columns(index, values, matrix):
    """The `matrix` `(rows, batch)` plus one of the `values` `(rows,)` in each row, in the column `index` `(rows,)`."""
    if MULTIPLIES:
        return matrix.scatter_add(1, column(index).long(), column(values))
    columns = ops.arange(ops.shape(matrix)[1], dtype="int32")[None, :]
    return matrix + ops.where(columns == column(index), column(values), 0.0)


@export
class AngularLoss(CosineLoss):
    """Angular loss: the mean over positive pairs of log(1 + Σ_N e^{4t²·(a+p)·n − 2(1+t²)·a·p}), t = tan α.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`, of any norm; a, p and n are the embeddings at norm
    1. Same value as pytorch-metric-learning's `AngularLoss` on unit vectors (it normalises anchors and positives, but
    not negatives). Memory is O(batch²), time for each positive of an anchor too (with `block_size`, O(batch²·dim)).

    Wang, Zhou, Wen, Liu, Lin, *Deep Metric Learning with Angular Loss*, ICCV 2017, https://arxiv.org/abs/1708.01682

    Args:
        angle: α in (0, 90) degrees, the largest angle at the negative. The paper uses 36 to 55.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = AngularLoss(angle=45.0)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))), 4)
    0.0181
    """

    def __init__(self, angle: float = 40.0, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.angle = check_number("angle", angle, low=0, high=90, open_low=True, open_high=True)

    def terms(self, rows: Rows) -> list[Terms]:
        return [angular(rows, math.tan(math.radians(self.angle)) ** 2)]
