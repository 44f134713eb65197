"""Batches of P identities with K samples each, for the losses that compare all embeddings in a batch.

Contract: samples are a source `(n, …)` (see `sources`), labels `(n,)` integers or strings. A batch is `(samples,
codes)`: P·K samples, those of one identity next to each other, and their identities' codes, int32 `(P·K,)`. An epoch
takes 8 bytes of memory for each row. Users and `callbacks` use this module.

    sequence = BalancedBatchSequence(x, labels, classes_per_batch=32, samples_per_class=4, seed=0)
    samples, codes = sequence[0]                                        # 128 samples, 32 identities
    encoder.compile("adam", loss=ks.losses.SupConLoss())
    encoder.fit(sequence, epochs=20, callbacks=[ks.callbacks.SetEpoch(sequence)])
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from keras_siamese._checks import check_choice, check_integer, check_labels
from keras_siamese._types import ArrayLike, Augment, DatasetOptions, Samples, Unpack
from keras_siamese.data.grouping import draw_identities, draw_near, draw_within, nearest_identities
from keras_siamese.data.hardness import check_embeddings, check_ranks
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.sources import count_samples, fed, take


class BalancedBatchSequence(EpochSequence):
    """A `keras.utils.PyDataset` of batches of P identities × K samples; a batch depends only on `(seed, epoch, index)`.

    An identity occurs at most once in a batch. Its samples take turns, so an epoch shows each of them equally often.
    If an identity has fewer than K samples, some are repeated in the batch, or the identity is left out (`short`). An
    identity with a single sample takes part only with `augment`, which makes another view of the sample; without
    `augment`, the sample would be its own positive.

    Args:
        x, labels: samples `(n, …)`, an array, dict or other source, and identities `(n,)`, as in `PairSequence`.
        classes_per_batch: P ≥ 2, identities in a batch.
        samples_per_class: K ≥ 2, samples of each identity.
        batches_per_epoch: ≥ 1; by default an epoch shows each sample about once.
        weighting: "balanced" (default) shows all identities equally often; "natural" in proportion to their samples.
        short: "repeat" (default) or "drop", for identities with fewer than K samples.
        superclasses: None, or the super-class of each sample `(n,)`, integers or strings, the same for all samples of
            an identity: for example the kind of product. A batch then has identities of few super-classes, which are
            harder to tell apart than those of many. Super-classes are drawn in proportion to their identities.
        superclasses_per_batch: ≥ 1, how many super-classes a batch has. P must be a multiple of it; each gives as many
            identities. Super-classes that have fewer identities take no part.
        augment, frozen, seed, **kwargs: as in `PairSequence`, but `augment` changes the whole batch.

    Attributes:
        x, labels, identities: as in `PairSequence`.
        left_out: number of identities that take no part: single samples without `augment`, or dropped as short, or in
            a super-class that is too small.
        repeated: number of identities that take part with fewer than K samples.

    Raises:
        ValueError: if fewer than P identities (or too few super-classes) can take part, if samples of one identity have
            several super-classes, if `x` is empty or differs in length from `labels`, or if
            a number is out of range.
        TypeError: for an unknown option; the message lists the known ones.

    >>> x, labels = np.arange(7.0), ["ada", "ada", "bo", "bo", "bo", "cy", "di"]
    >>> sequence = BalancedBatchSequence(x, labels, classes_per_batch=2, samples_per_class=3)
    >>> sequence
    BalancedBatchSequence(7 samples of 4 identities, 2 left out, 1 with samples repeated; 1 batches of 2 × 3; epoch 0)
    >>> samples, codes = sequence[0]
    >>> samples.shape, sorted(codes.tolist())
    ((6,), [0, 0, 0, 1, 1, 1])
    """

    _near: np.ndarray | None

    def __init__(
        self,
        x: Samples,
        labels: ArrayLike,
        *,
        classes_per_batch: int = 32,
        samples_per_class: int = 4,
        batches_per_epoch: int | None = None,
        weighting: Literal["natural", "balanced"] = "balanced",
        short: Literal["repeat", "drop"] = "repeat",
        superclasses: ArrayLike | None = None,
        superclasses_per_batch: int = 2,
        augment: Augment | None = None,
        frozen: bool = False,
        seed: int = 0,
        **kwargs: Unpack[DatasetOptions],
    ) -> None:
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        self._set_samples(x, labels)
        self.classes_per_batch = check_integer("classes_per_batch", classes_per_batch, low=2)
        self.samples_per_class = check_integer("samples_per_class", samples_per_class, low=2)
        self.weighting = check_choice("weighting", weighting, ("balanced", "natural"))
        self.short = check_choice("short", short, ("repeat", "drop"))
        self._size = np.bincount(self.labels)
        least = self.samples_per_class if self.short == "drop" else 2 if augment is None else 1
        self._taking_part = np.flatnonzero(self._size >= least)
        self.superclasses_per_batch = check_integer("superclasses_per_batch", superclasses_per_batch, low=1)
        self._groups, self._near = None, None
        if superclasses is not None:
            self._set_groups(superclasses)
        self.left_out = len(self.identities) - len(self._taking_part)
        self.repeated = int(np.count_nonzero(self._size[self._taking_part] < self.samples_per_class))
        if len(self._taking_part) < self.classes_per_batch:
            count = f"the number of identities with at least {least} samples (of {len(self.identities)})"
            must = f"must be at most {len(self._taking_part)}, {count}"
            raise ValueError(f"`classes_per_batch` {must}; got {self.classes_per_batch}")
        if batches_per_epoch is None:
            shown = int(self._size[self._taking_part].sum())
            batches_per_epoch = -(-shown // (self.classes_per_batch * self.samples_per_class))
        self.batches_per_epoch = check_integer("batches_per_epoch", batches_per_epoch, low=1)

    def _set_groups(self, superclasses):
        """Divides the identities that take part by super-class, and leaves out super-classes that are too small."""
        each, rest = divmod(self.classes_per_batch, self.superclasses_per_batch)
        if rest:
            must = f"must divide `classes_per_batch`, which is {self.classes_per_batch}"
            raise ValueError(f"`superclasses_per_batch` {must}; got {self.superclasses_per_batch}")
        labels = check_labels("superclasses", superclasses, length=len(self.labels))
        _, first = np.unique(self.labels, return_index=True)
        wrong = np.flatnonzero(labels != labels[first][self.labels])
        if len(wrong):
            row = wrong[0]
            code = self.labels[row]
            found = f"{self.identities[code]} in {labels[first[code]]} and {labels[row]}"
            raise ValueError(f"`superclasses` must have one super-class for each identity; got {found}")
        above = labels[first]
        members = [self._taking_part[above[self._taking_part] == one] for one in np.unique(above)]
        self._groups = [group for group in members if len(group) >= each]
        if len(self._groups) < self.superclasses_per_batch:
            count = f"the number of super-classes with at least {each} identities that take part (of {len(members)})"
            must = f"must be at most {len(self._groups)}, {count}"
            raise ValueError(f"`superclasses_per_batch` {must}; got {self.superclasses_per_batch}")
        self._taking_part = np.sort(np.concatenate(self._groups))

    def refresh(self, embeddings: ArrayLike | None, *, negative_ranks: tuple[int, int] = (0, 50)) -> np.ndarray | None:
        """Draws batches of hard identities from now on: those whose embeddings are near each other.

        Such batches have hard negatives for each anchor, which random batches of many identities hardly ever have. A
        batch begins with a random identity and goes on with some of those whose mean embeddings are nearest to its own;
        if these do not fill it, with a further identity and those near it. So identities are still drawn equally often,
        and a range of ranks that is shorter than P gives batches of several groups. All batches that are drawn later
        depend on these embeddings too. So call it between epochs, as `callbacks.HardPairRefresh` does.

        Compare with random batches: a loss that sees only near identities can forget to keep the others apart, and the
        EER over all pairs then rises.

        Sohn, *Improved Deep Metric Learning with Multi-class N-pair Loss Objective*, NIPS 2016 ("hard negative class
        mining").

        Args:
            embeddings: `(n, dim)`, one for each sample, finite; None returns to random identities. The means are
                compared by Euclidean distance.
            negative_ranks: (lo, hi), 0 ≤ lo < hi: near are the identities of ranks lo … hi − 1 by increasing distance.
                If one person may have two labels, use lo > 0, because such identities come first.

        Returns:
            For each identity the codes of those that count as near, int32 `(identities, k)`, nearest first, and −1 for
            an identity that takes no part; None if `embeddings` is None.

        Raises:
            ValueError: for a frozen sequence, one with super-classes or one with weighting="natural"; if embeddings are
                not finite, not `(n, dim)` or not one for each sample; if ranks are not in order.
        """
        if self.frozen or self._groups is not None or self.weighting != "balanced":
            must = 'a sequence that is not frozen and has superclasses=None and weighting="balanced"'
            raise ValueError(f"`refresh` needs {must}; got {self!r}")
        near = None
        if embeddings is not None:
            embeddings = check_embeddings("embeddings", embeddings, len(self.labels))
            ranks = check_ranks("negative_ranks", negative_ranks)
            rows = np.isin(self.labels, self._taking_part)
            found = nearest_identities(embeddings[rows], np.searchsorted(self._taking_part, self.labels[rows]), ranks)
            near = np.full((len(self.identities), found.shape[1]), -1, np.int32)
            near[self._taking_part] = self._taking_part[found]
        with self._lock:  # as in `HardPartners.refresh`
            self._near, self._drawn = near, None
        return near

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self.batches_per_epoch

    _sized_by = "`classes_per_batch` × `samples_per_class`"

    def _rows_of_batches(self):
        return (self.classes_per_batch * self.samples_per_class,) * 2

    def rows(self, epoch: int | None = None) -> np.ndarray:
        """The sample indices of an epoch `(batches, P·K)`, in the order of its batches, as a read-only array.

        `epoch` is an integer ≥ 0; by default the current epoch. All epochs of a frozen sequence are the same.
        """
        return self._table_of(epoch)

    def _draw(self, epoch):
        rng = self.rng(epoch)
        weights = self._size if self.weighting == "natural" else None
        size = self.batches_per_epoch, self.classes_per_batch
        if self._near is not None:
            chosen = draw_near(rng, self._taking_part, self._near, *size)
        elif self._groups is not None:
            chosen = draw_within(rng, self._groups, *size, self.superclasses_per_batch, weights)
        else:
            weights = None if weights is None else weights[self._taking_part]
            chosen = self._taking_part[draw_identities(rng, len(self._taking_part), *size, weights)]
        rows = draw_samples(rng, self.labels, self._size, chosen.ravel(), self.samples_per_class)
        return rows.reshape(self.batches_per_epoch, -1)

    def _batch(self, table, epoch, index):
        rows = table[index]
        samples = take(self.x, rows, self.workers)
        if self.augment is not None:
            samples = self.augment(samples, self.rng(epoch, index))
        return fed(samples), self.labels[rows].astype("int32")

    def __repr__(self) -> str:
        what = [f"{count_samples(self.x)} samples of {len(self.identities)} identities"]
        what += [f"{self.left_out} left out"] * (self.left_out > 0)
        what += [f"{self.superclasses_per_batch} super-classes in a batch"] * (self._groups is not None)
        what += [f"{self.repeated} with samples repeated"] * (self.repeated > 0)
        batches = f"{len(self)} batches of {self.classes_per_batch} × {self.samples_per_class}"
        return f"{type(self).__name__}({', '.join(what)}; {batches}; {self._state()})"


def draw_samples(rng, codes, size, visits, per_visit):
    """Samples of the identities in `visits`, `(visits, per_visit)`; the samples of an identity take turns.

    `codes` `(n,)` is the identity of each sample, and `size` `(K,)` the number of samples of each identity. An identity
    may occur several times in `visits`. The samples of one visit are distinct if there are at least `per_visit`.
    """
    # Samples sorted by identity, in a random order within each.
    shuffled = rng.permutation(len(codes))
    # NumPy sorts integers of up to 16 bits ten times faster.
    dtype = np.min_scalar_type(len(size) - 1)
    codes, visits = codes.astype(dtype), visits.astype(dtype)
    samples = shuffled[np.argsort(codes[shuffled], kind="stable")]
    start = np.cumsum(size) - size
    # How often the identity of each visit occurred before.
    order = np.argsort(visits, kind="stable")
    first = np.searchsorted(visits[order], visits[order], side="left")
    before = np.empty(len(visits), dtype=np.intp)
    before[order] = np.arange(len(visits)) - first
    turn = (before[:, None] * per_visit + np.arange(per_visit)) % size[visits][:, None]
    return samples[start[visits][:, None] + turn]
