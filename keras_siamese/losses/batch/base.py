"""Base classes of the batch losses: they sort the batch by identity, compare its rows and average the terms.

Contract: y_true holds identities `(batch,)`, y_pred embeddings `(batch, dim)`. A subclass defines `terms(rows)`, which
returns a list of `Terms`. `rows` is a `Rows`: the whole batch or a block of its rows, compared with the whole batch. A
`Terms` holds, for each row, the sum of its terms and the number that the mean divides by. The value of the batch is
Σ total / Σ count over all rows, added over the list. This one formula covers a mean over the terms above zero (ANZ),
over positive pairs and over rows, gives each row its exact share, and allows to compute a large batch in blocks.

    class NCALoss(BatchLoss):
        def terms(self, rows):
            return [nca(rows.logits(-self.scale), rows)]
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_integer, check_number
from keras_siamese._replicas import Share, gathered, is_replicated, of_each_device
from keras_siamese._types import LossOptions, Tensor, Unpack
from keras_siamese.losses.base import SiameseLoss, joined_ids, nan_where, split_ids, without_wide_mask
from keras_siamese.losses.batch.rows import Batch, Rows
from keras_siamese.losses.statistics import STATISTICS
from keras_siamese.ops import MULTIPLIES, at_least_float32, count, masked, masked_sum, named_tensor


class Terms(NamedTuple):
    """One kind of term, for each row."""

    total: Tensor  # `(rows,)`, sum of the row's terms
    count: Tensor  # `(rows,)`, what the row adds to the divisor of the mean
    # A function without arguments that gives the number of terms that can be above zero, `(rows,)` or as a mask
    # `(rows, columns)`; None: no term can be zero. Only statistics need it.
    possible: Callable[[], Tensor] | None = None
    active: Callable[[], Tensor] | None = (
        None  # the terms that are above zero, in the same form; None if they are `count`
    )


def above_zero(hinges, mask):
    """`Terms` of a `(rows, columns)` matrix of `hinges` ≥ 0 inside `mask`, averaged over those above 0 (ANZ)."""
    total, active = sum_above_zero(hinges, mask)
    return Terms(total, active, lambda: mask)


def sum_above_zero(hinges, mask):
    """Sum of the `hinges` `(rows, batch)` inside `mask`, and how many are above 0: both `(rows,)`."""
    kept = masked(hinges, mask)
    # Sums signs instead of booleans: PyTorch would copy the matrix of booleans as numbers.
    return ops.sum(kept, axis=1), ops.sum(ops.sign(ops.stop_gradient(kept)), axis=1)


def over(terms, mask):
    """`Terms` of a `(rows, columns)` matrix, averaged over all entries inside `mask`."""
    return Terms(masked_sum(terms, mask), count(mask))


def of_rows(values, valid):
    """`Terms` of one value for each row `(rows,)`, averaged over the `valid` rows `(rows,)`; the others are 0."""
    return Terms(ops.where(valid, values, 0.0), ops.cast(valid, "float32"))


class Memory(NamedTuple):
    """Rows of earlier batches, with which the rows of a batch are compared too."""

    labels: Tensor  # `(size,)` identities as `EmbeddingLoss.identities` gives them
    embeddings: Tensor  # `(size, dim)`; they have no gradient
    is_full: Tensor  # a boolean tensor; before, the rows are not used


def shares(totals, counts):
    """The values `(rows,)` with the mean Σ total / Σ count, added over pairs of `totals` `(rows,)` and `counts`.

    The counts are those of the whole batch `(batch,)`.
    """
    values = []
    for total, counted in zip(totals, counts, strict=True):
        divisor, rows = ops.sum(counted), ops.shape(counted)[0]
        mean_count = divisor / (rows if isinstance(rows, int) else ops.cast(rows, divisor.dtype))
        values.append(total / (mean_count + (1.0 - ops.sign(divisor))))
    return sum(values[1:], values[0])


class EmbeddingLoss(SiameseLoss):
    """Base class of the losses on embeddings with identities; a subclass defines `costs_of`."""

    expects = "embedding"
    local_negatives = False
    by_rows = False  # whether `costs_of` computes only the rows of the share `batch.own`

    def prepared(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        labels, embeddings = check_batch(y_true, y_pred)
        return split_ids("y_true", labels, self.dtype), without_wide_mask(embeddings)

    def identities(self, y_true: Tensor) -> Tensor:
        """The identities `(batch,)` as integers, of which different ones are different."""
        return joined_ids(split_ids("y_true", check_identities(y_true), self.dtype), self.dtype)[0]

    def costs_of(self, batch: Batch, wanted: bool) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """Returns what the loss and its statistics are computed from.

        This is a list with each term's `(total, count)`, both `(rows,)`, and a list with the sum and the count of each
        statistic in `statistic_names`, all `(rows,)`; empty unless `wanted`. `batch` is a `Batch`. The rows are those
        of the share `batch.own` if the loss works `by_rows`, else all.
        """
        raise NotImplementedError

    def values_and_statistics(
        self, y_true: Tensor, y_pred: Tensor, wanted: bool
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        if len(y_true.shape) == 1:
            y_true = split_ids("y_true", y_true, self.dtype)
        embeddings = at_least_float32(y_pred)
        if self.local_negatives:
            values, totals = of_each_device(lambda *rows: self.values_and_totals(*rows, wanted), y_true, embeddings)
        else:
            everywhere, own = gathered(y_true, embeddings)
            values, totals = self.values_and_totals(*everywhere, wanted, own)
        return values, dict(zip(self.statistic_names(), zip(totals[::2], totals[1::2], strict=True), strict=wanted))

    def values_and_totals(
        self, digits: Tensor, embeddings: Tensor, wanted: bool, own: Share | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The values `(rows,)` of the rows of a share, and a list of each statistic's sum and count over the batch.

        `digits` are of `split_ids`; they and the `embeddings` are those of the whole batch.
        """
        own = Share() if own is None else own
        computed = own if self.by_rows else Share()
        labels, missing = joined_ids(digits, self.dtype)
        sums, statistics = self.costs_of(Batch(labels, embeddings, own=computed), wanted)
        totals, counts = zip(*sums, strict=True)
        of_all = computed.columns_of_all([*counts, *statistics])
        at_nan = ops.sum(ops.stop_gradient(computed(embeddings)), axis=1)
        at_nan = at_nan * 0.0 if MULTIPLIES else ops.where(ops.isnan(at_nan), at_nan, 0.0)
        missing = None if missing is None else computed(missing)
        values = nan_where(missing, shares(totals, of_all[: len(counts)]) + at_nan)
        return values if self.by_rows else own(values), [ops.sum(column) for column in of_all[len(counts) :]]

    def statistics(self, y_true: Tensor, y_pred: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
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
        local_negatives: whether each device compares only its own rows of a batch that several devices share. By
            default (False) the negatives and positives are those of the whole batch, whatever the number of devices;
            each device then receives O(batch·dim) numbers and compares its own rows with all rows.
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    # Whether terms can be zero, so that the statistic "active_fraction" exists; `terms` then returns `possible`.
    hinged = False
    by_rows = True

    def __init__(
        self, block_size: int | None = None, local_negatives: bool = False, **kwargs: Unpack[LossOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.local_negatives = bool(local_negatives)
        if block_size is not None and not hasattr(keras, "remat"):
            found = f"this is Keras {keras.__version__}. Update Keras or leave `block_size` out"
            need = "saves memory only with Keras 3.9 or later (`keras.remat`)"
            warnings.warn(f"`block_size` {need}; {found}", stacklevel=2)
        self.block_size = None if block_size is None else check_integer("block_size", block_size, low=1)

    def measure(self, a: Tensor, b: Tensor) -> Tensor:
        """The matrix that `terms` uses, from embeddings `(rows, dim)` and `(batch, dim)`: by default distances."""
        return self.distance.matrix(a, b)

    def terms(self, rows: Rows) -> list[Terms]:
        """A list of `Terms` of `rows`, a `Rows`."""
        raise NotImplementedError

    # Optional method: from a `Rows`, what `terms` needs of the whole batch, concatenated over blocks along axis 0.
    summarize: Callable[[Rows], Any] | None = None

    # Whether the terms of an anchor depend only on its comparisons with others, so that rows of earlier batches may be
    # among them; not if `summarize` is needed.
    is_of_anchors = True
    memory: Memory | None = None

    @contextlib.contextmanager
    def remembering(self, memory: Memory) -> Iterator[None]:
        """Within the block, compare the rows of a batch also with those of `memory`, a `Memory`, once it is full."""
        if not self.is_of_anchors or self.summarize is not None:
            problem = "is not a sum over anchors, so it cannot compare them with rows of earlier batches"
            raise ValueError(f"{type(self).__name__} {problem}. Use a loss such as ks.losses.SupConLoss")
        if is_replicated():
            raise ValueError("A memory of earlier batches does not work with several replicas of a TensorFlow strategy")
        self.memory = Memory(*memory)
        try:
            yield
        finally:
            self.memory = None

    def costs_of(self, batch: Batch, wanted: bool) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        if self.memory is None:
            return self.costs_of_anchors(batch, wanted)
        anchors = Share(rows=ops.shape(batch.labels)[0])
        own, theirs = (batch.labels, batch.embeddings), self.memory[:2]

        def with_memory():
            cast = [ops.cast(ops.stop_gradient(b), a.dtype) for a, b in zip(own, theirs, strict=True)]
            both = [ops.concatenate(pair, axis=0) for pair in zip(own, cast, strict=True)]
            return self.costs_of_anchors(Batch(*both, own=anchors), wanted)

        return ops.cond(self.memory.is_full, with_memory, lambda: self.costs_of_anchors(Batch(*own), wanted))

    def costs_of_anchors(self, batch: Batch, wanted: bool) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """What `costs_of` returns, without a memory."""

        def of_rows(rows):
            terms = self.terms(rows)
            sums = [(term.total, term.count) for term in terms]
            return (sums, self.statistics_of(rows, terms)) if wanted else (sums, [])

        own = batch.own
        if self.block_size is None:
            index = None if own.rows is None else own.first + ops.arange(own.rows, dtype="int32")
            rows = Rows(batch, index, self.measure)
            if self.summarize is not None:
                rows.summary = keras.tree.map_structure(own.of_all, self.summarize(rows))
            return of_rows(rows)
        summary = ()
        if self.summarize is not None:
            summary = (keras.tree.map_structure(own.of_all, self.in_blocks(self.summarize, batch)),)
        return self.in_blocks(of_rows, batch, *summary)

    def in_blocks(self, function: Callable[[Rows], Any], batch: Batch, *summary: Any) -> Any:
        """Calls `function(Rows)` on blocks of the rows of `batch.own`, and concatenates what it returns."""

        def of_block(index, batch, *summary):
            return function(Rows(Batch(*batch), index, self.measure, *summary))

        first, size = batch.own.first, self.block_size
        rows = ops.shape(batch.labels)[0] if batch.own.rows is None else batch.own.rows
        batch = batch.labels, batch.embeddings, batch.places
        blocks = -(-rows // size)
        # The last block is padded with copies of the last row, which are removed at the end.
        index = first + ops.minimum(ops.reshape(ops.arange(blocks * size, dtype="int32"), (-1, size)), rows - 1)
        again = getattr(keras, "remat", lambda function: function)(of_block)
        stacked = ops.map(lambda block: again(block, batch, *summary), index)
        return keras.tree.map_structure(lambda tensor: ops.reshape(tensor, (-1, *tensor.shape[2:]))[:rows], stacked)

    def statistic_names(self) -> tuple[str, ...]:
        return STATISTICS[: 3 if self.hinged else 2]

    def statistics_of(self, rows: Rows, terms: list[Terms]) -> list[Tensor]:
        """Sum and count of each statistic by row, each `(rows,)`, in the order of `statistic_names`."""
        apart = ops.stop_gradient(self.as_distances(rows.matrix))
        found = [masked_sum(apart, rows.positive), count(rows.positive)]
        found += [masked_sum(apart, rows.negative), count(rows.negative)]
        if self.hinged:
            active = [term.count if term.active is None else term.active() for term in terms]
            for side in (active, [term.possible() for term in terms]):
                found.append(sum(count(numbers) if len(numbers.shape) == 2 else numbers for numbers in side))
        return found

    def as_distances(self, matrix: Tensor) -> Tensor:
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
