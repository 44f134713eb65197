"""Base classes of the batch losses: they sort the batch by identity, compare its rows and average the terms.

Contract: y_true holds identities `(batch,)`, y_pred embeddings `(batch, dim)`. A subclass defines `terms(rows)`, which
returns a list of `Terms`. `rows` is a `Rows`: the whole batch or a block of its rows, compared with the whole batch. A
`Terms` holds, for each row, the sum of its terms and the number that the mean divides by. The value of the batch is
Σ total / Σ count over all rows, added over the list. This one formula covers a mean over the terms above zero (ANZ),
over positive pairs and over rows, gives each row its exact share, and allows to compute a large batch in blocks.

    class NCALoss(BatchLoss):
        def terms(self, rows):
            return [nca(rows.matrix, rows.positive, rows.negative, self.scale)]
"""

import warnings
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_integer, check_number
from keras_siamese._replicas import gathered
from keras_siamese.losses.base import SiameseLoss, joined_ids, split_ids, without_wide_mask
from keras_siamese.losses.statistics import STATISTICS
from keras_siamese.ops import at_least_float32, column, count, masked_sum, named_tensor, unit


class Terms(NamedTuple):
    """One kind of term, for each row."""

    total: object  # `(rows,)`, sum of the row's terms
    count: object  # `(rows,)`, what the row adds to the divisor of the mean
    possible: object = None  # terms that can be above zero: number `(rows,)` or mask `(rows, batch)`; None: never zero
    active: object = None  # the terms that are above zero, in either form; None if they are `count`


def above_zero(hinges, mask):
    """`Terms` of a `(rows, batch)` matrix of `hinges` ≥ 0 inside `mask`, averaged over those above 0 (ANZ)."""
    total, active = sum_above_zero(hinges, mask)
    return Terms(total, active, mask)


def sum_above_zero(hinges, mask):
    """Sum of the `hinges` `(rows, batch)` inside `mask`, and how many are above 0: both `(rows,)`."""
    kept = ops.where(mask, hinges, 0.0)
    # Sums signs instead of booleans: PyTorch would copy the matrix of booleans as numbers.
    return ops.sum(kept, axis=1), ops.sum(ops.sign(ops.stop_gradient(kept)), axis=1)


def over(terms, mask):
    """`Terms` of a `(rows, batch)` matrix, averaged over all entries inside `mask`."""
    return Terms(masked_sum(terms, mask), count(mask))


def of_rows(values, valid):
    """`Terms` of one value for each row `(rows,)`, averaged over the `valid` rows `(rows,)`; the others are 0."""
    return Terms(ops.where(valid, values, 0.0), ops.cast(valid, "float32"))


class Batch(NamedTuple):
    """A batch and the positions of its rows when they are sorted by identity."""

    embeddings: object  # `(batch, dim)`, at least float32
    order: object  # `(batch,)` int32, the rows sorted by identity
    place: object  # `(batch,)` int32, the position of each row in that order
    first: object  # `(batch,)` int32, the position at which the row's identity begins; the same for all its rows
    size: object  # `(batch,)` int32, the number of rows of that identity


class Rows:
    """Rows of a batch, compared with the whole batch.

    Attributes:
        batch: the `Batch`.
        index: `(rows,)` int32, which rows these are.
        embeddings: `(rows, dim)`.
        place, first, size: `(rows,)`, as in `Batch`.
        columns: `(1, batch)` int32, the numbers of the columns.
        positive, negative: `(rows, batch)` masks; the row itself is in neither.
        has_positive, has_negative, has_both: `(rows,)` masks.
        matrix: `(rows, batch)` distances or similarities, as the loss defines.
        summary: the result of the loss's `summarize` for the whole batch, or None.
    """

    def __init__(self, batch, index, measure, summary=None):
        self.batch, self.summary = batch, summary
        self.columns = ops.expand_dims(ops.arange(ops.shape(batch.first)[0], dtype="int32"), 0)
        self.whole, self.index = index is None, self.columns[0] if index is None else index
        self.embeddings, self.place = self.of_batch(batch.embeddings), self.of_batch(batch.place)
        self.first, self.size = self.of_batch(batch.first), self.of_batch(batch.size)
        same = column(self.first) == ops.expand_dims(batch.first, 0)
        self.positive = same & (self.columns != column(self.index))
        self.negative = ops.logical_not(same)
        self.has_positive, self.has_negative = self.size > 1, self.size < ops.shape(batch.first)[0]
        self.has_both = self.has_positive & self.has_negative
        self.matrix = measure(self.embeddings, batch.embeddings)

    def of_batch(self, tensor):
        """The entries `(rows, …)` of a `tensor` `(batch, …)` that belong to these rows."""
        return tensor if self.whole else ops.take(tensor, self.index, axis=0)


def partner(k, order, place, first, size):
    """The `k`-th next row of each row's identity, cyclically: its column `(rows,)`, and which rows have one.

    It takes tensors of a `Batch` and a `Rows` instead of these, for functions that must not use tensors from outside.
    """
    return ops.take(order, first + (place - first + k) % size), k < size


def as_batch(labels, embeddings):
    """The `Batch` of `labels` `(batch,)`, integers, and `embeddings` `(batch, dim)`."""
    # The sort is stable on each backend, so rows of one identity keep their order, as the losses on two views need.
    order = ops.cast(ops.argsort(labels), "int32")
    place = ops.cast(ops.argsort(order), "int32")
    ordered = ops.take(labels, order)
    starts = ops.concatenate([ops.ones_like(ordered[:1], dtype="bool"), ordered[1:] != ordered[:-1]], axis=0)
    # Numbers the identities in that order. There are at most as many as rows; unused numbers have size 0.
    number = ops.cumsum(ops.cast(starts, "int32")) - 1
    sizes = ops.segment_sum(ops.ones_like(number), number, num_segments=ops.shape(number)[0])
    firsts = ops.cumsum(sizes) - sizes
    own = ops.take(number, place)
    return Batch(embeddings, order, place, ops.take(firsts, own), ops.take(sizes, own))


def shares(terms):
    """The rows' values `(batch,)` with the mean Σ total / Σ count, added over the pairs of `(total, count)`."""
    values = []
    for total, counted in terms:
        divisor = ops.sum(counted)
        mean_count = divisor / ops.cast(ops.shape(counted)[0], divisor.dtype)
        values.append(total / ops.where(divisor > 0, mean_count, 1.0))
    return sum(values[1:], values[0])


def cosines(a, b):
    """Cosine of each row of `a` `(n, dim)` with each row of `b` `(m, dim)`: `(n, m)`; 0 if a norm is below 1e-6."""
    return ops.matmul(unit(a), ops.transpose(unit(b)))


class EmbeddingLoss(SiameseLoss):
    """Base class of the losses on embeddings with identities; a subclass defines `costs_of`."""

    expects = "embedding"

    def __call__(self, y_true, y_pred, sample_weight=None):
        labels, embeddings = check_batch(y_true, y_pred)
        return super().__call__(split_ids("y_true", labels), without_wide_mask(embeddings), sample_weight)

    def costs_of(self, batch, wanted):
        """Returns what the loss and its statistics are computed from.

        This is a list with each term's `(total, count)`, both `(batch,)`, and a list with the sum and the count of each
        statistic in `statistic_names`, all `(batch,)`; empty unless `wanted`. `batch` is a `Batch`.
        """
        raise NotImplementedError

    def values_and_statistics(self, y_true, y_pred, wanted):
        if len(y_true.shape) == 1:
            y_true = split_ids("y_true", y_true)
        embeddings = at_least_float32(y_pred)
        (y_true, embeddings), own = gathered(y_true, embeddings)
        labels, flaw = joined_ids(y_true)
        sums, statistics = self.costs_of(as_batch(labels, embeddings), wanted)
        values = own(ops.where(flaw | ops.any(ops.isnan(embeddings), axis=1), float("nan"), shares(sums)))
        totals = [ops.sum(statistic) for statistic in statistics]
        return values, dict(zip(self.statistic_names(), zip(totals[::2], totals[1::2], strict=True), strict=wanted))

    def statistics(self, y_true, y_pred):
        return super().statistics(*check_batch(y_true, y_pred))


class BatchLoss(EmbeddingLoss):
    """Base class of the losses that use all pairs or triplets in a batch.

    y_true identities `(batch,)`, whole numbers (a NumPy array may hold strings); y_pred embeddings `(batch, dim)`. The
    value of a row is its share of the loss as an anchor. `sample_weight` therefore weights anchors; a row with weight 0
    is still a positive or negative of other rows. An anchor without positives or negatives is left out of a mean that
    needs them, and a batch without a valid pair or triplet has loss 0. The loss of a row is NaN if its embedding
    contains NaN or its identity is not a whole number. On JAX, Keras reduces 64-bit identities to 32 bits.

    Args:
        block_size: number of rows of the `(batch, batch)` matrix to process at once; None (default) means all. Memory
            falls from O(batch²) to O(block_size·batch). Value and gradient stay the same, but each block is computed
            twice. Before Keras 3.9 it saves no memory, and a warning says so.
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    # Whether terms can be zero, so that the statistic "active_fraction" exists; `terms` then returns `possible`.
    hinged = False

    def __init__(self, block_size=None, **kwargs):
        super().__init__(**kwargs)
        if block_size is not None and not hasattr(keras, "remat"):
            found = f"this is Keras {keras.__version__}. Update Keras or leave `block_size` out"
            need = "saves memory only with Keras 3.9 or later (`keras.remat`)"
            warnings.warn(f"`block_size` {need}; {found}", stacklevel=2)
        self.block_size = None if block_size is None else check_integer("block_size", block_size, low=1)

    def measure(self, a, b):
        """The matrix that `terms` uses, from embeddings `(rows, dim)` and `(batch, dim)`: by default distances."""
        return self.distance.matrix(a, b)

    def terms(self, rows):
        """A list of `Terms` of `rows`, a `Rows`."""
        raise NotImplementedError

    # Optional method: from a `Rows`, what `terms` needs of the whole batch, concatenated over blocks along axis 0.
    summarize = None

    def costs_of(self, batch, wanted):
        def of_rows(rows):
            terms = self.terms(rows)
            sums = [(term.total, term.count) for term in terms]
            return (sums, self.statistics_of(rows, terms)) if wanted else (sums, [])

        if self.block_size is None:
            rows = Rows(batch, None, self.measure)
            rows.summary = None if self.summarize is None else self.summarize(rows)
            return of_rows(rows)
        summary = () if self.summarize is None else (self.in_blocks(self.summarize, batch),)
        return self.in_blocks(of_rows, batch, *summary)

    def in_blocks(self, function, batch, *summary):
        """Calls `function(Rows)` on blocks of the batch's rows and concatenates the tensors it returns."""

        def of_block(index, batch, *summary):
            return function(Rows(Batch(*batch), index, self.measure, *summary))

        rows, size = ops.shape(batch.first)[0], self.block_size
        blocks = -(-rows // size)
        # The last block is padded with copies of the last row, which are removed at the end.
        index = ops.minimum(ops.reshape(ops.arange(blocks * size, dtype="int32"), (-1, size)), rows - 1)
        again = getattr(keras, "remat", lambda function: function)(of_block)
        stacked = ops.map(lambda block: again(block, batch, *summary), index)
        return keras.tree.map_structure(lambda tensor: ops.reshape(tensor, (-1, *tensor.shape[2:]))[:rows], stacked)

    def statistic_names(self):
        return STATISTICS[: 3 if self.hinged else 2]

    def statistics_of(self, rows, terms):
        """Sum and count of each statistic by row, each `(rows,)`, in the order of `statistic_names`."""
        apart = ops.stop_gradient(self.as_distances(rows.matrix))
        found = [masked_sum(apart, rows.positive), count(rows.positive)]
        found += [masked_sum(apart, rows.negative), count(rows.negative)]
        if self.hinged:
            active = [term.count if term.active is None else term.active for term in terms]
            for side in (active, [term.possible for term in terms]):
                found.append(sum(count(numbers) if len(numbers.shape) == 2 else numbers for numbers in side))
        return found

    def as_distances(self, matrix):
        """The loss's matrix as distances, for the statistics."""
        return matrix


def check_batch(y_true, y_pred):
    """Returns identities `(batch,)` and embeddings `(batch, dim)`, or raises if the shapes do not fit."""
    y_pred = named_tensor("y_pred", y_pred)
    if len(y_pred.shape) != 2:
        raise ValueError(f"`y_pred` must be embeddings of shape (batch, dim); got {tuple(y_pred.shape)}")
    labels = check_identities(y_true)
    if None not in (labels.shape[0], y_pred.shape[0]) and labels.shape[0] != y_pred.shape[0]:
        shapes = f"{tuple(labels.shape)} and {tuple(y_pred.shape)}"
        raise ValueError(f"`y_true` must have one identity for each embedding in `y_pred`; got {shapes}")
    return labels, y_pred


def check_identities(y_true):
    """Returns the identities `(batch,)` or `(batch, 1)` as `(batch,)`: a tensor only if `y_true` is one."""
    if isinstance(y_true, (list, tuple)) or hasattr(y_true, "to_numpy"):
        y_true = np.asarray(y_true)
    labels = y_true if isinstance(y_true, np.ndarray) else named_tensor("y_true", y_true)
    shape = tuple(labels.shape)
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise ValueError(f"`y_true` must be identities of shape (batch,) or (batch, 1), not one-hot; got {shape}")
    return labels[:, 0] if len(shape) == 2 else labels


def check_distance(name, distance):
    """The `Distance` named by `distance`; raises if it has weights."""
    distance = distances.get(distance)
    if isinstance(distance, keras.layers.Layer):
        hint = "For a Mahalanobis distance, end the encoder with a Dense layer without bias"
        why = "without weights, because a loss cannot train them"
        raise ValueError(f"`{name}` must be a distance {why}; got {distance!r}. {hint}")
    return distance


def check_margin(name, margin, distance, open_low=False):
    """`margin` ≥ 0; raises if `distance` ignores norms and no two of its values differ by that much."""
    margin = check_number(name, margin, low=0, open_low=open_low, open_high=True)
    low, high = distance.bounds
    if distance.scale_free and margin > high - low:
        within = f"as {distance!r} lies in [{low:g}, {high:g}]"
        raise ValueError(f"`{name}` must be at most {high - low:g}, {within}; got {margin:g}")
    return margin
