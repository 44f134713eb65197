"""Triplets of an anchor, a positive of its identity and a negative of another, drawn anew each epoch.

Contract: samples are a source `(n, …)` (see `sources`), labels `(n,)` integers or strings. A batch is `((anchor,
positive, negative), zeros)`: three towers `(batch, …)`, and float32 zeros `(batch,)`, because Keras requires a y_true
and a triplet has no label. An epoch takes 24 bytes of memory for each triplet. Users use this module.

    sequence = TripletSequence(x, labels, batch_size=64, seed=0)
    siamese.compile("adam", loss=ks.losses.TripletLoss(margin=0.2))
    siamese.fit(sequence, epochs=20)                                    # a siamese model takes three inputs as well
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from keras_siamese._checks import check_integer
from keras_siamese._types import ArrayLike, Augment, DatasetOptions, Samples, Unpack
from keras_siamese.data.blocks import draw_anchors
from keras_siamese.data.hardness import HardPartners


class TripletSequence(HardPartners):
    """Triplets as a `keras.utils.PyDataset`; a batch depends only on `(seed, epoch, index)`.

    The positive is drawn uniformly among the other samples of the anchor's identity, the negative among all samples of
    other identities. A triplet can occur twice. An identity with a single sample gives negatives only.

    Args:
        x, labels: samples `(n, …)`, an array, dict or other source, and identities `(n,)`, as in `PairSequence`.
        batch_size: triplets in a batch, ≥ 1; the last batch of an epoch may be smaller.
        triplets_per_epoch: ≥ 1; by default the number of samples that can be anchors, so each is the anchor of one.
        weighting, augment, frozen, seed, **kwargs: as in `PairSequence`.

    Attributes:
        x, labels, identities: as in `PairSequence`.
        singletons: number of identities with a single sample, which is never an anchor or a positive.

    Raises:
        ValueError: if no identity has two samples, or there is one identity only; if `x` is empty or differs in length
            from `labels`; if a number is out of range.
        TypeError: for an unknown option; the message lists the known ones.

    >>> sequence = TripletSequence(np.arange(5.0), ["ada", "ada", "bo", "bo", "cy"], batch_size=3)
    >>> sequence
    TripletSequence(5 samples of 3 identities (1 with a single one); 4 triplets an epoch in 2 batches of 3; epoch 0)
    >>> (anchor, positive, negative), _ = sequence[0]
    >>> anchor.shape, positive.shape, negative.shape
    ((3,), (3,), (3,))
    """

    def __init__(
        self,
        x: Samples,
        labels: ArrayLike,
        *,
        batch_size: int = 32,
        triplets_per_epoch: int | None = None,
        weighting: Literal["natural", "balanced"] = "natural",
        augment: Augment | None = None,
        frozen: bool = False,
        seed: int = 0,
        **kwargs: Unpack[DatasetOptions],
    ) -> None:
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        self._set_anchors(x, labels, batch_size, weighting)
        self._check_partners_exist()
        triplets_per_epoch = len(self._blocks.paired) if triplets_per_epoch is None else triplets_per_epoch
        self.triplets_per_epoch = self._count = check_integer("triplets_per_epoch", triplets_per_epoch, low=1)

    _counted_by = "`triplets_per_epoch`"

    def triplets(self, epoch: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sample indices of an epoch in the order of its batches: `(anchor, positive, negative)`, `(triplets,)`.

        `epoch` is an integer ≥ 0; by default the current epoch. All epochs of a frozen sequence are the same.
        """
        return self._table_of(epoch)

    def _draw(self, epoch):
        rng = self.rng(epoch)
        anchor = draw_anchors(rng, self._blocks, self.triplets_per_epoch, self.weighting, paired=True)
        return anchor, self.partners.draw_same(rng, anchor), self.partners.draw_other(rng, anchor)

    def _batch(self, table, epoch, index):
        rows = self._rows_of_batch(table, index)
        return self._towers(rows, epoch, index), np.zeros(len(rows[0]), dtype="float32")

    def __repr__(self) -> str:
        return self._describe(f"{self.triplets_per_epoch} triplets an epoch")
