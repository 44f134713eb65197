"""The operating points that are known exactly of scores that were counted in bins.

Contract: what a `ScoreHistogram` has counted in; `OperatingPoints` out. Only `histogram` imports this module.

    points, exact = histogram._points()
"""

import numpy as np

from keras_siamese.verification import points as at
from keras_siamese.verification.points import OperatingPoints, just_above


class Binned:
    """The part of a `ScoreHistogram` that knows at which scores its bins begin."""

    def _points(self):
        """The known operating points, and how many of the strictest ones have no unknown point between them."""
        if self._known is not None:
            return self._known
        if not (self.genuines and self.impostors):
            found = f"{self.genuines} genuine and {self.impostors} impostor pairs"
            raise ValueError(f"The histogram must hold pairs of both classes; got {found}")
        filled = np.flatnonzero(self._genuine.counts + self._impostor.counts)
        edges = self._edges(filled)
        edges[0] = self._smallest
        tallies = (self._impostor, self._genuine)
        counts = [np.concatenate(([0], np.cumsum(tally.counts[filled][::-1]))) for tally in tallies]
        # The products of the two counts stay integers as long as they fit into 64 bits.
        counts = counts if self.impostors * self.genuines < 2**60 else [count.astype(np.float64) for count in counts]
        highest = just_above(self._dtype.type(self._largest))
        coarse = OperatingPoints(np.concatenate(([highest], edges[::-1])).astype(np.float64), *counts)
        fine = None if self._kept is None else self._fine_points()
        self._known = coarse, 1
        if fine is not None:
            below = coarse.thresholds < fine.thresholds[-1]
            joined = (np.concatenate((top, rest[below])) for top, rest in zip(fine, coarse, strict=True))
            self._known = OperatingPoints(*joined), len(fine.thresholds)
        return self._known

    def _fine_points(self):
        """The operating points at single scores: all, or those above the smallest of a full tail; None if none."""
        impostors, genuines = self._tail.values(), np.concatenate(self._kept)
        if self.impostors > self.tail:
            # Of the scores equal to the smallest one of the tail, some may not have been kept.
            floor = impostors[-1]
            impostors, genuines = impostors[impostors > floor], genuines[genuines > floor]
        scores = np.concatenate((impostors, genuines)).astype(self._dtype)
        return at.operating_points(np.arange(len(scores)) >= len(impostors), scores) if len(scores) else None

    def _edges(self, indices):
        """The smallest number, in the dtype of the scores, that falls into bin `indices (k,)` or a higher one."""
        indices = indices.astype(np.float64)
        middle = self.low + indices / self._scale
        # Three rounding errors separate an edge from its formula; it is found by bisection within this distance.
        apart = 16 * np.spacing(max(abs(self.low), abs(self.high)))
        below, above = middle - apart, middle + apart
        while True:
            middle = below + (above - below) / 2
            inside = (below < middle) & (middle < above)
            if not inside.any():
                break
            reached = self._positions(middle) >= indices
            above, below = np.where(inside & reached, middle, above), np.where(inside & ~reached, middle, below)
        with np.errstate(over="ignore"):
            rounded = above.astype(self._dtype)
        return np.where(rounded.astype(np.float64) < above, just_above(rounded), rounded).astype(np.float64)

    def _positions(self, scores, out=None):
        """Scores in units of bins, float64. Monotone in the score even after rounding, so each bin has a sharp edge."""
        out = np.empty(scores.shape) if out is None else out
        np.copyto(out, scores)
        out -= self.low
        out *= self._scale
        return out
