"""`DivergenceMonitor`: flags a run whose loss falls while verification does not follow, and diagnoses it.

Contract: a `VerificationMonitor` in all it measures. It passes Keras's events on: `diagnosis.recorder` records the run,
and `diagnosis.diagnose` judges it. A loop without `fit` calls `start`, `record` and `finish`.

    siamese.fit(train, epochs=30, callbacks=[DivergenceMonitor((x_valid, labels_valid), report="report.html")])
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal

import keras
import numpy as np

from keras_siamese._checks import check_installed, check_integer, check_keywords, check_number, check_writable
from keras_siamese._types import Data, MonitorOptions, StrPath, Unpack
from keras_siamese.attach.anatomy import Anatomy
from keras_siamese.attach.feed import check_lengths, is_batched, known_lengths
from keras_siamese.attach.passing import Passing
from keras_siamese.callbacks.monitors import VerificationMonitor
from keras_siamese.callbacks.ordering import beside
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.diagnosis.diagnose import SAMPLE
from keras_siamese.diagnosis.diagnosis import Diagnosis, diagnosis_of
from keras_siamese.diagnosis.experiments.confirm import check_budget, tested
from keras_siamese.diagnosis.experiments.program import values_of
from keras_siamese.diagnosis.facts.references import check_callable, check_reference
from keras_siamese.diagnosis.recipe import fed_of, recipe_of, training_of, training_trials
from keras_siamese.diagnosis.recorder import RunLog, RunRecorder
from keras_siamese.scoring import may_be_items, needs_model, score

logger = logging.getLogger(__name__)

ACTIONS = ("warn", "stop", "raise")


class DivergenceError(RuntimeError):
    """Raised by `DivergenceMonitor(on_divergence="raise")`; its `diagnosis` says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


class DivergenceMonitor(VerificationMonitor):
    """A `VerificationMonitor` that flags a run if its loss falls and verification does not follow, and says why.

    For a model of two inputs, both kinds of pairs are given as `fit` takes them:

        monitor = DivergenceMonitor(([v_left, v_right], v_y), train=([left, right], y), report="report.html")
        model.fit([left, right], y, validation_data=([v_left, v_right], v_y), epochs=20, callbacks=[monitor])

    For a labelled set it measures 8 items of each identity, or more if that leaves fewer than 400: as `diagnose` does,
    and twice as many as a `VerificationMonitor`.

    A flag needs two consecutive windows of four epochs after a warm-up of 10 % of the epochs; see
    `diagnosis.find_flags`. In addition, the run is diagnosed after 5, 10, 20, 40, … epochs, and flagged if an error is
    found that explains why verification does not follow.

    Args:
        validation: as in `VerificationMonitor`.
        on_divergence: what to do at the first flag: "warn" (default), "stop" training, "raise" `DivergenceError`, or a
            function that is called with the `Diagnosis`.
        report: path of the HTML report, which is written when training ends. The same content is written as JSON beside
            it. If no epoch had finite embeddings, nothing is written and a warning is given. None: no report.
        log: path of the run log, to which each epoch adds a line during training (see `diagnosis.run`).
            `diagnose(history=log)` reads it, even if the run has crashed. A run that begins at epoch 0 starts the file
            anew. A resumed run needs it; see below. KerasTuner copies the callbacks for each execution; each copy
            writes into the first of log-1, log-2, … that does not exist. None: no log.
        train: training data, to compare held-out with training pairs: `(x, labels)`, a sequence, or what `fit` is
            given, `(x, y)`, such as `([left, right], y)`. They are read when the run is diagnosed. Not needed if the
            package's siamese model is fitted on a sequence of pairs, because it keeps that sequence.
        threshold: the score (−distance, or probability) from which your own accuracy accepts a pair. By default 0.5 for
            a model that puts out probabilities and is compiled with an accuracy.
        target_eer: the EER that you want, in (0, 1). Above it, verification counts as bad.
        every_steps: for epochs that take hours, also measure after every so many training steps, and flag a run
            within an epoch. These values are in `parts` and in the report, and not in `logs`.
        confirm, budget_epochs, budget_seconds: when training ends, test the leading causes, as `diagnose` does with
            these arguments. The monitor keeps a copy of the initial weights for it. The model is as before.
        reference: an encoder to compare the model with, such as a pretrained network; see `diagnose`.
        **kwargs: `far`, `every`, `encoder`, `distance`, `score`, `similar_label`, `batch_size`, `log_dir`, `strict` of
            `VerificationMonitor`. Without `strict`, an error in the report, the run log or the diagnosis does not end
            `fit`: a fact or a cause that raises is not examined, and the others are reported.

    A run that was killed and is resumed (`AtomicBackup`, Keras's `BackupAndRestore`, or `initial_epoch` and the
    weights) reads from its `log` what was recorded, and replaces the epochs that are trained again. In the end the log
    has each epoch once, and the report is that of a run which was not killed. Beside the log it keeps `run.jsonl.npz`,
    with numbers of the first weights. If the last epoch was trained but the report was not written, it is written when
    the program is started again. A backup is made directly after the monitor, also if it stands before it. These runs
    differ:

    - Keras restores neither the generator that shuffles (pass `shuffle=False`, or a sequence that shuffles by itself),
      nor the random states of layers such as Dropout, nor the states of callbacks such as EarlyStopping.
    - `save_freq=100` saves within an epoch; Keras trains this epoch again from its first batch. Such a run, and one
      whose log lacks epochs, gives a warning.
    - `BackupAndRestore` writes its files in place. If the process is killed meanwhile, they cannot be read, or weights
      and epoch do not belong together. `AtomicBackup` writes each backup into a folder of its own.
    - `on_divergence` acts at the first flag of the whole run, and not again in the resumed one.
    - `HardPairRefresh` with `every` > 1; see there.

    Attributes:
        errors: as in `VerificationMonitor`.
        flags: flagged epochs, from 0.
        parts, flagged_steps: with `every_steps`, curves of what was measured within epochs, lists of equal length by
            name ("step", "loss", "auc", "eer", "auc_se", "eer_se"); and the flagged ones of these steps.
        diagnosis: the latest `Diagnosis`, None before the first flag or the end of training.
        log: the `RunLog`, whose `path` is the file; None without one.
        history: curves with one value per epoch, by name, NaN where not measured: "loss", "auc", "eer", "auc_se",
            "eer_se"; of the embeddings "spread", "uniformity", "alignment", "effective_rank", "d_prime", "purity"; and
            "update_size", the change of the weights in the epoch, relative to their norm; and "moved_share", the share
            of the weights in kernels that have moved since the fit began.

    Raises:
        ValueError: on construction, if the report or the log cannot be written, or if the log holds something else.
        ImportError: on construction, if `report` is given and the extra `report` is not installed.
    """

    _sample = SAMPLE  # that of a diagnosis, which judges what was measured in the epochs

    def __init__(
        self,
        validation: Data,
        on_divergence: Literal["warn", "stop", "raise"] | Callable[[Diagnosis], Any] = "warn",
        report: StrPath | None = None,
        *,
        log: StrPath | None = None,
        train: Data = None,
        threshold: float | None = None,
        target_eer: float | None = None,
        every_steps: int | None = None,
        confirm: bool = False,
        budget_epochs: float | None = None,
        budget_seconds: float | None = None,
        reference: Callable[..., Any] | None = None,
        **kwargs: Unpack[MonitorOptions],
    ) -> None:
        if target_eer is not None:
            check_number("target_eer", target_eer, low=0, high=1, open_low=True, open_high=True)
        own = inspect.signature(DivergenceMonitor.__init__).parameters
        check_keywords(type(self).__name__, kwargs, [*MonitorOptions.__annotations__, *own])
        super().__init__(validation, **kwargs)
        self.recorder = RunRecorder(None if log is None else RunLog(log, side=self.side), target_eer)
        if not callable(on_divergence) and on_divergence not in ACTIONS:
            expected = f"one of {', '.join(map(repr, ACTIONS))}, or a function of the Diagnosis"
            raise ValueError(f"`on_divergence` must be {expected}; got {on_divergence!r}")
        self.on_divergence = on_divergence
        self.confirm = confirm or budget_epochs is not None or budget_seconds is not None
        self.budget = check_budget(budget_epochs, budget_seconds)
        self.every_steps = None if every_steps is None else check_integer("every_steps", every_steps, low=1)
        self.report = None if report is None else check_report(report)
        check_callable(reference)
        self.train, self._is_told, self.reference = train, False, reference
        is_data = needs_model(train) or is_batched(train) or isinstance(train, (tuple, list))
        if may_be_items(train) or hasattr(train, "shape") or not is_data:
            training_trials(train)  # so that an error is raised now; pairs are read when the model is known
        elif isinstance(train, (tuple, list)) and (lengths := known_lengths(train)):
            check_lengths(lengths, "train")
        self.threshold = None if threshold is None else check_number("threshold", threshold)

    def __deepcopy__(self, memo):
        copied = super().__deepcopy__(memo)
        copied.recorder = self.recorder.copy(copied.side)
        return copied

    def _forget(self):
        super()._forget()
        self.diagnosis, self._has_trained = None, False

    history = property(attrgetter("recorder.run.curves"))
    flags = property(attrgetter("recorder.run.flags"))
    parts = property(attrgetter("recorder.run.parts"))
    flagged_steps = property(attrgetter("recorder.run.flagged_steps"))
    log = property(attrgetter("recorder.log"))

    @property
    def target_eer(self) -> float | None:
        return self.recorder.target_eer

    @target_eer.setter
    def target_eer(self, value: float | None) -> None:
        self.recorder.target_eer = value

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._steps, self._next_part, self._has_trained = 0, self.every_steps, False
        initial = values_of(self.model) if self.confirm and self.model.built else None
        self.recorder.begin_fit(self.epochs_planned, initial)

    @property
    def has_files(self) -> bool:
        return super().has_files or self.log is not None or self.report is not None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == 0:
            self.diagnosis = None
        self._batches, self._known_loss, self._has_trained = 0, (0.0, 0), True
        if self.recorder.begin_epoch(epoch, self.model, self.trials):
            self._continue()

    def _continue(self):
        """Count on from where the run in the log ends, and say in what this run differs from it."""
        last = self.recorder.run.last
        logs, counts = last.get("logs", {}), last.get("state", {})
        if set(self.keys) <= set(logs):  # with `every`, they are logged until the next measurement
            self._measured = {key: float("nan") if logs[key] is None else logs[key] for key in self.keys}
        self._steps = counts.get("steps") or 0
        self._next_part = counts.get("next_part") or self.every_steps
        with self.side.allowing("The verification"):  # the latest finite embeddings, in case that none follow
            scored = self.measure()
            self.recorder.scored = scored if scored.is_finite else self.recorder.scored
        if self.recorder.holes:
            self._warn_once("resumed", f"The run is resumed, but not as it was: {'; '.join(self.recorder.holes)}")

    def _take_up(self):
        """Take over a run whose last epoch was trained, but which was killed before its report was written."""
        epochs = self.epochs_planned
        if not self.recorder.take_up(epochs, self.model, self.trials):
            return
        self._continue()
        sequences = [getattr(one, "sequence", None) for one in beside(self)]
        for data in (getattr(self.model, "training_data", None), *sequences):
            if hasattr(data, "set_epoch"):  # no epoch has begun in this process
                data.set_epoch(epochs - 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        super().on_epoch_end(epoch, logs)
        counts = None if self.every_steps is None else {"steps": self._steps, "next_part": self._next_part}
        self._end(self.recorder.end_epoch, epoch, self.model, logs, self._scored, counts=counts)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.every_steps is None or "loss" not in (logs or {}):
            return
        self._steps += batch + 1 - self._batches  # `steps_per_execution` gives one call for several steps
        self._batches = batch + 1
        if self._steps < self._next_part or not self.is_ready:
            return
        self._next_part = self._steps + self.every_steps
        found = self._figures()
        if self._scored is None:
            return
        # Keras logs the mean since the epoch began; of the steps since the last measurement it follows by difference.
        total, (before, count) = float(logs["loss"]) * self._batches, self._known_loss
        loss = (total - before) / max(self._batches - count, 1)
        self._known_loss = (total, self._batches)
        part = {"auc": found["val_auc"], "eer": found["val_eer"]}
        self._end(self.recorder.end_part, self._steps, loss, self._scored, part)

    def _end(self, record, *measured, **options):
        """Tell the recorder what was `measured`, and act if the run is flagged for the first time."""
        looked = []

        def looks_faulty():
            looked.append(self._diagnosed(self._scored))
            return looked[0] is not None and looked[0].is_alarming

        is_flagged = False
        with self.side.allowing("The record of the run"):
            is_flagged = record(*measured, looks_faulty, **options)
        if is_flagged:
            diagnose = self.diagnose if self.on_divergence == "raise" else self._diagnosed
            self.act(looked[0] if looked else diagnose(self._scored))

    def _diagnosed(self, valid=None):
        """The `Diagnosis` of the run so far, or None if it fails, which does not end the run."""
        with self.side.allowing("The diagnosis"):
            return self.diagnose(valid)
        return None

    def attach(self) -> Anatomy:
        """As in `VerificationMonitor`; also checks the `reference`."""
        is_known, anatomy = self._anatomy is not None, super().attach()
        if not is_known:
            check_reference(self.reference, self.trials.items)
        return anatomy

    def know(self, train: Data) -> None:
        """Tell the training data, `(x, y)` as `fit` is given them, or a `Passing`. A diagnosis reads them."""
        self.train, self._is_told = train, True

    def start(self, model: keras.Model, epochs: int | None = None, initial_epoch: int = 0) -> None:
        """Begin to monitor a training loop of your own, before its first step.

            monitor.start(model)
            for epoch in range(20):
                ...                                                # your steps
                values = monitor.record(epoch, loss=mean_loss)     # after each epoch
            diagnosis = monitor.finish()

        Args:
            model: the model that is trained. Its variables must hold the present weights when `record` and `finish`
                are called; a JAX loop that keeps them elsewhere assigns them first.
            epochs: index after the last epoch, if it is known.
            initial_epoch: index of the first epoch.
        """
        self.set_model(model)
        self.set_params({"epochs": epochs})
        self.on_train_begin()
        self.on_epoch_begin(initial_epoch)

    def record(self, epoch: int, **logs: Any) -> dict[str, Any]:
        """Tell that the epoch of index `epoch` has ended, with what was logged, at least `loss`.

        Returns:
            `logs` with the values of `keys` added, a dict.

        Raises:
            RuntimeError: if `start` was not called before.
        """
        if self.model is None:
            raise RuntimeError(f"This {type(self).__name__} has no model yet: call `start(model)` before `record`")
        own_buffers(self.model)
        self.on_epoch_end(epoch, logs)
        self.on_epoch_begin(epoch + 1)
        return logs

    def finish(self) -> Diagnosis | None:
        """Tell that training has ended. The report is written if `report` was given.

        Returns:
            The `Diagnosis`, or None if no epoch was measured or if the diagnosis failed; a warning then says why.
        """
        self.on_train_end()
        return self.diagnosis

    def training(self) -> tuple[Any, Any, Any]:
        """`(fed, source, trials)`: what `fit` was given, what tells how its pairs are made, and some pairs to compare.

        The package's siamese model keeps the sequence of pairs that `fit` was given. Otherwise it is `train`.
        """
        anatomy, told = self.attach(), fed_of(self.train.read() if isinstance(self.train, Passing) else self.train)
        fitted = getattr(self.model, "training_data", None)
        if not (isinstance(fitted, EpochSequence) and hasattr(fitted, "positive_fraction")):
            try:
                return told, *training_of(anatomy, told)
            except ValueError as error:
                if self._is_told:  # these data are of no use here, and the user did not ask to have them examined
                    logger.info("What `fit` was given is not examined: %s", error)
                    return None, None, None
                raise
        try:
            return fitted, fitted, training_of(anatomy, fitted if told is None else told)[1]
        except ValueError as error:  # one identity, or one sample of each: there is nothing to compare
            logger.info("The training samples are not compared with each other: %s", error)
            return fitted, fitted, None

    def diagnose(self, valid: Any = None) -> Diagnosis:
        """The `Diagnosis` of the run so far; it is kept as `diagnosis`.

        `valid` are `ScoredTrials` under the present weights, if these were measured already.
        """
        valid, anatomy = self.measure() if valid is None else valid, self.attach()
        fed, source, train = self.training()
        recipe = recipe_of(anatomy, source, self.validation if fed is None else fed)
        recipe |= {"steps": (self.params or {}).get("steps"), "initial": self.recorder.initial}
        if valid.is_finite:
            train = None if train is None else score(anatomy, train, self.batch_size)
        else:
            valid, train = self.recorder.scored or valid, None
        recipe |= {"reference": self.reference, "side": self.side}
        self.diagnosis = diagnosis_of(self.recorder.observed(valid, train, self.threshold, **recipe))
        return self.diagnosis

    def act(self, diagnosis: Any) -> None:
        """Do what `on_divergence` says; the `diagnosis` is None if it failed."""
        if diagnosis is None and self.on_divergence != "stop":
            return
        if callable(self.on_divergence):
            self.on_divergence(diagnosis)
        elif self.on_divergence == "raise":
            self.write(diagnosis)
            raise DivergenceError(diagnosis)
        else:
            text = None
            with self.side.allowing("The text of the diagnosis"):
                text = None if diagnosis is None else str(diagnosis)
            if text is not None:
                warnings.warn(text, stacklevel=2)
            if self.on_divergence == "stop":
                self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        if not self._has_trained:
            with self.side.allowing("Reading the run log"):
                self._take_up()
        self.recorder.end_fit()
        found = None
        if self._measured or self.recorder.scored is not None:
            found = self._diagnosed()
            if self.confirm and found is not None:
                shown = bool((self.params or {}).get("verbose"))
                with self.side.allowing("The test of the causes"):
                    self.diagnosis = found = tested(found, *self.budget, progress=shown)
        if self._events is not None and found is not None:
            with self.side.allowing("What TensorBoard shows"):
                self._events.say("diagnosis", str(found))
        if self.recorder.scored is not None and found is not None:
            self.write(found)
        elif self.recorder.scored is None and self.report is not None:
            why = "No epoch had finite embeddings" if self._has_trained else "No epoch was trained"
            warnings.warn(f"{why}: {self.report} is not written", stacklevel=2)

    def write(self, diagnosis: Diagnosis) -> None:
        """Write the report and its JSON, if `report` was given; into another folder if theirs cannot be written."""
        if self.report is not None:
            self.side.write("The report", self.report, diagnosis.to_html)
            self.side.write("The report's JSON", self.report.with_suffix(".json"), diagnosis.to_json)


def own_buffers(model):
    """On JAX, give the variables of `model` buffers of their own: `predict` uses up those that it gets, and after
    `variable.assign(value)` they are those of the user's loop.
    """
    if keras.backend.backend() == "jax":
        for variable in model.variables:
            variable.assign(np.array(keras.ops.convert_to_numpy(variable)))


def check_report(report):
    """Return the path of the HTML report, after checking that it and its JSON can be written and drawn."""
    path = check_writable("report", report)
    if path.suffix == ".json":
        raise ValueError(f"`report` must be the path of the HTML file; the JSON goes beside it. Got {str(path)!r}")
    check_writable("report", path.with_suffix(".json"))
    for module in ("matplotlib", "jinja2"):
        check_installed(module, "report")
    return path
