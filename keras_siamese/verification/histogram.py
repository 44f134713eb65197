"""Verification over more pairs than fit in memory: scores are counted in bins as they arrive.

Contract: `same (n,)` and `scores (n,)`, larger = more similar, in, in any order and any number of pieces; the figures
of `curves` out, each either exact or with a bound on its error. Memory is O(bins + tail), whatever the number of pairs.
Anything above `distances` may import it.

    histogram = ScoreHistogram(-2, 0)
    histogram.add(same, scores)                                 # once for each piece
    histogram.tar_at_far(1e-5), histogram.eer(), histogram.eer_error_bound()
    print(histogram)
"""

from __future__ import annotations

import collections
import copy
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_siamese import distances
from keras_siamese._checks import check_finite, check_integer, check_number, check_same
from keras_siamese._tables import aligned
from keras_siamese._types import ArrayLike, DistanceLike
from keras_siamese.distances import Distance
from keras_siamese.verification import points as at
from keras_siamese.verification.binned import Binned
from keras_siamese.verification.costs import check_costs
from keras_siamese.verification.evidence import rule_of_30, tar_note
from keras_siamese.verification.pairs import check_scores
from keras_siamese.verification.points import OperatingPoint, OperatingPoints, just_above
from keras_siamese.verification.tallies import Largest, Tally

# Number of scores counted at a time, so that intermediate results stay in the processor's cache.
CHUNK = 1 << 16
# How far outside the bounds rounding may put a score, as a share of the distance between the bounds.
SLACK = 1e-5


class Counted(NamedTuple):
    """What a `ScoreHistogram` adds for some parts of the scores."""

    tallies: dict[bool, Tally]  # by class; True is genuine
    extremes: list[float]  # the smallest and the largest score are among them
    tail: list[np.ndarray]  # the impostor scores that may be among the largest
    kept: list[np.ndarray]  # the genuine scores
    dtypes: list[np.dtype[Any]]


def by_class(scores, same):
    """The `scores` `(n,)` of genuine and of impostor pairs, as parts for `_count`."""
    return (True, scores[same]), (False, scores[~same])


def rounded_down(number, kind):
    """The largest number of the dtype `kind` that is at most `number`."""
    nearest = kind(number)
    return np.nextafter(nearest, kind(-math.inf)) if float(nearest) > number else nearest


class ScoreHistogram(Binned):
    """Counts genuine and impostor scores in equal bins over [low, high] and keeps the largest impostor scores.

    Exact values are kept of the `tail` largest impostor scores, of the smallest and the largest score, and of the
    genuine scores as long as there are at most bins + tail of them. This gives a set of exact operating points: one at
    the lower edge of each bin that is not empty and, while the genuine scores are kept, one at each distinct score
    above the smallest impostor score kept. The figures are those of `curves`, computed from these points only:

    - FMR at any returned threshold: exact, so never above the requested rate.
    - TAR at an FMR: exact if the threshold is in the tail and the genuine scores are kept. Otherwise it is never too
      high, and too low by at most the genuine pairs of one bin (`tar_error_bound`).
    - AUC, where ties within a bin count half, and EER: wrong by at most `auc_error_bound` and `eer_error_bound`.
    - Best accuracy: exact for its threshold; a better threshold inside a bin is not found.
    - d′: exact up to rounding; sums are merged as in Tony F. Chan, Gene H. Golub, Randall J. LeVeque, "Algorithms for
      computing the sample variance: analysis and recommendations", The American Statistician 37, 1983,
      https://doi.org/10.1080/00031305.1983.10483115.

    The result does not depend on the order of the scores or on how they are split into pieces, except for the last
    digits of d′. A score that is outside the bounds by at most 1e-5 of their distance is treated as a rounding error:
    it is counted in the outermost bin, and keeps its value where values are kept.

    Args:
        low, high: lower and upper bound of the scores, finite; `high` is above `low`.
        bins: number of bins, ≥ 2.
        tail: number of the largest impostor scores to keep, ≥ 1. FMRs up to tail / impostors are exact to one score.
        distance: the distance whose negative the scores are, a name or a `Distance`; None for other scores.
          `Verifier.calibrate` refuses the histogram of another distance than its model's.

    >>> rng = np.random.default_rng(0)
    >>> histogram = ScoreHistogram(-8, 8)
    >>> for _ in range(10):
    ...     same = np.arange(20_000) % 2
    ...     histogram.add(same, np.clip(rng.normal(size=20_000) + 3 * same, -8, 8))
    >>> print(histogram)
    Histogram of 200,000 pairs: 100,000 genuine, 100,000 impostor, in bins of 0.000244
                         value  error at most
    EER                 0.0678        2.9e-05  at threshold 1.50391
    AUC                 0.9826        3.7e-06
    d′                  2.9931
    TAR at FMR ≤ 0.01   0.7416        1.3e-04  at threshold 2.35034
    TAR at FMR ≤ 0.001  0.4521        6.0e-05  at threshold 3.12076
    """

    def __init__(
        self, low: float, high: float, bins: int = 65_536, tail: int = 1000, distance: DistanceLike | None = None
    ) -> None:
        self.distance = None if distance is None else distances.get(distance)
        self.low, self.high = check_number("low", low), check_number("high", high)
        self.bins, self.tail = check_integer("bins", bins, low=2), check_integer("tail", tail, low=1)
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; got low={low!r}, high={high!r}")
        with np.errstate(all="ignore"):
            self._scale = self.bins / np.float64(self.high - self.low)
        if not (0 < self._scale < math.inf and math.isfinite(self.high - self.low)):
            raise ValueError(f"`low` and `high` must be finite, with bins of finite width; got {low!r}, {high!r}")
        self._genuine, self._impostor = Tally(self.bins), Tally(self.bins)
        self._tail = Largest(self.tail)
        self._kept = []  # the genuine scores; None when there are too many
        self._dtype = None
        self._smallest, self._largest = math.inf, -math.inf
        self._known = None  # the operating points, computed when needed
        slack = SLACK * (self.high - self.low)
        self._allowed = self.low - slack, self.high + slack

    def add(self, same: ArrayLike, scores: ArrayLike) -> None:
        """Counts pairs. If an error is raised, none of them is counted.

        Args:
            same: `(n,)` labels, 1 genuine, 0 impostor; they may all be of one class.
            scores: `(n,)` finite scores within the bounds, larger = more similar.
        """
        scores = check_scores(scores)
        same = check_same("same", same, length=len(scores))
        self._check("scores", scores)
        starts = range(0, len(scores), 4 * CHUNK)
        pieces = ((scores[start : start + 4 * CHUNK], same[start : start + 4 * CHUNK]) for start in starts)
        self._count((partial(by_class, *piece) for piece in pieces), threads=len(starts) > 2)

    def merge(self, other: ScoreHistogram) -> None:
        """Adds the pairs of `other`, a `ScoreHistogram` with the same bounds, bins and tail."""
        if not isinstance(other, ScoreHistogram):
            raise TypeError(f"`other` must be a ScoreHistogram; got {other!r}")
        own, others = ((each.low, each.high, each.bins, each.tail) for each in (self, other))
        if own != others:
            raise ValueError(f"`other` must have (low, high, bins, tail) = {own}; got {others}")
        if self.distance is not None and other.distance is not None and not self.has_distance(other.distance):
            raise ValueError(f"`other` must have scores of {self.distance!r}; got those of {other.distance!r}")
        self.distance = self.distance or other.distance
        if other._dtype is None:
            return
        self._genuine.add(other._genuine.counts, other._genuine.moments)
        self._impostor.add(other._impostor.counts, other._impostor.moments)
        self._tail.add(other._tail.values())
        self._keep(other._kept or [])
        self._saw(other._smallest, other._largest, other._dtype)

    def _state(self):
        """All that was counted, as arrays by name, for `_set_state` of a histogram with the same arguments."""
        kept = [] if self._kept is None else self._kept
        return {
            "counts": np.stack([self._genuine.counts, self._impostor.counts]),
            "pairs": np.array([self.genuines, self.impostors], np.int64),
            "moments": np.array([self._genuine.moments[1:], self._impostor.moments[1:]], np.float64),
            "tail": self._tail.values(),
            "kept": np.concatenate(kept) if kept else np.empty(0, self._dtype),
            "keeps": np.array(self._kept is not None),
            "range": np.array([self._smallest, self._largest], np.float64),
            "dtype": np.array(str(self._dtype)),
        }

    def _set_state(self, state):
        """Takes over what `_state` of another histogram has returned."""
        self._dtype = None if str(state["dtype"]) == "None" else np.dtype(str(state["dtype"]))
        self._smallest, self._largest = map(float, state["range"])
        self._genuine, self._impostor, self._tail = Tally(self.bins), Tally(self.bins), Largest(self.tail)
        for row, tally in enumerate((self._genuine, self._impostor)):
            tally.add(state["counts"][row], (int(state["pairs"][row]), *map(float, state["moments"][row])))
        self._tail.add(state["tail"])
        self._kept = [state["kept"]] if state["keeps"] else None
        self._known = None

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        if not isinstance(other, ScoreHistogram):
            return NotImplemented
        total = copy.deepcopy(self)
        total.merge(other)
        return total

    def _check(self, name, scores):
        """Raises unless `scores`, of any shape, are finite and within the bounds."""
        if scores.size and not self._allows(scores.min(), scores.max()):
            low, high = self._allowed
            scores = check_finite(name, scores).astype(np.float64)
            outside = np.count_nonzero((scores < low) | (scores > high))
            found = f"{outside} of {scores.size} are outside; got scores from {scores.min():g} to {scores.max():g}"
            raise ValueError(f"`{name}` must give scores in [{self.low:g}, {self.high:g}]; {found}")

    def _allows(self, smallest, largest):
        """Whether scores between these are within the bounds, up to rounding; not if one is NaN."""
        low, high = self._allowed
        return float(smallest) >= low and float(largest) <= high

    def _count(self, jobs, name="scores", threads=True):
        """Counts what `jobs`, functions without arguments, return: parts `(is genuine, floats)` of one class each.

        The floats are `(n,)` or `(rows, columns)`; `name` is for the error about scores outside the bounds. NumPy
        releases the interpreter's lock, so threads share the jobs, each with one thread of the linear algebra library.
        Results are added in the order of the jobs, so that they do not depend on the threads.
        """
        if not threads:
            for job in jobs:
                self._add_counted(self._counted(job, name))
            return
        import joblib  # both come with scikit-learn; imported here because they are slow to import
        from threadpoolctl import threadpool_limits

        workers, waiting = joblib.cpu_count(), collections.deque()
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
            for job in jobs:
                waiting.append(pool.submit(self._counted, job, name))
                if len(waiting) > 2 * workers:
                    self._add_counted(waiting.popleft().result())
            for counted in waiting:
                self._add_counted(counted.result())

    def _counted(self, job, name):
        """The `Counted` scores that `job()` returns."""
        tallies, extremes, tail, kept, dtypes = {}, [], [], [], []
        for genuine, scores in job():
            if not scores.size:
                continue
            tally = tallies.setdefault(genuine, Tally(self.bins))
            # At least two scores for each bin, so that adding the counts of all bins does not dominate the time.
            step = max(1, max(CHUNK, 2 * self.bins) * len(scores) // scores.size)
            room = np.empty(scores[:step].size), np.empty(scores[:step].size, np.int32)
            floor = None if genuine else rounded_down(self._tail.floor, scores.dtype.type)
            for start in range(0, len(scores), step):
                piece = scores[start : start + step]
                smallest, largest = piece.min(), piece.max()
                if not self._allows(smallest, largest):
                    self._check(name, scores)
                extremes += float(smallest), float(largest)
                tally.add(*self._counts_and_moments(piece, extremes[-2:], *room))
                if not genuine and largest > floor:
                    tail.append(piece[piece > floor])
            dtypes.append(scores.dtype)
            if genuine:
                kept.append(scores.flatten())
        return Counted(tallies, extremes, tail, kept, dtypes)

    def _counts_and_moments(self, piece, extremes, positions, indices):
        """The counts `(bins,)` and the moments of a piece of scores; the last two arrays are overwritten."""
        positions, indices = positions[: piece.size], indices[: piece.size]
        self._positions(piece, out=positions.reshape(piece.shape))
        np.copyto(indices, positions, casting="unsafe")
        smallest, largest = self._positions(np.array(extremes))
        if smallest < 0 or largest >= self.bins:
            np.clip(indices, 0, self.bins - 1, out=indices)
        return np.bincount(indices, minlength=self.bins), at.moments(positions)

    def _add_counted(self, counted):
        """Adds `Counted` scores."""
        for genuine, tally in counted.tallies.items():
            (self._genuine if genuine else self._impostor).add(tally.counts, tally.moments)
        for scores in counted.tail:
            self._tail.add(scores)
        if counted.kept:
            self._keep(counted.kept)
        for dtype in counted.dtypes:
            self._saw(min(counted.extremes), max(counted.extremes), dtype)

    def _keep(self, pieces):
        if self._kept is not None and self.genuines <= self.bins + self.tail:
            self._kept += pieces
        else:
            self._kept = None

    def _saw(self, smallest, largest, dtype):
        self._smallest, self._largest = min(self._smallest, smallest), max(self._largest, largest)
        self._dtype = dtype if self._dtype is None else np.promote_types(self._dtype, dtype)
        self._known = None

    def has_distance(self, distance: Distance) -> bool:
        """Whether the scores are known to be those of `distance`."""
        own = self.distance
        is_layer = hasattr(own, "weights")  # learned: only the very same one has these weights
        return own is distance or (type(own) is type(distance) and not is_layer and vars(own) == vars(distance))

    @property
    def genuines(self) -> int:
        """Number of genuine pairs."""
        return self._genuine.moments[0]

    @property
    def impostors(self) -> int:
        """Number of impostor pairs."""
        return self._impostor.moments[0]

    @property
    def error_bound(self) -> float:
        """Width of a bin, in units of the score."""
        return (self.high - self.low) / self.bins

    def operating_points(self) -> OperatingPoints:
        """The operating points that are known exactly, strictest first.

        `OperatingPoints(thresholds, impostors, genuines)`, `(k,)` each: thresholds in the dtype of the scores, strictly
        falling from just above the largest score to the smallest, and the numbers of pairs that each accepts.
        """
        return self._points()[0]

    def roc(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(fmr, tar, thresholds)` at the operating points, see `curves.roc`."""
        points = self.operating_points()
        return points.fmr, points.tar, points.thresholds

    def det(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(fmr, fnmr, thresholds)` at the operating points, see `curves.det`."""
        points = self.operating_points()
        return points.fmr, points.fnmr, points.thresholds

    def auc(self) -> float:
        """Area under the ROC curve, ties within a bin counted half; within `auc_error_bound` of `curves.auc`."""
        return float(at.auc(self.operating_points()))

    def auc_error_bound(self) -> float:
        """½ Σ g·i / (G·I) over the steps in which the order of g genuine and i impostor pairs is unknown."""
        points, exact = self._points()
        steps = np.diff(points.genuines)[exact - 1 :].astype(np.float64), np.diff(points.impostors)[exact - 1 :]
        return float(np.dot(*steps) / (2 * self.genuines * self.impostors))

    def eer(self) -> float:
        """Equal error rate, within `eer_error_bound` of `curves.eer`."""
        return float(at.eer(self.operating_points()))

    def eer_error_bound(self) -> float:
        """The largest possible difference between `eer` and the EER over all thresholds.

        The exact EER lies on the step of the curve that crosses FMR = FNMR: between the larger of FMR before and FNMR
        after the step, and the smaller of FMR after and FNMR before it.
        """
        points, exact = self._points()
        after = int(at.crossing(points)[0])
        if after < exact:
            return 0.0
        eer = float(at.eer(points))
        lowest = max(points.fmr[after - 1], points.fnmr[after])
        highest = min(points.fmr[after], points.fnmr[after - 1])
        return float(max(eer - lowest, highest - eer, 0.0))

    def eer_point(self) -> OperatingPoint:
        """The known `OperatingPoint` that is nearest to the equal error rate, see `curves.eer_point`."""
        return at.nearest_to_eer(self.operating_points())

    def tar_at_far(self, far: float) -> float:
        """The largest known TAR at an FMR of at most `far`, a number in [0, 1]; never above `curves.tar_at_far`."""
        return float(at.tar_at_far(self.operating_points(), check_number("far", far, low=0, high=1)))

    def tar_error_bound(self, far: float) -> float:
        """How far `tar_at_far` can be below `curves.tar_at_far`; 0 if it is exact."""
        points, exact = self._points()
        index = int(at.within(points, check_number("far", far, low=0, high=1)))
        if index + 1 < exact or index + 1 == len(points.tar):
            return 0.0
        return float(points.tar[index + 1] - points.tar[index])

    def threshold_at_far(self, far: float) -> float:
        """The smallest known threshold with an FMR of at most `far`, a number in [0, 1].

        In the tail it accepts the same pairs as `curves.threshold_at_far`. If the genuine scores are not kept, it is
        just above the next impostor score, and accepts at least the genuine pairs counted by `tar_at_far`.
        """
        points, far = self.operating_points(), check_number("far", far, low=0, high=1)
        threshold = float(points.thresholds[at.within(points, far)])
        if self._kept is None:
            falling = self._tail.values().astype(self._dtype)
            allowed = np.count_nonzero(np.arange(1, len(falling) + 1) / self.impostors <= far)
            if allowed < len(falling):
                threshold = min(threshold, float(just_above(falling[allowed])))
        return threshold

    def threshold_at_cost(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """The known threshold with the lowest detection cost, the highest of several, see `costs.threshold_at_cost`.

        Where single scores are not known, a threshold inside a bin may save at most the errors of that bin.
        """
        return at.cheapest_point(self.operating_points(), *check_costs(p_target, c_miss, c_fa))[1]

    def operating_point(self, threshold: float) -> OperatingPoint:
        """The error rates at a given `threshold`, such as a verifier's, as an `OperatingPoint(threshold, fmr, fnmr)`.

        The rates are exact at known thresholds, and wherever single scores are known. Inside a bin, either rate may be
        too high, by at most the pairs of that bin.
        """
        threshold, (points, exact) = check_number("threshold", threshold), self._points()
        place = max(0, int(np.count_nonzero(points.thresholds >= threshold)) - 1)  # of the known point that is stricter
        is_known = threshold >= points.thresholds[place] or place + 1 < exact or place + 1 == len(points.thresholds)
        return OperatingPoint(threshold, float(points.fmr[place + (not is_known)]), float(points.fnmr[place]))

    def next_lower(self, threshold: float) -> float | None:
        """The largest score below `threshold`, or None where single scores are not known, or if there is none."""
        points, exact = self._points()
        place = np.count_nonzero(points.thresholds >= threshold)
        return float(points.thresholds[place]) if 0 < place < exact else None

    def counted_scores(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(same, scores, counts)`, `(k,)` each: the middle of each bin with pairs, for each class, and their number.

        Each pair has a score that is wrong by at most half of `error_bound`, so that what is fitted to these numbers is
        what is fitted to the pairs, up to the width of a bin: `platt(*histogram.counted_scores())`.
        """
        self._points()  # raises without both classes
        parts = []
        for genuine, tally in ((1, self._genuine), (0, self._impostor)):
            filled = np.flatnonzero(tally.counts)
            middle = np.clip(self.low + (filled + 0.5) / self._scale, self._smallest, self._largest)
            parts.append((np.full(len(filled), genuine), middle, tally.counts[filled]))
        same, scores, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return same, scores, counts

    def best_accuracy(self) -> tuple[float, float]:
        """`(accuracy, threshold)` of the best known operating point, see `curves.best_accuracy`."""
        return at.best_point(self.operating_points())

    def d_prime(self) -> float:
        """Decidability, see `curves.d_prime`."""
        self._points()  # raises without both classes
        return at.decidability(self._genuine.moments, self._impostor.moments)

    def to_dict(self, far: Iterable[float] = (0.01, 0.001)) -> dict[str, Any]:
        """Counts, bounds and figures as numbers, lists and dicts for JSON; an infinite d′ becomes None.

        The TAR at each FMR of `far`, numbers in (0, 1], comes with the mark of `rule_of_30`.
        """
        d_prime = self.d_prime()
        numbers = ("genuines", "impostors", "low", "high", "bins", "tail", "error_bound")
        figures = ("eer", "eer_error_bound", "auc", "auc_error_bound")
        return {
            **{name: getattr(self, name) for name in numbers},
            **{name: getattr(self, name)() for name in figures},
            "eer_point": self.eer_point()._asdict(),
            "d_prime": d_prime if math.isfinite(d_prime) else None,
            **dict(zip(("best_accuracy", "best_threshold"), self.best_accuracy(), strict=True)),
            "tar": [
                {
                    "far": rate,
                    "tar": self.tar_at_far(rate),
                    "tar_error_bound": self.tar_error_bound(rate),
                    "threshold": self.threshold_at_far(rate),
                    "mark": rule_of_30(rate, self.impostors).mark,
                }
                for rate in far
            ],
        }

    def __str__(self) -> str:
        return self.table()

    def table(self, far: Iterable[float] = (0.01, 0.001)) -> str:
        """The figures as text, with the TAR at each FMR of `far`, numbers in (0, 1]."""
        heading = f"Histogram of {self.genuines + self.impostors:,} pairs: {self.genuines:,} genuine, "
        heading += f"{self.impostors:,} impostor, in bins of {self.error_bound:.3g}"
        if not (self.genuines and self.impostors):
            return heading
        found = self.to_dict(far)
        rows = [("", "value", "error at most", "")]
        for name, note in (("eer", f"at threshold {found['eer_point']['threshold']:.6g}"), ("auc", "")):
            rows.append((name.upper(), f"{found[name]:.4f}", f"{found[f'{name}_error_bound']:.1e}", note))
        rows.append(("d′", f"{self.d_prime():.4f}", "", ""))
        for figure in found["tar"]:
            rule = rule_of_30(figure["far"], self.impostors)
            shown = f"{figure['tar']:.4f}", f"{figure['tar_error_bound']:.1e}"
            shown = ("withheld", "") if rule.mark == "withheld" else shown
            rows.append((f"TAR at FMR ≤ {figure['far']:g}", *shown, tar_note(rule, figure["threshold"])))
        return "\n".join([heading, *aligned(rows, right=(1, 2))])
