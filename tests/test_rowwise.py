"""Distances of many pairs of rows by NumPy are those that the backend computes."""

import numpy as np
import pytest

from keras_siamese import _rowwise, distances
from keras_siamese._rowwise import rows_apart

NAMES = ("cosine", "euclidean", "squared_euclidean", "manhattan")


@pytest.fixture
def sides(rng):
    left, right = rng.normal(size=(9, 5)).astype("float32"), rng.normal(size=(7, 5)).astype("float32")
    right[0] = left[0]
    right[1] = left[1] * np.float32(3)
    right[2], left[2] = 0, 1e-8  # vectors without a direction
    return left, right


@pytest.mark.parametrize("name", NAMES)
def test_distances_are_those_of_a_loop_and_of_the_backend(sides, name, monkeypatch):
    a, b = sides
    left, right = (one.ravel() for one in np.indices((len(a), len(b))))
    monkeypatch.setattr(_rowwise, "NUMBERS", 20)  # several blocks, of which the last is shorter
    found = rows_apart(distances.get(name), a, b, left, right)
    assert found.dtype == np.float32 and found[0] == 0
    by_hand = [apart(name, a[i].astype(float), b[j].astype(float)) for i, j in zip(left, right, strict=True)]
    np.testing.assert_allclose(found, by_hand, rtol=2e-6, atol=1e-6)
    by_backend = np.asarray(distances.get(name).rowwise(a[left], b[right]))
    np.testing.assert_allclose(found, by_backend, rtol=2e-6, atol=1e-6)


def apart(name, x, y):
    if name == "cosine":
        long = np.linalg.norm(x) > 1e-6 and np.linalg.norm(y) > 1e-6
        return 1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) if long else 1.0
    if name == "manhattan":
        return sum(abs(p - q) for p, q in zip(x, y, strict=True))
    square = sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
    return square if name == "squared_euclidean" else square**0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e19])
def test_what_is_not_finite_is_not_finite_as_on_the_backend(sides, name, value):
    a, b = sides
    a[3] = value
    left, right = np.array([3, 3, 4]), np.array([3, 4, 5])
    by_backend = np.asarray(distances.get(name).rowwise(a[left], b[right]))
    with np.errstate(all="raise", under="ignore"):
        found = rows_apart(distances.get(name), a, b, left, right)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(by_backend))
    np.testing.assert_allclose(found[2], by_backend[2], rtol=2e-6)


def test_other_distances_and_other_precisions_are_left_to_the_backend(sides):
    a, b = sides
    rows = np.arange(5)
    assert rows_apart(distances.get("chebyshev"), a, b, rows, rows) is None
    assert rows_apart(distances.get("euclidean"), a.astype("float64"), b, rows, rows) is None

    class Doubled(distances.EuclideanDistance):
        def between(self, a, b):
            return 2 * super().between(a, b)

    assert rows_apart(Doubled(), a, b, rows, rows) is None
