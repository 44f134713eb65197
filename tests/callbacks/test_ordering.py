"""The order in which Keras calls the callbacks beside a monitor."""

import keras
import pytest
from keras.callbacks import BackupAndRestore, CSVLogger, EarlyStopping

from keras_siamese.callbacks import VerificationMonitor
from keras_siamese.callbacks.ordering import before, beside, list_with, put_backups_behind, readers_before
from tests.support.monitored import VALID


class Ask(keras.callbacks.Callback):
    """Calls `ask` with itself when training begins, as a monitor does."""

    def __init__(self, ask):
        super().__init__()
        self.ask, self.found, self.epochs = ask, None, []

    def on_train_begin(self, logs=None):
        self.found = self.ask(self)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)


def begun(*callbacks):
    """The `CallbackList` of `callbacks` after training has begun."""
    found = keras.callbacks.CallbackList(list(callbacks))
    found.on_train_begin()
    return found


class Backup(BackupAndRestore):
    def on_train_begin(self, logs=None):
        self.begun = getattr(self, "begun", 0) + 1


def test_the_callbacks_of_the_fit_are_found():
    first, ask = keras.callbacks.Callback(), Ask(lambda one: (beside(one), before(one), list_with(one)))
    found = begun(first, ask)
    assert ask.found == ([first, ask], [first], found)
    assert beside(ask) == [ask] and before(ask) == [] and list_with(ask) is None  # no fit is running


def test_readers_before_a_monitor_are_found(tmp_path):
    early, log = EarlyStopping("val_eer", mode="min"), CSVLogger(tmp_path / "log.csv")
    ask = Ask(lambda one: readers_before(one, ["val_eer"]))
    found = keras.callbacks.CallbackList([early, EarlyStopping("loss"), ask, log])
    ask.set_model(None)
    log.on_train_begin = lambda logs: None
    found.on_train_begin()
    assert ask.found == [early]


def test_backups_are_called_directly_after_the_monitor(tmp_path):
    one, other, last = (Backup(tmp_path / name) for name in "abc")
    between, after, ask = keras.callbacks.Callback(), keras.callbacks.Callback(), Ask(put_backups_behind)
    found = begun(one, between, other, ask, after, last)
    assert found.callbacks == [between, ask, one, other, after, last]
    assert one.begun == other.begun == last.begun == 1  # each was called once


def test_a_backup_before_swapped_weights_stays(tmp_path):
    one, other, ask = Backup(tmp_path / "a"), Backup(tmp_path / "b"), Ask(put_backups_behind)
    swap = keras.callbacks.SwapEMAWeights()
    swap.on_train_begin = lambda logs: None
    assert begun(one, swap, other, ask).callbacks == [one, swap, ask, other]


@pytest.mark.parametrize("has_files", [False, True])
def test_only_a_monitor_with_files_changes_the_order(tmp_path, has_files):
    class Monitor(VerificationMonitor):
        pass

    Monitor.has_files = has_files
    backup, monitor = Backup(tmp_path), Monitor(VALID)
    found = keras.callbacks.CallbackList([backup, monitor])
    monitor.set_model(keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]))
    found.on_train_begin()
    assert found.callbacks == ([monitor, backup] if has_files else [backup, monitor])
