"""Slow, obvious loops to compare the N-pairs losses with: rows' values, of a matrix of similarities as lists.

Contract: nothing of the package and no broadcasting. A `wrong_…` is a mistake that is easily made: the tests show that
the oracle beside it tells the two apart.
"""

import math


def towards(similarities, weights):
    """Cross-entropy of each row's softmax to its weights over their sum; 0 where there are none."""
    values = []
    for row, row_weights in zip(similarities, weights, strict=True):
        top = max(row)
        log_sum = top + math.log(sum(math.exp(s - top) for s in row))
        total = sum(row_weights)
        values.append(sum(w / total * (log_sum - s) for s, w in zip(row, row_weights, strict=True)) if total else 0.0)
    return values


def npairs(labels, similarities):
    return towards(similarities, [[float(a == b) for b in labels] for a in labels])


def wrong_npairs(labels, similarities):
    """A row is no positive of its own."""
    rows = range(len(labels))
    return towards(similarities, [[float(labels[i] == labels[j] and i != j) for j in rows] for i in rows])


def multilabel(classes, similarities):
    shared = [[float(sum(x * y for x, y in zip(a, b, strict=True))) for b in classes] for a in classes]
    return towards(similarities, shared)


def wrong_multilabel(classes, similarities):
    """Whether there is a shared class, and not how many."""
    shared = [[float(any(x * y for x, y in zip(a, b, strict=True))) for b in classes] for a in classes]
    return towards(similarities, shared)
