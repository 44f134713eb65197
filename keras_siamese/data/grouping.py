"""Which identities share a batch: any, those of few super-classes, or those whose embeddings are near each other.

Contract: identities are whole numbers; returns the identities of each batch `(batches, per_batch)`, distinct within a
batch, which follow from the arguments and the generator alone. `balanced` uses this module.

    draw_identities(rng, 100, batches=30, per_batch=8)
    draw_within(rng, [np.arange(40), np.arange(40, 100)], batches=30, per_batch=8, groups_per_batch=2)
    draw_near(rng, np.arange(100), nearest_identities(embeddings, codes, ranks=(0, 10)), batches=30, per_batch=8)
"""

import numpy as np

from keras_siamese.neighbours import nearest_blocks


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


def draw_within(rng, groups, batches, per_batch, groups_per_batch, weights=None):
    """Draws the identities of each batch from `groups_per_batch` groups, as many from each; those of a group adjoin.

    Args:
        groups: a list of arrays, the identities of each group, at least `per_batch / groups_per_batch` of them.
        batches, per_batch: as in `draw_identities`; a group is in a batch at most once.
        groups_per_batch: a divisor of `per_batch`.
        weights: None draws groups in proportion to the number of their identities, which take turns. An array draws
            groups and, within these, identities by their weights, of which `weights[i]` is that of identity i.
    """
    each = per_batch // groups_per_batch
    size = [len(group) if weights is None else weights[group].sum() for group in groups]
    visited = draw_identities(rng, len(groups), batches, groups_per_batch, np.array(size, float))
    chosen = np.empty((batches, groups_per_batch, each), np.intp)
    for number, group in enumerate(groups):
        at = visited == number
        own = None if weights is None else weights[group]
        chosen[at] = group[draw_identities(rng, len(group), int(at.sum()), each, own)]
    return chosen.reshape(batches, per_batch)


def nearest_identities(embeddings, codes, ranks):
    """For each identity those whose mean embeddings are nearest to its own, int32 `(K, k)`.

    `embeddings` `(n, dim)` are finite; `codes` `(n,)` are the identities, integers 0 … K−1, each present, K ≥ 2. The
    nearest of the others has rank 0, and `ranks` (lo, hi) keeps lo … hi − 1, as many as there are.
    """
    order, size = np.argsort(codes, kind="stable"), np.bincount(codes)
    centred = embeddings[order].astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    means = np.add.reduceat(centred, np.cumsum(size) - size, axis=0) / size[:, None]
    means = means.astype(np.float32) + 0.0  # no negative zeros
    depth = min(ranks[1], len(size) - 1)
    near = np.empty((len(size), depth), np.int32)
    for block, rows in nearest_blocks(means, means, depth, own=True):
        near[block] = rows
    return near[:, ranks[0] :]


def draw_near(rng, members, near, batches, per_batch):
    """Draws the identities of each batch so that they are near each other; they are drawn about equally often.

    A batch begins with a random identity. Some of its `near` ones follow in random order, if they have not been drawn
    in this pass over all identities. If the batch has room left, the next random identity and its near ones follow, and
    so on. The numbers of times that two identities are drawn differ by at most one.

    Args:
        members: the identities to draw, `(m,)`, distinct, at least `per_batch`.
        near: `(K, k)`, for each identity those that count as near.
        batches, per_batch: as in `draw_identities`.
    """
    chosen = np.empty((batches, per_batch), np.intp)
    left = np.zeros(len(near), bool)  # what this pass has still to draw
    order, at = np.empty(0, np.intp), 0
    for batch in chosen:
        size, earlier = 0, ()
        while size < per_batch:
            while at < len(order) and not left[order[at]]:
                at += 1
            if at == len(order):
                # A new pass. What the last one put into this batch is not drawn again until the batch is full.
                earlier = batch[:size].copy()
                others = np.setdiff1d(members, earlier, assume_unique=True)
                order, at = np.concatenate([rng.permutation(others), rng.permutation(earlier)]), 0
                left[others] = True
            start = order[at]
            left[start] = False
            around = rng.permutation(near[start][left[near[start]]])[: per_batch - size - 1]
            left[around] = False
            batch[size : size + 1 + len(around)] = start, *around
            size += 1 + len(around)
        left[list(earlier)] = True
    return chosen
