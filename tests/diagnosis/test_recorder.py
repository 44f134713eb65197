"""The recorder of a run and its log: one line per epoch, continued after a crash; other files are refused."""

import errno
import json
import math

import numpy as np
import pytest

from keras_siamese._files import SideWork, SideWorkWarning
from keras_siamese.diagnosis import trend
from keras_siamese.diagnosis.facts.embeddings import health_of
from keras_siamese.diagnosis.facts.verification import quick_errors
from keras_siamese.diagnosis.recorder import CURVES, RunLog, RunRecorder
from keras_siamese.diagnosis.run import SCHEMA
from keras_siamese.diagnosis.run import read_run_log as read_with_ends
from keras_siamese.scoring import ScoredTrials, Trials


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "run.jsonl"


def write(log, epochs, start=0, scale=1.0):
    for epoch in range(start, epochs):
        log.begin(epoch)
        curves = {"loss": scale / (epoch + 1), "auc": math.nan if epoch == 1 else 0.5, "spread": 0.9}
        log.write(epoch, curves, {"loss": scale / (epoch + 1), "val_eer": 0.4}, flagged=epoch == 2)


def read_run_log(path):
    return read_with_ends(path)[0]


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
    with pytest.warns(UserWarning, match=r"The last line of .*run\.jsonl is incomplete \(\d+ bytes\)"):
        assert len(read_run_log(path).curves["loss"]) == 3
    log = RunLog(path)  # says nothing yet
    with pytest.warns(UserWarning, match="is incomplete"):
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
        with pytest.warns(UserWarning, match="is incomplete"):
            assert read_run_log(path).curves == {}
    path.write_bytes(b"")
    assert read_run_log(path).curves == {} and RunLog(path).begin(0).curves == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epoch,loss\n0,1\n", "line 1 of .* is not JSON"),
        (b"a diary", "line 1 of .* is not JSON"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "line 1 of .* is not JSON"),
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
        (b'{"schema": "keras_siamese.run/1", "epoch": 3, "flagged": true}\nx\n', "line 2 of .* is not JSON"),
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


def test_a_file_that_another_run_has_changed_is_left_alone(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = RunLog(path)
    write(log, 2)
    write(RunLog(path), 1)
    before = path.read_bytes()
    with pytest.warns(SideWorkWarning, match=r"could not be written to .*run.jsonl: OSError: it was changed"):
        write(log, 3, 2)
    write(log, 6, 3)  # and says so once
    with pytest.warns(SideWorkWarning, match=r"The run log, which could not .*run.jsonl, is in .*run.jsonl"):
        log.finish()
    assert path.read_bytes() == before
    assert log.path != path and [line["epoch"] for line in lines(log.path)] == list(range(6))
    write(log, 1)  # a new fit begins it anew
    assert len(lines(log.path)) == 1


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_is_gone_is_written_anew_at_the_next_epoch(path, what):
    path = path.parent / "logs" / path.name
    log = RunLog(path)
    write(log, 2)
    path.unlink()
    if what == "folder":
        path.parent.rmdir()
    with pytest.warns(SideWorkWarning, match="FileNotFoundError.*; the epochs are kept in memory"):
        write(log, 3, 2)
    assert not path.exists()
    write(log, 5, 3)
    assert [line["epoch"] for line in lines(path)] == list(range(5)) and [one.what for one in log.side.errors] == [
        "The run log"
    ]
    log.finish()  # has nothing left to do
    assert log.path == path


def test_a_file_that_has_become_anothers_is_not_written_anew(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = RunLog(path)
    write(log, 2)
    path.unlink()
    with pytest.warns(SideWorkWarning, match="FileNotFoundError"):
        write(log, 3, 2)
    path.write_text("of another program")
    write(log, 4, 3)
    with pytest.warns(SideWorkWarning, match="is in"):
        log.finish()
    assert path.read_text() == "of another program" and len(lines(log.path)) == 4


def test_a_full_disk_leaves_half_a_line_that_is_completed_later(path, monkeypatch):
    log = RunLog(path)
    write(log, 2)

    class Full(bytearray):
        def __getitem__(self, chosen):
            raise OSError(errno.ENOSPC, "No space left on device")

    log._lines = Full(log._lines)
    with pytest.warns(SideWorkWarning, match="No space left"):
        write(log, 3, 2)
    whole = bytes(log._lines)
    path.write_bytes(whole[:-10])
    log.finish()
    assert path.read_bytes() == whole and len(lines(path)) == 3


def test_a_log_that_cannot_be_opened_or_copied_to_its_folder_keeps_its_epochs(path, tmp_path, monkeypatch):
    """The folder of the log has been replaced by a file before the fit begins."""
    monkeypatch.chdir(tmp_path)
    folder = path.parent / "logs"
    log = RunLog(folder / path.name)
    folder.rmdir()
    folder.write_text("")
    for one in (log, log.copy()):
        with pytest.warns(SideWorkWarning, match="The run log could not be written to"):
            write(one, 2)
        with pytest.warns(SideWorkWarning, match="is in"):
            one.finish()
        assert len(lines(one.path)) == 2 and one.side.errors[0].written == str(one.path)


def test_a_log_that_cannot_be_read_is_not_taken_up_and_this_is_logged(path, caplog):
    log = RunLog(path)
    assert log.read(3) is None and not caplog.records  # there is no file
    path.mkdir(parents=True)
    assert log.read(3) is None and "cannot be read, so no earlier run is continued" in caplog.text


def test_a_strict_log_raises(path):
    log = RunLog(path, side=SideWork(strict=True))
    write(log, 1)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        write(log, 2, 1)


def test_logs_of_any_kind_become_json(path):
    log = RunLog(path)
    log.begin(0)
    logs = {"a": np.float32(0.5), "b": np.arange(2), "c": math.inf, "d": None, "e": True, "f": object, 3: "text"}
    log.write(0, {"loss": np.float64(1)}, logs, flagged=np.bool_(True))
    (line,) = lines(path)
    assert line["flagged"] is True and line["loss"] == 1.0
    assert line["logs"] == {"a": 0.5, "b": [0, 1], "c": None, "d": None, "e": True, "f": str(object), "3": "text"}


# --- RunRecorder


class Model:
    """What the recorder asks of a model: weights `(2, 2)`, which the tests change."""

    def __init__(self, value=1.0):
        self.kernel = np.full((2, 2), value)


@pytest.fixture
def model(monkeypatch):
    from keras_siamese.diagnosis import recorder

    monkeypatch.setattr(recorder, "sampled_kernels", lambda model: model.kernel.copy())
    monkeypatch.setattr(recorder, "kernels_of", lambda model: [("dense", 4, model.kernel.copy())])
    monkeypatch.setattr(recorder, "update_size", lambda before, after: float(np.abs(after - before).max()))
    return Model()


def scored(noise, seed=0):
    """Scores of 15 identities of 4 items each; the more noise, the worse they verify."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(15), 4)
    z = rng.normal(size=(15, 5))[labels] + noise * rng.normal(size=(60, 5))
    trials = Trials.from_labels(z, labels)
    return ScoredTrials(trials, z, -np.linalg.norm(z[trials.left] - z[trials.right], axis=1))


def record(recorder, model, epochs, first=0, eer=0.3):
    """Epochs whose loss falls and whose verification does not change. Returns where the first flag was reported."""
    one, reported = scored(1.0), []
    for epoch in range(first, epochs):
        recorder.begin_epoch(epoch, model)
        model.kernel = model.kernel + 0.5
        logs = {"loss": 0.8**epoch, "accuracy": 0.5, "val_auc": 1 - eer, "val_eer": eer}
        if recorder.end_epoch(epoch, model, logs, one):
            reported.append(epoch)
    return reported


def test_an_epoch_is_recorded_with_its_health(model):
    recorder = RunRecorder()
    recorder.begin_fit(epochs=3)
    record(recorder, model, 2)
    recorder.begin_epoch(2, model)
    recorder.end_epoch(2, model, {"loss": 0.1})  # verification was not measured
    curves = recorder.run.curves
    assert tuple(curves) == (*CURVES, "logged_accuracy") and {len(curve) for curve in curves.values()} == {3}
    assert curves["logged_accuracy"][:2] == [0.5, 0.5] and math.isnan(curves["logged_accuracy"][2])
    assert curves["loss"] == [1.0, 0.8, 0.1] and curves["update_size"] == [0.5, 0.5, 0.0]
    assert curves["eer"][:2] == [0.3, 0.3] and curves["auc"][:2] == [0.7, 0.7] and math.isnan(curves["eer"][2])
    assert curves["moved_share"] == [1.0, 1.0, 1.0] and recorder.still == ()
    expected = health_of(scored(1.0)) | {f"{name}_se": error for name, error in quick_errors(scored(1.0)).items()}
    assert len(expected) == 8
    for name, value in expected.items():
        assert curves[name][0] == pytest.approx(value) and math.isnan(curves[name][2])
    assert recorder.run.epochs == 3 and recorder.run.logged == ("loss",) and not recorder.run.has_accuracy


def test_the_first_flag_is_reported_once_and_all_are_kept(model, path):
    recorder = RunRecorder(RunLog(path), target_eer=0.2)
    recorder.begin_fit(epochs=14)
    reported = record(recorder, model, 14)
    run = recorder.run
    assert reported == run.flags[:1] == [5] and run.flags == list(range(5, 14))  # a warm-up of 1, two windows of 4
    assert [line["epoch"] for line in lines(path) if line["flagged"]] == run.flags
    record(recorder, model, 3)  # a new run
    assert run.flags == [] and len(run.curves["loss"]) == 3
    quiet = RunRecorder(target_eer=0.2)
    quiet.begin_fit(epochs=14)
    assert record(quiet, model, 14, eer=0.01) == [] and quiet.run.flags == []


def test_an_epoch_late_in_a_run_looks_at_no_more_windows_than_an_early_one(model, monkeypatch):
    looked, examine = [], trend.examine_window
    monkeypatch.setattr(trend, "examine_window", lambda *given: looked.append(given) or examine(*given))
    recorder = RunRecorder(target_eer=0.2)
    recorder.begin_fit(epochs=40)
    record(recorder, model, 40)
    assert len(recorder.run.flags) > 20 and len(looked) <= 2 * 40


def test_a_resumed_run_takes_curves_and_flags_from_its_log(model, path):
    first = RunRecorder(RunLog(path), target_eer=0.2)
    record(first, model, 10)
    again = RunRecorder(RunLog(path), target_eer=0.2)
    again.begin_fit(epochs=12)
    assert record(again, model, 12, first=10) == []  # the first flag was reported before
    assert again.run.flags == list(range(4, 12))
    for name, curve in first.run.curves.items():
        assert again.run.curves[name][:10] == pytest.approx(curve, nan_ok=True)
    late = RunRecorder()
    record(late, model, 5, first=3)
    assert [math.isnan(loss) for loss in late.run.curves["loss"]] == [True] * 3 + [False] * 2


def test_a_resumed_run_knows_the_first_weights_and_what_happened_within_epochs(model, path):
    def epochs_of(recorder, first, last):
        one = scored(1.0)
        for epoch in range(first, last):
            recorder.begin_epoch(epoch, model, one.trials)
            model.kernel = model.kernel + 0.5
            for part in (1, 2):
                values = {"auc": 0.5, "eer": 0.5}
                recorder.end_part(10 * epoch + part, 0.8 ** (2 * epoch + part), one, values)
            logs = {"loss": 0.8**epoch, "val_auc": 0.5, "val_eer": 0.5}
            recorder.end_epoch(epoch, model, logs, one, counts={"steps": epoch, "next_part": None})
        return recorder

    whole = epochs_of(RunRecorder(RunLog(path.with_name("whole.jsonl"))), 0, 6)
    model.kernel = np.full((2, 2), 1.0)
    epochs_of(RunRecorder(RunLog(path)), 0, 4)
    again = epochs_of(RunRecorder(RunLog(path)), 4, 6)
    assert again.holes == [] and again.run.last["state"]["steps"] == 3
    assert lines(path) == lines(path.with_name("whole.jsonl"))
    assert again.run.parts == whole.run.parts and again.run.flagged_steps == whole.run.flagged_steps != []
    assert str(again.run.curves) == str(whole.run.curves) and again.still == whole.still
    model.kernel = model.kernel - 0.5
    assert not RunRecorder(RunLog(path)).take_up(6, model)  # other weights
    model.kernel = model.kernel + 0.5
    assert not RunRecorder(RunLog(path)).take_up(7, model) and not RunRecorder().take_up(6, model)
    finished = RunRecorder(RunLog(path))
    assert finished.take_up(6, model) and str(finished.run.curves) == str(whole.run.curves)


def test_a_disk_that_is_full_when_a_run_begins_does_not_end_it(model, path, monkeypatch):
    from keras_siamese.diagnosis import recorder as module

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_arrays", full)
    recorder = RunRecorder(RunLog(path))
    with pytest.warns(SideWorkWarning, match="What a resumed run needs could not be .*run.jsonl.npz: .*No space left"):
        record(recorder, model, 2)
    assert len(lines(path)) == 2


def test_a_run_that_was_not_flagged_is_looked_at_after_5_10_and_20_epochs(model, path):
    looked, recorder = [], RunRecorder(RunLog(path))

    def faulty():
        looked.append(len(recorder.run.curves["loss"]))
        return len(looked) == 3

    one, reported = scored(1.0), []
    for epoch in range(45):
        recorder.begin_epoch(epoch, model)
        measured = None if epoch == 1 else one
        if recorder.end_epoch(epoch, model, {"loss": 1.0, "val_auc": 0.7, "val_eer": 0.3}, measured, faulty):
            reported.append(epoch)
    assert looked == [6, 11, 21]  # one epoch was not measured; a flagged run is not looked at again
    assert reported == recorder.run.flags == [20]
    assert [line["epoch"] for line in lines(path) if line["flagged"]] == [20]


def test_a_run_is_flagged_within_an_epoch(model):
    recorder, one, told = RunRecorder(), scored(1.0), []
    recorder.begin_fit(epochs=1)
    recorder.begin_epoch(0, model)
    for part in range(7):
        values = {"auc": 0.5, "eer": 0.5}
        told.append(recorder.end_part(50 * (part + 1), 0.8**part, one, values, lambda: False))
    assert told == [False] * 4 + [True] + [False] * 2
    assert recorder.run.flagged_steps == [250, 300, 350]
    assert recorder.run.parts["loss"] == [0.8**part for part in range(7)]
    observed = recorder.observed(output_kind="distance")
    assert [flag.step for flag in observed.flags] == [250, 300, 350] and observed.epoch is None
    assert observed.flags[0].place == "step 250" and observed.why_no_flags is None and not observed.recovered
    places, unit, curves = observed.timeline
    assert (places, unit) == ([50 * (part + 1) for part in range(7)], "training step") and curves is observed.parts
    recorder.begin_epoch(0, model)  # a new run
    assert recorder.run.parts == {} and recorder.run.flagged_steps == []


def test_a_part_may_be_flagged_for_what_is_found_in_it(model):
    recorder, one = RunRecorder(), scored(1.0)
    told = [recorder.end_part(part, 1.0, one, {"auc": 0.9, "eer": 0.1}, lambda: True) for part in range(1, 8)]
    assert told == [False] * 4 + [True] + [False] * 2 and recorder.run.flagged_steps == [5]
    assert recorder.observed(output_kind="distance").flags == []


def test_embeddings_that_are_not_finite_are_noted(model):
    recorder, one = RunRecorder(), scored(1.0)
    broken = ScoredTrials(one.trials, one.embeddings * np.nan, one.scores * np.nan)
    record(recorder, model, 1)
    for epoch in (1, 2):
        recorder.begin_epoch(epoch, model)
        assert not recorder.end_epoch(epoch, model, {"loss": 0.1, "val_auc": math.nan, "val_eer": math.nan}, broken)
    assert recorder.run.not_finite_since == 1 and recorder.scored.is_finite
    assert all(math.isnan(recorder.run.curves[name][1]) for name in ("eer", "eer_se", "spread"))
    record(recorder, model, 4, first=3)
    assert recorder.run.not_finite_since is None
    recorder.begin_epoch(0, model)
    assert recorder.scored is None


def test_what_is_judged_is_what_was_recorded(model):
    recorder = RunRecorder(target_eer=0.2)
    recorder.begin_fit(epochs=9)
    record(recorder, model, 2)
    observed = recorder.observed(output_kind="score")
    assert observed.history["loss"] == [1.0, 0.8] and observed.valid is recorder.scored and observed.train is None
    assert (observed.threshold, observed.target_eer, observed.run.epochs, observed.not_finite_since) == (
        0.5,
        0.2,
        9,
        None,
    )
    other = scored(0.5)
    observed = recorder.observed(other, other, 0.7, output_kind="score")
    assert observed.valid is observed.train is other and observed.threshold == 0.7
    assert recorder.observed(output_kind="distance").threshold is None
    copied = recorder.copy()
    assert copied.target_eer == 0.2 and copied.log is None and copied.run.curves["loss"] == []
