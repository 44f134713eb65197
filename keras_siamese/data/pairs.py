"""Pairs of samples with the label "same identity or not", drawn anew each epoch.

Contract: samples are a source `(n, …)` (see `sources`), labels `(n,)` integers or strings. A batch is
`((left, right), same)`: two towers `(batch, …)` and float32 `(batch,)`. An epoch takes 17 bytes of memory for each
pair. Users, `explicit`, `callbacks` and `diagnosis` use this module.

    sequence = PairSequence(x, labels, batch_size=128, positive_fraction=0.5, seed=0)
    (left, right), same = sequence[0]
    left_index, right_index, same = sequence.pairs(epoch=3)
    model.fit(sequence, epochs=20, callbacks=[ks.callbacks.SetEpoch(sequence)])
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from keras_siamese._checks import check_choice, check_integer, check_number
from keras_siamese._types import ArrayLike, Augment, DatasetOptions, Samples, Unpack
from keras_siamese.data.blocks import draw_anchors
from keras_siamese.data.hardness import HardPartners
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.weights import KINDS, pair_sample_weights


class PairBatches(EpochSequence):
    """Base class of `PairSequence` and `ExplicitPairs`: batches of the columns left, right, same and perhaps weight."""

    def pairs(self, epoch: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of an epoch in the order of its batches: `(left_index, right_index, same)`, each `(pairs,)`.

        They are two integer arrays of sample indices and one of booleans, True = same identity; read-only. `epoch` is
        an integer ≥ 0; by default the current epoch. All epochs of a frozen sequence are the same.
        """
        return self._table_of(epoch)[:3]

    def _batch(self, table, epoch, index):
        left, right, same, *weight = self._rows_of_batch(table, index)
        return self._towers((left, right), epoch, index), (same == self.similar_label).astype("float32"), *weight

    def __repr__(self) -> str:
        return self._describe(f"{self._what()}, {100 * self.positive_fraction:.3g}% same,")


class PairSequence(HardPartners, PairBatches):
    """Genuine and impostor pairs as a `keras.utils.PyDataset`; a batch depends only on `(seed, epoch, index)`.

    All samples are anchors (`left`) about equally often: once, if an epoch has as many pairs as samples. The partner is
    drawn uniformly, for a genuine pair among the other samples of the anchor's identity, for an impostor pair among all
    samples of other identities. A pair can occur twice. An identity with a single sample has impostor pairs only.

    Args:
        x: array `(n, …)`, dict (also nested) of arrays `(n, …)`, or another source, such as an `ImageFolder`. For a
            dict, `left` and `right` are such dicts.
        labels: identities `(n,)`, integers or strings.
        batch_size: pairs in a batch, ≥ 1; the last batch of an epoch may be smaller.
        positive_fraction: share of genuine pairs in [0, 1]: exact over an epoch, up to rounding to whole pairs, and
            within one pair in each batch.
        pairs_per_epoch: ≥ 1; by default the number of samples, so each is the anchor of one pair. "all" has every pair
            of two samples exactly once; then `positive_fraction` and `weighting` do not apply.
        weighting: "natural" (default): every sample is an anchor equally often; "balanced": every identity is.
        sample_weight: None, or weights in batches `((left, right), same, weight)`: with "balanced", genuine and
            impostor pairs count the same over an epoch; with "identities", all identities do.
        augment: changes each tower's batch independently; see `keras_siamese.data.augment` for what is accepted.
        frozen: whether every epoch has the same batches, for validation; excludes `augment`.
        similar_label: 1, or 0 for a project in which 0 means "same".
        seed: integer ≥ 0.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`. (For shorter epochs use
            `pairs_per_epoch`: with `fit(steps_per_epoch=…)` Keras carries batches over into the next epoch.)

    Attributes:
        x, labels: the source; the codes `(n,)` of its labels, integers 0 … K − 1.
        identities: the distinct labels `(K,)`, sorted; `identities[labels]` are the original labels.
        singletons: number of identities with a single sample.

    Raises:
        ValueError: if `x` is empty, has NaN or infinite values, or differs in length from `labels`; if genuine pairs
            are asked for and each identity has one sample, or impostor pairs and there is one identity; if a number is
            out of range.
        TypeError: for an unknown option; the message lists the known ones.

    >>> x, labels = np.arange(6.0), ["ada", "ada", "bo", "bo", "cy", "cy"]
    >>> sequence = PairSequence(x, labels, batch_size=4)
    >>> sequence
    PairSequence(6 samples of 3 identities; 6 pairs an epoch, 50% same, in 2 batches of 4; epoch 0)
    >>> (left, right), same = sequence[0]
    >>> left.shape, right.shape, same.shape, int(same.sum())
    ((4,), (4,), (4,), 2)
    """

    def __init__(
        self,
        x: Samples,
        labels: ArrayLike,
        *,
        batch_size: int = 32,
        positive_fraction: float = 0.5,
        pairs_per_epoch: int | Literal["all"] | None = None,
        weighting: Literal["natural", "balanced"] = "natural",
        sample_weight: Literal["balanced", "identities"] | None = None,
        augment: Augment | None = None,
        frozen: bool = False,
        similar_label: int = 1,
        seed: int = 0,
        **kwargs: Unpack[DatasetOptions],
    ) -> None:
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        self._set_anchors(x, labels, batch_size, weighting)
        self.positive_fraction = check_number("positive_fraction", positive_fraction, low=0, high=1)
        self.sample_weight = check_choice("sample_weight", sample_weight, (None, *KINDS))
        self.similar_label = check_choice("similar_label", similar_label, (0, 1))
        self.exhaustive = isinstance(pairs_per_epoch, str)
        n, size = len(self.labels), self._blocks.size
        if self.exhaustive:
            check_choice("pairs_per_epoch", pairs_per_epoch, ("all",))
            if (positive_fraction, weighting) != (0.5, "natural"):
                problem = "has every pair once, so it allows no `positive_fraction` and no `weighting`"
                raise ValueError(f'`pairs_per_epoch="all"` {problem}; got {positive_fraction!r} and {weighting!r}')
            pairs_per_epoch = n * (n - 1) // 2
        pairs_per_epoch = n if pairs_per_epoch is None else pairs_per_epoch
        self.pairs_per_epoch = self._count = check_integer("pairs_per_epoch", pairs_per_epoch, low=1)
        if self.exhaustive:
            self.positive_fraction = float(np.sum(size * (size - 1)) / (n * (n - 1)))
        else:
            positives = _positives_before(self.pairs_per_epoch, self.positive_fraction)
            share = f" (positive_fraction={self.positive_fraction:g})"
            self._check_partners_exist(positives > 0, positives < self.pairs_per_epoch, share)

    _counted_by = "`pairs_per_epoch`"

    def _draw(self, epoch):
        left, right, same = self._draw_all(epoch) if self.exhaustive else self._draw_some(epoch)
        if self.sample_weight is None:
            return left, right, same
        weight = pair_sample_weights(same, self.labels[left], self.labels[right], self.sample_weight)
        return left, right, same, weight

    def _draw_all(self, epoch):
        left, right = np.triu_indices(len(self.labels), 1)
        if not self.frozen:
            order = self.rng(epoch).permutation(len(left))
            left, right = left[order], right[order]
        return left, right, self.labels[left] == self.labels[right]

    def _draw_some(self, epoch):
        rng, count = self.rng(epoch), self.pairs_per_epoch
        same = np.diff(_positives_before(np.arange(count + 1), self.positive_fraction)).astype(bool)
        # Genuine and impostor pairs are mixed within each batch.
        whole = count // self.batch_size * self.batch_size
        mixed = rng.permuted(same[:whole].reshape(-1, self.batch_size), axis=1).ravel()
        same = np.concatenate([mixed, rng.permutation(same[whole:])])

        positives = np.count_nonzero(same)
        genuine = draw_anchors(rng, self._blocks, positives, self.weighting, paired=True)
        impostor = draw_anchors(rng, self._blocks, count - positives, self.weighting, after=genuine)
        left, right = np.empty((2, count), dtype=np.intp)
        left[same], left[~same] = genuine, impostor
        right[same], right[~same] = self.partners.draw_same(rng, genuine), self.partners.draw_other(rng, impostor)
        return left, right, same

    def _what(self):
        return f"{self.pairs_per_epoch} pairs an epoch"


def _positives_before(count, fraction):
    """How many of the first `count` pairs are genuine. Rounding the total keeps every run of pairs within one pair."""
    return np.floor(np.asarray(count) * fraction + 0.5).astype(int)
