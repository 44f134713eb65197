"""Layers that compare embeddings: `DistanceLayer`, and `LogisticHead`, which turns a distance into a probability.

Contract: they compute and return at least float32 under every dtype policy.

    distance = DistanceLayer("euclidean")([encoder(left), encoder(right)])     # (batch, 1)
    same = LogisticHead()(distance)                                            # (batch, 1) in (0, 1)
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._types import DistanceLike, Self, Shape, Shapes, Tensor
from keras_siamese.ops import at_least_float32


@export
class DistanceLayer(keras.layers.Layer):
    """Distance between two embeddings `(batch, 1)`, or from an anchor to a positive and a negative `(batch, 2)`.

    Call it on two embeddings `[left, right]` or three `[anchor, positive, negative]`, each `(batch, dim)`. It computes
    and returns at least float32, because squared distances of float16 embeddings overflow from a distance of 256 on.

    Args:
        distance: a name from `keras_siamese.distances.names()`, a `Distance`, or a function `(a, b) → (n,)`.
        swap: whether three embeddings also give d(positive, negative) as a third column, `(batch, 3)`, as
            ``TripletLoss(swap=True)`` needs it.

    >>> import numpy as np
    >>> layer = DistanceLayer("manhattan")
    >>> np.asarray(layer([np.array([[1.0, 2.0]]), np.array([[4.0, 0.0]])])).tolist()
    [[5.0]]
    """

    def __init__(self, distance: DistanceLike = "euclidean", swap: bool = False, **kwargs: Any) -> None:
        # Without autocast=False, a mixed policy would cast float32 embeddings to float16.
        super().__init__(autocast=False, **kwargs)
        self.distance = distances.get(distance)
        self.swap = bool(swap)

    def build(self, input_shape: Shapes) -> None:
        check_embedding_shapes(input_shape)
        if isinstance(self.distance, keras.layers.Layer) and not self.distance.built:
            self.distance.build(tuple(input_shape[0]))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        anchor, *others = [at_least_float32(embedding) for embedding in inputs]
        compared = [(anchor, other) for other in others]
        if self.swap and len(others) == 2:
            compared.append(tuple(others))
        columns = [ops.expand_dims(self.distance.rowwise(a, b), 1) for a, b in compared]
        return columns[0] if len(columns) == 1 else ops.concatenate(columns, axis=1)

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        # A mask on the embeddings belongs to time steps; on the distances it would change the weights of the loss.
        return None

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        return (input_shape[0][0], self.columns(len(input_shape)))

    def columns(self, inputs: int) -> int:
        """Number of output columns for two or three `inputs`."""
        return 3 if self.swap and inputs == 3 else inputs - 1

    def get_config(self) -> dict[str, Any]:
        distance = keras.saving.serialize_keras_object(self.distance)
        return {**super().get_config(), "distance": distance, "swap": self.swap}


def check_embedding_shapes(shapes):
    """Refuse all but two or three equal shapes `(batch, dim)` with a known dim."""
    shapes = [tuple(shape) if isinstance(shape, (tuple, list)) else shape for shape in shapes]
    if len(shapes) not in (2, 3) or any(not isinstance(shape, tuple) or len(shape) != 2 for shape in shapes):
        raise ValueError(f"`inputs` must be two or three embeddings of shape (batch, dim); got shapes {shapes}")
    if shapes[0][1] is None or len({shape[1] for shape in shapes}) > 1:
        raise ValueError(f"`inputs` must be embeddings with one known dimension in common; got shapes {shapes}")


@export
class LogisticHead(keras.layers.Layer):
    """p(same) = σ(b − a·d) with learned a > 0 and b, so the probability always falls with the distance d.

    Takes distances `(batch, n)` and returns probabilities `(batch, n)`, in at least float32.

    Args:
        low, high: range of the distances, which sets the initial weights: p = ½ in the middle, .99 at `low` and .01 at
            `high`. With an infinite range, p = ½ at a distance of 1.
    """

    def __init__(self, low: float = 0.0, high: float = float("inf"), **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.low = check_number("low", low, open_high=True)
        self.high = check_number("high", high, low=self.low, open_low=True)

    def build(self, input_shape: Shapes) -> None:
        span = self.high - self.low
        slope, middle = (9.2 / span, (self.low + self.high) / 2) if span < math.inf else (4.6, 1.0)
        starts = [keras.initializers.Constant(value) for value in (math.log(slope), slope * middle)]
        self.log_slope = self.add_weight(name="log_slope", shape=(), initializer=starts[0], autocast=False)
        self.offset = self.add_weight(name="offset", shape=(), initializer=starts[1], autocast=False)
        self.built = True

    def call(self, distance: Tensor) -> Tensor:
        distance = at_least_float32(distance)
        slope, offset = (ops.cast(weight, distance.dtype) for weight in (ops.exp(self.log_slope), self.offset))
        return ops.sigmoid(offset - slope * distance)

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        # JSON has no infinity, so None is written instead.
        low, high = (None if math.isinf(end) else end for end in (self.low, self.high))
        return {**super().get_config(), "low": low, "high": high}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        ends: dict[str, Any] = {"low": -math.inf, "high": math.inf}
        return cls(**{key: ends.get(key) if value is None else value for key, value in config.items()})
