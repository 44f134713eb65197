"""What comes into this room: pair labels, scores and identities, checked once.

Contract: whatever callers pass goes in; arrays of one length come out, or a `ValueError`/`TypeError` that names the
argument and counts what is wrong with it. Only this room imports it; it imports `_checks`.

    same, scores = check_pairs(same, scores)                      # (n,) booleans, (n,) floats, both classes present
    left, right, count = check_identities(left, right, len(same)) # (n,) codes below count; None without identities
"""

import numpy as np

from keras_siamese._checks import check_finite, check_labels, check_same


def check_pairs(same, scores):
    """Returns `same` as booleans `(n,)`, True = genuine, and `scores` as finite floats `(n,)`, larger = more similar.

    float16, float32 and float64 keep their dtype, so that a threshold just above the maximum is one in the dtype that
    the scores are compared in; everything else becomes float64 (bfloat16: float32).
    """
    scores = np.asarray(scores)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim != 1:
        raise ValueError(f"`scores` must have shape (n,), one score a pair; got shape {scores.shape}")
    if scores.dtype.name == "bfloat16":
        scores = scores.astype(np.float32)
    if scores.dtype.kind not in "biuf":
        raise TypeError(f"`scores` must be real numbers; got dtype {scores.dtype}")
    if scores.dtype not in (np.float16, np.float32, np.float64):
        scores = scores.astype(np.float64)
    same = check_same("same", same, length=len(scores))
    check_finite("scores", scores)
    genuines = int(np.count_nonzero(same))
    if genuines in (0, len(same)):
        raise ValueError(
            f"`same` must hold pairs of both classes; got {genuines} genuine and {len(same) - genuines} impostor pairs"
        )
    return same, scores


def check_identities(left, right, pairs):
    """Returns both sides' identities as codes `(n,)`, `(n,)` and the number of identities; None without either side."""
    if left is None and right is None:
        return None
    if left is None or right is None:
        missing, given = ("left", "right") if left is None else ("right", "left")
        raise ValueError(
            f"`{missing}` must be given with `{given}`: an interval needs the identities of both sides; got None"
        )
    left, right = check_labels("left", left, length=pairs), check_labels("right", right, length=pairs)
    if (left.dtype.kind in "US") != (right.dtype.kind in "US"):
        raise ValueError(f"`left` and `right` must name identities alike; got dtypes {left.dtype} and {right.dtype}")
    names, codes = np.unique(np.concatenate((left, right)), return_inverse=True)
    return codes[:pairs], codes[pairs:], len(names)
