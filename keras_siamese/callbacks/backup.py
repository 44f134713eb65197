"""`AtomicBackup`: a backup of the training that can be read whenever the process was killed.

Contract: a backup is written into a folder of its own, which then takes the place of the last one. Imports Keras only.

    model.fit(x, y, epochs=30, callbacks=[DivergenceMonitor(valid, log="run.jsonl"), AtomicBackup("backup")])
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Literal

import keras

from keras_siamese._types import StrPath


class AtomicBackup(keras.callbacks.BackupAndRestore):
    """`BackupAndRestore` that can resume whenever the process was killed, also while a backup was written.

    Keras writes the weights, and then the number of the epoch, into the files of the last backup. If the process is
    killed meanwhile, these cannot be read, or weights and epoch do not belong together. Here the folder of the last
    backup stays as it is until the next one is whole. Killed means the process, not the machine: files are not flushed
    to the disk.

    Keras backs up models that are built. On TensorFlow, a model that does not know its input shape is built only in the
    first step, so call it on a batch before `fit`. `SiameseWrapper` builds itself, except for data from a generator.

    Args:
        backup_dir: path of a local folder. While it is replaced, two folders with the endings ".new" and ".old" stand
            beside it.
        save_freq: "epoch", or the number of batches after which a backup is made, as in `BackupAndRestore`. Keras
            trains an epoch again from its first batch.
        delete_checkpoint: whether the backup is deleted when training ends.

    >>> import tempfile, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss="mse")
    >>> backup = AtomicBackup(tempfile.mkdtemp() + "/backup")
    >>> history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=2, callbacks=[backup], verbose=0)
    """

    def __init__(
        self, backup_dir: StrPath, save_freq: Literal["epoch"] | int = "epoch", delete_checkpoint: bool = True
    ) -> None:
        super().__init__(os.path.normpath(backup_dir), save_freq=save_freq, delete_checkpoint=delete_checkpoint)
        self._new, self._old = (f"{self.backup_dir}.{ending}" for ending in ("new", "old"))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if os.path.exists(self._old) and os.path.exists(self._new) and not os.path.exists(self.backup_dir):
            os.rename(self._new, self.backup_dir)  # killed between the two renames of `_save_model`
        self._delete(self._new, self._old)
        super().on_train_begin(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.delete_checkpoint and os.path.exists(self.backup_dir):
            os.rename(self.backup_dir, self._old)  # at once, so that no part of a backup is read
        self._delete(self._old)

    def _save_model(self):
        self._delete(self._new)
        with self._at(self._new):
            super()._save_model()
        if os.path.exists(self.backup_dir):
            os.rename(self.backup_dir, self._old)
        os.rename(self._new, self.backup_dir)
        self._delete(self._old)

    @contextlib.contextmanager
    def _at(self, folder):
        """Keras writes into `folder` within the block."""
        names = ("backup_dir", "_weights_path", "_training_metadata_path")
        kept = {name: getattr(self, name) for name in names}
        try:
            for name, path in kept.items():
                setattr(self, name, folder + path[len(kept["backup_dir"]) :])
            yield
        finally:
            for name, path in kept.items():
                setattr(self, name, path)

    @staticmethod
    def _delete(*folders):
        for folder in folders:
            if os.path.exists(folder):
                shutil.rmtree(folder)
