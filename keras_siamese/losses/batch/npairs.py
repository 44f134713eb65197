"""N-pairs losses: a softmax over each row of a matrix of similarities.

Contract: y_pred holds similarities `(batch, batch)` of every row with every row, or of anchors with positives, of any
kind and scale; the model computes them. y_true holds identities `(batch,)`, or the classes of each row
`(batch, classes)`. There is one value for each row. The names are those of tensorflow-addons.

    similarity = keras.ops.matmul(z, keras.ops.transpose(z))            # z (batch, dim)
    NpairsLoss()(labels, similarity)
"""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_siamese._checks import check_reals
from keras_siamese._export import export
from keras_siamese._replicas import refuse_replicas
from keras_siamese._types import Tensor
from keras_siamese.losses.base import SiameseLoss, joined_ids, nan_where, split_ids
from keras_siamese.losses.batch.base import check_identities
from keras_siamese.ops import at_least_float32, column, named_tensor


def softmax_towards(logits, weights):
    """−Σ_j w_ij·log softmax_j(logits_i) of each row; w are the `weights` ≥ 0 over their sum, all `(batch, batch)`.

    A row without weights has value 0.
    """
    total = ops.sum(weights, axis=1, keepdims=True)
    target = weights / ops.where(total > 0, total, 1.0)
    rows = ops.logsumexp(logits, axis=1) - ops.sum(target * logits, axis=1)
    # `<= 0` is False for NaN, so a row with a NaN among its labels keeps the loss NaN.
    return ops.where(total[:, 0] <= 0, 0.0, rows)


def check_similarities(y_pred, rows):
    """Returns `y_pred` if its shape is `(batch, batch)`, where batch is `rows` or unknown; raises otherwise."""
    y_pred = named_tensor("y_pred", y_pred)
    shape = tuple(y_pred.shape)
    known = {size for size in (*shape, rows) if size is not None}
    # If only the width is known, y_pred holds embeddings.
    if len(shape) != 2 or len(known) > 1 or (shape[0] is None) != (shape[1] is None):
        square = "a matrix of similarities (batch, batch) with one row for each row of `y_true`"
        raise ValueError(f"`y_pred` must be {square}; got {shape} for {rows} rows")
    return y_pred


@export
class NpairsLoss(SiameseLoss):
    """N-pairs loss: the mean over rows of −mean_{j: y_j = y_i} log softmax_j(s_i).

    The softmax of each row of similarities should be large in the columns of the row's own identity. y_true identities
    `(batch,)`, whole numbers (a NumPy array may hold strings); y_pred similarities `(batch, batch)`. The diagonal is
    included: a row is one of its own positives. The mean over the rows equals tensorflow-addons' `NpairsLoss`.

    Sohn, *Improved Deep Metric Learning with Multi-class N-pair Loss Objective*, NIPS 2016,
    https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective

    Args:
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = NpairsLoss()
    >>> similarity = ops.array([[2.0, 0.0], [0.0, 2.0]])
    >>> round(float(loss(ops.array([7, 9]), similarity)), 4)
    0.1269
    """

    expects = "similarity matrix"

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        labels = check_identities(y_true)
        y_pred = check_similarities(y_pred, labels.shape[0])
        return super().__call__(split_ids("y_true", labels, self.dtype), y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        refuse_replicas(self)
        if len(y_true.shape) == 1:
            y_true = split_ids("y_true", y_true, self.dtype)
        labels, missing = joined_ids(y_true, self.dtype)
        same = column(labels) == ops.expand_dims(labels, 0)
        logits = at_least_float32(y_pred)
        return nan_where(missing, softmax_towards(logits, ops.cast(same, logits.dtype)))


@export
class NpairsMultilabelLoss(SiameseLoss):
    """N-pairs loss for several labels: the mean over rows of −Σ_j (L_ij / Σ_k L_ik)·log softmax_j(s_i).

    L_ij is the number of classes that rows i and j share. y_true classes of each row `(batch, classes)`, 1 if the row
    is in the class and 0 if not; y_pred similarities `(batch, batch)`, whose diagonal is included. Same value as
    tensorflow-addons' `NpairsMultilabelLoss`, but a row without a class has loss 0 and not NaN.

    Sohn, *Improved Deep Metric Learning with Multi-class N-pair Loss Objective*, NIPS 2016,
    https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective

    Args:
        **kwargs: `reduction`, `name`, `dtype` as in `keras.losses.Loss`.

    >>> loss = NpairsMultilabelLoss()
    >>> similarity = ops.array([[2.0, 0.0], [0.0, 2.0]])
    >>> round(float(loss(ops.array([[1, 1, 0], [0, 1, 0]]), similarity)), 4)
    0.9603
    """

    expects = "similarity matrix"

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        classes = np.asarray(y_true) if isinstance(y_true, (list, tuple)) else y_true
        read = check_reals if isinstance(classes, np.ndarray) else named_tensor
        classes = read("y_true", classes)
        if len(classes.shape) != 2:
            raise ValueError(f"`y_true` must be classes of shape (batch, classes); got {tuple(classes.shape)}")
        if isinstance(classes, np.ndarray):
            other = classes[(classes != 0) & (classes != 1)]
            if other.size:
                raise ValueError(f"`y_true` must hold only 1 (in the class) and 0 (not in it); got {other[0].item()!r}")
        return super().__call__(classes, check_similarities(y_pred, classes.shape[0]), sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        refuse_replicas(self)
        logits = at_least_float32(y_pred)
        classes = ops.cast(y_true, logits.dtype)
        return softmax_towards(logits, ops.matmul(classes, ops.transpose(classes)))
