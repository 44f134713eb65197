"""Selects the triplets of a batch in O(batch²) memory, by loops over the positives or by sorting.

Contract: the input is a `Rows` with distances, the output sums for each anchor `(rows,)` with exact gradients. Step k
of the loop compares the k-th positive of every anchor with all of its negatives in one `(rows, batch)` matrix; there
are as many steps as the largest identity has positives. The number of steps depends on the data, and backends cannot
differentiate such a loop. The loop therefore sums up the derivatives too, and `with_gradient` attaches them.

    total, active, slopes = all_triplets(rows, margin=0.2)
    total = with_gradient(total, slopes, rows.matrix)        # (rows,)
"""

from keras import ops

from keras_siamese.losses.batch.rows import partner
from keras_siamese.ops import LOWEST, column, count, masked_max, masked_min

# Up to this many positives for each anchor the loop is faster than sorting; with more, its time grows as batch³.
WALK_UP_TO = 32


def with_gradient(total, slopes, matrix):
    """`total` `(rows,)` with `slopes` `(rows, batch)` as its derivatives by the entries of `matrix` `(rows, batch)`."""
    moved = ops.stop_gradient(slopes) * (matrix - ops.stop_gradient(matrix))
    return ops.stop_gradient(total) + ops.sum(moved, axis=1)


def over_positives(rows, step, state, start=1):
    """Calls `step(chosen, positive, valid, *state)` for the k-th positive of all rows, k = 1, 2, …; returns `state`.

    `step` receives the column of the positive as a mask `(rows, batch)`, its entry of `rows.matrix` `(rows, 1)`, and
    whether the row has a k-th positive `(rows, 1)`; it returns the new state. `start` 0 begins with the row itself.
    """
    matrix, largest = ops.stop_gradient(rows.matrix), ops.max(rows.size)
    places = rows.batch.places.order, rows.place, rows.first, rows.size
    all_columns = rows.columns

    def body(k, *state):
        columns, valid = map(column, partner(k, *places))
        entry = ops.take_along_axis(matrix, columns, axis=1)
        return (k + 1, *step((all_columns == columns) & valid, entry, valid, *state))

    return ops.while_loop(lambda k, *_: k < largest, body, (ops.full((), start, dtype="int32"), *state))[1:]


def zeros(rows):
    """Start values of a loop's sums: `(rows,)`, `(rows,)` and `(rows, batch)`."""
    matrix = ops.stop_gradient(rows.matrix)
    return ops.zeros_like(matrix[:, 0]), ops.zeros_like(matrix[:, 0]), ops.zeros_like(matrix)


def hinge(gap, margin):
    """[gap + m]₊ and its derivative."""
    value = ops.relu(gap + margin)
    return value, ops.cast(value > 0, value.dtype)


def walk_triplets(rows, cost, weights, counts=None):
    """Sums of `cost(gap)` over the triplets of `rows`, gap = d_ap − d_an, weighted by the negatives' `weights`.

    `cost` returns the loss and its derivative for gaps `(rows, batch)`, `counts` the mask of the triplets to include.
    Returns the losses `(rows,)`, the total weight of the triplets above zero `(rows,)`, and the derivatives of the
    losses by the distances `(rows, batch)`.
    """
    matrix = ops.stop_gradient(rows.matrix)

    def step(chosen, positive, valid, total, active, slopes):
        gap = positive - matrix
        value, slope = cost(gap)
        weight = ops.where(valid if counts is None else valid & counts(gap), weights, 0.0)
        slope = weight * slope
        total = total + ops.sum(weight * value, axis=1)
        active = active + ops.sum(ops.where(value > 0, weight, 0.0), axis=1)
        pulled = column(ops.sum(slope, axis=1))
        return total, active, slopes + ops.where(chosen, pulled, -slope)

    return over_positives(rows, step, zeros(rows))


def all_triplets(rows, margin):
    """Σ [d_ap − d_an + m]₊ over all triplets; returns the same three tensors as `walk_triplets`."""
    negative = ops.cast(rows.negative, rows.matrix.dtype)
    _ = rows.positive  # computed before the branches that use them
    return ops.cond(
        ops.max(rows.size) - 1 <= WALK_UP_TO,
        lambda: walk_triplets(rows, lambda gap: hinge(gap, margin), negative),
        lambda: sorted_triplets(rows, margin),
    )


def sorted_triplets(rows, margin):
    """The same sums as `all_triplets`, in O(batch log batch) for each anchor.

    A hinge is linear where it is above zero, so the sum is Σ_p c_p·(d_ap + m) − Σ_n c_n·d_an. c_p is the number of
    negatives with d_an < d_ap + m, and c_n the number of positives with d_ap + m > d_an. Both compare the same two
    numbers, so rounding cannot make them disagree.
    """
    matrix = ops.stop_gradient(rows.matrix)
    reach, far = matrix + margin, -LOWEST
    negatives = ops.sort(ops.where(rows.negative, matrix, far), axis=1)
    reaches = ops.sort(ops.where(rows.positive, reach, far), axis=1)
    nearer = places(negatives, reach, "left")
    beyond = column(count(rows.positive)) - places(reaches, matrix, "right")
    nearer, beyond = ops.where(rows.positive, nearer, 0.0), ops.where(rows.negative, beyond, 0.0)
    total = ops.sum(nearer * reach - beyond * matrix, axis=1)
    return total, ops.sum(nearer, axis=1), nearer - beyond


def places(sequences, values, side):
    """The position of each of `values` `(rows, n)` in the row's sorted `sequences` `(rows, m)`: `(rows, n)`, float.

    This is a binary search in all rows at once; `keras.ops.searchsorted` searches one sequence.
    """
    length = ops.shape(sequences)[1]
    known = sequences.shape[1]
    low = ops.zeros_like(values, dtype="int32")
    for step in (2**power for power in reversed(range(20 if known is None else known.bit_length()))):
        reached = low + step
        entry = ops.take_along_axis(sequences, ops.minimum(reached, length) - 1, axis=1)
        before = entry < values if side == "left" else entry <= values
        low = ops.where((reached <= length) & before, reached, low)
    return ops.cast(low, values.dtype)


def semi_hard_triplets(rows, margin):
    """Σ_p [d_ap − d_an + m]₊, where n is the nearest negative with d_an > d_ap, or the farthest if there is none.

    Returns the sums `(rows,)`, how many terms are above zero `(rows,)`, and the derivatives `(rows, batch)`.
    """
    matrix = ops.stop_gradient(rows.matrix)
    farthest = column(masked_max(matrix, rows.negative))
    has_negative = column(rows.has_negative)

    def step(chosen, positive, valid, total, active, slopes):
        nearest = column(masked_min(matrix, rows.negative & (matrix > positive)))
        negative = ops.where(nearest < -LOWEST, nearest, farthest)
        value = ops.where(valid & has_negative, ops.relu(positive - negative + margin), 0.0)
        slope = ops.cast(value > 0, value.dtype)
        # Of equal distances, the first gets the whole derivative.
        held = rows.negative & (matrix == negative)
        first = ops.cast(ops.argmax(ops.cast(held, "int32"), axis=1), "int32")
        pushed = rows.columns == column(first)
        slopes = slopes + slope * (ops.cast(chosen, slope.dtype) - ops.cast(pushed, slope.dtype))
        return total + value[:, 0], active + slope[:, 0], slopes

    return over_positives(rows, step, zeros(rows))


def pick(matrix, among, nearest):
    """Chooses each row's smallest (`nearest`) or largest entry of `matrix` inside `among`, both `(rows, batch)`.

    Returns the column int32, the entry, and whether there is one, each `(rows,)`. Of equal entries, the first is chosen
    and gets the whole gradient.
    """
    choose, other = (ops.argmin, -LOWEST) if nearest else (ops.argmax, LOWEST)
    chosen = column(ops.cast(choose(ops.where(among, matrix, other), 1), "int32"))
    entry, found = ops.take_along_axis(matrix, chosen, axis=1), ops.take_along_axis(among, chosen, axis=1)
    return chosen[:, 0], entry[:, 0], found[:, 0]


def one_positive(rows, strategy, negative=None):
    """`pick` of a positive: the farthest ("hard"), the nearest ("easy"), or the farthest below `negative` `(rows,)`."""
    among = rows.positive & (rows.matrix < column(negative)) if strategy == "semi_hard" else rows.positive
    return pick(rows.matrix, among, nearest=strategy == "easy")


def one_negative(rows, strategy, positive=None):
    """`pick` of a negative: the nearest ("hard"), the farthest ("easy"), or the nearest above `positive` `(rows,)`."""
    among = rows.negative & (rows.matrix > column(positive)) if strategy == "semi_hard" else rows.negative
    return pick(rows.matrix, among, nearest=strategy != "easy")


def distance_weights(rows, nearest=0.5, farthest=1.4):
    """Probability of each negative in distance-weighted sampling `(rows, batch)`; a row without candidates has zeros.

    w ∝ 1 / q(max(d, nearest)) for negatives nearer than `farthest`, where q(d) = d^(dim−2)·(1 − d²/4)^((dim−3)/2) is
    the density of distances on the unit sphere.
    """
    distances = ops.maximum(ops.stop_gradient(rows.matrix), nearest)
    dim = rows.embeddings.shape[1]
    drawn = rows.negative & (distances < farthest)
    inside = ops.where(drawn, distances, 1.0)
    log_weights = (2.0 - dim) * ops.log(inside) - 0.5 * (dim - 3) * ops.log(1.0 - 0.25 * ops.square(inside))
    top = column(masked_max(log_weights, drawn))
    weights = ops.where(drawn, ops.exp(ops.where(drawn, log_weights - top, 0.0)), 0.0)
    total = ops.sum(weights, axis=1, keepdims=True)
    return weights / ops.where(total > 0, total, 1.0)
