"""The rows of a batch, compared with the whole batch: what the batch losses compute their terms from.

Contract: a `Rows` holds the `(rows, batch)` matrix of distances or similarities and the masks of positives and
negatives. A row has few positives, so on PyTorch `positive_side` takes their columns out of the matrix: everything that
a loss computes for positives then takes `(rows, most positives)` numbers in place of `(rows, batch)`. Where the number
of positives is not known beforehand, as in compiled code, it returns the whole matrix and a mask.

    rows = Rows(Batch(labels, embeddings), None, measure)
    near, positives = rows.positive_side(rows.matrix)
    far, negatives = rows.negative_side(rows.matrix)
"""

import functools
from typing import NamedTuple

from keras import ops

from keras_siamese._replicas import Share
from keras_siamese.ops import LOWEST, MULTIPLIES, as_factors, has_values

if MULTIPLIES:
    import torch

# If no row has more positives than the batch has rows divided by this, the positives' columns are taken out.
FEWER = 4


class Side(NamedTuple):
    """The positives or negatives of rows: other columns may be among them."""

    entries: object  # `(rows, columns)`
    mask: object  # `(rows, columns)`, which of them count, as `ops.as_factors` returns it


class Places(NamedTuple):
    """The positions of a batch's rows when they are sorted by identity, each `(batch,)` int32."""

    order: object  # the rows sorted by identity
    place: object  # the position of each row in that order
    first: object  # the position at which the row's identity begins; the same for all its rows
    size: object  # the number of rows of that identity


class Batch:
    """A batch: `labels` `(batch,)`, integers, `embeddings` `(batch, dim)`, at least float32, and its `Places`.

    `own` is the `Share` of its rows whose terms are wanted. The places are computed when they are first used. That must
    not be inside of a compiled loop or branch.
    """

    def __init__(self, labels, embeddings, places=None, own=None):
        self.labels, self.embeddings, self.own = labels, embeddings, Share() if own is None else own
        if places is not None:
            self.places = Places(*places)

    @functools.cached_property
    def places(self):
        return quick_places_of(self.labels) if has_values(self.labels) else places_of(self.labels)

    @functools.cached_property
    def keys(self):
        """A number `(batch,)`, float32, for each identity, or None if that takes a loop over values."""
        return self.places.first.to(torch.float32) if has_values(self.labels) else None


class Rows:
    """Rows of a batch, compared with the whole batch.

    Attributes:
        batch: the `Batch`.
        index: `(rows,)` int32, which rows these are.
        embeddings: `(rows, dim)`.
        place, first, size: `(rows,)`, as in `Places`.
        columns: `(1, batch)` int32, the numbers of the columns.
        positive, negative: `(rows, batch)` masks; the row itself is in neither.
        positives, negatives: the masks `positive` and `negative` as `ops.as_factors` returns them.
        itself: the row's own column, in the same form.
        has_positive, has_negative, has_both: `(rows,)` masks.
        matrix: `(rows, batch)` distances or similarities, as the loss defines.
        summary: the result of the loss's `summarize` for the whole batch, or None.
    """

    def __init__(self, batch, index, measure, summary=None):
        self.batch, self.summary = batch, summary
        self.whole = index is None
        if not self.whole:
            self.index = index
        self.embeddings = self.of_batch(batch.embeddings)
        self.matrix = measure(self.embeddings, batch.embeddings)

    def of_batch(self, tensor):
        """The entries `(rows, …)` of a `tensor` `(batch, …)` that belong to these rows."""
        return tensor if self.whole else ops.take(tensor, self.index, axis=0)

    @functools.cached_property
    def index(self):
        return self.columns[0]

    @functools.cached_property
    def columns(self):
        return ops.arange(ops.shape(self.batch.labels)[0], dtype="int32")[None, :]

    @functools.cached_property
    def positive(self):
        return ops.logical_not(self.negative) & (self.columns != self.index[:, None])

    @functools.cached_property
    def negative(self):
        return self.of_batch(self.batch.labels)[:, None] != self.batch.labels[None, :]

    @functools.cached_property
    def itself(self):
        if MULTIPLIES and self.whole:
            return ops.eye(self.batch.labels.shape[0])
        return as_factors(self.columns == self.index[:, None])

    @functools.cached_property
    def positives(self):
        return 1.0 - self.itself - self.negatives if MULTIPLIES else self.positive

    @functools.cached_property
    def negatives(self):
        if not MULTIPLIES:
            return self.negative
        keys = self.batch.keys
        if keys is not None:
            return (self.of_batch(keys)[:, None] - keys).ne_(0.0)
        # Faster than a comparison
        apart = ops.sign(ops.cast(self.of_batch(self.batch.labels)[:, None] - self.batch.labels[None, :], "float32"))
        return apart * apart

    @functools.cached_property
    def partners(self):
        """The columns of each row's positives `(rows, most)` and 1 where there is one, else 0; None where masks of the
        whole batch are as fast, or the numbers of positives are not known.
        """
        if not has_values(self.batch.labels):
            return None
        most, order = int(self.batch.places.size.max()) - 1, self.batch.places.order
        if not 0 < most <= len(order) // FEWER:
            return None
        first, size, k = self.first[:, None], self.size[:, None], torch.arange(1, most + 1, dtype=torch.int32)
        columns = order[(self.place[:, None] - first + k).remainder_(size).add_(first)]
        return columns.long(), (size - k).sign_().clamp_(min=0).to(torch.float32)

    def positive_side(self, matrix):
        """The entries of a `matrix` `(rows, batch)` at the rows' positives, a `Side`. It may have fewer columns."""
        if self.partners is None:
            return Side(matrix, self.positives)
        columns, mask = self.partners
        return Side(matrix.gather(1, columns), mask)

    def negative_side(self, matrix):
        """The `matrix` `(rows, batch)` and its negatives, a `Side`."""
        return Side(matrix, self.negatives)

    @property
    def sides(self) -> tuple[Side, Side]:
        """`positive_side` and `negative_side` of the rows' own matrix."""
        return self.positive_side(self.matrix), self.negative_side(self.matrix)

    def logits(self, factor):
        """`factor` times the rows' matrix, with about −1e30 in the row's own column: `(rows, batch)`, for a softmax."""
        logits = factor * self.matrix
        if not MULTIPLIES:
            return ops.where(self.itself, LOWEST, logits)
        if not self.whole:
            return logits + self.itself * LOWEST
        with torch.no_grad():  # the gradient of a softmax is 0 there anyway
            return logits.fill_diagonal_(LOWEST)

    @functools.cached_property
    def place(self):
        return self.of_batch(self.batch.places.place)

    @functools.cached_property
    def first(self):
        return self.of_batch(self.batch.places.first)

    @functools.cached_property
    def size(self):
        return self.of_batch(self.batch.places.size)

    @property
    def has_positive(self):
        return self.size > 1

    @property
    def has_negative(self):
        return self.size < ops.shape(self.batch.labels)[0]

    @property
    def has_both(self):
        return self.has_positive & self.has_negative


def partner(k, order, place, first, size):
    """The `k`-th next row of each row's identity, cyclically: its column `(rows,)`, and which rows have one.

    It takes tensors of a `Batch` and a `Rows` instead of these, for functions that must not use tensors from outside.
    """
    return ops.take(order, first + (place - first + k) % size), k < size


def quick_places_of(labels):
    """`places_of` with fewer steps, for labels whose values are known."""
    _, number, sizes = labels.unique(return_inverse=True, return_counts=True)
    order = number.argsort(stable=True)
    rows = torch.arange(len(order), dtype=torch.int32)
    place = torch.empty_like(rows)
    place[order] = rows
    own = torch.stack([sizes.cumsum(0) - sizes, sizes]).to(torch.int32)[:, number]
    return Places(order.to(torch.int32), place, own[0], own[1])


def places_of(labels):
    """The `Places` of `labels` `(batch,)`, integers."""
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
    return Places(order, place, ops.take(firsts, own), ops.take(sizes, own))
