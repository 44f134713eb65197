"""Distances between embeddings: smaller is closer.

Contract: embeddings `(n, dim)` in, distances out, `rowwise(a, b)` → `(n,)` and `pairwise(a, b)` → `(n, m)`, computed
in at least float32 and cast back to the dtype that came. `bounds` is the range on unit-norm embeddings; where the
distance ignores norms (`scale_free`), it is the range on all. Gradients are finite everywhere, identical embeddings
included. Learned distances are Keras layers with weights. Imports `_checks`, `_export` and `ops`.

    distance = get("euclidean")              # by name; an instance, its config or a callable will do as well
    distance.rowwise(left, right)            # (n,)
    distance.pairwise(embeddings)            # (n, n), zero diagonal
    distance.bounds                          # (0.0, 2.0)
"""

import re

import keras
from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._export import export, exported
from keras_siamese.ops import NORM_FLOOR, absolute, at_least_float32, safe_norm, safe_sqrt, unit, zero_diagonal

__all__ = [
    "AngularDistance",
    "ChebyshevDistance",
    "CosineDistance",
    "Distance",
    "EuclideanDistance",
    "FunctionDistance",
    "InnerProductDistance",
    "MahalanobisDistance",
    "ManhattanDistance",
    "MinkowskiDistance",
    "SNRDistance",
    "SquaredEuclideanDistance",
    "WeightedManhattanDistance",
    "get",
    "names",
]


class Distance:
    """A distance between embeddings.

    A subclass defines `between(a, b)` over the last axis of broadcastable tensors and, where one matrix product does
    it in less memory than the `(n, m, dim)` differences, `matrix(a, b)`.

    Attributes:
        bounds: `(lowest, highest)` on embeddings of unit norm; `inf` where no number holds for every dimension.
        scale_free: whether `bounds` holds for embeddings of any norm.
    """

    bounds = (0.0, float("inf"))
    scale_free = False

    def between(self, a, b):
        raise NotImplementedError

    def matrix(self, a, b):
        return self.between(ops.expand_dims(a, 1), ops.expand_dims(b, 0))

    def rowwise(self, a, b):
        """Distance of each row of `a` `(n, dim)` to the same row of `b` `(n, dim)`: `(n,)`, in the dtype of `a`.

        Of integers, float32.
        """
        a, b = check_embeddings(a, b)
        if None not in (a.shape[0], b.shape[0]) and a.shape[0] != b.shape[0]:
            raise ValueError(f"`a` and `b` must have as many rows; got {tuple(a.shape)} and {tuple(b.shape)}")
        wide = at_least_float32(a)
        return ops.cast(self.between(wide, ops.cast(b, wide.dtype)), float_dtype(a))

    def pairwise(self, a, b=None):
        """Distances of every row of `a` `(n, dim)` to every row of `b` `(m, dim)`: `(n, m)`, in the dtype of `a`.

        Without `b` the rows are compared with each other, and the diagonal is exactly 0 (−1 for unit vectors under
        `inner_product`, which is no metric). Matrix products lose digits where two embeddings nearly coincide:
        relative error up to 35 % at distances around 1e-3. Use `rowwise` where such small distances matter.
        """
        own = b is None or b is a
        a, b = check_embeddings(a, a if own else b)
        wide = at_least_float32(a)
        matrix = self.matrix(wide, wide if own else ops.cast(b, wide.dtype))
        if own and self.bounds[0] == 0.0:
            matrix = zero_diagonal(matrix)
        return ops.cast(matrix, float_dtype(a))

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        options = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({options})"


def check_embeddings(a, b):
    """Returns both as tensors if they are `(n, dim)` and `(m, dim)`."""
    a, b = ops.convert_to_tensor(a), ops.convert_to_tensor(b)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"`a` and `b` must be embeddings of shapes (n, dim) and (m, dim); got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


def float_dtype(tensor):
    """The dtype of `tensor`, or float32 if it holds no floats: a distance between integers is no integer."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return dtype if "float" in dtype else "float32"


# ‖a‖² + ‖b‖² − 2a·b of equal vectors is up to 16 units of rounding of ‖a‖² (2 to 2,048 dimensions, every backend).
ROUNDING = 20


def expanded(a, b):
    """‖a_i − b_j‖² for all i, j by ‖a‖² + ‖b‖² − 2a·b, `(n, m)`, and where that is not above its rounding.

    Taken about the mean of `b`, so that rounding is relative to the spread of the embeddings, not to their offset.
    """
    centre = ops.stop_gradient(ops.mean(ops.where(ops.isfinite(b), b, 0.0), axis=0, keepdims=True))
    a, b = a - centre, b - centre
    own = ops.sum(ops.square(a), axis=1, keepdims=True)
    squares = own + ops.expand_dims(ops.sum(ops.square(b), axis=1), 0)
    apart = squares + ops.matmul(-2.0 * a, ops.transpose(b))
    epsilon = 2.0**-23 if keras.backend.standardize_dtype(a.dtype) == "float32" else 2.0**-52
    # Vectors that nearly coincide have nearly the same norm, so one of them tells the rounding.
    return apart, apart <= ops.stop_gradient(ROUNDING * epsilon * own)


def squared_differences(a, b):
    """‖a_i − b_j‖² for all i, j: `(n, m)`; 0, with gradient 0, where it is not above its rounding."""
    apart, equal = expanded(a, b)
    return ops.where(equal, 0.0, apart)


def differences(a, b):
    """‖a_i − b_j‖ for all i, j: `(n, m)`; 0, with gradient 0, where its square is not above its rounding."""
    apart, equal = expanded(a, b)
    return ops.where(equal, 0.0, ops.sqrt(ops.where(equal, 1.0, apart)))


@export
class EuclideanDistance(Distance):
    """‖a − b‖₂, in [0, 2] on unit-norm embeddings; gradient 0 at a = b.

    >>> import numpy as np
    >>> distance = EuclideanDistance()
    >>> np.asarray(distance.rowwise([[0.0, 0.0]], [[3.0, 4.0]])).tolist()
    [5.0]
    """

    bounds = (0.0, 2.0)

    def between(self, a, b):
        return safe_norm(a - b)

    def matrix(self, a, b):
        return differences(a, b)


@export
class SquaredEuclideanDistance(Distance):
    """‖a − b‖₂², in [0, 4] on unit-norm embeddings."""

    bounds = (0.0, 4.0)

    def between(self, a, b):
        return ops.sum(ops.square(a - b), axis=-1)

    def matrix(self, a, b):
        return squared_differences(a, b)


@export
class ManhattanDistance(Distance):
    """Σ|a − b|; on unit-norm embeddings at most 2√dim, so without a bound that holds for every dimension."""

    def between(self, a, b):
        return ops.sum(absolute(a - b), axis=-1)


@export
class ChebyshevDistance(Distance):
    """max|a − b|, in [0, 2] on unit-norm embeddings."""

    bounds = (0.0, 2.0)

    def between(self, a, b):
        return ops.max(absolute(a - b), axis=-1)


@export
class MinkowskiDistance(Distance):
    """(Σ|a − b|^p)^{1/p}, in [0, 2] on unit-norm embeddings for p ≥ 2.

    Args:
        p: order, ≥ 1. 1 is Manhattan, 2 Euclidean (default).
    """

    def __init__(self, p=2.0):
        self.p = check_number("p", p, low=1.0, open_high=True)

    @property
    def bounds(self):
        return (0.0, 2.0 if self.p >= 2 else float("inf"))

    def between(self, a, b):
        gap = absolute(a - b)
        # Scaling by the largest gap keeps |gap|^p from overflow and underflow; the distance does not depend on it.
        scale = ops.stop_gradient(ops.max(gap, axis=-1, keepdims=True))
        scale = ops.where(scale <= 0, ops.ones_like(scale), scale)
        total = ops.sum(ops.power(gap / scale, self.p), axis=-1)
        same = total <= 0
        root = ops.power(ops.where(same, ops.ones_like(total), total), 1.0 / self.p)
        return ops.where(same, ops.zeros_like(total), root) * ops.squeeze(scale, axis=-1)

    def get_config(self):
        return {"p": self.p}


@export
class CosineDistance(Distance):
    """1 − cos(a, b), in [0, 2]; 1 to a vector shorter than 1e-6, which has no direction."""

    bounds = (0.0, 2.0)
    scale_free = True

    def between(self, a, b):
        u, v = unit(a), unit(b)
        # ½‖u − v‖² is 1 − u·v on unit vectors, exact 0 at a = b and without cancellation near it;
        # ‖u‖² + ‖v‖² is 2, or less by one for each vector without direction.
        directions = ops.sum(ops.square(u), axis=-1) + ops.sum(ops.square(v), axis=-1)
        return 0.5 * ops.sum(ops.square(u - v), axis=-1) + (1.0 - 0.5 * ops.stop_gradient(ops.round(directions)))

    def matrix(self, a, b):
        return 1.0 - ops.matmul(unit(a), ops.transpose(unit(b)))


@export
class AngularDistance(Distance):
    """Angle between a and b over π, in [0, 1]; ½ to a vector shorter than 1e-6.

    The angle is 2·atan2(‖u − v‖, ‖u + v‖) on unit vectors, which keeps its digits and a bounded gradient at 0 and π,
    where arccos has neither.
    """

    bounds = (0.0, 1.0)
    scale_free = True

    def between(self, a, b):
        u, v = unit(a), unit(b)
        return self.angle(self.length(u - v), self.length(u + v))

    def matrix(self, a, b):
        u, v = unit(a), unit(b)
        return self.angle(differences(u, v), differences(u, -v))

    @staticmethod
    def length(difference):
        """Norm; 0 with gradient 0 below 1e-6, where it is the rounding of the unit vectors that XLA does not repeat."""
        square = ops.sum(ops.square(difference), axis=-1)
        return safe_sqrt(ops.where(square <= NORM_FLOOR**2, ops.zeros_like(square), square))

    @staticmethod
    def angle(apart, together):
        pi = 3.141592653589793
        # atan2(0, 0) has no gradient: it happens only between two vectors without direction, where the angle is ½π.
        undefined = (apart + together) <= 0
        angle = ops.arctan2(ops.where(undefined, 1.0, apart), ops.where(undefined, 1.0, together))
        return angle * (2.0 / pi)


@export
class InnerProductDistance(Distance):
    """−a·b, in [−1, 1] on unit-norm embeddings. Not a metric: a long embedding is near to everything."""

    bounds = (-1.0, 1.0)

    def between(self, a, b):
        return -ops.sum(a * b, axis=-1)

    def matrix(self, a, b):
        return -ops.matmul(a, ops.transpose(b))


@export
class SNRDistance(Distance):
    """var(a − b) / var(a) over the dimensions, a the anchor: noise over signal; not symmetric.

    The variance of an anchor is floored at 1e-12, so a constant anchor gives a large, finite distance.

    Yuan, Deng, Tang, Tang, Chen, *Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning*, CVPR 2019,
    https://arxiv.org/abs/1904.02616
    """

    def between(self, a, b):
        return ops.var(a - b, axis=-1) / ops.maximum(ops.var(a, axis=-1), 1e-12)

    def matrix(self, a, b):
        # var(a − b) is the squared distance of the two about their own means, over the dimensions.
        noise = squared_differences(*(vectors - ops.mean(vectors, axis=1, keepdims=True) for vectors in (a, b)))
        signal = ops.maximum(ops.var(a, axis=1, keepdims=True), 1e-12)
        return noise / (ops.cast(ops.shape(a)[1], noise.dtype) * signal)


class LearnedDistance(keras.layers.Layer, Distance):
    """A distance with weights: a Keras layer built from the embeddings' shape `(batch, dim)`."""

    def call(self, a, b):
        return self.rowwise(a, b)

    def rowwise(self, a, b):
        self.check_built()
        return Distance.rowwise(self, a, b)

    def pairwise(self, a, b=None):
        self.check_built()
        return Distance.pairwise(self, a, b)

    def check_built(self):
        if not self.built:
            raise ValueError(f"{type(self).__name__} has weights: call build((None, dim)) before using it by hand")


@export
class MahalanobisDistance(LearnedDistance):
    """‖(a − b)L‖₂ with a learned L `(dim, rank)`: the Mahalanobis distance of M = LLᵀ, of rank ≤ `rank`.

    Starts as the Euclidean distance (of a projection, if rank < dim).

    Weinberger, Saul, *Distance Metric Learning for Large Margin Nearest Neighbor Classification*, JMLR 2009,
    https://www.jmlr.org/papers/v10/weinberger09a.html

    Args:
        rank: columns of L, 1 … dim; None (default) is dim.
    """

    def __init__(self, rank=None, **kwargs):
        super().__init__(**kwargs)
        self.rank = None if rank is None else check_integer("rank", rank, low=1)

    def build(self, input_shape):
        dim = input_shape[-1]
        rank = dim if self.rank is None else check_integer("rank", self.rank, high=dim)
        self.projection = self.add_weight(
            name="projection", shape=(dim, rank), initializer="orthogonal", autocast=False
        )
        self.built = True

    def between(self, a, b):
        return safe_norm(ops.matmul(a - b, ops.cast(self.projection, a.dtype)))

    def matrix(self, a, b):
        projection = ops.cast(self.projection, a.dtype)
        return differences(ops.matmul(a, projection), ops.matmul(b, projection))

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}


@export
class WeightedManhattanDistance(LearnedDistance):
    """Σ w·|a − b| with learned w ≥ 0 `(dim,)`, all 1 at the start.

    With ``head="logistic"`` this is the comparison of Koch, Zemel, Salakhutdinov, *Siamese Neural Networks for
    One-shot Image Recognition*, ICML deep learning workshop 2015,
    https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf, with the sign of its weights fixed so that it stays a
    distance.
    """

    def build(self, input_shape):
        self.weight = self.add_weight(
            name="weight",
            shape=(input_shape[-1],),
            initializer="ones",
            constraint=keras.constraints.NonNeg(),
            autocast=False,
        )
        self.built = True

    def between(self, a, b):
        return ops.sum(absolute(a - b) * ops.cast(self.weight, a.dtype), axis=-1)


@export
class FunctionDistance(Distance):
    """A function `(a, b) → (n,)` of two `(n, dim)` tensors as a distance; `pairwise` calls it on all n·m rows at once.

    Args:
        function: registered with ``keras.saving.register_keras_serializable()`` if the model is to be saved.
    """

    def __init__(self, function):
        if not callable(function):
            raise TypeError(f"`function` must be callable as (a, b) → (n,); got {function!r}")
        if isinstance(function, keras.layers.Layer):
            # Held by a plain object, its weights would be neither trained nor saved.
            raise TypeError(f"`function` must be a plain function; got {function!r}. Make a layer a LearnedDistance")
        self.function = function

    def between(self, a, b):
        distances = self.function(a, b)
        if len(distances.shape) != 1:
            raise ValueError(
                f"{self!r} must return one distance a row, shape (n,); got {tuple(distances.shape)} "
                f"from embeddings {tuple(a.shape)}"
            )
        return distances

    def matrix(self, a, b):
        n, m = ops.shape(a)[0], ops.shape(b)[0]
        tiled = ops.reshape(ops.tile(ops.expand_dims(b, 0), (n, 1, 1)), (-1, b.shape[1]))
        return ops.reshape(self.between(ops.repeat(a, m, axis=0), tiled), (n, m))

    def get_config(self):
        name = keras.saving.get_registered_name(self.function)
        if keras.saving.get_registered_object(name) is not self.function:
            raise ValueError(
                f"The distance function {getattr(self.function, '__name__', self.function)!r} cannot be saved so "
                "that it loads again: decorate it with @keras.saving.register_keras_serializable()"
            )
        return {"function": name}

    @classmethod
    def from_config(cls, config):
        function = keras.saving.get_registered_object(config["function"])
        if function is None:
            raise ValueError(
                f"The distance function {config['function']!r} is not registered here: import the module that "
                "defines it before loading"
            )
        return cls(function)

    def __repr__(self):
        return f"FunctionDistance({getattr(self.function, '__name__', self.function)})"


def identifier(cls):
    """The name that `get` knows a distance class by: ``SquaredEuclideanDistance`` is "squared_euclidean"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Distance"))
    return words.lower()


def registry():
    """Distance classes by name, built from the classes themselves."""
    classes = exported(Distance).values()
    return {identifier(cls): cls for cls in classes if cls is not FunctionDistance}


def names():
    """The names that `get` accepts.

    >>> names()[:3]
    ['euclidean', 'squared_euclidean', 'manhattan']
    """
    return list(registry())


def get(identifier):
    """A `Distance` from a name, an instance, a serialised config, or a callable `(a, b) → (n,)`.

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
        if identifier not in known:
            raise ValueError(f"`distance` must be one of {', '.join(map(repr, known))}; got {identifier!r}")
        return known[identifier]()
    if isinstance(identifier, dict):
        distance = keras.saving.deserialize_keras_object(identifier)
        if isinstance(distance, Distance):
            return distance
    if callable(identifier) and not isinstance(identifier, type):
        return FunctionDistance(identifier)
    raise TypeError(
        f"`distance` must be a name, a Distance, its config or a function (a, b) → (n,); got {identifier!r}"
    )
