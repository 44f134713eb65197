"""Nearest neighbours, block by block and with exact ties: which rows of a gallery are nearest to each query.

Contract: finite `queries (n, dim)` and `gallery (m, dim)` in, without negative zeros; the rows of the gallery, ordered
by (distance, row number), out. The order for `cosine` and `euclidean` is that of distances computed row by row in
float64: float32 products give bounds of each distance, and only neighbours whose bounds overlap are computed again.
Other distances are taken from their `pairwise`. Identical rows always tie. `verification`, `data`, `diagnosis` and
`identification` use this module.

    for queries_of_block, rows in nearest_blocks(queries, gallery, depth=5, distance="cosine"):
        nearest[queries_of_block] = rows                                                  # (block, 5), nearest first
    nearest = nearest_in_parts(queries, parts, depth=5)                  # of a gallery that is read a part at a time
"""

import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_finite
from keras_siamese.ops import NORM_FLOOR

BLOCK = 2**24  # distances computed at a time: 64 MB of float32
CANDIDATES = 2**21  # possible neighbours sorted at a time, unless one query has more
VALUES = 2**22  # float64 numbers held at a time where distances are computed row by row


def nearest_blocks(queries, gallery, depth, distance="euclidean", *, own=False, chosen=None):
    """Yields `(block, rows)`: some queries `(block,)`, and the gallery rows `(block, depth)` nearest to each of them.

    Args:
        queries: `(n, dim)`, finite.
        gallery: `(m, dim)`, finite.
        depth: how many neighbours each query gets; at most m, or m − 1 with `own`.
        distance: "cosine", "euclidean", another name or a `Distance`.
        own: whether the queries are the gallery. No query is then its own neighbour; a copy of it can be.
        chosen: the queries to search for, integers `(chosen,)`; by default all n.

    >>> gallery = np.array([[0.0], [1.0], [3.0], [1.0]])
    >>> [rows.tolist() for _, rows in nearest_blocks(gallery, gallery, 2, own=True)]
    [[[1, 3], [3, 0], [1, 3], [1, 0]]]
    """
    columns = Columns(gallery)
    scores = scores_of(distance, queries, columns)
    chosen = np.arange(len(queries)) if chosen is None else chosen
    for block in np.split(chosen, _cuts(len(chosen), columns.count, depth)):
        nearest, alike, ranks = np.empty((len(block), depth), np.int64), scores.alike[block], np.arange(depth)
        nearest[alike] = ranks + (own & (ranks >= block[alike, None]))
        if not alike.all():
            nearest[~alike] = _nearest_rows(scores, columns, block[~alike], depth, own)[0]
        yield block, nearest


def nearest_in_parts(queries, parts, depth, distance="euclidean", *, own=None):
    """The gallery rows `(n, depth)` nearest to each query, as `nearest_blocks` of the whole gallery finds them.

    Of each part, the nearest rows are found and merged with those of the parts before it, by the same float64
    distances. For other distances than cosine and Euclidean, the values are those of `pairwise` on one part.

    Args:
        queries: `(n, dim)`, finite.
        parts: the gallery, arrays `(some, dim)` one after the other, with m rows in all.
        depth: how many neighbours each query gets; at most m, or m − 1 with `own`.
        distance: as in `nearest_blocks`.
        own: `(n,)` the row of each query in the gallery, which is not its neighbour; None if the queries are no part.

    >>> gallery = np.array([[0.0], [1.0], [3.0], [1.0]])
    >>> nearest_in_parts(gallery, [gallery[:1], gallery[1:]], 2, own=np.arange(4)).tolist()
    [[1, 3], [3, 0], [1, 3], [1, 0]]
    """
    if not len(queries):
        return np.empty((0, depth), np.int64)
    reach, start, exponent = depth + (own is not None), 0, 0
    rows, values = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
    for part in parts:
        columns = Columns(part)
        scores = scores_of(distance, queries, columns)
        found = [
            _rows_and_values(scores, columns, block, min(reach, len(part)))
            for block in np.split(np.arange(len(queries)), _cuts(len(queries), columns.count, reach))
        ]
        more, values_of_more = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        larger = max(exponent, scores.exponent) if start else scores.exponent  # values of both in one unit
        values, values_of_more = (
            np.ldexp(array, 2 * (unit - larger))
            for array, unit in ((values, exponent), (values_of_more, scores.exponent))
        )
        rows, values = np.hstack([rows, start + more]), np.hstack([values, values_of_more])
        order = np.argsort(values, axis=1, kind="stable")[:, :reach]  # of equal ones, the lower row comes first
        rows, values = np.take_along_axis(rows, order, axis=1), np.take_along_axis(values, order, axis=1)
        start, exponent = start + len(part), larger
    if own is not None:  # goes to the end, if it is there
        order = np.argsort(rows == np.asarray(own)[:, None], axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, axis=1)
    return rows[:, :depth]


def _cuts(queries, columns, depth):
    """Where queries are divided, so that neither distances nor neighbours exceed a block."""
    # Times eight, because ranks are held in 64 bits and in several arrays.
    at_once = max(1, BLOCK // max(columns, 8 * depth))
    return np.arange(at_once, queries, at_once)


def _rows_and_values(scores, columns, block, depth):
    """The rows `(block, depth)` of a part, nearest first, and values that order the rows of all parts."""
    rows, values = np.tile(np.arange(depth), (len(block), 1)), np.zeros((len(block), depth))
    clear = ~scores.alike[block]
    if clear.any():
        rows[clear], low = _nearest_rows(scores, columns, block[clear], depth, own=False)
        values[clear] = scores.values(block[clear], columns.of_row[rows[clear]], low)
    return rows, values


class Columns:
    """The distinct embeddings of the gallery: identical rows share one column, and so have the same distances.

    Attributes:
        values: `(count, dim)`.
        rows: `(m,)` row numbers of the gallery, column by column, rising within each column.
        starts, sizes: `(count,)` where the rows of a column start in `rows`, and how many they are.
        of_row: `(m,)` the column of each row.
    """

    def __init__(self, gallery):
        gallery = np.ascontiguousarray(gallery)
        whole_rows = gallery.view(np.dtype((np.void, gallery.itemsize * gallery.shape[1])))[:, 0]
        _, first, inverse = np.unique(whole_rows, return_index=True, return_inverse=True)
        self.count = len(first)
        all_differ = self.count == len(gallery)
        self.values, inverse = (gallery, np.arange(self.count)) if all_differ else (gallery[first], inverse)
        self.of_row = inverse.ravel()
        self.rows = np.argsort(self.of_row, kind="stable")
        self.sizes = np.bincount(self.of_row)
        self.starts = np.cumsum(self.sizes) - self.sizes


def _nearest_rows(scores, columns, block, depth, own):
    """The gallery rows `(rows, depth)` of the nearest of each query of `block`, and the lower bounds of all columns."""
    # With `own`, a query is one of its own neighbours until it is removed.
    reach = depth + own
    low = scores.lower_bounds(block)
    nth = min(reach, columns.count)
    limit = scores.farthest(block, low, _at_least_nth(low, nth))
    counts = np.count_nonzero(low <= limit[:, None], axis=1)
    nearest = np.empty((len(block), depth), np.int64)
    for part in _parts(counts, CANDIDATES // min(reach, int(columns.sizes.max()))):
        row, column = at_most(low[part], limit[part])
        rows = _rank(scores, columns, block[part], low[part], row, column, reach, own)
        nearest[part] = first_of_each(*rows, len(counts[part]), depth)
    return nearest, low


def _at_least_nth(values, nth):
    """For each row the nth smallest value or a slightly larger one, `(rows,)`."""
    # At least n values are at or below the nth smallest of the minima of disjoint groups, which is much faster to find.
    groups = 16 * nth
    width = values.shape[1] // groups
    if width > 1:
        values = values[:, : groups * width].reshape(len(values), width, groups).min(axis=1)
    return np.partition(values, nth - 1, axis=1)[:, nth - 1]


def at_most(values, limits):
    """Rows and columns of the values that are at most their row's limit, sorted by row, then column."""
    # Several times faster than `np.nonzero` of a matrix.
    return np.divmod(np.flatnonzero(values <= limits[:, None]), values.shape[1])


def _rank(scores, columns, block, low, row, column, reach, own):
    """Sorts candidates `(row, column)` of a block by (distance, gallery row); returns rows and gallery rows.

    The bounds of the distances are enough to order most candidates. Candidates whose bounds overlap, directly or
    through others, form a cluster; only within clusters the distances themselves are computed.
    """
    low = low[row, column].astype(np.float64)
    high = low + scores.slack(block[row], column)
    if scores.exact_bounds:
        order = np.lexsort((low, row))
        row, column, low = row[order], column[order], low[order]
        apart = (row[1:] != row[:-1]) | (low[1:] != low[:-1])
    else:
        # The values of each row are shifted by more than their range, so that one sort and one accumulation serve all
        # rows. Rounding can only enlarge the clusters, which costs some time.
        shift = row * (1 + high.max() - low.min())
        low, high = low + shift, high + shift
        order = np.argsort(low)
        row, column, low, high = row[order], column[order], low[order], high[order]
        apart = low[1:] > np.maximum.accumulate(high)[:-1]
    cluster = np.concatenate(([0], np.cumsum(apart)))
    value = np.zeros(len(row))
    if not scores.exact_bounds:
        unclear = _shared(cluster)
        for start in range(0, len(unclear), scores.at_once):
            some = unclear[start : start + scores.at_once]
            value[some] = scores.distances(block[row[some]], column[some])
    # Of identical embeddings, the first `reach` rows are enough.
    sizes = np.minimum(columns.sizes[column], reach)
    entry = np.repeat(np.arange(len(column)), sizes)
    offset = np.arange(len(entry)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, gallery_row = row[entry], columns.rows[columns.starts[column[entry]] + offset]
    tied = _shared(cluster[entry])
    order = np.lexsort((gallery_row[tied], value[entry[tied]], cluster[entry[tied]]))
    gallery_row[tied] = gallery_row[tied[order]]
    if own:
        other = gallery_row != block[row]
        row, gallery_row = row[other], gallery_row[other]
    return row, gallery_row


def _shared(cluster):
    """Positions of the entries that share their cluster with others."""
    return np.flatnonzero(np.bincount(cluster)[cluster] > 1)


def first_of_each(row, values, rows, depth):
    """The first `depth` values of each row, `(rows, depth)`; `values` are sorted by row, with at least `depth` each."""
    return values[np.searchsorted(row, np.arange(rows))[:, None] + np.arange(depth)]


def _parts(counts, limit):
    """Slices of consecutive rows, in each of which the counts after the first row add up to at most `limit`."""
    ends = np.flatnonzero(np.diff(np.cumsum(counts) // max(limit, 1), append=-1)) + 1
    return map(slice, (0, *ends[:-1]), ends)


def scores_of(distance, queries, columns):
    """The object that ranks the columns: `_Squares` for the cosine and Euclidean distances, `_Matrix` for others."""
    distance = distances.get(distance)
    if type(distance) not in (distances.CosineDistance, distances.EuclideanDistance):
        return _Matrix(distance, queries, columns.values)
    return _Squares(queries, columns.values, cosine=type(distance) is distances.CosineDistance)


class _Squares:
    """Bounds of ‖u − v‖² by float32 products, for embeddings or (cosine: ‖u − v‖² = 2(1 − cos)) for their directions.

    The bounds are of ‖v‖² − 2u·v: the term ‖u‖² is the same for all distances of a query, so it is left out. The
    rounding error is at most (dim + 16)·2⁻²⁴·(‖u‖² + ‖v‖²): 2·dim·2⁻²⁴·‖u‖‖v‖ in the product, the rest in the
    conversions and the sum. All vectors are centred at the mean of the columns, so that the error is relative to the
    spread of the embeddings, not to their offset.
    """

    exact_bounds = False

    def __init__(self, queries, columns, *, cosine):
        exponent = None if cosine else _exponent(queries, columns)
        self._queries, self._columns = (
            _directions(points) if cosine else np.ldexp(points.astype(np.float64), -exponent)
            for points in (queries, columns)
        )
        self.exponent = exponent or 0  # distances² are in units of 4 to this power
        centre = self._columns.mean(axis=0)
        exponent = _exponent(self._queries - centre, self._columns - centre)
        self._rough_queries = np.ldexp(self._queries - centre, -exponent).astype(np.float32)
        self._rough_columns = np.ldexp(self._columns - centre, -exponent).astype(np.float32)
        # The cosine distance to a vector without direction is 1, which corresponds to ‖u − v‖² = 2; ‖u − 0‖² is only 1.
        self._penalties = np.where(self._columns.any(axis=1), 0.0, 1.0) if cosine else np.zeros(len(columns))
        # A query without direction has distance 1 to all columns.
        self.alike = ~self._queries.any(axis=1) if cosine else np.zeros(len(queries), bool)
        squares = np.square(self._rough_columns, dtype=np.float64).sum(axis=1)
        squares += np.ldexp(self._penalties, -2 * exponent)
        dim = queries.shape[1]
        # `least` covers what underflows in float32.
        unit, least = (dim + 16) * 2.0**-24, dim * 2.0**-120
        self._column_errors = unit * squares + least
        self._query_errors = unit * np.square(self._rough_queries, dtype=np.float64).sum(axis=1)
        self._offsets = (squares - self._column_errors).astype(np.float32)
        self.at_once = max(1, VALUES // dim)

    def lower_bounds(self, block):
        """A lower bound of each square minus a constant of its row, `(rows, columns)` float32."""
        low = np.matmul(-2 * self._rough_queries[block], self._rough_columns.T)
        low += self._offsets
        return low

    def slack(self, query, column):
        """The difference between the upper and the lower bound."""
        return 2 * (self._query_errors[query] + self._column_errors[column])

    def farthest(self, block, low, limit):
        """The largest upper bound among columns whose lower bound is at most `limit (rows,)`; float32, rounded up."""
        row, column = at_most(low, limit)
        high = low[row, column] + self.slack(block[row], column)
        largest = np.maximum.reduceat(high, np.searchsorted(row, np.arange(len(block))))
        return np.nextafter(largest.astype(np.float32), np.float32(np.inf))

    def distances(self, query, column):
        """The squares, computed row by row in float64, so that they do not depend on the position in a block."""
        return np.square(self._queries[query] - self._columns[column]).sum(axis=1) + self._penalties[column]

    def values(self, block, column, low):
        """The squares of the `column`s `(rows, depth)` of each query, as `distances` gives them."""
        query, column, values = np.repeat(block, column.shape[1]), column.ravel(), np.empty(column.size)
        for start in range(0, len(values), self.at_once):
            some = slice(start, start + self.at_once)
            values[some] = self.distances(query[some], column[some])
        return values.reshape(len(block), -1)


class _Matrix:
    """Distances computed by a `Distance`, in tiles whose differences `(rows, columns, dim)` fit into a block."""

    exact_bounds, exponent = True, 0

    def __init__(self, distance, queries, columns):
        self._distance, self._queries, self._columns = distance, queries, columns
        self.alike = np.zeros(len(queries), bool)

    def lower_bounds(self, block):
        step = max(1, BLOCK // (len(block) * self._columns.shape[1]))
        tiles = [
            ops.convert_to_numpy(self._distance.pairwise(self._queries[block], self._columns[start : start + step]))
            for start in range(0, len(self._columns), step)
        ]
        return check_finite("distance", np.concatenate(tiles, axis=1))

    def slack(self, query, column):
        return 0.0

    def farthest(self, block, low, limit):
        return limit

    def values(self, block, column, low):
        return np.take_along_axis(low, column, axis=1)


def _directions(embeddings):
    """x / ‖x‖ in float64, `(n, dim)`; 0 where ‖x‖ is at most 1e-6."""
    exponents = np.frexp(np.abs(embeddings).max(axis=1))[1]
    # Scaling by powers of two does not round, and prevents overflow and underflow of the squares.
    scaled = np.ldexp(embeddings.astype(np.float64), -exponents[:, None])
    norms = np.sqrt(np.square(scaled).sum(axis=1))
    with np.errstate(over="ignore"):
        short = np.ldexp(norms, exponents) <= NORM_FLOOR
    return np.where(short[:, None], 0.0, scaled / np.where(short, 1.0, norms)[:, None])


def _exponent(*arrays):
    """The integer e with 2^(e−1) ≤ max|x| < 2^e over all arrays."""
    return int(np.frexp(max(np.abs(array).max() for array in arrays))[1])
