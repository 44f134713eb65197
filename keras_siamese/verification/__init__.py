"""Verification: labels and scores in, numbers out.

All functions are pure NumPy and take `same (n,)`, 1 genuine and 0 impostor, and `scores (n,)`, larger = more similar.
A pair is accepted iff score ≥ threshold.

- `curves`: the definitions: ROC, DET, EER, TAR at a FAR, accuracy.
- `intervals`: confidence intervals by a bootstrap over identities.
- `evidence`: what a given number of pairs can show.
- `costs`, `calibration`: costs of errors, and maps from scores to probabilities.
- `crossfit`: the accuracy at thresholds chosen on other identities.
- `report`: all of these at once.
- `groups`, `quality`: error rates by group, by age of templates, and by quality.
- `open_set`: searches of a gallery that may not hold the person.
- `retrieval`: how near queries find embeddings of their own identity.
- `searches`: the nearest embeddings of a gallery, also of one in files; `tasks`: work for joblib's workers.
- `histogram`, `all_pairs`: the same figures for more pairs than fit in memory; `grouped`: with intervals.
- `spread`, `shards`: all pairs of embeddings in files, on the workers of joblib.
- `quantization`: embeddings in one byte or one bit for each dimension, and the cost in EER.
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
from keras_siamese.verification.grouped import GroupedHistogram
from keras_siamese.verification.groups import Gap, GroupFigures, GroupReport, compare_groups
from keras_siamese.verification.histogram import ScoreHistogram
from keras_siamese.verification.intervals import Interval, bootstrap, difference
from keras_siamese.verification.open_set import FNIRFigure, OpenSet, evaluate_open_set
from keras_siamese.verification.plots import plot_det, plot_errors, plot_reliability, plot_roc, plot_scores
from keras_siamese.verification.points import OperatingPoint
from keras_siamese.verification.quality import DiscardCurve, error_versus_discard, plot_discard
from keras_siamese.verification.quantization import (
    QuantizationCost,
    QuantizationReport,
    dequantize_embeddings,
    embedding_ranges,
    quantization_cost,
    quantize_embeddings,
)
from keras_siamese.verification.report import TARFigure, VerificationReport, evaluate
from keras_siamese.verification.retrieval import Retrieval, cmc, evaluate_retrieval, map_at_r, r_precision, recall_at_k
from keras_siamese.verification.searches import Neighbours, search_embeddings
from keras_siamese.verification.shards import Shards
from keras_siamese.verification.spread import compare_shards
from keras_siamese.verification.tables import ScoreTable, read_scores

__all__ = [
    "DiscardCurve",
    "FNIRFigure",
    "Gap",
    "GroupFigures",
    "GroupReport",
    "GroupedHistogram",
    "Interval",
    "Neighbours",
    "OpenSet",
    "OperatingPoint",
    "QuantizationCost",
    "QuantizationReport",
    "Retrieval",
    "RuleOf30",
    "ScoreHistogram",
    "ScoreTable",
    "Shards",
    "TARFigure",
    "VerificationReport",
    "accuracy_at",
    "auc",
    "auc_floor",
    "best_accuracy",
    "best_accuracy_floor",
    "bootstrap",
    "cllr",
    "cmc",
    "compare_embeddings",
    "compare_groups",
    "compare_shards",
    "cross_fitted_accuracy",
    "d_prime",
    "dequantize_embeddings",
    "det",
    "difference",
    "eer",
    "eer_point",
    "embedding_ranges",
    "error_versus_discard",
    "evaluate",
    "evaluate_open_set",
    "evaluate_retrieval",
    "isotonic",
    "map_at_r",
    "min_cllr",
    "min_dcf",
    "operating_point",
    "platt",
    "plot_det",
    "plot_discard",
    "plot_errors",
    "plot_reliability",
    "plot_roc",
    "plot_scores",
    "quantization_cost",
    "quantize_embeddings",
    "r_precision",
    "read_scores",
    "recall_at_k",
    "roc",
    "rule_of_3",
    "rule_of_30",
    "search_embeddings",
    "tar_at_far",
    "threshold_at_cost",
    "threshold_at_far",
]
