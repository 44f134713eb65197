"""Searches over models of the user's own, in plain Keras."""

import keras
import keras_tuner
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.tuning import SiameseGridSearch, objective
from tests.support.searches import digits, quiet

pytestmark = quiet


def comparing_model(units, rate=0.01):
    """Two inputs, a shared tower, |a − b| and a sigmoid."""
    x, _ = digits()
    ends, dense = [keras.Input(x.shape[1:]) for _ in range(2)], layers.Dense(units, "relu")
    left, right = (dense(layers.Flatten()(end)) for end in ends)
    model = keras.Model(ends, layers.Dense(1, "sigmoid")(ops.abs(left - right)))
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    return model


def pairs(seed=0):
    x, labels = digits()
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, len(x), (2, 160))
    right[::2] = [rng.choice(np.flatnonzero(labels == labels[row])) for row in left[::2]]
    return [x[left], x[right]], (labels[left] == labels[right]).astype("float32")


class Model(keras_tuner.HyperModel):
    def build(self, hp):
        return comparing_model(hp.Choice("units", [2, 8]))


@pytest.mark.parametrize(
    "make",
    [
        keras_tuner.RandomSearch,
        pytest.param(keras_tuner.GridSearch, marks=pytest.mark.deep),
        pytest.param(keras_tuner.BayesianOptimization, marks=pytest.mark.deep),
        pytest.param(keras_tuner.Hyperband, marks=pytest.mark.deep),
    ],
)
def test_a_plain_hypermodel_is_searched_by_verification(make, tmp_path):
    limit = {"max_epochs": 2} if make is keras_tuner.Hyperband else {"max_trials": 2}
    tuner = make(Model(), objective("val_eer"), directory=tmp_path, overwrite=True, seed=0, **limit)
    monitor = ks.callbacks.DivergenceMonitor(pairs(1))
    tuner.search(*pairs(), epochs=2, callbacks=[monitor], verbose=0)
    best, model = tuner.oracle.get_best_trials(1)[0], tuner.get_best_models(1)[0]
    (left, right), same = pairs(1)
    scores = model.predict([left, right], verbose=0)[:, 0]
    assert best.score == pytest.approx(ks.verification.eer(same == 1, scores), abs=1e-6)


def test_a_grid_search_takes_a_model_that_compares(tmp_path):
    x, labels = digits()
    search = SiameseGridSearch(comparing_model, {"units": [2, 8]}, cv=2, epochs=2, directory=tmp_path, verbose=0)
    search.fit(x, labels)
    assert search.best_params_["units"] in (2, 8)
    assert search.best_model_.name.startswith("functional")
    assert all(0 <= -score <= 1 for score in search.cv_results_["mean_test_score"])  # −EER
