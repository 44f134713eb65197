"""Grid search over a siamese network's hyperparameters, cross-validated on folds that share no identity.

Contract: results have scikit-learn's names. KerasTuner's `GridSearch` (extra `tuner`, imported when a search is
created) chooses what to try next, saves it and handles failures. This module runs a trial: one model is trained and
verified for each fold.

    def build_fn(embedding_dim):
        return keras.Sequential([keras.layers.Dense(embedding_dim), keras.layers.UnitNormalization()])

    grid = {"margin": [0.5, 1.0], "embedding_dim": [16, 64], "learning_rate": [1e-3, 1e-4]}
    search = SiameseGridSearch(build_fn, param_grid=grid, cv=3).fit(x, labels)
    search.best_params_, search.best_model_, search.results_.to_frame()
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import itertools
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import rich  # comes with Keras

from keras_siamese import _checks
from keras_siamese._seeds import seeded
from keras_siamese._types import ArrayLike, Objective, Samples, Self, StrPath
from keras_siamese.callbacks import SetEpoch
from keras_siamese.data import PairSequence
from keras_siamese.data.sources import check_source, count_samples, subset
from keras_siamese.losses import ContrastiveLoss
from keras_siamese.tuning import folds as folding
from keras_siamese.tuning.objectives import check_objective
from keras_siamese.tuning.objectives import objective as objective_of
from keras_siamese.tuning.recipe import parameters_of, siamese_of
from keras_siamese.tuning.results import SearchResults, TrialResult, read_trial

logger = logging.getLogger(__name__)


class SiameseGridSearch:
    """Tries every combination of a grid by cross-validation on identity-disjoint folds, and refits the best one.

    It replaces ``GridSearchCV(KerasClassifier(build_fn), param_grid, cv=3)``, whose folds share identities. For each
    fold a new model is trained on a `PairSequence` of the other folds' identities and measured on the fold's own
    identities by a `VerificationMonitor`. The value of a fold is the objective **at its best epoch** (KerasTuner's
    convention, slightly optimistic for all combinations); epochs with NaN are ignored. The best combination is then
    trained on all samples, for the mean number of its best epochs.

    Args:
        build_fn: a function of keyword arguments that returns a new encoder (any uncompiled model or layer from one
            input to `(batch, dim)`; a siamese network with Euclidean distance is built around it), an uncompiled
            siamese network, or a compiled model that takes pairs. An uncompiled model is compiled with
            ``Adam(learning_rate)`` and ``ContrastiveLoss(margin)``, with values from the grid if it has them.
        param_grid: dict from names to lists of values: parameters of `build_fn`, `margin` and `learning_rate`. A value
            is anything that JSON can hold: 0.5, "cosine", [64, 128], None. `{}` is one combination.
        cv, epochs, batch_size: number of folds, ≥ 2, with at least two identities each; epochs for each fold, ≥ 1;
            pairs in a batch, ≥ 1.
        objective: "val_eer" (default), "val_auc", "val_verification_accuracy", "val_d_prime", "val_tar@far=0.01" (or
            another rate), or "loss", the training loss. The direction follows from the name.
        callbacks: list of Keras callbacks, deep-copied for each fit and called after the monitor. Callbacks that
            monitor a "val_" key are left out of the refit, which has no validation data.
        on_divergence: "warn" watches each fit with a `DivergenceMonitor`, and tags it with the cause if the loss falls
            while verification does not improve; "stop" also ends such a fit; None (default) does neither.
        give_up: if a trial's folds so far are worse, on average, than the same folds of the best trial by more than
            this (in units of the objective), its other folds are skipped. Its value is then the best trial's mean plus
            the mean difference. None (default) measures all folds.
        directory, project_name: where KerasTuner keeps the trials; None: in a temporary folder. The same search run
            again continues there and repeats failed trials. Changes of `build_fn`'s or callbacks' code go unnoticed.
        seed: integer ≥ 0 for folds and pairs and, different in each fold, for initial weights and dropout (but not on
            PyTorch, where Keras draws dropout from the global generator).
        verbose: 1 prints a line for each fit and the table at the end, 0 nothing. Failures are logged and warned of.

    Attributes:
        cv_results_: as in `SearchResults`, with one entry for each combination, in the order of `itertools.product`.
            **A greater test score is better**: for "val_eer" it is −EER, while `mean_val_eer` is the EER.
        best_params_, best_index_, best_score_: the best combination, its index, and its `mean_test_score`.
        best_model_, refit_epochs_: the model of that combination, trained on all samples, and its number of epochs.
        failures_: dict from the index of each failed combination to its traceback. Its scores are NaN and rank last.
        causes_: dict from each cause of divergence to the number of combinations that were tagged with it.
        results_: all of this as `SearchResults`: a table, a DataFrame, an HTML page, TensorBoard's HParams.

    Raises:
        ValueError, TypeError: before training, if an argument is wrong: a grid key that nothing takes, values that are
            not a list of distinct JSON values, too few identities, NaN, a `directory` that holds another search.
        FatalValueError: of KerasTuner, if `build_fn` returns a model with weights that an earlier fit has trained.
        RuntimeError: if every combination failed; it contains the first traceback.
    """

    def __init__(
        self,
        build_fn: Callable[..., keras.layers.Layer],
        param_grid: Mapping[str, Any],
        cv: int = 3,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        objective: str = "val_eer",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        on_divergence: Literal["warn", "stop"] | None = None,
        give_up: float | None = None,
        directory: StrPath | None = None,
        project_name: str = "siamese_grid_search",
        seed: int = 0,
        verbose: int = 1,
    ) -> None:
        _checks.check_installed("keras_tuner", "tuner")
        self.param_grid, self._texts = check_grid(param_grid)
        self.build_fn, self._taken = build_fn, check_build_fn(build_fn, self.param_grid)
        self.cv = _checks.check_integer("cv", cv, low=2)
        self.on_divergence, self.give_up = folding.check_settings(on_divergence, give_up)
        self.epochs = _checks.check_integer("epochs", epochs, low=1)
        self.batch_size = _checks.check_integer("batch_size", batch_size, low=1)
        _, self._far = check_objective(objective)
        self.objective = objective
        self.callbacks = folding.check_callbacks(callbacks)
        for name, path in (("directory", "." if directory is None else directory), ("project_name", project_name)):
            _checks.check_path(name, path)
        self.directory, self.project_name = directory, project_name
        self.seed = _checks.check_integer("seed", seed, low=0)
        self.verbose = _checks.check_choice("verbose", verbose, (0, 1))

    def fit(self, x: Samples, labels: ArrayLike) -> Self:
        """Runs the search on samples `x` `(n, …)` with identities `labels` `(n,)`; returns this object."""
        x = check_source("x", x)
        labels = _checks.check_labels("labels", labels, length=count_samples(x))
        self._trained = folding.Trained()
        folds = folding.make_folds(x, labels, self.cv, self.seed, self._far, self.on_divergence)
        params = [dict(zip(self.param_grid, row, strict=True)) for row in itertools.product(*self.param_grid.values())]
        with tempfile.TemporaryDirectory(prefix="keras_siamese_") as temporary:
            trials = self.search(x, labels, folds, params, self.project_folder(x, labels) or Path(temporary))
        self.read(trials, objective_of(self.objective))
        self.show(str(self.results_))
        value = f"{self.objective} {self.cv_results_[f'mean_{self.objective}'][self.best_index_]:.4f}"
        self.show(f"best: {self.best_params_}: {value}; {self.refit_epochs_} epochs on all {len(labels)} samples")
        kept = [one for one in self.callbacks if not str(getattr(one, "monitor", "")).startswith("val_")]
        best = self.best_params_, self.refit_epochs_, copy.deepcopy(kept), self.seed
        self.best_model_, _ = self.train(x, labels, *best)
        return self

    def read(self, trials: list[TrialResult], objective: Objective) -> None:
        """Sets the attributes from a list of `TrialResult`; warns about failures, raises if all failed."""
        self.results_ = SearchResults(trials, objective, self.cv)
        self.cv_results_, self.causes_ = self.results_.cv_results_, self.results_.causes
        self.failures_ = {entry: trial.error for entry, trial in enumerate(trials) if trial.error is not None}
        best = self.results_.best
        if self.failures_:
            from sklearn.exceptions import FitFailedWarning  # imported here because it is slow to import

            warnings.warn(self.results_.failure(), FitFailedWarning, stacklevel=3)
        self.best_index_ = trials.index(best)
        self.best_params_ = copy.deepcopy(best.params)
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.refit_epochs_ = round(np.mean([record["epoch"] for record in best.records]))

    def project_folder(self, x: Samples, labels: ArrayLike) -> Path | None:
        """The folder given for the trials, or None; raises if it holds another search."""
        if self.directory is None:
            return None
        folder = Path(self.directory) / self.project_name
        names = ("cv", "epochs", "batch_size", "objective", "seed", "on_divergence", "give_up")
        ours = {name: getattr(self, name) for name in names}  # with other settings it is another search
        ours |= {"param_grid": self._texts, "data": folding.data_hash(x, labels)}
        folding.claim(folder, ours, is_fresh=not folder.exists() or not any(folder.iterdir()))
        return folder

    def search(self, x: Samples, labels: ArrayLike, folds: Any, params: Any, folder: Path) -> list[TrialResult]:
        """Runs KerasTuner's search; returns a `TrialResult` for each of `params`."""
        keras_tuner = _checks.check_installed("keras_tuner", "tuner")
        entries = {row: entry for entry, row in enumerate(itertools.product(*self._texts.values()))}
        space = keras_tuner.HyperParameters()
        for name, texts in self._texts.items():
            space.Choice(name, texts)

        def entry_of(trial):
            return entries[tuple(trial.hyperparameters.values[name] for name in self._texts)]

        with contextlib.redirect_stdout(None):  # KerasTuner prints that it reloads
            tuner = fold_grid_search()(
                objective=objective_of(self.objective),
                hyperparameters=space,
                tune_new_entries=False,
                seed=1,  # not used by a grid, but otherwise KerasTuner draws one from Python's global generator
                max_consecutive_failed_trials=len(params) + 1,  # go on after failures, as GridSearchCV does
                directory=str(folder.parent),
                project_name=folder.name,
            )
        tuner.evaluate = lambda trial, file: self.cross_validate(x, labels, folds, params, entry_of(trial), file)
        tuner.oracle.verbose = 0
        done = sum(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())
        self.show(f"{len(params)} trials of {self.cv} folds each; {done} trials were finished before")
        with set_aside():
            tuner.search()
        aim, ended = tuner.oracle.objective, map(tuner.oracle.get_trial, tuner.oracle.end_order)
        found = {entry_of(one): read_trial(Path(tuner.get_trial_dir(one.trial_id)), one, aim) for one in ended}
        return [dataclasses.replace(found[entry], params=one) for entry, one in enumerate(params)]

    def cross_validate(
        self, x: Samples, labels: ArrayLike, folds: Any, params: Any, entry: int, file: StrPath
    ) -> dict[str, float]:
        """Runs one trial; returns its metrics for KerasTuner and writes the records of its folds into `file`."""
        at = f"trial {entry + 1}/{len(params)}"

        def title(number):
            return f"[{at}, fold {number + 1}/{self.cv}] {params[entry]}:"

        def fit(fold, number):
            monitor = folding.monitor_of(fold.monitor, self.on_divergence)
            callbacks = [monitor, *copy.deepcopy(self.callbacks)]
            rows = subset(x, fold.rows), labels[fold.rows]
            _, history = self.train(*rows, params[entry], self.epochs, callbacks, self.seed + number)
            return history, monitor

        def shown(number, record):
            given_up = f"[{at}] given up after {number} of {self.cv} folds"
            self.show(given_up if record is None else f"{title(number)} {self.line_of(record)}")

        try:
            return folding.measure(folds, objective_of(self.objective), self.give_up, file, fit, shown)
        except Exception as error:
            number = len(folding.known_records(file) or ())  # the records of the folds before
            logger.warning("%s failed with %s: %s", title(number), type(error).__name__, error)
            raise

    def line_of(self, record: Any) -> str:
        """The text of one line about a fit."""
        value, cause = record["logs"][self.objective], record.get("cause")
        line = f"{self.objective} {value:.4f} at epoch {record['epoch']} of {self.epochs}, {record['seconds']:.1f} s"
        return f"{line}; diverged: {cause}" if cause else line

    def train(
        self,
        x: Samples,
        labels: ArrayLike,
        params: Any,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback],
        seed: int,
    ) -> tuple[keras.Model, keras.callbacks.History]:
        """A new model after `epochs` on pairs of the samples `x`, and Keras's `History`."""
        sequence = PairSequence(x, labels, batch_size=self.batch_size, seed=self.seed)
        with seeded(seed):
            model = build_model(self.build_fn, self._taken, params)
            callbacks = [SetEpoch(sequence), *callbacks]
            # Not shuffled: the pairs are in random order already.
            with self._trained.adding(model, "build_fn"):
                return model, model.fit(sequence, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)

    def show(self, line: str) -> None:
        if self.verbose:
            rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def fold_grid_search():
    """KerasTuner's `GridSearch` with our trials; a class inside a function, so that KerasTuner is imported late."""

    class FoldGridSearch(_checks.check_installed("keras_tuner", "tuner").GridSearch):
        """Runs `self.evaluate(trial, file)` as a trial, and can resume a search."""

        def run_trial(self, trial):
            gc.collect()  # models hold reference cycles; without this they would fill the accelerator's memory
            return self.evaluate(trial, self.file_of(trial.trial_id))

        def reload(self):
            super().reload()
            # A reloaded oracle does not know the order of the trials, and soon raises a KeyError
            # (https://github.com/keras-team/keras-tuner/issues/1055). In a grid it is the order of their starts.
            oracle = self.oracle
            for previous, trial_id in itertools.pairwise([None, *oracle.start_order]):
                oracle._ordered_ids.insert(trial_id, previous)
            oracle._populate_next = list(oracle.start_order)
            for trial_id in [one for one in oracle.end_order if self.is_lacking(oracle.trials[one])]:
                oracle.end_order.remove(trial_id)
                oracle._retry_queue.append(trial_id)

        def file_of(self, trial_id):
            return Path(self.get_trial_dir(trial_id)) / folding.FILE

        def is_lacking(self, trial):
            """Whether a trial that has ended is to be run again: it failed, or its records cannot be read."""
            if trial.status == "FAILED":
                return True
            if folding.known_records(self.file_of(trial.trial_id)) is not None:
                return False
            logger.warning("Trial %s is measured again: its %s cannot be read", trial.trial_id, folding.FILE)
            trial.metrics = type(trial.metrics)()  # KerasTuner would average the new values with the old ones
            return True

    return FoldGridSearch


@contextlib.contextmanager
def set_aside():
    """Keep the objects that exist now out of garbage collections in this block, which look only through new ones.

    A backend alone has a million objects, and to look through them takes as long as some epochs of a small model.
    """
    if gc.get_freeze_count():  # the program has done so itself
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def build_model(build_fn, taken, params):
    """The compiled model of `params`: `build_fn` gets the `taken` ones, our compile gets margin and learning rate."""
    errors = _checks.check_installed("keras_tuner", "tuner").errors  # fatal errors end the search, not only the trial
    model = build_fn(**{name: copy.deepcopy(value) for name, value in params.items() if name in taken})
    if not isinstance(model, keras.layers.Layer):
        raise errors.FatalTypeError(f"`build_fn` must return an encoder or a model that takes pairs; got {model!r}")
    if getattr(model, "compiled", False):
        unused = ", ".join(name for name in params if name not in taken)
        if unused:
            why = "it returned a compiled model, which cannot be given these values"
            raise errors.FatalValueError(f"`build_fn` must take {unused}, or return an uncompiled model: {why}")
        return model
    model = siamese_of(model)
    rate, margin = ({name: params[name]} if name in params else {} for name in ("learning_rate", "margin"))
    model.compile(keras.optimizers.Adam(**rate), loss=ContrastiveLoss(**margin))
    return model


def check_grid(param_grid):
    """Returns the grid with Python's numbers, and the same with values as JSON: a `Choice` takes one type of value."""
    if not isinstance(param_grid, dict):
        raise TypeError(f"`param_grid` must be a dict of lists of values; got a {type(param_grid).__name__}")
    grid, texts = {}, {}
    for name, values in param_grid.items():
        if not isinstance(values, (list, tuple, range, np.ndarray)):
            raise TypeError(f"`param_grid[{name!r}]` must be a list; got {values!r} of type {type(values).__name__}")
        grid[name] = [value.item() if isinstance(value, np.generic) else value for value in values]
        try:
            texts[name] = [json.dumps(value, allow_nan=False) for value in grid[name]]
        except (TypeError, ValueError) as error:
            found = f"{values!r}: {error}"
            raise TypeError(f"`param_grid[{name!r}]` must hold values that JSON can hold; got {found}") from error
        if not texts[name] or len(set(texts[name])) < len(texts[name]):
            raise ValueError(f"`param_grid[{name!r}]` must hold one value or several distinct ones; got {values!r}")
    return grid, texts


def check_build_fn(build_fn, grid):
    """Returns the names of the grid that `build_fn` takes; others must be `margin` or `learning_rate`."""
    if not callable(build_fn):
        raise TypeError(f"`build_fn` must be a function that returns a model; got a {type(build_fn).__name__}")
    named, takes_all = parameters_of(build_fn)
    missing = [name for name, is_needed in named.items() if is_needed and name not in grid]
    if missing:
        raise ValueError(f"`param_grid` must hold {', '.join(missing)}, which `build_fn` needs; got {list(grid)}")
    taken = {name for name in grid if takes_all or name in named}
    for name in [name for name in grid if name not in taken]:
        if name not in ("margin", "learning_rate"):
            known = f"parameters of `build_fn` ({', '.join(named)}), margin or learning_rate"
            raise ValueError(f"`param_grid` must hold {known}; got {name!r}")
        for value in grid[name]:
            _checks.check_number(f"param_grid[{name!r}]", value, low=0, open_low=True, open_high=True)
    return taken
