"""Distances of many pairs of rows, computed by NumPy.

Contract: float32 embeddings and the rows of the pairs in, distances `(n,)` float32 out, or None for a distance that
NumPy does not compute here. They are those of `distances.Distance.rowwise`, but for the last digit. Each of a backend's
operations passes over all numbers of all pairs, so it takes five to twenty times as long as this, block by block; and
JAX compiles each operation for each shape. `scoring` uses this module.

    rows_apart(distances.get("cosine"), embeddings, embeddings, left, right)
"""

import numpy as np

from keras_siamese import distances
from keras_siamese.ops import NORM_FLOOR

NUMBERS = 2**18  # numbers in a side of the pairs that are compared at once, so that they stay in a processor's cache


def rows_apart(distance, embeddings, others, left, right):
    """Distances `(n,)` of the rows `left` `(n,)` of `embeddings` to the rows `right` `(n,)` of `others`, or None.

    Args:
        distance: a `Distance`: cosine, Euclidean, squared Euclidean or Manhattan; otherwise None is returned.
        embeddings, others: `(items, dim)` and `(m, dim)`; None is returned if they are not float32.

    >>> rows_apart(distances.get("euclidean"), *2 * [np.array([[0, 0], [3, 4]], "float32")], [0], [1]).tolist()
    [5.0]
    """
    compare = FORMS.get(type(distance))
    if compare is None or embeddings.dtype != np.float32 or others.dtype != np.float32:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # embeddings that are not finite have such distances
        return compare(embeddings, others, left, right)


def cosine(a, b, left, right):
    (a, is_long), (b, are_long) = directions(a), directions(b)
    return 0.5 * blockwise(squares, a, b, left, right) + (1 - (is_long[left] + are_long[right]) / 2)


FORMS = {
    distances.CosineDistance: cosine,
    distances.EuclideanDistance: lambda *given: np.sqrt(blockwise(squares, *given)),
    distances.SquaredEuclideanDistance: lambda *given: blockwise(squares, *given),
    distances.ManhattanDistance: lambda *given: blockwise(magnitudes, *given),
}


def blockwise(reduced, a, b, left, right):
    """`reduced(a_i − b_j)` of the pairs of rows i in `left`, j in `right`: `(n,)`."""
    found, at_once = np.empty(len(left), np.float32), max(1, NUMBERS // max(1, a.shape[1]))
    for start in range(0, len(left), at_once):
        block = slice(start, start + at_once)
        gap = a[left[block]]
        gap -= b[right[block]]
        found[block] = reduced(gap)
    return found


def squares(gap):
    """Σx² of each row `(n, dim)`: `(n,)`."""
    return np.einsum("nd,nd->n", gap, gap)


def magnitudes(gap):
    """Σ|x| of each row `(n, dim)`, which is overwritten: `(n,)`."""
    return np.abs(gap, out=gap).sum(axis=1)


def directions(embeddings):
    """As `ops.unit`: the rows `(n, dim)` over their norms, and 1 for each row that is longer than 1e-6, else 0 `(n,)`.

    A shorter row becomes 0, and one whose square overflows becomes NaN.
    """
    square = squares(embeddings)
    is_long = ~(square <= NORM_FLOOR**2)
    inverse = np.where(np.isinf(square), np.float32(np.nan), is_long / np.sqrt(np.where(is_long, square, 1)))
    return embeddings * inverse[:, None].astype(np.float32), is_long.astype(np.float32)
