"""Grid search over a siamese network's hyperparameters, cross-validated on folds that share no identity.

Contract: `build_fn(**params)` gives a model, `fit(x, labels)` takes a source `(n, …)` (see `data.sources`) and
identities `(n,)`; results have scikit-learn's names. What to try next, what is saved and what becomes of a failure is
up to KerasTuner's `GridSearch` (extra `tuner`, imported when a search is made); ours is its trial: one model trained
and verified a fold. Imports `_checks`, `callbacks`, `data`, `layers` and `losses`.

    def build_fn(embedding_dim):
        return keras.Sequential([keras.layers.Dense(embedding_dim), keras.layers.UnitNormalization()])

    grid = {"margin": [0.5, 1.0], "embedding_dim": [16, 64], "learning_rate": [1e-3, 1e-4]}
    search = SiameseGridSearch(build_fn, param_grid=grid, cv=3).fit(x, labels)
    search.best_params_, search.best_model_, pandas.DataFrame(search.cv_results_)
"""

import contextlib
import copy
import gc
import inspect
import itertools
import json
import logging
import os
import random
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import rich  # comes with Keras

from keras_siamese import _checks
from keras_siamese.callbacks import SetEpoch, VerificationMonitor
from keras_siamese.data import IdentityKFold, PairSequence
from keras_siamese.data.sources import check_source, count_samples, subset
from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss

__all__ = ["SiameseGridSearch"]

logger = logging.getLogger(__name__)
SIGNS = {"val_eer": -1, "val_auc": 1, "val_verification_accuracy": 1, "val_d_prime": 1, "loss": -1}  # 1: more is better
TAR = "val_tar@far="  # and a rate; more is better


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
        directory, project_name: where KerasTuner keeps the trials; None: in a temporary folder. The same search goes
            on there, failed trials anew; the code of `build_fn` and the callbacks are not compared.
        seed: integer ≥ 0, of folds and pairs and, different in each fold, of initial weights and dropout (not PyTorch's
            dropout, which Keras draws from the global generator).
        verbose: 1 shows a line a fit, 0 none. Failures are logged and warned of in any case.

    Attributes:
        cv_results_: dict of arrays with an entry a combination, in the order of `itertools.product`: scikit-learn's
            `params`, `param_<name>`, `split<i>_test_score`, `mean_test_score`, `std_test_score`, `rank_test_score`,
            `mean_fit_time`, `std_fit_time` (seconds); `split<i>_<objective>`, `mean_<objective>`, `std_<objective>`,
            and `split<i>_best_epoch` (from 1). **A test score is greater when better**: for "val_eer" it is −EER, as
            with scikit-learn's `neg_` scorers, and `mean_val_eer` is the EER.
        best_params_, best_index_, best_score_: the combination ranked first, its entry, and its `mean_test_score`.
        best_model_, refit_epochs_: that combination, trained on all samples, and for how many epochs.
        failures_: dict from the entry of a failed combination, whose scores are NaN and rank last, to its traceback.

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
        self.objective, (self._sign, self._far) = objective, check_objective(objective)
        self.callbacks = check_callbacks(callbacks)
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
        folds = make_folds(x, labels, self.cv, self.seed, self._far)
        params = [dict(zip(self.param_grid, row, strict=True)) for row in itertools.product(*self.param_grid.values())]
        with self.project_folder(x, labels) as folder:
            records, self.failures_ = self.search(x, labels, folds, params, folder)
        self.cv_results_ = cv_results(params, records, self.objective, self._sign, self.cv)
        self.report_failures(params)
        best = self.best_index_ = int(np.argmin(self.cv_results_["rank_test_score"]))
        self.best_params_ = copy.deepcopy(params[best])
        self.best_score_ = float(self.cv_results_["mean_test_score"][best])
        self.refit_epochs_ = round(np.mean([fold["epoch"] for fold in records[best]]))
        value = f"{self.objective} {self.cv_results_[f'mean_{self.objective}'][best]:.4f}"
        self.show(f"best: {params[best]}: {value}; {self.refit_epochs_} epochs on all {len(labels)} samples")
        kept = [one for one in self.callbacks if not str(getattr(one, "monitor", "")).startswith("val_")]
        self.best_model_, _ = self.train(x, labels, params[best], self.refit_epochs_, kept, self.seed)
        return self

    @contextlib.contextmanager
    def project_folder(self, x, labels):
        """The folder of the trials: the given one, if it holds no other search, or one that goes at the end."""
        if self.directory is None:
            with tempfile.TemporaryDirectory(prefix="keras_siamese_") as folder:
                yield Path(folder)
            return
        import joblib  # comes with scikit-learn; heavy: the package's import stays light

        file = _checks.check_writable("directory", Path(self.directory) / self.project_name / "search.json")
        ours = {name: getattr(self, name) for name in ("cv", "epochs", "batch_size", "objective", "seed")}
        ours |= {"param_grid": self._texts, "data": joblib.hash([x, labels], coerce_mmap=True)}
        held = json.loads(file.read_text()) if file.exists() else {} if any(file.parent.iterdir()) else ours
        differ = [f"{name} {held.get(name)}, not {value}" for name, value in ours.items() if held.get(name) != value]
        if differ:
            raise ValueError(f"`directory` holds another search, in {str(file.parent)!r}: {'; '.join(differ)}")
        file.write_text(json.dumps(ours))
        yield file.parent

    def search(self, x, labels, folds, params, folder):
        """KerasTuner's search: what `cross_validate` kept of each of `params`, and `{entry: traceback}` of failures."""
        keras_tuner = _checks.check_installed("keras_tuner", "tuner")
        entries = {row: entry for entry, row in enumerate(itertools.product(*self._texts.values()))}
        space = keras_tuner.HyperParameters()
        for name, texts in self._texts.items():
            space.Choice(name, texts)

        def entry_of(trial):
            return entries[tuple(trial.hyperparameters.values[name] for name in self._texts)]

        with contextlib.redirect_stdout(None):  # KerasTuner prints that it reloads
            tuner = fold_grid_search()(
                objective=keras_tuner.Objective(self.objective, "max" if self._sign > 0 else "min"),
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
        records = [json.loads(tuner.folds_file(ended[entry]).read_text()) for entry in range(len(params))]
        return records, {entry: ended[entry].message for entry in sorted(ended) if ended[entry].status != "COMPLETED"}

    def cross_validate(self, x, labels, folds, params, entry, file):
        """One trial: the logs of each fold's best epoch; `file` keeps what `fit_fold` returns, as far as it gets."""
        records = []
        for fold, (rows, monitor) in enumerate(folds):
            title = f"[trial {entry + 1}/{len(params)}, fold {fold + 1}/{self.cv}] {params[entry]}:"
            try:
                records.append(self.fit_fold(subset(x, rows), labels[rows], params[entry], monitor, self.seed + fold))
            except Exception as error:
                logger.warning("%s failed with %s: %s", title, type(error).__name__, error)
                raise
            finally:
                file.write_text(json.dumps(records))
            value, epoch, seconds = records[-1]["logs"][self.objective], records[-1]["epoch"], records[-1]["seconds"]
            self.show(f"{title} {self.objective} {value:.4f} at epoch {epoch} of {self.epochs}, {seconds:.1f} s")
        return [record["logs"] for record in records]

    def fit_fold(self, x, labels, params, monitor, seed):
        """Trains on one fold's samples: `{"epoch": the best, from 1; "seconds": of the fit; "logs": of that epoch}`."""
        start = time.perf_counter()
        _, history = self.train(x, labels, params, self.epochs, [monitor, *self.callbacks], seed)
        scores = self._sign * np.asarray(history[self.objective], dtype=float)
        if np.isnan(scores).all():
            # Before KerasTuner sees it, whose own treatment of NaN begins with the least of no values, which warns.
            raise FloatingPointError(f"{self.objective} is NaN in every epoch")
        best = int(np.nanargmax(scores))
        logs = {key: float(series[best]) for key, series in history.items() if len(series) == len(scores)}
        return {"epoch": best + 1, "seconds": time.perf_counter() - start, "logs": logs}

    def train(self, x, labels, params, epochs, callbacks, seed):
        """`(model, {key: [value an epoch, …]})`: a new model after `epochs` on pairs of the samples `x`."""
        sequence = PairSequence(x, labels, batch_size=self.batch_size, seed=self.seed)
        state = random.getstate()  # of the generator from which Keras seeds initializers and dropout
        random.seed(seed)
        try:
            model = build_model(self.build_fn, self._taken, params)
            callbacks = [SetEpoch(sequence), *copy.deepcopy(callbacks)]
            # Unshuffled: pairs come in random order already, and Keras up to 3.5 would use TensorFlow's global seed.
            history = model.fit(sequence, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)
        finally:
            random.setstate(state)
        return model, history.history

    def report_failures(self, params):
        """Warns of failed trials; raises if there are no others."""
        if self.failures_:
            count, first = len(self.failures_), min(self.failures_)
            message = f"{count} of {len(params)} trials failed; first {params[first]}:\n{self.failures_[first]}"
            if count == len(params):
                raise RuntimeError(message)
            from sklearn.exceptions import FitFailedWarning  # heavy: the package's import stays light

            warnings.warn(message, FitFailedWarning, stacklevel=3)

    def show(self, line):
        if self.verbose:
            rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def fold_grid_search():
    """KerasTuner's `GridSearch` with our trial: a class in a function, so that KerasTuner is imported by its call."""

    class FoldGridSearch(_checks.check_installed("keras_tuner", "tuner").GridSearch):
        """A trial is `self.evaluate(trial, file)`, the logs of each fold, whose mean KerasTuner takes; it resumes."""

        def folds_file(self, trial):
            return Path(self.get_trial_dir(trial.trial_id)) / "folds.json"

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
    if not isinstance(model, SiameseWrapper):
        model = SiameseWrapper(model, distance="euclidean")
    rate, margin = ({name: params[name]} if name in params else {} for name in ("learning_rate", "margin"))
    model.compile(keras.optimizers.Adam(**rate), loss=ContrastiveLoss(**margin))
    return model


def make_folds(x, labels, cv, seed, far):
    """For each fold the training rows `(m,)` and the monitor of the others; raises if one of them has no pairs."""
    if (identities := len(np.unique(labels))) < cv:
        raise ValueError(f"`labels` must hold at least as many identities as folds, cv={cv}; got {identities}")
    folds = []
    for number, (rows, held_out) in enumerate(IdentityKFold(cv, seed=seed).split(labels, labels), start=1):
        try:
            PairSequence(subset(x, rows), labels[rows])
            monitor = VerificationMonitor((subset(x, held_out), labels[held_out]), **far)
            if far and not monitor.far:
                raise ValueError("too few impostor pairs for `objective`")
        except ValueError as error:
            count = len(np.unique(labels[held_out]))
            raise ValueError(f"Fold {number} of {cv}, with {count} identities, cannot be used: {error}") from error
        folds.append((rows, monitor))
    return folds


def cv_results(params, records, objective, sign, cv):
    """`cv_results_` from the records of each of `params`; what a failed one did not get to is NaN."""
    table = np.full((3, cv, len(params)), np.nan)
    for entry, fitted in enumerate(records):
        for fold, record in enumerate(fitted):
            table[:, fold, entry] = record["logs"][objective], record["epoch"], record["seconds"]
    values, epochs, seconds = table
    scores = sign * values
    with np.errstate(invalid="ignore"):  # d′ can be infinite; its spread then is NaN
        mean, spread = scores.mean(axis=0), scores.std(axis=0)
    ranked = np.where(np.isnan(mean), -np.inf, mean)
    # But for the None at its end, values that are lists of one length would become the rows of a matrix.
    columns = {name: np.array([*(one[name] for one in params), None], dtype=object)[:-1] for name in params[0]}
    return {
        "mean_fit_time": seconds.mean(axis=0),
        "std_fit_time": seconds.std(axis=0),
        **{f"param_{name}": np.ma.masked_array(column, [False] * len(params)) for name, column in columns.items()},
        "params": copy.deepcopy(params),
        **{f"split{fold}_test_score": scores[fold] for fold in range(cv)},
        "mean_test_score": mean,
        "std_test_score": spread,
        "rank_test_score": 1 + np.sum(ranked > ranked[:, None], axis=1, dtype=np.int32),
        **{f"split{fold}_{objective}": values[fold] for fold in range(cv)},
        f"mean_{objective}": values.mean(axis=0),
        f"std_{objective}": spread,
        **{f"split{fold}_best_epoch": epochs[fold] for fold in range(cv)},
    }


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


def check_objective(objective):
    """Returns the sign, 1 if more is better or else −1, and what the monitor must be told to write this key."""
    if isinstance(objective, str) and objective in SIGNS:
        return SIGNS[objective], {}
    with contextlib.suppress(ValueError):
        far = float(str(objective).removeprefix(TAR))
        if 0 < far < 1 and objective == f"{TAR}{far:g}":
            return 1, {"far": far}
    raise ValueError(f"`objective` must be one of {', '.join(SIGNS)} or {TAR}0.01 (any rate); got {objective!r}")


def check_callbacks(callbacks):
    """Returns a list of Keras callbacks, copied once here to see that it can be."""
    try:
        callbacks = copy.deepcopy(list(callbacks or []))
    except Exception as error:
        raise TypeError(f"`callbacks` must be a list that copy.deepcopy can copy: {error}") from error
    for one in callbacks:
        if not isinstance(one, keras.callbacks.Callback) or isinstance(one, VerificationMonitor):
            why = "callbacks other than a monitor, of which each fold has its own"
            raise TypeError(f"`callbacks` must hold Keras {why}; got {one!r} of type {type(one).__name__}")
    return callbacks
