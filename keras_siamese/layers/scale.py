"""`LearnedScale`: an encoder that is trained with a learned temperature, and a learned bias where the loss has one.

Contract: takes and returns what the encoder does. It hands its scale and bias to the loss, which must have options of
these names. They are weights of this model, so the optimizer trains them and they are saved with it. The encoder alone
does not have them.

    model = LearnedScale(encoder, scale=10.0, bias=-10.0)
    model.compile("adam", keras_siamese.losses.SigLIPLoss())
    model.fit(x, labels, batch_size=64)
    model.encoder.save("encoder.keras")
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import keras
from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._replicas import is_replicated
from keras_siamese._types import Shapes, Tensor
from keras_siamese.layers.around import AroundEncoder
from keras_siamese.layers.siamese import embedding_shape_of, encoded, map_shapes


@export
class LearnedScale(AroundEncoder):
    """An encoder with a learned inverse temperature t = e^w, and perhaps a bias b, of its loss.

    CLIP learns t from 1/0.07 on, with a softmax such as `NTXentLoss` or `MultipleNegativesRankingLoss`; SigLIP learns t
    from 10 and b from −10 on, with `SigLIPLoss`. While the model trains or is evaluated, t and b take the place of the
    loss's own `scale` (or 1/t of its `temperature`) and `bias`.

    Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever, *Learning
    Transferable Visual Models From Natural Language Supervision*, ICML 2021, https://arxiv.org/abs/2103.00020

    Call it on inputs of shape `(batch, …)` → embeddings `(batch, dim)`.

    Args:
        encoder: a `keras.Model` or layer from one input to an embedding `(batch, dim)`; also a `Chunked` one.
        scale: the initial t > 0.
        bias: the initial b, or None (default) if the loss has no bias, or its own stays as it is.

    Attributes:
        log_scale: the weight w, scalar.
        offset: the weight b, scalar, or None.

    Raises:
        ValueError: (in training) if the loss has no scale or temperature, or no bias although one is learned, if it has
            a `block_size`, or if several replicas of a TensorFlow strategy train.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    >>> model = ks.layers.LearnedScale(encoder, scale=10.0, bias=-10.0)
    >>> model.compile("sgd", ks.losses.SigLIPLoss())
    >>> history = model.fit(np.eye(6, 4), np.arange(6) // 2, batch_size=6, verbose=0)
    >>> bool(keras.ops.convert_to_numpy(model.offset) > -10)
    True
    """

    options = ("scale", "bias")

    def __init__(
        self, encoder: keras.layers.Layer, scale: float = 1 / 0.07, bias: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(encoder, **kwargs)
        self.scale = check_number("scale", scale, low=0, open_low=True, open_high=True)
        self.bias = None if bias is None else check_number("bias", bias, open_low=True, open_high=True)
        self.offset = None

    def build(self, input_shape: Shapes) -> None:
        self._input_shape = map_shapes(tuple, input_shape)
        embedding_shape_of(self.encoder, self._input_shape)
        self.log_scale = self.scalar("log_scale", math.log(self.scale))
        if self.bias is not None:
            self.offset = self.scalar("offset", self.bias)
        self.built = True

    def scalar(self, name: str, value: float) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(), dtype="float32", initializer=keras.initializers.Constant(value), autocast=False
        )

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        return encoded(self.encoder, inputs, training, mask)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        with options_of(*self.learned(y_pred)):
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)

    def learned(self, y_pred: Tensor) -> tuple[keras.losses.Loss, dict[str, Tensor]]:
        """The loss whose options are learned, and their present values by name, in the precision of its terms."""
        # A loss around another one, such as MatryoshkaLoss, has no scale of its own.
        loss = getattr(self.loss, "loss", self.loss)
        own = next((name for name in ("temperature", "scale") if hasattr(loss, name)), None)
        if own is None:
            wanted = "a loss with a scale or a temperature, such as ks.losses.SigLIPLoss()"
            raise ValueError(f"`loss` of LearnedScale must be {wanted}; got {self.loss!r}")
        if self.offset is not None and not hasattr(loss, "bias"):
            raise ValueError(f"`bias` of LearnedScale must be None, because {type(loss).__name__} has no bias")
        if getattr(loss, "block_size", None) is not None:
            raise ValueError(f"`block_size` of {type(loss).__name__} must be None where its scale is learned")
        if is_replicated():
            raise ValueError("LearnedScale does not work with several replicas of a TensorFlow strategy")
        dtype = "float64" if keras.backend.standardize_dtype(y_pred.dtype) == "float64" else "float32"
        power = ops.cast(self.log_scale, dtype)
        values = {own: ops.exp(power if own == "scale" else -power)}
        return loss, values if self.offset is None else {**values, "bias": ops.cast(self.offset, dtype)}


@contextlib.contextmanager
def options_of(loss, values):
    """Within the block, the `loss` has these `values`, by name."""
    kept = {name: getattr(loss, name) for name in values}
    vars(loss).update(values)
    try:
        yield
    finally:
        vars(loss).update(kept)
