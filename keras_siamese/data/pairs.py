"""Pairs of samples with the label "same identity or not", drawn anew each epoch.

Contract: samples are a source `(n, …)` (see `sources`), labels `(n,)` integers or strings. A batch is
`((left, right), same)`: `left` and `right` are shaped as the source with `batch` for `n`, `same` is float32 `(batch,)`.
What a sequence holds of an epoch is indices, 17 bytes a pair. Users, `callbacks` and `diagnosis` use this module.

    sequence = PairSequence(x, labels, batch_size=128, positive_fraction=0.5, seed=0)
    (left, right), same = sequence[0]
    left_index, right_index, same = sequence.pairs(epoch=3)
    model.fit(sequence, epochs=20, callbacks=[ks.callbacks.SetEpoch(sequence)])
"""

import numpy as np

from keras_siamese._checks import check_choice, check_integer, check_number
from keras_siamese.data.blocks import IdentityBlocks, draw_anchors
from keras_siamese.data.hardness import HardPartners
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.sources import count_samples
from keras_siamese.data.weights import KINDS, pair_sample_weights


class PairSequence(HardPartners, EpochSequence):
    """Genuine and impostor pairs as a `keras.utils.PyDataset`; a batch is a pure function of `(seed, epoch, index)`.

    Every sample is an anchor (`left`) about equally often; in an epoch of as many pairs as samples, once. A genuine
    partner is uniform among the other samples of the anchor's identity, an impostor partner among all samples of other
    identities, so a pair can come up twice. An identity with a single sample makes impostor pairs only.

    Args:
        x: array `(n, …)` or dict (nested at will) of arrays `(n, …)`; then `left` and `right` are such dicts.
        labels: identities `(n,)`, integers or strings.
        batch_size: pairs in a batch, ≥ 1; the last batch of an epoch may be smaller.
        positive_fraction: share of genuine pairs in [0, 1]: exact, but for rounding to whole pairs, over an epoch, and
            within one pair in each batch.
        pairs_per_epoch: ≥ 1; the number of samples by default, so that each is the anchor of one pair. "all" has every
            pair of two samples exactly once, as they fall; `positive_fraction` and `weighting` do not apply then.
        weighting: "natural" (default): every sample is an anchor equally often; "balanced": every identity is.
        sample_weight: None; "balanced", which gives batches `((left, right), same, weight)` whose weights let genuine
            and impostor pairs count the same over an epoch; or "identities", which lets every identity count the same.
        augment: changes each tower's batch independently; see `keras_siamese.data.augment` for what it may be.
        frozen: whether every epoch has the same pairs, for validation; not possible with `augment`.
        similar_label: 1, or 0 for a project in which 0 means "same".
        seed: integer ≥ 0.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`. (For a shorter epoch
            say `pairs_per_epoch`: `fit(steps_per_epoch=…)` makes Keras carry batches over into the next epoch.)

    Attributes:
        x, labels: the source; the codes `(n,)` of its labels, integers 0 … K-1.
        identities: the distinct labels `(K,)`, sorted; `identities[labels]` are the labels as they were given.
        singletons: how many identities have a single sample.

    Raises:
        ValueError: if `x` is empty, holds NaN or infinity, or differs in length from `labels`; if genuine pairs are
            asked for and each identity has one sample, or impostor pairs and there is one identity; if a number is
            out of range.
        TypeError: for an unknown option, naming the known ones.

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
        x,
        labels,
        *,
        batch_size=32,
        positive_fraction=0.5,
        pairs_per_epoch=None,
        weighting="natural",
        sample_weight=None,
        augment=None,
        frozen=False,
        similar_label=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        n = self._set_samples(x, labels)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self.positive_fraction = check_number("positive_fraction", positive_fraction, low=0, high=1)
        self.weighting = check_choice("weighting", weighting, ("natural", "balanced"))
        self.sample_weight = check_choice("sample_weight", sample_weight, (None, *KINDS))
        self.exhaustive = isinstance(pairs_per_epoch, str)
        if self.exhaustive:
            check_choice("pairs_per_epoch", pairs_per_epoch, ("all",))
            if (positive_fraction, weighting) != (0.5, "natural"):
                raise ValueError(
                    '`pairs_per_epoch="all"` has every pair once, as they fall: it goes with no `positive_fraction` '
                    f"and no `weighting`; got {positive_fraction!r} and {weighting!r}"
                )
            pairs_per_epoch = n * (n - 1) // 2
        self.pairs_per_epoch = (
            n if pairs_per_epoch is None else check_integer("pairs_per_epoch", pairs_per_epoch, low=1)
        )
        self.similar_label = check_choice("similar_label", similar_label, (0, 1))
        self._blocks = IdentityBlocks(self.labels)
        self.singletons = int(np.count_nonzero(self._blocks.size == 1))
        if self.exhaustive:
            self.positive_fraction = float(np.sum(self._blocks.size * (self._blocks.size - 1)) / (n * (n - 1)))
        else:
            self._check_pairs_exist()

    def _check_pairs_exist(self):
        positives = _positives_before(self.pairs_per_epoch, self.positive_fraction)
        if positives and self.singletons == len(self.identities):
            raise ValueError(
                f"`labels` must hold an identity with two samples for genuine pairs (positive_fraction="
                f"{self.positive_fraction:g}); got {len(self.identities)} identities with one sample each"
            )
        if positives < self.pairs_per_epoch and len(self.identities) == 1:
            raise ValueError(
                f"`labels` must hold two identities for impostor pairs (positive_fraction={self.positive_fraction:g}); "
                f"got one only: {self.identities[0]!r}"
            )

    def __len__(self):
        """The number of batches in an epoch."""
        return -(-self.pairs_per_epoch // self.batch_size)

    def pairs(self, epoch=None):
        """The pairs of an epoch in the order of its batches: `(left_index, right_index, same)`, each `(pairs,)`.

        Args:
            epoch: integer ≥ 0, by default the current one; a frozen sequence has the same pairs in all.

        Returns:
            Two integer arrays of sample indices and one of booleans, True = same identity; not writeable.
        """
        return self._table_of(epoch)[:3]

    def _draw(self, epoch):
        rng = self.rng(epoch)
        if self.exhaustive:
            left, right = all_pairs(len(self.labels), None if self.frozen else rng)
            table = left, right, self.labels[left] == self.labels[right]
        else:
            count, partners = self.pairs_per_epoch, self.partners
            table = draw_pairs(
                rng, self._blocks, partners, count, self.positive_fraction, self.batch_size, self.weighting
            )
        if self.sample_weight is not None:
            left, right, same = table
            table = *table, pair_sample_weights(same, self.labels[left], self.labels[right], self.sample_weight)
        return table

    def _batch(self, table, epoch, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        left_index, right_index, same, *weight = (column[rows] for column in table)
        towers = self._towers((left_index, right_index), epoch, index)
        return towers, (same == self.similar_label).astype("float32"), *weight

    def __repr__(self):
        singletons = f" ({self.singletons} with a single one)" if self.singletons else ""
        return (
            f"{type(self).__name__}({count_samples(self.x)} samples of {len(self.identities)} identities{singletons}; "
            f"{self.pairs_per_epoch} pairs an epoch, {100 * self.positive_fraction:.3g}% same, "
            f"in {len(self)} batches of {self.batch_size}; "
            f"{self._state()})"
        )


def draw_pairs(rng, blocks, partners, count, positive_fraction, batch_size, weighting="natural"):
    """Draws an epoch.

    Args:
        rng: NumPy generator.
        blocks: `IdentityBlocks` of the n samples.
        partners: who draws the anchors' partners: the blocks, or candidates with the same two methods.
        count: number of pairs P.
        positive_fraction: share of genuine pairs, in [0, 1].
        batch_size: pairs in a batch; genuine and impostor pairs are mixed within it.
        weighting: "natural" or "balanced", as in `PairSequence`.

    Returns:
        `left` and `right`, sample indices `(P,)`, and `same`, booleans `(P,)`.
    """
    same = np.diff(_positives_before(np.arange(count + 1), positive_fraction)).astype(bool)
    whole = count // batch_size * batch_size
    mixed = rng.permuted(same[:whole].reshape(-1, batch_size), axis=1).ravel()
    same = np.concatenate([mixed, rng.permutation(same[whole:])])

    positives = np.count_nonzero(same)
    genuine = draw_anchors(rng, blocks, positives, weighting, paired=True)
    impostor = draw_anchors(rng, blocks, count - positives, weighting, after=genuine)
    left, right = np.empty((2, count), dtype=np.intp)
    left[same], left[~same] = genuine, impostor
    right[same], right[~same] = partners.draw_same(rng, genuine), partners.draw_other(rng, impostor)
    return left, right, same


def all_pairs(n, rng=None):
    """Every pair of n samples once: `left` < `right`, each `(n(n − 1)/2,)`, in a random order given `rng`."""
    left, right = np.triu_indices(n, 1)
    if rng is None:
        return left, right
    order = rng.permutation(len(left))
    return left[order], right[order]


def _positives_before(count, fraction):
    """How many of the first `count` pairs are genuine: rounding the running total keeps every stretch within one."""
    return np.floor(np.asarray(count) * fraction + 0.5).astype(int)
