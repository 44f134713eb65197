"""Random anchors and their partners, drawn by identity without rejection.

Contract: identities are codes `(n,)`, integers 0 … K-1, each present. Functions return sample indices and take all
randomness from the given generator. `pairs`, `triplets` and `hardness` import this module.

    blocks = IdentityBlocks(codes)
    anchors = draw_anchors(rng, blocks, 100, paired=True)
    positives, negatives = blocks.draw_same(rng, anchors), blocks.draw_other(rng, anchors)
"""

import numpy as np


class IdentityBlocks:
    """Samples sorted by identity: each identity is one block of positions, so one draw is enough for a partner.

    `size` is the number of samples of each identity `(K,)`; `paired` are the samples whose identity has several.
    """

    def __init__(self, codes):
        self.codes = codes
        self.size = np.bincount(codes)
        self.paired = np.flatnonzero(self.size[codes] > 1)
        self._start = np.cumsum(self.size) - self.size
        self._sample = np.argsort(codes, kind="stable")  # (n,): position → sample
        self._position = np.argsort(self._sample, kind="stable")  # (n,): sample → position

    def draw_from(self, rng, identities):
        """Draws one sample of each of the `identities` `(m,)`, uniformly; `(m,)`."""
        return self._sample[self._start[identities] + rng.integers(0, self.size[identities])]

    def draw_same(self, rng, anchors):
        """Draws another sample of the identity of each of the `anchors` `(m,)`, uniformly; each must have one."""
        block = self.codes[anchors]
        position = self._start[block] + rng.integers(0, self.size[block] - 1)
        return self._sample[position + (position >= self._position[anchors])]  # the anchor itself is skipped

    def draw_other(self, rng, anchors):
        """Draws a sample of another identity for each of the `anchors` `(m,)`, uniformly; needs two identities."""
        block = self.codes[anchors]
        position = rng.integers(0, len(self.codes) - self.size[block])
        return self._sample[position + (position >= self._start[block]) * self.size[block]]  # its block is skipped


def draw_anchors(rng, blocks, count, weighting="natural", paired=False, after=()):
    """Draws `count` anchors so that each sample (or with "balanced" each identity) occurs about equally often.

    Frequencies differ by at most one. `paired` restricts the draw to samples with another sample of their identity.
    `after` are anchors drawn before: "natural" then begins with the samples that occur less often in them.
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
    """Concatenates random permutations of `samples` and returns the first `count` entries."""
    if count == 0:
        return np.empty(0, dtype=np.intp)
    rounds = -(-count // len(samples))
    return rng.permuted(np.tile(samples, (rounds, 1)), axis=1).ravel()[:count]
