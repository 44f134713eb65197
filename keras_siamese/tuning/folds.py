"""Folds of a trial: models are trained on some identities and verified on others, and each fit leaves a record.

Contract: samples are a source `(n, …)`, labels `(n,)`, objectives KerasTuner's. A *record* describes one fit, as JSON:
`epoch` (the best one, from 1), `seconds`, `logs` (of that epoch), `curve` (the objective of each epoch) and, with a
`DivergenceMonitor`, `flags` (epochs, from 1) and `cause` (None if nothing was flagged).

    folds = make_folds(x, labels, cv=3, seed=0)
    monitor = monitor_of(folds[0].monitor, "stop")
    record = record_of(model.fit(…, callbacks=[monitor]).history, objective, seconds, monitor)
"""

import contextlib
import copy
import json
import logging
import time
import weakref
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_siamese import _checks
from keras_siamese._files import write_text
from keras_siamese._reading import json_of, text_of
from keras_siamese.callbacks import DivergenceMonitor, VerificationMonitor
from keras_siamese.data import IdentityKFold, PairSequence
from keras_siamese.data.sources import subset
from keras_siamese.tuning.compiled import kept_compiled
from keras_siamese.tuning.objectives import keys_of, sign_of

FILE = "folds.json"
logger = logging.getLogger(__name__)


class Fold(NamedTuple):
    """The rows `(m,)` to train on, and a monitor of the other rows, which is copied for each fit."""

    rows: np.ndarray
    monitor: VerificationMonitor


class Trained:
    """The weights that the fits of a search have trained. A model that has one of them has seen held-out identities."""

    def __init__(self):
        self._weights = {}  # weak references by id

    def __reduce__(self):  # copies belong to other searches
        return type(self), ()

    @contextlib.contextmanager
    def adding(self, model, name):
        """A block that trains `model`, which what is called `name` has built.

        Raises:
            FatalValueError: KerasTuner's, which ends the search, if the block would train a weight again.
        """
        shared = [one for one in model.trainable_weights if self._weights.get(id(one), lambda: None)() is one]
        if shared:
            keras_tuner = _checks.check_installed("keras_tuner", "tuner")
            why = f"an earlier fit has trained {shared[0].path!r}, perhaps with identities that are now held out"
            must = f"`{name}` must make new layers in each call, except for frozen ones"
            raise keras_tuner.errors.FatalValueError(f"{must}; {why}")
        try:
            yield
        finally:
            self._weights |= {id(one): weakref.ref(one) for one in model.trainable_weights}


def make_folds(x, labels, cv, seed, far=None, on_divergence=None):
    """Returns `cv` folds, each with other held-out identities; raises if one of them has no pairs."""
    if (identities := len(np.unique(labels))) < cv:
        raise ValueError(f"`labels` must hold at least as many identities as folds, cv={cv}; got {identities}")
    folds = []
    for number, (rows, held_out) in enumerate(IdentityKFold(cv, seed=seed).split(labels, labels), start=1):
        try:
            PairSequence(subset(x, rows), labels[rows])
            monitor = make_monitor((subset(x, held_out), labels[held_out]), far, on_divergence)
        except ValueError as error:
            count = len(np.unique(labels[held_out]))
            raise ValueError(f"Fold {number} of {cv}, with {count} identities, cannot be used: {error}") from error
        folds.append(Fold(rows, monitor))
    return folds


def make_monitor(validation, far=None, on_divergence=None):
    """The monitor of held-out data; raises if there are too few pairs for a rate in `far`, `{"far": rates}` or None."""
    kind = VerificationMonitor if on_divergence is None else DivergenceMonitor
    monitor = kind(validation, **(far or {}))
    if far and len(monitor.far) < np.size(far["far"]):
        raise ValueError("too few impostor pairs for `objective`")
    return monitor


def monitor_of(template, on_divergence=None, **settings):
    """A copy of a monitor for one fit. It stops a flagged run if `on_divergence` is "stop", and never warns."""
    monitor = copy.deepcopy(template)
    for name, value in settings.items():
        setattr(monitor, name, value)
    if on_divergence is not None:

        def act(diagnosis):
            if on_divergence == "stop":
                monitor.model.stop_training = True

        monitor.on_divergence = act
    return monitor


def cause_of(monitor):
    """The first cause found for a flagged run, "undetermined" if none was found, None if nothing was flagged."""
    if not monitor.flags:
        return None
    findings = () if monitor.diagnosis is None else monitor.diagnosis.findings  # None: it could not be diagnosed
    return findings[0].cause if findings else "undetermined"


def record_of(history, objective, seconds, monitor=None, initial_epoch=0):
    """The record of a fit from its curves, `{key: [value of each epoch, …]}`; an epoch with NaN is never the best.

    Raises if a key of `objective` was not logged, or if the objective is NaN in every epoch.
    """
    missing = [key for key in keys_of(objective) if key not in history]
    if missing:
        raise ValueError(f"`objective` must be a key that is logged, {', '.join(history)}; got {', '.join(missing)}")
    count = len(history[keys_of(objective)[0]])
    curves = {key: curve for key, curve in history.items() if len(curve) == count and all(map(is_number, curve))}
    epochs = [{key: float(curve[at]) for key, curve in curves.items()} for at in range(count)]
    scores = sign_of(objective) * np.array([objective.get_value(logs) for logs in epochs], dtype=float)
    if np.isnan(scores).all():
        # KerasTuner's own handling of NaN takes the minimum of an empty array, which warns.
        raise FloatingPointError(f"{objective.name} is NaN in every epoch")
    best = int(np.nanargmax(scores))
    logs = {**epochs[best], objective.name: float(objective.get_value(epochs[best]))}
    curve = [None if np.isnan(value) else float(value) for value in sign_of(objective) * scores]
    record = {"epoch": initial_epoch + best + 1, "seconds": seconds, "logs": logs, "curve": curve}
    if isinstance(monitor, DivergenceMonitor):
        record |= {"flags": [int(flag) + 1 for flag in monitor.flags], "cause": cause_of(monitor)}
    return record


def is_number(value):
    """Whether a log is one number; a metric may give an array, and a callback any object."""
    return np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number)


def measure(folds, objective, give_up, file, fit, shown, initial_epoch=0):
    """Trains a trial on each of its folds; returns what KerasTuner is told of them (`metrics_of`).

    `fit(fold, number)` returns Keras's `History` and the monitor. After each fold the records are written into the
    trial's `file`, and `shown(number, record)` is called; the record is None if the trial is given up before that fold.
    """
    best = None if give_up is None else best_values(Path(file).parent.parent, len(folds), objective)
    records = []
    write_json(file, records)
    for number, fold in enumerate(folds):
        if is_hopeless(values_of(records, objective), best, objective, give_up):
            shown(number, None)
            break
        start = time.perf_counter()
        with kept_compiled():
            history, monitor = fit(fold, number)
        seconds = time.perf_counter() - start
        records.append(record_of(history.history, objective, seconds, monitor, initial_epoch))
        write_json(file, records)
        shown(number, records[-1])
    return metrics_of(records, len(folds), objective, best)


def values_of(records, objective):
    """The objective of each record `(n,)`."""
    return np.array([record["logs"][objective.name] for record in records], dtype=float)


def metrics_of(records, cv, objective, best=None):
    """The metrics of a trial for KerasTuner: the mean of each key, and the objective's spread and value in each fold.

    If the trial was given up, there are fewer than `cv` records. The objective is then `expected` from
    the values `best` `(cv,)` of the best trial, so that an easy fold does not look like a good trial.
    """
    values, logs = values_of(records, objective), [record["logs"] for record in records]
    metrics = {key: float(np.mean([one[key] for one in logs])) for key in logs[0] if all(key in one for one in logs)}
    if cv > 1:
        metrics[f"std_{objective.name}"] = float(np.std(values)) if np.isfinite(values).all() else np.nan
        metrics |= {f"split{fold}_{objective.name}": float(value) for fold, value in enumerate(values)}
    metrics["best_epoch"] = float(np.mean([record["epoch"] for record in records]))
    # KerasTuner would only warn about metrics that are NaN.
    metrics = {key: value for key, value in metrics.items() if not np.isnan(value)}
    metrics[objective.name] = expected(values, best) if len(records) < cv else float(values.mean())
    return metrics


def expected(values, best):
    """The mean of `best` `(n,)`, another trial's, plus the mean difference of `values` `(k,)` on the same folds."""
    best = np.asarray(best, dtype=float)
    return float(best.mean() + np.mean(values - best[: len(values)]))


def is_hopeless(values, best, objective, give_up):
    """Whether `values` `(k,)` are worse than `best` `(n,)` over the same folds by more than `give_up` on average."""
    if give_up is None or best is None or not len(values):
        return False
    return sign_of(objective) * np.mean(best[: len(values)] - np.asarray(values)) > give_up


def best_values(project, cv, objective):
    """The values `(cv,)` of the best trial in a search's folder that has measured all folds, or None."""
    found = [known_records(path) for path in sorted(Path(project).glob(f"trial_*/{FILE}"))]
    candidates = [values_of(records, objective) for records in found if records is not None and len(records) == cv]
    candidates = [values for values in candidates if not np.isnan(values).any()]
    return max(candidates, key=lambda values: sign_of(objective) * values.mean(), default=None)


def write_json(path, content):
    """Writes a JSON file atomically: a reader, or a process that resumes after a crash, never sees half of it."""
    write_text(path, json.dumps(content))


def read_json(path, kind):
    """The content of the JSON file at `path`, a `kind` ("list" or "dict"). Raises `ValueError` for another content.

    A full disk, or a crash of the machine, may have cut the file short.
    """
    try:
        content = json_of(text_of(path), str(path))
    except ValueError as error:
        content = error
    if type(content).__name__ != kind:
        found = content if isinstance(content, ValueError) else f"it holds a {type(content).__name__}"
        why = "or it was cut short, as by a full disk. Restore the file, or search in another folder"
        raise ValueError(f"{str(path)!r} is not the JSON {kind} that a search writes ({found}), {why}")
    return content


def known_records(file):
    """The records in the `file` of a trial, a list, or None if there is no file, or none that can be read."""
    if not Path(file).exists():
        return None
    try:
        return read_json(file, "list")
    except ValueError as error:
        logger.warning("%s", error)
        return None


def claim(folder, ours, is_fresh):
    """Writes the settings of a search into its folder, which must hold the same ones already, or be fresh."""
    file = _checks.check_writable("directory", Path(folder) / "search.json")
    held = read_json(file, "dict") if file.exists() else ours if is_fresh else {}
    differ = [f"{name} {held.get(name)}, not {value}" for name, value in ours.items() if held.get(name) != value]
    if differ:
        raise ValueError(f"`directory` holds another search, in {str(file.parent)!r}: {'; '.join(differ)}")
    write_json(file, ours)


def data_hash(x, labels):
    """A hash of samples `(n, …)` and labels `(n,)` that depends on their values only, not on how they are stored."""
    import joblib  # comes with scikit-learn; imported here because it is slow to import

    return joblib.hash([x, labels], coerce_mmap=True)


def check_callbacks(callbacks):
    """Returns a copy of a list of Keras callbacks, or raises if they cannot be copied."""
    try:
        callbacks = copy.deepcopy(list(callbacks or []))
    except Exception as error:
        raise TypeError(f"`callbacks` must be a list that copy.deepcopy can copy: {error}") from error
    for one in callbacks:
        if not isinstance(one, keras.callbacks.Callback) or isinstance(one, VerificationMonitor):
            why = "callbacks other than a monitor; each fold has its own monitor"
            raise TypeError(f"`callbacks` must hold Keras {why}; got {one!r} of type {type(one).__name__}")
    return callbacks


def check_settings(on_divergence, give_up):
    """Returns what a search does with a run that diverges, None, "warn" or "stop", and when a trial is given up."""
    _checks.check_choice("on_divergence", on_divergence, (None, "warn", "stop"))
    return on_divergence, None if give_up is None else _checks.check_number("give_up", give_up, low=0)
