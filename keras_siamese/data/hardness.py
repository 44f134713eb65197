"""Hard pairs from embeddings: the nearest samples of other identities and the farthest of the same, by rank.

Contract: embeddings `(n, dim)` and identity codes `(n,)` in, indices `(n, k)` out. `HardCandidates` draws partners with
the methods of `blocks.IdentityBlocks`, so a sequence can use either. The search is exact, by Euclidean distance, and
takes O(n·k) memory. `pairs`, `triplets`, `leakage` and `callbacks` use this module.

    candidates = HardCandidates.from_embeddings(embeddings, codes, negative_ranks=(0, 50), positive_ranks=(0, 5))
    impostors = candidates.draw_other(rng, anchors)
"""

from __future__ import annotations

import time

import keras
import numpy as np

from keras_siamese._checks import check_choice, check_integer, check_reals
from keras_siamese._types import ArrayLike
from keras_siamese.data.blocks import IdentityBlocks
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.sources import count_samples
from keras_siamese.neighbours import nearest_blocks

_BLOCK = 1 << 22  # distances computed at a time
# Larger identities are searched separately, among the samples of others only. Otherwise the search would first have to
# find, and then drop, all of their own samples.
_LARGE = 256
_SHOW_AFTER = 5.0  # seconds without a progress bar


class HardCandidates:
    """The hardest impostor and genuine partners of each sample under some embeddings.

    A range of ranks (lo, hi) keeps the partners at ranks lo, lo + 1, …, hi − 1; the hardest partner has rank 0. If
    labels are noisy, lo should be above 0, because mislabelled samples and duplicates are the hardest impostors. A
    sample with fewer than `hi` partners has shorter lists, and the rest of its row is −1. A sample without candidates
    draws its partners uniformly, as `IdentityBlocks` does.

    Args:
        blocks: `IdentityBlocks` of the n samples, for the uniform draw.
        negatives: int32 `(n, k)`, samples of other identities; shorter rows end in −1.
        positives: int32 `(n, k)`, other samples of the same identity, in the same form.

    Attributes:
        without_negatives: number of samples that draw impostors uniformly.
        without_positives: number of samples that draw genuine partners uniformly, single samples not counted.

    >>> embeddings = np.array([[0.0], [1.0], [3.0], [7.0], [12.0]])
    >>> candidates = HardCandidates.from_embeddings(embeddings, np.array([0, 1, 0, 1, 0]), (0, 2), (0, 1))
    >>> candidates.negatives.tolist()
    [[1, 3], [0, 2], [1, 3], [2, 4], [3, 1]]
    >>> candidates.positives.tolist()
    [[4], [3], [4], [1], [0]]
    """

    def __init__(self, blocks, negatives, positives):
        self._blocks = blocks
        self.negatives = negatives
        self.positives = positives
        self._negative_counts = np.count_nonzero(negatives >= 0, axis=1)
        self._positive_counts = np.count_nonzero(positives >= 0, axis=1)
        self.without_negatives = int(np.count_nonzero(self._negative_counts == 0))
        self.without_positives = int(np.count_nonzero(self._positive_counts[blocks.paired] == 0))

    @classmethod
    def from_embeddings(cls, embeddings, codes, negative_ranks=(0, 50), positive_ranks=(0, 5)):
        """Finds the candidates; a progress bar appears after five seconds.

        `codes` `(n,)` are the identities, integers 0 … K−1, each present; the rest is as in `HardPartners.refresh`.
        """
        embeddings = check_embeddings("embeddings", embeddings, len(codes))
        negative_ranks = check_ranks("negative_ranks", negative_ranks)
        positive_ranks = check_ranks("positive_ranks", positive_ranks)
        # Distances do not change if the mean is subtracted, and the expanded squares then lose fewer digits.
        embeddings = embeddings - embeddings.mean(axis=0, dtype=np.float64).astype("float32")
        blocks = IdentityBlocks(np.asarray(codes))
        progress = _Progress(2 * len(embeddings))
        negatives = nearest_others(embeddings, blocks.codes, negative_ranks, progress)
        positives = farthest_same(embeddings, blocks.codes, positive_ranks, progress)
        return cls(blocks, negatives, positives)

    def draw_same(self, rng, anchors):
        """Draws a genuine candidate for each of the `anchors` `(m,)`, uniformly; `(m,)` samples."""
        return _draw(rng, anchors, self.positives, self._positive_counts, self._blocks.draw_same)

    def draw_other(self, rng, anchors):
        """Draws an impostor candidate for each of the `anchors` `(m,)`, uniformly; `(m,)` samples."""
        return _draw(rng, anchors, self.negatives, self._negative_counts, self._blocks.draw_other)

    def __repr__(self):
        most = f"up to {self.negatives.shape[1]} negatives and {self.positives.shape[1]} positives each"
        without = f"{self.without_negatives} without negatives, {self.without_positives} without positives"
        return f"{type(self).__name__}({len(self.negatives)} samples, {most}; {without})"


class HardPartners(EpochSequence):
    """Base class of `PairSequence` and `TripletSequence`: partners are uniform, or hard under the latest embeddings."""

    _candidates = None

    def _set_anchors(self, x, labels, batch_size, weighting):
        self._set_samples(x, labels)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self.weighting = check_choice("weighting", weighting, ("natural", "balanced"))
        self._blocks = IdentityBlocks(self.labels)
        self.singletons = int(np.count_nonzero(self._blocks.size == 1))

    def _check_partners_exist(self, genuine=True, impostor=True, why=""):
        count = len(self.identities)
        if genuine and self.singletons == count:
            found = f"{count} identities with one sample each"
            raise ValueError(f"`labels` must have an identity with two samples{why}; got {found}")
        if impostor and count == 1:
            raise ValueError(f"`labels` must have two identities{why}; got only {self.identities[0]!r}")

    def _describe(self, rows):
        singletons = f" ({self.singletons} with a single one)" if self.singletons else ""
        samples = f"{count_samples(self.x)} samples of {len(self.identities)} identities{singletons}"
        return super()._describe(f"{samples}; {rows}")

    @property
    def partners(self) -> IdentityBlocks | HardCandidates:
        """The object that draws partners: `IdentityBlocks`, or the `HardCandidates` of the last `refresh`."""
        return self._blocks if self._candidates is None else self._candidates

    def refresh(
        self,
        embeddings: ArrayLike | None,
        *,
        negative_ranks: tuple[int, int] = (0, 50),
        positive_ranks: tuple[int, int] = (0, 5),
    ) -> HardCandidates | None:
        """Draws hard partners from now on: near samples of other identities, far samples of the same identity.

        All batches that are drawn later depend on these embeddings too. So call it between epochs, as
        `callbacks.HardPairRefresh` does.

        Args:
            embeddings: `(n, dim)`, one for each sample, finite; None returns to uniform partners. They are compared by
                Euclidean distance, which ranks embeddings of unit norm as cosine distance does.
            negative_ranks: (lo, hi), 0 ≤ lo < hi: partners of other identities have ranks lo … hi − 1 by increasing
                distance. If labels are noisy, use lo > 0, because mislabelled samples come first.
            positive_ranks: (lo, hi): partners of the same identity have these ranks by decreasing distance.

        Returns:
            The `HardCandidates`, with the number of samples that have none; None if `embeddings` is None.

        Raises:
            ValueError: for a frozen or exhaustive sequence; if embeddings are not finite, not `(n, dim)` or not one for
                each sample; if ranks are not in order.
        """
        if self.frozen or getattr(self, "exhaustive", False):
            raise ValueError(f"`refresh` needs a sequence that draws new samples each epoch; got {self!r}")
        candidates = None
        if embeddings is not None:
            candidates = HardCandidates.from_embeddings(embeddings, self.labels, negative_ranks, positive_ranks)
        with self._lock:  # Keras reads an epoch's first batches before the epoch begins, so its table is dropped too
            self._candidates, self._drawn = candidates, None
        return candidates


def _draw(rng, anchors, candidates, counts, draw_uniformly):
    anchors = np.asarray(anchors, dtype=np.intp)
    have = counts[anchors]
    drawn = candidates[anchors, rng.integers(0, np.maximum(have, 1))].astype(np.intp)
    bare = have == 0
    if bare.any():
        drawn[bare] = draw_uniformly(rng, anchors[bare])
    return drawn


def check_embeddings(name, embeddings, length):
    """Returns `embeddings` as float32 `(length, dim)`, finite."""
    embeddings = check_reals(name, embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        found = f"{embeddings.dtype} of shape {embeddings.shape}"
        raise ValueError(f"`{name}` must be real, of shape (n, dim); got {found}")
    if len(embeddings) != length:
        raise ValueError(f"`{name}` must have one row for each of the {length} samples; got {len(embeddings)}")
    embeddings = embeddings.astype("float32", copy=False)
    bad = len(embeddings) - np.count_nonzero(np.isfinite(embeddings).all(axis=1))
    if bad:
        raise ValueError(f"`{name}` must be finite; {bad} of its {length} rows hold NaN or infinite values")
    return embeddings


def check_ranks(name, ranks):
    """Returns `ranks` as (lo, hi) with 0 ≤ lo < hi."""
    if not isinstance(ranks, (tuple, list)) or len(ranks) != 2:
        raise ValueError(f"`{name}` must be (lo, hi); got {ranks!r}")
    low = check_integer(f"{name}[0]", ranks[0], low=0)
    return low, check_integer(f"{name}[1]", ranks[1], low=low + 1)


def nearest_others(embeddings, codes, ranks, progress=lambda rows: None):
    """The samples of other identities at `ranks` (lo, hi) by increasing distance, int32 `(n, k)`; missing ones are −1.

    k is hi − lo, or less if there are fewer samples. `progress` is called after each block with its number of samples.
    """
    low, high = ranks[0], max(ranks[0] + 1, min(ranks[1], len(codes) - 1))
    size = np.bincount(codes)
    is_small = (size <= _LARGE)[codes]
    found = np.full((len(codes), high - low), -1, dtype=np.int32)

    def search(rows, among, own):
        """Fills in `rows`; each row has at most `own` samples of its own identity `among` the searched samples."""
        if len(among) == 0:
            return progress(len(rows))
        depth = min(high + own, len(among))
        for block, near in nearest_blocks(embeddings[rows], embeddings[among], depth):
            block, near = rows[block], among[near]
            is_other = codes[near] != codes[block, None]
            rank = np.cumsum(is_other, axis=1) - 1
            at, column = np.nonzero(is_other & (rank >= low) & (rank < high))
            found[block[at], rank[at, column] - low] = near[at, column]
            progress(len(block))

    everyone = np.arange(len(codes))
    small = everyone[is_small]
    if len(small):
        search(small, everyone, own=int(size[codes[small]].max()))
    for identity in np.flatnonzero(size > _LARGE):
        search(np.flatnonzero(codes == identity), np.flatnonzero(codes != identity), own=0)
    return found


def farthest_same(embeddings, codes, ranks, progress=lambda rows: None):
    """The other samples of the identity at `ranks` by decreasing distance, in the form of `nearest_others`."""
    size = np.bincount(codes)
    low, high = ranks[0], max(ranks[0] + 1, min(ranks[1], int(size.max()) - 1))
    found = np.full((len(codes), high - low), -1, dtype=np.int32)
    by_identity, start = np.argsort(codes, kind="stable"), np.cumsum(size) - size
    for m in np.unique(size):  # identities of one size make one stack of matrices
        starts = start[size == m]
        in_turn = max(1, _BLOCK // (m * m))
        for first in range(0, len(starts), in_turn):
            members = by_identity[starts[first : first + in_turn, None] + np.arange(m)]  # (identities, m)
            for row in range(0, m, rows := max(1, _BLOCK // m)):
                part = slice(row, row + rows)
                order = _farthest(embeddings, members, part, high)[..., low:]
                chosen = np.take_along_axis(members[:, None, :], order, axis=2) if order.size else order
                found[members[:, part], : order.shape[2]] = chosen
                progress(members[:, part].size)
    return found


def _farthest(embeddings, members, part, high):
    """Columns of `members` `(identities, m)` by decreasing distance from those in `part`, without the sample itself:
    `(identities, rows, ≤ high)`."""
    z = embeddings[members]
    squares = np.einsum("imd,imd->im", z, z)
    # ‖row‖² is left out: it is the same for all columns of a row.
    distance = squares[:, None, :] - 2 * (z[:, part] @ z.transpose(0, 2, 1))
    rows = np.arange(members.shape[1])[part]
    distance[:, rows - rows[0], rows] = -np.inf
    keep = min(high, members.shape[1] - 1)
    order = np.broadcast_to(np.arange(members.shape[1]), distance.shape)
    if keep < members.shape[1] - 1:
        order = np.argpartition(-distance, keep, axis=2)[..., :keep]
    by_distance = np.argsort(-np.take_along_axis(distance, order, axis=2), axis=2, kind="stable")
    return np.take_along_axis(order, by_distance, axis=2)[..., :keep]


class _Progress:
    """Counts samples, and shows a progress bar after a while."""

    def __init__(self, total):
        self._bar, self._done, self._total, self._began = None, 0, total, time.monotonic()

    def __call__(self, rows):
        self._done += rows
        if self._bar is None and time.monotonic() - self._began > _SHOW_AFTER:
            self._bar = keras.utils.Progbar(self._total, unit_name="sample")
        if self._bar is not None:
            self._bar.update(self._done)
