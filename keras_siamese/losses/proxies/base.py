"""What the proxy losses share: classes read as whole numbers, cosines checked, one value a row.

Contract: y_true `(batch,)` classes, y_pred cosines `(batch, classes[, centers])`. A member defines
`per_row(target, cosine) → (batch,)`, where `target` `(batch, classes)` is True at each row's class.

    class ProxyNCALoss(ProxyLoss):
        def per_row(self, target, cosine):
            return proxy_nca(target, cosine, self.scale)
"""

import keras
import numpy as np
from keras import ops

from keras_siamese._checks import check_number
from keras_siamese.losses.base import SiameseLoss, concrete
from keras_siamese.ops import at_least_float32, row_vector


class ProxyLoss(SiameseLoss):
    """Base of the proxy losses: reads the classes as integers, calls `per_row` with the mask of each row's class.

    y_true `(batch,)` or `(batch, 1)` whole numbers in 0 … classes − 1, not one-hot; y_pred cosines
    `(batch, classes)`, or `(batch, classes, centers)` where a class has several weights.

    A label that is no class, and a y_pred outside [−1, 1], is an error when the loss is called eagerly. Inside a
    compiled graph no error can be raised: a row whose label is no class has the loss NaN, never 0.

    Args:
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    expects = "cosine"
    several_centers = False

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras casts y_true to the loss's dtype, in which large class numbers collide (float16: from 2048 on). The
        # mask of the classes holds 0 and 1, which are exact in each.
        check_cosines(self, y_pred)
        return super().__call__(class_mask(y_true, y_pred), y_pred, sample_weight)

    def call(self, y_true, y_pred):
        """One value a row `(batch,)`.

        Args:
            y_true: the mask that `__call__` makes of the classes: `(batch, classes)`, 1 at the row's class; a row of
                zeros has a label that is no class.
            y_pred: cosines `(batch, classes)` or `(batch, classes, centers)`.
        """
        target, cosine = ops.cast(y_true, "bool"), at_least_float32(y_pred)
        losses = self.per_row(target, cosine)
        return ops.where(ops.any(target, axis=1), losses, ops.full_like(losses, float("nan")))

    def per_row(self, target, cosine):
        """The loss of each row `(batch,)` from the mask of its class `(batch, classes)` and y_pred."""
        raise NotImplementedError


def softmax_loss(target, logits):
    """log Σ_j e^{z_j − z_y}, the cross-entropy of the class y: `(batch,)`.

    Args:
        target: `(batch, classes)`, True at the row's class.
        logits: z, `(batch, classes)`.
    """
    own = ops.sum(ops.where(target, logits, ops.zeros_like(logits)), axis=1, keepdims=True)
    # Less the row's own logit first: at a scale of 64 the plain difference loses what float32 rounds off of 64.
    return ops.logsumexp(logits - own, axis=1)


def check_cosines(loss, y_pred):
    """Refuses another shape than `loss` works on and, eagerly, values that are no cosines."""
    shape = tuple(y_pred.shape)
    centers = ", centers" if loss.several_centers else ""
    if len(shape) != (3 if loss.several_centers else 2) or shape[1] is None:
        hint = "several" if loss.several_centers else "one"
        raise ValueError(
            f"`y_pred` of {type(loss).__name__} must hold cosines of shape (batch, classes{centers}); got {shape}. "
            f"ProxyLogits puts them out with {hint} `centers_per_class`"
        )
    largest = concrete(ops.cast(ops.max(ops.abs(y_pred)), "float32")) if 0 not in shape else None
    if largest is not None and largest > 1.001:
        raise ValueError(
            f"`y_pred` of {type(loss).__name__} must hold cosines in [-1, 1], as ProxyLogits puts out; its largest "
            f"magnitude is {float(largest):g}"
        )


def class_mask(y_true, y_pred):
    """`(batch, classes)`, True at each row's class; all False in a row whose label is not in 0 … classes − 1."""
    classes = y_pred.shape[1]
    # Before any conversion to a tensor: JAX keeps 32 bits, in which 2³² + 1 would be class 1.
    values = concrete(y_true)
    if values is not None:
        check_classes(values, classes)
    labels = row_vector("y_true", y_true)
    if None not in (labels.shape[0], y_pred.shape[0]) and labels.shape[0] != y_pred.shape[0]:
        raise ValueError(
            f"`y_true` and `y_pred` must have as many rows; got {tuple(labels.shape)} and {tuple(y_pred.shape)}"
        )
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if "float" in dtype:
        # No class equals NaN or a number that is not whole; in float32 and wider each class is a float of its own.
        labels = at_least_float32(labels)
        numbers = ops.arange(classes, dtype=labels.dtype)
    else:
        # Up to a type that holds every class; an unsigned label too large for it becomes negative, which is no class.
        labels = labels if dtype == "int64" else ops.cast(labels, "int64" if dtype == "uint64" else "int32")
        numbers = ops.arange(classes, dtype=labels.dtype)
    return ops.expand_dims(labels, 1) == ops.expand_dims(numbers, 0)


def check_classes(labels, classes):
    """Refuses labels that are no whole numbers in 0 … classes − 1, in the first dtype they are seen in."""
    if labels.dtype.kind not in "biu":
        if "float" not in labels.dtype.name:
            raise ValueError(f"`y_true` must hold class numbers; got an array of dtype {labels.dtype}")
        labels = labels.astype("float64")
        other = labels[labels != np.floor(labels)]
        if other.size:
            raise ValueError(f"`y_true` must hold whole class numbers; got {other[0]}, {other.size} such labels")
    other = labels[(labels < 0) | (labels >= classes)]
    if other.size:
        raise ValueError(
            f"`y_true` must hold classes in 0 … {classes - 1}, one for each of the {classes} columns of y_pred; got "
            f"{other[0]}, {other.size} such labels"
        )


def check_scale(scale):
    return check_number("scale", scale, low=0, open_low=True, open_high=True)
