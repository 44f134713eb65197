"""Distances between embeddings: smaller is closer.

Contract: distances are computed in at least float32 and cast back to the dtype of `a`. Gradients are finite everywhere,
also between identical embeddings. Learned distances are Keras layers with weights.

    distance = get("euclidean")              # a name; an instance, its config or a callable also work
    distance.rowwise(left, right)            # (n,)
    distance.pairwise(embeddings)            # (n, n), zero diagonal
    distance.bounds                          # (0.0, 2.0)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_siamese._checks import check_choice, check_integer, check_number
from keras_siamese._export import export, exported, function_name, function_of
from keras_siamese._types import DistanceLike, Self, Shapes, Tensor
from keras_siamese.ops import (
    MULTIPLIES,
    NORM_FLOOR,
    absolute,
    at_least_float32,
    has_values,
    is_above,
    named_tensor,
    safe_norm,
    safe_sqrt,
    unit,
    zero_diagonal,
)

if MULTIPLIES:
    from keras_siamese._differences import Differences

__all__ = ["AngularDistance", "ChebyshevDistance", "CosineDistance", "Distance", "EuclideanDistance"]
__all__ += ["FunctionDistance", "InnerProductDistance", "MahalanobisDistance", "ManhattanDistance", "MinkowskiDistance"]
__all__ += ["SNRDistance", "SquaredEuclideanDistance", "WeightedManhattanDistance", "get", "names"]


class Distance:
    """Base class of distances between embeddings.

    A subclass defines `between(a, b)` over the last axis of broadcastable tensors. It may define `matrix(a, b)` if a
    matrix product takes less memory than the `(n, m, dim)` differences.

    Attributes:
        bounds: `(lowest, highest)` on embeddings of unit norm; `inf` if no number holds for every dimension.
        scale_free: whether `bounds` holds for embeddings of any norm.
    """

    bounds = (0.0, float("inf"))
    scale_free = False

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.between(ops.expand_dims(a, 1), ops.expand_dims(b, 0))

    def rowwise(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each row of `a` `(n, dim)` to the same row of `b` `(n, dim)`: `(n,)`.

        The result has the dtype of `a`, or float32 if `a` holds integers.
        """
        a, b = self.checked(a, b)
        if None not in (a.shape[0], b.shape[0]) and a.shape[0] != b.shape[0]:
            raise ValueError(f"`a` and `b` must have equally many rows; got {tuple(a.shape)} and {tuple(b.shape)}")
        wide = at_least_float32(a)
        if a.shape[0] == 0:  # some backends have no maximum of nothing
            return like(a, ops.zeros((0,)))
        return like(a, self.between(wide, ops.cast(b, wide.dtype)))

    def pairwise(self, a: Tensor, b: Tensor = None) -> Tensor:
        """Distances of every row of `a` `(n, dim)` to every row of `b` `(m, dim)`: `(n, m)`, in the dtype of `a`.

        Without `b` the rows of `a` are compared with each other, and the diagonal is exactly 0 (but −1 for unit vectors
        with `inner_product`, which is not a metric). Matrix products lose digits if two embeddings are nearly equal:
        the relative error is up to 35 % at distances around 1e-3. Use `rowwise` if such small distances matter.
        """
        own = b is None or b is a
        a, b = self.checked(a, a if own else b)
        if 0 in (a.shape[0], b.shape[0]):
            return like(a, ops.zeros((a.shape[0], b.shape[0])))
        wide = at_least_float32(a)
        matrix = self.matrix(wide, wide if own else ops.cast(b, wide.dtype))
        if own and self.bounds[0] == 0.0:
            matrix = zero_diagonal(matrix)
        return like(a, matrix)

    def checked(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as tensors; refuse all shapes but `(n, dim)` and `(m, dim)`."""
        a, b = named_tensor("a", a), named_tensor("b", b)
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[1]:
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"`a` and `b` must be embeddings of shapes (n, dim) and (m, dim); got {shapes}")
        return a, b

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({options})"


def like(tensor, distances):
    """`distances` in the dtype of `tensor`; in float32 if it holds integers, whose distance need not be one."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return ops.cast(distances, dtype if "float" in dtype else "float32")


# For equal vectors, ‖a‖² + ‖b‖² − 2a·b is up to 16 rounding units of ‖a‖² (2 to 2,048 dimensions, every backend).
ROUNDING = 20


def cosines(a, b):
    """Cosine of each row of `a` `(n, dim)` with each row of `b` `(m, dim)`: `(n, m)`; 0 if a norm is below 1e-6."""
    u = unit(a)
    return u @ ops.transpose(u if a is b else unit(b))


def squared_differences(a: Tensor, b: Tensor, root: bool = False) -> Tensor:
    """‖a_i − b_j‖² = ‖a‖² + ‖b‖² − 2a·b for all i, j, or its `root`: `(n, m)`; 0 with gradient 0 where it is rounding.

    The mean of `b` is subtracted first, so that rounding is relative to the spread of the embeddings.
    """
    # Nearly equal vectors have nearly the same norm, so the norm of one of them gives the rounding error.
    limit = ROUNDING * (2.0**-23 if keras.backend.standardize_dtype(a.dtype) == "float32" else 2.0**-52)
    if has_values(a):
        return Differences.apply(a, b, limit, root)
    is_same, centre = a is b, ops.mean(ops.stop_gradient(b), axis=0, keepdims=True)
    centre = ops.where(ops.isfinite(centre), centre, 0.0)
    a = a - centre
    b = a if is_same else b - centre
    own = ops.sum(a * a, axis=1, keepdims=True)
    other = own if is_same else ops.sum(b * b, axis=1, keepdims=True)
    apart = (own + ops.transpose(other)) + (-2.0 * a) @ ops.transpose(b)
    # Where norms overflow, the difference is NaN, and the distance is not 0.
    above = is_above(apart, limit * ops.stop_gradient(own))
    return safe_sqrt(apart, above) if root else apart * above


def differences(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖ for all i, j: `(n, m)`; 0 with gradient 0 where its square is only rounding."""
    return squared_differences(a, b, root=True)


@export
class EuclideanDistance(Distance):
    """‖a − b‖₂, in [0, 2] on unit-norm embeddings; gradient 0 at a = b.

    >>> import numpy as np
    >>> distance = EuclideanDistance()
    >>> np.asarray(distance.rowwise([[0.0, 0.0]], [[3.0, 4.0]])).tolist()
    [5.0]
    """

    bounds = (0.0, 2.0)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return safe_norm(a - b)

    matrix = staticmethod(differences)


@export
class SquaredEuclideanDistance(Distance):
    """‖a − b‖₂², in [0, 4] on unit-norm embeddings."""

    bounds = (0.0, 4.0)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.sum(ops.square(a - b), axis=-1)

    matrix = staticmethod(squared_differences)


@export
class ManhattanDistance(Distance):
    """Σ|a − b|, at most 2√dim on unit-norm embeddings, so no bound holds for every dimension."""

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.sum(absolute(a - b), axis=-1)


@export
class ChebyshevDistance(Distance):
    """max|a − b|, in [0, 2] on unit-norm embeddings."""

    bounds = (0.0, 2.0)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.max(absolute(a - b), axis=-1)


@export
class MinkowskiDistance(Distance):
    """(Σ|a − b|^p)^{1/p}, in [0, 2] on unit-norm embeddings for p ≥ 2.

    Args:
        p: order, ≥ 1. 1 is Manhattan, 2 Euclidean (default).
    """

    def __init__(self, p: float = 2.0) -> None:
        self.p = check_number("p", p, low=1.0, open_high=True)

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 2.0 if self.p >= 2 else float("inf"))

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        gap = absolute(a - b)
        # Dividing by the largest gap prevents overflow and underflow of |gap|^p and does not change the distance.
        scale = ops.stop_gradient(ops.max(gap, axis=-1, keepdims=True))
        scale = ops.where(scale <= 0, 1.0, scale)
        total = ops.sum(ops.power(gap / scale, self.p), axis=-1)
        same = total <= 0
        root = ops.power(ops.where(same, 1.0, total), 1.0 / self.p)
        return ops.where(same, 0.0, root) * ops.squeeze(scale, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {"p": self.p}


@export
class CosineDistance(Distance):
    """1 − cos(a, b), in [0, 2]; 1 if a vector is shorter than 1e-6, because it has no direction."""

    bounds = (0.0, 2.0)
    scale_free = True

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        u, v = unit(a), unit(b)
        # ½‖u − v‖² is 1 − u·v on unit vectors, exactly 0 at a = b and without cancellation near it.
        # ‖u‖² + ‖v‖² is 2, minus one for each vector without direction.
        directions = ops.sum(ops.square(u), axis=-1) + ops.sum(ops.square(v), axis=-1)
        return 0.5 * ops.sum(ops.square(u - v), axis=-1) + (1.0 - 0.5 * ops.stop_gradient(ops.round(directions)))

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return 1.0 - cosines(a, b)


@export
class AngularDistance(Distance):
    """Angle between a and b divided by π, in [0, 1]; ½ if a vector is shorter than 1e-6.

    On unit vectors u and v it is 2·atan2(‖u − v‖, ‖u + v‖), which is accurate and has a bounded gradient near 0 and π.
    Arccos has neither property there.
    """

    bounds = (0.0, 1.0)
    scale_free = True

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        u, v = unit(a), unit(b)
        return self.angle(self.length(u - v), self.length(u + v))

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        u, v = unit(a), unit(b)
        return self.angle(differences(u, v), differences(u, -v))

    @staticmethod
    def length(difference: Tensor) -> Tensor:
        """Norm; 0 with gradient 0 below 1e-6, where it is only the rounding error of the unit vectors."""
        square = ops.sum(ops.square(difference), axis=-1)
        return safe_sqrt(ops.where(square <= NORM_FLOOR**2, 0.0, square))

    @staticmethod
    def angle(apart: Tensor, together: Tensor) -> Tensor:
        # atan2(0, 0) has no gradient. It occurs only for two vectors without direction, whose angle is ½π.
        undefined = (apart + together) <= 0
        angle = ops.arctan2(ops.where(undefined, 1.0, apart), ops.where(undefined, 1.0, together))
        return angle * (2.0 / math.pi)


@export
class InnerProductDistance(Distance):
    """−a·b, in [−1, 1] on unit-norm embeddings. Not a metric: long embeddings get low values."""

    bounds = (-1.0, 1.0)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return -ops.sum(a * b, axis=-1)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return -ops.matmul(a, ops.transpose(b))


@export
class SNRDistance(Distance):
    """var(a − b) / var(a) over the dimensions, where a is the anchor: noise over signal. Not symmetric.

    The variance of the anchor is at least 1e-12, so a constant anchor gives a large, finite distance. The gradient of a
    distance by one vector is scaled down to a norm of 1e4 where it is longer, which happens for tiny anchors. It would
    overflow float16 otherwise.

    Yuan, Deng, Tang, Tang, Chen, *Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning*, CVPR 2019,
    https://arxiv.org/abs/1904.02616
    """

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return noise_over_signal(ops.var(a - b, axis=-1), ops.var(a, axis=-1), a.shape[-1])

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        # dim·var(a − b) is the squared distance between a and b after each has its own mean subtracted.
        noise = squared_differences(*(vectors - ops.mean(vectors, axis=1, keepdims=True) for vectors in (a, b)))
        return noise_over_signal(noise / a.shape[1], ops.var(a, axis=1, keepdims=True), a.shape[1])


SIGNAL_FLOOR = 1e-12  # the smallest divisor of the signal-to-noise distance
STEEPEST = 1e4  # its longest gradient


def noise_over_signal(noise, signal, dim):
    """noise / max(signal, 1e-12) of two variances over `dim` numbers, its gradient by a vector at most 1e4 long.

    The gradients of noise and signal are 2·√(noise/dim) and 2·√(signal/dim) long, so the gradient of the ratio is at
    most 2·(√noise + √signal·noise/s)/(s·√dim) long, where s is the divisor. It is scaled, and keeps its direction.
    """
    n, v = ops.stop_gradient(ops.minimum(noise, 1e20)), ops.stop_gradient(signal)
    divisor = ops.maximum(v, SIGNAL_FLOOR)
    ratio = ops.where(v > SIGNAL_FLOOR, n / divisor, 0.0)  # below the floor, the divisor does not depend on the signal
    steepness = 2.0 * (ops.sqrt(n) + ops.sqrt(v) * ratio) / (divisor * dim**0.5)
    factor = ops.minimum(1.0, STEEPEST / ops.maximum(steepness, 1e-30)) / divisor
    slope = factor * noise - factor * ratio * signal  # only its gradient is used
    return ops.stop_gradient(noise) / divisor + (slope - ops.stop_gradient(slope))


class LearnedDistance(keras.layers.Layer, Distance):
    """A distance with weights: a Keras layer built from the embeddings' shape `(batch, dim)`."""

    def call(self, a: Tensor, b: Tensor) -> Tensor:
        return self.rowwise(a, b)

    def checked(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if not self.built:
            raise ValueError(f"{type(self).__name__} has weights: call build((None, dim)) before using it directly")
        return super().checked(a, b)


@export
class MahalanobisDistance(LearnedDistance):
    """‖(a − b)L‖₂ with a learned L `(dim, rank)`: the Mahalanobis distance of M = LLᵀ, of rank ≤ `rank`.

    It starts as the Euclidean distance (of a projection, if rank < dim).

    Weinberger, Saul, *Distance Metric Learning for Large Margin Nearest Neighbor Classification*, JMLR 2009,
    https://www.jmlr.org/papers/v10/weinberger09a.html

    Args:
        rank: number of columns of L, 1 … dim; None (default) means dim.
    """

    def __init__(self, rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rank = None if rank is None else check_integer("rank", rank, low=1)

    def build(self, input_shape: Shapes) -> None:
        dim = input_shape[-1]
        rank = dim if self.rank is None else check_integer("rank", self.rank, high=dim)
        shape = (dim, rank)
        self.projection = self.add_weight(name="projection", shape=shape, initializer="orthogonal", autocast=False)
        self.built = True

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return safe_norm(ops.matmul(a - b, ops.cast(self.projection, a.dtype)))

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        projection = ops.cast(self.projection, a.dtype)
        return differences(ops.matmul(a, projection), ops.matmul(b, projection))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank}


@export
class WeightedManhattanDistance(LearnedDistance):
    """Σ w·|a − b| with learned w ≥ 0 `(dim,)`, which start at 1.

    With ``head="logistic"`` this is the comparison of the paper below, except that the weights cannot be negative, so
    that it stays a distance.

    Koch, Zemel, Salakhutdinov, *Siamese Neural Networks for One-shot Image Recognition*, ICML deep learning workshop
    2015, https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf
    """

    def build(self, input_shape: Shapes) -> None:
        options = {"initializer": "ones", "constraint": keras.constraints.NonNeg(), "autocast": False}
        self.weight = self.add_weight(name="weight", shape=(input_shape[-1],), **options)
        self.built = True

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.sum(absolute(a - b) * ops.cast(self.weight, a.dtype), axis=-1)


@export
class FunctionDistance(Distance):
    """A function `(a, b) → (n,)` of two `(n, dim)` tensors as a distance. `pairwise` calls it once with n·m rows.

    Args:
        function: the function. Register it with ``keras.saving.register_keras_serializable()`` to save the model.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        if not callable(function):
            raise TypeError(f"`function` must be callable as (a, b) → (n,); got {function!r}")
        if isinstance(function, keras.layers.Layer):
            # FunctionDistance would neither train nor save the layer's weights.
            raise TypeError(f"`function` must be a plain function; got {function!r}. Make it a LearnedDistance instead")
        if any(cls.__module__.partition(".")[0] == "torch" for cls in type(function).__mro__):
            # Distances of pytorch-metric-learning are modules that return all pairs, (n, n).
            hint = "Give a name, such as 'euclidean', or write a function (a, b) → (n,) with keras.ops"
            raise TypeError(f"`distance` must not be a PyTorch module; got {function!r}. {hint}")
        self.function = function

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        distances = self.function(a, b)
        if len(distances.shape) != 1:
            shapes = f"{tuple(distances.shape)} from embeddings {tuple(a.shape)}"
            raise ValueError(f"{self!r} must return one distance for each row, shape (n,); got {shapes}")
        return distances

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        n, m = ops.shape(a)[0], ops.shape(b)[0]
        tiled = ops.reshape(ops.tile(ops.expand_dims(b, 0), (n, 1, 1)), (-1, b.shape[1]))
        return ops.reshape(self.between(ops.repeat(a, m, axis=0), tiled), (n, m))

    def get_config(self) -> dict[str, Any]:
        return {"function": function_name("distance function", self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(function_of("distance function", config["function"]))

    def __repr__(self) -> str:
        return f"FunctionDistance({getattr(self.function, '__name__', self.function)})"


def registry():
    """Distance classes by their name in `get`: ``SquaredEuclideanDistance`` is "squared_euclidean"."""
    classes = [cls for cls in exported(Distance).values() if cls is not FunctionDistance]
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Distance")).lower(): cls for cls in classes}


def names() -> list[str]:
    """The names that `get` accepts.

    >>> names()[:3]
    ['euclidean', 'squared_euclidean', 'manhattan']
    """
    return list(registry())


def get(identifier: DistanceLike) -> Distance:
    """Get a `Distance` from a name, an instance, a serialised config, or a callable `(a, b) → (n,)`.

    >>> get("euclidean")
    EuclideanDistance()

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
        TypeError: for anything else.
    """
    if isinstance(identifier, Distance):
        return identifier
    if isinstance(identifier, str):
        known = registry()
        return known[check_choice("distance", identifier, known)]()
    if isinstance(identifier, dict):
        distance = keras.saving.deserialize_keras_object(identifier)
        if isinstance(distance, Distance):
            return distance
    if callable(identifier) and not isinstance(identifier, type):
        return FunctionDistance(identifier)
    what = "a name, a Distance, its config or a function (a, b) → (n,)"
    raise TypeError(f"`distance` must be {what}; got {identifier!r}")
