"""Base class of the proxy losses: reads the classes, checks the cosines and returns one value for each row.

Contract: y_true `(batch,)` classes, y_pred cosines `(batch, classes[, centers])`. A subclass defines
`per_row(target, cosine) → (batch,)`, where `target` `(batch, classes)` is True at each row's class. The layer
`keras_siamese.layers.ProxyLogits` owns the class weights and returns the cosines, so labels do not enter the forward
pass. After training, the encoder before that layer is used for verification.

    model = keras.Sequential([encoder, ProxyLogits(num_classes=1000)])
    model.compile("adam", loss=ArcFaceLoss(margin=0.5, scale=64))
    model.fit(x, labels)                                                # labels (n,) in 0 … 999
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_siamese._types import Tensor
from keras_siamese.losses.base import SiameseLoss, concrete
from keras_siamese.ops import at_least_float32, column, named_tensor, row_vector


class ProxyLoss(SiameseLoss):
    """Base class of the proxy losses; a subclass defines `per_row`.

    y_true `(batch,)` or `(batch, 1)`, whole numbers in 0 … classes − 1, not one-hot; y_pred cosines `(batch, classes)`,
    or `(batch, classes, centers)` if a class has several weights.

    A label that is not a class, or a y_pred outside [−1, 1], raises an error when the loss is called eagerly. A
    compiled graph cannot raise errors; there, a row whose label is not a class has the loss NaN.

    Args:
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    expects = "cosine"
    compares_cosines = True
    several_centers = False

    def prepared(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        # Keras casts y_true to the loss's dtype, which merges large class numbers (float16: above 2048). The mask holds
        # only 0 and 1, which every dtype represents exactly.
        y_pred = named_tensor("y_pred", y_pred)
        check_cosines(self, y_pred)
        return class_mask(y_true, y_pred), y_pred

    def values_and_statistics(
        self, y_true: Tensor, y_pred: Tensor, wanted: bool
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """One value for each row `(batch,)`, and no statistics; y_true is the mask `(batch, classes)` of `prepared`."""
        target, cosine = ops.cast(y_true, "bool"), at_least_float32(y_pred)
        losses = self.per_row(target, cosine)
        return ops.where(ops.any(target, axis=1), losses, float("nan")), {}

    def per_row(self, target: Tensor, cosine: Tensor) -> Tensor:
        """The loss of each row `(batch,)`, from the mask of its class `(batch, classes)` and y_pred."""
        raise NotImplementedError


def softmax_loss(target, logits):
    """Cross-entropy log Σ_j e^{z_j − z_y} of the class y, `(batch,)`, from `target` and `logits` `(batch, classes)`."""
    # Subtracts the row's own logit first: with a scale of 64, a later difference would lose digits in float32.
    return ops.logsumexp(logits - own_of(target, logits), axis=1)


def own_of(target, values):
    """The value of each row's class `(batch, 1)`, from `target` and `values` `(batch, classes)`; 0 without a class."""
    return ops.sum(ops.where(target, values, 0.0), axis=1, keepdims=True)


def check_cosines(loss, y_pred):
    """Raises if `loss` needs another shape of y_pred or, in eager mode, if y_pred holds values that are not cosines."""
    shape, must = tuple(y_pred.shape), f"`y_pred` of {type(loss).__name__} must hold cosines"
    centers, count = (", centers", "several") if loss.several_centers else ("", "one")
    if len(shape) != (3 if loss.several_centers else 2) or shape[1] is None:
        use = f"Use a ProxyLogits layer with {count} `centers_per_class`"
        raise ValueError(f"{must} of shape (batch, classes{centers}); got {shape}. {use}")
    largest = concrete(ops.cast(ops.max(ops.abs(y_pred)), "float32")) if 0 not in shape else None
    if largest is not None and largest > 1.001:
        raise ValueError(f"{must} in [-1, 1], as ProxyLogits returns; the largest magnitude is {float(largest):g}")


def class_mask(y_true, y_pred):
    """`(batch, classes)`, True at each row's class; all False in a row whose label is not in 0 … classes − 1."""
    classes = y_pred.shape[1]
    # Checked before the conversion to a tensor: JAX keeps 32 bits, and 2³² + 1 would become class 1.
    values = concrete(y_true)
    if values is not None:
        check_classes(values, classes)
    labels = row_vector("y_true", y_true)
    if None not in (labels.shape[0], y_pred.shape[0]) and labels.shape[0] != y_pred.shape[0]:
        shapes = f"{tuple(labels.shape)} and {tuple(y_pred.shape)}"
        raise ValueError(f"`y_true` must have one class for each row of `y_pred`; got {shapes}")
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if "float" in dtype:
        # NaN and fractions equal no class. float32 and wider types represent each class exactly.
        labels = at_least_float32(labels)
    elif dtype != "int64":
        # Casts to a type that holds every class; an unsigned label that is too large becomes negative: no class.
        labels = ops.cast(labels, "int64" if dtype == "uint64" else "int32")
    return column(labels) == ops.expand_dims(ops.arange(classes, dtype=labels.dtype), 0)


def check_classes(labels, classes):
    """Raises if `labels`, in their original dtype, are not whole numbers in 0 … classes − 1."""
    if labels.dtype.kind not in "biu":
        if "float" not in labels.dtype.name:
            raise ValueError(f"`y_true` must hold class numbers; got an array of dtype {labels.dtype}")
        labels = labels.astype("float64")
        other = labels[labels != np.floor(labels)]
        if other.size:
            raise ValueError(f"`y_true` must hold whole class numbers; got {other[0]} (wrong labels: {other.size})")
    other = labels[(labels < 0) | (labels >= classes)]
    if other.size:
        columns, found = f"the {classes} columns of y_pred", f"{other[0]} (wrong labels: {other.size})"
        raise ValueError(f"`y_true` must hold classes in 0 … {classes - 1}, one for each of {columns}; got {found}")
