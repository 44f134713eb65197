"""Results of a search: the best trial, ranks, the table and scikit-learn's dict, from trials made up here."""

import json

import numpy as np
import pytest

from keras_siamese.tuning import SearchResults, objective
from keras_siamese.tuning.results import FAILURE, TrialResult, column_of, read_trial, shown
from tests.support.searches import made_up


def test_ranks_and_means():
    results = made_up()
    found = results.cv_results_
    np.testing.assert_array_equal(found["rank_test_score"], [2, 1, 4, 3])
    np.testing.assert_allclose(found["mean_val_eer"], [0.3, 0.2, np.nan, 0.4])
    np.testing.assert_allclose(found["mean_test_score"], [-0.3, -0.2, np.nan, -0.4])
    np.testing.assert_allclose(found["split0_val_eer"], [0.2, 0.1, 0.5, 0.3])
    np.testing.assert_allclose(found["split1_test_score"], [-0.4, -0.3, np.nan, np.nan])
    np.testing.assert_allclose(found["std_val_eer"], [0.1, 0.1, np.nan, np.nan])
    np.testing.assert_array_equal(found["split1_best_epoch"], [4, 4, np.nan, np.nan])
    np.testing.assert_allclose(found["mean_fit_time"], [1.5, 1.5, np.nan, np.nan])
    np.testing.assert_allclose(found["std_fit_time"], [0.5, 0.5, np.nan, np.nan])
    assert found["param_margin"].tolist() == [0.5, 0.25, 0.5, None]
    assert found["param_margin"].mask.tolist() == [False, False, False, True]
    assert found["params"][3] == {"loss": "NTXentLoss", "dim": 8}
    assert results.best.name == "1"


def test_of_an_objective_to_be_maximised_the_score_is_the_value():
    found = made_up(aim="val_auc").cv_results_
    np.testing.assert_array_equal(found["rank_test_score"], [2, 3, 4, 1])
    np.testing.assert_allclose(found["mean_test_score"], [0.3, 0.2, np.nan, 0.4])


def test_failures_and_causes_are_counted():
    results = made_up()
    assert results.failures == {"2": "Traceback ...\nOverflowError: no room"}
    assert results.causes == {"margin": 1}
    assert results.trials[1].cause == "margin" and results.trials[0].cause is None
    assert results.summary() == "4 trials, 1 failed, 1 diverged (margin 1); all with dim 8"


def test_the_cause_of_a_trial_is_that_of_most_fits():
    records = [{"cause": cause} for cause in ("noise", "margin", None, "margin")]
    assert TrialResult("0", {}, records, 0.5).cause == "margin"


def test_the_table():
    head, *rows = made_up().rows()
    assert head == ["rank", "trial", "val_eer", "±", "epoch", "seconds", "loss", "margin", "remark"]
    assert rows == [
        ["1", "1", "0.2000", "0.1000", "3.5", "3.0", "ContrastiveLoss", "0.25", "diverged: margin"],
        ["2", "0", "0.3000", "0.1000", "3.5", "3.0", "ContrastiveLoss", "0.5", ""],
        ["3", "3", "0.4000", "", "3.0", "1.0", "NTXentLoss", "", "given up after 1 of 2 folds"],
        ["", "2", "", "", "3.0", "1.0", "ContrastiveLoss", "0.5", "failed: OverflowError: no room"],
    ]
    lines = str(made_up()).splitlines()
    assert len(lines) == 6 and lines[-1] == made_up().summary()
    assert [line.index("diverged") for line in lines if "diverged: margin" in line] == [lines[0].index("remark")]
    assert not any(line.endswith(" ") for line in lines)


def test_the_frame_is_sorted_by_rank():
    pytest.importorskip("pandas")
    frame = made_up().to_frame()
    assert frame["trial"].tolist() == ["1", "0", "3", "2"]
    assert frame["cause"].isna().tolist() == [False, True, True, True]
    assert frame["cause"][0] == "margin"
    assert frame["error"].isna().tolist() == [True, True, True, False]


def test_constants_need_several_trials():
    results = made_up()
    assert results.constants == {"dim": 8}
    assert SearchResults(results.trials[:1], objective("val_eer"), 2).constants == {}
    assert SearchResults([], objective("val_eer"), 2).constants == {}


def test_without_a_finished_trial_there_is_no_best():
    trials = made_up().trials
    with pytest.raises(RuntimeError, match=r"(?s)1 of 1 trials failed; first {.*'margin': 0.5.*no room"):
        _ = SearchResults([trials[2]], objective("val_eer"), 2).best
    unfinished = TrialResult("4", {}, [], np.nan)
    with pytest.raises(RuntimeError, match="No trial is finished"):
        _ = SearchResults([unfinished, trials[2]], objective("val_eer"), 2).best


def test_values_in_a_table():
    assert [shown(value) for value in (None, 0.123456, 1e-5, 3, "a", True)] == ["", "0.1235", "1e-05", "3", "a", "True"]
    assert made_up().names == ["loss", "margin", "dim"]
    lists = [TrialResult("0", {"units": [1, 2]}, [], 0.5), TrialResult("1", {"units": [3, 4]}, [], 0.5)]
    assert column_of(lists, "units").tolist() == [[1, 2], [3, 4]]


class Metrics:
    def exists(self, name):
        return True

    def get_best_value(self, name):
        return 0.25


class Trial:
    def __init__(self, status, message=None):
        self.status, self.message, self.trial_id, self.metrics = status, message, "7", Metrics()
        self.hyperparameters = type("HP", (), {"values": {"margin": 0.5, "tuner/epochs": 3}})


def test_a_trial_is_read_from_its_folder(tmp_path):
    aim = objective("val_eer")
    read = read_trial(tmp_path, Trial("COMPLETED"), aim)
    assert (read.name, read.params, read.records, read.value, read.error) == ("7", {"margin": 0.5}, [], 0.25, None)
    (tmp_path / "folds.json").write_text(json.dumps([{"epoch": 1}]))
    assert read_trial(tmp_path, Trial("RUNNING"), aim).records == [{"epoch": 1}]
    assert np.isnan(read_trial(tmp_path, Trial("RUNNING"), aim).value)
    (tmp_path / "folds.json").write_text('[{"epo')
    with pytest.raises(ValueError, match=r"folds.json' is not the JSON list that a search writes"):
        read_trial(tmp_path, Trial("COMPLETED"), aim)
    (tmp_path / "folds.json").unlink()
    assert read_trial(tmp_path, Trial("FAILED"), aim).error == "no traceback"
    assert read_trial(tmp_path, Trial("INVALID", "message"), aim).error == "message"
    (tmp_path / FAILURE).write_text("Traceback")
    assert read_trial(tmp_path, Trial("FAILED", "message"), aim).error == "Traceback"


def test_a_workers_tuner_is_refused():
    worker = type("Tuner", (), {"oracle": object()})
    with pytest.raises(ValueError, match="`tuner` must be the tuner of the chief.*got that of a worker"):
        SearchResults.of(worker)


def test_something_that_is_no_tuner_is_refused():
    with pytest.raises(TypeError, match="`tuner` must be a KerasTuner tuner; got 3 of type int"):
        SearchResults.of(3)
