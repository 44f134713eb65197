"""Distances at their limits: half precision, float64, vectors without a direction, and the bounds on unit vectors."""

import math

import hypothesis
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import distances
from tests.oracles import rows as oracles
from tests.support.distances import LEARNED, PLAIN, array, build, two_sets
from tests.support.gradients import gradient, numerical_gradient

ZERO, TINY, SHORT, LONG = np.zeros(4), np.full(4, 1e-20), np.full(4, 1e-4), np.array([3.0, -1.0, 0.5, 2.0])


@pytest.mark.each_backend
def test_rounding_makes_no_distance_negative(rng):
    """‖a‖² + ‖b‖² − 2a·b of equal vectors in two sets is a rounding error, of either sign."""
    a = rng.normal(size=(60, 16)).astype("float32")
    assert np.min([oracles.norm(x) ** 2 + oracles.norm(x) ** 2 - 2 * oracles.dot(x, x) for x in a]) < 0
    assert array(distances.get("squared_euclidean").pairwise(a, a.copy())).min() == 0.0


DEGENERATE = [(a, b) for a in (ZERO, TINY, SHORT, LONG) for b in (ZERO, TINY, -TINY, -SHORT, -LONG)]


@pytest.mark.each_backend
@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_degenerate_vectors_stay_finite(name, rng):
    distance, _ = build(name, rng)
    a, b = (np.array(side, "float32") for side in zip(*DEGENERATE, strict=True))
    for start in range(0, len(DEGENERATE), 5):
        for form in ("rowwise", "pairwise"):
            part = slice(start, start + 5)
            assert np.isfinite(array(getattr(distance, form)(a[part], b[part]))).all()
    grads = gradient(lambda x, y: ops.sum(distance.rowwise(x, y)), a, b)
    assert np.isfinite(grads).all()
    # A direction's derivative is 1/‖a‖, floored at 1e-6; that of SNR must not overflow float16.
    assert np.abs(grads).max() <= (1e4 if name == "snr" else 1e6)


@pytest.mark.each_backend
@pytest.mark.parametrize("form", ["rowwise", "pairwise"])
def test_snr_bounds_gradients_and_keeps_values(form, rng):
    """For an anchor without variance only the gradient is bounded: the distance is the formula's for every anchor."""
    scales = 10.0 ** np.arange(-8, 3)
    a, b = (rng.normal(size=(11, 8)).astype("float32") for _ in range(2))
    a = (a * scales[:, None]).astype("float32")
    found = array(getattr(distances.get("snr"), form)(a, b))
    others = b if form == "rowwise" else b[None]
    noise = np.var((a if form == "rowwise" else a[:, None]) - np.float64(others), axis=-1)
    signal = np.maximum(np.var(np.float64(a), axis=-1), 1e-12)
    expected = noise / (signal if form == "rowwise" else signal[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.max() > 1e11
    compare = getattr(distances.get("snr"), form)
    for grad in gradient(lambda x, y: ops.mean(compare(ops.cast(x, "float16"), ops.cast(y, "float16"))), a, b):
        assert 100 < np.abs(grad).max() <= 1e4
    usual = scales >= 0.1
    rows = gradient(lambda x, y: ops.sum(compare(x, y)), a[usual], b[usual])
    loops = numerical_gradient(lambda x, y: snr_sum(x, y, form), a[usual], b[usual])
    for row, loop in zip(rows, loops, strict=True):
        np.testing.assert_allclose(row, loop, rtol=2e-3, atol=1e-3)


def snr_sum(a, b, form):
    """Σ var(a − b)/var(a) over equal rows, or over all pairs of rows."""
    pairs = zip(a, b, strict=True) if form == "rowwise" else [(x, y) for x in a for y in b]
    return sum(np.var(x - y) / np.var(x) for x, y in pairs)


@pytest.mark.each_backend
def test_directions_of_vectors_without_one():
    a = np.array([ZERO, TINY, LONG, LONG, LONG], "float32")
    b = np.array([LONG, LONG, TINY, -LONG, LONG], "float32")
    np.testing.assert_allclose(array(distances.get("cosine").rowwise(a, b)), [1, 1, 1, 2, 0], atol=1e-6)
    np.testing.assert_allclose(array(distances.get("angular").rowwise(a, b)), [0.5, 0.5, 0.5, 1, 0], atol=1e-4)
    for name, apart in [("cosine", 1.0), ("angular", 0.5)]:
        distance = distances.get(name)
        np.testing.assert_allclose(array(distance.pairwise(a, b))[:2], np.full((2, 5), apart), atol=1e-6)
        np.testing.assert_allclose(array(distance.rowwise(a, a))[:2], [apart, apart], atol=1e-6)


@pytest.mark.each_backend
def test_angles_keep_their_digits_at_both_ends():
    angles = np.array([1e-3, 1e-2, 1.0, math.pi - 1e-2, math.pi - 1e-3])
    a = np.tile([[1.0, 0.0, 0.0, 0.0]], (5, 1)).astype("float32")
    b = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], 1).astype("float32")
    np.testing.assert_allclose(array(distances.get("angular").rowwise(a, b)) * math.pi, angles, rtol=1e-4)
    (grad, _) = gradient(lambda x, y: ops.sum(distances.get("angular").rowwise(x, y)), a, b)
    np.testing.assert_allclose(np.abs(grad[:, 1]), np.full(5, 1 / math.pi), rtol=1e-3)


@pytest.mark.each_backend
@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_nan_comes_out_as_nan(name, rng):
    a, b = two_sets(rng, columns=5)
    a[2, 1] = np.nan
    distance, _ = build(name, rng)
    for one, other in ((a, b), (b, a)):
        np.testing.assert_array_equal(np.isnan(array(distance.rowwise(one, other))), np.arange(5) == 2)
    assert np.isnan(array(distance.pairwise(a, b))[2]).all()
    assert not np.isnan(array(distance.pairwise(a, b))[[0, 1, 3, 4]]).any()


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_half_precision_is_widened_inside(name, dtype, rng):
    wide = 300.0 + 2.0 * rng.integers(-3, 4, (5, 4))  # even numbers up to 512 are exact in bfloat16
    other = 300.0 + 2.0 * rng.integers(-6, 7, (5, 4))
    a, b = ops.cast(wide, dtype), ops.cast(other, dtype)
    distance, oracle = build(name, rng)
    expected = np.array(oracles.rowwise(oracle, wide, other))
    for form, reference in [("rowwise", expected), ("pairwise", np.array(oracles.pairwise(oracle, wide, other)))]:
        got = getattr(distance, form)(a, b)
        assert keras.backend.standardize_dtype(got.dtype) == dtype
        got = array(ops.cast(got, "float32"))
        if name in (
            "inner_product",
            "squared_euclidean",
            "snr",
        ):  # beyond 65504, or floored: cast back, not computed so
            got, reference = got[np.abs(reference) < 6e4], reference[np.abs(reference) < 6e4]
        # The matrix form subtracts squares of 360,000: at distances of 2 it has lost all but two digits.
        tolerance = 4e-2 if form == "pairwise" else 2e-2 if dtype == "bfloat16" else 4e-3
        np.testing.assert_allclose(got, reference, rtol=tolerance, atol=tolerance)


@pytest.mark.each_backend
def test_integers_give_float_distances():
    distance = distances.get("euclidean").rowwise(np.array([[0, 1]]), np.array([[1, 2]]))
    assert keras.backend.standardize_dtype(distance.dtype) == "float32"
    np.testing.assert_allclose(array(distance), [math.sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose(array(distances.get("manhattan").pairwise(np.array([[0], [3]]))), [[0, 3], [3, 0]])


@pytest.mark.tensorflow  # JAX has no float64 unless it is configured so
@pytest.mark.torch
@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_float64_stays_float64(name, rng):
    a, b = (side.astype("float64") for side in two_sets(rng))
    distance, oracle = build(name, rng)
    rowwise = distance.rowwise(ops.convert_to_tensor(a, "float64"), ops.convert_to_tensor(b[:5], "float64"))
    assert keras.backend.standardize_dtype(rowwise.dtype) == "float64"
    # On PyTorch, Keras takes var, arctan2 and matmul of float64 in float32.
    tolerance = 1e-6 if keras.backend.backend() == "torch" else 1e-9
    np.testing.assert_allclose(array(rowwise), oracles.rowwise(oracle, a, b[:5]), rtol=tolerance)


def test_sides_of_unlike_precision_meet_in_the_wider_of_the_first(rng):
    a, b = two_sets(rng)
    mixed = distances.get("euclidean").rowwise(ops.cast(a, "float16"), b[:5])
    assert keras.backend.standardize_dtype(mixed.dtype) == "float16"
    np.testing.assert_allclose(
        array(ops.cast(mixed, "float32")), oracles.rowwise(oracles.euclidean, a, b[:5]), rtol=2e-3
    )


entries = st.floats(-1.0, 1.0, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)


sides = npst.arrays("float32", (2, 5, 4), elements=entries).filter(lambda two: (np.abs(two).max(axis=2) > 0.1).all())


quick = hypothesis.settings(max_examples=20, deadline=None, database=None, derandomize=True)


@pytest.mark.parametrize("name", PLAIN)
@quick
@hypothesis.given(two=sides)
def test_bounds_hold_on_unit_vectors(name, two):
    distance = distances.get(name)
    low, high = distance.bounds
    a, b = two / np.linalg.norm(two, axis=2, keepdims=True)
    values = [array(distance.rowwise(a, b)), array(distance.pairwise(a, b)), array(distance.rowwise(a, -a))]
    if distance.scale_free:
        values.append(array(distance.rowwise(30.0 * a, 0.02 * b)))
    for value in values:
        assert low - 1e-6 <= value.min()
        assert value.max() <= high + 1e-6


@quick
@hypothesis.given(two=sides)
def test_symmetric_and_not_negative(two):
    for name in ("euclidean", "squared_euclidean", "manhattan", "chebyshev", "minkowski", "angular", "cosine"):
        there, back = (array(distances.get(name).rowwise(*order)) for order in (two, two[::-1]))
        np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-6)
        assert there.min() >= 0


@quick
@hypothesis.given(two=sides, scale=st.floats(0.125, 50.0, width=32))
def test_scaling_both_sides(two, scale):
    two[:, :, 0] += 2.0  # no anchor is constant: there the floor of its variance decides
    for name, power in [("euclidean", 1), ("squared_euclidean", 2), ("manhattan", 1), ("cosine", 0), ("snr", 0)]:
        plain = array(distances.get(name).rowwise(*two))
        scaled = array(distances.get(name).rowwise(*(np.float32(scale) * two)))
        np.testing.assert_allclose(scaled, plain * scale**power, rtol=1e-3, atol=1e-5 * max(scale**power, 1))


@quick
@hypothesis.given(two=sides, order=st.permutations(range(5)))
def test_rows_do_not_touch_each_other(two, order):
    for name in ("euclidean", "cosine", "snr"):
        distance = distances.get(name)
        np.testing.assert_array_equal(
            array(distance.rowwise(*two[:, order])), array(distance.rowwise(*two))[list(order)]
        )


@pytest.mark.parametrize("name", PLAIN)
def test_finite_bounds_are_attained(name):
    distance = distances.get(name)
    low, high = distance.bounds
    ends = np.array([[0.0, 1.0, 0.0]], "float32")
    if name == "inner_product":
        assert float(array(distance.rowwise(ends, ends))[0]) == low
    else:
        assert float(array(distance.rowwise(ends, ends.copy()))[0]) == low == 0.0
    if math.isfinite(high):
        assert float(array(distance.rowwise(ends, -ends))[0]) == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize(("name", "dim"), [("manhattan", 100), ("minkowski", 100), ("snr", 3)])
def test_unbounded_means_unbounded(name, dim):
    distance = distances.MinkowskiDistance(1.5) if name == "minkowski" else distances.get(name)
    assert distance.bounds == (0.0, float("inf"))
    ramp = np.linspace(-1e-3, 1e-3, dim)
    a = (np.ones(dim) + ramp) / np.linalg.norm(np.ones(dim) + ramp)
    b = -a if name != "snr" else np.eye(dim)[0]
    assert float(array(distance.rowwise(a[None].astype("float32"), b[None].astype("float32")))[0]) > 4.0


def test_minkowski_bound_depends_on_p():
    assert distances.MinkowskiDistance(2.0).bounds == (0.0, 2.0)
    assert distances.MinkowskiDistance(3.0).bounds == (0.0, 2.0)
    assert distances.MinkowskiDistance(1.9).bounds == (0.0, float("inf"))
