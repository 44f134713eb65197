"""Input checks of verification: pair labels, scores and identities.

Contract: the caller's arguments in; arrays of equal length out, or a `ValueError`/`TypeError` that names the argument
and counts the wrong values. Only this room imports it.

    same, scores = check_pairs(same, scores)                      # (n,) booleans, (n,) floats, both classes present
    left, right, count = check_identities(left, right, len(same)) # (n,) codes below count; None without identities
"""

import keras
import numpy as np

from keras_siamese._checks import check_column, check_finite, check_labels, check_reals, check_same


def check_pairs(same, scores):
    """Returns `same` as booleans `(n,)`, True = genuine, and `scores` as finite floats `(n,)`, larger = more similar.

    float16, float32 and float64 keep their dtype, so that a threshold just above the maximum is just above it in the
    dtype in which scores are compared. bfloat16 becomes float32, everything else float64.
    """
    scores = check_scores(scores)
    same = check_same("same", same, length=len(scores))
    check_finite("scores", scores)
    genuines = int(np.count_nonzero(same))
    if genuines in (0, len(same)):
        found = f"{genuines} genuine and {len(same) - genuines} impostor pairs"
        raise ValueError(f"`same` must hold pairs of both classes; got {found}")
    return same, scores


def balanced_weights(same):
    """Weights `(n,)` that add up to ½ in each class."""
    return np.where(same, 0.5 / np.count_nonzero(same), 0.5 / np.count_nonzero(~same))


def check_scores(scores):
    """Returns `scores` as floats `(n,)`, of a dtype as in `check_pairs`; whether they are finite is not checked."""
    scores = check_reals("scores", check_column("scores", scores, "score", "pair"))
    if scores.dtype.name == "bfloat16":
        scores = scores.astype(np.float32)
    if scores.dtype not in (np.float16, np.float32, np.float64):
        scores = scores.astype(np.float64)
    return scores


def check_identities(left, right, pairs):
    """Returns the identities of both sides as codes `(n,)`, `(n,)` and their number; None if neither side is given."""
    if left is None and right is None:
        return None
    if left is None or right is None:
        missing, given = ("left", "right") if left is None else ("right", "left")
        why = "because intervals need the identities of both sides"
        raise ValueError(f"`{missing}` must be given if `{given}` is, {why}; got None")
    left, right = check_labels("left", left, length=pairs), check_labels("right", right, length=pairs)
    return encode_identities("left", left, "right", right)


def encode_identities(name, labels, other_name, others):
    """Returns checked labels `(n,)` and `(m,)` as codes of the same identities, and the number of identities."""
    if (labels.dtype.kind in "US") != (others.dtype.kind in "US"):
        found = f"dtypes {labels.dtype} and {others.dtype}"
        raise ValueError(f"`{name}` and `{other_name}` must both be strings or both be integers; got {found}")
    both = np.concatenate((labels, others))
    if both.dtype.kind in "iu" and both.size and both.min() >= 0 and both.max() < 4 * both.size:
        names, codes = _ranks_of_small(both)
    else:
        names, codes = np.unique(both, return_inverse=True)
    return codes[: len(labels)], codes[len(labels) :], len(names)


def _ranks_of_small(numbers):
    """As `numpy.unique` with its inverse, without a sort, for whole numbers `(n,)` from 0 to a few n."""
    present = np.bincount(numbers) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[numbers]


def progress_bar(total, unit, shown):
    """A function that moves Keras's progress bar on by a number of steps, or does nothing if no bar is `shown`."""
    return keras.utils.Progbar(total, unit_name=unit).add if shown else lambda steps: None
