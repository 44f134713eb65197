"""Samples by identity: draws of anchors and of their partners, without rejection.

Contract: identities are codes `(n,)`, integers 0 … K-1, each present; what is drawn are sample indices; every draw is
from the generator that is handed in. `pairs`, `triplets` and `hardness` import this module; it imports NumPy alone.

    blocks = IdentityBlocks(codes)
    anchors = draw_anchors(rng, blocks, 100, paired=True)
    positives, negatives = blocks.draw_same(rng, anchors), blocks.draw_other(rng, anchors)
"""

import numpy as np


class IdentityBlocks:
    """Samples sorted by identity: an identity is one block of positions, so a partner is one draw, without rejection.

    Args:
        codes: identities `(n,)`, integers 0 … K-1, each present.

    Attributes:
        size: samples of each identity `(K,)`.
        paired: the samples that are not their identity's only one.
    """

    def __init__(self, codes):
        self.codes = codes
        self.size = np.bincount(codes)
        self.paired = np.flatnonzero(self.size[codes] > 1)
        self._start = np.cumsum(self.size) - self.size
        self._sample = np.argsort(codes, kind="stable")  # (n,): position → sample
        self._position = np.argsort(self._sample, kind="stable")  # (n,): sample → position

    def draw_from(self, rng, identities):
        """For each of the `identities` `(m,)` one of its samples, uniformly."""
        return self._sample[self._start[identities] + rng.integers(0, self.size[identities])]

    def draw_same(self, rng, anchors):
        """For each of the `anchors` `(m,)` another sample of its identity, uniformly; each anchor must have one."""
        block = self.codes[anchors]
        position = self._start[block] + rng.integers(0, self.size[block] - 1)
        return self._sample[position + (position >= self._position[anchors])]  # the anchor itself is skipped

    def draw_other(self, rng, anchors):
        """For each of the `anchors` `(m,)` a sample of another identity, uniformly; there must be two identities."""
        block = self.codes[anchors]
        position = rng.integers(0, len(self.codes) - self.size[block])
        return self._sample[position + (position >= self._start[block]) * self.size[block]]  # its block is skipped


def draw_anchors(rng, blocks, count, weighting="natural", paired=False, after=()):
    """`count` anchors, each sample (or under "balanced" each identity) as often as any other, within one.

    Args:
        rng: NumPy generator.
        blocks: `IdentityBlocks`.
        count: how many.
        weighting: "natural" or "balanced".
        paired: whether only samples that have another of their identity may be anchors.
        after: anchors drawn before; the natural draw begins with the samples that they used less.
    """
    if weighting == "balanced":
        identities = np.flatnonzero(blocks.size > 1) if paired else np.arange(len(blocks.size))
        return blocks.draw_from(rng, _repeat_permuted(rng, identities, count))
    anchors = _repeat_permuted(rng, blocks.paired if paired else np.arange(len(blocks.codes)), count)
    if len(after) == 0:
        return anchors
    used = np.bincount(after, minlength=len(blocks.codes))
    behind = rng.permutation(np.flatnonzero(used < used.max()))
    return np.concatenate([behind, anchors])[:count]


def _repeat_permuted(rng, samples, count):
    """`count` entries of whole random permutations of `samples`, the last one cut short."""
    if count == 0:
        return np.empty(0, dtype=np.intp)
    rounds = -(-count // len(samples))
    return rng.permuted(np.tile(samples, (rounds, 1)), axis=1).ravel()[:count]
