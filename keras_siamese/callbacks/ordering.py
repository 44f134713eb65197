"""The other callbacks of a fit: which of them stand before a monitor, and in which order they are called.

Contract: Keras tells no callback about the others; they are found in the call stack, while Keras calls the monitor.
`monitors` calls these functions when training begins.

    put_backups_behind(monitor)
    readers_before(monitor, ["val_eer", "val_auc"])
"""

import keras

from keras_siamese._frames import callers


def list_with(monitor):
    """The `CallbackList` of this fit, with `monitor` in it; None outside of a fit."""
    lists = [one for one in callers() if isinstance(one, keras.callbacks.CallbackList)]
    return next((one for one in lists if monitor in one.callbacks), None)


def beside(monitor):
    """The callbacks of this fit, `monitor` among them."""
    found = list_with(monitor)
    return [monitor] if found is None else found.callbacks


def before(monitor):
    """The callbacks before `monitor`."""
    callbacks = beside(monitor)
    return callbacks[: callbacks.index(monitor)]


def readers_before(monitor, keys):
    """The callbacks before `monitor` that read `keys` from `logs`."""
    loggers = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)
    return [one for one in before(monitor) if getattr(one, "monitor", None) in keys or isinstance(one, loggers)]


def put_backups_behind(monitor):
    """Let Keras call each `BackupAndRestore` that stands before `monitor` directly after it, from the next event on.

    A backup counts an epoch as done. If it is made before the monitor writes the epoch into its files, and the process
    is killed in between, the epoch is in no file. A backup stays where it is if `SwapEMAWeights` stands between the
    two, because it would save other weights behind it.
    """
    backups = []
    for callback in before(monitor):
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            backups.append(callback)
        elif isinstance(callback, keras.callbacks.SwapEMAWeights):
            backups = []
    if backups:
        found = list_with(monitor)
        others = [one for one in found.callbacks if one not in backups]
        place = others.index(monitor) + 1
        found.callbacks = others[:place] + backups + others[place:]  # a new list: Keras is iterating over the old one
