"""Whether a smaller or a larger value of a monitor's key is better, for callbacks that are not told.

Contract: Keras's EarlyStopping, ModelCheckpoint and ReduceLROnPlateau without `mode` look for the key among the
metrics of the model, where a monitor's keys are not, or guess from its name. `monitors` calls this before training.

    set_directions(callbacks, ["val_eer", "val_auc"])
"""

import numpy as np


def set_directions(callbacks, keys):
    """Set the `mode` of callbacks that read one of `keys` and were not given one.

    Raises:
        ValueError: if such a callback reads `val_threshold`, of which neither direction is better.
    """
    for callback in callbacks:
        key = getattr(callback, "monitor", None)
        if not isinstance(key, str) or key not in keys:
            continue
        if getattr(callback, "mode", None) == "auto":
            callback.mode = direction(key, callback)
        elif not hasattr(callback, "mode") and getattr(callback, "monitor_op", None) in (np.less, np.greater):
            correct(callback, key)


def direction(key, callback):
    """ "min" or "max", which is better for `key`."""
    if key == "val_threshold":
        hint = 'another key, or mode="min" or mode="max"'
        raise ValueError(f"{type(callback).__name__} monitors {key!r}, which has no better direction; give it {hint}")
    return "min" if key == "val_eer" else "max"


def correct(callback, key):
    """Keras 3.7's ModelCheckpoint decides in its constructor, and takes every key without "acc" for a loss."""
    if key != "val_threshold" and direction(key, callback) == "max" and callback.best == np.inf:
        callback.monitor_op, callback.best = np.greater, -np.inf
