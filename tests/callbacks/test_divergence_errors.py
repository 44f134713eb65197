"""What stands beside a training run does not end it: full disks, removed folders, facts and causes that raise."""

import errno
import functools
import json
import math
import shutil
from pathlib import Path

import keras
import pytest

import keras_siamese as ks
from keras_siamese.callbacks import DivergenceMonitor, SideWorkWarning, VerificationMonitor
from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.facts import table
from tests.support.monitored import VALID, compiled, fit

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, in which files that could not be written are put."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


class Removes(keras.callbacks.Callback):
    """Removes `folder` after the first epoch, and puts a file in its place."""

    def __init__(self, folder, replaced=True):
        super().__init__()
        self.folder, self.replaced = folder, replaced

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            shutil.rmtree(self.folder)
            if self.replaced:
                self.folder.write_text("a file")


def full_disk(monkeypatch, folder):
    """Lets no byte be written under `folder`."""
    write_bytes = Path.write_bytes

    def write(path, content):
        if folder in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    def open_it(path, mode="r", **kwargs):
        if folder in Path(path).parents and mode not in ("r", "rb"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode, **kwargs)

    monkeypatch.setattr(Path, "write_bytes", write)
    monkeypatch.setattr("keras_siamese.diagnosis.recorder.open", open_it, raising=False)


def monitor_in(folder, **options):
    files = {"report": folder / "report.html", "log": folder / "run.jsonl"}
    return DivergenceMonitor(VALID, far=0.01, **{**files, **options})


def messages(said):
    return [str(one.message) for one in said if isinstance(one.message, SideWorkWarning)]


@pytest.mark.each_backend
def test_a_fit_outlives_the_folder_of_its_files(tmp_path, here):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    out = tmp_path / "out"
    monitor = monitor_in(out, log_dir=out / "logs")
    with pytest.warns(SideWorkWarning) as said:
        history = fit(compiled(), [monitor, Removes(out)], epochs=3)
    assert len(history.history["val_eer"]) == 3 and monitor.diagnosis is not None
    whats = ["What TensorBoard shows", "The run log", "The report", "The report's JSON"]
    assert [one.what for one in monitor.errors] == whats
    written = {one.what: Path(one.written) for one in monitor.errors}
    assert {path.parent if path.is_file() else path for path in written.values()} == {*here.iterdir()}  # one folder
    assert "<html" in written["The report"].read_text(encoding="utf-8")
    assert json.loads(written["The report's JSON"].read_text())["history"]["eer"] == monitor.history["eer"]
    assert len(written["The run log"].read_text().splitlines()) == 3
    assert ks.diagnose(monitor.model, validation=VALID, history=monitor.log.path).observed.epoch == 2
    assert list(written["What TensorBoard shows"].glob("events*"))
    found = messages(said)
    assert [sum(what in text for text in found) for what in whats[:2]] == [2, 2]  # that it failed, where it is now
    assert len(found) == 6 and all(str(path) in " ".join(found) for path in written.values())


def test_a_fit_outlives_a_full_disk(tmp_path, here, monkeypatch):
    monitor = monitor_in(tmp_path / "out")
    full_disk(monkeypatch, tmp_path / "out")
    with pytest.warns(SideWorkWarning) as said:
        fit(compiled(), monitor, epochs=3)
    assert [one.what for one in monitor.errors] == ["The run log", "The report", "The report's JSON"]
    assert {one.why for one in monitor.errors} == {"OSError: [Errno 28] No space left on device"}
    assert all(Path(one.written).parent.parent == here for one in monitor.errors)
    assert len(messages(said)) == 4 and monitor.log.path == Path(monitor.errors[0].written)
    assert len(monitor.log.path.read_text().splitlines()) == 3


def test_a_folder_that_was_removed_is_made_again(tmp_path, here):
    out = tmp_path / "out"
    monitor = monitor_in(out)
    with pytest.warns(SideWorkWarning, match="The run log could not be written to .*FileNotFoundError"):
        fit(compiled(), [monitor, Removes(out, replaced=False)], epochs=3)
    assert [one.what for one in monitor.errors] == ["The run log"] and list(here.iterdir()) == []
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "run.jsonl"]
    assert len(monitor.log.path.read_text().splitlines()) == 3


def test_a_report_on_a_full_disk_leaves_the_one_before(tmp_path, here, monkeypatch):
    monitor = monitor_in(tmp_path / "out", log=None)
    monitor.report.write_text("the report of yesterday")
    full_disk(monkeypatch, tmp_path)
    with pytest.warns(SideWorkWarning, match="could not be written to another folder, either"):
        fit(compiled(), monitor, epochs=1)
    assert monitor.report.read_text() == "the report of yesterday" and monitor.errors[0].written is None
    assert [path.name for path in monitor.report.parent.iterdir()] == ["report.html"]


def test_strict_monitors_raise(tmp_path, monkeypatch):
    monitor = monitor_in(tmp_path / "out", strict=True)
    full_disk(monkeypatch, tmp_path)
    with pytest.raises(OSError, match="No space left"):
        fit(compiled(), monitor, epochs=1)


def test_what_is_given_wrongly_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("report", "log", "log_dir"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            DivergenceMonitor(VALID, **{name: tmp_path / "file" / "below"})


def test_a_wrong_reference_is_refused_when_training_begins():
    epochs = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: pytest.fail("an epoch began"))
    monitor = DivergenceMonitor(VALID, far=0.01, reference=lambda items: items[:, 0])
    with pytest.raises(ValueError, match="`reference` must give an embedding for each of 4 items"):
        fit(compiled(), [monitor, epochs], epochs=1)


def test_the_first_measurement_raises_and_a_later_one_is_logged_as_nan(monkeypatch):
    def fails_at(epoch):
        monitor, measure, calls = DivergenceMonitor(VALID, far=0.01), VerificationMonitor.measure, []

        def measured(self):
            calls.append(self)
            return 1 / 0 if len(calls) == epoch else measure(self)

        monkeypatch.setattr(DivergenceMonitor, "measure", measured)
        return monitor

    with pytest.raises(ZeroDivisionError):
        fit(compiled(), fails_at(1), epochs=3)
    monitor = fails_at(2)
    with pytest.warns(SideWorkWarning, match="The verification failed .*ZeroDivisionError.*; it is logged as NaN"):
        history = fit(compiled(), monitor, epochs=3).history
    assert [math.isnan(value) for value in history["val_eer"]] == [False, True, False]
    assert [math.isnan(value) for value in monitor.history["eer"]] == [False, True, False]
    assert monitor.errors[0].what == "The verification"


def test_a_diagnosis_that_fails_at_the_end_does_not_end_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(DivergenceMonitor, "diagnose", lambda self, valid=None: 1 / 0)
    monitor = monitor_in(tmp_path)
    with pytest.warns(SideWorkWarning, match="The diagnosis failed .*ZeroDivisionError"):
        history = fit(compiled(), monitor, epochs=1)
    assert len(history.history["loss"]) == 1 and monitor.diagnosis is None and not monitor.report.exists()
    with pytest.raises(ZeroDivisionError):
        fit(compiled(), monitor_in(tmp_path, strict=True), epochs=1)


@pytest.mark.parametrize("what", ["on_divergence", "text"])
def test_a_flag_whose_diagnosis_fails_still_stops_the_run(monkeypatch, what):
    monitor = DivergenceMonitor(VALID, "stop", far=0.01)
    if what == "text":
        monkeypatch.setattr(ks.diagnosis.Diagnosis, "__str__", lambda self: 1 / 0)
    else:
        monkeypatch.setattr(DivergenceMonitor, "diagnose", lambda self, valid=None: 1 / 0)
    monkeypatch.setattr(monitor.recorder, "end_epoch", lambda *_, **counts: True)  # flags the first epoch
    monitor.recorder.scored = None
    with pytest.warns(SideWorkWarning, match="ZeroDivisionError"):
        history = fit(compiled(), monitor, epochs=3).history
    assert len(history["loss"]) == 1 and len(monitor.errors) == 1


@pytest.fixture
def broken_pairs(monkeypatch):
    """`of_pairs` raises."""

    def replaced(part):
        @functools.wraps(part)
        def broken(observed):
            raise ZeroDivisionError("no pairs")

        return broken if part.__name__ == "of_pairs" else part

    monkeypatch.setattr(table, "NEEDED", {replaced(part): names for part, names in table.NEEDED.items()})


def test_a_fact_that_raises_is_not_examined_and_the_others_are_reported(broken_pairs, tmp_path):
    monitor = monitor_in(tmp_path)
    with pytest.warns(SideWorkWarning, match="Measuring the facts of_pairs failed .*Error: no pairs") as said:
        fit(compiled(), [monitor], epochs=6)  # is diagnosed after the fifth epoch, and at the end
    assert len(messages(said)) == 1 and len(monitor.errors) == 1
    lost = {one.cause: one.error for one in monitor.diagnosis.not_examined if one.error}
    assert lost.keys() == {"pair_construction", "identity_imbalance"}
    assert all(error.startswith("ZeroDivisionError: no pairs (") for error in lost.values())
    assert "of_pairs" in monitor.diagnosis.facts.errors and "eer" in monitor.diagnosis.facts
    assert "(error: ZeroDivisionError: no pairs (" in str(monitor.diagnosis)
    assert "(error: ZeroDivisionError: no pairs (" in monitor.report.read_text(encoding="utf-8")
    again = ks.diagnosis.Diagnosis.from_json(tmp_path / "report.json")
    assert again.not_examined == monitor.diagnosis.not_examined
    with pytest.raises(ZeroDivisionError):
        fit(compiled(), DivergenceMonitor(VALID, far=0.01, strict=True), epochs=1)


def test_a_cause_that_raises_is_not_examined_and_the_others_are_reported(monkeypatch):
    cause = next(cause for cause in causes.CAUSES if cause.name == "unshared_weights")
    monkeypatch.setattr(type(cause), "judge", lambda self, facts: facts["none"])
    with pytest.warns(SideWorkWarning, match="The cause unshared_weights failed .*KeyError: 'none'") as said:
        diagnosis = ks.diagnose(compiled(), validation=VALID)
        str(diagnosis)
    assert len(messages(said)) == 1
    assert [one.cause for one in diagnosis.not_examined if one.error] == ["unshared_weights"] and diagnosis.ruled_out
    with pytest.raises(SideWorkWarning):  # as it is in every test
        ks.diagnose(compiled(), validation=VALID)
