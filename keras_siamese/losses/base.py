"""What every loss shares: one value a row, a stated kind of input, refusal of a model that cannot feed it.

Contract: `call(y_true, y_pred)` returns `(batch,)`, scaled so that Keras's mean over the batch is the paper's
normalisation. Losses import `_checks`, `_export`, `ops` and `distances`; nothing here knows the model, which
hands over what it puts out.
"""

import inspect
import math
import weakref

import keras
import numpy as np
from keras import ops

from keras_siamese._checks import check_choice, check_labels
from keras_siamese.losses.statistics import BatchStatistic

KINDS = {"distance": "pair", "score": "pair", "embedding": "batch", "similarity matrix": "batch", "cosine": "proxy"}
RANGES = {"distance": (0.0, math.inf), "score": (0.0, 1.0), "cosine": (-1.0, 1.0)}


class SiameseLoss(keras.losses.Loss):
    """Base class of the losses. A loss states what it is by its attributes; nothing has to know it by its name.

    `call(y_true, y_pred)` returns one value a row, `(batch,)`.

    Attributes:
        expects: what y_pred holds: "distance", "score" (a probability of being the same), "embedding", "cosine" (to
            class weights) or "similarity matrix".
        kind: "pair", "triplet", "batch" (all pairs or triplets of a batch) or "proxy" (class weights).
        expected_range: `(lowest, highest)` value that y_pred may have.
        distance_margin: the margin in units of the distance; None if the loss has no margin, does not use it (a soft
            hinge), or means an angle or a difference of cosines by it.
        margin_is_gap: True if that margin is a difference between two distances, False if it is one distance.
        mining: `(positives, negatives)`, which ones of an anchor the loss uses, in the words of `BatchTripletLoss`;
            None if it uses all of them.
        minimum: the loss is never smaller than this.
    """

    expects = "distance"
    distance_margin = None
    margin_is_gap = False
    mining = None
    minimum = 0.0

    @property
    def kind(self):
        return KINDS.get(self.expects)

    @property
    def expected_range(self):
        return RANGES.get(self.expects, (-math.inf, math.inf))

    def value_at_collapse(self, positive_fraction=None):
        """The loss of an encoder that gives all inputs the same embedding, or None if that is not known.

        Args:
            positive_fraction: share of genuine pairs in the training data, in [0, 1]; only pair losses need it.
        """
        return None

    def __init__(self, reduction="sum_over_batch_size", name=None, dtype=None, **unknown):
        if unknown:
            names = ", ".join(option_names(type(self)))
            raise TypeError(f"{type(self).__name__} takes the options {names}; got {', '.join(unknown)}")
        # The first Keras 3 releases take no dtype policy here; float32 is theirs and ours by default.
        super().__init__(name=name, reduction=reduction, **({} if dtype is None else {"dtype": dtype}))
        # Held weakly: a metric holds its loss, and Keras's loading walks through lists without an end.
        self.observers = weakref.WeakSet()

    def metrics(self, *statistics):
        """Keras metrics of what this loss sees, for `compile(metrics=…)`; they cost no second pass over the batch.

        Args:
            *statistics: "positive_distance" and "negative_distance" (means over the batches' pairs) and, of losses with
                a hinge, "active_fraction" (the share of pairs, triplets or anchors that still cost something). None
                given means all.

        Example:

        >>> from keras_siamese import losses
        >>> loss = losses.BatchTripletLoss()
        >>> [metric.name for metric in loss.metrics("active_fraction", "negative_distance")]
        ['active_fraction', 'negative_distance']
        """
        names = self.statistic_names()
        if not names:
            raise ValueError(f"{type(self).__name__} sees no distances, so it has no statistics to report")
        return [BatchStatistic(self, check_choice("statistics", name, names)) for name in statistics or names]

    def statistic_names(self):
        """The statistics that `metrics` knows of this loss."""
        return ()

    def statistics(self, y_true, y_pred):
        """By name, the sum and the count of each statistic over a batch, scalars."""
        raise NotImplementedError

    def record(self, statistics):
        """Hands the statistics of the batch at hand to the metrics that `metrics` made."""
        for observer in self.observers:
            observer.record(*statistics[observer.statistic])

    def check_output(self, kind, bounds):
        """Refuses a model whose output this loss cannot work on.

        Args:
            kind: "distance" or "score".
            bounds: `(lowest, highest)` reachable value, infinite where not known, or None.

        Raises:
            ValueError: saying which option of the model or the loss to change.
        """
        if kind != self.expects:
            fitting = {
                "distance": "SiameseWrapper(…, head=None)",
                "score": 'SiameseWrapper(…, head="logistic")',
                "cosine": "the encoder with a ProxyLogits layer behind it",
            }
            raise ValueError(
                f"{type(self).__name__} expects y_pred to hold {self.expects}s, and the model puts out {kind}s: "
                f"use {fitting.get(self.expects, 'the encoder itself')} or another loss"
            )
        if bounds is not None:
            self.check_reach(*bounds)

    def check_reach(self, low, high):
        """Refuses a margin that distances in [low, high] cannot reach; losses without a margin accept all."""


def concrete(tensor):
    """`tensor` as a NumPy array, or None while a graph is traced and it has no values yet."""
    try:
        return ops.convert_to_numpy(tensor)
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # one or another, by backend
        return None


def split_ids(name, ids):
    """Identities `(batch,)` as digits to base 256 `(batch, digits)`, float32, which casting to any dtype leaves alone.

    `Loss.__call__` casts y_true to the loss's dtype, where float32 makes one of whole numbers above 2²⁴, and float16 of
    those above 2048. A number that is not whole becomes NaN, or an error where its value is known.

    Args:
        name: the argument's, for errors.
        ids: `(batch,)` whole numbers; as a NumPy array, strings as well.
    """
    if isinstance(ids, np.ndarray):
        # Strings, and 64 bits where the backend has 32, become whole numbers that are equal where they are.
        ids = np.unique(check_labels(name, ids), return_inverse=True)[1].reshape(-1).astype("int32")
    ids = ops.convert_to_tensor(ids)
    dtype = keras.backend.standardize_dtype(ids.dtype)
    whole = None
    if "float" in dtype:
        values = concrete(ids)
        if values is not None:
            check_labels(name, np.asarray(values, "float64"))
        whole = (ids == ops.floor(ids)) & (ops.abs(ids) < (2.0**63 if dtype == "float64" else 2.0**31))
        ids = ops.where(whole, ids, ops.zeros_like(ids))
    # Of 32 unsigned bits each number becomes another signed one, so they need no more digits.
    wide = dtype in ("int64", "uint64", "float64")
    ids = ops.cast(ids, "int64" if wide else "int32")
    digits = []
    for _ in range(7 if wide else 3):
        digits.append(ids % 256)
        # Not ops.floor_divide, which returns 32 bits on torch.
        ids = ids // 256
    digits = ops.cast(ops.stack([*digits, ids], axis=1), "float32")
    return (
        digits if whole is None else ops.where(ops.expand_dims(whole, 1), digits, ops.full_like(digits, float("nan")))
    )


def joined_ids(digits):
    """The identities `(batch,)` of `split_ids`'s digits, as integers, and where they were no whole numbers."""
    flaw = ops.any(ops.isnan(digits), axis=1)
    digits = ops.cast(
        ops.where(ops.isnan(digits), ops.zeros_like(digits), digits), "int64" if digits.shape[1] > 4 else "int32"
    )
    ids = digits[:, -1]
    for place in range(digits.shape[1] - 2, -1, -1):
        ids = ids * 256 + digits[:, place]
    return ids, flaw


def mask_of(tensor):
    """The mask that Keras holds of a tensor, or None: an attribute, or, of JAX's tensors, an entry in a table of its
    own, to which it has no public way.
    """
    lookup = getattr(keras.src.backend, "get_keras_mask", None)
    return getattr(tensor, "_keras_mask", None) if lookup is None else lookup(tensor)


def without_wide_mask(y_pred):
    """`y_pred` `(batch, …)` without a mask over time steps, which Keras would multiply the rows' losses with."""
    mask = mask_of(y_pred)
    return y_pred if mask is None or len(mask.shape) == 1 else ops.copy(y_pred)


def option_names(loss):
    """The keyword arguments of a loss class and of its bases, down to `SiameseLoss`."""
    classes = [cls for cls in loss.__mro__ if issubclass(cls, SiameseLoss) and "__init__" in vars(cls)]
    parameters = [option for cls in classes for option in inspect.signature(cls.__init__).parameters.values()]
    named = [option.name for option in parameters if option.kind is not option.VAR_KEYWORD]
    return [name for name in dict.fromkeys(named) if name != "self"]


def check_similar_label(value):
    return check_choice("similar_label", value, (0, 1))


def refuse_margin(loss, name, value, reach, low, high):
    """Raises if `value` is past `reach`, the largest one that distances in [low, high] can satisfy."""
    if value > reach:
        raise ValueError(
            f"`{name}` of {type(loss).__name__} must be at most {reach:g}, the most that the model's distances in "
            f"[{low:g}, {high:g}] can reach; got {value:g}"
        )
