"""Callbacks that tell a sequence which epoch begins, and how the model now embeds the samples.

Contract: the sequence is one of `keras_siamese.data`, the one that is passed to `fit`. Keras calls these callbacks
before the first batch of the epoch is drawn, and before workers begin to draw. KerasTuner copies the callbacks for each
execution; the copies share the sequence, because `fit` draws from this sequence and not from a copy.

    model.fit(sequence, epochs=20, callbacks=[SetEpoch(sequence), HardPairRefresh(sequence, every=2)])
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_siamese._checks import check_integer
from keras_siamese.attach.anatomy import Anatomy, check_encoder, check_part, dissect
from keras_siamese.data.hardness import HardPartners, check_ranks
from keras_siamese.data.sources import fed, take
from keras_siamese.scoring import embed


class CopiedCallback(keras.callbacks.Callback):
    """A callback whose copies share its settings and its sequence, but not the model and what belongs to one fit."""

    def __deepcopy__(self, memo):
        copied = type(self).__new__(type(self))
        keras.callbacks.Callback.__init__(copied)
        vars(copied).update({key: value for key, value in vars(self).items() if key not in ("_model", "params")})
        copied._forget()
        return copied

    def _forget(self):
        """Reset what belongs to one fit."""


class SetEpoch(CopiedCallback):
    """Set the epoch of a sequence of `keras_siamese.data`, so that it draws the pairs of this epoch.

    The package's siamese model does this in its own `fit`; pass the callback to `fit` of any other model.

    Args:
        sequence: an object with `set_epoch(epoch)`.
    """

    def __init__(self, sequence: Any) -> None:
        super().__init__()
        if not hasattr(sequence, "set_epoch"):
            raise TypeError(f"`sequence` must have a method set_epoch(epoch); got a {type(sequence).__name__}")
        self.sequence = sequence

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.sequence.set_epoch(epoch)


class HardPairRefresh(CopiedCallback):
    """Let a sequence draw hard partners, or batches of hard identities, which are searched anew every few epochs.

    At the start of epoch `start` and of every `every`-th epoch after it, all samples of the sequence are embedded in
    inference mode. `sequence.refresh` then searches, for each sample, near samples of other identities and far samples
    of its own identity. Partners are drawn from these until the next refresh. For a `BalancedBatchSequence` it searches
    for each identity those near it, which are then put into the same batch. Distances are Euclidean, or cosine if the
    model's distance ignores norms ("cosine", "angular") or its loss compares cosines.

    Before `start`, partners are drawn uniformly, also in a second `fit` with the same callback. The candidates are not
    saved. A resumed fit (`initial_epoch`, `BackupAndRestore`) therefore refreshes in its first epoch from `start` on,
    whatever `every` is. With `every=1` the run continues as if it had not been interrupted; with `every` > 1 its
    candidates are newer until the next refresh. If embeddings are not finite, the candidates do not change and a
    warning is given.

    Args:
        sequence: the `PairSequence`, `TripletSequence` or `BalancedBatchSequence` that is passed to `fit`.
        every: number of epochs between two refreshes, ≥ 1.
        start: the first epoch with hard partners, ≥ 0. An untrained encoder cannot tell which partners are hard, and
            training with the hardest partners from the start can make it collapse.
        negative_ranks: (lo, hi), which samples of other identities (or which other identities) count as hard, by
            increasing distance from 0.
        positive_ranks: (lo, hi), which samples of the same identity count as hard, by decreasing distance from 0. A
            `BalancedBatchSequence` does not use it, because the samples of an identity take turns.
        encoder: the encoder, a part of the model. Needed only if it cannot be found.
        batch_size: number of samples embedded at once.

    Attributes:
        refreshed: the epochs of this fit that began with a refresh.
        candidates: the latest `HardCandidates`, which tell how many samples have none, or for a
            `BalancedBatchSequence` the identities near each; None before the first.

    Raises:
        ValueError: when training begins, if `fit` is given another sequence or no encoder is found.

    >>> from keras_siamese.data import PairSequence
    >>> sequence = PairSequence(np.eye(6), ["ada", "ada", "bo", "bo", "cy", "cy"])
    >>> HardPairRefresh(sequence, every=2, negative_ranks=(1, 3)).start
    1
    """

    def __init__(
        self,
        sequence: Any,
        every: int = 1,
        start: int = 1,
        negative_ranks: tuple[int, int] = (0, 50),
        positive_ranks: tuple[int, int] = (0, 5),
        *,
        encoder: keras.layers.Layer | None = None,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        if not hasattr(sequence, "refresh"):
            wanted = "a PairSequence, a TripletSequence or a BalancedBatchSequence, which can refresh"
            raise TypeError(f"`sequence` must be {wanted}; got a {type(sequence).__name__}")
        self.sequence = sequence
        self.every = check_integer("every", every, low=1)
        self.start = check_integer("start", start, low=0)
        self.negative_ranks = check_ranks("negative_ranks", negative_ranks)
        self.positive_ranks = check_ranks("positive_ranks", positive_ranks)
        self.encoder = check_encoder(encoder)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self._forget()

    def _forget(self):
        self.refreshed, self.candidates = [], None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        fitted = getattr(self.model, "training_data", None)  # not every model knows
        if fitted is not None and hasattr(fitted, "refresh") and fitted is not self.sequence:
            raise ValueError(f"`sequence` must be the one that fit is given, {fitted!r}; got {self.sequence!r}")
        self._forget()
        self.sequence.refresh(None)  # candidates of an earlier fit may come from another model
        if self.model.built:
            self.find_encoder()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch >= self.start and (not self.refreshed or (epoch - self.start) % self.every == 0):
            embeddings = self.embed()
            if np.isfinite(embeddings).all():
                ranks = {"negative_ranks": self.negative_ranks}
                if isinstance(self.sequence, HardPartners):
                    ranks["positive_ranks"] = self.positive_ranks
                self.candidates = self.sequence.refresh(embeddings, **ranks)
                self.refreshed.append(epoch)
            else:
                warnings.warn(
                    f"Embeddings are NaN or infinite when epoch {epoch + 1} begins: the hard samples are not changed",
                    stacklevel=2,
                )

    def find_encoder(self) -> Anatomy:
        """The `Anatomy` of the model, or of the `encoder` if one was given."""
        few = fed(take(self.sequence.x, slice(0, 4)))
        if self.encoder is not None:
            check_part(self.model, self.encoder)
            return dissect(self.encoder, few)
        found = dissect(self.model, few)
        if not found.has_embeddings:
            name = self.model.name
            raise ValueError(f"No encoder found in {name!r}, which joins its inputs at once. Pass `encoder=`")
        return found

    def embed(self) -> np.ndarray:
        """Embeddings `(n, dim)` of the sequence's samples under the present weights.

        They are normalised if the model compares directions only, so that Euclidean distances rank as it does.
        """
        siamese = self.find_encoder()
        embeddings = embed(siamese.encoder, self.sequence.x, self.batch_size)
        loss, scale_free = self.model.loss, siamese.scale_free
        if getattr(loss, "expects", None) == "embedding":  # the loss compares, and not the model
            scale_free = loss.compares_cosines or getattr(getattr(loss, "distance", None), "scale_free", False)
        if scale_free:
            norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
            embeddings = embeddings / np.where(norms > 0, norms, 1)
        return embeddings
