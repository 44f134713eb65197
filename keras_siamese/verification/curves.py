"""Curves and single figures of verification: labels and scores in, numbers out.

Contract: `same (n,)`, 1 = genuine pair and 0 = impostor pair; `scores (n,)`, finite, larger = more similar (score =
−distance). A pair is accepted iff score ≥ T:

    FMR(T) = accepted impostors / impostors        FNMR(T) = rejected genuines / genuines        TAR = 1 − FNMR

as in ISO/IEC 19795-1:2021, "Biometric performance testing and reporting – Part 1: Principles and framework",
https://www.iso.org/standard/73515.html. Everything is computed exactly, from one sort; pairs of equal score share a
point. NaN or infinite scores, other labels and an empty class raise `ValueError` with the counts. Pure NumPy; anything
above `distances` may import it.

    fmr, tar, thresholds = roc(same, scores)
    rate = eer(same, scores)
    threshold = threshold_at_far(same_valid, scores_valid, far=0.01)      # chosen on these pairs …
    accuracy = accuracy_at(same_test, scores_test, threshold)             # … applied to those
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from keras_siamese._checks import check_number
from keras_siamese._types import ArrayLike
from keras_siamese.verification import points as at
from keras_siamese.verification.pairs import check_pairs
from keras_siamese.verification.points import OperatingPoint, operating_points


def roc(same: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Receiver operating characteristic: TAR over FMR.

    The first point rejects all pairs; then comes one point for each distinct score, so k distinct scores give k + 1
    points. The last one, whose threshold is the smallest score, accepts all pairs.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    Returns:
        `(fmr, tar, thresholds)`, float64 `(k + 1,)` each: FMR rising from 0 to 1, TAR rising from 0 to 1, thresholds
        strictly falling from just above the maximum (`nextafter`, in the scores' dtype) to the minimum.

    >>> fmr, tar, thresholds = roc([1, 0, 1, 0], [0.9, 0.6, 0.6, 0.1])
    >>> fmr.tolist(), tar.tolist(), thresholds[1:].tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], [0.9, 0.6, 0.1])
    """
    points = operating_points(*check_pairs(same, scores))
    return points.fmr, points.tar, points.thresholds


def det(same: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection error trade-off: FNMR over FMR, at the points of `roc`.

    Alvin Martin, George Doddington, Terri Kamm, Mark Ordowski, Mark Przybocki, "The DET curve in assessment of
    detection task performance", Eurospeech 1997, https://doi.org/10.21437/Eurospeech.1997-504.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    Returns:
        `(fmr, fnmr, thresholds)`, float64 `(k + 1,)` each: FMR rising from 0 to 1, FNMR falling from 1 to 0.

    >>> fmr, fnmr, thresholds = det([1, 0, 1, 0], [0.9, 0.6, 0.6, 0.1])
    >>> fnmr.tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    points = operating_points(*check_pairs(same, scores))
    return points.fmr, points.fnmr, points.thresholds


def auc(same: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, in [0, 1]: the probability that a genuine pair scores above an impostor pair.

        AUC = P(g > i) + ½ P(g = i), ties count half

    Random or constant scores give 0.5, perfect scores 1, reversed perfect scores 0. scikit-learn's `roc_auc_score`
    gives the same number, but takes about five times as long (it sorts indices), so it is not used here.

    James A. Hanley, Barbara J. McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC)
    curve", Radiology 143, 1982, https://doi.org/10.1148/radiology.143.1.7063747.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    >>> auc([1, 0, 1, 0], [0.9, 0.6, 0.6, 0.1])
    0.875
    """
    return float(at.auc(operating_points(*check_pairs(same, scores))))


def eer(same: ArrayLike, scores: ArrayLike) -> float:
    """Equal error rate, in [0, 1]: FMR = FNMR, by linear interpolation between the two operating points around it.

    Perfect scores give 0, constant scores 0.5, reversed perfect scores 1.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    >>> eer([1, 1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.4, 0.1]) == 1 / 3
    True
    """
    return float(at.eer(operating_points(*check_pairs(same, scores))))


def eer_point(same: ArrayLike, scores: ArrayLike) -> OperatingPoint:
    """The `OperatingPoint` nearest to the equal error rate: the smallest |FMR − FNMR|, the stricter one of two.

    For constant scores it is the point that rejects all pairs.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    >>> eer_point([1, 0, 1, 0], [0.9, 0.6, 0.5, 0.1])
    OperatingPoint(threshold=0.6, fmr=0.5, fnmr=0.5)
    """
    return at.nearest_to_eer(operating_points(*check_pairs(same, scores)))


@overload
def tar_at_far(same: ArrayLike, scores: ArrayLike, far: float) -> float: ...
@overload
def tar_at_far(same: ArrayLike, scores: ArrayLike, far: Sequence[float] | np.ndarray) -> np.ndarray: ...
def tar_at_far(same: ArrayLike, scores: ArrayLike, far: float | Sequence[float] | np.ndarray) -> float | np.ndarray:
    """The largest true accept rate, in [0, 1], among the thresholds whose FMR is at most `far`.

    Fewer than 1/far impostor pairs cannot measure a rate of `far`: the result is then the TAR without any false match.
    `rule_of_30` says how reliable the figure is.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        far: false match rate in [0, 1], or an array of them: the result then has its shape.

    >>> same, scores = [1, 1, 1, 0, 0, 0], [0.9, 0.7, 0.3, 0.8, 0.2, 0.1]
    >>> round(tar_at_far(same, scores, 0), 3), tar_at_far(same, scores, [0.3, 0.5]).round(3).tolist()
    (0.333, [0.333, 1.0])
    """
    points = operating_points(*check_pairs(same, scores))
    return _at_each(far, lambda rate: at.tar_at_far(points, rate))


def figures_of_curve(same: ArrayLike, scores: ArrayLike, far: Sequence[float]) -> tuple[float, float, list[float]]:
    """`(eer, auc, [TAR at each rate in far])`, as `eer`, `auc` and `tar_at_far` give them, from one sort of the scores.

    >>> figures_of_curve([1, 0, 1, 0], [0.9, 0.6, 0.6, 0.1], [0.5])
    (0.25, 0.875, [1.0])
    """
    points = operating_points(*check_pairs(same, scores))
    return float(at.eer(points)), float(at.auc(points)), [float(at.tar_at_far(points, rate)) for rate in far]


@overload
def threshold_at_far(same: ArrayLike, scores: ArrayLike, far: float) -> float: ...
@overload
def threshold_at_far(same: ArrayLike, scores: ArrayLike, far: Sequence[float] | np.ndarray) -> np.ndarray: ...
def threshold_at_far(
    same: ArrayLike, scores: ArrayLike, far: float | Sequence[float] | np.ndarray
) -> float | np.ndarray:
    """The smallest threshold whose FMR is at most `far`, at which `tar_at_far` is reached.

    It is one of the scores, or just above the largest one if only rejecting all pairs keeps the FMR at `far`. A pair is
    accepted iff its score is ≥ the threshold, so do not round the threshold or the scores to a lower precision.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        far: false match rate in [0, 1], or an array of them: the result then has its shape.

    >>> threshold_at_far([1, 1, 1, 0, 0, 0], [0.9, 0.7, 0.3, 0.8, 0.2, 0.1], 0.5)
    0.3
    """
    points = operating_points(*check_pairs(same, scores))
    return _at_each(far, lambda rate: points.thresholds[at.within(points, rate)])


def best_accuracy(same: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """The largest accuracy over all thresholds, and the highest threshold that reaches it.

    The figure is optimistic, because the threshold is chosen on the pairs that it is evaluated on. Compare it with
    `best_accuracy_floor`, not with 0.5, and report `cross_fitted_accuracy`, or `accuracy_at` a threshold from other
    pairs.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    Returns:
        `(accuracy, threshold)`, floats; the accuracy is at least the share of the larger class.

    >>> best_accuracy([1, 1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.4])
    (0.8, 0.8)
    """
    return at.best_point(operating_points(*check_pairs(same, scores)))


def operating_point(same: ArrayLike, scores: ArrayLike, threshold: float) -> OperatingPoint:
    """The error rates at a given threshold, chosen on other pairs, as an `OperatingPoint(threshold, fmr, fnmr)`.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        threshold: a number; compared with the scores in float64.

    >>> operating_point([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], threshold=0.5)
    OperatingPoint(threshold=0.5, fmr=0.5, fnmr=0.5)
    """
    same, scores = check_pairs(same, scores)
    threshold = check_number("threshold", threshold)
    accepted = scores.astype(np.float64) >= threshold
    return OperatingPoint(threshold, float(accepted[~same].mean()), float((~accepted[same]).mean()))


def accuracy_at(same: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """The share of correct decisions, in [0, 1], at a given threshold, chosen on other pairs.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        threshold: a number; compared with the scores in float64.

    >>> accuracy_at([1, 1, 0, 0], [0.9, 0.4, 0.3, 0.1], threshold=0.5)
    0.75
    """
    same, scores = check_pairs(same, scores)
    return float(((scores.astype(np.float64) >= check_number("threshold", threshold)) == same).mean())


def d_prime(same: ArrayLike, scores: ArrayLike) -> float:
    """Decidability index d′: the distance between the two class means in pooled standard deviations.

        d′ = |μ_g − μ_i| / √(½(σ_g² + σ_i²)),   population variances

    For normal scores of equal variance EER = Φ(−d′/2): .40, .31, .16, .07 at d′ = .5, 1, 2, 3. It has no sign, so
    inverted scores have the same d′. If neither class has any spread, it is infinite if the means differ, else 0.

    John Daugman, "Biometric decision landscapes", University of Cambridge Computer Laboratory, Technical Report 482,
    2000, https://www.cl.cam.ac.uk/techreports/UCAM-CL-TR-482.html.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.

    >>> d_prime([1, 1, 0, 0], [4.0, 6.0, 1.0, 3.0])
    3.0
    """
    same, scores = check_pairs(same, scores)
    scores = scores.astype(np.float64)
    # d′ does not depend on the scale. Dividing by a power of two brings the scores below 1 without rounding, so that no
    # square overflows.
    scores = np.ldexp(scores, -np.frexp(np.abs(scores).max())[1])
    return at.decidability(at.moments(scores[same]), at.moments(scores[~same]))


def _at_each(far, reading):
    rates = np.asarray(far)
    values = [float(reading(check_number("far", rate, low=0, high=1))) for rate in rates.ravel().tolist()]
    return np.array(values).reshape(rates.shape) if rates.ndim else values[0]
