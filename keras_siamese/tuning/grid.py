"""Grid search over a siamese network's hyperparameters, cross-validated on folds that share no identity.

Contract: `build_fn(**params)` gives a model, `fit(x, labels)` takes a source `(n, …)` (see `data.sources`) and
identities `(n,)`; results have scikit-learn's names. What to try next, what is saved and what becomes of a failure is
up to KerasTuner's `GridSearch` (extra `tuner`, imported when a search is made); ours is its trial: one model trained
and verified a fold. Imports `_checks`, `callbacks`, `data`, `layers`, `losses` and the room's `folds` and `results`.

    def build_fn(embedding_dim):
        return keras.Sequential([keras.layers.Dense(embedding_dim), keras.layers.UnitNormalization()])

    grid = {"margin": [0.5, 1.0], "embedding_dim": [16, 64], "learning_rate": [1e-3, 1e-4]}
    search = SiameseGridSearch(build_fn, param_grid=grid, cv=3).fit(x, labels)
    search.best_params_, search.best_model_, search.results_.to_frame()
"""

import contextlib
import copy
import dataclasses
import gc
import inspect
import itertools
import json
import logging
import os
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import rich  # comes with Keras

from keras_siamese import _checks
from keras_siamese.callbacks import SetEpoch
from keras_siamese.data import PairSequence
from keras_siamese.data.sources import check_source, count_samples, subset
from keras_siamese.losses import ContrastiveLoss
from keras_siamese.tuning import folds as folding
from keras_siamese.tuning.objectives import check_objective
from keras_siamese.tuning.objectives import objective as objective_of
from keras_siamese.tuning.recipe import siamese_of
from keras_siamese.tuning.results import SearchResults, read_trial

logger = logging.getLogger(__name__)


class SiameseGridSearch:
    """Tries every combination of a grid by cross-validation on identity-disjoint folds, and refits the best one.

    In place of ``GridSearchCV(KerasClassifier(build_fn), param_grid, cv=3)``, whose folds share identities. For each
    fold a new model trains on a `PairSequence` of the other folds' identities, and a `VerificationMonitor` measures it
    on the fold's own. A fold's value is the objective **at its best epoch** (KerasTuner's convention; a little
    optimistic, for all alike), epochs with NaN aside. The refit takes the mean of the best combination's best epochs.

    Args:
        build_fn: a function of keyword arguments that returns an encoder (any uncompiled model or layer from one input
            to `(batch, dim)`; it becomes ``SiameseWrapper(encoder, distance="euclidean")``), a `SiameseWrapper`, or a
            compiled model that takes pairs. What comes uncompiled is compiled with ``Adam(learning_rate)`` and
            ``ContrastiveLoss(margin)``, from the grid where it has them, whether or not `build_fn` takes them too.
        param_grid: dict from names to lists of values, for parameters of `build_fn` and of the default compile. A
            value is what JSON can hold: 0.5, "cosine", [64, 128], None. `{}` is one combination.
        cv, epochs, batch_size: folds, ≥ 2, each to hold out two identities; epochs a fold and pairs a batch, ≥ 1.
        objective: "val_eer" (default), "val_auc", "val_verification_accuracy", "val_d_prime", "val_tar@far=0.01" (or
            another rate), or "loss", the training loss. Which way is better is known.
        callbacks: list of Keras callbacks, deep-copied for each fit, called after the monitor. Those that monitor a
            "val_" key sit out the refit, which holds nothing out.
        on_divergence: "warn" watches each fit with a `DivergenceMonitor` and tags it with the cause if the loss falls
            while verification does not follow; "stop" ends such a fit as well; None (default) does neither.
        give_up: a trial that over its folds so far is worse than the best trial over the same folds by more than this,
            in units of the objective, is not measured on the others; its mean is the best trial's and the mean
            difference. None (default) measures all.
        directory, project_name: where KerasTuner keeps the trials; None: in a temporary folder. The same search goes
            on there, failed trials anew; the code of `build_fn` and the callbacks are not compared.
        seed: integer ≥ 0, of folds and pairs and, different in each fold, of initial weights and dropout (not PyTorch's
            dropout, which Keras draws from the global generator).
        verbose: 1 shows a line a fit and the table at the end, 0 none. Failures are logged and warned of in any case.

    Attributes:
        cv_results_: dict of arrays with an entry a combination, in the order of `itertools.product`: scikit-learn's
            `params`, `param_<name>`, `split<i>_test_score`, `mean_test_score`, `std_test_score`, `rank_test_score`,
            `mean_fit_time`, `std_fit_time` (seconds); `split<i>_<objective>`, `mean_<objective>`, `std_<objective>`,
            and `split<i>_best_epoch` (from 1). **A test score is greater when better**: for "val_eer" it is −EER, as
            with scikit-learn's `neg_` scorers, and `mean_val_eer` is the EER.
        best_params_, best_index_, best_score_: the combination ranked first, its entry, and its `mean_test_score`.
        best_model_, refit_epochs_: that combination, trained on all samples, and for how many epochs.
        failures_: dict from the entry of a failed combination, whose scores are NaN and rank last, to its traceback.
        causes_: dict from each cause to the number of combinations that were tagged with it.
        results_: all of this as `SearchResults`: a table, a DataFrame, an HTML page, TensorBoard's HParams.

    Raises:
        ValueError, TypeError: before training, naming the argument: a grid key that nothing takes, values that are no
            list of distinct JSON values, too few identities, NaN, a `directory` that holds another search, and such.
        RuntimeError: if every combination failed; with the first traceback.
    """

    def __init__(
        self,
        build_fn,
        param_grid,
        cv=3,
        *,
        epochs=10,
        batch_size=32,
        objective="val_eer",
        callbacks=None,
        on_divergence=None,
        give_up=None,
        directory=None,
        project_name="siamese_grid_search",
        seed=0,
        verbose=1,
    ):
        _checks.check_installed("keras_tuner", "tuner")
        self.param_grid, self._texts = check_grid(param_grid)
        self.build_fn, self._taken = build_fn, check_build_fn(build_fn, self.param_grid)
        self.cv = _checks.check_integer("cv", cv, low=2)
        self.epochs = _checks.check_integer("epochs", epochs, low=1)
        self.batch_size = _checks.check_integer("batch_size", batch_size, low=1)
        _, self._far = check_objective(objective)
        self.objective = objective
        self.callbacks = folding.check_callbacks(callbacks)
        self.on_divergence = folding.check_on_divergence(on_divergence)
        self.give_up = None if give_up is None else _checks.check_number("give_up", give_up, low=0)
        for name, path in (("directory", "." if directory is None else directory), ("project_name", project_name)):
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"`{name}` must be a path; got {path!r} of type {type(path).__name__}")
        self.directory, self.project_name = directory, project_name
        self.seed = _checks.check_integer("seed", seed, low=0)
        self.verbose = _checks.check_choice("verbose", verbose, (0, 1))

    def fit(self, x, labels):
        """Runs the search on samples `x` `(n, …)` with identities `labels` `(n,)`; returns this object."""
        x = check_source("x", x)
        labels = _checks.check_labels("labels", labels, length=count_samples(x))
        folds = folding.make_folds(x, labels, self.cv, self.seed, self._far, self.on_divergence)
        params = [dict(zip(self.param_grid, row, strict=True)) for row in itertools.product(*self.param_grid.values())]
        with self.project_folder(x, labels) as folder:
            trials = self.search(x, labels, folds, params, folder)
        self.read(trials, objective_of(self.objective))
        self.show(str(self.results_))
        value = f"{self.objective} {self.cv_results_[f'mean_{self.objective}'][self.best_index_]:.4f}"
        self.show(f"best: {self.best_params_}: {value}; {self.refit_epochs_} epochs on all {len(labels)} samples")
        kept = [one for one in self.callbacks if not str(getattr(one, "monitor", "")).startswith("val_")]
        kept = copy.deepcopy(kept)
        self.best_model_, _ = self.train(x, labels, self.best_params_, self.refit_epochs_, kept, self.seed)
        return self

    def read(self, trials, objective):
        """Sets the attributes that follow from the list of `TrialResult`; warns of failures, raises if all failed."""
        self.results_ = SearchResults(trials, objective, self.cv)
        self.cv_results_, self.causes_ = self.results_.cv_results_, self.results_.causes
        self.failures_ = {entry: trial.error for entry, trial in enumerate(trials) if trial.error is not None}
        if self.failures_:
            first = min(self.failures_)
            from sklearn.exceptions import FitFailedWarning  # heavy: the package's import stays light

            best = self.results_.best  # raises if there is none
            count = f"{len(self.failures_)} of {len(trials)} trials failed"
            message = f"{count}; first {trials[first].params}:\n{self.failures_[first]}"
            warnings.warn(message, FitFailedWarning, stacklevel=3)
        best = self.results_.best
        self.best_index_ = trials.index(best)
        self.best_params_ = copy.deepcopy(best.params)
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.refit_epochs_ = round(np.mean([record["epoch"] for record in best.records]))

    @contextlib.contextmanager
    def project_folder(self, x, labels):
        """The folder of the trials: the given one, if it holds no other search, or one that goes at the end."""
        if self.directory is None:
            with tempfile.TemporaryDirectory(prefix="keras_siamese_") as folder:
                yield Path(folder)
            return
        folder = Path(self.directory) / self.project_name
        folding.claim(folder, self.fingerprint(x, labels), is_fresh=not folder.exists() or not any(folder.iterdir()))
        yield folder

    def fingerprint(self, x, labels):
        """What makes a search another one."""
        names = ("cv", "epochs", "batch_size", "objective", "seed", "on_divergence", "give_up")
        ours = {name: getattr(self, name) for name in names}
        return ours | {"param_grid": self._texts, "data": folding.data_hash(x, labels)}

    def search(self, x, labels, folds, params, folder):
        """KerasTuner's search: a `TrialResult` for each of `params`."""
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
                seed=1,  # of no use to a grid, but without one KerasTuner draws it from Python's global generator
                max_consecutive_failed_trials=len(params) + 1,  # neighbours fail together: go on, as GridSearchCV does
                directory=str(folder.parent),
                project_name=folder.name,
            )
        tuner.evaluate = lambda trial, file: self.cross_validate(x, labels, folds, params, entry_of(trial), file)
        tuner.oracle.verbose = 0
        done = sum(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())
        self.show(f"{len(params)} trials of {self.cv} folds each; {done} trials were finished before")
        tuner.search()
        ended = {entry_of(trial): trial for trial in map(tuner.oracle.get_trial, tuner.oracle.end_order)}
        aim = tuner.oracle.objective
        found = [read_trial(tuner.folds_file(ended[entry]).parent, ended[entry], aim) for entry in range(len(params))]
        return [dataclasses.replace(trial, params=one) for trial, one in zip(found, params, strict=True)]

    def cross_validate(self, x, labels, folds, params, entry, file):
        """One trial: what KerasTuner is told of it; `file` keeps the records of its folds, as far as it gets."""
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
            number = len(json.loads(file.read_text()))  # the records of the folds before
            logger.warning("%s failed with %s: %s", title(number), type(error).__name__, error)
            raise

    def line_of(self, record):
        """What is shown of a fit."""
        value, cause = record["logs"][self.objective], record.get("cause")
        line = f"{self.objective} {value:.4f} at epoch {record['epoch']} of {self.epochs}, {record['seconds']:.1f} s"
        return f"{line}; diverged: {cause}" if cause else line

    def train(self, x, labels, params, epochs, callbacks, seed):
        """A new model after `epochs` on pairs of the samples `x`, and Keras's `History`."""
        sequence = PairSequence(x, labels, batch_size=self.batch_size, seed=self.seed)
        with folding.seeded(seed):
            model = build_model(self.build_fn, self._taken, params)
            callbacks = [SetEpoch(sequence), *callbacks]
            # Unshuffled: pairs come in random order already, and Keras up to 3.5 would use TensorFlow's global seed.
            return model, model.fit(sequence, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)

    def show(self, line):
        if self.verbose:
            rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def fold_grid_search():
    """KerasTuner's `GridSearch` with our trial: a class in a function, so that KerasTuner is imported by its call."""

    class FoldGridSearch(_checks.check_installed("keras_tuner", "tuner").GridSearch):
        """A trial is `self.evaluate(trial, file)`, the logs of each fold, whose mean KerasTuner takes; it resumes."""

        def folds_file(self, trial):
            return Path(self.get_trial_dir(trial.trial_id)) / folding.FILE

        def run_trial(self, trial):
            gc.collect()  # a model holds itself in cycles, and a search would pile them up on the accelerator
            return self.evaluate(trial, self.folds_file(trial))

        def reload(self):
            super().reload()
            # A reloaded oracle does not know which trial follows which, and soon ends in a KeyError
            # (https://github.com/keras-team/keras-tuner/issues/1055). A grid's follow in the order of their starts.
            oracle = self.oracle
            for previous, trial_id in itertools.pairwise([None, *oracle.start_order]):
                oracle._ordered_ids.insert(trial_id, previous)
            oracle._populate_next = list(oracle.start_order)
            for trial_id in [one for one in oracle.end_order if oracle.trials[one].status == "FAILED"]:
                oracle.end_order.remove(trial_id)
                oracle._retry_queue.append(trial_id)

    return FoldGridSearch


def build_model(build_fn, taken, params):
    """The compiled model of `params`: the `taken` go to `build_fn`, margin and rate to the default compile."""
    errors = _checks.check_installed("keras_tuner", "tuner").errors  # a fatal one ends more than its trial: the search
    model = build_fn(**{name: copy.deepcopy(value) for name, value in params.items() if name in taken})
    if not isinstance(model, keras.layers.Layer):
        raise errors.FatalTypeError(f"`build_fn` must return an encoder or a model that takes pairs; got {model!r}")
    if getattr(model, "compiled", False):
        unused = ", ".join(name for name in params if name not in taken)
        if unused:
            why = "it returned a compiled model, which nobody tells these values"
            raise errors.FatalValueError(f"`build_fn` must take {unused}, or leave the compile to the search: {why}")
        return model
    model = siamese_of(model)
    rate, margin = ({name: params[name]} if name in params else {} for name in ("learning_rate", "margin"))
    model.compile(keras.optimizers.Adam(**rate), loss=ContrastiveLoss(**margin))
    return model


def check_grid(param_grid):
    """Returns `{name: [value, …]}`, NumPy's numbers as Python's, and it in JSON: a `Choice` takes one type of value."""
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
            raise TypeError(f"`param_grid[{name!r}]` must hold what JSON can hold; got {values!r}: {error}") from error
        if not texts[name] or len(set(texts[name])) < len(texts[name]):
            raise ValueError(f"`param_grid[{name!r}]` must hold one value or several distinct ones; got {values!r}")
    return grid, texts


def check_build_fn(build_fn, grid):
    """Returns the names of the grid that `build_fn` takes; the others must be of use to the default compile."""
    if not callable(build_fn):
        raise TypeError(f"`build_fn` must be a function that returns a model; got a {type(build_fn).__name__}")
    parameters = inspect.signature(build_fn).parameters.values()
    named = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    missing = [name for name, one in named.items() if one.default is one.empty and name not in grid]
    if missing:
        raise ValueError(f"`param_grid` must hold {', '.join(missing)}, which `build_fn` needs; got {list(grid)}")
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    taken = {name for name in grid if takes_all or name in named}
    for name in [name for name in grid if name not in taken]:
        if name not in ("margin", "learning_rate"):
            known = f"parameters of `build_fn` ({', '.join(named)}), or of the default compile (margin, learning_rate)"
            raise ValueError(f"`param_grid` must hold {known}; got {name!r}")
        for value in grid[name]:
            _checks.check_number(f"param_grid[{name!r}]", value, low=0, open_low=True, open_high=True)
    return taken
