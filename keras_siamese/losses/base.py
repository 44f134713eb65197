"""Base class of all losses, with the checks that a model's output fits the loss.

Contract: `call(y_true, y_pred)` returns one value for each row `(batch,)`, scaled so that Keras's mean over the batch
is the mean that the paper defines. A model calls `check_output` to say what it returns.
"""

from __future__ import annotations

import inspect
import math
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_siamese._checks import check_choice, check_labels
from keras_siamese._replicas import replica_context, weighted_by_rows
from keras_siamese._types import Tensor
from keras_siamese.losses.statistics import BatchStatistic
from keras_siamese.ops import column, named_tensor

KINDS = {"distance": "pair", "score": "pair", "embedding": "batch", "similarity matrix": "batch", "cosine": "proxy"}
RANGES = {"distance": (0.0, math.inf), "score": (0.0, 1.0), "cosine": (-1.0, 1.0)}
# Models that return what a loss expects
FITTING = {
    "distance": "SiameseWrapper(…, head=None)",
    "score": 'SiameseWrapper(…, head="logistic")',
    "cosine": "the encoder followed by a ProxyLogits layer",
    "similarity matrix": "a model that ends with keras.ops.matmul(z, keras.ops.transpose(z))",
}


class SiameseLoss(keras.losses.Loss):
    """Base class of the losses; its attributes say what a loss expects and how it behaves.

    `call(y_true, y_pred)` returns one value for each row `(batch,)`.

    Attributes:
        expects: what y_pred holds: "distance", "score" (a probability of "same"), "embedding", "cosine" (to class
            weights) or "similarity matrix".
        kind: "pair", "triplet", "batch" (all pairs or triplets in a batch) or "proxy" (class weights); None for a
            subclass with another `expects`.
        expected_range: `(lowest, highest)` possible value of y_pred.
        distance_margin: the margin in units of the distance. None if there is no margin, if the loss does not use it (a
            soft hinge), or if it is an angle or a difference of cosines.
        margin_is_gap: True if that margin is a difference between two distances, False if it is one distance.
        mining: `(positives, negatives)`, which of them an anchor uses, with the names of `BatchTripletLoss`; None if it
            uses all of them.
        minimum: a lower bound of the loss.
        compares_cosines: whether it compares cosines, in [−1, 1].
        cosine_temperature: what differences of cosines are divided by before they are compared, by an exponential or a
            sigmoid; None if the loss has no such number, or compares other things.
    """

    expects = "distance"
    distance_margin: float | None = None
    margin_is_gap = False
    mining: tuple[str, str] | None = None
    minimum = 0.0
    compares_cosines = False

    @property
    def kind(self) -> str | None:
        return KINDS.get(self.expects)

    @property
    def expected_range(self) -> tuple[float, float]:
        return RANGES.get(self.expects, (-math.inf, math.inf))

    @property
    def cosine_temperature(self) -> float | None:
        scale = getattr(self, "scale", None)
        temperature = getattr(self, "temperature", None if scale is None else 1 / scale)
        return temperature if self.compares_cosines else None

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        """The loss of an encoder that gives all inputs the same embedding, or None if it is not known.

        Args:
            positive_fraction: share of genuine pairs in the training data, in [0, 1]; only pair losses need it.
        """
        return None

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = None, dtype: Any = None, **unknown: Any
    ) -> None:
        if unknown:
            names = ", ".join(option_names(type(self)))
            raise TypeError(f"{type(self).__name__} takes the options {names}; got {', '.join(unknown)}")
        # The first releases of Keras 3 take no dtype here; the default is float32 in any case.
        super().__init__(name=name, reduction=reduction, **({} if dtype is None else {"dtype": dtype}))
        # Weak references: a metric refers to its loss, and Keras's loading would follow a list in an endless circle.
        self.observers = weakref.WeakSet()

    def metrics(self, *statistics: str) -> list[keras.metrics.Metric]:
        """Keras metrics of what the loss computes, for `compile(metrics=…)`; they reuse the loss's distances.

        Args:
            *statistics: by default all of "positive_distance", "negative_distance" (mean distances of the pairs) and,
                for losses with a hinge, "active_fraction" (the share of pairs, triplets or anchors with a loss > 0).

        >>> from keras_siamese import losses
        >>> loss = losses.BatchTripletLoss()
        >>> [metric.name for metric in loss.metrics("active_fraction", "negative_distance")]
        ['active_fraction', 'negative_distance']
        """
        names = self.statistic_names()
        if not names:
            raise ValueError(f"{type(self).__name__} computes no distances, so it has no statistics for `metrics`")
        return [BatchStatistic(self, check_choice("statistics", name, names)) for name in statistics or names]

    def statistic_names(self) -> tuple[str, ...]:
        """The statistics that `metrics` can report for this loss."""
        return ()

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        return self.reduced(*self.prepared(y_true, y_pred), sample_weight)

    def prepared(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """What `call` takes: y_true and y_pred as tensors, after a check of their shapes and of what is known of them.

        Keras would take a list for several outputs. It casts both to the loss's dtype afterwards.
        """
        return named_tensor("y_true", y_true), named_tensor("y_pred", y_pred)

    def reduced(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor) -> Tensor:
        """What Keras's own losses return for these tensors, but of the whole batch if there are several replicas."""
        loss = super().__call__(y_true, y_pred, sample_weight)
        return weighted_by_rows(loss, self.reduction, y_pred, sample_weight, mask_of(y_pred))

    def values_and_statistics(
        self, y_true: Tensor, y_pred: Tensor, wanted: bool
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """The rows' values `(batch,)` and, if `wanted`, sum and count of each statistic over the batch, by name."""
        raise NotImplementedError

    def statistics(self, y_true: Tensor, y_pred: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum and count of each statistic over a batch, scalars, by name."""
        return self.values_and_statistics(y_true, y_pred, True)[1]

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values, statistics = self.values_and_statistics(y_true, y_pred, bool(self.observers))
        for observer in self.observers:
            observer.record(*statistics[observer.statistic])
        return values

    def check_output(self, kind: str, bounds: tuple[float, float] | None) -> None:
        """Raises an error if this loss cannot use the model's output.

        Args:
            kind: "distance" or "score".
            bounds: `(lowest, highest)` possible value, infinite where not known, or None.

        Raises:
            ValueError: the message says which option of the model or the loss to change.
        """
        if kind != self.expects:
            is_matrix = self.expects == "similarity matrix"
            held = "a matrix of similarities (batch, batch)" if is_matrix else f"{self.expects}s"
            problem = f"expects y_pred to hold {held}, but the model returns {kind}s"
            fitting = FITTING.get(self.expects, "the encoder itself")
            raise ValueError(f"{type(self).__name__} {problem}: use {fitting} or another loss")
        if bounds is not None:
            self.check_reach(*bounds)

    def check_reach(self, low: float, high: float) -> None:
        """Raises if distances in [low, high] cannot reach the margin; losses without a margin accept all."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, also those of the base classes, from the attributes with the same names."""
        own = [name for name in option_names(type(self)) if name not in ("reduction", "name", "dtype")]
        values = {name: getattr(self, name) for name in own if hasattr(self, name)}
        return {**super().get_config(), **keras.saving.serialize_keras_object(values)}


def concrete(tensor):
    """`tensor` as a NumPy array, or None if it has no values yet because a graph is being traced."""
    try:
        return ops.convert_to_numpy(tensor)
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # depends on the backend
        return None


def split_ids(name, ids, dtype="float16"):
    """Splits identities `(batch,)` into digits `(batch, digits)`, float32, which survive a cast to the float `dtype`.

    `Loss.__call__` casts y_true to the loss's dtype, which merges large whole numbers (above 2²⁴ in float32, above 2048
    in float16). If `ids` are floats, a last column has NaN where a number is not whole, or an error (which names
    `name`) is raised if its value is known. A NumPy array may also hold strings.
    """
    if isinstance(ids, np.ndarray):
        ids = small_ids(name, check_labels(name, ids))
    ids = ops.convert_to_tensor(ids)
    found = keras.backend.standardize_dtype(ids.dtype)
    flags = []
    if "float" in found:
        values = concrete(ids)
        if values is not None:
            check_labels(name, np.asarray(values, "float64"))
        whole = (ids == ops.floor(ids)) & (ops.abs(ids) < (2.0**63 if found == "float64" else 2.0**31))
        ids = ops.where(whole, ids, ops.zeros_like(ids))
        flags = [ops.where(whole, 0.0, float("nan"))]
    # A cast from uint32 to int32 keeps different numbers different, so uint32 needs no more digits.
    wide, base = found in ("int64", "uint64", "float64"), base_of(dtype)
    ids = ops.cast(ids, "int64" if wide else "int32")
    digits = []
    for _ in range((64 if wide else 32) // (base.bit_length() - 1) - 1):
        digits.append(ids % base)
        # `ops.floor_divide` returns 32 bits on PyTorch.
        ids = ids // base
    columns = [column(ops.cast(digit, "float32")) for digit in (*digits, ids, *flags)]
    return ops.concatenate(columns, axis=1)


def base_of(dtype):
    """The base of digits that a float `dtype` holds exactly."""
    return 2**16 if dtype in ("float32", "float64") else 2**8


def small_ids(name, ids):
    """Small numbers instead of strings, and of 64-bit numbers that a backend may cut to 32 bits, `(batch,)` all."""
    if replica_context() is None:
        return np.unique(ids, return_inverse=True)[1].reshape(-1).astype("int32")
    # Each replica would number the identities of its own rows.
    if ids.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold whole numbers where several replicas share a batch; got {ids[:1]!r}")
    return ids


def joined_ids(digits, dtype="float16"):
    """The identities `(batch,)` of the digits of `split_ids`, as integers, and a mask of those that were not whole.

    The mask is None if `split_ids` knew that all are whole.
    """
    flagged, base = digits.shape[1] % 2 == 1, base_of(dtype)
    missing = ops.isnan(digits[:, -1]) if flagged else None
    count = digits.shape[1] - flagged
    digits = ops.cast(digits[:, :count], "int64" if count * (base.bit_length() - 1) > 32 else "int32")
    ids = digits[:, -1]
    for place in range(count - 2, -1, -1):
        ids = ids * base + digits[:, place]
    return ids, missing


def nan_where(missing, values):
    """`values` `(batch,)`, with NaN inside the mask `missing` `(batch,)`, or as they are if it is None."""
    return values if missing is None else values + ops.where(missing, float("nan"), 0.0)


def mask_of(tensor):
    """Keras's mask of a `tensor`, or None: an attribute or, for JAX's tensors, an entry in Keras's private table."""
    lookup = getattr(keras.src.backend, "get_keras_mask", lambda tensor: getattr(tensor, "_keras_mask", None))
    return lookup(tensor)


def without_wide_mask(y_pred):
    """`y_pred` `(batch, …)` without a mask over time steps, by which Keras would multiply the rows' losses."""
    mask = mask_of(y_pred)
    return y_pred if mask is None or len(mask.shape) == 1 else ops.copy(y_pred)


def option_names(loss):
    """The keyword arguments of a loss class and its base classes, up to `SiameseLoss`."""
    classes = [cls for cls in loss.__mro__ if issubclass(cls, SiameseLoss) and "__init__" in vars(cls)]
    parameters = [option for cls in classes for option in inspect.signature(cls.__init__).parameters.values()]
    named = [option.name for option in parameters if option.kind is not option.VAR_KEYWORD]
    return [name for name in dict.fromkeys(named) if name != "self"]


def refuse_margin(loss, name, value, reach, low, high):
    """Raises if `value` is larger than `reach`, the largest value that distances in [low, high] can satisfy."""
    if value > reach:
        why = f"because the model's distances lie in [{low:g}, {high:g}]"
        raise ValueError(f"`{name}` of {type(loss).__name__} must be at most {reach:g}, {why}; got {value:g}")
