"""Searches of a hypermodel that cannot work end at once, with the reason."""

import keras
import keras_tuner
import numpy as np
import pytest

from keras_siamese.tuning import Range, SearchSpace, SiameseHyperModel
from tests.support.searches import encoder, few, quiet, script, tuner_of

pytestmark = quiet


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": 1}, "`cv` must be at least 2; got 1"),
        ({"cv": 7}, "`labels` must hold at least as many identities as folds, cv=7; got 6"),
        ({"cv": 2, "epochs": 0}, "`epochs` must be at least 1; got 0"),
        ({"cv": 2, "validation_data": few()}, "`validation_data` must be None if `cv` is given"),
        ({"cv": 2, "on_divergence": "raise"}, "`on_divergence` must be one of None, 'warn', 'stop'; got 'raise'"),
        ({"cv": 2, "give_up": -1}, r"`give_up` must be in \[0, inf\]; got -1"),
        ({"cv": 2, "batch_size": 8}, "`search` takes x, labels, validation_data, cv, .*verbose; got batch_size"),
        ({}, "`objective` must be a key that is logged: without .* that is only loss; got val_eer"),
        ({"labels": np.arange(3), "cv": 2}, "`labels` must have one entry for each of the 18 samples; got 3"),
    ],
)
def test_a_search_that_cannot_work_ends_at_once(tmp_path, monkeypatch, options, message):
    fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    x, labels = few()
    labels = options.pop("labels", labels)
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path)
    with pytest.raises(keras_tuner.errors.FatalError, match=message):
        tuner.search(x, labels, **options)
    assert fits == []


@pytest.mark.parametrize(
    ("aim", "message"),
    [
        (keras_tuner.Objective("val_eer", "max"), "`objective` must have direction 'min' for 'val_eer'; got 'max'"),
        (keras_tuner.Objective("val_loss", "min"), "`objective` must be one of val_eer, val_auc, .*got 'val_loss'"),
        (keras_tuner.Objective("val_tar@far=0.0001", "max"), "too few impostor pairs for `objective`"),
        (None, "`objective` must be one of val_eer, .*got 'default_objective'"),
    ],
)
def test_an_objective_that_nobody_logs_is_refused(tmp_path, monkeypatch, aim, message):
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    tuner = keras_tuner.RandomSearch(SiameseHyperModel(encoder), objective=aim, directory=tmp_path, max_trials=1)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        tuner.search(*few(), cv=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": SearchSpace(margin=[0.5, 0.25])}, "space "),
        ({"seed": 1}, "seed 0, not 1"),
        ({"cv": 3}, "cv 2, not 3"),
        ({"x": few()[0] + 1}, "data "),
    ],
)
def test_a_folder_of_another_search_is_refused(tmp_path, monkeypatch, change, message):
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    x, labels = few()

    def run(trials, space=None, seed=0, cv=2, x=x):
        space = space or SearchSpace(learning_rate=Range(1e-3, 1e-2))
        tuner_of(SiameseHyperModel(encoder, space, seed=seed), tmp_path, max_trials=trials).search(x, labels, cv=cv)

    run(1)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=f"`directory` holds another search.*{message}"):
        run(2, **change)
    run(3)


def test_a_folder_of_another_kind_of_search_is_refused(tmp_path, monkeypatch):
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})

    class Other(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Float("learning_rate", 1e-3, 1e-2)
            return keras.Sequential([keras.layers.Dense(1)])

        def fit(self, hp, model, **options):
            model.build((None, 1))
            return {"val_eer": 0.5}

    tuner_of(Other(), tmp_path, max_trials=1).search()
    tuner = tuner_of(SiameseHyperModel(encoder, SearchSpace(learning_rate=Range(1e-3, 1e-2))), tmp_path, max_trials=2)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`directory` holds another search"):
        tuner.search(*few(), cv=2)


def test_what_the_space_chooses_the_tuner_may_not(tmp_path):
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, loss="mse")
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`loss` must be None in the tuner"):
        tuner.search(*few(), cv=2)


@pytest.mark.parametrize(("given", "missing"), [((few()[0],), "labels"), ((), "x")])
def test_a_search_without_samples_or_labels_ends_at_once(tmp_path, given, missing):
    with pytest.raises(keras_tuner.errors.FatalTypeError, match=f"`{missing}` must be given: search"):
        tuner_of(SiameseHyperModel(encoder), tmp_path).search(*given, cv=2)


def test_weights_that_another_fold_has_trained_are_refused(tmp_path):
    shared = keras.layers.Dense(4)
    hypermodel = SiameseHyperModel(lambda: keras.Sequential([shared, keras.layers.UnitNormalization()]))
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`encoder` must make new layers in each call"):
        tuner_of(hypermodel, tmp_path).search(*few(), cv=2, epochs=1)
