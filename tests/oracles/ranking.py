"""Slow, obvious loops to compare the losses on rankings with: average precision by histogram and by soft ranks, and the
overlap of histograms.

Contract: lists and floats, nothing of the package and no broadcasting. `s[i][j]` are cosines; each oracle gives
`(values, counted)`, both by row: the value of the batch is Σ values / Σ counted. A `wrong_…` is a mistake that is
easily made: the tests show that the oracle beside it tells the two apart.
"""

import math


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def cosines(embeddings):
    """Cosines of every two rows; 0 to a vector without direction."""
    rows = [[float(x) for x in row] for row in embeddings]
    return [[cosine(a, b) for b in rows] for a in rows]


def mean(values, counted):
    return sum(values) / (sum(counted) or 1.0)


def by_row(values, counted):
    """Each row's share, whose mean over the batch is the batch's value."""
    return [len(values) * value / (sum(counted) or 1.0) for value in values]


def others(labels, i, same):
    return [j for j in range(len(labels)) if j != i and (labels[j] == labels[i]) == same]


def pulse(x, node):
    return max(0.0, 1.0 - abs(x - node))


def fast_ap(s, labels, bins=10, cumulate_positives=True):
    values, counted = [], []
    for i in range(len(labels)):
        positives, negatives = others(labels, i, True), others(labels, i, False)
        counted.append(1.0 if positives else 0.0)
        average, hits_within, all_within = 0.0, 0.0, 0.0
        for node in range(bins + 1):
            hits = sum(pulse((2 - 2 * s[i][j]) * bins / 4, node) for j in positives)
            misses = sum(pulse((2 - 2 * s[i][j]) * bins / 4, node) for j in negatives)
            hits_within, all_within = hits_within + hits, all_within + hits + misses
            if all_within > 0:
                average += hits * (hits_within if cumulate_positives else hits) / all_within
        values.append(1.0 - average / len(positives) if positives else 0.0)
    return values, counted


def wrong_fast_ap(s, labels, bins=10):
    """The precision of a node's own bin over everything up to it."""
    return fast_ap(s, labels, bins, cumulate_positives=False)


def logistic(x):
    return 1.0 / (1.0 + math.exp(-x)) if x > 0 else math.exp(x) / (1.0 + math.exp(x))


def smooth_ap(s, labels, temperature=0.01, itself=True):
    values, counted = [], []
    for i in range(len(labels)):
        inside = others(labels, i, True)
        counted.append(1.0 if inside else 0.0)
        if not inside:
            values.append(0.0)
            continue
        everyone = [k for k in range(len(labels)) if k != i or itself]
        inside = [k for k in everyone if labels[k] == labels[i]]
        precision = 0.0
        for j in inside:
            rank = 1 + sum(logistic((s[i][k] - s[i][j]) / temperature) for k in everyone if k != j)
            rank_inside = 1 + sum(logistic((s[i][k] - s[i][j]) / temperature) for k in inside if k != j)
            precision += rank_inside / rank
        values.append(1.0 - precision / len(inside))
    return values, counted


def wrong_smooth_ap(s, labels, temperature=0.01):
    """The anchor left out of its own ranking."""
    return smooth_ap(s, labels, temperature, itself=False)


def histogram(s, labels, bins=100, beyond=False):
    """`beyond`, the mistake: the chance that a positive pair is above a negative one."""
    rows = range(len(labels))
    pairs = [(i, j) for i in rows for j in others(labels, i, True)]
    below, total = [], 0.0
    for node in range(bins + 1):
        total += sum(pulse((s[i][j] + 1) * bins / 2, node) for i, j in pairs)
        below.append(total / (len(pairs) or 1))
    if beyond:
        below = [1.0 - chance for chance in below]
    values, counted = [], []
    for i in rows:
        negatives = others(labels, i, False)
        counted.append(float(len(negatives)))
        values.append(sum(pulse((s[i][j] + 1) * bins / 2, n) * below[n] for j in negatives for n in range(bins + 1)))
    return values, counted


def wrong_histogram(s, labels, bins=100):
    return histogram(s, labels, bins, beyond=True)
