"""What a `ScoreHistogram` keeps of the scores: counts and moments of a class, and the largest scores.

Contract: pieces of scores in, in any order; memory of fixed size. Only `histogram` imports this module.

    tally = Tally(bins=100)
    tally.add(np.bincount(indices, minlength=100), moments(positions))
    largest = Largest(10)
    largest.add(scores), largest.values()
"""

import math

import numpy as np

# Pieces of values that are held before the largest are selected.
PIECES = 1 << 16


class Tally:
    """Counts of one class by bin, `(bins,)`, and the `moments` of its scores, in units of bins."""

    def __init__(self, bins):
        self.counts, self.moments = np.zeros(bins, np.int64), (0, 0.0, 0.0)

    def add(self, counts, moments):
        self.counts += counts
        (pairs, mean, squares), (more, other_mean, other_squares) = self.moments, moments
        if more:
            total, gap = pairs + more, other_mean - mean
            squares += other_squares + gap * gap * (pairs / total) * more
            self.moments = total, mean + gap * (more / total), squares


class Largest:
    """The `size` largest of all added values, in memory O(size)."""

    def __init__(self, size):
        self.size, self.floor = size, -math.inf  # only values above the floor matter
        self._pieces, self._held = [], 0

    def add(self, values):
        self._pieces.append(values)
        self._held += len(values)
        if self._held >= 2 * self.size or len(self._pieces) > PIECES:
            values = np.concatenate(self._pieces)
            if len(values) > self.size:
                values = np.partition(values, len(values) - self.size)[-self.size :].copy()
            if len(values) == self.size:
                self.floor = float(values.min())
            self._pieces, self._held = [values], len(values)

    def values(self):
        """Sorted, the largest first."""
        if not self._pieces:
            return np.empty(0, np.float16)
        return np.sort(np.concatenate(self._pieces))[::-1][: self.size]
