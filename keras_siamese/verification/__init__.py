"""Verification: labels and scores in, numbers out.

All functions are pure NumPy and take `same (n,)`, 1 genuine and 0 impostor, and `scores (n,)`, larger = more similar.
A pair is accepted iff score ≥ threshold.

- `curves`: the definitions: ROC, DET, EER, TAR at a FAR, accuracy.
- `intervals`: confidence intervals by a bootstrap over identities.
- `evidence`: what a given number of pairs can show.
- `costs`, `calibration`: costs of errors, and maps from scores to probabilities.
- `crossfit`: the accuracy at thresholds chosen on other identities.
- `report`: all of these at once.
- `retrieval`: how near queries find embeddings of their own identity.
- `histogram`, `all_pairs`: the same figures for more pairs than fit in memory.
- `tables`, `counted`: scores from a CSV or Parquet file, of any length.
"""

from keras_siamese.verification.all_pairs import compare_embeddings
from keras_siamese.verification.calibration import isotonic, platt
from keras_siamese.verification.costs import cllr, min_cllr, min_dcf, threshold_at_cost
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
from keras_siamese.verification.histogram import ScoreHistogram
from keras_siamese.verification.intervals import Interval, bootstrap, difference
from keras_siamese.verification.plots import plot_det, plot_errors, plot_reliability, plot_roc, plot_scores
from keras_siamese.verification.points import OperatingPoint
from keras_siamese.verification.report import TARFigure, VerificationReport, evaluate
from keras_siamese.verification.retrieval import Retrieval, cmc, evaluate_retrieval, map_at_r, r_precision, recall_at_k
from keras_siamese.verification.tables import ScoreTable, read_scores

__all__ = ["Interval", "OperatingPoint", "Retrieval", "RuleOf30", "ScoreHistogram", "ScoreTable", "TARFigure"]
__all__ += ["VerificationReport", "accuracy_at", "auc", "auc_floor"]
__all__ += ["best_accuracy", "best_accuracy_floor", "bootstrap"]
__all__ += ["cllr", "cmc", "compare_embeddings", "cross_fitted_accuracy", "d_prime", "det", "difference"]
__all__ += ["eer", "eer_point", "evaluate", "evaluate_retrieval", "isotonic", "map_at_r", "min_cllr", "min_dcf"]
__all__ += ["operating_point", "platt", "plot_det", "plot_errors", "plot_reliability", "plot_roc", "plot_scores"]
__all__ += ["r_precision", "read_scores", "recall_at_k", "roc", "rule_of_3", "rule_of_30"]
__all__ += ["tar_at_far", "threshold_at_cost", "threshold_at_far"]
