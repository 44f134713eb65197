"""Facts of the run itself: the flag, the loss curve and the size of the steps."""

import numpy as np

from keras_siamese.diagnosis import limits


def of_run(run):
    """The flag, the loss curve and the sizes of steps."""
    found = {"flagged": len(run.flags), "recovered": float(run.recovered)}
    found["verifies_badly"] = float(run.verifies_badly)
    found |= run.probed
    if run.epoch is None:
        return found
    losses = np.array(run.history["loss"], float)
    finite = losses[np.isfinite(losses)]
    found["epochs"] = len(losses)
    if len(finite) > 1:
        found["loss_first"], found["loss_last"] = finite[0], finite[-1]
        steps, reach = np.diff(finite), finite.max() - finite.min()
        found["loss_fallen"] = (finite[0] - finite.min()) / max(abs(finite[0]), limits.TINY_LOSS)
        found["loss_rises"] = steps[steps > 0].sum() / reach if reach > 0 else 0.0
    eers = np.array(run.history["eer"], float)
    if np.isfinite(eers).any():
        found["best_eer"] = np.nanmin(eers)
        found["best_eer_epoch"] = int(np.nanargmin(eers)) + 1
    sizes = np.array(run.history.get("update_size", []), float)
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes):
        found["update_size_first"], found["update_size_largest"] = sizes[0], sizes.max()
        found["update_size_last"] = np.median(sizes[-max(1, len(sizes) // 3) :])
    return found
