"""Facts of which parts of the input reach the embedding: one block of it at a time is exchanged between items.

A block is a few neighbouring columns, time steps, or a rectangle of an image. If an item gets the block of another
item, its embedding moves, unless the network does not see the block. How much that matters is told by a linear model of
the raw inputs: what it would use of the blocks that the network does not see. No gradient and no training is needed.

Breiman, *Random Forests*, Machine Learning 45, 2001, https://doi.org/10.1023/A:1010933404324: permutation importance.

Contract: pure functions of arrays and of functions that embed them; `of_exchange` asks the run for both.

    blocks_of((28, 28, 1))                           # 16 rectangles, tuples of slices
    moves(embed, x, others, blocks)                  # (blocks,): 0 for a block that is not seen
"""

from itertools import pairwise

import numpy as np

from keras_siamese.data.sources import count_samples, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.references import flat, has_numbers
from keras_siamese.scoring import embed

ITEMS = 64  # whose blocks are exchanged
BLOCKS = 16
CHANNELS = 4  # axes up to this length are not cut


def of_exchange(observed):
    """`unseen_share`: the share of what a linear model uses that is in blocks which do not reach the embedding; {} if
    there is no such model, or if all embeddings are equal.
    """
    items = observed.valid.trials.items
    if observed.linear is None or observed.siamese is None or not observed.has_embeddings or not has_numbers(items):
        return {}
    count = count_samples(items)
    rows = np.unique(np.linspace(0, count - 1, min(ITEMS, count)).astype(int))
    x = np.asarray(take(items, rows))
    others, blocks = np.roll(x, len(x) // 2, axis=0), blocks_of(x.shape[1:])
    seen = moves(lambda part: embed(observed.siamese.encoder, part), x, others, blocks)
    used = moves(lambda part: observed.linear(flat(part)), x, others, blocks)
    if seen is None or used is None or not used.any():
        return {}
    unseen = seen < limits.UNSEEN
    return {"unseen_share": np.sum(used[unseen] ** 2) / np.sum(used**2)}


def blocks_of(shape, count=BLOCKS):
    """At most `count` blocks that together cover a sample of the `shape`, as tuples of slices. One axis is cut into all
    of them, or the two longest axes into √count parts each. Axes of at most four places are not cut.

    >>> blocks_of((6,), count=3)
    [(slice(0, 2, None),), (slice(2, 4, None),), (slice(4, 6, None),)]
    >>> len(blocks_of((28, 28, 3))), blocks_of((28, 28, 3))[1]
    (16, (slice(0, 7, None), slice(7, 14, None), slice(None, None, None)))
    """
    longest = sorted(range(len(shape)), key=lambda axis: (-shape[axis], axis))
    cut = sorted(axis for axis in longest[:2] if shape[axis] > CHANNELS) or longest[:1]
    parts = count if len(cut) == 1 else int(np.sqrt(count))
    blocks = [()]
    for axis, size in enumerate(shape):
        slices = [slice(None)]
        if axis in cut:
            edges = np.unique(np.linspace(0, size, min(parts, size) + 1).astype(int)).tolist()
            slices = [slice(*pair) for pair in pairwise(edges)]
        blocks = [(*block, one) for block in blocks for one in slices]
    return blocks


def moves(encode, x, others, blocks):
    """How far the mean embedding of `x` `(n, …)` moves if one of the `blocks` comes from `others` `(n, …)`, relative to
    the distance of the embeddings of both: `(blocks,)`; None if these embeddings are equal.

    `encode` is a function from samples to embeddings `(n, dim)`.
    """
    mixed = np.concatenate([x, others, *(exchanged(x, others, block) for block in blocks)])
    embeddings = np.asarray(encode(mixed), float)
    own, theirs, *moved = np.split(embeddings, len(blocks) + 2)
    apart = np.linalg.norm(theirs - own, axis=1).mean()
    return np.array([np.linalg.norm(one - own, axis=1).mean() for one in moved]) / apart if apart else None


def exchanged(x, others, block):
    """`x` `(n, …)` with the `block` of `others`."""
    mixed = x.copy()
    mixed[(slice(None), *block)] = others[(slice(None), *block)]
    return mixed
