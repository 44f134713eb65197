"""The base of the models that train an encoder in another way: they take and return what the encoder does.

Contract: a subclass defines `build`, which sets `_input_shape`, `call`, and `options`, the names of its own arguments.
Whoever examines a model looks at `same_as` instead.

    class Chunked(AroundEncoder):
        options = ("rows",)
"""

from __future__ import annotations

from typing import Any

import keras

from keras_siamese._types import Self, Shape, Shapes, Tensor
from keras_siamese.layers.siamese import embedding_shape_of, map_shapes


class AroundEncoder(keras.Model):
    """A model that holds an `encoder`. It computes nothing itself: the precision is that of the encoder's `dtype`."""

    options: tuple[str, ...] = ()

    def __init__(self, encoder: keras.layers.Layer, **kwargs: Any) -> None:
        # A mixed policy would cast the weights here, and not where the encoder's own says.
        super().__init__(**{**kwargs, "autocast": False, "dtype": "float32"})
        if not isinstance(encoder, keras.layers.Layer):
            found = f"{encoder!r} of type {type(encoder).__name__}"
            raise TypeError(f"`encoder` must be a Keras model or layer; got {found}")
        self.encoder = encoder
        self.supports_masking = True

    @property
    def same_as(self) -> keras.layers.Layer:
        """The encoder, which returns the same values: whoever examines a model looks at it instead."""
        return self.encoder

    def compile(self, optimizer: Any = "rmsprop", *args: Any, auto_scale_loss: bool = True, **kwargs: Any) -> None:
        """As `keras.Model.compile`, but the loss is scaled if the policy of the encoder is "mixed_float16"."""
        encoder, optimizer = self.encoder, keras.optimizers.get(optimizer)
        while isinstance(encoder, AroundEncoder):
            encoder = encoder.encoder
        scaling = keras.optimizers.LossScaleOptimizer
        if auto_scale_loss and encoder.dtype_policy.name == "mixed_float16" and not isinstance(optimizer, scaling):
            optimizer = scaling(optimizer, name="loss_scale_optimizer")
        super().compile(optimizer, *args, auto_scale_loss=auto_scale_loss, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras does not call an overridden `compile` when it loads a model, unless this is overridden too.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        return None  # an embedding has no time steps

    def compute_output_spec(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        return self.encoder.compute_output_spec(inputs)

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        return embedding_shape_of(self.encoder, map_shapes(tuple, input_shape))

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.options}
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})

    def get_build_config(self) -> dict[str, Any] | None:
        return {"shape": map_shapes(list, self._input_shape)} if self.built else None

    def build_from_config(self, config: dict[str, Any] | None) -> None:
        if config:
            self.build(config["shape"])
