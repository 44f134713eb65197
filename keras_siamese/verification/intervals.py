"""Intervals: how far a figure would move with other identities.

Contract: labels, scores and the identities of both sides of each pair in; an `Interval` for each statistic out, with
the replicates it was made of. Pairs that share an identity rise and fall together, so a binomial interval over pairs is
too narrow. Hence the bootstrap draws *identities*: with w_i the number of times identity i is drawn,

    weight of a pair (i, j) = w_i · w_j        weight of a pair (i, i) = w_i

The second line drops self-duplicates: of the w_i² ways to pair the copies of i, only those within one copy exist in the
data. Pure NumPy; anything above `distances` may import it.

    intervals = bootstrap(["auc", "eer", ("tar_at_far", 0.01)], same, scores, left, right)
    intervals["eer"].low, intervals["eer"].high, intervals["eer"].standard_error
    gap = difference(valid["eer"], train["eer"])
    overfitted = gap.low > 0

What the weights estimate. To first order the w_i are independent with variance 1. Two pairs with one identity in common
then have weights of covariance 1, as they should; a genuine pair has variance 1, as it should; but an impostor pair has
variance 2² − 1 = 3, since its own noise counts under both identities and again under their product. So, for the
impostors' part of a figure,

    expected bootstrap variance = true variance + 2 · binomial variance

To first order it is never too narrow. The standard error is 7 % too wide where dependence makes the true one 3.6 ×
binomial, a third too wide where 1.6 ×, and √3 × at most, where each identity occurs in one pair. Weights of variance 1
with covariance 1 for any shared identity do not exist: on the pairs (i, j), (j, k), (k, l) their covariance would
have a negative eigenvalue.

Tom A. B. Snijders, Stephen P. Borgatti, "Non-parametric standard errors and tests for network statistics", Connections
22(2), 1999.

Ruud M. Bolle, Nalini K. Ratha, Sharath Pankanti, "Error analysis of pattern recognition systems – the
subsets bootstrap", Computer Vision and Image Understanding 93, 2004, https://doi.org/10.1016/j.cviu.2003.08.002.

Riccardo Fogliato, Pratik Patil, Pietro Perona, "Confidence intervals for error rates in 1:1 matching tasks: critical
statistical analysis and recommendations", International Journal of Computer Vision, 2024,
https://arxiv.org/abs/2306.01198.
"""

import inspect
from dataclasses import dataclass, field

import numpy as np

from keras_siamese._checks import check_integer, check_number
from keras_siamese.verification import points as at
from keras_siamese.verification.pairs import check_identities, check_pairs
from keras_siamese.verification.points import RankedPairs

__all__ = ["Interval", "bootstrap", "difference"]

# Resamples are counted in blocks of about this many weights: 2 MB stay in a core's cache, five times faster than all at
# once.
BLOCK = 2**18

STATISTICS = {
    reading.__name__: reading
    for reading in (at.auc, at.eer, at.best_accuracy, at.tar_at_far, at.accuracy_at, at.fmr_at, at.fnmr_at)
}
# The range of what a statistic takes beside the operating points, by the parameter's name.
RANGES = {"far": (0, 1), "threshold": (-np.inf, np.inf)}


@dataclass(frozen=True, eq=False)
class Interval:
    """A figure, its interval and its standard error.

    Attributes:
        estimate: the figure on the pairs themselves.
        low: lower end, the (1 − confidence)/2 quantile of the replicates.
        high: upper end, the (1 + confidence)/2 quantile of the replicates.
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
    def of(cls, estimate, replicates, confidence):
        """The percentile interval of `replicates (samples,)`."""
        low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
        return cls(float(estimate), float(low), float(high), float(np.std(replicates, ddof=1)), confidence, replicates)


def bootstrap(statistics, same, scores, left=None, right=None, *, samples=200, confidence=0.95, seed=0):
    """Identity-bootstrap intervals of several statistics at once, from the same resamples.

    A resample in which a class has no weight is drawn again; one that has both comes up at least every fifth time.
    Where no resample differs (no error at all, say) the interval has no width and says nothing: see `rule_of_3`.
    Without `left` and `right` whole pairs are drawn: right for pairs without a common identity, too narrow otherwise.

    Args:
        statistics: list of names, or `(name, argument)`: `"auc"`, `"eer"`, `"best_accuracy"`, `("tar_at_far", far)`,
            `("accuracy_at", threshold)`, `("fmr_at", threshold)`, `("fnmr_at", threshold)`, each as the function of
            that name (the last two as in `operating_point`).
        same: `(n,)` labels, 1 genuine, 0 impostor.
        scores: `(n,)` finite scores, larger = more similar.
        left: `(n,)` identity of each pair's one side, integers or strings.
        right: `(n,)` identity of the other side.
        samples: number of resamples, at least 2; 100 give a standard error to 7 %, an interval's ends want 1,000.
        confidence: nominal coverage of the interval, in (0, 1).
        seed: integer ≥ 0; the same seed draws the same resamples.

    Returns:
        A dict from each entry of `statistics` to its `Interval`.

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
    readings = _readings(statistics)
    same, scores = check_pairs(same, scores)
    identities = check_identities(left, right, len(same))
    samples = check_integer("samples", samples, low=2)
    confidence = check_number("confidence", confidence, low=0, high=1, open_low=True, open_high=True)
    rng = np.random.default_rng(check_integer("seed", seed, low=0))

    ranked = RankedPairs(same, scores)
    draw = _pair_weights(len(same), rng) if identities is None else _identity_weights(identities, ranked.order, rng)
    whole = ranked.points(np.ones((1, len(same))))
    blocks = [[reading(rows) for reading in readings.values()] for rows in _resamples(ranked, draw, samples, len(same))]
    replicates = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    return {
        statistic: Interval.of(reading(whole)[0], values, confidence)
        for (statistic, reading), values in zip(readings.items(), replicates, strict=True)
    }


def difference(first, second):
    """The interval of `first − second`, figures of independent data: say the EER on validation minus that on training.

    Each replicate of the one is set against each of the other, so the result does not depend on how the two sets of
    resamples were seeded. Not for two figures of the same pairs, which are dependent: subtract their replicates
    instead.

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
        raise ValueError(
            f"`first` and `second` must have one confidence; got {first.confidence} and {second.confidence}"
        )
    replicates = np.subtract.outer(first.replicates, second.replicates).ravel()
    low, high = np.quantile(replicates, [(1 - first.confidence) / 2, (1 + first.confidence) / 2])
    standard_error = float(np.hypot(first.standard_error, second.standard_error))
    return Interval(
        first.estimate - second.estimate, float(low), float(high), standard_error, first.confidence, replicates
    )


def _readings(statistics):
    """Statistic → function of operating points, in the order given."""
    if isinstance(statistics, str):
        raise TypeError(f"`statistics` must be a list of statistics; got the string {statistics!r}")
    readings = {statistic: _reading(statistic) for statistic in statistics}
    if not readings:
        raise ValueError("`statistics` must name at least one statistic; got none")
    return readings


def _reading(statistic):
    name, *values = (statistic,) if isinstance(statistic, str) else statistic
    wanted = _parameters(STATISTICS[name]) if name in STATISTICS else None
    if wanted is None or len(values) != len(wanted):
        known = [", ".join((f'"{known}"', *_parameters(reading))) for known, reading in STATISTICS.items()]
        raise ValueError(f"`statistics` must be among ({'), ('.join(known)}); got {statistic!r}")
    limits = [RANGES[parameter] for parameter in wanted]
    values = [check_number(name, value, low=low, high=high) for value, (low, high) in zip(values, limits, strict=True)]
    return lambda points: STATISTICS[name](points, *values)


def _parameters(reading):
    return list(inspect.signature(reading).parameters)[1:]


def _identity_weights(identities, order, rng):
    """A function of a number of rows: pair weights `(rows, n)` in `order`, from identities drawn with replacement."""
    left, right, count = identities
    # One more column, always 1, stands for the right side of a pair within one identity, so that its weight is w_i.
    left, right = left[order], np.where(left == right, count, right)[order]

    def draw(rows):
        weights = np.ones((rows, count + 1))
        weights[:, :count] = _counts(rows, count, rng)
        return weights[:, left] * weights[:, right]

    return draw


def _pair_weights(pairs, rng):
    """A function of a number of rows: weights `(rows, n)` of pairs drawn with replacement, in any order."""
    return lambda rows: _counts(rows, pairs, rng).astype(np.float64)


def _counts(rows, things, rng):
    """How often each of `things` comes up in as many draws; `(rows, things)`."""
    drawn = rng.integers(0, things, (rows, things)) + things * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * things).reshape(rows, things)


def _resamples(ranked, draw, samples, pairs):
    """Yields operating points in blocks of rows, `samples` rows in all, each with weight in both classes."""
    most = max(1, BLOCK // pairs)
    while samples:
        points = ranked.points(draw(min(most, samples)))
        usable = (points.genuines[:, -1] > 0) & (points.impostors[:, -1] > 0)
        if not usable.all():
            points = points._replace(impostors=points.impostors[usable], genuines=points.genuines[usable])
        samples -= np.count_nonzero(usable)
        yield points
