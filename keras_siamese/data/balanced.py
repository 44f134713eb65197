"""Batches of P identities with K samples each, for the losses that compare all embeddings in a batch.

Contract: samples are a source `(n, …)` (see `sources`), labels `(n,)` integers or strings. A batch is `(samples,
codes)`: P·K samples, those of one identity next to each other, and their identities' codes, int32 `(P·K,)`. An epoch
takes 8 bytes of memory for each row. Users and `callbacks` use this module.

    sequence = BalancedBatchSequence(x, labels, classes_per_batch=32, samples_per_class=4, seed=0)
    samples, codes = sequence[0]                                        # 128 samples, 32 identities
    encoder.compile("adam", loss=ks.losses.SupConLoss())
    encoder.fit(sequence, epochs=20, callbacks=[ks.callbacks.SetEpoch(sequence)])
"""

import numpy as np

from keras_siamese._checks import check_choice, check_integer
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
        augment, frozen, seed, **kwargs: as in `PairSequence`, but `augment` changes the whole batch.

    Attributes:
        x, labels, identities: as in `PairSequence`.
        left_out: number of identities that take no part: single samples without `augment`, or dropped as short.
        repeated: number of identities that take part with fewer than K samples.

    Raises:
        ValueError: if fewer than P identities can take part, if `x` is empty or differs in length from `labels`, or if
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

    def __init__(
        self,
        x,
        labels,
        *,
        classes_per_batch=32,
        samples_per_class=4,
        batches_per_epoch=None,
        weighting="balanced",
        short="repeat",
        augment=None,
        frozen=False,
        seed=0,
        **kwargs,
    ):
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        self._set_samples(x, labels)
        self.classes_per_batch = check_integer("classes_per_batch", classes_per_batch, low=2)
        self.samples_per_class = check_integer("samples_per_class", samples_per_class, low=2)
        self.weighting = check_choice("weighting", weighting, ("balanced", "natural"))
        self.short = check_choice("short", short, ("repeat", "drop"))
        self._size = np.bincount(self.labels)
        least = self.samples_per_class if self.short == "drop" else 2 if augment is None else 1
        self._taking_part = np.flatnonzero(self._size >= least)
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

    def __len__(self):
        """The number of batches in an epoch."""
        return self.batches_per_epoch

    def rows(self, epoch=None):
        """The sample indices of an epoch `(batches, P·K)`, in the order of its batches, as a read-only array.

        `epoch` is an integer ≥ 0; by default the current epoch. All epochs of a frozen sequence are the same.
        """
        return self._table_of(epoch)

    def _draw(self, epoch):
        rng = self.rng(epoch)
        weights = self._size[self._taking_part] if self.weighting == "natural" else None
        size = self.batches_per_epoch, self.classes_per_batch
        chosen = self._taking_part[draw_identities(rng, len(self._taking_part), *size, weights)]
        rows = draw_samples(rng, self.labels, self._size, chosen.ravel(), self.samples_per_class)
        return rows.reshape(self.batches_per_epoch, -1)

    def _batch(self, table, epoch, index):
        rows = table[index]
        samples = take(self.x, rows)
        if self.augment is not None:
            samples = self.augment(samples, self.rng(epoch, index))
        return fed(samples), self.labels[rows].astype("int32")

    def __repr__(self):
        what = [f"{count_samples(self.x)} samples of {len(self.identities)} identities"]
        what += [f"{self.left_out} left out"] * (self.left_out > 0)
        what += [f"{self.repeated} with samples repeated"] * (self.repeated > 0)
        batches = f"{len(self)} batches of {self.classes_per_batch} × {self.samples_per_class}"
        return f"{type(self).__name__}({', '.join(what)}; {batches}; {self._state()})"


def draw_identities(rng, total, batches, per_batch, weights=None):
    """Draws the identities of each batch `(batches, per_batch)`, integers below `total`, distinct within a batch.

    Without `weights`, the numbers of times that two identities are drawn differ by at most one. With `weights`
    `(total,)`, each batch is a weighted draw without replacement.
    """
    if weights is not None:
        chosen = np.empty((batches, per_batch), dtype=np.intp)
        for batch in chosen:
            # The largest values of log w + Gumbel noise are such a draw (Efraimidis and Spirakis, 2006).
            keys = np.log(weights) + rng.gumbel(size=total)
            batch[:] = np.argpartition(-keys, per_batch - 1)[:per_batch]
        return chosen
    drawn = [rng.permutation(total)]
    while sum(map(len, drawn)) < batches * per_batch:
        # The last batch may still have room: identities that it holds already are drawn after it is full.
        open_batch = sum(map(len, drawn)) % per_batch
        tail = drawn[-1][len(drawn[-1]) - open_batch :]
        others = rng.permutation(np.setdiff1d(np.arange(total), tail, assume_unique=True))
        fill = per_batch - open_batch
        drawn.append(np.concatenate([others[:fill], rng.permutation(np.concatenate([others[fill:], tail]))]))
    return np.concatenate(drawn)[: batches * per_batch].reshape(batches, per_batch)


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
