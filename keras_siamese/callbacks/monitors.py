"""Monitors: held-out verification after each epoch, written into `logs`; flags and diagnosis of a diverging run.

Contract: put a monitor before the callbacks that read its values (EarlyStopping, ModelCheckpoint, CSVLogger, …). It
works with any other callback, in KerasTuner, and with `initial_epoch`. It passes Keras's events on: `verification`
measures, `diagnosis.recorder` records the run, and `diagnosis.diagnose` judges it.

    siamese.fit(train, epochs=30, callbacks=[
        DivergenceMonitor((x_valid, labels_valid), report="report.html"),
        keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True),
    ])
"""

import logging
import warnings
from operator import attrgetter

import keras
import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_choice, check_installed, check_integer, check_number, check_writable
from keras_siamese._frames import callers
from keras_siamese.attach.passing import Passing
from keras_siamese.callbacks.epochs import CopiedCallback
from keras_siamese.callbacks.tensorboard import EventLog
from keras_siamese.diagnosis.diagnose import (
    MAX_ITEMS,
    MAX_PAIRS,
    diagnosis_of,
    fed_of,
    recipe_of,
    training_of,
    training_trials,
)
from keras_siamese.diagnosis.recorder import RunLog, RunRecorder
from keras_siamese.scoring import Trials, attach, may_be_items, needs_model, readable, score

logger = logging.getLogger(__name__)


class VerificationMonitor(CopiedCallback):
    """Measure verification on held-out data after each epoch and write it into `logs`.

    Each item is embedded once, in inference mode. The same pairs are compared after every epoch: of a labelled set, all
    pairs of at most 2,000 items, or 50,000 of these pairs. History, EarlyStopping, ModelCheckpoint, TensorBoard and
    KerasTuner see the keys `val_verification_accuracy` (of as many genuine as impostor pairs, with a threshold from
    other identities), `val_eer`, `val_auc`, `val_tar@far=0.01` (one for each FAR), `val_threshold` (of the score:
    −distance, or the head's probability) and `val_d_prime`. If embeddings are not finite, the values are NaN and a
    warning is given.

    Args:
        validation: held-out data, of identities that are not used in training. Items with their identities:
            `(x, labels)`. Pairs: `(left, right, same)`, a frozen `PairSequence`, or what the model's own `evaluate`
            takes, such as `([left, right], y)`, a `tf.data.Dataset`, a `PyDataset` or a generator.
        far: false accept rates in (0, 1) at which TAR is reported. A rate with `far · impostor pairs < 3` is left out:
            so few pairs cannot estimate it.
        every: measure the first, every `every`-th and the last epoch. The other epochs repeat the last values.
        encoder: the encoder, a part of the model. Needed only if it cannot be found.
        score: a function `(left, right) → (n,)` of the items of pairs, larger for more similar pairs, for a model that
            cannot be understood; it is called with NumPy arrays. Embeddings are then not examined.
        distance: how to compare the embeddings if the model is an encoder; "cosine" by default.
        similar_label: the label of a pair that means "same". The default for `(left, right, same)` is 1. For pairs as
            the model takes them, it is found from the loss, the model and the data.
        batch_size: number of items embedded at once.
        log_dir: folder for TensorBoard (extra `tensorboard`). For each measured epoch it gets the keys as scalars,
            histograms of genuine and impostor scores, and a picture of the ROC and DET curves. KerasTuner copies the
            callbacks for each execution; each copy writes into its own subfolder. None writes nothing.

    Raises:
        ValueError: on construction, if `validation` has no genuine or no impostor pair, if lengths differ, if samples
            are NaN, or if `log_dir` cannot be written; when training begins, if no encoder is found.
        ImportError: on construction, if `log_dir` is given and the extra `tensorboard` is not installed.
    """

    def __init__(
        self,
        validation,
        far=(0.01, 0.001),
        every=1,
        *,
        encoder=None,
        distance=None,
        score=None,
        similar_label=None,
        batch_size=256,
        log_dir=None,
    ):
        super().__init__()
        check_choice("similar_label", similar_label, (None, -1, 0, 1))
        self.validation = readable(validation)
        self.options = {"similar_label": similar_label, "max_items": MAX_ITEMS, "max_pairs": MAX_PAIRS}
        self.trials = None if needs_model(self.validation) else Trials.of(self.validation, **self.options)
        self.far = check_rates(far) if self.trials is None else supported_rates(far, self.trials)
        self.every = check_integer("every", every, low=1)
        self.encoder = encoder
        self.distance = distance
        self.score = score
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self._events = None if log_dir is None else EventLog(log_dir)
        self._forget()

    def _forget(self):
        self._anatomy, self._measured, self._scored, self._warned = None, {}, None, set()

    def __deepcopy__(self, memo):  # KerasTuner copies callbacks before each execution
        copied = super().__deepcopy__(memo)
        copied._events = None if self._events is None else self._events.copied()
        return copied

    @property
    def keys(self):
        """Names of the values that are written into `logs`."""
        tars = [f"val_tar@far={rate:g}" for rate in self.far]
        return ["val_verification_accuracy", "val_eer", "val_auc", *tars, "val_threshold", "val_d_prime"]

    @property
    def epochs_planned(self):
        """Number of epochs that this fit will have, None before it begins."""
        return (getattr(self, "params", None) or {}).get("epochs")

    def on_train_begin(self, logs=None):
        self._anatomy, self._measured, self._warned = None, {}, set()
        if self._events is not None:
            self._events.begin()
        # The other models know their output after a batch.
        if self.is_ready and (self.model.built or hasattr(self.model, "output_kind")):
            self.attach()
        for reader in readers_before(self, self.keys):
            where = f"{type(reader).__name__} stands before {type(self).__name__} in `callbacks`"
            self._warn_once(reader, f"{where} and does not see its values: put the monitor first")

    @property
    def is_ready(self):
        """Whether the validation data are known; of data that are recorded as they pass, none may have passed yet."""
        return not isinstance(self.validation, Passing) or bool(self.validation.batches)

    def attach(self):
        """The `Anatomy` of the model. Some models know their output only after a batch.

        Raises:
            RuntimeError: if the monitor was not given to a `fit` yet, so that it has no model.
        """
        if self.model is None:
            raise RuntimeError(f"This {type(self).__name__} has no model yet: pass it to `fit` as a callback")
        if isinstance(self.validation, Passing):
            self.validation = self.validation.read()
        if self._anatomy is None:
            parts = {"encoder": self.encoder, "distance": self.distance, "score": self.score}
            self._anatomy, self.trials = attach(self.model, self.validation, **parts, **self.options)
            self.far = supported_rates(self.far, self.trials)
        return self._anatomy

    def find_encoder(self):
        """The siamese model that is measured: of this package's layers if it can be, or else the user's own."""
        return self.attach().wrapper or self.model

    def on_epoch_end(self, epoch, logs=None):
        is_last = epoch + 1 == self.epochs_planned
        self._scored = None
        if self.is_ready and ((epoch + 1) % self.every == 0 or is_last or not self._measured):
            self._scored = self.measure()
            self._measured = dict(zip(self.keys, figures(self._scored, self.far), strict=True))
            if not self._scored.is_finite:
                found = f"Embeddings are NaN or infinite after epoch {epoch + 1}"
                self._warn_once("not finite", f"{found}: verification is logged as NaN")
            if self._events is not None:
                self._events.write(epoch, self._measured, self._scored)
        if logs is not None:
            for key in self._measured.keys() & logs.keys():
                self._warn_once(key, f"`logs` has {key!r} already; {type(self).__name__} replaces it by its own value")
            logs.update(self._measured)

    def measure(self):
        """`ScoredTrials` of the held-out trials under the present weights."""
        self.model  # noqa: B018  (when a callback asks for the model, the JAX trainer writes its state back into it)
        anatomy = self.attach()
        return score(anatomy, self.trials, self.batch_size)

    def _warn_once(self, about, message):
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)


def check_rates(far):
    """False accept rates in (0, 1), a tuple."""
    rates = np.ravel(far).tolist()
    return tuple(check_number("far", rate, low=0, high=1, open_low=True, open_high=True) for rate in rates)


def supported_rates(far, trials):
    """The false accept rates in `far` that the impostor pairs of `trials` support, a tuple; the others are logged."""
    rates, impostors = check_rates(far), int(np.count_nonzero(~trials.same))
    support = {rate: verification.rule_of_30(rate, impostors) for rate in rates}
    for rate, rule in support.items():
        if rule.mark == "withheld":
            message = "TAR at FAR %g needs %d impostor pairs; it is left out, as there are %d"
            logger.info(message, rate, rule.shown_from, impostors)
    return tuple(rate for rate, rule in support.items() if rule.mark != "withheld")


def figures(scored, far):
    """What `VerificationMonitor` writes, in the order of its keys; all NaN if an embedding is not finite."""
    if not scored.is_finite:
        return [float("nan")] * (5 + len(far))
    same, scores = scored.same, scored.scores
    accuracy, threshold = scored.accuracy
    tars = verification.tar_at_far(same, scores, far).tolist()
    eer, auc = verification.eer(same, scores), verification.auc(same, scores)
    return [accuracy, eer, auc, *tars, threshold, verification.d_prime(same, scores)]


def readers_before(monitor, keys):
    """The callbacks before `monitor` that read `keys` from `logs`. Keras tells no callback about the others."""
    lists = [one.callbacks for one in callers() if isinstance(one, keras.callbacks.CallbackList)]
    beside = next((callbacks for callbacks in lists if monitor in callbacks), [monitor])
    loggers = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)
    before = beside[: beside.index(monitor)]
    return [one for one in before if getattr(one, "monitor", None) in keys or isinstance(one, loggers)]


class DivergenceError(RuntimeError):
    """Raised by `DivergenceMonitor(on_divergence="raise")`; its `diagnosis` says why."""

    def __init__(self, diagnosis):
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


class DivergenceMonitor(VerificationMonitor):
    """A `VerificationMonitor` that flags a run if its loss falls and verification does not follow, and says why.

    A flag needs two consecutive windows of four epochs after a warm-up of 10 % of the epochs; see
    `diagnosis.find_flags`. In addition, the run is diagnosed after 5, 10, 20, 40, … epochs, and flagged if an error is
    found that explains why verification does not follow.

    Args:
        validation: as in `VerificationMonitor`.
        on_divergence: what to do at the first flag: "warn" (default), "stop" training, "raise" `DivergenceError`, or a
            function that is called with the `Diagnosis`.
        report: path of the HTML report, which is written when training ends. The same content is written as JSON beside
            it. If no epoch had finite embeddings, nothing is written and a warning is given. None writes none.
        log: path of the run log, to which each epoch adds a line during training (see `diagnosis.run`).
            `diagnose(history=log)` reads it, even if the run has crashed. A run that begins at epoch 0 starts the file
            anew. A resumed run (`initial_epoch`, `BackupAndRestore`) reads the curves and flags of earlier epochs from
            it and replaces the later ones. KerasTuner copies the callbacks for each execution; each copy writes into
            the first of log-1, log-2, … that does not exist. None writes none.
        train: training data, to compare held-out with training pairs: `(x, labels)`, a sequence, or what `fit` is
            given, `(x, y)`. They are read when the run is diagnosed. Not needed if the package's siamese model is
            fitted on a sequence of pairs, because it keeps that sequence.
        threshold: the score (−distance, or probability) from which your own accuracy accepts a pair. By default 0.5 for
            a model that puts out probabilities and is compiled with an accuracy.
        target_eer: the EER that you want, in (0, 1). Above it, verification counts as bad.
        every_steps: for epochs that take hours, also measure after every so many training steps, and flag a run
            within an epoch. These values are in `recorder.run.parts` and in the report, and not in `logs`.
        **kwargs: `far`, `every`, `encoder`, `distance`, `score`, `similar_label`, `batch_size`, `log_dir` of
            `VerificationMonitor`.

    Attributes:
        flags: flagged epochs, from 0.
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

    def __init__(
        self,
        validation,
        on_divergence="warn",
        report=None,
        *,
        log=None,
        train=None,
        threshold=None,
        target_eer=None,
        every_steps=None,
        **kwargs,
    ):
        if target_eer is not None:
            check_number("target_eer", target_eer, low=0, high=1, open_low=True, open_high=True)
        self.recorder = RunRecorder(None if log is None else RunLog(log), target_eer)
        super().__init__(validation, **kwargs)
        if not callable(on_divergence):
            check_choice("on_divergence", on_divergence, ("warn", "stop", "raise"))
        self.on_divergence = on_divergence
        self.every_steps = None if every_steps is None else check_integer("every_steps", every_steps, low=1)
        self.report = None if report is None else check_report(report)
        self.train, self._is_told = train, False
        if may_be_items(train) or hasattr(train, "shape"):
            training_trials(train)  # so that an error is raised now; pairs are read when the model is known
        self.threshold = None if threshold is None else check_number("threshold", threshold)

    def __deepcopy__(self, memo):
        copied = super().__deepcopy__(memo)
        copied.recorder = self.recorder.copy()
        return copied

    def _forget(self):
        super()._forget()
        self.diagnosis = None

    history = property(attrgetter("recorder.run.curves"))
    flags = property(attrgetter("recorder.run.flags"))
    log = property(attrgetter("recorder.log"))

    @property
    def target_eer(self):
        return self.recorder.target_eer

    @target_eer.setter
    def target_eer(self, value):
        self.recorder.target_eer = value

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._steps, self._next_part = 0, self.every_steps
        self.recorder.begin_fit(self.epochs_planned)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            self.diagnosis = None
        self._batches, self._known_loss = 0, (0.0, 0)
        self.recorder.begin_epoch(epoch, self.model)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        super().on_epoch_end(epoch, logs)
        self._end(self.recorder.end_epoch, epoch, self.model, logs, self._scored)

    def on_train_batch_end(self, batch, logs=None):
        if self.every_steps is None or "loss" not in (logs or {}):
            return
        self._steps += batch + 1 - self._batches  # `steps_per_execution` gives one call for several steps
        self._batches = batch + 1
        if self._steps < self._next_part or not self.is_ready:
            return
        self._next_part = self._steps + self.every_steps
        scored = self.measure()
        # Keras logs the mean since the epoch began; of the steps since the last measurement it follows by difference.
        total, (before, count) = float(logs["loss"]) * self._batches, self._known_loss
        loss = (total - before) / max(self._batches - count, 1)
        self._known_loss = (total, self._batches)
        found = dict(zip(self.keys, figures(scored, self.far), strict=True))
        part = {"auc": found["val_auc"], "eer": found["val_eer"]}
        self._end(self.recorder.end_part, self._steps, loss, scored, part)

    def _end(self, record, *measured):
        """Tell the recorder what was `measured`, and act if the run is flagged for the first time."""
        looked = []

        def looks_faulty():
            looked.append(self.diagnose())
            return looked[0].is_alarming

        if record(*measured, looks_faulty):
            self.act(looked[0] if looked else self.diagnose())

    def know(self, train):
        """Tell the training data, `(x, y)` as `fit` is given them, or a `Passing`. A diagnosis reads them."""
        self.train, self._is_told = train, True

    def start(self, model, epochs=None, initial_epoch=0):
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

    def record(self, epoch, **logs):
        """Tell that the epoch of index `epoch` has ended, with what was logged, at least `loss`.

        Returns:
            `logs` with the values of `keys` added, a dict.
        """
        own_buffers(self.model)
        self.on_epoch_end(epoch, logs)
        self.on_epoch_begin(epoch + 1)
        return logs

    def finish(self):
        """Tell that training has ended. Returns the `Diagnosis`; the report is written if `report` was given."""
        self.on_train_end()
        return self.diagnosis

    def training(self):
        """`(fed, source, trials)`: what `fit` was given, what tells how its pairs are made, and some pairs to compare.

        The package's siamese model keeps the sequence of pairs that `fit` was given. Otherwise it is `train`.
        """
        anatomy, told = self.attach(), fed_of(self.train.read() if isinstance(self.train, Passing) else self.train)
        fitted = getattr(self.model, "training_data", None)
        if not hasattr(fitted, "positive_fraction"):
            try:
                return told, *training_of(anatomy, told)
            except ValueError:
                if self._is_told:  # these data are of no use here, and the user did not ask to have them examined
                    return None, None, None
                raise
        try:
            return fitted, fitted, training_of(anatomy, fitted if told is None else told)[1]
        except ValueError:  # one identity, or one sample of each: there is nothing to compare
            return fitted, fitted, None

    def diagnose(self):
        """The `Diagnosis` of the run so far under the present weights; it is kept as `diagnosis`."""
        valid, anatomy = self.measure(), self.attach()
        fed, source, train = self.training()
        recipe = recipe_of(anatomy, source, self.validation if fed is None else fed)
        if valid.is_finite:
            train = None if train is None else score(anatomy, train, self.batch_size)
        else:
            valid, train = self.recorder.scored or valid, None
        self.diagnosis = diagnosis_of(self.recorder.observed(valid, train, self.threshold, **recipe))
        return self.diagnosis

    def act(self, diagnosis):
        """Do what `on_divergence` says."""
        if callable(self.on_divergence):
            self.on_divergence(diagnosis)
        elif self.on_divergence == "raise":
            self.write(diagnosis)
            raise DivergenceError(diagnosis)
        else:
            warnings.warn(str(diagnosis), stacklevel=2)
            if self.on_divergence == "stop":
                self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self._measured or self.recorder.scored is not None:
            self.diagnose()
        if self.recorder.scored is not None:
            self.write(self.diagnosis)
        elif self.report is not None:
            warnings.warn(f"No epoch had finite embeddings: {self.report} is not written", stacklevel=2)

    def write(self, diagnosis):
        """Write the report and its JSON, if `report` was given."""
        if self.report is not None:
            diagnosis.to_html(self.report)
            diagnosis.to_json(self.report.with_suffix(".json"))


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
