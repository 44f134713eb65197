"""Pooling over time steps or image positions: generalized means, and one embedding from the tokens of a sequence.

Contract: computed in at least float32 and cast to the layer's dtype. Masked time steps have no part.

    encoder = keras.Sequential([backbone, GeneralizedMeanPooling2D(), keras.layers.UnitNormalization()])
    embedding = TokenPooling("avg")(sequence, mask=padding_mask)
"""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from keras_siamese._checks import check_choice, check_number
from keras_siamese._export import export
from keras_siamese._types import Shape, Shapes, Tensor
from keras_siamese.ops import LOWEST, at_least_float32


def generalized_mean(features, exponent, axes, eps=1e-6, valid=None):
    """(mean max(x, ε)ᵖ)^{1/p} of the features x `(batch, …)` over `axes`, which stay with length 1.

    `valid` is None, or an array of booleans that broadcasts to x. Positions with False are left out. If no position
    remains, the result is ε.
    """
    features = ops.maximum(features, eps)
    if valid is not None:
        features = ops.where(valid, features, ops.full_like(features, eps))
    # Divide by the largest value: powers of numbers in (0, 1] do not overflow, and their mean is at least 1/n.
    largest = ops.stop_gradient(ops.max(features, axis=axes, keepdims=True, initial=eps))  # also of no samples
    powers = ops.power(features / largest, exponent)
    if valid is None:
        mean = ops.mean(powers, axis=axes, keepdims=True)
    else:
        share = ops.cast(valid, features.dtype)
        total = ops.sum(share, axis=axes, keepdims=True)
        none = total == 0
        mean = ops.sum(powers * share, axis=axes, keepdims=True) / ops.where(none, 1.0, total)
        mean = ops.where(none, 1.0, mean)
    return largest * ops.power(mean, 1.0 / exponent)


class GeneralizedMeanPooling(keras.layers.Layer):
    """Base class of the generalized-mean poolings. A subclass sets `spatial`, the number of axes to pool over."""

    spatial = 0

    def __init__(
        self,
        p: float = 3.0,
        learned: bool = True,
        eps: float = 1e-6,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        keepdims: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.p = check_number("p", p, low=0, open_low=True, open_high=True)
        self.learned = bool(learned)
        self.eps = check_number("eps", eps, low=0, open_low=True, open_high=True)
        data_format = keras.config.image_data_format() if data_format is None else data_format
        self.data_format = check_choice("data_format", data_format, ("channels_last", "channels_first"))
        self.keepdims = bool(keepdims)
        self.input_spec = keras.layers.InputSpec(ndim=self.spatial + 2)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes to pool over."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.spatial))

    def build(self, input_shape: Shapes) -> None:
        start = keras.initializers.Constant(math.log(self.p))
        # float32 under every policy: in float16, rounding would swallow the small updates.
        options = {"dtype": "float32", "autocast": False, "trainable": self.learned}
        self.log_p = self.add_weight(name="log_p", shape=(), initializer=start, **options)
        self.built = True

    def pool(self, inputs: Tensor, valid: Tensor = None) -> Tensor:
        features = at_least_float32(inputs)
        exponent = ops.cast(ops.exp(self.log_p), features.dtype)
        pooled = generalized_mean(features, exponent, self.axes, self.eps, valid)
        pooled = pooled if self.keepdims else ops.squeeze(pooled, axis=self.axes)
        return ops.cast(pooled, self.compute_dtype)

    def call(self, inputs: Tensor) -> Tensor:
        return self.pool(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.keepdims:
            return tuple(1 if axis in self.axes else size for axis, size in enumerate(input_shape))
        return tuple(size for axis, size in enumerate(input_shape) if axis not in self.axes)

    def get_config(self) -> dict[str, Any]:
        options = ("p", "learned", "eps", "data_format", "keepdims")
        return {**super().get_config(), **{name: getattr(self, name) for name in options}}


@export
class GeneralizedMeanPooling1D(GeneralizedMeanPooling):
    """(mean max(x, ε)ᵖ)^{1/p} over the steps: p = 1 is the mean, p → ∞ the maximum.

    Takes features `(batch, steps, channels)`, or `(batch, channels, steps)` with `data_format="channels_first"`, and
    returns `(batch, channels)`. A mask `(batch, steps)` leaves steps out, as in `GlobalAveragePooling1D`; if it leaves
    out all of them, the value is ε. See `GeneralizedMeanPooling2D` for p and the paper.

    Args:
        p, learned, eps, data_format, keepdims, **kwargs: as in `GeneralizedMeanPooling2D`.

    >>> import keras, numpy as np
    >>> layer = GeneralizedMeanPooling1D(p=3)
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[[1.0], [2.0], [3.0]]]))).round(3))
    [[2.289]]
    """

    spatial = 1

    def call(self, inputs: Tensor, mask: Tensor = None) -> Tensor:
        channels = 2 if self.data_format == "channels_last" else 1
        return self.pool(inputs, None if mask is None else ops.expand_dims(ops.cast(mask, "bool"), channels))

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        return None


@export
class GeneralizedMeanPooling2D(GeneralizedMeanPooling):
    """(mean max(x, ε)ᵖ)^{1/p} over the positions (GeM): p = 1 is the mean, p → ∞ the maximum.

    Takes features `(batch, rows, columns, channels)`, or `(batch, channels, rows, columns)` with
    `data_format="channels_first"`, and returns `(batch, channels)`. Values below ε count as ε, so use it after a ReLU.
    The layer learns log p, so p stays positive. The powers are of numbers up to 1, so float16 features do not overflow.

    Radenović, Tolias, Chum, *Fine-tuning CNN Image Retrieval with No Human Annotation*, IEEE Transactions on Pattern
    Analysis and Machine Intelligence 2019, https://arxiv.org/abs/1711.02512

    Args:
        p: initial exponent, > 0.
        learned: whether p is trained (default) or constant.
        eps: ε > 0.
        data_format: "channels_last", "channels_first", or None for `keras.config.image_data_format()`.
        keepdims: whether the pooled axes stay, with length 1.
        **kwargs: `name`, `dtype`, `trainable` as in `keras.layers.Layer`.

    >>> import keras, numpy as np
    >>> layer = GeneralizedMeanPooling2D(p=1, data_format="channels_last")
    >>> print(keras.ops.convert_to_numpy(layer(np.arange(1.0, 9.0).reshape(1, 2, 2, 2))).round(3))
    [[4. 5.]]
    """

    spatial = 2


def largest(features):
    """The maximum over the steps of features `(batch, steps, channels)`, as `(batch, channels)`; or of no samples."""
    return ops.max(features, axis=1, initial=LOWEST)


@export
class TokenPooling(keras.layers.Layer):
    """One embedding from the tokens of a sequence: their mean, their maximum, or the first token.

    Takes features `(batch, steps, channels)` and returns `(batch, channels)`. A mask `(batch, steps)` leaves steps out
    of the mean and of the maximum, which are 0 if it leaves out all of them. Give it when the layer is called, as
    `mask=`; a mask that Keras has put on the features is used otherwise.

    Args:
        mode: "avg", "max" or "cls", the first token, as BERT and ViT are trained with.
        **kwargs: `name`, `dtype` as in `keras.layers.Layer`.

    >>> import keras, numpy as np
    >>> tokens, mask = np.array([[[1.0], [2.0], [9.0]]]), np.array([[1, 1, 0]])
    >>> [float(TokenPooling(mode)(tokens, mask=mask)[0, 0]) for mode in ("avg", "max", "cls")]
    [1.5, 2.0, 1.0]
    """

    def __init__(self, mode: Literal["avg", "max", "cls"] = "avg", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = check_choice("mode", mode, ("avg", "max", "cls"))
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor = None) -> Tensor:
        if self.mode == "cls":
            return inputs[:, 0]
        features = at_least_float32(inputs)
        if mask is None:
            pooled = ops.mean(features, axis=1) if self.mode == "avg" else largest(features)
            return ops.cast(pooled, self.compute_dtype)
        valid = ops.expand_dims(ops.cast(mask, "bool"), 2)
        steps = ops.sum(ops.cast(valid, features.dtype), axis=1)
        if self.mode == "avg":
            pooled = ops.sum(ops.where(valid, features, 0.0), axis=1) / ops.maximum(steps, 1.0)
        else:
            pooled = ops.where(steps > 0, largest(ops.where(valid, features, LOWEST)), 0.0)
        return ops.cast(pooled, self.compute_dtype)

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}
