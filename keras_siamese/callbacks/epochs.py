"""What a sequence is told when an epoch begins: its number, and how the model now embeds the samples.

Contract: a sequence of `keras_siamese.data`, the one that `fit` draws from. Keras calls these before the epoch's first
batch is drawn, and before workers begin to draw. A copy of a callback, as KerasTuner makes one for each execution,
keeps the sequence itself: `fit` draws from that one, and would never hear of a copy.

    model.fit(sequence, epochs=20, callbacks=[SetEpoch(sequence), HardPairRefresh(sequence, every=2)])
"""

import warnings

import keras
import numpy as np

from keras_siamese._checks import check_integer
from keras_siamese.data.hardness import check_ranks
from keras_siamese.distances import AngularDistance, CosineDistance
from keras_siamese.scoring import as_siamese, embed


class SequenceCallback(keras.callbacks.Callback):
    """A callback about a `sequence`, which its copies share."""

    def __deepcopy__(self, memo):
        copied = type(self).__new__(type(self))
        keras.callbacks.Callback.__init__(copied)
        vars(copied).update({key: value for key, value in vars(self).items() if key not in ("_model", "params")})
        return copied


class SetEpoch(SequenceCallback):
    """Tells a sequence of `keras_siamese.data` the epoch that begins, so that it draws that epoch's pairs.

    `SiameseWrapper.fit` does this by itself; pass it to the `fit` of any other model.

    Args:
        sequence: an object with `set_epoch(epoch)`.
    """

    def __init__(self, sequence):
        super().__init__()
        if not hasattr(sequence, "set_epoch"):
            raise TypeError(f"`sequence` must have a method set_epoch(epoch); got a {type(sequence).__name__}")
        self.sequence = sequence

    def on_epoch_begin(self, epoch, logs=None):
        self.sequence.set_epoch(epoch)


class HardPairRefresh(SequenceCallback):
    """Lets a `PairSequence` or `TripletSequence` draw hard partners, chosen anew every few epochs.

    When an epoch from `start` on begins, and then at each `every`-th, all samples of the sequence are embedded by the
    model's encoder, in inference mode, and `sequence.refresh` searches each one's near samples of other identities and
    far samples of its own; the epochs up to the next refresh draw their partners from these. Distances are Euclidean,
    or cosine where the model compares by "cosine" or "angular".

    Before `start`, and where a new fit begins, partners are uniform. The first epoch of a resumed fit (`initial_epoch`,
    `BackupAndRestore`) from `start` on refreshes whatever `every` says, as the candidates are not saved: with `every=1`
    the run goes on as if it had not been interrupted, with `every` > 1 its candidates are newer until the next refresh.
    Embeddings that are not finite leave the candidates as they are, with a warning.

    Args:
        sequence: the `PairSequence` or `TripletSequence` that `fit` is given.
        every: refresh each so many epochs, ≥ 1.
        start: the first epoch with hard partners, ≥ 0. Under an encoder that has learned nothing they mean little, and
            the hardest from the outset can make training collapse.
        negative_ranks: (lo, hi), which samples of other identities count as hard, by increasing distance from 0.
        positive_ranks: (lo, hi), which of the same identity, by decreasing distance.
        encoder: the encoder, a part of the model, where it cannot be found in it.
        batch_size: samples embedded at once.

    Attributes:
        refreshed: the epochs of this fit that began with a refresh.
        candidates: the latest `HardCandidates`, None before the first. They say how many samples have none.

    Raises:
        ValueError: when training begins, if `fit` is given another sequence or no encoder is found.

    >>> from keras_siamese.data import PairSequence
    >>> sequence = PairSequence(np.eye(6), ["ada", "ada", "bo", "bo", "cy", "cy"])
    >>> HardPairRefresh(sequence, every=2, negative_ranks=(1, 3)).start
    1
    """

    def __init__(
        self,
        sequence,
        every=1,
        start=1,
        negative_ranks=(0, 50),
        positive_ranks=(0, 5),
        *,
        encoder=None,
        batch_size=256,
    ):
        super().__init__()
        if not hasattr(sequence, "refresh"):
            raise TypeError(
                f"`sequence` must be a PairSequence or a TripletSequence, which can refresh; got a "
                f"{type(sequence).__name__}"
            )
        self.sequence = sequence
        self.every = check_integer("every", every, low=1)
        self.start = check_integer("start", start, low=0)
        self.negative_ranks = check_ranks("negative_ranks", negative_ranks)
        self.positive_ranks = check_ranks("positive_ranks", positive_ranks)
        self.encoder = encoder
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self._forget()

    def _forget(self):
        """Starts afresh what belongs to one fit and does not travel with a copy."""
        self.refreshed, self.candidates = [], None

    def __deepcopy__(self, memo):
        copied = super().__deepcopy__(memo)
        copied._forget()
        return copied

    def on_train_begin(self, logs=None):
        fitted = getattr(self.model, "training_data", None)  # only a SiameseWrapper knows
        if fitted is not None and hasattr(fitted, "refresh") and fitted is not self.sequence:
            raise ValueError(f"`sequence` must be the one that fit is given, {fitted!r}; got {self.sequence!r}")
        self._forget()
        self.sequence.refresh(None)  # candidates of an earlier fit are another model's
        if self.model.built:
            self.find_encoder()

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= self.start and (not self.refreshed or (epoch - self.start) % self.every == 0):
            embeddings = self.embed()
            if np.isfinite(embeddings).all():
                ranks = {"negative_ranks": self.negative_ranks, "positive_ranks": self.positive_ranks}
                self.candidates = self.sequence.refresh(embeddings, **ranks)
                self.refreshed.append(epoch)
            else:
                warnings.warn(
                    f"Embeddings are NaN or infinite when epoch {epoch + 1} begins: hard partners stay as they are",
                    stacklevel=2,
                )

    def find_encoder(self):
        """The `SiameseWrapper` around the model's encoder."""
        return as_siamese(self.model, self.encoder, items=self.sequence.x)

    def embed(self):
        """Embeddings `(n, dim)` of the sequence's samples by the weights as they are, such that Euclidean distances
        rank them as the model does."""
        siamese = self.find_encoder()
        embeddings = embed(siamese.encoder, self.sequence.x, self.batch_size)
        if isinstance(siamese.distance, (CosineDistance, AngularDistance)):
            norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
            embeddings = embeddings / np.where(norms > 0, norms, 1)
        return embeddings
