"""Operating points: how many impostor and genuine pairs each distinct threshold accepts.

Contract: checked pairs in, `OperatingPoints` out, from reject-all (a threshold just above the largest score) down to
accept-all (the smallest score). A pair is accepted iff score ≥ threshold; equal scores share a point. Counts may be
weighted and may have leading axes, such as one row for each resample. All functions below work along the last axis, so
the same line of code computes a figure and its bootstrap replicates. Only this room imports it.

    points = operating_points(same, scores)         # counts (k,), one sort
    auc(points), eer(points)                        # floats
"""

import math
from typing import NamedTuple

import numpy as np


class OperatingPoint(NamedTuple):
    """One threshold and its two error rates, each in [0, 1]."""

    threshold: float
    fmr: float
    fnmr: float


class OperatingPoints(NamedTuple):
    """All k operating points, strictest first.

    Attributes:
        thresholds: `(k,)` float64, strictly falling; the first accepts no pair, the last accepts every pair.
        impostors, genuines: `(..., k)` numbers or weights of accepted pairs, rising from 0 to the total of the class.
    """

    thresholds: np.ndarray
    impostors: np.ndarray
    genuines: np.ndarray

    @property
    def fmr(self):
        return self.impostors / self.impostors[..., -1:]

    @property
    def tar(self):
        return self.genuines / self.genuines[..., -1:]

    @property
    def fnmr(self):
        # Computed from counts: 1 − TAR would differ from the quotient of counts in the last digit.
        return (self.genuines[..., -1:] - self.genuines) / self.genuines[..., -1:]


def operating_points(same, scores):
    """The operating points of checked pairs: `same (n,)` booleans, `scores (n,)` floats.

    Sorting values is several times faster than sorting indices. So all scores are sorted without their labels; then the
    smaller class is sorted and looked up among the distinct scores, and the counts of the larger class are the rest.
    """
    ordered = np.sort(scores)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    distinct = ordered[starts]
    few_are_genuine = 2 * np.count_nonzero(same) <= len(same)
    few = np.sort(scores[same if few_are_genuine else ~same])
    few = np.bincount(np.searchsorted(distinct, few), minlength=len(distinct))
    few = np.concatenate(([0], np.cumsum(few[::-1])))
    many = np.concatenate(([0], len(scores) - starts[::-1])) - few
    thresholds = np.concatenate(([just_above(distinct[-1])], distinct[::-1])).astype(np.float64)
    return OperatingPoints(thresholds, many, few) if few_are_genuine else OperatingPoints(thresholds, few, many)


def just_above(score):
    """The lowest threshold that rejects the score: the next number of its dtype (infinity after the largest one)."""
    with np.errstate(over="ignore"):
        return np.nextafter(score, score.dtype.type(np.inf))


def auc(points, area=None):
    """Area under TAR over FMR by the trapezoidal rule, which equals the rank statistic with ties at ½; `(...)`.

    `area (...)` is twice the area in units of the counts, where it is known from more points than these.
    """
    if area is None:
        width = np.diff(points.impostors, axis=-1)
        twice_height = points.genuines[..., 1:] + points.genuines[..., :-1]
        area = np.einsum("...k,...k->...", width, twice_height)
    return area / (2 * points.genuines[..., -1] * points.impostors[..., -1])


def crossing(points):
    """The first point with FMR ≥ FNMR, `(...)` indices of at least 1, and FMR − FNMR times both totals, `(..., k)`."""
    genuines, impostors = points.genuines[..., -1:], points.impostors[..., -1:]
    excess = points.impostors * genuines + points.genuines * impostors - genuines * impostors
    return np.argmax(excess >= 0, axis=-1), excess


def eer(points):
    """The error rate at which the line between the two points around FMR = FNMR crosses it; `(...)`."""
    after, excess = crossing(points)
    below, above = at(excess, after - 1), at(excess, after)
    share = below / (below - above)
    accepted = at(points.impostors, after - 1) * (1 - share) + at(points.impostors, after) * share
    return accepted / points.impostors[..., -1]


def nearest_to_eer(points):
    """The `OperatingPoint` with the smallest |FMR − FNMR|, the stricter of two; counts without leading axes."""
    after, excess = crossing(points)
    nearest = after if excess[after] < -excess[after - 1] else after - 1
    return OperatingPoint(float(points.thresholds[nearest]), float(points.fmr[nearest]), float(points.fnmr[nearest]))


def accuracies(points):
    """Accuracy at each point: (accepted genuine + rejected impostor pairs) / all pairs; `(..., k)`."""
    right = points.genuines + points.impostors[..., -1:] - points.impostors
    return right / (points.genuines[..., -1:] + points.impostors[..., -1:])


def best_accuracy(points):
    """The largest accuracy of all points; `(...)`."""
    return accuracies(points).max(axis=-1)


def best_point(points):
    """The largest accuracy and the highest threshold that reaches it; counts without leading axes."""
    right = accuracies(points)
    best = int(np.argmax(right))
    return float(right[best]), float(points.thresholds[best])


def cheapest_point(points, miss, false_accept):
    """The smallest miss·FNMR + false_accept·FMR and the highest threshold with it; counts without leading axes."""
    costs = miss * points.fnmr + false_accept * points.fmr
    best = int(np.argmin(costs))
    return float(costs[best]), float(points.thresholds[best])


def within(points, far):
    """The last point whose FMR is at most `far`; `(...)` indices."""
    return np.count_nonzero(points.fmr <= far, axis=-1) - 1


def tar_at_far(points, far):
    """The largest TAR of the points whose FMR is at most `far`; `(...)`."""
    return at(points.tar, within(points, far))


def accuracy_at(points, threshold):
    """The accuracy at `threshold`; `(...)`."""
    return accuracies(points)[..., index(points, threshold)]


def fmr_at(points, threshold):
    """The FMR at `threshold`; `(...)`."""
    return points.fmr[..., index(points, threshold)]


def fnmr_at(points, threshold):
    """The FNMR at `threshold`; `(...)`."""
    return points.fnmr[..., index(points, threshold)]


def moments(values):
    """Number, mean and sum of squared deviations of float64 `values (n,)`, which are overwritten."""
    # Relative to the first value, so that equal values have deviations of exactly 0.
    first = float(values[0])
    values -= first
    mean = float(values.mean())
    # Not numpy.dot, whose threads wait for each other on arrays this small.
    squares = float(np.square(values, out=values).sum()) - len(values) * mean * mean
    return len(values), first + mean, max(0.0, squares)


def decidability(genuine, impostor):
    """d′ of two classes, each given by its `moments`."""
    gap = abs(genuine[1] - impostor[1])
    spread = math.sqrt((genuine[2] / genuine[0] + impostor[2] / impostor[0]) / 2)
    return gap / spread if spread else math.inf if gap > 0 else 0.0


def at(values, index):
    """`values (..., k)` at `index (...)`."""
    return np.take_along_axis(values, np.expand_dims(index, -1), axis=-1)[..., 0]


def index(points, threshold):
    """The point that accepts exactly the pairs whose score is at least `threshold`."""
    # The thresholds after the first one are the distinct scores.
    return int(np.searchsorted(-points.thresholds[1:], -threshold, side="right"))
