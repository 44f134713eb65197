"""Runs that are read from Keras's history, a dict, a run log and a CSV file; errors name what is missing."""

import json
import math

import numpy as np
import pytest

from keras_siamese.diagnosis.recorder import RunLog
from keras_siamese.diagnosis.run import ALWAYS, SCHEMA, Run, line_of
from tests.support.diagnoses import history


def read(history):
    return Run.of(history).curves


LOGS = {"loss": [3.0, 2.0], "val_auc": [0.6, 0.7], "val_eer": [0.4, 0.3], "val_d_prime": [0.5, 1.0], "accuracy": [1, 1]}


def csv_of(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_history_and_a_dict_give_the_curves():
    class History:
        history = LOGS

    for given in (History(), LOGS):
        curves = read(given)
        assert list(curves) == [*ALWAYS, "d_prime", "logged_accuracy"]
        assert Run.of(given).has_accuracy and curves["logged_accuracy"] == [1.0, 1.0]
        assert curves["eer"] == [0.4, 0.3] and curves["d_prime"] == [0.5, 1.0]
        assert all(math.isnan(value) for value in curves["auc_se"] + curves["eer_se"])
    assert read({**LOGS, "val_auc_se": [0.1, None]})["auc_se"][0] == 0.1
    own = read({**LOGS, "mae": [7.0, 0.5], "norm": [7.0, 8.0], "val_tar@far=0.01": [0.5, 0.5], "learning_rate": [1, 2]})
    assert math.isnan(own["logged_mae"][0]) and own["logged_mae"][1] == 0.5  # a share is in [0, 1]
    assert own["learning_rate"] == [1.0, 2.0] and not {"logged_norm", "logged_learning_rate"} & set(own)


def test_a_run_log_gives_all_that_was_written(tmp_path):
    log, curves = RunLog(tmp_path / "run.log"), history(4) | {"mood": [1.0, 2.0, 3.0, 4.0]}
    for epoch in range(4):
        log.begin(epoch)
        log.write(epoch, {name: curve[epoch] for name, curve in curves.items()}, {"val_eer": 9.0}, flagged=False)
    for path in (log.path, str(log.path)):
        assert read(path) == curves


def test_a_csv_loggers_file_gives_its_columns(tmp_path):
    text = "epoch,accuracy,loss,val_auc,val_d_prime,val_eer\r\n0,[1 2],3.0,0.6,0.5,0.4\r\n1,NA,2.0,NA,1.0,0.3\r\n"
    curves = read(csv_of(tmp_path / "training.csv", text))
    assert list(curves) == [*ALWAYS, "d_prime"] and curves["loss"] == [3.0, 2.0] and curves["d_prime"] == [0.5, 1.0]
    assert curves["auc"][0] == 0.6 and math.isnan(curves["auc"][1])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_rows_may_be_parted_otherwise_and_have_no_epoch(tmp_path, delimiter):
    text = "\ufeffval_eer, loss ,val_auc\n0.4,3,0.6\n\n0.3,2,0.7\n".replace(",", delimiter)
    assert read(csv_of(tmp_path / "log", text))["loss"] == [3.0, 2.0]


def test_rows_of_a_run_taken_up_again_replace_those_before(tmp_path):
    rows = ["epoch,loss,val_auc,val_eer", "0,9,.5,.5", "1,8,.5,.5", "2,7,.5,.5", "1,6,.5,.5", "4,5,.5,.5"]
    loss = read(csv_of(tmp_path / "log.csv", "\n".join(rows) + "\n"))["loss"]
    np.testing.assert_array_equal(loss, [9, 6, np.nan, np.nan, 5])


def test_a_torn_last_row_is_left_out(tmp_path):
    text = "epoch,loss,val_auc,val_eer\n0,9,.5,.5\n1,8,.5,.4"
    with pytest.warns(UserWarning, match="log.csv is incomplete"):
        assert read(csv_of(tmp_path / "log.csv", text))["eer"] == [0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,loss,val_loss\n0,1,2\n", "'val_auc', 'val_eer' missing among .*'epoch', 'loss', 'val_loss'.*Monitor"),
        ("epoch,loss,val_auc,val_eer\n", "must hold at least one epoch"),
        ("", "must begin with a header"),
        ("hello", "'loss', 'val_auc', 'val_eer' missing among .'hello'"),
        ("epoch,loss,val_auc,val_eer\n0,1,.5,.5\n1,2,.5\n", "must have 4 fields on each line, .* line 3 has 3"),
        ("epoch,loss,val_auc,val_eer\n0,low,.5,.5\n", "must have a number for 'loss'; line 2 has 'low'"),
        ("epoch,loss,val_auc,val_eer\n0.5,1,.5,.5\n", "whole numbers from 0 to 1,000,000 for `epoch`; line 2 has 0.5"),
        ("epoch,loss,val_auc,val_eer\ninf,1,.5,.5\n", "whole numbers from 0 to 1,000,000 for `epoch`; line 2 has inf"),
        ("epoch,loss,val_auc,val_eer\n1e9,1,.5,.5\n", "for `epoch`; line 2 has 1e.09"),
        ("epoch,loss,val_auc,val_eer\nNA,1,.5,.5\n", "whole numbers from 0 to 1,000,000 for `epoch`; line 2 has nan"),
        (b"\x89PNG\r\n\x1a\n\xff", "must be a run log or a CSV file, in UTF-8"),
        ('{"loss": [1]}\n', "must be a run log; line 1"),
        (
            '{"schema": "keras_siamese.run/1", "epoch": 0, "flagged": false, "loss": 1}\n',
            "'val_auc', 'val_eer' missing",
        ),
    ],
)
def test_what_a_file_lacks_is_said(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(csv_of(tmp_path / "log.csv", text))


PART = {"step": [3], **{name: [0.5] for name in ALWAYS}}


def log_with(path, **line):
    line = {"schema": SCHEMA, "epoch": 0, "flagged": False, "loss": 1, "auc": 0.5, "eer": 0.5, **line}
    path.write_text(json.dumps(line) + "\n")
    return path


def test_a_log_tells_what_happened_within_its_epochs(tmp_path):
    state = {"finite": False, "weights": 7, "parts": PART, "flagged_steps": [3]}
    run = Run.of(log_with(tmp_path / "run.jsonl", logs={"loss": 1, "mine": 2}, state=state))
    assert run.parts == PART and run.flagged_steps == [3] and run.not_finite_since == 0
    assert run.logged == ("loss", "mine") and run.last["state"]["weights"] == 7
    run = Run.of(log_with(tmp_path / "run.jsonl", state={"finite": True}))
    assert run.parts == {} and run.not_finite_since is None and run.logged == ()


@pytest.mark.parametrize(
    "line",
    [
        {"logs": []},
        {"state": None},
        {"state": {"finite": 1}},
        {"state": {"weights": 0.5}},
        {"state": {"steps": "3"}},
        {"state": {"flagged_steps": [None]}},
        {"state": {"flagged_steps": {"a": 1}}},
        {"state": {"parts": [1]}},
        {"state": {"parts": {"step": [1]}}},
        {"state": {"parts": PART | {"step": [1.5]}}},
        {"state": {"parts": PART | {"loss": ["a"]}}},
        {"state": {"parts": PART | {"loss": [1, 2]}}},
    ],
    ids=str,
)
def test_a_state_of_another_kind_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"line 1 of .* must have (objects for 'logs' and 'state'|a `state` as)"):
        Run.of(log_with(tmp_path / "run.jsonl", **line))


def test_other_things_are_refused(tmp_path):
    with pytest.raises(TypeError, match="a Keras History, a dict of curves, or the path of a log; got a list"):
        read([1.0])
    with pytest.raises(ValueError, match="'val_eer' missing among"):
        read({"loss": [1.0], "val_auc": [0.5]})
    with pytest.raises(ValueError, match="of equal length, with one value per epoch; got loss 2, val_auc 1, val_eer 2"):
        read(LOGS | {"val_auc": [0.5]})
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.csv")


def test_a_few_lines_cannot_need_much_memory(tmp_path):
    """Each curve has a value for every epoch, so one late line with many names would need 8 MB for each of them."""
    names = {f"curve_{number}": 0.5 for number in range(200)}
    (tmp_path / "run.jsonl").write_bytes(line_of(999_999, {"loss": 1.0, **names}, {}, False))
    with pytest.raises(ValueError, match="A run must have at most 100,000,000 values in its curves; this one has 201"):
        Run.of(tmp_path / "run.jsonl")


def test_a_line_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "run.jsonl").write_bytes(b'{"schema": ' + b"[" * 100_000 + b"\n")
    with pytest.raises(ValueError, match="line 1 of .* is not JSON: it is nested too deeply"):
        Run.of(tmp_path / "run.jsonl")
