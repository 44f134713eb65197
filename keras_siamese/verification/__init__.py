"""Verification: labels and scores in, numbers out.

Everything here is a pure NumPy function of `same (n,)`, 1 genuine and 0 impostor, and `scores (n,)`, larger = more
similar; a pair is accepted iff score ≥ threshold. `curves` has the definitions, `intervals` the identity bootstrap,
`evidence` what a number of pairs can show, `crossfit` the accuracy at thresholds from other identities, `report` all of
it at once.
"""

from keras_siamese.verification.calibration import platt
from keras_siamese.verification.crossfit import cross_fitted_accuracy
from keras_siamese.verification.curves import (
    accuracy_at,
    auc,
    best_accuracy,
    d_prime,
    det,
    eer,
    eer_point,
    operating_point,
    roc,
    tar_at_far,
    threshold_at_far,
)
from keras_siamese.verification.evidence import RuleOf30, auc_floor, best_accuracy_floor, rule_of_3, rule_of_30
from keras_siamese.verification.intervals import Interval, bootstrap, difference
from keras_siamese.verification.plots import plot_roc, plot_scores
from keras_siamese.verification.points import OperatingPoint
from keras_siamese.verification.report import TARFigure, VerificationReport, evaluate

__all__ = [
    "Interval",
    "OperatingPoint",
    "RuleOf30",
    "TARFigure",
    "VerificationReport",
    "accuracy_at",
    "auc",
    "auc_floor",
    "best_accuracy",
    "best_accuracy_floor",
    "bootstrap",
    "cross_fitted_accuracy",
    "d_prime",
    "det",
    "difference",
    "eer",
    "eer_point",
    "evaluate",
    "operating_point",
    "platt",
    "plot_roc",
    "plot_scores",
    "roc",
    "rule_of_3",
    "rule_of_30",
    "tar_at_far",
    "threshold_at_far",
]
