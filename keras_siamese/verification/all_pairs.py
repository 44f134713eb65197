"""All pairs of a set of embeddings, scored block by block into a `ScoreHistogram`.

Contract: `embeddings (n, dim)` and `labels (n,)` in; the histogram of all n(n − 1)/2 scores −distance out, in memory
O(cores · (block² + bins)), never O(n²). "cosine", "euclidean" and "squared_euclidean" run in NumPy, other distances in
Keras. Anything above `distances` may import it.

    histogram = compare_embeddings(embeddings, labels)
    histogram.tar_at_far(1e-5), histogram.eer(), histogram.eer_error_bound()
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_finite, check_integer, check_labels, check_number
from keras_siamese._types import ArrayLike, DistanceLike
from keras_siamese.verification.histogram import SLACK, ScoreHistogram
from keras_siamese.verification.pairs import check_embeddings, progress_bar


def compare_embeddings(
    embeddings: ArrayLike,
    labels: ArrayLike,
    distance: DistanceLike = "cosine",
    *,
    far: float = 1e-5,
    bins: int = 65_536,
    block: int | None = None,
    progress: bool = False,
) -> ScoreHistogram:
    """Scores all n(n − 1)/2 unordered pairs of n embeddings, each once, into a `ScoreHistogram`: score = −distance.

    The matrix of all pairs is never in memory as a whole. Each core needs O(block² + bins) memory, and the impostor
    scores that are kept need O(far · pairs). "cosine", "euclidean" and "squared_euclidean" run in NumPy, in the dtype
    of the embeddings (at least float32). Counting takes about as long as two matrix products. Other distances are
    computed block by block by `distances.get(distance).pairwise`. Those without bounds that hold for all embeddings are
    computed twice: the first pass finds the bounds of the scores.

    Bounds of the scores: cosine [−2, 0], Euclidean [−2r, 0], squared Euclidean [−4r², 0]. For embeddings of unit norm r
    is 1; otherwise it is their largest norm about the origin or about their mean, whichever is smaller.

    Args:
        embeddings: `(n, dim)` finite numbers, n ≥ 3.
        labels: `(n,)` identities, integers or strings: at least two, one of them with at least two embeddings.
        distance: a symmetric distance: a name, an instance, or a function `(a, b) → (n,)`.
        far: the smallest false match rate of interest, in (0, 1]. The largest max(1000, 10 · far · impostors) impostor
            scores (or all, if there are fewer) are kept.
        bins: number of bins, ≥ 2.
        block: number of rows and columns scored at a time; None chooses a size that suits the distance.
        progress: whether to show a Keras progress bar.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(600) // 4
    >>> histogram = compare_embeddings(rng.normal(size=(150, 32))[labels] + rng.normal(size=(600, 32)), labels)
    >>> histogram.genuines, histogram.impostors, round(histogram.tar_at_far(0.01), 3)
    (900, 178800, 0.791)
    """
    embeddings = check_embeddings(embeddings)
    codes = np.unique(check_labels("labels", labels, length=len(embeddings)), return_inverse=True)[1].ravel()
    far = check_number("far", far, low=0, high=1, open_low=True)
    bins = check_integer("bins", bins, low=2)
    members = np.bincount(codes)
    genuines = int((members * (members - 1) // 2).sum())
    impostors = len(codes) * (len(codes) - 1) // 2 - genuines
    if not (genuines and impostors):
        found = f"{len(members)} identities of {len(codes)} embeddings"
        found += f", {genuines} genuine and {impostors} impostor pairs"
        raise ValueError(f"`labels` must name at least two identities, and one of them at least twice; got {found}")
    order = np.argsort(codes, kind="stable")
    embeddings, codes = embeddings[order], codes[order]
    score, bounds, suited = scorer(embeddings, distance)
    block = suited if block is None else check_integer("block", block, low=1)
    slices = [slice(start, start + block) for start in range(0, len(codes), block)]
    pairs_of_slices = [(rows, columns) for place, rows in enumerate(slices) for columns in slices[place:]]
    move_on = progress_bar(len(pairs_of_slices) * (1 if bounds else 2), "block", progress)
    if bounds is None:
        lowest, highest = math.inf, -math.inf
        for rows, columns in pairs_of_slices:
            scores = check_finite("distance", score(rows, columns))
            lowest, highest = min(lowest, float(scores.min())), max(highest, float(scores.max()))
            move_on(1)
        # If all scores are equal, the bounds need some room between them.
        bounds = (lowest, highest) if lowest < highest else (lowest - 0.5, highest + 0.5)

    tail = max(1000, math.ceil(10 * far * impostors))
    histogram = ScoreHistogram(*bounds, bins=bins, tail=min(tail, impostors), distance=distance)

    def jobs():
        for rows, columns in pairs_of_slices:
            job = partial(compared_block, score, codes, rows, columns)
            # Keras has settings of a thread, so its functions are called in this one.
            yield job if runs_in_numpy(distance) else partial(list, tuple(job()))
            move_on(1)

    histogram._count(jobs(), name="distance")
    return histogram


def compared_block(score, codes, rows, columns):
    """The scores of two slices of embeddings, as parts of one class each; see `classes_of`."""
    return classes_of(score(rows, columns), codes[rows], codes[columns], rows == columns)


def classes_of(scores, left, right, diagonal):
    """Yields `(is genuine, scores)` for parts of a block whose `left` and `right` identities are each sorted.

    A diagonal block has each pair twice, so only its upper triangle is used.
    """
    if diagonal:
        same, once = left[:, None] == right, np.triu(np.ones(scores.shape, bool), 1)
        yield True, scores[same & once]
        yield False, scores[~same & once]
    elif left[-1] < right[0] or right[-1] < left[0]:
        yield False, scores
    else:  # only rows and columns of common identities can have genuine pairs
        low, high = max(left[0], right[0]), min(left[-1], right[-1])
        row, end = np.searchsorted(left, low), np.searchsorted(left, high, side="right")
        column, last = np.searchsorted(right, low), np.searchsorted(right, high, side="right")
        inner = scores[row:end, column:last]
        same = left[row:end, None] == right[column:last]
        yield True, inner[same]
        yield False, inner[~same]
        yield from (
            (False, part) for part in (scores[:row], scores[end:], scores[row:end, :column], scores[row:end, last:])
        )


def scorer(embeddings, distance):
    """Returns `score(rows, columns)` of two slices, its bounds (or None), and a suitable block size."""
    distance = distances.get(distance)
    if not runs_in_numpy(distance):
        return _by_keras(embeddings, distance)
    return *QUICK[type(distance)](embeddings), 1024


def runs_in_numpy(distance):
    """Whether `scorer` computes the `distance` with NumPy alone."""
    return type(distances.get(distance)) in QUICK


def _norms(embeddings):
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    if not np.isfinite(norms).all():
        raise ValueError(f"`embeddings` must have norms that float64 can hold; {(~np.isfinite(norms)).sum()} overflow")
    return norms


def _cosine(embeddings):
    norms = _norms(embeddings)[:, None]
    # As in distances.CosineDistance, a vector this short has no direction: its distance to every other one is 1.
    directions = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 1e-6, casting="same_kind")

    def score(rows, columns):
        scores = directions[rows] @ directions[columns].T
        scores -= 1
        return np.clip(scores, -2, 0, out=scores)

    return score, (-2.0, 0.0)


def _squared_euclidean(embeddings):
    radius = _norms(embeddings)
    # Centred, so that rounding errors are relative to the spread of the embeddings, not to their offset.
    centred = embeddings - embeddings.mean(axis=0)
    own = np.einsum("nd,nd->n", centred, centred)
    unit = np.abs(radius - 1).max() <= SLACK
    radius = 1.0 if unit else min(radius.max(), _norms(centred).max()) or 1.0
    # As in distances.squared_differences: the computed distance of equal vectors can be up to 20 units of rounding.
    rounding = 20 * np.finfo(own.dtype).eps * own

    def score(rows, columns):
        scores = (2 * centred[rows]) @ centred[columns].T
        scores -= own[rows, None]
        scores -= own[columns]
        scores[scores >= -rounding[rows, None]] = 0
        return scores

    return score, (-4.0 * float(radius) ** 2, 0.0)


def _euclidean(embeddings):
    squared, (lowest, _) = _squared_euclidean(embeddings)

    def score(rows, columns):
        scores = squared(rows, columns)
        np.sqrt(np.negative(scores, out=scores), out=scores)
        return np.negative(scores, out=scores)

    return score, (-math.sqrt(-lowest), 0.0)


def _by_keras(embeddings, distance):
    def score(rows, columns):
        scores = -ops.convert_to_numpy(distance.pairwise(embeddings[rows], embeddings[columns]))
        if rows == columns and np.abs(scores - scores.T).max() > 0.01 * np.abs(scores).max():
            raise ValueError(f"`distance` must be symmetric, because a pair has no order; got {distance!r}")
        return scores

    low, high = distance.bounds
    bounds = (-high, -low) if distance.scale_free and math.isfinite(high - low) else None
    # The differences of all pairs of a block, dim numbers each, then take at most 128 MB in float32.
    return score, bounds, min(1024, max(16, math.isqrt(2**25 // embeddings.shape[1])))


QUICK = {
    distances.CosineDistance: _cosine,
    distances.EuclideanDistance: _euclidean,
    distances.SquaredEuclideanDistance: _squared_euclidean,
}
