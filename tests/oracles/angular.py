"""A slow, obvious loop to compare the angular loss with.

Contract: lists and floats, nothing of the package and no broadcasting; `(values, counted)` by row, the value of the
batch being Σ values / Σ counted. `wrong_angular` is a mistake that is easily made: the tests show that `angular` tells
the two apart.
"""

import math


def unit(row):
    norm = math.sqrt(sum(float(x) ** 2 for x in row))
    return [float(x) / norm if norm else 0.0 for x in row]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def angular(labels, embeddings, angle=40.0, tangent=math.tan):
    square = tangent(math.radians(angle)) ** 2
    units, rows = [unit(row) for row in embeddings], range(len(labels))
    values, counted = [0.0 for _ in rows], [0.0 for _ in rows]
    for a in rows:
        negatives = [n for n in rows if labels[n] != labels[a]]
        for p in rows:
            if p == a or labels[p] != labels[a] or not negatives:
                continue
            middle = [x + y for x, y in zip(units[a], units[p], strict=True)]
            pull = 2 * (1 + square) * dot(units[a], units[p])
            values[a] += math.log(1 + sum(math.exp(4 * square * dot(middle, units[n]) - pull) for n in negatives))
            counted[a] += 1.0
    return values, counted


def wrong_angular(labels, embeddings, angle=40.0):
    """The angle's sine in place of its tangent."""
    return angular(labels, embeddings, angle, tangent=math.sin)
