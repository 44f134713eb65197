"""Asynchronous successive halving: a fit ends after a third of its epochs unless it is among the best third by then.

Contract: the curves of earlier fits are read from the records that `folds` keeps. Runs are compared on the same fold.

    Halving(objective, epochs=9, curves=lambda: curves_of(project, fold=0))  # a callback, behind the monitor
"""

import math
from pathlib import Path

import keras
import numpy as np

from keras_siamese.tuning.folds import FILE, known_records
from keras_siamese.tuning.objectives import sign_of

SHARE = 3  # one of so many goes on, after one of so many parts of its epochs: the η of Hyperband and ASHA


def curves_of(project, fold):
    """The objective in each epoch of a fold, for each trial in a search's folder; None stands for NaN."""
    found = [known_records(path) or [] for path in sorted(Path(project).glob(f"trial_*/{FILE}"))]
    return [records[fold]["curve"] for records in found if len(records) > fold and "curve" in records[fold]]


def rung_of(epochs):
    """The epoch, from 1, after which a third of `epochs` are trained; None if there are fewer than three."""
    return math.ceil(epochs / SHARE) if epochs >= SHARE else None


def is_behind(curve, others, sign):
    """Whether a run is not among the best third of all runs, judged by their best values up to the same epoch.

    If no other run has reached this epoch, it is not behind. A run whose values are all NaN is behind any other.

    Args:
        curve: the objective in each epoch of the run so far; None and NaN stand for an epoch without a value.
        others: list of the curves of other runs.
        sign: 1 if larger values are better, else −1.

    >>> is_behind([0.4, 0.3], [[0.4, 0.2, 0.1], [0.5]], sign=-1)
    True
    """
    rivals = [best_of(other[: len(curve)], sign) for other in others if len(other) >= len(curve)]
    better = sum(rival > best_of(curve, sign) for rival in rivals)
    return bool(rivals) and better >= max(1, (1 + len(rivals)) // SHARE)


def best_of(curve, sign):
    """`sign` times the best value of a curve; −∞ if there is none."""
    values = [sign * value for value in curve if value is not None and not np.isnan(value)]
    return max(values, default=-math.inf)


class Halving(keras.callbacks.Callback):
    """Ends a fit after a third of its `epochs` if it `is_behind` the earlier ones.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), with one rung.

    Args:
        objective: KerasTuner's objective, of keys that the monitor writes.
        epochs: of the whole fit. Nothing happens if there are fewer than three.
        curves: function without arguments that returns the curves of earlier fits.
    """

    def __init__(self, objective, epochs, curves):
        super().__init__()
        self.objective, self.curves = objective, curves
        self.rung = rung_of(epochs)

    def on_train_begin(self, logs=None):
        self.curve = []

    def on_epoch_end(self, epoch, logs=None):
        self.curve.append(self.objective.get_value(logs))
        if epoch + 1 == self.rung and is_behind(self.curve, self.curves(), sign_of(self.objective)):
            self.model.stop_training = True
