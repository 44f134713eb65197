"""Slow, obvious loops over plain numbers, to compare distances, pair losses and triplet losses with.

Contract: no NumPy broadcasting, nothing of the package; vectors are sequences of floats, everything is float64. Each
formula is the definition in words, not the package's way to it. A `wrong_…` is the mistake that is easily made: the
tests show that the oracle beside it tells the two apart.
"""

import math

# Distances: two vectors in, a number out.


def norm(a):
    return math.sqrt(sum(float(x) * float(x) for x in a))


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def gaps(a, b):
    return [abs(float(x) - float(y)) for x, y in zip(a, b, strict=True)]


def variance(a):
    mean = sum(float(x) for x in a) / len(a)
    return sum((float(x) - mean) ** 2 for x in a) / len(a)


def euclidean(a, b):
    return math.dist([float(x) for x in a], [float(y) for y in b])


def squared_euclidean(a, b):
    return sum(gap * gap for gap in gaps(a, b))


def manhattan(a, b):
    return sum(gaps(a, b))


def chebyshev(a, b):
    return max(gaps(a, b))


def minkowski(a, b, p=2.0):
    return sum(gap**p for gap in gaps(a, b)) ** (1.0 / p)


def cosine(a, b):
    return 1.0 - dot(a, b) / (norm(a) * norm(b))


def angular(a, b):
    cos = dot(a, b) / (norm(a) * norm(b))
    return math.acos(min(1.0, max(-1.0, cos))) / math.pi


def inner_product(a, b):
    return -dot(a, b)


def snr(anchor, other):
    noise = [float(x) - float(y) for x, y in zip(anchor, other, strict=True)]
    return variance(noise) / variance(anchor)


def wrong_snr(anchor, other):
    return snr(other, anchor)


def mahalanobis(a, b, projection):
    """`projection` is a list of dim rows of rank numbers each."""
    columns = range(len(projection[0]))
    projected = [
        sum((float(x) - float(y)) * float(row[k]) for x, y, row in zip(a, b, projection, strict=True)) for k in columns
    ]
    return norm(projected)


def weighted_manhattan(a, b, weight):
    return sum(gap * float(w) for gap, w in zip(gaps(a, b), weight, strict=True))


DISTANCES = {
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
    "manhattan": manhattan,
    "chebyshev": chebyshev,
    "minkowski": minkowski,
    "cosine": cosine,
    "angular": angular,
    "inner_product": inner_product,
    "snr": snr,
}


def rowwise(distance, a, b):
    return [distance(x, y) for x, y in zip(a, b, strict=True)]


def pairwise(distance, a, b):
    return [[distance(x, y) for y in b] for x in a]


# Losses: one pair or triplet in, its loss out.


def contrastive(same, d, margin=1.0, positive_margin=0.0, squared=True):
    """A genuine pair pays for being farther than the positive margin, an impostor for being closer than the margin."""
    excess = max(d - positive_margin, 0.0) if same else max(margin - d, 0.0)
    return excess**2 if squared else excess


def wrong_contrastive(same, d, **options):
    return contrastive(not same, d, **options)


def binary_crossentropy(same, p):
    """−log of the probability that was given to what is the case."""
    return -math.log(p if same else 1.0 - p)


def weighted_binary_crossentropy(same, p, weight):
    """Mean over the batch with the weights `weight(same)`, a number for each class."""
    total = sum(weight(s) * binary_crossentropy(s, q) for s, q in zip(same, p, strict=True))
    return total / sum(weight(s) for s in same)


def wrong_weighted_binary_crossentropy(same, p, weight):
    """Divided by the number of pairs, as Keras divides, in place of the sum of their weights."""
    total = sum(weight(s) * binary_crossentropy(s, q) for s, q in zip(same, p, strict=True))
    return total / len(same)


def sigmoid(logit):
    return 1.0 / (1.0 + math.exp(-logit))


def triplet(positive, negative, margin=1.0, soft=False):
    """The negative has to be farther than the positive, by the margin."""
    if soft:
        return math.log(1.0 + math.exp(positive - negative))
    return max(positive - negative + margin, 0.0)


def wrong_triplet(positive, negative, **options):
    return triplet(negative, positive, **options)


def mean(values):
    values = list(values)
    return sum(values) / len(values)
