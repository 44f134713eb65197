"""Slow, obvious loops to compare the proxy losses and the layers in front of them with.

Contract: no NumPy broadcasting, nothing of the package; cosines are sequences of floats, everything is float64. A
`wrong_…` is the mistake that is easily made: the tests show that the oracle beside it tells the two apart.
"""

import math


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def crossentropy(logits, own):
    """−log of the softmax of the class `own`."""
    top = max(logits)
    return top + math.log(sum(math.exp(logit - top) for logit in logits)) - logits[own]


def arcface(row, own, margin=0.5, scale=64.0):
    """The angle to the own class is widened by the margin; where that would pass π, a line goes on falling."""
    angle = math.acos(max(-1.0, min(1.0, row[own])))
    line = row[own] - margin * math.sin(margin)
    target = math.cos(angle + margin) if angle + margin <= math.pi else line
    return crossentropy([scale * (target if j == own else c) for j, c in enumerate(row)], own)


def wrong_arcface(row, own, margin=0.5, scale=64.0):
    """The margin taken off the cosine in place of the angle: CosFace."""
    return crossentropy([scale * (c - margin if j == own else c) for j, c in enumerate(row)], own)


def sphereface(row, own, margin=4, scale=1.0):
    """The angle to the own class times the margin, each further half-turn put below the one before."""
    angle = margin * math.acos(max(-1.0, min(1.0, row[own])))
    half_turns = min(math.floor(angle / math.pi), margin - 1)
    target = (-1) ** half_turns * math.cos(angle) - 2 * half_turns
    return crossentropy([scale * (target if j == own else c) for j, c in enumerate(row)], own)


def proxy_anchor(rows, classes, margin=0.1, scale=32.0):
    """Each row's part of the loss: at each proxy, what its exponential is of the logarithm's sum."""
    proxies = range(len(rows[0]))
    present = set(classes)
    parts = [0.0] * len(rows)
    for p in proxies:
        positives = [i for i, y in enumerate(classes) if y == p]
        negatives = [i for i, y in enumerate(classes) if y != p]
        pulls = {i: math.exp(-scale * (rows[i][p] - margin)) for i in positives}
        pushes = {i: math.exp(scale * (rows[i][p] + margin)) for i in negatives}
        for weights, divisor in ((pulls, len(present)), (pushes, len(rows[0]))):
            total = sum(weights.values())
            for i, weight in weights.items():
                parts[i] += weight / total * math.log1p(total) / divisor
    return [len(rows) * part for part in parts]


def wrong_proxy_anchor(rows, classes, margin=0.1, scale=32.0):
    """The positives averaged over all proxies, also those without a row."""
    parts = proxy_anchor(rows, classes, margin, scale)
    none = proxy_anchor(rows, [-1] * len(rows), margin, scale)
    ratio = len(set(classes)) / len(rows[0])
    return [ratio * part + (1 - ratio) * other for part, other in zip(parts, none, strict=True)]


def generalized_mean(values, p, eps=1e-6):
    """The p-th root of the mean p-th power of the values, none of them below ε."""
    held = [max(float(value), eps) for value in values]
    return (sum(value**p for value in held) / len(held)) ** (1.0 / p)


def wrong_generalized_mean(values, p, eps=1e-6):
    """The root of the sum."""
    return sum(max(float(value), eps) ** p for value in values) ** (1.0 / p)
