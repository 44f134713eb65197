"""The grid search's trials that fail, end in NaN, cannot win, or diverge."""

import logging

import keras
import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning

from tests.support.batches import FURTHER
from tests.support.searches import Fake, Shrink, digits, encoder, quiet, search_of, small

pytestmark = quiet


def test_a_failed_trial_is_reported_counted_and_ranked_last(caplog):
    def build_fn(dim):
        if dim < 4:
            raise OverflowError(f"no room for {dim}")
        return Fake({"val_eer": [0.25]})

    search = search_of(build_fn, {"dim": [0, 1, 2, 3, 5]})
    with (
        caplog.at_level(logging.WARNING),
        pytest.warns(FitFailedWarning, match="(?s)4 of 5 trials.*'dim': 0.*no room for 0"),
    ):
        search.fit(*small())
    assert [one.message for one in caplog.records] == [
        f"[trial {dim + 1}/5, fold 1/2] {{'dim': {dim}}}: failed with OverflowError: no room for {dim}"
        for dim in range(4)
    ]
    assert search.best_params_ == {"dim": 5}
    assert list(search.failures_) == [0, 1, 2, 3]
    assert "OverflowError: no room for 2" in search.failures_[2]
    for key in ("split0_test_score", "split1_test_score", "mean_test_score", "std_test_score", "mean_val_eer"):
        assert np.isnan(search.cv_results_[key]).tolist() == [True] * 4 + [False], key
    assert search.cv_results_["rank_test_score"].tolist() == [2, 2, 2, 2, 1]


def test_folds_before_the_failure_keep_their_scores():
    results = iter([{"val_eer": [0.5]}, ValueError("second fold"), {"val_eer": [0.5]}, {"val_eer": [0.5]}])
    search = search_of(lambda dim: Fake(next(results, {"val_eer": [0.5]})), {"dim": [1, 2]})
    with pytest.warns(FitFailedWarning):
        search.fit(*small())
    np.testing.assert_array_equal(search.cv_results_["split0_val_eer"], [0.5, 0.5])
    np.testing.assert_array_equal(search.cv_results_["split1_val_eer"], [np.nan, 0.5])
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], [np.nan, -0.5])


def test_an_unreachable_margin_fails_alone():
    x, labels = digits()
    with pytest.warns(FitFailedWarning, match="(?s)1 of 2 trials.*'margin': 3.0.*must be at most 2"):
        search = search_of(encoder, {"margin": [3.0, 1.0]}, epochs=1).fit(x[:72], labels[:72])
    assert search.best_params_ == {"margin": 1.0}


def test_if_all_trials_fail_the_first_error_is_raised(tmp_path):
    def build_fn(dim):
        raise OverflowError(f"no room for {dim}")

    search = search_of(build_fn, {"dim": [7, 8, 9, 10]}, directory=tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)4 of 4 trials failed; first {'dim': 7}:.*no room for 7"):
        search.fit(*small())
    assert not hasattr(search, "best_model_")
    repaired = search_of(lambda dim: Fake({"val_eer": [0.5]}), {"dim": [7, 8, 9, 10]}, directory=tmp_path).fit(*small())
    assert repaired.failures_ == {}


def test_nan_is_never_best(caplog):
    nan = float("nan")
    series = {"all": [nan, nan], "some": [nan, 0.25], "worse": [0.5, nan]}
    search = search_of(lambda which: Fake({"val_eer": series[which]}), {"which": list(series)})
    with pytest.warns(FitFailedWarning, match="(?s)1 of 3.*'which': 'all'.*val_eer is NaN in every epoch"):
        search.fit(*small())
    assert "fold 1/2] {'which': 'all'}: failed with FloatingPointError" in caplog.text
    assert search.cv_results_["rank_test_score"].tolist() == [3, 1, 2]
    np.testing.assert_array_equal(search.cv_results_["mean_val_eer"], [nan, 0.25, 0.5])
    np.testing.assert_array_equal(search.cv_results_["split0_best_epoch"], [nan, 2, 1])


@pytest.mark.filterwarnings("ignore:Embeddings are NaN:UserWarning")
def test_training_into_nan_fails():
    x, labels = digits()

    def build_fn():
        return keras.Sequential([keras.Input((64,)), keras.layers.Dense(4), keras.layers.Rescaling(1e30)])

    with pytest.raises(RuntimeError, match="val_eer is NaN in every epoch"):
        search_of(build_fn, {"learning_rate": [1e30]}, epochs=1).fit(x[:72], labels[:72])


def test_infinite_d_prime_is_best():
    search = search_of(
        lambda dim: Fake({"val_d_prime": [float("inf") if dim == 2 else 1.0]}), {"dim": [1, 2]}, objective="val_d_prime"
    ).fit(*small())
    assert search.best_score_ == np.inf


# Trials that are not worth their time


def test_a_trial_that_is_worse_fold_by_fold_is_given_up(capfd):
    curves = {1: iter([0.1, 0.4, 0.4]), 2: iter([0.2]), 3: iter([0.05, 0.35, 0.4, 0.5])}  # the last is the refit's
    build_fn = lambda dim: Fake({"val_eer": [next(curves[dim])]})  # noqa: E731
    search = search_of(build_fn, {"dim": [1, 2, 3]}, cv=3, give_up=0.05, verbose=1).fit(*digits())
    assert "[trial 2/3] given up after 1 of 3 folds" in capfd.readouterr().out
    assert search.failures_ == {}
    # 0.2 alone would beat the mean 0.3 of the first: it met the easy fold only, where the first had 0.1.
    np.testing.assert_allclose(search.cv_results_["mean_val_eer"], [0.3, 0.4, 0.8 / 3])
    np.testing.assert_array_equal(search.cv_results_["split1_val_eer"], [0.4, np.nan, 0.35])
    assert search.cv_results_["rank_test_score"].tolist() == [2, 3, 1]
    assert search.best_params_ == {"dim": 3}


@pytest.mark.parametrize(
    "on_divergence", [pytest.param(None, marks=FURTHER), pytest.param("warn", marks=FURTHER), "stop"]
)
def test_a_diverging_fit_is_tagged_with_its_cause_and_stopped_on_request(on_divergence, capfd):
    """Labels without meaning: held-out pairs stay at chance, whatever the loss does."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(96, 8)).astype("float32"), rng.permutation(np.arange(96) // 6)
    fits = []

    class Count(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            fits.append(0)

        def on_epoch_end(self, epoch, logs=None):
            fits[-1] += 1

    linear = lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])  # noqa: E731
    grid = {"learning_rate": [1e-9], "margin": [0.01]}
    options = {"epochs": 12, "batch_size": 32, "on_divergence": on_divergence, "callbacks": [Shrink(), Count()]}
    search = search_of(linear, grid, verbose=1, **options).fit(x, labels)
    *folds, refit = fits
    assert refit == search.refit_epochs_ and not any("cause" in name for name in search.best_params_)
    shown = capfd.readouterr().out
    if on_divergence is None:
        assert folds == [12, 12] and search.causes_ == {} and "diverged" not in shown
        return
    assert search.causes_ == {"margin": 1} and shown.count("; diverged: margin") == 2
    assert all(epochs < 12 for epochs in folds) if on_divergence == "stop" else folds == [12, 12]


def test_weights_that_another_fold_has_trained_are_refused():
    x, labels = digits()
    shared = keras.layers.Dense(4)  # built by the first fold

    def build_fn(margin):
        return keras.Sequential([shared, keras.layers.UnitNormalization()])

    search = search_of(build_fn, {"margin": [1.0]}, epochs=1)
    with pytest.raises(ValueError, match="`build_fn` must make new layers in each call, except for frozen ones"):
        search.fit(x[:72], labels[:72])


def test_frozen_weights_may_be_shared():
    x, labels = digits()
    backbone = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8)])
    backbone.trainable = False
    search = search_of(lambda margin: keras.Sequential([backbone, keras.layers.Dense(4)]), {"margin": [1.0]}, epochs=1)
    assert search.fit(x[:72], labels[:72]).failures_ == {}
