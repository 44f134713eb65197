"""What a trial measures: folds by identity, the record of a fit, and what KerasTuner is told of the folds."""

import json

import keras
import numpy as np
import pytest

from keras_siamese.callbacks import DivergenceMonitor, VerificationMonitor
from keras_siamese.tuning import folds, objective
from tests.support.searches import digits

EER = objective("val_eer")
AUC = objective("val_auc")


def records_of(*values, name="val_eer", **logs):
    return [{"epoch": 1 + at, "seconds": 2.0, "logs": {name: value, **logs}} for at, value in enumerate(values)]


# Folds


def test_folds_share_no_identity_and_hold_out_each_once():
    x, labels = digits()
    found = folds.make_folds(x, labels, cv=3, seed=1)
    label_of = {row.tobytes(): int(label) for row, label in zip(x, labels, strict=True)}
    held = []
    for rows, monitor in found:
        trained_on = set(labels[rows].tolist())
        monitored = {label_of[row.tobytes()] for row in monitor.trials.items}
        assert not trained_on & monitored and trained_on | monitored == set(range(10))
        assert type(monitor) is VerificationMonitor
        held += monitored
    assert sorted(held) == list(range(10))
    other = folds.make_folds(x, labels, cv=3, seed=2)
    assert any(one.rows.tolist() != another.rows.tolist() for one, another in zip(found, other, strict=True))


def test_a_monitor_is_of_the_kind_and_has_the_rates_that_are_asked_for():
    assert type(folds.make_monitor(digits(), on_divergence="warn")) is DivergenceMonitor
    assert "val_tar@far=0.05" in folds.make_monitor(digits(), {"far": 0.05}).keys
    with pytest.raises(ValueError, match="too few impostor pairs for `objective`"):
        folds.make_monitor(digits(), {"far": 0.0001})
    with pytest.raises(ValueError, match="too few impostor pairs for `objective`"):
        folds.make_monitor(digits(), {"far": (0.05, 0.0001)})


def test_each_fit_has_a_monitor_of_its_own():
    template = folds.make_monitor(digits(), on_divergence="warn")
    copied = folds.monitor_of(template, "stop", target_eer=0.3)
    assert copied is not template and copied.target_eer == 0.3 != template.target_eer

    class Model:
        stop_training = False

    copied._model = model = Model()
    copied.on_divergence(None)
    assert model.stop_training
    warned = folds.monitor_of(template, "warn")
    warned._model = model = Model()
    warned.on_divergence(None)
    assert not model.stop_training


# Records


def test_the_record_of_a_fit_is_that_of_its_best_epoch():
    curves = {"loss": [3.0, 2.0, 1.0], "val_eer": [0.5, 0.25, 0.375], "val_auc": [0.5, 0.75, 0.875], "lr": [0.1]}
    record = folds.record_of(curves, EER, 1.5)
    logs = {"loss": 2.0, "val_eer": 0.25, "val_auc": 0.75}
    assert record == {"epoch": 2, "seconds": 1.5, "logs": logs, "curve": [0.5, 0.25, 0.375]}
    assert folds.record_of(curves, AUC, 1.5, initial_epoch=10)["epoch"] == 13


def test_logs_that_are_no_numbers_are_left_out():
    curves = {"val_eer": [0.5, 0.25], "f1_score": [np.array([0.5, 1.0])] * 2, "note": ["a", None]}
    assert folds.record_of(curves, EER, 1.5)["logs"] == {"val_eer": 0.25}


def test_epochs_with_nan_are_never_best():
    nan = float("nan")
    record = folds.record_of({"val_eer": [nan, 0.5, nan]}, EER, 0.0)
    assert record["epoch"] == 2 and record["curve"] == [None, 0.5, None]
    with pytest.raises(FloatingPointError, match="val_eer is NaN in every epoch"):
        folds.record_of({"val_eer": [nan, nan]}, EER, 0.0)


def test_a_key_that_nobody_logged_is_named():
    with pytest.raises(ValueError, match="`objective` must be a key that is logged, loss, val_auc; got val_eer"):
        folds.record_of({"loss": [1.0], "val_auc": [0.5]}, EER, 0.0)


@pytest.mark.parametrize(
    ("flags", "causes", "expected"),
    [([], ["margin"], None), ([3], ["margin", "noise"], "margin"), ([3], [], "undetermined")],
)
def test_the_cause_of_a_flagged_run(flags, causes, expected):
    monitor = folds.make_monitor(digits(), on_divergence="warn")
    monitor.recorder.run.flags = flags
    findings = [type("Finding", (), {"cause": cause}) for cause in causes]
    monitor.diagnosis = type("Diagnosis", (), {"findings": findings})
    assert folds.cause_of(monitor) == expected
    record = folds.record_of({"val_eer": [0.5]}, EER, 0.0, monitor)
    assert (record["flags"], record["cause"]) == ([flag + 1 for flag in flags], expected)


# What KerasTuner is told


def test_metrics_are_means_over_folds_with_spread_and_each_fold():
    records = records_of(0.1, 0.2, 0.6, loss=2.0)
    del records[2]["logs"]["loss"]
    metrics = folds.metrics_of(records, 3, EER)
    assert metrics == pytest.approx(
        {
            "val_eer": 0.3,
            "std_val_eer": np.std([0.1, 0.2, 0.6]),
            "split0_val_eer": 0.1,
            "split1_val_eer": 0.2,
            "split2_val_eer": 0.6,
            "best_epoch": 2.0,
        }
    )
    assert folds.metrics_of(records[:1], 1, EER) == {"val_eer": 0.1, "loss": 2.0, "best_epoch": 1.0}


def test_infinite_values_have_no_spread():
    metrics = folds.metrics_of(records_of(np.inf, 1.0, name="val_d_prime"), 2, objective("val_d_prime"))
    assert metrics["val_d_prime"] == np.inf and "std_val_d_prime" not in metrics


def test_a_trial_given_up_is_judged_by_the_difference_to_the_best_on_the_same_folds():
    best = np.array([0.1, 0.4, 0.4])
    assert folds.expected([0.2], best) == pytest.approx(0.3 + 0.1)
    assert folds.metrics_of(records_of(0.2), 3, EER, best)["val_eer"] == pytest.approx(0.4)


def test_the_best_values_are_those_of_the_best_trial_that_measured_all_folds(tmp_path):
    for number, values in enumerate([[0.5, 0.5], [0.3, 0.4], [0.1], [float("nan"), 0.1]]):
        (tmp_path / f"trial_{number}").mkdir()
        folds.write_json(tmp_path / f"trial_{number}" / folds.FILE, records_of(*values))
    assert folds.best_values(tmp_path, 2, EER).tolist() == [0.3, 0.4]
    assert folds.best_values(tmp_path, 3, EER) is None


@pytest.mark.parametrize(
    ("values", "best", "aim", "give_up", "expected"),
    [
        ([0.3], [0.2, 0.2], "val_eer", 0.05, True),
        ([0.3], [0.2, 0.2], "val_eer", 0.15, False),
        ([0.3, 0.1], [0.2, 0.2, 0.2], "val_eer", 0.05, False),
        ([0.7], [0.9, 0.9], "val_auc", 0.1, True),
        ([0.9], [0.7, 0.7], "val_auc", 0.1, False),
        ([0.3], [0.2, 0.2], "val_eer", None, False),
        ([0.3], None, "val_eer", 0.05, False),
        ([], [0.2, 0.2], "val_eer", 0.05, False),
    ],
)
def test_what_is_hopeless(values, best, aim, give_up, expected):
    best = None if best is None else np.array(best)
    assert folds.is_hopeless(np.array(values), best, objective(aim), give_up) == expected


def test_a_trial_is_measured_fold_by_fold_and_its_records_are_written_after_each(tmp_path):
    file, seen = tmp_path / "trial_0" / folds.FILE, []
    file.parent.mkdir()

    class History:
        def __init__(self, value):
            self.history = {"val_eer": [0.9, value]}

    values = {"a": 0.1, "b": 0.3}
    shown = []

    def fit(fold, number):
        seen.append((fold, number, len(json.loads(file.read_text()))))
        return History(values[fold]), None

    def show(number, record):
        shown.append((number, record["logs"]["val_eer"]))

    metrics = folds.measure(list(values), EER, None, file, fit, show, initial_epoch=5)
    assert seen == [("a", 0, 0), ("b", 1, 1)] and shown == [(0, 0.1), (1, 0.3)]
    assert [record["epoch"] for record in json.loads(file.read_text())] == [7, 7]
    assert metrics["val_eer"] == pytest.approx(0.2)


def test_a_hopeless_trial_is_not_measured_on_the_other_folds(tmp_path):
    for number, values in enumerate([[0.1, 0.2], []]):
        (tmp_path / f"trial_{number}").mkdir()
        folds.write_json(tmp_path / f"trial_{number}" / folds.FILE, records_of(*values))
    shown = []
    history = keras.callbacks.History()
    history.history = {"val_eer": [0.4]}
    metrics = folds.measure(
        ["a", "b"],
        EER,
        0.25,
        tmp_path / "trial_1" / folds.FILE,
        lambda fold, number: (history, None),
        lambda number, record: shown.append((number, record is None)),
    )
    assert shown == [(0, False), (1, True)]
    assert metrics["val_eer"] == pytest.approx(0.15 + 0.3)


# Folders, seeds, callbacks


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folds.write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    monkeypatch.setattr("os.replace", None)
    with pytest.raises(TypeError):
        folds.write_json(tmp_path / "a.json", {"a": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_folder_belongs_to_one_search(tmp_path):
    folds.claim(tmp_path / "p", {"cv": 2, "seed": 0}, is_fresh=True)
    folds.claim(tmp_path / "p", {"cv": 2, "seed": 0}, is_fresh=False)
    with pytest.raises(ValueError, match=r"`directory` holds another search, in '.*p': cv 2, not 3; seed 0, not 1"):
        folds.claim(tmp_path / "p", {"cv": 3, "seed": 1}, is_fresh=False)
    with pytest.raises(ValueError, match="cv None, not 2"):
        folds.claim(tmp_path / "foreign", {"cv": 2}, is_fresh=False)


def test_the_hash_is_of_the_values():
    x, labels = digits()
    assert folds.data_hash(x, labels) == folds.data_hash(x.copy(), labels.copy())
    assert folds.data_hash(x, labels) != folds.data_hash(x + 1, labels)
    assert folds.data_hash(x, labels) != folds.data_hash(x, labels + 1)


def test_callbacks_are_copied_and_checked():
    given = [keras.callbacks.TerminateOnNaN()]
    copied = folds.check_callbacks(given)
    assert type(copied[0]) is keras.callbacks.TerminateOnNaN and copied[0] is not given[0]
    assert folds.check_callbacks(None) == []
    with pytest.raises(TypeError, match="must hold Keras callbacks other than a monitor.*of type VerificationMonitor"):
        folds.check_callbacks([VerificationMonitor(digits())])


def test_what_a_search_does_about_divergence_is_one_of_three():
    assert [folds.check_settings(one, None) for one in ("warn", "stop")] == [("warn", None), ("stop", None)]
    assert folds.check_settings(None, 2) == (None, 2.0)
    assert folds.check_settings(None, 0) == (None, 0.0)
    with pytest.raises(ValueError, match="`on_divergence` must be one of None, 'warn', 'stop'; got 'raise'"):
        folds.check_settings("raise", None)
    with pytest.raises(ValueError, match="`give_up`"):
        folds.check_settings(None, -0.1)
