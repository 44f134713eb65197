"""The hypermodel's trials that fail, end in NaN, cannot win, or diverge."""

import logging

import keras
import numpy as np
import pytest

from keras_siamese.callbacks import DivergenceMonitor
from keras_siamese.tuning import SearchResults, SearchSpace, SiameseHyperModel
from tests.support.batches import FURTHER
from tests.support.searches import Shrink, digits, encoder, few, quiet, script, trials_in, tuner_of

pytestmark = quiet


def test_a_failed_trial_is_logged_with_its_values_and_traceback_and_counted(tmp_path, monkeypatch, caplog):
    def curves(model, sequence):
        if model.loss.margin == 0.25:
            raise OverflowError("no room for a quarter")
        return {"val_eer": [0.5]}

    script(monkeypatch, curves)
    hypermodel = SiameseHyperModel(encoder, SearchSpace(margin=[0.5, 0.25, 0.125]))
    tuner = tuner_of(hypermodel, tmp_path, kind="GridSearch", max_trials=None)
    with caplog.at_level(logging.WARNING):
        tuner.search(*few(), cv=2)
    (message,) = [one.message for one in caplog.records if one.name.startswith("keras_siamese")]
    assert message.startswith("Trial 0001 of {")
    assert "'margin': 0.25" in message
    assert "failed with OverflowError: no room for a quarter\nTraceback" in message
    results = SearchResults.of(tuner)
    assert list(results.failures) == ["0001"]
    assert "OverflowError: no room for a quarter" in results.failures["0001"]
    assert "3 trials, 1 failed" in results.summary()
    assert "failed: OverflowError: no room for a quarter" in str(results)
    assert np.isnan(results.cv_results_["mean_test_score"]).tolist() == [False, True, False]
    assert results.cv_results_["rank_test_score"].tolist() == [1, 3, 1]


def test_if_all_trials_fail_the_results_raise_the_first_error(tmp_path, monkeypatch):
    def curves(model, sequence):
        raise OverflowError(f"no room for {model.loss.margin}")

    script(monkeypatch, curves)
    space = SearchSpace(margin=[0.5, 0.25])
    tuner = tuner_of(SiameseHyperModel(encoder, space), tmp_path, kind="GridSearch", max_trials=None)
    tuner.search(*few(), cv=2)
    with pytest.raises(RuntimeError, match=r"(?s)2 of 2 trials failed; first .*'margin': 0.5.*no room for 0.5"):
        SearchResults.of(tuner)


def test_epochs_with_nan_are_never_best(tmp_path, monkeypatch):
    nan = float("nan")
    curves = {0.5: [nan, 0.25], 0.25: [0.125, nan], 0.125: [nan, nan]}
    script(monkeypatch, lambda model, sequence: {"val_eer": curves[float(model.loss.margin)]})
    space = SearchSpace(margin=[0.5, 0.25, 0.125])
    tuner = tuner_of(SiameseHyperModel(encoder, space), tmp_path, kind="GridSearch", max_trials=None)
    tuner.search(*few(), cv=2)
    assert [trial.status for trial in trials_in(tuner)] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert [trial.score for trial in trials_in(tuner)[:2]] == [0.25, 0.125]
    assert "FloatingPointError: val_eer is NaN in every epoch" in SearchResults.of(tuner).failures["0002"]
    assert tuner.get_best_models()[0].loss.margin == 0.25


@pytest.mark.parametrize("on_divergence", [pytest.param("warn", marks=FURTHER), "stop"])
def test_a_diverging_trial_is_tagged_with_its_cause(tmp_path, on_divergence):
    """Labels without meaning: held-out pairs stay at chance, whatever the loss does."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(96, 8)).astype("float32"), rng.permutation(np.arange(96) // 6)

    def linear(embedding_dim=4):
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(embedding_dim)])

    space = SearchSpace(learning_rate=1e-9, margin=0.01, batch_size=32)
    tuner = tuner_of(SiameseHyperModel(linear, space), tmp_path, max_trials=1)
    tuner.search(x, labels, cv=2, epochs=12, on_divergence=on_divergence, callbacks=[Shrink()])
    results = SearchResults.of(tuner)
    (trial,) = results.trials
    flags = [record["flags"] for record in trial.records]
    assert all(flags)
    assert trial.cause == "margin"
    assert results.causes == {trial.cause: 1}
    assert f"1 diverged ({trial.cause} 1)" in results.summary()
    assert f"diverged: {trial.cause}" in str(results)
    if on_divergence == "stop":
        assert all(len(one) == 1 for one in flags), "the first flag ends the fit"
    else:
        assert all(len(one) > 1 for one in flags)


def test_a_run_that_does_not_diverge_has_no_cause(tmp_path, monkeypatch):
    fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, max_trials=1)
    tuner.search(*few(), cv=2, on_divergence="warn")
    assert all(any(isinstance(one, DivergenceMonitor) for one in fit["callbacks"]) for fit in fits)
    results = SearchResults.of(tuner)
    assert (results.causes, results.trials[0].cause) == ({}, None)


def test_a_trial_that_is_worse_fold_by_fold_is_given_up(tmp_path, monkeypatch):
    curves = {0.5: iter([0.1, 0.4, 0.4]), 0.25: iter([0.2]), 0.125: iter([0.05, 0.35, 0.4])}
    script(monkeypatch, lambda model, sequence: {"val_eer": [next(curves[float(model.loss.margin)])]})
    hypermodel = SiameseHyperModel(encoder, SearchSpace(margin=[0.5, 0.25, 0.125]))
    tuner = tuner_of(hypermodel, tmp_path, kind="GridSearch", max_trials=None)
    x, labels = digits()
    tuner.search(x, labels, cv=3, give_up=0.05)
    results = SearchResults.of(tuner)
    assert [len(trial.records) for trial in results.trials] == [3, 1, 3]
    # 0.2 alone would beat the mean 0.3 of the first: it met the easy fold only, where the first had 0.1.
    np.testing.assert_allclose([trial.value for trial in results.trials], [0.3, 0.4, 0.8 / 3])
    assert results.cv_results_["rank_test_score"].tolist() == [2, 3, 1]
    assert "given up after 1 of 3 folds" in str(results)
    assert next(curves[0.5], None) is None
