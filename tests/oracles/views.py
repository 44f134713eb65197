"""Slow, obvious loops to compare the losses on two views with.

Contract: lists and floats, nothing of the package and no broadcasting; `(values, counted)` by row, the value of the
batch being Σ values / Σ counted. A `wrong_…` is a mistake that is easily made: the tests show that the oracle beside it
tells the two apart.
"""

import math


def pairs(labels):
    """Rows 1 and 2, 3 and 4, … of each identity, in the order of the batch."""
    found = []
    for identity in sorted(set(labels)):
        rows = [i for i, label in enumerate(labels) if label == identity]
        found += [(rows[t], rows[t + 1]) for t in range(0, len(rows) - 1, 2)]
    return found


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def at_anchors(labels, costs):
    """The costs of the pairs, in the order of `pairs`, at the rows of their anchors."""
    values, counted = [0.0] * len(labels), [0.0] * len(labels)
    for (anchor, _), cost in zip(pairs(labels), costs, strict=True):
        values[anchor], counted[anchor] = cost, 1.0
    return values, counted


def ranking(labels, embeddings, scale=20.0, own_identity=False):
    """`own_identity`, the mistake: positives of the anchor's other pairs are negatives."""
    costs = []
    for anchor, positive in pairs(labels):
        among = [p for _, p in pairs(labels) if p == positive or own_identity or labels[p] != labels[anchor]]
        logits = [scale * cosine(embeddings[anchor], embeddings[p]) for p in among]
        top = max(logits)
        log_sum = top + math.log(sum(math.exp(x - top) for x in logits))
        costs.append(log_sum - scale * cosine(embeddings[anchor], embeddings[positive]))
    return at_anchors(labels, costs)


def wrong_ranking(labels, embeddings, scale=20.0):
    return ranking(labels, embeddings, scale, own_identity=True)


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def siglip(labels, embeddings, scale=10.0, bias=-10.0, own_identity=False):
    """`own_identity` as in `ranking`."""
    costs = []
    for anchor, positive in pairs(labels):
        logits = {p: scale * cosine(embeddings[anchor], embeddings[p]) + bias for _, p in pairs(labels)}
        among = [p for p in logits if p == positive or own_identity or labels[p] != labels[anchor]]
        costs.append(sum(softplus(-logits[p] if p == positive else logits[p]) for p in among))
    return at_anchors(labels, costs)


def wrong_siglip(labels, embeddings, scale=10.0, bias=-10.0):
    return siglip(labels, embeddings, scale, bias, own_identity=True)


def features(labels, embeddings, side):
    """Each feature's values over the pairs, of view `side`, 0 or 1."""
    return [[float(embeddings[pair[side]][d]) for pair in pairs(labels)] for d in range(len(embeddings[0]))]


def covariance(x, y, less):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / (len(x) - less)


def vicreg(labels, embeddings, invariance=25.0, variance=25.0, covariances=1.0, eps=1e-4, less=1):
    dim, shared = len(embeddings[0]), 0.0
    if len(pairs(labels)) > 1:
        for side in (0, 1):
            view = features(labels, embeddings, side)
            for d in range(dim):
                flat = max(0.0, 1.0 - math.sqrt(covariance(view[d], view[d], less) + eps))
                shared += variance * flat / 2 / dim
                shared += covariances * sum(covariance(view[d], view[e], less) ** 2 for e in range(dim) if e != d) / dim
    costs = []
    for anchor, positive in pairs(labels):
        apart = sum((a - b) ** 2 for a, b in zip(embeddings[anchor], embeddings[positive], strict=True)) / dim
        costs.append(invariance * apart + shared)
    return at_anchors(labels, costs)


def wrong_vicreg(labels, embeddings, **options):
    """Variances over the number of rows."""
    return vicreg(labels, embeddings, less=0, **options)


def barlow_twins(labels, embeddings, redundancy=0.005, one_view=False):
    """`one_view`, the mistake: a view's correlations with itself."""
    first, second = features(labels, embeddings, 0), features(labels, embeddings, 0 if one_view else 1)
    cost = 0.0
    for d, x in enumerate(first):
        for e, y in enumerate(second):
            if len(x) < 2:
                continue
            spread = math.sqrt((covariance(x, x, 0) + 1e-5) * (covariance(y, y, 0) + 1e-5))
            correlation = covariance(x, y, 0) / spread
            cost += (1.0 - correlation) ** 2 if d == e else redundancy * correlation**2
    return at_anchors(labels, [cost] * len(pairs(labels)))


def wrong_barlow_twins(labels, embeddings, redundancy=0.005):
    return barlow_twins(labels, embeddings, redundancy, one_view=True)
