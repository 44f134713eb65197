"""Embeddings to compare, and each distance beside its oracle with the same weights.

a, b = two_sets(rng)                           # (5, 4) and (7, 4)
distance, oracle = build("mahalanobis", rng)   # distance.rowwise(a, b), oracle(a[0], b[0])
"""

from keras import ops

from keras_siamese import distances
from tests.oracles import rows as oracles

PLAIN = sorted(oracles.DISTANCES)


LEARNED = ["mahalanobis", "weighted_manhattan"]


def array(tensor):
    return ops.convert_to_numpy(tensor)


def two_sets(rng, columns=7):
    """Embeddings (5, 4) and (7, 4) of unlike scale and centre, so that swapped arguments or axes show.

    All tests keep to these shapes: JAX compiles each operation anew for another.
    """
    rows, dim = 5, 4
    a = rng.normal(0.3, 1.0, (rows, dim)).astype("float32")
    b = rng.normal(-0.2, 1.7, (columns, dim)).astype("float32")
    return a, b


def build(name, rng, dim=4):
    """The named distance, a learned one with random weights; and its oracle with the same weights."""
    distance = distances.get(name)
    if name not in LEARNED:
        return distance, oracles.DISTANCES[name]
    if name == "mahalanobis":
        distance = distances.MahalanobisDistance(rank=dim - 1)
    distance.build((None, dim))
    (weight,) = [rng.uniform(0.2, 2.0, value.shape) for value in distance.get_weights()]
    distance.set_weights([weight])
    oracle = getattr(oracles, name)
    return distance, lambda a, b: oracle(a, b, weight.astype("float32"))
