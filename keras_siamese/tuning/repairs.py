"""Repairs that the diagnosis of a trial suggests, as changes of its hyperparameters, and the file that keeps them.

Contract: a worker calls `findings_of` after each fit and writes the result into the folder of its trial with `keep`.
The oracle reads it with `read`. A *finding* is a dict, as JSON: `cause`, `severity`, and `changes`, the repaired
values by name of the hyperparameter; `changes` is empty if the repair would change none of the trial. A finding of
severity "hint" is not of the diagnosis: it says whether the curve asks for another learning rate.

    keep(folder, fold=0, findings=findings_of(monitor.diagnosis, values, margin=loss.margin))
    agreed(read(folder))                        # findings of most folds, worst first
"""

import collections
from pathlib import Path

import keras
import numpy as np

from keras_siamese.tuning.folds import known_records, write_json
from keras_siamese.tuning.halving import rung_of

FINDINGS = "findings.json"
SEVERITIES = ("error", "warning", "info", "hint")  # worst first
CURVE, FACTOR = 5, 3.0  # epochs that a hint needs; by what it changes the learning rate
LOOKS = (1, 2)  # epochs, from 1; DivergenceMonitor itself looks at later ones


def findings_of(diagnosis, values, margin=None):
    """The findings of a `Diagnosis` as JSON, in its order, and the hints of its curve.

    A finding that another one explains is left out, unless the space has no repair of that other one: then it is the
    next thing to change, a "warning".

    Args:
        diagnosis: `Diagnosis` of a trial, or None.
        values: dict of the trial's hyperparameters.
        margin: the margin of its loss, in units of the distance, if `values` gives it as a share.
    """
    if diagnosis is None:
        return []
    changes = {one.cause: changes_of(one.apply, values, margin) for one in diagnosis.findings}
    found = [
        {
            "cause": one.cause,
            "severity": "warning" if one.explained_by else one.severity,
            "changes": changes[one.cause],
        }
        for one in diagnosis.findings
        if not changes.get(one.explained_by)
    ]
    return found + hints_of(diagnosis.observed.history.get("eer", []), values)


def hints_of(eer, values):
    """What the held-out EER of each epoch says of the learning rate of a run without a fault, as findings.

    If the last epoch is the best one, training was not finished: a larger rate. If the best one is in the first half,
    the steps are too large to settle: a smaller rate.
    """
    if "learning_rate" not in values or len(eer) < CURVE or np.isnan(eer).any():
        return []
    best = 1 + int(np.argmin(eer))
    if len(eer) // 2 < best < len(eer):
        return []
    cause, factor = ("unfinished", FACTOR) if best == len(eer) else ("unsettled", 1 / FACTOR)
    return [{"cause": cause, "severity": "hint", "changes": {"learning_rate": values["learning_rate"] * factor}}]


def changes_of(repair, values, margin=None):
    """What `repair`, a function from a recipe to another or None, changes in `values`, under their own names.

    >>> changes_of(lambda recipe: {**recipe, "margin": 1.0}, {"relative_margin": 0.01, "depth": 2}, margin=0.02)
    {'relative_margin': 0.5}
    """
    if repair is None:
        return {}
    recipe = recipe_of(values, margin)
    repaired = repair(dict(recipe))
    changed = {name: plain(value) for name, value in repaired.items() if name in recipe and value != recipe[name]}
    changes = {name: value for name, value in changed.items() if name in values}
    if "margin" in changed and "relative_margin" in values:
        changes["relative_margin"] = values["relative_margin"] * changed["margin"] / margin
    if "negatives" in changed and "mining" in values:
        changes["mining"] = "none"
    if "augment" in changed and "augmentation" in values:
        changes["augmentation"] = float(changed["augment"])
    return changes


def recipe_of(values, margin=None):
    """The recipe of a trial: its hyperparameters, and what follows from them under the names that repairs use."""
    recipe = {"normalize": None, **values}  # None: it cannot be changed
    if "relative_margin" in values and margin:
        recipe["margin"] = margin
    if "mining" in values:
        recipe["negatives"] = "all" if values["mining"] == "none" else values["mining"]
    if "augmentation" in values:
        recipe["augment"] = values["augmentation"] > 0
    return recipe


def plain(value):
    """A number of NumPy as one of Python, which JSON can hold."""
    return value.item() if isinstance(value, np.generic) else value


def keep(folder, fold, findings):
    """Writes the findings of a fold into the trial's folder, behind those of the folds before it."""
    file = Path(folder) / FINDINGS
    known = (known_records(file) or []) if fold else []
    write_json(file, [*known[:fold], findings])


def read(folder):
    """The findings of each fold of a trial, a list of lists; empty if none were kept, or if they cannot be read."""
    return known_records(Path(folder) / FINDINGS) or []


def agreed(folds):
    """The findings of at least half of the folds, one a cause: worst severity first, then the more frequent cause.

    The changes are the median of the folds' numbers, or the most frequent of other values.
    """
    by_cause = collections.defaultdict(list)
    for findings in folds:
        for finding in findings:
            by_cause[finding["cause"]].append(finding)
    found = []
    for cause, findings in by_cause.items():
        if 2 * len(findings) >= len(folds):
            severity = min((one["severity"] for one in findings), key=SEVERITIES.index)
            found.append((SEVERITIES.index(severity), -len(findings), cause, merged(findings)))
    found.sort(key=lambda one: one[:2])  # stable: otherwise the order of the first fold that has them
    return [{"cause": cause, "severity": SEVERITIES[place], "changes": changes} for place, _, cause, changes in found]


def merged(findings):
    """One dict of changes from those of several findings of the same cause."""
    given = collections.defaultdict(list)
    for finding in findings:
        for name, value in finding["changes"].items():
            given[name].append(value)
    return {name: middle(values) for name, values in given.items()}


def middle(values):
    """The lower median of numbers, or the most frequent of other values."""
    if any(isinstance(value, (bool, str)) for value in values):
        return collections.Counter(values).most_common(1)[0][0]
    return sorted(values)[(len(values) - 1) // 2]


class EarlyLook(keras.callbacks.Callback):
    """Ends a fit if `is_repairable(diagnosis, severities)` says so of the `monitor`'s diagnosis: for an error after the
    first or second epoch, for a warning too after a third of its `epochs`.
    """

    def __init__(self, monitor, is_repairable, epochs):
        super().__init__()
        self.monitor, self.is_repairable = monitor, is_repairable
        self.looks = {**dict.fromkeys(LOOKS, ("error",)), rung_of(epochs): ("error", "warning")}

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 not in self.looks:
            return
        with self.monitor.side.allowing("The early look at the run"):
            if self.is_repairable(self.monitor.diagnose(), self.looks[epoch + 1]):
                self.model.stop_training = True
