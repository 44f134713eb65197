"""What the batch losses share: the batch in order of identity, rows of it against all of it, and how rows add up.

Contract: y_true holds identities `(batch,)`, y_pred embeddings `(batch, dim)`. A member defines

    terms(rows) → list of Terms

where `rows` is a `Rows`: some rows of the batch (all of them, or a block) against the whole batch, with `positive` and
`negative` masks `(rows, batch)` and the matrix of distances or similarities. Each `Terms` holds, for each row, the sum
of its terms and how many of them the mean is taken over; the value of the batch is Σ total / Σ count over all rows,
summed over the list. So ANZ, means over positive pairs and means over rows are one formula, a row's own share is exact,
and a batch that is too large for one matrix is worked off in blocks of rows.

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
from keras_siamese._checks import check_integer
from keras_siamese.losses.base import SiameseLoss, joined_ids, split_ids, without_wide_mask
from keras_siamese.ops import at_least_float32, column, count, masked_sum, unit


class Terms(NamedTuple):
    """One kind of term, by row.

    Attributes:
        total: `(rows,)`, sum of the row's terms.
        count: `(rows,)`, the row's part of what the mean divides by.
        possible: how many terms could have cost something, `(rows,)`, or where they are, a mask `(rows, batch)`; None
            where none can be idle.
        active: how many did, in either form; None for `count`.
    """

    total: object
    count: object
    possible: object = None
    active: object = None


def above_zero(hinges, mask):
    """`Terms` of a `(rows, batch)` matrix of `hinges`, none below 0, over `mask`, averaged over those above 0 (ANZ)."""
    total, active = sum_above_zero(hinges, mask)
    return Terms(total, active, mask)


def sum_above_zero(hinges, mask):
    """Sum of the `hinges` `(rows, batch)` in `mask`, and how many are above 0: both `(rows,)`."""
    kept = ops.where(mask, hinges, 0.0)
    # The signs of numbers that are at hand: summing booleans costs PyTorch a copy of their matrix as numbers.
    return ops.sum(kept, axis=1), ops.sum(ops.sign(ops.stop_gradient(kept)), axis=1)


def over(terms, mask):
    """`Terms` of a `(rows, batch)` matrix, averaged over all entries of `mask`."""
    return Terms(masked_sum(terms, mask), count(mask))


def of_rows(values, valid):
    """`Terms` of one value a row `(rows,)`, averaged over the `valid` rows `(rows,)`; the others are 0."""
    return Terms(ops.where(valid, values, 0.0), ops.cast(valid, "float32"))


class Batch(NamedTuple):
    """A batch, and its rows in order of identity, where those of one identity are neighbours.

    Attributes:
        embeddings: `(batch, dim)`, at least float32.
        order: `(batch,)` int32, the rows in order of identity.
        place: `(batch,)` int32, where each row is in that order.
        first: `(batch,)` int32, the place at which the row's identity begins. Equal where identities are.
        size: `(batch,)` int32, how many rows that identity has.
    """

    embeddings: object
    order: object
    place: object
    first: object
    size: object


class Rows:
    """Rows of a batch against all of it.

    Attributes:
        batch: the `Batch`.
        index: `(rows,)` int32, which rows these are.
        embeddings: `(rows, dim)`.
        place, first, size: `(rows,)`, as in `Batch`.
        columns: `(1, batch)` int32, the numbers of the columns.
        positive, negative: `(rows, batch)` booleans; the row itself is neither.
        matrix: `(rows, batch)` distances or similarities, as the loss defines.
        summary: what the loss's `summarize` gave for the whole batch, or None.
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
        self.matrix = measure(self.embeddings, batch.embeddings)

    def of_batch(self, tensor):
        """The entries `(rows, …)` of these rows in a `tensor` `(batch, …)`."""
        return tensor if self.whole else ops.take(tensor, self.index, axis=0)

    @property
    def has_positive(self):
        return self.size > 1

    @property
    def has_negative(self):
        return self.size < ops.shape(self.batch.first)[0]

    @property
    def has_both(self):
        return self.has_positive & self.has_negative

    def partner(self, k):
        """The `k`-th other row of each row's identity, going round: `(rows,)` columns, and which rows have one."""
        return partner(k, self.batch.order, self.place, self.first, self.size)

    def largest(self):
        """The most rows that one identity has, a scalar."""
        return ops.max(self.size)


def partner(k, order, place, first, size):
    """`Rows.partner` from the tensors that it needs, for functions that may not close over a `Rows`."""
    return ops.take(order, first + (place - first + k) % size), k < size


def as_batch(labels, embeddings):
    """The `Batch` of `labels` `(batch,)`, integers, and `embeddings` `(batch, dim)`.

    Rows of one identity keep the order of the batch, as the sort is stable on each backend: losses on pairs of rows
    count on it.
    """
    order = ops.cast(ops.argsort(labels), "int32")
    place = ops.cast(ops.argsort(order), "int32")
    ordered = ops.take(labels, order)
    starts = ops.concatenate([ops.ones_like(ordered[:1], dtype="bool"), ordered[1:] != ordered[:-1]], axis=0)
    # The number of each place's identity in that order; as many numbers as rows, of which the last may stay unused.
    number = ops.cumsum(ops.cast(starts, "int32")) - 1
    sizes = ops.segment_sum(ops.ones_like(number), number, num_segments=ops.shape(number)[0])
    firsts = ops.cumsum(sizes) - sizes
    own = ops.take(number, place)
    return Batch(embeddings, order, place, ops.take(firsts, own), ops.take(sizes, own))


def shares(terms):
    """The rows' values `(batch,)`, whose mean is Σ total / Σ count, added over the pairs of `(total, count)`."""
    values = []
    for total, counted in terms:
        divisor = ops.sum(counted)
        mean_count = divisor / ops.cast(ops.shape(counted)[0], divisor.dtype)
        values.append(total / ops.where(divisor > 0, mean_count, 1.0))
    return sum(values[1:], values[0])


def cosines(a, b):
    """cos of every row of `a` `(n, dim)` with every row of `b` `(m, dim)`: `(n, m)`; 0 for a vector below 1e-6."""
    return ops.matmul(unit(a), ops.transpose(unit(b)))


class EmbeddingLoss(SiameseLoss):
    """Base of the losses on embeddings with identities, whatever they do with the batch.

    y_true identities `(batch,)`, whole numbers (a NumPy array may hold strings); y_pred embeddings `(batch, dim)`. A
    NaN in an embedding, or an identity that is no whole number, makes the row's value NaN. A member defines `costs_of`.
    """

    expects = "embedding"

    def __call__(self, y_true, y_pred, sample_weight=None):
        labels, embeddings = check_batch(y_true, y_pred)
        return super().__call__(split_ids("y_true", labels), without_wide_mask(embeddings), sample_weight)

    def call(self, y_true, y_pred):
        values, statistics = self.values_and_statistics(y_true, y_pred, bool(self.observers))
        self.record(statistics)
        return values

    def costs_of(self, batch, wanted):
        """What the rows of `batch`, a `Batch`, cost: the list of each term's `(total, count)`, both `(batch,)`, and, if
        `wanted`, the statistics by row in the order of `statistic_names`, sum and count of each, `(batch,)`.
        """
        raise NotImplementedError

    def values_and_statistics(self, y_true, y_pred, wanted):
        """The rows' values `(batch,)` and, if `wanted`, the sum and the count of each statistic."""
        if len(y_true.shape) == 1:
            y_true = split_ids("y_true", y_true)
        embeddings = at_least_float32(y_pred)
        labels, flaw = joined_ids(y_true)
        sums, statistics = self.costs_of(as_batch(labels, embeddings), wanted)
        values = shares(sums)
        flaw = flaw | ops.any(ops.isnan(embeddings), axis=1)
        values = ops.where(flaw, float("nan"), values)
        totals = [ops.sum(statistic) for statistic in statistics]
        return values, dict(zip(self.statistic_names(), zip(totals[::2], totals[1::2], strict=True), strict=wanted))

    def statistics(self, y_true, y_pred):
        labels, embeddings = check_batch(y_true, y_pred)
        return self.values_and_statistics(split_ids("y_true", labels), embeddings, True)[1]


class BatchLoss(EmbeddingLoss):
    """Base of the batch losses: every pair or triplet of the batch, from identities and embeddings.

    y_true identities `(batch,)`, whole numbers (a NumPy array may hold strings); y_pred embeddings `(batch, dim)`. Each
    row's value is its share as an anchor, so `sample_weight` weighs anchors; rows of weight 0 still serve as positives
    and negatives of others. An anchor without positives or without negatives has no part in a mean that needs them, and
    a batch without a valid pair or triplet costs 0. A NaN in an embedding, or an identity that is no whole number,
    makes the row's value NaN. On JAX, Keras hands 64-bit identities over as 32 bits.

    Args:
        block_size: rows of the `(batch, batch)` matrix that are worked on at once, None (default) for all. Memory falls
            from O(batch²) to O(block_size·batch), for the same value and gradient; each block is computed twice. Before
            Keras 3.9 memory stays as it is, with a warning.
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    # Whether terms can be idle, so that a fraction of active ones says something; their `possible` is then given.
    hinged = False

    def __init__(self, block_size=None, **kwargs):
        super().__init__(**kwargs)
        if block_size is not None and not hasattr(keras, "remat"):
            warnings.warn(
                "`block_size` saves memory with keras.remat, of Keras 3.9 and later; this is Keras "
                f"{keras.__version__}, where it only changes the order of work",
                stacklevel=2,
            )
        self.block_size = None if block_size is None else check_integer("block_size", block_size, low=1)

    def measure(self, a, b):
        """The matrix that `terms` works on, from embeddings `(rows, dim)` and `(batch, dim)`."""
        raise NotImplementedError

    def terms(self, rows):
        """A list of `Terms` of `rows`, a `Rows`."""
        raise NotImplementedError

    # What `terms` needs to know of the whole batch: a function of `Rows` giving tensors, stacked over blocks by their
    # first axis. None for most.
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
        """`function(Rows)` over blocks of the batch's rows, its tensors stacked."""

        def of_block(index, batch, *summary):
            return function(Rows(Batch(*batch), index, self.measure, *summary))

        rows, size = ops.shape(batch.first)[0], self.block_size
        blocks = -(-rows // size)
        # The last block is filled up with the last row, whose repeats are cut off again.
        index = ops.minimum(ops.reshape(ops.arange(blocks * size, dtype="int32"), (-1, size)), rows - 1)
        again = getattr(keras, "remat", lambda function: function)(of_block)
        stacked = ops.map(lambda block: again(block, batch, *summary), index)
        return keras.tree.map_structure(lambda tensor: ops.reshape(tensor, (-1, *tensor.shape[2:]))[:rows], stacked)

    def statistic_names(self):
        return ("positive_distance", "negative_distance", "active_fraction")[: 3 if self.hinged else 2]

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

    def get_config(self):
        return {**super().get_config(), "block_size": self.block_size}


def check_batch(y_true, y_pred):
    """Identities `(batch,)` and embeddings `(batch, dim)`, if their shapes are those and their batches agree."""
    if len(y_pred.shape) != 2:
        raise ValueError(f"`y_pred` must be embeddings of shape (batch, dim); got {tuple(y_pred.shape)}")
    labels = np.asarray(y_true) if isinstance(y_true, (list, tuple, np.ndarray)) else y_true
    shape = tuple(labels.shape)
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise ValueError(f"`y_true` must be identities of shape (batch,) or (batch, 1), not one-hot; got {shape}")
    if None not in (shape[0], y_pred.shape[0]) and shape[0] != y_pred.shape[0]:
        raise ValueError(
            f"`y_true` and `y_pred` must have one identity for each embedding; got {shape} and {tuple(y_pred.shape)}"
        )
    return (labels[:, 0] if len(shape) == 2 else labels), y_pred


def check_distance(name, distance):
    """The `Distance` that `distance` names, if it can compare a whole batch without weights of its own."""
    distance = distances.get(distance)
    if isinstance(distance, keras.layers.Layer):
        raise ValueError(
            f"`{name}` must be a distance without weights, which a loss would not train; got {distance!r}. "
            "End the encoder with a Dense layer without bias for a Mahalanobis distance"
        )
    return distance


def check_reachable(name, margin, distance):
    """`margin`, if two distances of a kind that ignores norms can differ by it."""
    low, high = distance.bounds
    if distance.scale_free and margin > high - low:
        raise ValueError(
            f"`{name}` must be at most {high - low:g}, as {distance!r} is in [{low:g}, {high:g}]; got {margin:g}"
        )
    return margin
