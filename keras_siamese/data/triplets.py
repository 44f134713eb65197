"""Triplets of an anchor, a positive of its identity and a negative of another, drawn anew each epoch.

Contract: samples are a source `(n, …)` (see `sources`), labels `(n,)` integers or strings. A batch is `((anchor,
positive, negative), zeros)`: three towers shaped as the source with `batch` for `n`, and float32 zeros `(batch,)`,
since a triplet says which is which and Keras wants some y_true. What a sequence holds of an epoch is indices, 24 bytes
a triplet. Users use this module.

    sequence = TripletSequence(x, labels, batch_size=64, seed=0)
    siamese.compile("adam", loss=ks.losses.TripletLoss(margin=0.2))
    siamese.fit(sequence, epochs=20)                                    # a siamese model takes three inputs as well
"""

import numpy as np

from keras_siamese._checks import check_choice, check_integer
from keras_siamese.data.blocks import IdentityBlocks, draw_anchors
from keras_siamese.data.hardness import HardPartners
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.sources import count_samples


class TripletSequence(HardPartners, EpochSequence):
    """Triplets as a `keras.utils.PyDataset`; a batch is a pure function of `(seed, epoch, index)`.

    The positive is uniform among the other samples of the anchor's identity, the negative among all samples of other
    identities, so a triplet can come up twice. An identity with a single sample gives negatives only.

    Args:
        x: array `(n, …)` or dict (nested at will) of arrays `(n, …)`, or another source.
        labels: identities `(n,)`, integers or strings.
        batch_size: triplets in a batch, ≥ 1; the last batch of an epoch may be smaller.
        triplets_per_epoch: ≥ 1; by default as many as samples can be anchors, so that each is the anchor of one.
        weighting: "natural" (default): every sample is an anchor equally often; "balanced": every identity is.
        augment: changes each tower's batch independently; see `keras_siamese.data.augment` for what it may be.
        frozen: whether every epoch has the same triplets, for validation; not possible with `augment`.
        seed: integer ≥ 0.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        x, labels: the source; the codes `(n,)` of its labels, integers 0 … identities − 1.
        identities: the distinct labels, sorted; `identities[labels]` are the labels as they were given.
        singletons: how many identities have a single sample, which is never an anchor or a positive.

    Raises:
        ValueError: if no identity has two samples, or there is one identity only; if `x` is empty or differs in length
            from `labels`; if a number is out of range.
        TypeError: for an unknown option, naming the known ones.

    >>> sequence = TripletSequence(np.arange(5.0), ["ada", "ada", "bo", "bo", "cy"], batch_size=3)
    >>> sequence
    TripletSequence(5 samples of 3 identities (1 with a single one); 4 triplets an epoch in 2 batches of 3; epoch 0)
    >>> (anchor, positive, negative), _ = sequence[0]
    >>> anchor.shape, positive.shape, negative.shape
    ((3,), (3,), (3,))
    """

    def __init__(
        self,
        x,
        labels,
        *,
        batch_size=32,
        triplets_per_epoch=None,
        weighting="natural",
        augment=None,
        frozen=False,
        seed=0,
        **kwargs,
    ):
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        self._set_samples(x, labels)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self.weighting = check_choice("weighting", weighting, ("natural", "balanced"))
        self._blocks = IdentityBlocks(self.labels)
        self.singletons = int(np.count_nonzero(self._blocks.size == 1))
        if len(self._blocks.paired) == 0:
            raise ValueError(
                f"`labels` must hold an identity with two samples; got {len(self.identities)} identities with one each"
            )
        if len(self.identities) == 1:
            raise ValueError(f"`labels` must hold two identities; got one only: {self.identities[0]!r}")
        self.triplets_per_epoch = (
            len(self._blocks.paired)
            if triplets_per_epoch is None
            else check_integer("triplets_per_epoch", triplets_per_epoch, low=1)
        )

    def __len__(self):
        """The number of batches in an epoch."""
        return -(-self.triplets_per_epoch // self.batch_size)

    def triplets(self, epoch=None):
        """The sample indices of an epoch, in the order of its batches: `(anchor, positive, negative)`, each
        `(triplets,)`.

        Args:
            epoch: integer ≥ 0, by default the current one; a frozen sequence has the same in all.
        """
        return self._table_of(epoch)

    def _draw(self, epoch):
        rng = self.rng(epoch)
        anchor = draw_anchors(rng, self._blocks, self.triplets_per_epoch, self.weighting, paired=True)
        return anchor, self.partners.draw_same(rng, anchor), self.partners.draw_other(rng, anchor)

    def _batch(self, table, epoch, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        towers = self._towers([column[rows] for column in table], epoch, index)
        return towers, np.zeros(len(table[0][rows]), dtype="float32")

    def __repr__(self):
        singletons = f" ({self.singletons} with a single one)" if self.singletons else ""
        return (
            f"{type(self).__name__}({count_samples(self.x)} samples of {len(self.identities)} identities{singletons}; "
            f"{self.triplets_per_epoch} triplets an epoch in {len(self)} batches of {self.batch_size}; "
            f"{self._state()})"
        )
