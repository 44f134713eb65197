"""Which triplets of a batch count, in O(batch²) memory: walks over the positives of every anchor at once, and counts by
sorting.

Contract: a `Rows` and its distances in; sums by anchor `(rows,)` out, whose gradient is exact. A walk visits, at step
k, the k-th positive of every anchor against all of its negatives, one `(rows, batch)` matrix a step, as many steps as
the largest identity has positives. It is a loop with a length that depends on the data, which no backend differentiates
backwards, so it sums up the derivative by each distance as it goes, and `with_gradient` attaches it.

    total, active, slopes = all_triplets(rows, margin=0.2)
    total = with_gradient(total, slopes, rows.matrix)        # (rows,)
"""

from keras import ops

from keras_siamese.ops import LOWEST, column, count, masked_max, masked_min

# Up to this many positives an anchor, the walk is faster than sorting; beyond, its time grows with batch³.
WALK_UP_TO = 32


def with_gradient(total, slopes, matrix):
    """`total` `(rows,)` with the derivatives `slopes` `(rows, batch)` by the entries of `matrix` `(rows, batch)`."""
    moved = ops.stop_gradient(slopes) * (matrix - ops.stop_gradient(matrix))
    return ops.stop_gradient(total) + ops.sum(moved, axis=1)


def over_positives(rows, step, state, start=1):
    """`state` after `step(chosen, positive, valid, *state)` for each k-th positive of all rows.

    Args:
        rows: a `Rows`.
        step: given the column of the positive as a mask `(rows, batch)`, its entry of `rows.matrix` `(rows, 1)`, and
            whether the row has a k-th positive `(rows, 1)`; returns the new state.
        state: a tuple of tensors.
        start: 1, or 0 to visit the row itself first, as one more of its positives.
    """
    matrix, largest = ops.stop_gradient(rows.matrix), rows.largest()

    def body(k, *state):
        columns, valid = rows.partner(k)
        columns, valid = column(columns), column(valid)
        entry = ops.take_along_axis(matrix, columns, axis=1)
        return (k + 1, *step((rows.columns == columns) & valid, entry, valid, *state))

    return ops.while_loop(lambda k, *_: k < largest, body, (ops.full((), start, dtype="int32"), *state))[1:]


def zeros(rows):
    """Start of a walk's sums: `(rows,)`, `(rows,)` and `(rows, batch)`."""
    matrix = ops.stop_gradient(rows.matrix)
    return ops.zeros_like(matrix[:, 0]), ops.zeros_like(matrix[:, 0]), ops.zeros_like(matrix)


def walk_triplets(rows, cost, counts, weights):
    """Sums over all triplets of `rows` of `cost(gap)`, gap = d_ap − d_an.

    Args:
        cost: from gaps `(rows, batch)` to the cost and its derivative, each `(rows, batch)`.
        counts: from gaps to a mask of those triplets that take part.
        weights: `(rows, batch)`, of each negative; 0 elsewhere.

    Returns:
        The weighted costs `(rows,)`, the weight of the triplets that cost something `(rows,)`, and the derivative of
        the first by each distance `(rows, batch)`.
    """
    matrix = ops.stop_gradient(rows.matrix)

    def step(chosen, positive, valid, total, active, slopes):
        gap = positive - matrix
        value, slope = cost(gap)
        weight = ops.where(valid & counts(gap), weights, 0.0)
        slope = weight * slope
        total = total + ops.sum(weight * value, axis=1)
        active = active + ops.sum(ops.where(value > 0, weight, 0.0), axis=1)
        pulled = column(ops.sum(slope, axis=1))
        return total, active, slopes + ops.where(chosen, pulled, -slope)

    return over_positives(rows, step, zeros(rows))


def all_triplets(rows, margin):
    """Σ [d_ap − d_an + m]₊ over all triplets, how many are above zero, and the derivatives, as `walk_triplets` has
    them.
    """
    negative = ops.cast(rows.negative, rows.matrix.dtype)

    def hinge(gap):
        value = ops.relu(gap + margin)
        return value, ops.cast(value > 0, value.dtype)

    return ops.cond(
        rows.largest() - 1 <= WALK_UP_TO,
        lambda: walk_triplets(rows, hinge, lambda gap: gap == gap, negative),
        lambda: sorted_triplets(rows, margin),
    )


def sorted_triplets(rows, margin):
    """The same sums as `all_triplets`, in O(batch log batch) an anchor.

    A hinge is linear where it is above zero, so the sum is Σ_p c_p·(d_ap + m) − Σ_n c_n·d_an with c_p the negatives
    nearer than d_ap + m, and c_n the positives with d_ap + m beyond d_an. Both come from comparing the same two
    numbers, so they agree whatever the rounding.
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
    """Where each of `values` `(rows, n)` falls in the row's sorted `sequences` `(rows, m)`: `(rows, n)`, float.

    A binary search of all at once: Keras's own `searchsorted` takes one sequence.
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
    """Σ_p [d_ap − d_an + m]₊ with, for each positive, the nearest negative beyond it, or the farthest if none is.

    Returns:
        The sums `(rows,)`, how many are above zero `(rows,)`, and the derivatives `(rows, batch)`.
    """
    matrix = ops.stop_gradient(rows.matrix)
    farthest = column(masked_max(matrix, rows.negative))
    has_negative = column(rows.has_negative)

    def step(chosen, positive, valid, total, active, slopes):
        nearest = column(masked_min(matrix, rows.negative & (matrix > positive)))
        negative = ops.where(nearest < -LOWEST, nearest, farthest)
        value = ops.where(valid & has_negative, ops.relu(positive - negative + margin), 0.0)
        slope = ops.cast(value > 0, value.dtype)
        # Of equal distances the first takes the whole derivative.
        held = rows.negative & (matrix == negative)
        first = ops.cast(ops.argmax(ops.cast(held, "int32"), axis=1), "int32")
        pushed = rows.columns == column(first)
        slopes = slopes + slope * (ops.cast(chosen, slope.dtype) - ops.cast(pushed, slope.dtype))
        return total + value[:, 0], active + slope[:, 0], slopes

    return over_positives(rows, step, zeros(rows))


def pick(matrix, among, nearest):
    """The column of each row's smallest (`nearest`) or largest entry of `matrix` inside `among`, `(rows, batch)` both.

    Returns:
        The column `(rows,)` int32, the entry `(rows,)`, and whether there is one `(rows,)`. Of equal entries the first
        has the whole gradient.
    """
    chosen = (
        ops.argmin(ops.where(among, matrix, -LOWEST), 1) if nearest else ops.argmax(ops.where(among, matrix, LOWEST), 1)
    )
    chosen = column(ops.cast(chosen, "int32"))
    entry, found = ops.take_along_axis(matrix, chosen, axis=1), ops.take_along_axis(among, chosen, axis=1)
    return chosen[:, 0], entry[:, 0], found[:, 0]


def one_positive(rows, strategy, negative=None):
    """`pick` of a positive: the farthest ("hard"), the nearest ("easy"), or the farthest nearer than `negative`
    `(rows,)`.
    """
    among = rows.positive & (rows.matrix < column(negative)) if strategy == "semi_hard" else rows.positive
    return pick(rows.matrix, among, nearest=strategy == "easy")


def one_negative(rows, strategy, positive=None):
    """`pick` of a negative: the nearest ("hard"), the farthest ("easy"), or the nearest beyond `positive` `(rows,)`."""
    among = rows.negative & (rows.matrix > column(positive)) if strategy == "semi_hard" else rows.negative
    return pick(rows.matrix, among, nearest=strategy != "easy")


def distance_weights(rows, nearest=0.5, farthest=1.4):
    """Chance of each negative under distance-weighted sampling `(rows, batch)`; a row's sum is 1, or 0 if none may be
    drawn.

    w ∝ 1 / q(max(d, nearest)), q(d) = d^(dim−2)·(1 − d²/4)^((dim−3)/2) the density of distances on the unit sphere, for
    negatives nearer than `farthest`.
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
