"""Retrieval by sorted lists of (distance, row), one query at a time.

Lists in, a dict of figures out.

    figures(ranked_hits(embeddings, labels, None, None, DISTANCES["cosine"]), ks=(1, 5), max_rank=6)
"""

import numpy as np


def euclidean(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def manhattan(a, b):
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5)


DISTANCES = {"cosine": cosine, "euclidean": euclidean, "manhattan": manhattan}


def ranked_hits(embeddings, labels, gallery, gallery_labels, distance, exclude_self=True):
    """For each query with a mate: whether each thing that it is compared with is a mate, nearest first."""
    own = gallery is None
    if own:
        gallery, gallery_labels = embeddings, labels
    gallery, gallery_labels = np.asarray(gallery).tolist(), list(gallery_labels)
    every = []
    for i, query in enumerate(np.asarray(embeddings).tolist()):
        others = [j for j in range(len(gallery)) if not (own and exclude_self and i == j)]
        ranking = sorted((distance(query, gallery[j]), j) for j in others)
        hits = [gallery_labels[j] == labels[i] for _, j in ranking]
        if any(hits):
            every.append(hits)
    return every


def figures(every, ks, max_rank):
    """All figures of the hits of each query."""
    count = len(every)
    precisions, averages = [], []
    for hits in every:
        mates = sum(hits)
        precisions.append(sum(hits[:mates]) / mates)
        averages.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(mates) if hits[i]) / mates)
    return {
        "recall": {k: sum(any(hits[:k]) for hits in every) / count for k in ks},
        "r_precision": sum(precisions) / count,
        "map_at_r": sum(averages) / count,
        "cmc": [sum(any(hits[:rank]) for hits in every) / count for rank in range(1, max_rank + 1)],
        "queries": count,
    }
