"""Small searches: samples, encoders, models whose `fit` is scripted, and quiet tuners of them.

pytestmark = quiet                                                    # no garbage collection, no foreign warnings
search_of(lambda dim: Fake({"val_eer": [0.5]}), {"dim": [1, 2]}).fit(*small())
fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})    # of each SiameseWrapper
tuner_of(SiameseHyperModel(encoder), folder).search(*few(), cv=2)
"""

from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits

import keras_siamese as ks
from keras_siamese.tuning import SearchResults, SiameseGridSearch, objective
from keras_siamese.tuning.results import TrialResult

quiet = [
    pytest.mark.usefixtures("uncollected"),
    # keras-tuner 1.4.8 calls threading.currentThread().getName().
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
    # Keras's, where KerasTuner loads a checkpoint into a model whose optimizer has not stepped.
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
]

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


def made_up(aim="val_eer", error="Traceback ...\nOverflowError: no room"):
    """`SearchResults` of four trials of two folds: one finished, the best (flagged), one failed, one given up."""

    def records(*values, cause=None):
        every = zip(values, (3, 4), (1.0, 2.0), strict=False)
        return [
            {"epoch": epoch, "seconds": seconds, "logs": {aim: value}, "flags": [], "cause": cause}
            for value, epoch, seconds in every
        ]

    common = {"loss": "ContrastiveLoss", "margin": 0.5, "dim": 8}
    trials = [
        TrialResult("0", common, records(0.2, 0.4), 0.3),
        TrialResult("1", {**common, "margin": 0.25}, records(0.1, 0.3, cause="margin"), 0.2),
        TrialResult("2", common, records(0.5), float("nan"), error),
        TrialResult("3", {"loss": "NTXentLoss", "dim": 8}, records(0.3), 0.4),
    ]
    return SearchResults(trials, objective(aim), cv=2)


class Shrink(keras.callbacks.Callback):
    """Shrinks all embeddings every epoch: genuine pairs come closer, so the loss falls, and no pair is ranked anew."""

    def on_train_begin(self, logs=None):
        self.start = self.model.encoder.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.encoder.set_weights([0.8**epoch * weight for weight in self.start])


def tuner_of(hypermodel, folder, kind="RandomSearch", aim="val_eer", **options):
    options = {"max_trials": 3, "seed": 1, **options} if kind != "Hyperband" else {"seed": 1, **options}
    tuner = getattr(keras_tuner, kind)(hypermodel, objective=objective(aim), directory=folder, **options)
    tuner.oracle.verbose = 0
    return tuner


def trials_in(tuner):
    return [tuner.oracle.trials[name] for name in tuner.oracle.start_order]


def few():
    """Samples of 6 identities for `encoder`, for searches of a hypermodel that train nothing."""
    return np.arange(384.0, dtype="float32").reshape(6, 64).repeat(3, axis=0), np.repeat(np.arange(6), 3)


def script(monkeypatch, function):
    """Each `SiameseWrapper.fit` trains nothing from now on; its curves are what `function(model, sequence)` returns.

    Held-out keys are given to the callbacks behind the monitor, KerasTuner's checkpoint among them, as real ones are.
    Returns the list of all fits, a dict each, which grows with every one.
    """
    fits = []

    def fit(model, sequence, callbacks=(), epochs=1, **options):
        curves = function(model, sequence)
        fits.append({"model": model, "sequence": sequence, "callbacks": callbacks, "epochs": epochs, **options})
        curves = {"loss": [0.0] * len(next(iter(curves.values()))), **curves}
        if not model.built:
            model.build([(None, 64), (None, 64)])
        for callback in callbacks:
            if type(callback).__name__ == "SaveBestEpoch":
                callback.set_model(model)
                for epoch in range(len(curves["loss"])):
                    callback.on_epoch_end(epoch, {key: curve[epoch] for key, curve in curves.items()})
        history = keras.callbacks.History()
        history.history = curves
        return history

    monkeypatch.setattr(ks.SiameseWrapper, "fit", fit)
    return fits
