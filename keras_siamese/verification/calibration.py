"""Calibration: from a score to the probability that a pair is the same.

Contract: labels `(n,)` and scores `(n,)`, larger = more similar, in; the parameters of a monotone map out. Fit it on
other pairs than those that you report figures of.

    slope, offset = platt(same, scores)
    probability = 1 / (1 + np.exp(-(slope * scores + offset)))
    probability = np.interp(scores, *isotonic(same, scores))
    slope, offset = platt(*histogram.counted_scores())              # of a `ScoreHistogram`
"""

from __future__ import annotations

import numpy as np

from keras_siamese._types import ArrayLike
from keras_siamese.verification.pairs import balanced_weights, check_counts, check_pairs


def platt(same: ArrayLike, scores: ArrayLike, counts: ArrayLike | None = None) -> tuple[float, float]:
    """Slope and offset of p(same) = σ(slope·score + offset) by logistic regression, with equal weight for both classes.

    The probability is that of a pair that is genuine or impostor with equal chances. With g genuine and i impostor
    pairs, the labels are softened to (g + 1)/(g + 2) and 1/(i + 2) as Platt does, so that scores that separate the
    classes give finite parameters too.

    Platt, *Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods*,
    Advances in Large Margin Classifiers 1999.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        counts: `(n,)` numbers ≥ 0 of pairs that each row stands for, such as those of the bins of a histogram, see
            `ScoreHistogram.counted_scores`; 1 each by default.

    Returns:
        `(slope, offset)`, floats; the slope is negative only where larger scores are less similar.

    >>> slope, offset = platt([0, 0, 1, 1], [-2.0, -1.0, -0.5, 0.5])
    >>> slope > 0, round(-offset / slope, 2)  # the score of probability ½
    (True, -0.75)
    """
    same, scores = check_pairs(same, scores)
    counts = check_counts(counts, same)
    genuine, impostor = counts[same].sum(), counts[~same].sum()
    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (impostor + 2))
    scores = scores.astype(float)
    centre = np.average(scores, weights=counts)
    scale = np.sqrt(np.average((scores - centre) ** 2, weights=counts)) or 1.0
    slope, offset = logistic_fit((scores - centre) / scale, target, balanced_weights(same, counts))
    return float(slope / scale), float(offset - slope * centre / scale)


def isotonic(same: ArrayLike, scores: ArrayLike, counts: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rising step function of the scores that fits the labels best, with equal weight for both classes.

    It follows any monotone relation, while `platt` has only two parameters. It needs some thousand pairs, and gives
    probabilities of exactly 0 and 1 where all of these pairs agree. Uses scikit-learn's `IsotonicRegression`.

    Bianca Zadrozny, Charles Elkan, *Transforming Classifier Scores into Accurate Multiclass Probability Estimates*, KDD
    2002, https://doi.org/10.1145/775047.775151.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        counts: `(n,)` numbers ≥ 0 of pairs that each row stands for, as in `platt`.

    Returns:
        `(knots, probabilities)`, float64 `(k,)` each, rising: p(same) of a score is `numpy.interp(score, knots,
        probabilities)`.

    >>> knots, probabilities = isotonic([0, 0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0, 5.0])
    >>> probabilities.round(2).tolist(), np.interp([1.5, 3.5, 9.0], knots, probabilities).round(2).tolist()
    ([0.0, 0.0, 0.6, 0.6, 1.0], [0.0, 0.6, 1.0])
    """
    from sklearn.isotonic import IsotonicRegression  # imported here: it takes as long as the rest of the package

    same, scores = check_pairs(same, scores)
    weights = balanced_weights(same, check_counts(counts, same))
    values, labels = scores.astype(np.float64), same.astype(np.float64)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(values, labels, weights)
    return fitted.X_thresholds_, fitted.y_thresholds_


def logistic_fit(x, target, weight):
    """Slope and offset `(2,)` of the least Σ weight·cross-entropy(target, σ(slope·x + offset)); arguments `(n,)`.

    The sum is convex, and it has a minimum because no target is 0 or 1.
    """
    from scipy.optimize import minimize  # slow to import, and needed here only
    from scipy.special import expit

    design = np.stack([x, np.ones_like(x)])

    def cost(parameters):
        logit = parameters @ design
        total = np.sum(weight * (np.logaddexp(0, logit) - target * logit))
        return total, design @ (weight * (expit(logit) - target))

    def curvature(parameters):
        p = expit(parameters @ design)
        return (design * (weight * p * (1 - p))) @ design.T

    start, options = np.zeros(2), {"gtol": 1e-11}
    return minimize(cost, start, method="trust-exact", jac=True, hess=curvature, options=options).x
