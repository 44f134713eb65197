"""Encoders of every kind and small batches for them, for the tests of the siamese model.

Whatever is random comes from the generator that is handed in; a batch has N rows.

    left, right = towers(rng, 4)                               # two (6, 4)
    model = SiameseWrapper(dense_encoder())                    # (6, 4) → (6, 3)
    euclidean(*embeddings(model, left, right))                 # what the model should put out, (6, 1)
"""

import keras
import numpy as np
from keras import ops

from tests.oracles import rows as oracles

N, DIM = 6, 3
SAME = np.array([1, 0, 1, 1, 0, 0])


def array(tensor):
    return ops.convert_to_numpy(tensor)


def towers(rng, *shape, count=2):
    return [rng.normal(size=(N, *shape)).astype("float32") for _ in range(count)]


def dense_encoder(*tail):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(DIM), *tail])


def embeddings(model, *inputs):
    """What the encoder makes of each input by itself."""
    return [array(model.encoder(one, training=False)).astype("float64") for one in inputs]


def euclidean(a, b):
    return np.array(oracles.rowwise(oracles.euclidean, a, b))[:, None]


def two_input_encoder(container):
    """(6,) and (5, 2) in, (3,) out; its inputs named in a dict or in a list."""
    image, sound = keras.Input((6,), name="image"), keras.Input((5, 2), name="sound")
    both = keras.layers.concatenate([image, keras.layers.GlobalAveragePooling1D()(sound)])
    inputs = {"image": image, "sound": sound} if container is dict else [image, sound]
    return keras.Model(inputs, keras.layers.Dense(DIM)(both))


class Nested(keras.layers.Layer):
    """A functional model inside a layer without shape inference, as people write encoders."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.Sequential([keras.layers.Dense(5, activation="relu"), keras.layers.Dense(DIM)])

    def call(self, x):
        return self.inner(x)


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = keras.layers.Dense(5, activation="relu"), keras.layers.Dense(DIM)

    def call(self, x, training=False):
        return self.out(self.hidden(x))


ENCODERS = {
    "subclassed model": Subclassed,
    "subclassed layer": Nested,
    "layer": lambda: keras.layers.Dense(DIM),
    "unbuilt sequential": lambda: keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(DIM)]),
    "built sequential": dense_encoder,
    "functional": lambda: keras.Model(x := keras.Input((4,)), dense_encoder()(x)),
}


def masked_encoder():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((7,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True), layers.LSTM(DIM)]
    )


class LeakyMean(keras.layers.Layer):
    """Mean over the steps that are not masked, which hands the mask (batch, steps) on to its output (batch, dim)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        weight = ops.expand_dims(ops.ones_like(x[..., 0]) if mask is None else ops.cast(mask, x.dtype), -1)
        return ops.sum(x * weight, axis=1) / ops.maximum(ops.sum(weight, axis=1), 1.0)

    def compute_output_shape(self, shape):
        return (shape[0], shape[2])


def leaky_encoder():
    layers = keras.layers
    return keras.Sequential([keras.Input((7,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True), LeakyMean()])
