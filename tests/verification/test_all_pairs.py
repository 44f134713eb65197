"""All pairs of a set of embeddings: against loops over the pairs, their bounds, and what is refused."""

import math
import threading

import keras
import numpy as np
import pytest

from keras_siamese import distances
from keras_siamese.verification import curves
from keras_siamese.verification.all_pairs import compare_embeddings


def state(histogram):
    """What all figures but d′ are computed from, and one threshold in the tail."""
    return [array.tolist() for array in histogram.operating_points()], histogram.threshold_at_far(0.01)


def identities(rng, sizes=(1, 17, 2, 1, 9, 5, 12, 3, 10), dim=6):
    labels = rng.permutation(np.repeat([f"p{place}" for place in range(len(sizes))], sizes))
    centres = {name: rng.normal(size=dim) for name in np.unique(labels)}
    return np.array([centres[name] for name in labels]) + 0.5 * rng.normal(size=(len(labels), dim)), labels


def cosine(a, b):
    return 1 - sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))


LOOPS = {
    "cosine": cosine,
    "euclidean": lambda a, b: math.sqrt(sum((a - b) ** 2)),
    "squared_euclidean": lambda a, b: sum((a - b) ** 2),
    "manhattan": lambda a, b: sum(abs(a - b)),
    "angular": lambda a, b: math.acos(1 - cosine(a, b)) / math.pi,
}


def all_pairs(embeddings, labels, distance):
    places = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    same = np.array([int(labels[i] == labels[j]) for i, j in places])
    return same, np.array([-LOOPS[distance](embeddings[i], embeddings[j]) for i, j in places])


@pytest.mark.parametrize(
    ("distance", "block"),
    [
        ("cosine", None),
        ("cosine", 7),
        ("euclidean", 20),
        ("squared_euclidean", 59),
        pytest.param("manhattan", 20, marks=pytest.mark.each_backend),
        ("angular", 60),
        *(
            pytest.param(distance, block, marks=pytest.mark.deep)
            for distance in ("cosine", "euclidean", "squared_euclidean")
            for block in (1, 19, 500)
        ),
        pytest.param("angular", 7, marks=pytest.mark.deep),
    ],
)
def test_all_pairs_are_those_of_a_loop(rng, distance, block):
    embeddings, labels = identities(rng)
    same, scores = all_pairs(embeddings, labels, distance)
    histogram = compare_embeddings(embeddings.astype(np.float32), labels, distance, far=1, block=block)
    assert (histogram.genuines, histogram.impostors) == (same.sum(), len(same) - same.sum())
    points = histogram.operating_points()
    for counts, exact in ((points.impostors, scores[same == 0]), (points.genuines, scores[same == 1])):
        found = np.repeat(points.thresholds[1:], np.diff(counts))
        np.testing.assert_allclose(found, np.sort(exact)[::-1], rtol=2e-5, atol=2e-5)
    assert histogram.d_prime() == pytest.approx(curves.d_prime(same, scores), rel=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared_euclidean"])
def test_float64_embeddings_keep_their_digits(rng, distance):
    embeddings, labels = identities(rng)
    histogram = compare_embeddings(100 + embeddings, labels, distance, far=1, block=13)
    same, scores = all_pairs(100 + embeddings, labels, distance)
    np.testing.assert_allclose(histogram.roc()[2], curves.roc(same, scores)[2], rtol=1e-8, atol=1e-12)
    for found, exact in zip(histogram.roc()[:2], curves.roc(same, scores)[:2], strict=True):
        np.testing.assert_array_equal(found, exact)


def test_the_order_of_the_embeddings_changes_nothing(rng):
    # Whole numbers: their squared distances are exact, so that any block of any order gives the same scores.
    embeddings, labels = np.round(3 * rng.normal(size=(90, 4))).astype(np.float32), rng.integers(0, 12, 90)
    embeddings[:2] = [[8, 8, 8, 8], [-8, -8, -8, -8]]
    embeddings = np.concatenate((embeddings, -embeddings))  # mean 0
    labels = np.concatenate((labels, labels))
    expected = state(compare_embeddings(embeddings, labels, "squared_euclidean", block=64))
    order = rng.permutation(len(labels))
    assert state(compare_embeddings(embeddings[order], labels[order], "squared_euclidean", block=50)) == expected


def test_equal_embeddings_are_at_distance_0(rng):
    embeddings = np.repeat(rng.normal(size=(40, 128)).astype(np.float32) + 30, 2, axis=0)
    for distance in ("euclidean", "squared_euclidean"):
        histogram = compare_embeddings(embeddings, np.arange(80) // 2, distance)
        assert histogram.tar_at_far(0) == 1
        assert histogram.threshold_at_far(1e-3) == 0


def test_a_vector_without_direction_is_at_cosine_distance_1():
    embeddings = np.array([[1, 0], [1, 0], [0, 0], [-1, 0]], np.float32)
    points = compare_embeddings(embeddings, [0, 0, 1, 2]).operating_points()
    np.testing.assert_array_equal(points.thresholds[1:], [0, -1, -2])
    np.testing.assert_array_equal(points.impostors, [0, 0, 3, 5])


def test_bounds_and_tail(rng):
    embeddings, labels = identities(rng)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for distance, high in (("cosine", 2), ("euclidean", 2), ("squared_euclidean", 4)):
        histogram = compare_embeddings(unit, labels, distance)
        assert (histogram.low, histogram.high) == (-high, 0)
    radius = np.linalg.norm(embeddings - embeddings.mean(axis=0), axis=1).max()
    assert compare_embeddings(embeddings + 50, labels, "euclidean").low == pytest.approx(-2 * radius)
    impostors = histogram.impostors
    assert compare_embeddings(unit, labels).tail == 1000
    assert compare_embeddings(unit, labels, far=0.08).tail == math.ceil(10 * 0.08 * impostors)
    assert compare_embeddings(unit, labels, far=1).tail == impostors


def test_an_instance_and_a_function_as_distance(rng):
    embeddings, labels = identities(rng)
    expected = compare_embeddings(embeddings, labels, "euclidean")
    assert state(compare_embeddings(embeddings, labels, distances.EuclideanDistance())) == state(expected)
    found = compare_embeddings(embeddings, labels, lambda a, b: keras.ops.sqrt(keras.ops.sum((a - b) ** 2, axis=1)))
    assert found.eer() == pytest.approx(expected.eer(), abs=0.01)
    assert found.d_prime() == pytest.approx(expected.d_prime(), rel=1e-5)


def test_a_function_is_called_in_the_thread_of_the_caller(rng):
    """Keras has settings of a thread, such as its device."""
    embeddings, labels = identities(rng)
    callers = set()

    def distance(a, b):
        callers.add(threading.get_ident())
        return keras.ops.sum(keras.ops.abs(a - b), axis=1)

    compare_embeddings(embeddings, labels, distance, block=16)
    assert callers == {threading.get_ident()}


def test_constant_distances_of_a_function():
    found = compare_embeddings(np.eye(4, dtype=np.float32), [0, 0, 1, 1], lambda a, b: 0 * a[:, 0] + 3)
    assert (found.eer(), found.low, found.high) == (0.5, -3.5, -2.5)


def test_progress(rng, capsys):
    embeddings, labels = identities(rng)
    compare_embeddings(embeddings, labels, "manhattan", block=20, progress=True)
    assert "12/12" in capsys.readouterr().out
    compare_embeddings(embeddings, labels, block=20)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "embeddings, labels, options, message",
    [
        (np.ones((3, 2)), [0, 0, 0], {}, "`labels` must name at least two .* 3 genuine and 0 impostor pairs"),
        (np.ones((3, 2)), [0, 1, 2], {}, "0 genuine and 3 impostor pairs"),
        (np.ones((3, 2)), [0, 1], {}, "`labels` must have one entry for each of the 3"),
        (np.ones(3), [0, 0, 1], {}, r"`embeddings` must have shape \(n, dim\); got shape \(3,\)"),
        (np.array([[0, 1], [1, np.nan], [1, 1]]), [0, 0, 1], {}, "`embeddings` must be finite; 1 of its 6"),
        (np.full((3, 2), 1e200), [0, 0, 1], {}, "`embeddings` must have norms"),
        (np.ones((3, 2)), [0, 0, 1], {"distance": "cosinus"}, "`distance` must be one of"),
        (np.ones((3, 2)), [0, 0, 1], {"far": 0}, "`far` must be in"),
        (np.ones((3, 2)), [0, 0, 1], {"bins": 1}, "`bins` must be at least 2"),
        (np.ones((3, 2)), [0, 0, 1], {"block": 0}, "`block` must be at least 1"),
        (np.random.default_rng(0).normal(size=(3, 4)), [0, 0, 1], {"distance": "snr"}, "`distance` must be symmetric"),
    ],
)
def test_embeddings_refused(embeddings, labels, options, message):
    with pytest.raises(ValueError, match=message):
        compare_embeddings(embeddings, labels, **options)
