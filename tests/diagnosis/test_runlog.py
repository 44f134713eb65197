"""The run log: a line an epoch, taken up where it was left, and refused where it is something else."""

import json
import math

import pytest

from keras_siamese.diagnosis.runlog import SCHEMA, RunLog, read_run_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "run.jsonl"


def write(log, epochs, start=0, scale=1.0):
    for epoch in range(start, epochs):
        log.begin(epoch)
        curves = {"loss": scale / (epoch + 1), "auc": math.nan if epoch == 1 else 0.5, "spread": 0.9}
        log.write(epoch, curves, {"loss": scale / (epoch + 1), "val_eer": 0.4}, flagged=epoch == 2)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_epoch_is_a_line_that_is_there_at_once(path):
    log = RunLog(path)
    assert not path.exists() and log.path == path
    for epoch in range(3):
        write(log, epoch + 1, epoch)
        assert len(lines(path)) == epoch + 1
    assert lines(path)[1] == {
        "schema": SCHEMA,
        "epoch": 1,
        "flagged": False,
        "loss": 0.5,
        "auc": None,
        "spread": 0.9,
        "logs": {"loss": 0.5, "val_eer": 0.4},
    }
    found = read_run_log(path)
    assert found.curves["loss"] == [1.0, 0.5, pytest.approx(1 / 3)] and found.flags == [2]
    assert math.isnan(found.curves["auc"][1]) and found.curves["spread"] == [0.9] * 3


def test_a_run_taken_up_again_replaces_its_later_epochs(path):
    write(RunLog(path), 6)
    again = RunLog(path)
    kept = again.begin(4)
    assert kept.curves["loss"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4]) and kept.flags == [2]
    assert again.begin(4) is None  # nothing to do: it ends before epoch 4
    write(again, 6, 4, scale=10.0)
    assert [line["epoch"] for line in lines(path)] == [0, 1, 2, 3, 4, 5]
    assert read_run_log(path).curves["loss"][3:] == pytest.approx([1 / 4, 2, 10 / 6])


def test_a_run_that_begins_begins_the_log_and_one_that_begins_late_has_a_gap(path):
    write(RunLog(path), 3)
    log = RunLog(path)
    assert log.begin(0).curves == {}
    log.write(0, {"loss": 7.0}, {}, flagged=False)
    assert [line["loss"] for line in lines(path)] == [7.0]
    kept = RunLog(path).begin(3)
    assert kept.curves["loss"][0] == 7.0 and len(kept.curves["loss"]) == 3 and math.isnan(kept.curves["loss"][2])
    late = RunLog(path.with_name("late.jsonl"))
    write(late, 6, 4)
    assert [line["epoch"] for line in lines(late.path)] == [4, 5]
    assert [math.isnan(loss) for loss in read_run_log(late.path).curves["loss"]] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_a_torn_last_line_is_left_out_with_a_warning(path, kept):
    write(RunLog(path), 4)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    path.write_bytes(whole[: start + int(kept * (len(whole) - start)) + 1])
    with pytest.warns(UserWarning, match=r"The last line of .*run\.jsonl is torn, \d+ bytes without an end"):
        assert len(read_run_log(path).curves["loss"]) == 3
    log = RunLog(path)  # says nothing yet
    with pytest.warns(UserWarning, match="is torn"):
        log.begin(3)
    write(log, 5, 3)
    assert path.read_bytes().startswith(whole) and len(lines(path)) == 5


def test_the_first_line_may_be_torn_and_the_last_line_feed_missing(path):
    write(RunLog(path), 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert len(read_run_log(path).curves["loss"]) == 2
    write(RunLog(path), 3, 2)
    assert len(lines(path)) == 3 and path.read_bytes().startswith(whole)
    for size in (1, 11, 60):
        path.write_bytes(whole[:size])
        with pytest.warns(UserWarning, match="is torn"):
            assert read_run_log(path).curves == {}
    path.write_bytes(b"")
    assert read_run_log(path).curves == {} and RunLog(path).begin(0).ends == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epoch,loss\n0,1\n", "line 1 of .* is no JSON"),
        (b"a diary", "line 1 of .* is no JSON"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "line 1 of .* is no JSON"),
        (b'{"loss": [1, 2]}\n', "must have the schema 'keras_siamese.run/1'; it has None"),
        (b"[1]\n", "it has None"),
        (b'{"schema": "keras_siamese.run/2", "epoch": 0}\n', "it has 'keras_siamese.run/2'"),
        (
            b'{"schema": "keras_siamese.run/1", "epoch": "0", "flagged": true}\n',
            "must have an `epoch` from 0 to 1,000,000",
        ),
        (b'{"schema": "keras_siamese.run/1", "epoch": 1000000, "flagged": true}\n', "it has 1000000 and True"),
        (b'{"schema": "keras_siamese.run/1", "epoch": 0, "flagged": 1}\n', "and `flagged`; it has 0 and 1"),
        (
            b'{"schema": "keras_siamese.run/1", "epoch": 0, "flagged": true, "loss": "x"}\n',
            "null for 'loss'; it has 'x'",
        ),
        (
            b'{"schema": "keras_siamese.run/1", "epoch": 3, "flagged": true}\n' * 2,
            "line 2 .* is of epoch 3, after epoch 3",
        ),
        (b'{"schema": "keras_siamese.run/1", "epoch": 3, "flagged": true}\nx\n', "line 2 of .* is no JSON"),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(path, content, message):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"`log` must be a run log.*{message}"):
        RunLog(path)
    with pytest.raises(ValueError, match=f"`history` must be a run log.*{message}"):
        read_run_log(path)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="is a folder"):
        RunLog(path.parent)


def test_copies_write_files_of_their_own(path):
    log = RunLog(path)
    write(log, 2)
    copies = [log.copy(), log.copy().copy()]
    assert [copy.path for copy in copies] == [None, None]
    path.with_name("run-2.jsonl").write_text("of someone else")
    for copy in copies:
        write(copy, 3)
    assert [copy.path.name for copy in copies] == ["run-1.jsonl", "run-3.jsonl"]
    assert len(lines(path)) == 2 and all(len(lines(copy.path)) == 3 for copy in copies)
    assert path.with_name("run-2.jsonl").read_text() == "of someone else"
    write(copies[0], 1)  # a second fit of one copy
    assert copies[0].path.name == "run-1.jsonl" and len(lines(copies[0].path)) == 1


@pytest.mark.parametrize("what", ["another run", "gone"])
def test_a_file_that_changed_is_written_no_more(path, what):
    log = RunLog(path)
    write(log, 2)
    if what == "another run":
        write(RunLog(path), 1)
    else:
        path.unlink()
    before = path.read_bytes() if path.exists() else None
    with pytest.warns(UserWarning, match="run.jsonl is written no more: "):
        write(log, 3, 2)
    write(log, 6, 3)  # and says so once
    assert (path.read_bytes() if path.exists() else None) == before
    write(log, 1)  # a new fit begins it anew
    assert len(lines(path)) == 1


def test_logs_of_any_kind_become_json(path):
    np = pytest.importorskip("numpy")
    log = RunLog(path)
    log.begin(0)
    logs = {"a": np.float32(0.5), "b": np.arange(2), "c": math.inf, "d": None, "e": True, "f": object, 3: "text"}
    log.write(0, {"loss": np.float64(1)}, logs, flagged=np.bool_(True))
    (line,) = lines(path)
    assert line["flagged"] is True and line["loss"] == 1.0
    assert line["logs"] == {"a": 0.5, "b": [0, 1], "c": None, "d": None, "e": True, "f": str(object), "3": "text"}
