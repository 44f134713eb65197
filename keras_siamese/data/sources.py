"""Samples and their identities: what splits and sequences read from.

Contract: a *source* is an array `(n, …)`, or a dict (nested at will) of arrays that share their first axis, the
samples. Identity labels `(n,)` are integers or strings; inside the room they are *codes*, integers 0 … K-1 in the
sorted order of the K distinct labels. The rest of `data` imports this module; it imports NumPy alone.

    x = check_source("x", {"image": images, "height": heights})
    identities, codes = encode(check_labels("labels", labels, length=count_samples(x)))
    batch = take(x, rows)
"""

import numpy as np

_BLOCK = 1 << 22  # values looked at together, so that the check of a memory-mapped array needs no copy of it


def map_arrays(function, x):
    """Applies `function` to the array, or to each array of the dict; returns the same structure."""
    if isinstance(x, dict):
        return {key: map_arrays(function, value) for key, value in x.items()}
    return function(x)


def named_arrays(name, x):
    """Lists `(path, array)` for each array of the source, as in ``("x['image']", images)``."""
    if isinstance(x, dict):
        return [pair for key, value in x.items() for pair in named_arrays(f"{name}[{key!r}]", value)]
    return [(name, x)]


def count_samples(x):
    """The number of samples n of a checked source."""
    return len(named_arrays("x", x)[0][1])


def take(x, rows):
    """The samples at `rows` `(m,)`, copied out by one gather an array."""
    return map_arrays(lambda array: array[rows], x)


def check_source(name, x):
    """Returns the source with NumPy arrays for leaves: at least one sample, equal lengths, no NaN and no infinity."""
    x = map_arrays(np.asarray, x)
    arrays = named_arrays(name, x)
    if not arrays:
        raise ValueError(f"`{name}` must hold at least one array; got {x!r}")
    for path, array in arrays:
        if array.ndim == 0:
            raise ValueError(f"`{path}` must be an array with samples along its first axis; got {array!r}")
    if len({len(array) for _, array in arrays}) > 1:
        lengths = ", ".join(f"{path} {len(array)}" for path, array in arrays)
        raise ValueError(f"`{name}` must hold arrays of one length; got {lengths}")
    if len(arrays[0][1]) == 0:
        raise ValueError(f"`{name}` must hold at least one sample; got shape {arrays[0][1].shape}")
    for path, array in arrays:
        _check_finite_samples(path, array)
    return x


def _check_finite_samples(name, array):
    if not np.issubdtype(array.dtype, np.inexact):
        return
    rows = max(1, _BLOCK // max(1, array[0].size))
    bad = 0
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        bad += len(finite) - np.count_nonzero(finite.reshape(len(finite), -1).all(axis=1))
    if bad:
        raise ValueError(f"`{name}` must be finite; {bad} of its {len(array)} samples hold NaN or infinite values")


def encode(labels):
    """Returns the K distinct `labels`, sorted, `(K,)`, and for each sample the position of its label there, `(n,)`.

    >>> identities, codes = encode(np.array(["wren", "lark", "wren"]))
    >>> identities.tolist(), codes.tolist()
    (['lark', 'wren'], [1, 0, 1])
    """
    return np.unique(labels, return_inverse=True)
