"""Diagnosis: flag a run whose loss falls while verification does not follow, and name the cause."""

from keras_siamese.diagnosis.causes import Finding, Signal
from keras_siamese.diagnosis.diagnose import diagnose
from keras_siamese.diagnosis.diagnosis import Diagnosis
from keras_siamese.diagnosis.experiments.confirm import Confirmation
from keras_siamese.diagnosis.experiments.repair import Attempt, Repair, repair
from keras_siamese.diagnosis.report.comparison import Comparison, compare_runs
from keras_siamese.diagnosis.suspects import Suspect
from keras_siamese.diagnosis.trend import Flag, find_flags

__all__ = [
    "Attempt",
    "Comparison",
    "Confirmation",
    "Diagnosis",
    "Finding",
    "Flag",
    "Repair",
    "Signal",
    "Suspect",
    "compare_runs",
    "diagnose",
    "find_flags",
    "repair",
]
