"""A run that ends without a word, as by SIGKILL, and is started again: its log, report and weights are those of a run
that went through. `benchmarks/resume.py` kills processes for it, at random moments.
"""

import json

import keras
import numpy as np
import pytest
from keras.callbacks import BackupAndRestore

import keras_siamese as ks
from tests.support.monitored import VALID, compiled, pairs

EPOCHS = 6
pytestmark = pytest.mark.usefixtures("unpainted")


class Killed(BaseException):
    """Ends `fit`; no later callback is called."""


class Die(keras.callbacks.Callback):
    """Ends the process, so to speak, at one `event` of one `epoch`."""

    def __init__(self, epoch, event="on_epoch_end"):
        super().__init__()
        setattr(self, event, lambda *now: self.end() if event == "on_train_end" or now[0] == epoch else None)

    def end(self):
        raise Killed


class Break(keras.callbacks.Callback):
    """Sets the weights to NaN after one epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])


def run(folder, arrange, epochs=EPOCHS, save_freq="epoch", **options):
    """Train with the callbacks that `arrange(backup, monitor)` gives. Returns `(model, monitor)`."""
    folder.mkdir(exist_ok=True)
    keras.utils.clear_session()  # a new process names its layers as the one before
    keras.utils.set_random_seed(0)
    model = compiled()
    model([VALID[0][:2], VALID[0][:2]])
    backup = BackupAndRestore(folder / "backup", save_freq, double_checkpoint=True)
    monitor = ks.callbacks.DivergenceMonitor(
        VALID, report=folder / "report.html", log=folder / "run.jsonl", far=0.1, **options
    )
    model.fit(pairs(), epochs=epochs, shuffle=False, verbose=0, callbacks=arrange(backup, monitor))
    return model, monitor


def left_by(folder, model):
    lines = (folder / "run.jsonl").read_text().splitlines()
    return [*map(json.loads, lines)], json.loads((folder / "report.json").read_text()), model.get_weights()


def assert_resumed(folder, die, arrange=lambda *both: [*both], again=None, **options):
    """A run with `die` among its callbacks and its resumption give what a whole run gives. Returns the monitors."""
    model, whole = run(folder / "whole", arrange, **options)
    expected = left_by(folder / "whole", model)
    assert [line["epoch"] for line in expected[0]] == list(range(EPOCHS))
    with pytest.raises(Killed):
        run(folder / "broken", lambda *both: die(*arrange(*both)), **options)
    model, monitor = run(folder / "broken", again or arrange, **options)
    found = left_by(folder / "broken", model)
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert all(np.array_equal(*pair, equal_nan=True) for pair in zip(found[2], expected[2], strict=True))
    for name in ("flags", "history", "parts", "flagged_steps"):
        assert str(getattr(monitor, name)) == str(getattr(whole, name)), name
    return whole, monitor


@pytest.mark.each_backend
@pytest.mark.parametrize("backup_first", [True, pytest.param(False, marks=pytest.mark.deep)])
@pytest.mark.deep_on("tensorflow", "jax")
def test_no_epoch_is_missing(tmp_path, backup_first):
    """The process ends between the two callbacks, wherever the backup stands."""

    def arrange(backup, monitor):
        return [backup, monitor] if backup_first else [monitor, backup]

    assert_resumed(tmp_path, lambda one, other: [one, Die(3), other], arrange)


@pytest.mark.deep
@pytest.mark.parametrize("options", [{}, {"every": 4}, {"every_steps": 2}, {"target_eer": 0.01}], ids=str)
def test_a_run_that_ended_between_epochs_goes_on(tmp_path, options):
    assert_resumed(tmp_path, lambda *both: [*both, Die(3)], **options)


@pytest.mark.each_backend
@pytest.mark.parametrize("event", [pytest.param("on_epoch_end", marks=pytest.mark.deep), "on_train_end"])
@pytest.mark.deep_on("tensorflow", "jax")
def test_a_run_that_ended_before_its_report_gets_one(tmp_path, event):
    def die(backup, monitor):
        return (
            [Die(EPOCHS - 1, event), backup, monitor] if event == "on_train_end" else [backup, monitor, Die(EPOCHS - 1)]
        )

    _, monitor = assert_resumed(tmp_path, die)
    assert monitor.diagnosis is not None and not (tmp_path / "broken" / "backup").exists()


def test_a_report_without_training_looks_at_the_batches_of_the_last_epoch(tmp_path):
    _, monitor = assert_resumed(tmp_path, lambda *both: [*both, Die(EPOCHS - 1)], confirm=True, budget_epochs=0.01)
    assert f"epoch {EPOCHS - 1}" in monitor.diagnosis.to_dict()["settings"]["train"]


@pytest.mark.filterwarnings("ignore:Embeddings are NaN")
@pytest.mark.parametrize("epoch", [*(pytest.param(one, marks=pytest.mark.deep) for one in (1, 3)), EPOCHS - 1])
def test_the_last_finite_embeddings_are_reported(tmp_path, epoch):
    """The weights break after epoch 2; the process ends before, after it, or after the last epoch."""
    _, monitor = assert_resumed(
        tmp_path,
        lambda *all_of_them: [*all_of_them, Die(epoch)],
        arrange=lambda backup, monitor: [Break(2), backup, monitor],
    )
    assert monitor.recorder.run.not_finite_since == 2 and np.isfinite(monitor.recorder.scored.scores).all()


@pytest.mark.deep
def test_twice_is_as_once(tmp_path):
    def again(*both):
        with pytest.raises(Killed):
            run(tmp_path / "broken", lambda *both: [*both, Die(4, "on_epoch_begin")])
        return [*both]

    assert_resumed(tmp_path, lambda *both: [*both, Die(1)], again=again)


def test_a_backup_within_an_epoch_is_said(tmp_path):
    """Its first batches are trained twice, because Keras begins the epoch again: this is another run."""
    with pytest.raises(Killed):
        run(tmp_path, lambda backup, monitor: [monitor, backup, Die(3)], save_freq=3)
    with pytest.warns(UserWarning, match="resumed, but not as it was: epoch 3 begins with other weights"):
        run(tmp_path, lambda backup, monitor: [monitor, backup], save_freq=3)
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS))


def test_a_log_that_lacks_epochs_is_said(tmp_path):
    run(tmp_path, lambda backup, monitor: [monitor], epochs=2)
    keras.utils.set_random_seed(0)
    model, monitor = compiled(), ks.callbacks.DivergenceMonitor(VALID, log=tmp_path / "run.jsonl", far=0.1)
    (tmp_path / "run.jsonl.npz").unlink()
    said = "the log ends after epoch 2, and epoch 5 begins; .*run.jsonl.npz is missing"
    with pytest.warns(UserWarning, match=said):
        model.fit(pairs(), epochs=5, initial_epoch=4, verbose=0, callbacks=[monitor])
    assert np.isnan(monitor.history["loss"]).tolist() == [False, False, True, True, False]


@pytest.mark.deep
def test_a_run_that_ended_after_its_report_is_trained_again(tmp_path):
    """Keras's backup is gone by then. What the first run has left is written anew, and is the same."""
    model, _ = run(tmp_path, lambda *both: [*both])
    expected = left_by(tmp_path, model)
    model, _ = run(tmp_path, lambda *both: [*both])
    found = left_by(tmp_path, model)
    assert found[:2] == expected[:2]


def test_the_report_of_a_finished_run_is_not_replaced_by_one_of_other_weights(tmp_path):
    run(tmp_path, lambda backup, monitor: [monitor])
    expected = (tmp_path / "report.json").read_text(), (tmp_path / "run.jsonl").read_text()
    monitor = ks.callbacks.DivergenceMonitor(VALID, report=tmp_path / "report.html", log=tmp_path / "run.jsonl")
    keras.utils.set_random_seed(5)
    with pytest.warns(UserWarning, match="No epoch was trained: .*report.html is not written"):
        compiled().fit(pairs(), epochs=EPOCHS, initial_epoch=EPOCHS, verbose=0, callbacks=[monitor])
    assert expected == ((tmp_path / "report.json").read_text(), (tmp_path / "run.jsonl").read_text())
