"""`DivergenceMonitor(log=…)`: what is written while a run goes on is enough to take it up again and to diagnose it."""

import copy
import json
import math

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis import resuming

EAGERLY = keras.backend.backend() == "tensorflow"  # a graph takes longer to trace than these runs take
EPOCHS = 12


def clusters(identities, samples, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    x = rng.normal(size=(identities, 6))[labels] + 0.4 * rng.normal(size=(len(labels), 6))
    return x.astype("float32"), labels


VALID = clusters(20, 4, seed=1)


class Worsen(keras.callbacks.Callback):
    """Reports losses that fall while the encoder goes from its features to their sum: a function of the epoch alone."""

    def on_epoch_end(self, epoch, logs=None):
        logs["loss"] = 0.8**epoch
        share = np.clip((epoch - 1) / 4, 0, 1)
        kernel = (1 - share) * np.eye(6, 4) + share * np.ones((6, 4))
        self.model.encoder.set_weights([kernel, np.zeros(4)])


def fit(monitor, epochs=EPOCHS, begin=None, **options):
    keras.utils.set_random_seed(0)
    siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)]))
    siamese.compile(keras.optimizers.SGD(0.0), loss=ks.losses.ContrastiveLoss(), run_eagerly=EAGERLY)
    data = ks.data.PairSequence(*clusters(6, 4, seed=0), batch_size=20, pairs_per_epoch=20)
    if begin is not None:
        siamese(data[0][0])
        siamese.set_weights(begin)
    siamese.fit(data, epochs=epochs, callbacks=[Worsen(), monitor], verbose=0, **options)
    return siamese


def monitor_of(path, called=None):
    return ks.callbacks.DivergenceMonitor(VALID, (called if called is not None else []).append, far=0.01, log=path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """`(monitor, model, path)` of a run that went through."""
    path = tmp_path_factory.mktemp("log") / "run.jsonl"
    monitor = monitor_of(path)
    return monitor, fit(monitor), path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_same(curves, others):
    assert curves.keys() == others.keys()
    for name, curve in curves.items():
        assert curve == pytest.approx(others[name], nan_ok=True), name


def test_each_epoch_has_its_line(whole):
    monitor, _, path = whole
    found = lines(path)
    assert [line["epoch"] for line in found] == list(range(EPOCHS))
    for name, curve in monitor.history.items():
        assert [math.nan if line[name] is None else line[name] for line in found] == pytest.approx(curve, nan_ok=True)
    assert monitor.flags and [line["epoch"] for line in found if line["flagged"]] == monitor.flags
    assert set(monitor.keys) < set(found[0]["logs"]) and found[3]["logs"]["val_eer"] == monitor.history["eer"][3]


def test_the_log_is_diagnosed_as_the_run_was(whole):
    monitor, model, path = whole
    diagnosis = ks.diagnose(model, validation=VALID, history=path)
    assert [flag.epoch for flag in diagnosis.flags] == monitor.flags
    assert_same(diagnosis.observed.history, monitor.history)


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow", "jax")
def test_a_run_that_dies_and_is_taken_up_again_is_one_run(whole, tmp_path):
    monitor, _, finished = whole
    path, called = tmp_path / "run.jsonl", []
    weights = fit(monitor_of(path), epochs=9).get_weights()
    fit(monitor_of(path), epochs=10)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 40)  # as kill -9 may leave it
    again = monitor_of(path, called)
    with pytest.warns(UserWarning, match="is incomplete"):
        fit(again, initial_epoch=9, begin=weights)
    assert lines(path) == lines(finished)
    assert again.flags == monitor.flags and again.recorder.still == monitor.recorder.still
    assert_same(again.history, monitor.history)
    assert called == []  # the first flag was raised before


def test_a_new_run_begins_the_log_anew(tmp_path):
    path = tmp_path / "run.jsonl"
    fit(monitor_of(path), epochs=3)
    monitor = monitor_of(path)
    fit(monitor, epochs=2)
    assert len(lines(path)) == 2
    fit(monitor, epochs=1)
    assert len(lines(path)) == 1


def test_a_flag_that_raises_is_logged_before(tmp_path):
    monitor = ks.callbacks.DivergenceMonitor(VALID, "raise", far=0.01, log=tmp_path / "run.jsonl")
    with pytest.raises(ks.callbacks.DivergenceError):
        fit(monitor)
    assert [line["flagged"] for line in lines(monitor.log.path)][-2:] == [False, True]


def test_copies_do_not_write_into_one_log(tmp_path):
    monitor = monitor_of(tmp_path / "run.jsonl")
    copies = copy.deepcopy([monitor, monitor])  # of one list, as KerasTuner copies them, it stays one
    assert copies[0] is copies[1]
    for copied in (copies[0], copy.deepcopy(monitor)):
        fit(copied, epochs=2)
    logs = [tmp_path / "run-1.jsonl", tmp_path / "run-2.jsonl"]
    assert sorted(tmp_path.iterdir()) == sorted([*logs, *map(resuming.beside, logs)])
    assert all(len(lines(one)) == 2 for one in logs)
    assert ks.callbacks.DivergenceMonitor(VALID).log is None


def test_a_log_that_holds_something_else_is_refused_before_training(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("Chapter 1\n")
    with pytest.raises(ValueError, match="`log` must be a run log; line 1 of .*thesis.txt' is not JSON"):
        ks.callbacks.DivergenceMonitor(VALID, log=path)
    with pytest.raises(TypeError, match="`log` must be a path; got 3"):
        ks.callbacks.DivergenceMonitor(VALID, log=3)
    assert path.read_text() == "Chapter 1\n"
