"""The base of the models that train an encoder in another way: they take and return what the encoder does.

Contract: a subclass defines `build`, which sets `_input_shape`, `call`, and `options`, the names of its own arguments.
Whoever examines a model looks at `same_as` instead.

    class Chunked(AroundEncoder):
        options = ("rows",)
"""

import keras

from keras_siamese.layers.siamese import embedding_shape_of, map_shapes


class AroundEncoder(keras.Model):
    """A model that holds an `encoder`. It computes nothing itself: the precision is that of the encoder's `dtype`."""

    options = ()

    def __init__(self, encoder, **kwargs):
        # A mixed policy would cast the weights here, and not where the encoder's own says.
        super().__init__(**{**kwargs, "autocast": False, "dtype": "float32"})
        if not isinstance(encoder, keras.layers.Layer):
            found = f"{encoder!r} of type {type(encoder).__name__}"
            raise TypeError(f"`encoder` must be a Keras model or layer; got {found}")
        self.encoder = encoder
        self.supports_masking = True

    @property
    def same_as(self):
        """The encoder, which returns the same values: whoever examines a model looks at it instead."""
        return self.encoder

    def compute_mask(self, inputs, mask=None):
        return None  # an embedding has no time steps

    def compute_output_spec(self, inputs, training=None, mask=None):
        return self.encoder.compute_output_spec(inputs)

    def compute_output_shape(self, input_shape):
        return embedding_shape_of(self.encoder, map_shapes(tuple, input_shape))

    def get_config(self):
        own = {name: getattr(self, name) for name in self.options}
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder), **own}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})

    def get_build_config(self):
        return {"shape": map_shapes(list, self._input_shape)} if self.built else None

    def build_from_config(self, config):
        if config:
            self.build(config["shape"])
