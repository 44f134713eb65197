"""The operating points of many resamples of the same pairs, each of which counts a pair another number of times.

Contract: checked pairs and the things that are drawn in; figures of each resample out, exactly those of all operating
points. The pairs are ranked once, by falling score, and divided into stretches of some hundred pairs. For each resample
only the counts at the ends of stretches are kept, and one stretch is counted pair by pair where a figure is decided
inside of it. So a figure of 200 resamples of a million pairs takes a fraction of a second. Only this room imports it.

    ranked = RankedPairs(same, scores, identities)
    resamples = ranked.resample(counts)             # how often each thing was drawn, and 1, (things + 1, rows)
    resamples.read(at.eer)                          # (rows,)

Things are identities, or pairs. Weights and their sums are whole numbers. They are counted in float32, where all of
them are below 2²⁴, and added up in float64, so that nothing is rounded.
"""

import itertools

import numpy as np

from keras_siamese.verification import points as at
from keras_siamese.verification.points import OperatingPoints, just_above

WHOLE = 2**13  # pairs; up to this many, all points of a resample are kept
STRETCH = 256  # pairs; a stretch ends with the score, so it can have up to twice as many
SMALL = 15  # products of two counts up to this one fit into a byte
PIECE, GROUP = 4096, 64  # pairs whose weights are held at a time, and pairs of them that are added one by one

# The end of a stretch at or before which each figure is decided: from the points at the ends.
DECIDED: dict = {
    at.eer: lambda ends: at.crossing(ends)[0] - 1,
    at.tar_at_far: at.within,
    **dict.fromkeys((at.accuracy_at, at.fmr_at, at.fnmr_at), at.index),
}


class RankedPairs:
    """Pairs in falling order of score, to be counted many times with different weights.

    Args:
        same, scores: checked pairs, `(n,)` booleans and floats.
        identities: codes of the identities of both sides, `(n,)` each, and their number; the weight of a pair is the
            product of their counts, or the one count if both are the same. None if pairs are drawn: the weight of the
            k-th pair in falling order is the k-th count.
        whole: whether all points of a resample are kept, which is also done if there are few.
    """

    def __init__(self, same, scores, identities, whole=False):
        # Where pairs are drawn, those of equal score need the same order on every machine.
        order = np.argsort(-scores, kind="stable" if identities is None else None)
        falling = scores[order]
        self.same = same[order]
        every = np.arange(len(same))
        self.left, right, self.things = (every, every, len(same)) if identities is None else identities
        if identities is not None:
            self.left, right = self.left[order], right[order]
        # One more row of counts, always 1, is the other count of a pair that has only one.
        self.right = np.where(self.left == right, self.things, right)
        last_of_tie = np.concatenate((falling[1:] != falling[:-1], [True]))
        self.thresholds = np.concatenate(([just_above(falling[0])], falling[last_of_tie])).astype(np.float64)
        self.ends = np.concatenate(([0], 1 + np.flatnonzero(last_of_tie)))  # pairs accepted at each point
        self.whole = whole or len(same) <= WHOLE
        self.edges = _edges(self.ends)  # points at the ends of stretches
        self.starts = self.ends[self.edges]  # pairs accepted there

    def resample(self, counts):
        """The `Resamples` for whole numbers `counts (things + 1, rows)`, the last of them 1."""
        if self.whole:
            return Resamples(self, counts, self.all_points(counts), None)
        return self.end_points(counts if counts.max() <= SMALL else counts.astype(np.float64))

    def end_points(self, counts):
        """The `Resamples` with the points at the ends of stretches."""
        genuines, impostors = np.zeros((2, len(self.edges), counts.shape[1]))
        area, alone = np.zeros(counts.shape[1]), np.diff(self.starts) > 2 * STRETCH  # pairs of one score
        for low, high in itertools.pairwise(_pieces(self.starts, alone)):
            pairs = slice(self.starts[low], self.starts[high])
            if alone[low]:
                genuine, impostor = self.totals(pairs, counts)
                area += genuine * (2 * impostors[low] + impostor)
                genuines[high], impostors[high] = genuines[low] + genuine, impostors[low] + impostor
                continue
            weights, (at_genuine,) = self.weights(pairs, counts), np.nonzero(self.same[pairs])
            genuine = weights[at_genuine]
            weights[at_genuine] = 0
            of_impostor, places = running(weights), self.starts[low : high + 1] - pairs.start
            impostors[low + 1 : high + 1] = impostors[low] + of_impostor[places[1:]]
            parts = itertools.pairwise(np.searchsorted(at_genuine, places))
            of_genuine = np.stack([genuine[start:stop].sum(axis=0, dtype=np.float64) for start, stop in parts])
            genuines[low + 1 : high + 1] = genuines[low] + np.cumsum(of_genuine, axis=0)
            # For each genuine pair, the weight of the impostor pairs before its point and up to its point.
            point = np.searchsorted(self.ends, pairs.start + at_genuine, side="right")
            ahead = of_impostor[self.ends[point - 1] - pairs.start] + of_impostor[self.ends[point] - pairs.start]
            area += np.multiply(genuine, ahead, dtype=np.float64).sum(axis=0)
            area += 2 * impostors[low] * (genuines[high] - genuines[low])
        area = 2 * genuines[-1] * impostors[-1] - area
        points = OperatingPoints(self.thresholds[self.edges], impostors.T, genuines.T)
        return Resamples(self, counts, points, area)

    def all_points(self, counts):
        """The operating points of each resample."""
        counts = counts.T.astype(np.float64)
        weights = counts[:, self.left] * counts[:, self.right]
        genuines, impostors = np.zeros((2, len(weights), len(self.same) + 1))
        of_genuine = weights * self.same
        np.cumsum(of_genuine, axis=1, out=genuines[:, 1:])
        np.cumsum(weights - of_genuine, axis=1, out=impostors[:, 1:])
        if len(self.ends) <= len(self.same):
            genuines, impostors = genuines[:, self.ends], impostors[:, self.ends]
        return OperatingPoints(self.thresholds, impostors, genuines)

    def weights(self, pairs, counts):
        """Weights `(pairs, rows)` of a slice of pairs, floats."""
        found = np.take(counts, self.left[pairs], axis=0)
        found *= np.take(counts, self.right[pairs], axis=0)
        return found.astype(np.float32) if counts.dtype == np.uint8 else found

    def totals(self, pairs, counts):
        """The weights of the genuine and of the impostor pairs in a slice, `(rows,)` each."""
        genuine, impostor = np.zeros((2, counts.shape[1]))
        for start in range(pairs.start, pairs.stop, PIECE):
            piece = slice(start, min(start + PIECE, pairs.stop))
            weights, same = self.weights(piece, counts), self.same[piece]
            both, of_genuine = weights.sum(axis=0), weights[same].sum(axis=0)  # exact: below 2²⁴ where float32
            genuine, impostor = genuine + of_genuine, impostor + (both - of_genuine)
        return genuine, impostor


def running(values):
    """0 and the running sums of `values (n, rows)` over the first axis, `(n + 1, rows)`.

    NumPy's cumsum over this axis takes ten times as long: here, each step adds the rows of many groups at once.
    """
    groups = -(-len(values) // GROUP)
    sums = np.zeros((1 + groups * GROUP, values.shape[1]), values.dtype)
    sums[1 : 1 + len(values)] = values
    grouped = sums[1:].reshape(groups, GROUP, -1)
    for place in range(1, GROUP):
        grouped[:, place] += grouped[:, place - 1]
    for group in range(1, groups):
        grouped[group] += grouped[group - 1, -1]
    return sums[: 1 + len(values)]


def _pieces(starts, alone):
    """The stretches that open a piece of about `PIECE` pairs, and their number; one that is `alone` is a piece."""
    piece = starts[:-1] // PIECE
    opens = np.concatenate(([True], (piece[1:] != piece[:-1]) | alone[1:] | alone[:-1]))
    return [*np.flatnonzero(opens).tolist(), len(alone)]


def _edges(ends):
    """The points between stretches: the first and the last point, and those that start about every `STRETCH` pairs.

    More pairs of equal score than `STRETCH` are a stretch of their own.
    """
    starts, sizes = ends[:-1], np.diff(ends)
    alone = sizes > STRETCH
    opens = np.concatenate(([True], (starts[1:] // STRETCH != starts[:-1] // STRETCH) | alone[1:] | alone[:-1]))
    return np.append(np.flatnonzero(opens), len(sizes))


class Resamples:
    """Resamples of `RankedPairs`.

    Attributes:
        points: `OperatingPoints` at the ends of stretches, or all, counts `(rows, k)`.
    """

    def __init__(self, ranked, counts, points, area):
        self.ranked, self.counts, self.points, self._area = ranked, counts, points, area

    def __len__(self):
        return len(self.points.genuines)

    def usable(self):
        """The resamples in which both classes have weight."""
        kept = (self.points.genuines[:, -1] > 0) & (self.points.impostors[:, -1] > 0)
        if kept.all():
            return self
        points = self.points._replace(impostors=self.points.impostors[kept], genuines=self.points.genuines[kept])
        return Resamples(self.ranked, self.counts[:, kept], points, None if self._area is None else self._area[kept])

    def read(self, reading, *values):
        """`reading(points, *values)`, a figure of `points`, for each resample, `(rows,)`."""
        if self.ranked.whole:
            return reading(self.points, *values)
        if reading is at.auc:
            return at.auc(self.points, self._area)
        decided = np.broadcast_to(DECIDED[reading](self.points, *values), len(self))
        return reading(self._inside(np.minimum(decided, len(self.points.thresholds) - 2)), *values)

    def _inside(self, stretches):
        """The operating points of a stretch for each row, `(rows,)`, and the last point, which accepts all pairs.

        Points may be repeated. The thresholds are those of the first row.
        """
        ranked, rows = self.ranked, np.arange(len(self))
        start, stop = ranked.starts[stretches], ranked.starts[stretches + 1]
        stop = np.where(ranked.edges[stretches + 1] - ranked.edges[stretches] == 1, start, stop)
        pairs = start[:, None] + np.arange((stop - start).max())
        inside, pairs = pairs < stop[:, None], np.minimum(pairs, len(ranked.same) - 1)
        weights = self.counts[ranked.left[pairs], rows[:, None]].astype(np.float64)
        weights *= self.counts[ranked.right[pairs], rows[:, None]] * inside
        # The last point at or before each number of pairs from `start` on.
        reached = np.minimum(start[:, None] + np.arange(pairs.shape[1] + 1), stop[:, None])
        point = np.searchsorted(ranked.ends, reached, side="right") - 1
        places = ranked.ends[point] - start[:, None]
        counted = []
        for wanted, known in ((~ranked.same, self.points.impostors), (ranked.same, self.points.genuines)):
            sums = np.zeros(reached.shape)
            np.cumsum(weights * wanted[pairs], axis=1, out=sums[:, 1:])
            sums = np.take_along_axis(sums, places, axis=1) + known[rows, stretches][:, None]
            counted.append(np.column_stack((sums, known[rows, stretches + 1], known[:, -1])))
        last = ranked.thresholds[ranked.edges[stretches[0] + 1]]
        return OperatingPoints(np.concatenate((ranked.thresholds[point[0]], [last, -np.inf])), *counted)
