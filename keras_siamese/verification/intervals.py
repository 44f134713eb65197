"""Confidence intervals of verification figures by a bootstrap over identities.

Contract: labels, scores and the identities of both sides of each pair in; an `Interval` for each statistic out, with
the replicates that it is computed from. The scores of pairs that share an identity are correlated, so a binomial
interval over pairs is too narrow. Therefore the bootstrap draws *identities*. If identity i is drawn w_i times,

    weight of a pair (i, j) = w_i · w_j        weight of a pair (i, i) = w_i

The second weight is not w_i²: pairs between two different copies of i do not exist in the data. Pure NumPy; anything
above `distances` may import it.

    intervals = bootstrap(["auc", "eer", ("tar_at_far", 0.01)], same, scores, left, right)
    intervals["eer"].low, intervals["eer"].high, intervals["eer"].standard_error
    gap = difference(valid["eer"], train["eer"])
    overfitted = gap.low > 0

What the bootstrap estimates. To first order the w_i are independent with variance 1. Then the weights of two pairs with
one common identity have covariance 1, and the weight of a genuine pair has variance 1; both are correct. But the weight
of an impostor pair has variance 2² − 1 = 3, because its own noise is counted under both identities and under their
product. So, for the part of a figure that comes from impostors,

    expected bootstrap variance = true variance + 2 · binomial variance

To first order, the interval is never too narrow. The standard error is 7 % too wide if the true one is 3.6 × binomial,
a third too wide if it is 1.6 × binomial, and at most √3 × too wide, if each identity occurs in one pair only. Weights
that avoid this do not exist: with variance 1, and covariance 1 for each shared identity, the covariance matrix of the
pairs (i, j), (j, k), (k, l) would have a negative eigenvalue.

Tom A. B. Snijders, Stephen P. Borgatti, "Non-parametric standard errors and tests for network statistics", Connections
22(2), 1999.

Ruud M. Bolle, Nalini K. Ratha, Sharath Pankanti, "Error analysis of pattern recognition systems – the
subsets bootstrap", Computer Vision and Image Understanding 93, 2004, https://doi.org/10.1016/j.cviu.2003.08.002.

Riccardo Fogliato, Pratik Patil, Pietro Perona, "Confidence intervals for error rates in 1:1 matching tasks: critical
statistical analysis and recommendations", International Journal of Computer Vision, 2024,
https://arxiv.org/abs/2306.01198.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_siamese._checks import check_integer, check_number
from keras_siamese._types import ArrayLike
from keras_siamese.verification import points as at
from keras_siamese.verification.pairs import check_identities, check_pairs
from keras_siamese.verification.resampling import RankedPairs

# Where all operating points are kept, resamples are counted in blocks of about this many weights: 2 MB stay in a core's
# cache. Otherwise, they are counted in blocks of at most `ROWS` resamples and about `COUNTS` counts of identities.
BLOCK, ROWS, COUNTS = 2**18, 1024, 2**26

# The range of a statistic's argument, by the name of the parameter.
RANGES = {"far": (0, 1), "threshold": (-np.inf, np.inf)}

# The function of each statistic and the names of its arguments after the operating points.
STATISTICS = {
    reading.__name__: (reading, [name for name in inspect.signature(reading).parameters if name in RANGES])
    for reading in (at.auc, at.eer, at.best_accuracy, at.tar_at_far, at.accuracy_at, at.fmr_at, at.fnmr_at)
}


@dataclass(frozen=True, eq=False)
class Interval:
    """A figure with its confidence interval and standard error.

    Attributes:
        estimate: the figure on the original pairs.
        low, high: the (1 − confidence)/2 and (1 + confidence)/2 quantiles of the replicates.
        standard_error: standard deviation of the replicates.
        confidence: nominal coverage, in (0, 1).
        replicates: `(samples,)` the figure on each resample.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    confidence: float
    replicates: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, estimate: float, replicates: np.ndarray, confidence: float) -> Interval:
        """The percentile interval of `replicates (samples,)`."""
        low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
        return cls(float(estimate), float(low), float(high), float(np.std(replicates, ddof=1)), confidence, replicates)


def between(interval):
    """The ends of an interval as reports show them, such as `[0.0123, 0.0456]`."""
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


def bootstrap(
    statistics: Sequence[Any],
    same: ArrayLike,
    scores: ArrayLike,
    left: ArrayLike | None = None,
    right: ArrayLike | None = None,
    *,
    samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[Any, Interval]:
    """Confidence intervals of several statistics, by a bootstrap over identities: a dict from each to its `Interval`.

    All use the same resamples. A resample in which a class has no weight is drawn again; at least one draw in five has
    both classes. If all resamples give the same figure (for example, because there is no error at all), the interval
    has no width and means nothing; see `rule_of_3`. Without `left` and `right` pairs are drawn instead of identities:
    this is correct if no two pairs share an identity, and too narrow otherwise.

    Args:
        statistics: list of names, or `(name, argument)`: `"auc"`, `"eer"`, `"best_accuracy"`, `("tar_at_far", far)`,
            `("accuracy_at", threshold)`, `("fmr_at", threshold)`, `("fnmr_at", threshold)`: the functions of these
            names, the last two as in `operating_point`.
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        left, right: `(n,)` identities of the two sides of each pair, integers or strings.
        samples: number of resamples, at least 2. 100 give a standard error within 7 %; the ends of an interval need
            1,000.
        confidence: nominal coverage of the interval, in (0, 1).
        seed: integer ≥ 0; the same seed gives the same resamples.

    >>> rng = np.random.default_rng(0)
    >>> left, right = rng.integers(0, 40, (2, 2000))
    >>> right[:1000] = left[:1000]
    >>> same = left == right
    >>> intervals = bootstrap(["auc", ("tar_at_far", 0.1)], same, rng.normal(size=2000) + 2 * same, left, right)
    >>> interval = intervals["auc"]
    >>> bool(0.88 < interval.low < interval.estimate < interval.high < 0.94)
    True
    >>> sorted(intervals, key=str)
    [('tar_at_far', 0.1), 'auc']
    """
    readings = check_statistics(statistics)
    same, scores = check_pairs(same, scores)
    identities = check_identities(left, right, len(same))
    samples = check_integer("samples", samples, low=2)
    confidence = check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    rng = np.random.default_rng(check_integer("seed", seed, low=0))

    every = any(reading is at.best_accuracy for reading, *_ in readings.values())
    ranked = RankedPairs(same, scores, identities, whole=every)
    whole = ranked.resample(np.ones((ranked.things + 1, 1), np.uint8))
    drawn = _resamples(ranked, samples, rng)
    blocks = [[rows.read(*reading) for reading in readings.values()] for rows in drawn]
    replicates = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    found = zip(readings.items(), replicates, strict=True)
    return {name: Interval.of(whole.read(*reading)[0], values, confidence) for (name, reading), values in found}


def difference(first: Interval, second: Interval) -> Interval:
    """The interval of `first − second`, for figures of independent data, such as validation and training EER.

    Each replicate of `first` is combined with each of `second`, so the result does not depend on the seeds of the two
    bootstraps. Two figures of the same pairs are not independent: subtract their replicates instead.

    Args:
        first: `Interval`.
        second: `Interval` of the same confidence, from other identities.

    Returns:
        `Interval`; its replicates are all first × second differences, its standard error √(se₁² + se₂²).

    >>> one = Interval.of(0.30, np.array([0.29, 0.30, 0.31]), confidence=0.95)
    >>> other = Interval.of(0.10, np.array([0.08, 0.10, 0.12]), confidence=0.95)
    >>> gap = difference(one, other)
    >>> round(gap.estimate, 3), round(gap.standard_error, 4)
    (0.2, 0.0224)
    """
    if first.confidence != second.confidence:
        found = f"{first.confidence} and {second.confidence}"
        raise ValueError(f"`first` and `second` must have the same confidence; got {found}")
    replicates = np.subtract.outer(first.replicates, second.replicates).ravel()
    interval = Interval.of(first.estimate - second.estimate, replicates, first.confidence)
    return replace(interval, standard_error=float(np.hypot(first.standard_error, second.standard_error)))


def check_statistics(statistics):
    """A dict from each of the `statistics` of `bootstrap` to its function of operating points and the arguments."""
    if isinstance(statistics, str):
        raise TypeError(f"`statistics` must be a list of statistics; got the string {statistics!r}")
    readings = {statistic: _reading(statistic) for statistic in statistics}
    if not readings:
        raise ValueError("`statistics` must name at least one statistic; got none")
    return readings


def _reading(statistic):
    """The function of operating points that computes one of the `statistics` of `bootstrap`, and its arguments."""
    name, *values = (statistic,) if isinstance(statistic, str) else statistic
    if name not in STATISTICS or len(values) != len(STATISTICS[name][1]):
        known = [", ".join((f'"{known}"', *arguments)) for known, (_, arguments) in STATISTICS.items()]
        raise ValueError(f"`statistics` must be among ({'), ('.join(known)}); got {statistic!r}")
    reading, arguments = STATISTICS[name]
    limits = [RANGES[argument] for argument in arguments]
    values = [check_number(name, value, low=low, high=high) for value, (low, high) in zip(values, limits, strict=True)]
    return reading, *values


def _resamples(ranked, samples, rng):
    """Yields `Resamples` in blocks, of `samples` rows in total, each with weight in both classes."""
    most = max(1, BLOCK // len(ranked.same) if ranked.whole else min(ROWS, COUNTS // ranked.things))
    while samples:
        rows = ranked.resample(draw_counts(min(samples, most), ranked.things, rng)).usable()
        samples -= len(rows)
        if len(rows):
            yield rows


def draw_counts(rows, things, rng):
    """How often each of `things` is drawn in as many draws with replacement, then a row of 1; `(things + 1, rows)`."""
    counts, step = np.ones((things + 1, rows), np.uint8), max(1, BLOCK // things)
    for start in range(0, rows, step):
        some = min(step, rows - start)
        drawn = rng.integers(0, things, (some, things)) + things * np.arange(some)[:, None]
        drawn = np.bincount(drawn.ravel(), minlength=some * things).reshape(some, things)
        if drawn.max() > np.iinfo(counts.dtype).max:
            counts = counts.astype(np.int64)
        counts[:-1, start : start + some] = drawn.T
    return counts
