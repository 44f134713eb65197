"""Embeddings to retrieve among, and the comparison of `evaluate_retrieval` with the loops of `oracles.retrieval`."""

import numpy as np
import pytest

from keras_siamese.verification.retrieval import evaluate_retrieval
from tests.oracles.retrieval import DISTANCES, figures, ranked_hits

with_and_without_gallery = pytest.mark.parametrize("gallery", [False, True], ids=["own", "gallery"])
every_distance = pytest.mark.parametrize(
    "distance", ["cosine", "euclidean", pytest.param("manhattan", marks=pytest.mark.each_backend)]
)


def assert_same(found, expected):
    assert found.recall == pytest.approx(expected["recall"], abs=1e-12)
    assert found.r_precision == pytest.approx(expected["r_precision"], abs=1e-12)
    assert found.map_at_r == pytest.approx(expected["map_at_r"], abs=1e-12)
    np.testing.assert_allclose(found.cmc, expected["cmc"], rtol=0, atol=1e-12)
    assert found.queries == expected["queries"]


def compare(embeddings, labels, gallery=None, gallery_labels=None, *, distance, ks=(1, 2, 5), max_rank=6, loop=None):
    loop = loop or DISTANCES[distance]
    expected = figures(ranked_hits(embeddings, labels, gallery, gallery_labels, loop), ks, max_rank)
    options = {"gallery": gallery, "gallery_labels": gallery_labels, "distance": distance}
    found = evaluate_retrieval(embeddings, labels, k=ks, max_rank=max_rank, **options)
    assert_same(found, expected)
    assert found.without_mate == len(labels) - found.queries
    return found


def random_embeddings(seed, gallery):
    """Overlapping identities of 1 to 12 embeddings, all off centre; probes of which some have no mate."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(9), [1, 1, 2, 3, 4, 5, 7, 9, 12]))
    centres = rng.normal(size=(12, 5)) + 0.7
    embeddings = (centres[labels] + rng.normal(size=(len(labels), 5))).astype(np.float32)
    if not gallery:
        return embeddings, labels, None, None
    probe_labels = rng.integers(0, 12, 17)
    probe_labels[:2] = 11, 3
    probes = (centres[probe_labels] + rng.normal(size=(17, 5))).astype(np.float32)
    return probes, probe_labels, embeddings, labels


def grid_embeddings(seed, gallery, distance):
    """Few distinct points whose distances are exact: equal distances and identical embeddings everywhere."""
    rng = np.random.default_rng(seed)

    def draw(rows):
        # Signs have norms 1 and 2 in one and four dimensions, so that their directions are exact, too.
        return rng.choice([-1.0, 1.0], (rows, 4)) if distance == "cosine" else rng.integers(-1, 3, (rows, 3)) * 1.0

    labels = rng.integers(0, 6, 35)
    labels[:3] = 7, 1, 1
    if not gallery:
        return draw(35), labels, None, None
    probe_labels = rng.integers(0, 9, 13)
    probe_labels[0] = 1
    return draw(13), probe_labels, draw(35), labels
