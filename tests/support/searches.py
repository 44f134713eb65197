"""Searches that train nothing: samples, models whose `fit` is scripted, and a quiet grid search of them."""

from types import SimpleNamespace

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_siamese.tuning import SiameseGridSearch

# Every fold and the whole have a multiple of 12 samples: a last batch of another size costs XLA another compilation.
SIZE = {"batch_size": 12}


def digits():
    """12 samples of each digit, `(120, 64)` in [0, 1], no two alike."""
    data = load_digits()
    rows = np.concatenate([np.flatnonzero(data.target == digit)[:12] for digit in range(10)])
    return (data.data[rows] / 16).astype("float32"), data.target[rows]


def encoder(embedding_dim=4, dropout=0.0):
    layers = [keras.layers.Dropout(dropout)] if dropout else []
    head = [keras.layers.Dense(embedding_dim), keras.layers.UnitNormalization()]
    return keras.Sequential([keras.Input((64,)), *layers, *head])


class Fake(keras.Model):
    """A compiled model whose `fit` trains nothing: it returns the next of `histories`, or raises it."""

    def __init__(self, histories):
        super().__init__()
        self.compile()
        self.histories = histories

    def fit(self, x, **options):
        history = self.histories(x, **options) if callable(self.histories) else self.histories
        if isinstance(history, BaseException):
            raise history
        return history_of(history)


def history_of(curves):
    """What `fit` returns, with `curves` and a loss in it."""
    return SimpleNamespace(history={"loss": [0.0] * len(next(iter(curves.values()))), **curves})


def small():
    """Samples of 4 identities, for searches that train nothing."""
    return np.arange(24.0).reshape(12, 2), np.repeat(np.arange(4), 3)


def search_of(build_fn, grid, cv=2, **options):
    return SiameseGridSearch(build_fn, grid, cv, **{"verbose": 0, **SIZE, **options})


class Shrink(keras.callbacks.Callback):
    """Shrinks all embeddings every epoch: genuine pairs come closer, so the loss falls, and no pair is ranked anew."""

    def on_train_begin(self, logs=None):
        self.start = self.model.encoder.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.encoder.set_weights([0.8**epoch * weight for weight in self.start])
