"""Nearest neighbours, block by block and to the last tie: which rows of a gallery are nearest to each query.

Contract: checked finite `queries (n, dim)` and `gallery (m, dim)` in, without negative zeros; the gallery's rows by
(distance, row number) out. `cosine` and `euclidean` are compared as float64 computes them row by row: float32 products
bound each distance, and only neighbours whose bounds overlap are taken again. Other distances are as their `pairwise`
gives them. Identical rows always tie. Only `retrieval` imports it; it imports `_checks`, `ops` and `distances`.

    columns = Columns(gallery)
    scores = scores_of("cosine", queries, columns)
    rows = nearest_rows(scores, columns, np.arange(len(queries)), depth=5, own=False)         # (n, 5)
"""

import numpy as np

from keras_siamese._checks import check_finite
from keras_siamese.ops import NORM_FLOOR

BLOCK = 2**24  # distances at once: 64 MB of float32
CANDIDATES = 2**21  # possible neighbours sorted at once, unless one query has more
VALUES = 2**22  # float64 numbers at once where distances are taken row by row


class Columns:
    """The distinct embeddings of the gallery: rows that are identical share a column, and so their distances.

    Attributes:
        values: `(count, dim)`.
        rows: `(m,)` rows of the gallery, column by column, rising within each.
        starts, sizes: `(count,)` where a column's rows begin and how many they are.
    """

    def __init__(self, gallery):
        gallery = np.ascontiguousarray(gallery)
        whole_rows = gallery.view(np.dtype((np.void, gallery.itemsize * gallery.shape[1])))[:, 0]
        _, first, inverse = np.unique(whole_rows, return_index=True, return_inverse=True)
        self.count = len(first)
        self.values = gallery if self.count == len(gallery) else gallery[first]
        if self.count == len(gallery):
            inverse = np.arange(self.count)
        self.rows = np.argsort(inverse, kind="stable")
        self.sizes = np.bincount(inverse)
        self.starts = np.cumsum(self.sizes) - self.sizes


def nearest_rows(scores, columns, block, depth, own):
    """The gallery rows of the `depth` nearest of each query of `block`, `(rows, depth)`, nearest first."""
    nearest, alike, ranks = np.empty((len(block), depth), np.int64), scores.alike[block], np.arange(depth)
    nearest[alike] = ranks + (own & (ranks >= block[alike, None]))
    if not alike.all():
        nearest[~alike] = _nearest_by_distance(scores, columns, block[~alike], depth, own)
    return nearest


def _nearest_by_distance(scores, columns, block, depth, own):
    # A query may be among its own neighbours, until it is taken out.
    reach = depth + own
    low = scores.lower_bounds(block)
    nth = min(reach, columns.count)
    limit = scores.farthest(block, low, _at_least_nth(low, nth))
    counts = np.count_nonzero(low <= limit[:, None], axis=1)
    nearest = np.empty((len(block), depth), np.int64)
    for part in _parts(counts, CANDIDATES // min(reach, int(columns.sizes.max()))):
        row, column = _within(low[part], limit[part])
        rows = _rank(scores, columns, block[part], low[part], row, column, reach, own)
        nearest[part] = _heads(*rows, len(counts[part]), depth)
    return nearest


def _at_least_nth(values, nth):
    """For each row the nth smallest value or one not far above it, `(rows,)`."""
    # The nth smallest of the minima of disjoint groups has nth values at or below it, and takes a fraction of the time.
    groups = 16 * nth
    width = values.shape[1] // groups
    if width > 1:
        values = values[:, : groups * width].reshape(len(values), width, groups).min(axis=1)
    return np.partition(values, nth - 1, axis=1)[:, nth - 1]


def _within(values, limits):
    """Rows and columns, in this order, of the values that are at most their row's limit."""
    # On a flat mask this is several times faster than `np.nonzero` of a matrix.
    return np.divmod(np.flatnonzero(values <= limits[:, None]), values.shape[1])


def _rank(scores, columns, block, low, row, column, reach, own):
    """Sorts candidates `(row, column)` of a block by (distance, gallery row): the rows and the gallery rows.

    Most are told apart by the bounds of their distances. Where the bounds of several overlap, in a chain, they are
    taken as one cluster, and only there the distances themselves are needed.
    """
    low = low[row, column].astype(np.float64)
    high = low + scores.slack(block[row], column)
    if scores.exact_bounds:
        order = np.lexsort((low, row))
        row, column, low = row[order], column[order], low[order]
        apart = (row[1:] != row[:-1]) | (low[1:] != low[:-1])
    else:
        # Shifted by more than their range for each row, so that one sort and one accumulation serve all rows. What
        # rounding makes of it are larger clusters, which cost time only.
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
    # Of identical embeddings the first `reach` rows are enough.
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
    """Positions of the entries that are not alone in their cluster."""
    return np.flatnonzero(np.bincount(cluster)[cluster] > 1)


def _heads(row, values, rows, depth):
    """The first `depth` values of each row, `(rows, depth)`, from values sorted by row with at least so many each."""
    starts = np.searchsorted(row, np.arange(rows))
    return values[starts[:, None] + np.arange(depth)]


def _parts(counts, limit):
    """Slices of consecutive rows whose counts sum to at most `limit`; a row with more is alone."""
    start, total = 0, 0
    for row, count in enumerate(counts.tolist()):
        if row > start and total + count > limit:
            yield slice(start, row)
            start, total = row, 0
        total += count
    yield slice(start, len(counts))


def scores_of(distance, queries, columns):
    """What ranks the columns: `_Squares` for the two distances that are squares of differences, else `_Matrix`."""
    if not isinstance(distance, str) or distance not in ("cosine", "euclidean"):
        from keras_siamese import distances

        distance = distances.get(distance)
        squares = {distances.CosineDistance: "cosine", distances.EuclideanDistance: "euclidean"}
        if type(distance) not in squares:
            return _Matrix(distance, queries, columns.values)
        distance = squares[type(distance)]
    return _Squares(queries, columns.values, cosine=distance == "cosine")


class _Squares:
    """‖u − v‖² of embeddings, or of their directions, half of which is 1 − cos(u, v): bounds by float32 products.

    ‖v‖² − 2u·v, which leaves out the ‖u‖² that a query's distances share, has a rounding error of at most
    (dim + 16)·2⁻²⁴·(‖u‖² + ‖v‖²): 2·dim·2⁻²⁴·‖u‖‖v‖ in the product, the rest in the conversions and the sum. Taken
    about the mean of the columns, so that it is relative to the spread of the embeddings, not to their offset.
    """

    exact_bounds = False

    def __init__(self, queries, columns, *, cosine):
        points = _directions if cosine else _scaled_by(_exponent(queries, columns))
        self._queries, self._columns = points(queries), points(columns)
        centre = self._columns.mean(axis=0)
        exponent = _exponent(self._queries - centre, self._columns - centre)
        self._rough_queries = np.ldexp(self._queries - centre, -exponent).astype(np.float32)
        self._rough_columns = np.ldexp(self._columns - centre, -exponent).astype(np.float32)
        # 1 − cos is 1 to a vector without direction, as if the square were 2, where ‖u − 0‖² is 1.
        self._penalties = np.where(self._columns.any(axis=1), 0.0, 1.0) if cosine else np.zeros(len(columns))
        # And so is 1 to all from a query without direction.
        self.alike = ~self._queries.any(axis=1) if cosine else np.zeros(len(queries), bool)
        squares = np.square(self._rough_columns, dtype=np.float64).sum(axis=1) + np.ldexp(
            self._penalties, -2 * exponent
        )
        dim = queries.shape[1]
        # The least float32 stands for what underflows.
        unit, least = (dim + 16) * 2.0**-24, dim * 2.0**-120
        self._column_errors = unit * squares + least
        self._query_errors = unit * np.square(self._rough_queries, dtype=np.float64).sum(axis=1)
        self._offsets = (squares - self._column_errors).astype(np.float32)
        self.at_once = max(1, VALUES // dim)

    def lower_bounds(self, block):
        """A number below each square, `(rows, columns)` float32, but for a constant of each row."""
        low = np.matmul(-2 * self._rough_queries[block], self._rough_columns.T)
        low += self._offsets
        return low

    def slack(self, query, column):
        """What to add to a lower bound for the upper one."""
        return 2 * (self._query_errors[query] + self._column_errors[column])

    def farthest(self, block, low, limit):
        """The largest upper bound of the columns whose lower one is within `limit (rows,)`; float32, rounded up."""
        row, column = _within(low, limit)
        high = low[row, column] + self.slack(block[row], column)
        largest = np.maximum.reduceat(high, np.searchsorted(row, np.arange(len(block))))
        return np.nextafter(largest.astype(np.float32), np.float32(np.inf))

    def distances(self, query, column):
        """The squares row by row, in float64: position in a block cannot change them."""
        return np.square(self._queries[query] - self._columns[column]).sum(axis=1) + self._penalties[column]


class _Matrix:
    """Distances as a `Distance` computes them, on tiles whose differences `(rows, columns, dim)` fit a block."""

    exact_bounds = True

    def __init__(self, distance, queries, columns):
        self._distance, self._queries, self._columns = distance, queries, columns
        self.alike = np.zeros(len(queries), bool)

    def lower_bounds(self, block):
        from keras import ops

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


def _directions(embeddings):
    """x / ‖x‖ in float64, `(n, dim)`; 0 where ‖x‖ is at most 1e-6."""
    exponents = np.frexp(np.abs(embeddings).max(axis=1))[1]
    # Powers of two round nothing and keep the squares from overflow and underflow.
    scaled = np.ldexp(embeddings.astype(np.float64), -exponents[:, None])
    norms = np.sqrt(np.square(scaled).sum(axis=1))
    with np.errstate(over="ignore"):
        short = np.ldexp(norms, exponents) <= NORM_FLOOR
    return np.where(short[:, None], 0.0, scaled / np.where(short, 1.0, norms)[:, None])


def _scaled_by(exponent):
    return lambda embeddings: np.ldexp(embeddings.astype(np.float64), -exponent)


def _exponent(*arrays):
    """The e with 2^(e−1) ≤ max|x| < 2^e of all arrays."""
    return int(np.frexp(max(np.abs(array).max() for array in arrays))[1])
