"""`VerificationMonitor`: held-out verification after each epoch, written into `logs`.

Contract: put a monitor before the callbacks that read its values (EarlyStopping, ModelCheckpoint, CSVLogger, …). It
works with any other callback, in KerasTuner, and with `initial_epoch`. It passes Keras's events on; `verification`
measures.

    siamese.fit(train, epochs=30, callbacks=[
        VerificationMonitor((x_valid, labels_valid)),
        keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True),
    ])
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_siamese import distances, verification
from keras_siamese._checks import check_integer, check_number
from keras_siamese._files import SideWork
from keras_siamese._types import Data, DistanceLike, StrPath
from keras_siamese.attach.anatomy import Anatomy, check_encoder, check_score
from keras_siamese.attach.passing import Passing
from keras_siamese.callbacks.directions import set_directions
from keras_siamese.callbacks.epochs import CopiedCallback
from keras_siamese.callbacks.ordering import beside, put_backups_behind, readers_before
from keras_siamese.callbacks.tensorboard import EventLog
from keras_siamese.scoring import (
    BATCH_SIZE,
    ScoredTrials,
    Trials,
    attach,
    check_similar_label,
    needs_model,
    readable,
    score,
)
from keras_siamese.verification.curves import figures_of_curve

logger = logging.getLogger(__name__)

# Of a labelled set, see `Trials.from_labels`. Each epoch embeds them anew, so they are half as many as for a diagnosis.
SAMPLE = MappingProxyType({"max_items": 2_000, "max_each": 4, "least_items": 200, "max_pairs": 50_000})


class VerificationMonitor(CopiedCallback):
    """Measure verification on held-out data after each epoch and write it into `logs`.

    Each item is embedded once, in inference mode. The same pairs are compared after every epoch. For a labelled set,
    these are all pairs, or 50,000 of them, of at most 2,000 items: 4 of each identity, or more if that leaves fewer
    than 200. More items of the same identities cost time and narrow the interval of the EER little: with 8 of each, its
    standard error is about a fifth smaller. For a figure to report, evaluate the trained model on all items. History,
    EarlyStopping, ModelCheckpoint, TensorBoard and KerasTuner see the keys `val_verification_accuracy` (of as many
    genuine as impostor pairs, with a threshold from other identities), `val_eer`, `val_auc`, `val_tar@far=0.01` (one
    for each FAR), `val_threshold` (of the score: −distance, or the head's probability) and `val_d_prime`. If embeddings
    are not finite, the values are NaN and a warning is given.

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
            histograms of genuine and impostor scores, and a picture of the ROC and DET curves; a `DivergenceMonitor`
            adds its diagnosis as text. KerasTuner copies the callbacks for each execution; each copy writes into its
            own subfolder. None: no files.
        strict: whether an error in what stands beside the training ends `fit`. By default it does not, if it comes
            after the first measurement (a full disk, a removed folder, a measurement that fails): one warning gives the
            reason, `errors` keeps it, and what could not be written is written when training ends, if need be into a
            new folder in the current one or in that for temporary files. The warning says where.

    Attributes:
        errors: what failed beside the training in this fit, a list of records with `what`, `why`, `where` and
            `written`, the path in another folder where a file is now.

    Raises:
        ValueError: on construction, if `validation` has no genuine or no impostor pair, if lengths differ, if samples
            are NaN, or if `log_dir` cannot be written; when training begins, if no encoder is found.
        ImportError: on construction, if `log_dir` is given and the extra `tensorboard` is not installed.
    """

    _sample = SAMPLE

    def __init__(
        self,
        validation: Data,
        far: float | Iterable[float] = (0.01, 0.001),
        every: int = 1,
        *,
        encoder: keras.layers.Layer | None = None,
        distance: DistanceLike | None = None,
        score: Callable[[Any, Any], Any] | None = None,
        similar_label: int | None = None,
        batch_size: int = BATCH_SIZE,
        log_dir: StrPath | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.side = SideWork(bool(strict))
        check_similar_label(similar_label)
        self.validation = readable(validation)
        self.options = {"similar_label": similar_label, **self._sample}
        self.trials = None if needs_model(self.validation) else Trials.of(self.validation, **self.options)
        self.far = check_rates(far) if self.trials is None else supported_rates(far, self.trials)
        self.every = check_integer("every", every, low=1)
        self.encoder = check_encoder(encoder)
        self.distance = None if distance is None else distances.get(distance)
        self.score = check_score(score)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self._events = None if log_dir is None else EventLog(log_dir, self.side)
        self._forget()

    def _forget(self):
        self._anatomy, self._measured, self._warned = None, {}, set()
        self._scored = self._latest = None  # the scores of this epoch, and of the last one that was measured

    def __deepcopy__(self, memo):  # KerasTuner copies callbacks before each execution
        copied = super().__deepcopy__(memo)
        copied.side = SideWork(self.side.strict)
        copied._events = None if self._events is None else self._events.copied(copied.side)
        return copied

    errors = property(attrgetter("side.errors"))
    scored = property(attrgetter("_latest"), doc="`ScoredTrials` of the latest measurement, or None.")

    @property
    def keys(self) -> list[str]:
        """Names of the values that are written into `logs`."""
        tars = [f"val_tar@far={rate:g}" for rate in self.far]
        return ["val_verification_accuracy", "val_eer", "val_auc", *tars, "val_threshold", "val_d_prime"]

    @property
    def has_files(self) -> bool:
        """Whether files are written during training."""
        return self._events is not None

    @property
    def epochs_planned(self) -> int | None:
        """Number of epochs that this fit will have, None before it begins."""
        return (getattr(self, "params", None) or {}).get("epochs")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._anatomy, self._measured, self._warned = None, {}, set()
        self._scored = self._latest = None
        self.side.begin()
        if self._events is not None:
            self._events.begin()
        # The other models know their output after a batch.
        if self.is_ready and (self.model.built or hasattr(self.model, "output_kind")):
            self.attach()
        set_directions(beside(self), self.keys)
        if self.has_files:
            put_backups_behind(self)
        for reader in readers_before(self, self.keys):
            where = f"{type(reader).__name__} stands before {type(self).__name__} in `callbacks`"
            self._warn_once(reader, f"{where} and does not see its values: put the monitor first")

    @property
    def is_ready(self) -> bool:
        """Whether the validation data are known; of data that are recorded as they pass, none may have passed yet."""
        return not isinstance(self.validation, Passing) or bool(self.validation.batches)

    def attach(self) -> Anatomy:
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

    def find_encoder(self) -> keras.Model:
        """The siamese model that is measured: of this package's layers if it can be, or else the user's own."""
        return self.attach().wrapper or self.model

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        is_last = epoch + 1 == self.epochs_planned
        self._scored = None
        if self.is_ready and ((epoch + 1) % self.every == 0 or is_last or not self._measured):
            self._measured = self._figures()
        if self._scored is not None:
            if not self._scored.is_finite:
                found = f"Embeddings are NaN or infinite after epoch {epoch + 1}"
                self._warn_once("not finite", f"{found}: verification is logged as NaN")
            if self._events is not None:
                self._events.write(epoch, self._measured, self._scored)
        if logs is not None:
            for key in self._measured.keys() & logs.keys():
                self._warn_once(key, f"`logs` has {key!r} already; {type(self).__name__} replaces it by its own value")
            logs.update(self._measured)

    def _figures(self):
        """Measure; the figures by name. They are NaN, and `_scored` None, if this fails after it has worked before."""
        self._scored = None
        try:
            scored = self.measure()
            found = figures(scored, self.far)
        except Exception as error:
            if self._latest is None:
                raise  # what was given is wrong
            self.side.failed("The verification", error, then="it is logged as NaN, and training goes on")
            return dict.fromkeys(self.keys, float("nan"))
        self._scored = self._latest = scored
        return dict(zip(self.keys, found, strict=True))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._events is not None:
            self._events.finish()

    def measure(self) -> ScoredTrials:
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
    eer, auc, tars = figures_of_curve(same, scores, far)
    return [accuracy, eer, auc, *tars, threshold, verification.d_prime(same, scores)]
