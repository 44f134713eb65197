"""N-pairs losses: each row of a matrix of similarities as the logits of a softmax over the batch.

Contract: y_pred similarities `(batch, batch)`, of every row with every row, or of anchors with their positives, as the
model makes them: any kind and scale; y_true identities `(batch,)`, or the classes of each row `(batch, classes)`. One
value a row. tensorflow-addons' losses of the same names.

    similarity = keras.ops.matmul(z, keras.ops.transpose(z))            # z (batch, dim)
    NpairsLoss()(labels, similarity)
"""

import numpy as np
from keras import ops

from keras_siamese._export import export
from keras_siamese.losses.base import SiameseLoss, joined_ids, split_ids
from keras_siamese.ops import at_least_float32, column


def softmax_towards(logits, weights):
    """−Σ_j w_ij·log softmax_j(logits_i) by row, w the non-negative `weights` over their sum, all `(batch, batch)`; 0 of
    a row without weights.
    """
    total = ops.sum(weights, axis=1, keepdims=True)
    target = weights / ops.where(total > 0, total, 1.0)
    rows = ops.logsumexp(logits, axis=1) - ops.sum(target * logits, axis=1)
    # Asked as ≤ 0: the weights of a row with a NaN among its labels are NaN, and must not pass for none.
    return ops.where(total[:, 0] <= 0, 0.0, rows)


def check_similarities(y_pred, rows):
    """`y_pred`, if it is `(batch, batch)` with the batch of `rows`, or of unknown size."""
    shape = tuple(y_pred.shape)
    known = {size for size in (*shape, rows) if size is not None}
    # A known width beside an unknown batch is that of embeddings.
    if len(shape) != 2 or len(known) > 1 or (shape[0] is None) != (shape[1] is None):
        raise ValueError(
            f"`y_pred` must be the similarities (batch, batch) of all rows, and `y_true` have one entry a row; got "
            f"{shape} for {rows} rows"
        )
    return y_pred


class SimilarityMatrixLoss(SiameseLoss):
    """Base of the losses on a matrix of similarities `(batch, batch)`.

    Args:
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    expects = "similarity matrix"

    def check_output(self, kind, bounds):
        raise ValueError(
            f"{type(self).__name__} expects y_pred to hold the similarities (batch, batch) of all rows, and the model "
            f"puts out {kind}s: let a model end in keras.ops.matmul(z, keras.ops.transpose(z))"
        )


@export
class NpairsLoss(SimilarityMatrixLoss):
    """Mean over rows of −mean_{j: y_j = y_i} log softmax_j(s_i): the softmax of each row of similarities, towards the
    columns of its own identity.

    y_true identities `(batch,)`, whole numbers (a NumPy array may hold strings); y_pred similarities `(batch, batch)`.
    The diagonal is a column as any other: a row counts as its own positive. tensorflow-addons' `NpairsLoss`, with one
    value a row where that gives one for the batch.

    Sohn, *Improved Deep Metric Learning with Multi-class N-pair Loss Objective*, NIPS 2016,
    https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective

    Args:
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    Example:

    >>> import numpy as np
    >>> loss = NpairsLoss()
    >>> similarity = np.array([[2.0, 0.0], [0.0, 2.0]], "float32")
    >>> round(float(loss(np.array([7, 9]), similarity)), 4)
    0.1269
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        labels = np.asarray(y_true) if isinstance(y_true, (list, tuple, np.ndarray)) else y_true
        shape = tuple(labels.shape)
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise ValueError(f"`y_true` must be identities of shape (batch,) or (batch, 1); got {shape}")
        labels = labels[:, 0] if len(shape) == 2 else labels
        return super().__call__(split_ids("y_true", labels), check_similarities(y_pred, shape[0]), sample_weight)

    def call(self, y_true, y_pred):
        if len(y_true.shape) == 1:
            y_true = split_ids("y_true", y_true)
        labels, flaw = joined_ids(y_true)
        same = column(labels) == ops.expand_dims(labels, 0)
        logits = at_least_float32(y_pred)
        return ops.where(flaw, float("nan"), softmax_towards(logits, ops.cast(same, logits.dtype)))


@export
class NpairsMultilabelLoss(SimilarityMatrixLoss):
    """Mean over rows of −Σ_j (L_ij / Σ_k L_ik)·log softmax_j(s_i), L_ij the number of classes that rows i and j share.

    y_true the classes of each row `(batch, classes)`, 1 where it belongs to one and 0 elsewhere; y_pred similarities
    `(batch, batch)`. The diagonal is a column as any other. A row without a class costs 0 (tensorflow-addons gives
    NaN). tensorflow-addons' `NpairsMultilabelLoss`, with one value a row where that gives one for the batch.

    Sohn, *Improved Deep Metric Learning with Multi-class N-pair Loss Objective*, NIPS 2016,
    https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective

    Args:
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    Example:

    >>> import numpy as np
    >>> loss = NpairsMultilabelLoss()
    >>> similarity = np.array([[2.0, 0.0], [0.0, 2.0]], "float32")
    >>> round(float(loss(np.array([[1, 1, 0], [0, 1, 0]]), similarity)), 4)
    0.9603
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        classes = np.asarray(y_true) if isinstance(y_true, (list, tuple, np.ndarray)) else y_true
        if len(classes.shape) != 2:
            raise ValueError(f"`y_true` must be classes of shape (batch, classes); got {tuple(classes.shape)}")
        if isinstance(classes, np.ndarray):
            other = classes[(classes != 0) & (classes != 1)]
            if other.size:
                raise ValueError(f"`y_true` must hold 1 (in the class) and 0 (not) only; got also {other[0].item()!r}")
        return super().__call__(classes, check_similarities(y_pred, classes.shape[0]), sample_weight)

    def call(self, y_true, y_pred):
        logits = at_least_float32(y_pred)
        classes = ops.cast(y_true, logits.dtype)
        return softmax_towards(logits, ops.matmul(classes, ops.transpose(classes)))
