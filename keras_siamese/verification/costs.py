"""Costs of errors where false accepts and false rejects differ in weight, and the cost of poor calibration.

Contract: labels and scores in, a cost out, smaller = better. `min_dcf` is the detection cost at the best threshold.
`cllr` reads the scores as log-likelihood ratios; `min_cllr` is the same after the best calibration, so the difference
of the two is what calibration can gain. Pure NumPy and scikit-learn's isotonic regression; anything above `distances`
may import it.

    cost = min_dcf(same, scores, p_target=0.01)
    lost = cllr(same, slope * scores + offset) - min_cllr(same, scores)     # slope, offset of `platt`
"""

from __future__ import annotations

import numpy as np

from keras_siamese._checks import check_number
from keras_siamese._types import ArrayLike
from keras_siamese.verification import points as at
from keras_siamese.verification.pairs import check_pairs
from keras_siamese.verification.points import operating_points


def min_dcf(
    same: ArrayLike, scores: ArrayLike, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """The lowest detection cost over all thresholds, relative to always giving the same answer, in [0, 1].

        min over T of (c_miss·p·FNMR + c_fa·(1 − p)·FMR) / min(c_miss·p, c_fa·(1 − p))

    It is 0 without any error, and 1 where no threshold is better than accepting or rejecting every pair. The figure is
    optimistic, because the threshold is chosen on the pairs that it is evaluated on.

    *NIST 2016 Speaker Recognition Evaluation Plan*, https://www.nist.gov/document/sre16evalplanv13pdf.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        p_target: p in (0, 1), the share of genuine pairs where the system is used.
        c_miss, c_fa: > 0, costs of rejecting a genuine pair and of accepting an impostor pair.

    >>> min_dcf([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], p_target=0.5)
    0.5
    """
    return min_dcf_of(operating_points(*check_pairs(same, scores)), p_target, c_miss, c_fa)


def min_dcf_of(points, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """`min_dcf` of operating points."""
    miss, false_accept = check_costs(p_target, c_miss, c_fa)
    return at.cheapest_point(points, miss, false_accept)[0] / min(miss, false_accept)


def threshold_at_cost(
    same: ArrayLike, scores: ArrayLike, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """The threshold with the lowest detection cost, at which `min_dcf` is reached; the highest of several.

    It is one of the scores, or just above the largest one if accepting no pair is cheapest.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        p_target, c_miss, c_fa: as in `min_dcf`.

    >>> threshold_at_cost([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], p_target=0.5)
    0.9
    """
    weights = check_costs(p_target, c_miss, c_fa)
    return at.cheapest_point(operating_points(*check_pairs(same, scores)), *weights)[1]


def check_costs(p_target, c_miss, c_fa):
    """Returns the weights of a false reject and of a false accept: c_miss·p and c_fa·(1 − p)."""
    p_target = check_number("p_target", p_target, low=0, high=1, open_low=True, open_high=True)
    c_miss = check_number("c_miss", c_miss, low=0, open_low=True, open_high=True)
    c_fa = check_number("c_fa", c_fa, low=0, open_low=True, open_high=True)
    return c_miss * p_target, c_fa * (1 - p_target)


def cllr(same: ArrayLike, scores: ArrayLike) -> float:
    """Cost of log-likelihood ratios, in bits, where the scores are read as log(p(score | same) / p(score | not same)).

        ½ [mean log₂(1 + e^{−g}) + mean log₂(1 + e^{i})],   g and i the scores of genuine and impostor pairs

    0 is perfect; 1 is the cost of scores of 0, which carry no information; misleading scores cost more, without limit.

    Niko Brümmer, Johan du Preez, *Application-independent evaluation of speaker detection*, Computer Speech & Language
    20, 2006, https://doi.org/10.1016/j.csl.2005.08.001.

    Args:
        same: `(n,)` labels, 1 genuine, 0 impostor.
        scores: `(n,)` finite log-likelihood ratios to base e, such as `slope·score + offset` of `platt`.

    >>> cllr([1, 0], [0.0, 0.0])
    1.0
    """
    same, scores = check_pairs(same, scores)
    scores = scores.astype(np.float64)
    return float((np.logaddexp(0, -scores[same]).mean() + np.logaddexp(0, scores[~same]).mean()) / (2 * np.log(2)))


def min_cllr(same: ArrayLike, scores: ArrayLike) -> float:
    """`cllr` after the best calibration, in bits: the part of the cost that only better scores could save.

    The calibration is the best rising map from scores to log-likelihood ratios: isotonic regression of the labels on
    the scores, with pairs of equal score pooled. It is fitted on these same pairs, so the figure is optimistic for few
    pairs.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    Returns:
        A float in [0, 1]: 0 if the scores separate the classes, 1 if they carry no information or are inverted.

    >>> min_cllr([1, 1, 0, 0], [4.0, 3.0, 2.0, 1.0]), min_cllr([1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0])
    (0.0, 1.0)
    """
    return min_cllr_of(operating_points(*check_pairs(same, scores)))


def min_cllr_of(points):
    """`min_cllr` of operating points."""
    from sklearn.isotonic import isotonic_regression  # imported here: it takes as long as the rest of the package

    genuines, impostors = np.diff(points.genuines)[::-1], np.diff(points.impostors)[::-1]
    pairs = genuines + impostors
    # The share of genuine pairs at each score, rising with the score.
    share = np.clip(isotonic_regression(genuines / pairs, sample_weight=pairs.astype(np.float64)), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        ratio = np.log(share) - np.log1p(-share) - np.log(genuines.sum() / impostors.sum())
    with np.errstate(invalid="ignore"):  # an infinite ratio that is right costs nothing: logaddexp(0, −∞) = 0
        cost = np.where(genuines > 0, genuines * np.logaddexp(0, -ratio), 0.0).sum() / genuines.sum()
        cost += np.where(impostors > 0, impostors * np.logaddexp(0, ratio), 0.0).sum() / impostors.sum()
    return float(cost / (2 * np.log(2)))
