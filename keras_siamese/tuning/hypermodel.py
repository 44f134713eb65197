"""`SiameseHyperModel`: a siamese network and its search space, for any KerasTuner tuner.

Contract: the tuner chooses what to try next and what is saved. KerasTuner (extra `tuner`) is imported with this module.

    tuner = keras_tuner.Hyperband(SiameseHyperModel(encoder, space), objective=objective("val_eer"), max_epochs=27)
    tuner.search(*train, validation_data=valid)
    siamese = tuner.get_best_models()[0]
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from keras_siamese import _checks
from keras_siamese._files import write_text
from keras_siamese._seeds import seeded
from keras_siamese._types import ArrayLike, Augment, Data, Samples
from keras_siamese.callbacks import SetEpoch
from keras_siamese.data.sources import check_source, count_samples, subset
from keras_siamese.tuning import folds as folding
from keras_siamese.tuning import halving, repairs
from keras_siamese.tuning.objectives import check_known, keys_of
from keras_siamese.tuning.oracle import DiagnosisOracle
from keras_siamese.tuning.proposals import changed, is_new
from keras_siamese.tuning.recipe import batches_of, compared_by, compiled_model, mining_callbacks, parameters_of
from keras_siamese.tuning.results import FAILURE
from keras_siamese.tuning.space import SearchSpace

if TYPE_CHECKING:
    import keras_tuner

keras_tuner = _checks.check_installed("keras_tuner", "tuner")
logger = logging.getLogger(__name__)


class SiameseHyperModel(keras_tuner.HyperModel):
    """Builds, trains and verifies the siamese network of a point of the search space.

    Args:
        encoder: a function that returns a new encoder: a model or layer from one input to `(batch, dim)`. Its
            parameters are fields of the space (`embedding_dim`, those of ``SearchSpace(encoder={…})`` and others),
            KerasTuner's `hp`, or both.
        space: `SearchSpace`; its defaults if None.
        augment: a function of the strength, ``SearchSpace(augmentation=…)``, that returns what
            ``PairSequence(augment=…)`` takes. By default: rotations of 30°, shifts of a tenth and zooms of a fifth of
            an image, each times the strength.
        seed: integer ≥ 0 for folds and batches and, different in each fold and execution, for initial weights.
        name, tunable: as in `keras_tuner.HyperModel`.

    ``tuner.search(x, labels, …)`` takes samples `(n, …)`, identities `(n,)` and the options of `fit`. The measurements
    of a trial are in its folder and, as metrics, in KerasTuner's `trial.json`; `SearchResults.of(tuner)` reads both.

    Raises:
        ValueError, TypeError: on construction, if `encoder` has a parameter that the space lacks, or the space has a
            field that `encoder` does not take. A search with wrong arguments ends at its first trial with KerasTuner's
            `FatalValueError`.

    >>> def encoder(embedding_dim):
    ...     layers = [keras.Input((8,)), keras.layers.Dense(embedding_dim), keras.layers.UnitNormalization()]
    ...     return keras.Sequential(layers)
    >>> hypermodel = SiameseHyperModel(encoder, SearchSpace(embedding_dim=[16, 32], margin=[0.5, 1.0]))
    >>> model = hypermodel.build(keras_tuner.HyperParameters())
    >>> model.loss.margin, model.encoder.output_shape
    (0.5, (None, 16))
    """

    _last: tuple[dict[str, Any], int] | None

    def __init__(
        self,
        encoder: Callable[..., keras.layers.Layer],
        space: SearchSpace | None = None,
        *,
        augment: Callable[[float], Augment] | None = None,
        seed: int = 0,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(name=name, tunable=tunable)
        self.space = SearchSpace() if space is None else space
        if not isinstance(self.space, SearchSpace):
            raise TypeError(f"`space` must be a SearchSpace; got a {type(space).__name__}")
        self.encoder, self._taken = encoder, check_encoder(encoder, self.space)
        if augment is not None and not callable(augment):
            raise TypeError(f"`augment` must be a function of the strength; got {augment!r}")
        self.augment = augment
        self.seed = _checks.check_integer("seed", seed, low=0)
        self._held = self._last = None
        self._trained = folding.Trained()

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model for KerasTuner's `hp`: a siamese network or, for a batch loss, the encoder itself."""
        with reported(hp, None):
            return self._built(hp, self.seed + self._executions(hp))

    def _built(self, hp, seed):
        values = self.space.declare(hp)
        with seeded(seed):
            options = {name: values[name] for name in self._taken if name != "hp"}
            encoder = self.encoder(**options, **({"hp": hp} if "hp" in self._taken else {}))
            if not isinstance(encoder, keras.layers.Layer):
                raise keras_tuner.errors.FatalTypeError(f"`encoder` must return a model or a layer; got {encoder!r}")
            return compiled_model(self.space, values, encoder)

    def _executions(self, hp):
        """How often `fit` has just run with these values, so that executions of a trial differ in initial weights."""
        values, count = self._last or (None, 0)
        return count if values == hp.values else 0

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        x: Samples | None = None,
        labels: ArrayLike | None = None,
        *,
        validation_data: Data = None,
        cv: int | None = None,
        epochs: int = 10,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        on_divergence: Literal["warn", "stop"] | None = None,
        give_up: float | None = None,
        verbose: int = 0,
        **unknown: Any,
    ) -> dict[str, float]:
        """Trains `model`, measures it each epoch, and returns the metrics of the trial for KerasTuner, a dict.

        Outside a search it trains on all samples and returns Keras's `History`; `cv` must then be None.

        Args:
            hp, model: KerasTuner's hyperparameters, and the model that `build` made of them.
            x, labels: samples to train on, a source `(n, …)`, and their identities `(n,)`; with `cv` they are divided
                into folds.
            validation_data: `(x, labels)`, `(left, right, same)` or a frozen `PairSequence` of other identities.
            cv: number of identity-disjoint folds, ≥ 2, instead of `validation_data`. Each fold trains a model of its
                own; the first is `model`. The metrics are the means over folds, and `std_<objective>` and
                `split<i>_<objective>`. The checkpoint of the trial is that of the best epoch of the best fold. Not
                possible with Hyperband.
            epochs, initial_epoch, verbose: as in `keras.Model.fit`. The value of a trial is that of its best epoch;
                epochs with NaN are ignored.
            callbacks: deep-copied for each fold and called after the monitor; those that KerasTuner adds are shared.
            on_divergence, give_up: as in `SiameseGridSearch`; `give_up` needs `cv`. With a `DiagnosisOracle` each fit
                is diagnosed, and "stop" also ends it early: after its first or second epoch if the diagnosis finds an
                error that an untried value of a hyperparameter repairs, and after a third of its epochs if it finds
                such a warning, or if the objective is not among the best third of the trials at that epoch.
        """
        trial = Trial.of(callbacks)
        values = self.space.declare(hp if self.tunable else hp.copy())
        self._last = (dict(hp.values), self._executions(hp) + 1)
        is_diagnosed = trial is not None and trial.is_diagnosed
        if is_diagnosed and on_divergence is None:
            on_divergence = "warn"
        with reported(hp, trial):
            with fatal():
                check_given(self.fit, unknown, x, labels)
                options = {"epochs": _checks.check_integer("epochs", epochs, low=1), "verbose": verbose}
                options["initial_epoch"] = _checks.check_integer("initial_epoch", initial_epoch, low=0)
                x = check_source("x", x)
                labels = _checks.check_labels("labels", labels, length=count_samples(x))
                settings = {"cv": cv, "on_divergence": on_divergence, "give_up": give_up}
                folds = self._prepared(hp, trial, x, labels, validation_data, **settings)

            def train(fold, number):
                new = self._built(hp.copy(), self.seed + number) if number else model
                is_part = len(fold.rows) < len(labels)
                data = (subset(x, fold.rows), labels[fold.rows]) if is_part else (x, labels)
                others = [copy_for(one, number) if is_part else one for one in callbacks or []]
                finder = Finder(hp, new, trial.tried) if is_diagnosed else None
                ends = [] if finder is None or on_divergence != "stop" else trial.early_ends(number, epochs, finder)
                settings = (fold.monitor, on_divergence, others, options, ends)
                with nullcontext() if trial is None else self._trained.adding(new, "encoder"):
                    history, monitor = self._train(new, values, *data, *settings)
                if is_diagnosed:
                    repairs.keep(trial.folder, number, finder(monitor))
                return history, monitor

            if trial is None:
                return train(folds[0], 0)[0]

            def shown(number, record):
                if record is None:
                    logger.info("Trial %s given up after %d of %d folds", trial.name, number, len(folds))

            file = trial.folder / folding.FILE
            return folding.measure(folds, trial.objective, give_up, file, train, shown, options["initial_epoch"])

    def _train(self, model, values, x, labels, monitor, on_divergence, callbacks, options, ends=()):
        """Trains `model`, watched by a copy of `monitor`; returns Keras's `History` and the copy.

        `ends` are functions of that copy that return callbacks, which may end the fit early.
        """
        batches = batches_of(self.space, values, x, labels, self.seed, self.augment)
        first = [SetEpoch(batches), *mining_callbacks(self.space, values, batches)]
        if monitor is not None:
            watched = {} if on_divergence is None else {"train": batches}
            monitor = folding.monitor_of(monitor, on_divergence, **watched, **compared_by(self.space, values))
            first.append(monitor)
            first += [end(monitor) for end in ends]
        return model.fit(batches, callbacks=[*first, *callbacks], shuffle=False, **options), monitor

    def _prepared(self, hp, trial, x, labels, validation_data, *, cv, on_divergence, give_up):
        """The folds of a search, made once; raises if an argument is wrong, or if the folder holds another search."""
        folding.check_settings(on_divergence, give_up)
        if cv is not None:
            _checks.check_integer("cv", cv, low=2)
            if trial is None:
                where = "outside a search, where one model is trained on all samples"
                raise ValueError(f"`cv` must be None {where}; got {cv}")
            if "tuner/epochs" in hp.values:
                why = "which continues training from the weights of an earlier trial: these weights have seen samples"
                hint = "that other folds hold out. Use `validation_data` or another tuner"
                raise ValueError(f"`cv` must be None with Hyperband, {why} {hint}")
        far = None
        if trial is not None:
            trial.check_tuner(measured=cv is not None or validation_data is not None)
            far = check_known(trial.objective) if any(key != "loss" for key in keys_of(trial.objective)) else None
        if cv is None and validation_data is None:
            return [folding.Fold(np.arange(len(labels)), None)]
        if cv is not None and validation_data is not None:
            raise ValueError("`validation_data` must be None if `cv` is given, which divides the samples; got both")
        key = (id(x), id(labels), id(validation_data), cv, on_divergence, str(far))
        if self._held is None or self._held[0] != key:
            if cv is None:
                monitor = folding.make_monitor(validation_data, far, on_divergence)
                folds = [folding.Fold(np.arange(len(labels)), monitor)]
            else:
                folds = folding.make_folds(x, labels, cv, self.seed, far, on_divergence)
            # The samples are kept too, because an id is unique only while its object exists.
            self._held = key, folds, (x, labels, validation_data), folding.data_hash(x, labels)
        if trial is not None:
            ours = {"space": describe(self.space), "cv": cv, "on_divergence": on_divergence, "give_up": give_up}
            ours |= {"seed": self.seed, "data": self._held[3]}
            folding.claim(trial.tuner.project_dir, ours, is_fresh=not trial.has_finished_others)
        return self._held[1]


class Trial:
    """The trial that KerasTuner is running, found in one of KerasTuner's own callbacks."""

    def __init__(self, tuner, trial):
        self.tuner, self.name, self.objective = tuner, trial.trial_id, tuner.oracle.objective
        self.folder = Path(tuner.get_trial_dir(self.name))

    @classmethod
    def of(cls, callbacks):
        """The `Trial`, or None outside a search."""
        for one in callbacks or []:
            if is_tuners(one) and hasattr(one, "tuner") and hasattr(one, "trial"):
                return cls(one.tuner, one.trial)
        return None

    @property
    def is_diagnosed(self):
        """Whether the oracle reads the diagnosis of the trial. A worker has a client in place of the chief's oracle."""
        oracle = self.tuner.oracle
        return isinstance(getattr(oracle, "_oracle", oracle), DiagnosisOracle)

    def early_ends(self, fold, epochs, finder):
        """Functions of a fit's monitor that return callbacks: the early look at a fault, and successive halving."""
        curves = functools.partial(halving.curves_of, self.tuner.project_dir, fold)
        return [
            lambda monitor: repairs.EarlyLook(monitor, finder.is_repairable, epochs),
            lambda monitor: halving.Halving(self.objective, epochs, curves),
        ]

    @property
    def has_finished_others(self):
        """Whether the project's folder holds a finished trial."""
        return any(one["status"] == "COMPLETED" for one in self.known())

    def tried(self):
        """The hyperparameters of each trial in the project's folder."""
        return [one["hyperparameters"]["values"] for one in self.known()]

    def known(self):
        """What KerasTuner has written of each trial in the project's folder."""
        return [json.loads(path.read_text()) for path in Path(self.tuner.project_dir).glob("trial_*/trial.json")]

    def check_tuner(self, measured):
        """Raises if the objective will not be logged, or if the tuner sets what the space already chooses."""
        keys = keys_of(self.objective)
        if not measured and any(key != "loss" for key in keys):
            why = "without `validation_data` and `cv` that is only loss"
            raise ValueError(f"`objective` must be a key that is logged: {why}; got {', '.join(keys)}")
        given = [name for name in ("loss", "optimizer", "metrics") if getattr(self.tuner, name, None) is not None]
        if given:
            raise ValueError(f"`{given[0]}` must be None in the tuner: give it as SearchSpace({given[0]}=…) instead")


class Finder:
    """Tells what the diagnosis of a fit suggests to change in its hyperparameters `hp`. `tried()` returns the values of
    all trials so far.
    """

    def __init__(self, hp, model, tried):
        self.hp, self.tried = hp.copy(), tried
        self.margin = model.loss.get_config().get("margin")

    def __call__(self, monitor):
        """The findings of a monitor's latest diagnosis, see `repairs`."""
        return repairs.findings_of(getattr(monitor, "diagnosis", None), self.hp.values, self.margin)

    def is_repairable(self, diagnosis, severities):
        """Whether a `Diagnosis` has a finding of these severities that a value repairs which was not tried yet."""
        found = repairs.findings_of(diagnosis, self.hp.values, self.margin)
        rng = np.random.default_rng(0)  # draws values that a change activates, which are not used here
        changes = [one["changes"] for one in found if one["severity"] in severities]
        repaired = [changed(self.hp, self.hp.values, one, rng) for one in changes]
        return any(values is not None and is_new(self.hp, values, self.tried()) for values in repaired)


@contextmanager
def reported(hp, trial):
    """Logs an error of a trial with its hyperparameters and traceback, and writes the traceback into its folder."""
    try:
        yield
    except Exception as error:
        text = traceback.format_exc()
        if trial is not None:
            with suppress(OSError):  # of a full disk: the error of the trial is the one to raise
                write_text(trial.folder / FAILURE, text)
        if not isinstance(error, keras_tuner.errors.FatalError):
            name = "" if trial is None else f" {trial.name}"
            logger.warning("Trial%s of %s failed with %s: %s\n%s", name, hp.values, type(error).__name__, error, text)
        raise
    else:
        if trial is not None:
            (trial.folder / FAILURE).unlink(missing_ok=True)


@contextmanager
def fatal():
    """Makes an error in the arguments of a search fatal: otherwise KerasTuner would go on to the next trial."""
    errors = keras_tuner.errors
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = errors.FatalTypeError if isinstance(error, TypeError) else errors.FatalValueError
        raise kind(str(error)) from error


def is_tuners(callback):
    """Whether a callback was added by KerasTuner."""
    return type(callback).__module__.partition(".")[0] in ("keras_tuner", "tensorboard")


def copy_for(callback, fold):
    """The callback for a fold: KerasTuner's own ones unchanged, others copied; TensorBoard's get a folder per fold."""
    if is_tuners(callback):
        return callback
    copied = copy.deepcopy(callback)
    if isinstance(copied, keras.callbacks.TensorBoard):
        copied.log_dir = str(Path(copied.log_dir) / f"fold{fold}")
    return copied


def check_given(fit, unknown, x, labels):
    """Raise if a search was given arguments that `fit` does not take, or no samples or identities."""
    if unknown:
        known = [name for name in inspect.signature(fit).parameters if name not in ("hp", "model")]
        raise TypeError(f"`search` takes {', '.join(known[:-1])}; got {', '.join(unknown)}")
    if x is None or labels is None:
        missing = "x" if x is None else "labels"
        raise TypeError(f"`{missing}` must be given: search(x, labels, …), samples and their identities")


def check_encoder(encoder, space):
    """Returns the names of the parameters of `encoder`: fields of the space and "hp"."""
    if not callable(encoder) or isinstance(encoder, keras.layers.Layer):
        found = f"{encoder!r} of type {type(encoder).__name__}"
        raise TypeError(f"`encoder` must be a function that returns a new encoder for each trial; got {found}")
    named, takes_all = parameters_of(encoder)
    everywhere = [name for name in space.fields if len(space.users(name)) == len(space.losses)]
    missing = [name for name, is_needed in named.items() if is_needed and name not in ("hp", *everywhere)]
    if missing:
        raise ValueError(f"`space` must hold {', '.join(missing)}, which `encoder` needs, for every loss")
    its_own = [name for name in ("embedding_dim", *space.encoder) if name in space.fields]
    unused = [name for name in its_own if name not in named and not takes_all]
    if unused:
        known = ", ".join(named) or "none"
        raise ValueError(f"`encoder` must take {', '.join(unused)}, which are in the space; it takes {known}")
    return {name for name in named if name in everywhere or name == "hp"} | (set(its_own) if takes_all else set())


def describe(space):
    """The parts of a space that define its trials, as JSON."""
    losses = {name: keras.saving.serialize_keras_object(loss)["config"] for name, loss in space.losses.items()}
    return json.loads(json.dumps({"losses": losses, "fields": {name: repr(one) for name, one in space.fields.items()}}))
