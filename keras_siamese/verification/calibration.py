"""Calibration: from a score to the probability that a pair is the same.

Contract: labels `(n,)` and scores `(n,)`, larger = more similar, in; the parameters of a monotone map out, fitted on
pairs that no figure is reported on.

    slope, offset = platt(same, scores)
    probability = 1 / (1 + np.exp(-(slope * scores + offset)))
"""

import numpy as np

from keras_siamese.verification.pairs import check_pairs

__all__ = ["platt"]


def platt(same, scores):
    """Slope and offset of p(same) = σ(slope·score + offset) by logistic regression, both classes weighed equally.

    The probability is that of a pair drawn with equal chances of being genuine or impostor. Labels are softened to (g
    + 1)/(g + 2) and 1/(i + 2) as Platt does, so separable scores give finite parameters.

    Platt, *Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods*,
    Advances in Large Margin Classifiers 1999.

    Args:
        same: `(n,)` labels, 1 genuine, 0 impostor.
        scores: `(n,)` finite scores, larger = more similar.

    Returns:
        `(slope, offset)`, floats; the slope is negative only where larger scores are less similar.

    >>> slope, offset = platt([0, 0, 1, 1], [-2.0, -1.0, -0.5, 0.5])
    >>> slope > 0, round(-offset / slope, 1)  # the score of probability ½
    (True, -0.7)
    """
    from sklearn.linear_model import LogisticRegression

    same, scores = check_pairs(same, scores)
    genuine, impostor = np.count_nonzero(same), np.count_nonzero(~same)
    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (impostor + 2))
    weight = np.where(same, 0.5 / genuine, 0.5 / impostor) * len(same)
    centre, scale = float(np.mean(scores)), float(np.std(scores)) or 1.0
    standard = ((scores - centre) / scale)[:, None]
    # A soft label is a row of each class, weighed by its share; a large C leaves it as the only regulariser.
    model = LogisticRegression(C=1e6, max_iter=1000).fit(
        np.concatenate([standard, standard]),
        np.repeat([True, False], len(same)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope = float(model.coef_[0, 0]) / scale
    return slope, float(model.intercept_[0]) - slope * centre
