"""Monitors: held-out verification at the end of an epoch, written into `logs`, and the flag and diagnosis of a run.

Contract: a monitor measures and writes before the callbacks that read it (EarlyStopping, ModelCheckpoint, CSVLogger,
…), so it stands before them. It works beside any callback, in KerasTuner, and with `initial_epoch`.

    siamese.fit(train, epochs=30, callbacks=[
        DivergenceMonitor((x_valid, labels_valid), report="report.html"),
        keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True),
    ])
"""

import logging
import warnings

import keras
import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_choice, check_installed, check_integer, check_number, check_writable
from keras_siamese._frames import callers
from keras_siamese.callbacks.tensorboard import EventLog
from keras_siamese.diagnosis.diagnose import MAX_ITEMS, MAX_PAIRS, diagnosis_of, recipe_of, training_trials
from keras_siamese.diagnosis.facts.epoch import HEALTH, health_of, quick_errors
from keras_siamese.diagnosis.facts.model import sampled_kernels, update_size
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.runlog import RunLog
from keras_siamese.layers import SiameseWrapper
from keras_siamese.scoring import Trials, as_siamese, score

logger = logging.getLogger(__name__)
CURVES = ("loss", "auc", "eer", "auc_se", "eer_se", *HEALTH, "update_size")


class VerificationMonitor(keras.callbacks.Callback):
    """Measures verification on held-out data each epoch and writes it into `logs`.

    Each item is embedded once, in inference mode, and the same pairs are compared every epoch: of a labelled set all
    pairs of at most 2,000 items, or 50,000 of them. Keys, for History, EarlyStopping, ModelCheckpoint, TensorBoard and
    KerasTuner: `val_verification_accuracy` (as many genuine as impostor pairs, threshold from other identities),
    `val_eer`, `val_auc`, `val_tar@far=0.01` (one a FAR), `val_threshold` (of the score: −distance, or the head's
    probability) and `val_d_prime`. Embeddings that are not finite give NaN, and a warning.

    Args:
        validation: `(x, labels)`, `(left, right, same)`, or a frozen `PairSequence`; identities that training never
            sees.
        far: false accept rates in (0, 1) to report TAR at. One with `far · impostor pairs < 3` is left out: so few
            pairs say nothing about it.
        every: measure the first, each `every`-th and the last epoch; between, the last values are repeated.
        encoder: the encoder, a part of the model, where it cannot be found in it.
        distance: for a bare encoder, how to compare embeddings; "cosine" by default.
        similar_label: the value in `same` that means the same, 1 or 0.
        batch_size: items embedded at once.
        log_dir: folder for TensorBoard (extra `tensorboard`): of each measured epoch the keys as scalars, histograms of
            genuine and impostor scores, and a picture of the ROC and DET curves; a copy, as KerasTuner makes one for
            each execution, writes into a folder of its own in it. None writes nothing.

    Raises:
        ValueError: on construction, if `validation` has no genuine or no impostor pair, lengths differ, samples are
            NaN, or `log_dir` cannot be written; when training begins, if no encoder is found.
        ImportError: for a `log_dir` without the extra `tensorboard`; on construction.
    """

    def __init__(
        self,
        validation,
        far=(0.01, 0.001),
        every=1,
        *,
        encoder=None,
        distance=None,
        similar_label=1,
        batch_size=256,
        log_dir=None,
    ):
        super().__init__()
        check_choice("similar_label", similar_label, (0, 1))
        self.trials = Trials.of(validation, max_items=MAX_ITEMS, max_pairs=MAX_PAIRS, similar_label=similar_label)
        self.far = supported_rates(far, int(np.count_nonzero(~self.trials.same)))
        self.every = check_integer("every", every, low=1)
        self.encoder = encoder
        self.distance = distance
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self._events = None if log_dir is None else EventLog(log_dir)
        self._forget()

    def _forget(self):
        """Starts afresh what belongs to one fit and does not travel with a copy."""
        self._siamese = None
        self._measured = {}
        self._scored = None
        self._warned = set()

    def __deepcopy__(self, memo):
        # KerasTuner copies callbacks before each execution: the settings go along, the model and its run do not.
        copied = type(self).__new__(type(self))
        keras.callbacks.Callback.__init__(copied)
        vars(copied).update({key: value for key, value in vars(self).items() if key not in ("_model", "params")})
        copied._events = None if self._events is None else self._events.copied()
        copied._forget()
        return copied

    @property
    def keys(self):
        """What is written into `logs`, as a list of names."""
        tars = [f"val_tar@far={rate:g}" for rate in self.far]
        return ["val_verification_accuracy", "val_eer", "val_auc", *tars, "val_threshold", "val_d_prime"]

    @property
    def epochs_planned(self):
        """How many epochs this fit is to have, None before it begins."""
        return (getattr(self, "params", None) or {}).get("epochs")

    def on_train_begin(self, logs=None):
        self._siamese, self._measured, self._warned = None, {}, set()
        if self._events is not None:
            self._events.begin()
        if self.model.built or isinstance(self.model, SiameseWrapper):
            self.find_encoder()
        for reader in readers_before(self, self.keys):
            self._warn_once(
                reader,
                f"{type(reader).__name__} stands before {type(self).__name__} in `callbacks` and will not see what it "
                "writes: put the monitor first",
            )

    def find_encoder(self):
        """The `SiameseWrapper` around the model's encoder; some models know what they put out only after a batch."""
        if self._siamese is None:
            self._siamese = as_siamese(self.model, self.encoder, self.distance, self.trials.items)
        return self._siamese

    def on_epoch_end(self, epoch, logs=None):
        is_last = epoch + 1 == self.epochs_planned
        self._scored = None
        if (epoch + 1) % self.every == 0 or is_last or not self._measured:
            self._scored = self.measure()
            self._measured = dict(zip(self.keys, figures(self._scored, self.far), strict=True))
            if not self._scored.is_finite:
                self._warn_once(
                    "not finite",
                    f"Embeddings are NaN or infinite at the end of epoch {epoch + 1}: verification is logged as NaN",
                )
            if self._events is not None:
                self._events.write(epoch, self._measured, self._scored)
        if logs is not None:
            for key in self._measured.keys() & logs.keys():
                self._warn_once(key, f"`logs` hold {key!r} already; {type(self).__name__} writes its own in its place")
            logs.update(self._measured)

    def measure(self):
        """`ScoredTrials` of the held-out trials under the weights as they are."""
        self.model  # noqa: B018  (the JAX trainer puts its state back into the model when a callback asks for it)
        return score(self.find_encoder(), self.trials, self.batch_size)

    def _warn_once(self, about, message):
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)


def supported_rates(far, impostors):
    """The false accept rates of `far` that so many impostor pairs support, as a tuple; those left out are logged."""
    rates = [check_number("far", rate, low=0, high=1, open_low=True, open_high=True) for rate in np.ravel(far).tolist()]
    support = {rate: verification.rule_of_30(rate, impostors) for rate in rates}
    for rate, rule in support.items():
        if rule.mark == "withheld":
            message = "TAR at FAR %g needs %d impostor pairs; left out with %d"
            logger.info(message, rate, rule.shown_from, impostors)
    return tuple(rate for rate, rule in support.items() if rule.mark != "withheld")


def figures(scored, far):
    """What `VerificationMonitor` writes, in the order of its keys; all NaN where an embedding is not finite."""
    if not scored.is_finite:
        return [float("nan")] * (5 + len(far))
    same, scores = scored.same, scored.scores
    accuracy, threshold = scored.accuracy
    tars = verification.tar_at_far(same, scores, far).tolist()
    eer, auc = verification.eer(same, scores), verification.auc(same, scores)
    return [accuracy, eer, auc, *tars, threshold, verification.d_prime(same, scores)]


def readers_before(monitor, keys):
    """The callbacks in front of `monitor` that read `keys` from `logs`; Keras does not tell one what is beside it."""
    for owner in callers(8):  # the monitor, subclasses' overrides of it, the list
        callbacks = getattr(owner, "callbacks", None)
        if isinstance(callbacks, list) and any(one is monitor for one in callbacks):
            before = callbacks[: next(place for place, one in enumerate(callbacks) if one is monitor)]
            loggers = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)
            return [one for one in before if getattr(one, "monitor", None) in keys or isinstance(one, loggers)]
    return []


class DivergenceError(RuntimeError):
    """Raised by `DivergenceMonitor(on_divergence="raise")`; its `diagnosis` says why."""

    def __init__(self, diagnosis):
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


class DivergenceMonitor(VerificationMonitor):
    """A `VerificationMonitor` that flags a run whose loss falls while verification does not follow, and says why.

    The flag needs two consecutive windows of five epochs after a warm-up; see `diagnosis.find_flags`.

    Args:
        validation: as in `VerificationMonitor`.
        on_divergence: on the first flag: "warn" (default), "stop" training, "raise" `DivergenceError`, or a function
            that is called with the `Diagnosis`.
        report: path of the HTML report that is written when training ends, with the same as JSON beside it; None writes
            none. If no epoch had finite embeddings there is nothing to report, and a warning says so.
        log: path of the run log, to which each epoch adds a line while training goes on (see `diagnosis.runlog`);
            `diagnose(history=log)` reads it, also of a run that died. A run that begins at epoch 0 begins it anew; one
            taken up again (`initial_epoch`, `BackupAndRestore`) replaces what it holds of the epochs that come, and
            has the curves and flags of those before from it. KerasTuner copies callbacks for each execution: a copy
            writes a file of its own, log-1, log-2, …, the first that does not exist. None writes none.
        train: training `(x, labels)` or sequence, to compare held-out with training identities. Not needed with
            `SiameseWrapper.fit(sequence)`, where it is found.
        threshold: the score (−distance, or probability) from which your own accuracy accepts a pair. 0.5 is assumed for
            a model that puts out probabilities and is compiled with an accuracy.
        target_eer: EER that you want, in (0, 1): above it the run counts as not verifying.
        **kwargs: `far`, `every`, `encoder`, `distance`, `similar_label`, `batch_size`, `log_dir` of
            `VerificationMonitor`.

    Attributes:
        flags: flagged epochs, from 0.
        diagnosis: the latest `Diagnosis`, None before the first flag or the end of training.
        log: the `RunLog`, whose `path` is the file; None without one.
        history: curves, one value an epoch, by name, NaN where not measured: "loss", "auc", "eer", "auc_se", "eer_se";
            of the embeddings "spread", "uniformity", "alignment", "effective_rank", "d_prime", "purity"; and
            "update_size", by which part of their size the epoch has moved the weights.

    Raises:
        ValueError: for a report or log path that cannot be written, or a log that holds something else; on
            construction, before training.
        ImportError: for a report without the extra `report`; on construction.
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
        **kwargs,
    ):
        super().__init__(validation, **kwargs)
        if not callable(on_divergence):
            check_choice("on_divergence", on_divergence, ("warn", "stop", "raise"))
        self.on_divergence = on_divergence
        self.report = None if report is None else check_report(report)
        self.log = None if log is None else RunLog(log)
        self.train = None if train is None else training_trials(train)
        self._train_source = train
        self.threshold = None if threshold is None else check_number("threshold", threshold)
        if target_eer is not None:
            check_number("target_eer", target_eer, low=0, high=1, open_low=True, open_high=True)
        self.target_eer = target_eer

    def __deepcopy__(self, memo):
        copied = super().__deepcopy__(memo)
        copied.log = None if self.log is None else self.log.copy()
        return copied

    def _forget(self):
        super()._forget()
        self.history = {name: [] for name in CURVES}
        self.flags = []
        self.diagnosis = None
        self._kernels = None
        self._last_finite = None
        self._not_finite_since = None
        self._accuracy_compiled = False

    def find_encoder(self):
        """As of `VerificationMonitor`; here two inputs with encoders of their own are a finding, no error."""
        if self._siamese is None:
            self._siamese = as_siamese(self.model, self.encoder, self.distance, self.trials.items, unshared=True)
        return self._siamese

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._kernels = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._kernels is None:  # not when training begins: BackupAndRestore may yet bring other weights
            self._kernels = sampled_kernels(self.model)
        # A new fit begins at epoch 0 and a resumed one where it says; what came after is of another run.
        if epoch == 0:
            self.diagnosis = self._last_finite = self._not_finite_since = None
        for curve in self.history.values():
            del curve[epoch:]
            curve += [float("nan")] * (epoch - len(curve))
        self.flags = [flag for flag in self.flags if flag < epoch]
        earlier = None if self.log is None else self.log.begin(epoch)
        if earlier is not None and earlier.curves:
            self.history |= {name: earlier.curves[name] for name in self.history if name in earlier.curves}
            self.flags = earlier.flags

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.note(epoch, logs or {})
        flagged = [flag.epoch for flag in self.evidence().flags] if self._is_finite_now else []
        if self.log is not None:
            values = {name: curve[-1] for name, curve in self.history.items()}
            self.log.write(epoch, values, logs or {}, flagged=epoch in flagged)
        new = [flag for flag in flagged if flag not in self.flags]
        if new:
            is_first = not self.flags
            self.flags += new
            if is_first:
                self.act(self.diagnose())

    @property
    def _is_finite_now(self):
        return self._scored is not None and self._scored.is_finite

    def note(self, epoch, logs):
        """Adds an epoch to the curves."""
        values = dict.fromkeys(CURVES, float("nan")) | {"loss": float(logs.get("loss", float("nan")))}
        before, self._kernels = self._kernels, sampled_kernels(self.model)
        if before is not None:
            values["update_size"] = update_size(before, self._kernels)
        if self._is_finite_now:
            errors = quick_errors(self._scored)
            values |= {name: self._measured[f"val_{name}"] for name in ("auc", "eer")}
            values |= {f"{name}_se": error for name, error in errors.items()}
            values |= health_of(self._scored)
            self._last_finite, self._not_finite_since = self._scored, None
        elif self._scored is not None and self._not_finite_since is None:
            self._not_finite_since = epoch
        for name, curve in self.history.items():
            curve.append(values[name])
        self._accuracy_compiled = any(key in logs for key in ("accuracy", "acc", "binary_accuracy"))

    def evidence(self, valid=None, train=None):
        """`Observed` of the run so far, on held-out and training trials as scored."""
        siamese, threshold = self.find_encoder(), self.threshold
        if threshold is None and siamese.output_kind == "score" and self._accuracy_compiled:
            threshold = 0.5
        return Observed(
            {name: list(curve) for name, curve in self.history.items()},
            self._last_finite if valid is None else valid,
            train=train,
            threshold=threshold,
            target_eer=self.target_eer,
            epochs=self.epochs_planned,
            not_finite_since=self._not_finite_since,
            **recipe_of(self.model, siamese, self.training_source()),
        )

    def training_source(self):
        """What tells how training pairs are made: the sequence that `SiameseWrapper.fit` was given, or `train`."""
        fitted = getattr(self.model, "training_data", None)
        return fitted if hasattr(fitted, "positive_fraction") else self._train_source

    def training_trials(self):
        """The trials of training identities, or None where none are known or can be made."""
        source = self.training_source()
        if self.train is not None or not hasattr(source, "labels"):
            return self.train
        try:
            return training_trials(source)
        except ValueError:  # one identity, or one sample of each: there is nothing to compare
            return None

    def diagnose(self):
        """The `Diagnosis` of the run so far, kept as `diagnosis`, of the weights as they are."""
        valid, train = self.measure(), self.training_trials()
        if valid.is_finite:
            train = None if train is None else score(self.find_encoder(), train, self.batch_size)
            self.diagnosis = diagnosis_of(self.evidence(valid, train))
        else:
            self.diagnosis = diagnosis_of(self.evidence())
        return self.diagnosis

    def act(self, diagnosis):
        """Does what `on_divergence` says."""
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
        if self._last_finite is not None:
            self.write(self.diagnose())
        elif self.report is not None:
            warnings.warn(f"No epoch had finite embeddings: there is nothing to write to {self.report}", stacklevel=2)

    def write(self, diagnosis):
        """Writes the reports, if any is asked for."""
        if self.report is not None:
            diagnosis.to_html(self.report)
            diagnosis.to_json(self.report.with_suffix(".json"))


def check_report(report):
    """Returns the path of the HTML report, if it and the JSON beside it can be written and drawn."""
    path = check_writable("report", report)
    if path.suffix == ".json":
        raise ValueError(f"`report` must be the path of the HTML file, the JSON goes beside it; got {str(path)!r}")
    check_writable("report", path.with_suffix(".json"))
    for module in ("matplotlib", "jinja2"):
        check_installed(module, "report")
    return path
