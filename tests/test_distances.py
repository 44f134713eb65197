"""Distances against loops and SciPy: values, gradients, shapes that are refused, `get`."""

import math

import keras
import numpy as np
import pytest
import scipy.spatial.distance as scipy_distances
from keras import ops

from keras_siamese import distances
from keras_siamese._export import exported
from tests.oracles import rows as oracles
from tests.support.distances import LEARNED, PLAIN, array, build, two_sets
from tests.support.gradients import gradient, numerical_gradient


def test_every_name_has_an_oracle():
    assert sorted(PLAIN + LEARNED) == sorted(distances.names())


@pytest.mark.each_backend
@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_rowwise_and_pairwise_are_the_loops(name, rng):
    a, b = two_sets(rng)
    distance, oracle = build(name, rng)
    rowwise, pairwise = distance.rowwise(a, b[:5]), distance.pairwise(a, b)
    assert tuple(rowwise.shape) == (5,)
    assert tuple(pairwise.shape) == (5, 7)
    np.testing.assert_allclose(array(rowwise), oracles.rowwise(oracle, a, b[:5]), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(array(pairwise), oracles.pairwise(oracle, a, b), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, 40.0])
def test_minkowski_orders(p, rng):
    a, b = two_sets(rng)
    distance = distances.MinkowskiDistance(p)

    def oracle(x, y):
        return oracles.minkowski(x, y, p)

    np.testing.assert_allclose(array(distance.rowwise(a, b[:5])), oracles.rowwise(oracle, a, b[:5]), rtol=1e-5)
    np.testing.assert_allclose(array(distance.pairwise(a, b)), oracles.pairwise(oracle, a, b), rtol=1e-5)


@pytest.mark.each_backend
def test_minkowski_neither_overflows_nor_underflows():
    a = np.array([[1e6, 2e6, 0, 0], [1e-6, 2e-6, 0, 0], [1, 2, 3, 4], [1e-3, 2, 0, 0], [1e-9, 0, 0, 0]], "float32")
    expected = [oracles.minkowski(row, (0.0,) * 4, 30.0) for row in a]
    np.testing.assert_allclose(array(distances.MinkowskiDistance(30).rowwise(a, 0 * a)), expected, rtol=1e-5)


SCIPY = {
    "euclidean": scipy_distances.euclidean,
    "squared_euclidean": scipy_distances.sqeuclidean,
    "manhattan": scipy_distances.cityblock,
    "chebyshev": scipy_distances.chebyshev,
    "minkowski": lambda a, b: scipy_distances.minkowski(a, b, p=2.0),
    "cosine": scipy_distances.cosine,
    "angular": lambda a, b: math.acos(1.0 - scipy_distances.cosine(a, b)) / math.pi,
    "inner_product": lambda a, b: -np.inner(a, b),
    "snr": lambda a, b: np.var(a - b) / np.var(a),
}


@pytest.mark.parametrize("name", PLAIN)
def test_equals_scipy(name, rng):
    a, b = (side.astype("float64") for side in two_sets(rng, columns=5))
    expected = [SCIPY[name](x, y) for x, y in zip(a, b, strict=True)]
    rowwise = distances.get(name).rowwise(a.astype("float32"), b.astype("float32"))
    np.testing.assert_allclose(array(rowwise), expected, rtol=2e-5, atol=1e-6)


def test_mahalanobis_equals_scipy(rng):
    a, b = two_sets(rng, columns=5)
    distance, _ = build("mahalanobis", rng)
    projection = distance.get_weights()[0].astype("float64")
    matrix = projection @ projection.T
    expected = [scipy_distances.mahalanobis(x, y, matrix) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(array(distance.rowwise(a, b)), expected, rtol=2e-5)


@pytest.mark.each_backend
def test_learned_distances_start_as_their_plain_ones(rng):
    a, b = two_sets(rng)
    for learned, plain in [("mahalanobis", "euclidean"), ("weighted_manhattan", "manhattan")]:
        distance = distances.get(learned)
        distance.build((None, 4))
        expected = oracles.pairwise(oracles.DISTANCES[plain], a, b)
        np.testing.assert_allclose(array(distance.pairwise(a, b)), expected, rtol=2e-5)


# The oracles are shown to tell a wrong formula from the right one, on the inputs used here.


def test_oracles_reject_wrong_variants(rng):
    a, b = two_sets(rng)
    wrong = {
        "euclidean": oracles.squared_euclidean,
        "squared_euclidean": oracles.euclidean,
        "manhattan": oracles.chebyshev,
        "chebyshev": oracles.manhattan,
        "minkowski": lambda x, y: oracles.minkowski(x, y, 3.0),
        "cosine": lambda x, y: 1.0 + oracles.dot(x, y) / (oracles.norm(x) * oracles.norm(y)),
        "angular": lambda x, y: oracles.angular(x, y) * math.pi,
        "inner_product": oracles.dot,
        "snr": oracles.wrong_snr,
    }
    for name in PLAIN:
        right = np.array(oracles.rowwise(oracles.DISTANCES[name], a, b[:5]))
        other = np.array(oracles.rowwise(wrong[name], a, b[:5]))
        assert not np.allclose(right, other, rtol=1e-2), name


def test_snr_takes_the_anchor_first(rng):
    a, b = two_sets(rng)
    distance = distances.get("snr")
    np.testing.assert_allclose(array(distance.rowwise(a, b[:5])), oracles.rowwise(oracles.snr, a, b[:5]), rtol=1e-5)
    backward = oracles.rowwise(oracles.wrong_snr, a, b[:5])
    assert not np.allclose(array(distance.rowwise(a, b[:5])), backward, rtol=0.1)
    np.testing.assert_allclose(array(distance.rowwise(b[:5], a)), backward, rtol=1e-5)
    np.testing.assert_allclose(array(distance.pairwise(b, a)), oracles.pairwise(oracles.snr, b, a), rtol=1e-5)


# Gradients


@pytest.mark.each_backend
@pytest.mark.parametrize("name", PLAIN + LEARNED)
@pytest.mark.parametrize("form", ["rowwise", "pairwise"])
def test_gradients_are_the_loops(name, form, rng):
    a, b = two_sets(rng, columns=5 if form == "rowwise" else 7)
    distance, oracle = build(name, rng)
    weights = rng.uniform(0.5, 2.0, (5,) if form == "rowwise" else (5, 7))  # unlike, so that no row stands for another
    compare = {"rowwise": oracles.rowwise, "pairwise": oracles.pairwise}[form]

    def value(x, y):
        return ops.sum(getattr(distance, form)(x, y) * ops.convert_to_tensor(weights, "float32"))

    def loop(x, y):
        return float(np.sum(np.array(compare(oracle, x, y)) * weights))

    for analytic, numeric in zip(gradient(value, a, b), numerical_gradient(loop, a, b), strict=True):
        np.testing.assert_allclose(analytic, numeric, rtol=2e-3, atol=2e-4)


@pytest.mark.each_backend
@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_identical_embeddings(name, rng):
    a, _ = two_sets(rng)
    distance, oracle = build(name, rng)
    values = array(distance.rowwise(a, a.copy()))
    grads = gradient(lambda x, y: ops.sum(distance.rowwise(x, y)), a, a.copy())
    assert np.isfinite(grads).all()
    if name == "inner_product":
        np.testing.assert_allclose(values, oracles.rowwise(oracle, a, a), rtol=1e-5)
    else:
        np.testing.assert_array_equal(values, np.zeros(5))
        np.testing.assert_allclose(grads, np.zeros((2, 5, 4)), atol=1e-6)


@pytest.mark.parametrize("name", PLAIN + LEARNED)
def test_own_diagonal(name, rng):
    a, _ = two_sets(rng)
    distance, oracle = build(name, rng)
    for matrix in (distance.pairwise(a), distance.pairwise(a, a)):
        expected = np.array(oracles.pairwise(oracle, a, a))
        np.testing.assert_allclose(array(matrix), expected, rtol=1e-4, atol=1e-5)
        if name != "inner_product":
            np.testing.assert_array_equal(np.diag(array(matrix)), np.zeros(5))
    (grad,) = gradient(lambda x: ops.sum(distance.pairwise(x)), a)
    assert np.isfinite(grad).all()


def test_inner_product_of_unit_vectors_with_themselves_is_minus_one(rng):
    a, _ = two_sets(rng)
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    np.testing.assert_allclose(np.diag(array(distances.get("inner_product").pairwise(unit))), -np.ones(5), rtol=1e-5)


# Shapes


@pytest.mark.parametrize(
    ("left", "right"), [((3,), (3,)), ((2, 3), (2, 4)), ((2, 3, 1), (2, 3, 1)), ((2, 3), (3,)), ((), ())]
)
def test_shapes_are_refused_with_both_shown(left, right):
    for form in ("rowwise", "pairwise"):
        with pytest.raises(ValueError, match=r"`a` and `b`.*\(n, dim\)") as error:
            getattr(distances.get("euclidean"), form)(np.zeros(left, "float32"), np.zeros(right, "float32"))
        assert str(left) in str(error.value)
        assert str(right) in str(error.value)


def test_rowwise_refuses_unlike_rows():
    with pytest.raises(ValueError, match=r"equally many rows; got \(2, 3\) and \(1, 3\)"):
        distances.get("euclidean").rowwise(np.zeros((2, 3), "float32"), np.zeros((1, 3), "float32"))


@pytest.mark.tensorflow  # only tf.function has unknown shapes
@pytest.mark.parametrize(
    "name",
    ["euclidean", "mahalanobis", "function"]
    + [
        pytest.param(name, marks=pytest.mark.deep)
        for name in PLAIN + LEARNED
        if name not in ("euclidean", "mahalanobis")
    ],
)
def test_unknown_batch_size_in_a_graph(name, rng):
    import tensorflow as tf

    a, b = two_sets(rng)
    if name == "function":
        distance, oracle = distances.get(city_block), oracles.manhattan
    else:
        distance, oracle = build(name, rng)
    unknown = tf.TensorSpec((None, 4), "float32")
    rowwise = tf.function(distance.rowwise, input_signature=[unknown, unknown])
    pairwise = tf.function(distance.pairwise, input_signature=[unknown, unknown])
    np.testing.assert_allclose(array(rowwise(a, b[:5])), oracles.rowwise(oracle, a, b[:5]), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(array(pairwise(a, b)), oracles.pairwise(oracle, a, b), rtol=2e-5, atol=2e-6)


# get, names and functions


def test_get_by_name_instance_config_and_function():
    assert isinstance(distances.get("snr"), distances.SNRDistance)
    assert isinstance(distances.get("squared_euclidean"), distances.SquaredEuclideanDistance)
    distance = distances.MinkowskiDistance(3)
    assert distances.get(distance) is distance
    again = distances.get(keras.saving.serialize_keras_object(distance))
    assert (type(again), again.p) == (distances.MinkowskiDistance, 3.0)
    assert isinstance(distances.get(city_block), distances.FunctionDistance)


def test_names_are_the_classes():
    classes = {cls.__name__ for cls in exported(distances.Distance).values()} - {"FunctionDistance"}
    assert len(distances.names()) == len(classes)
    assert {type(distances.get(name)).__name__ for name in distances.names()} == classes


def test_get_refuses_unknown_names_and_things():
    with pytest.raises(ValueError, match=r"must be one of 'euclidean', .*; got 'euclidian'"):
        distances.get("euclidian")
    for thing in (None, 3, distances.EuclideanDistance, ["euclidean"]):
        with pytest.raises(TypeError, match="`distance` must be a name"):
            distances.get(thing)
    with pytest.raises(TypeError, match="`distance` must be a name"):
        distances.get(keras.saving.serialize_keras_object(keras.layers.Dense(3)))
    with pytest.raises(TypeError, match="LearnedDistance"):
        distances.get(keras.layers.Dense(3))


def test_repr_shows_the_options():
    assert repr(distances.MinkowskiDistance(3)) == "MinkowskiDistance(p=3.0)"
    assert repr(distances.FunctionDistance(city_block)) == "FunctionDistance(city_block)"


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, float("nan"), float("inf")])
def test_minkowski_order_is_checked(p):
    with pytest.raises(ValueError, match=r"`p` must be in \[1, inf\)"):
        distances.MinkowskiDistance(p)


def test_mahalanobis_rank_is_checked():
    for rank, error in [(0, ValueError), (2.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="`rank` must be"):
            distances.MahalanobisDistance(rank)
    with pytest.raises(ValueError, match="`rank` must be at most 4; got 5"):
        distances.MahalanobisDistance(5).build((None, 4))


def test_learned_distances_say_that_they_are_not_built(rng):
    a, b = two_sets(rng, columns=5)
    for name in LEARNED:
        for form in ("rowwise", "pairwise"):
            with pytest.raises(ValueError, match="has weights: call build"):
                getattr(distances.get(name), form)(a, b)
        assert tuple(distances.get(name)(a, b).shape) == (5,)


@keras.saving.register_keras_serializable("tests_distances")
def city_block(a, b):
    return ops.sum(ops.abs(a - b), axis=-1)


def unregistered(a, b):
    return ops.sum(ops.abs(a - b), axis=-1)


@pytest.mark.each_backend
def test_function_distance(rng):
    a, b = two_sets(rng)
    distance = distances.FunctionDistance(city_block)
    np.testing.assert_allclose(array(distance.rowwise(a, b[:5])), oracles.rowwise(oracles.manhattan, a, b[:5]), 1e-5)
    np.testing.assert_allclose(array(distance.pairwise(a, b)), oracles.pairwise(oracles.manhattan, a, b), rtol=1e-5)
    np.testing.assert_array_equal(np.diag(array(distance.pairwise(a))), np.zeros(5))
    assert distances.FunctionDistance.from_config(distance.get_config()).function is city_block


@pytest.mark.each_backend
def test_asymmetric_function_distance_keeps_its_sides(rng):
    a, b = two_sets(rng)
    distance = distances.get(lambda x, y: ops.sum(ops.relu(x - y), axis=-1))

    def oracle(x, y):
        return sum(max(float(u) - float(v), 0.0) for u, v in zip(x, y, strict=True))

    np.testing.assert_allclose(array(distance.pairwise(a, b)), oracles.pairwise(oracle, a, b), rtol=1e-5, atol=1e-6)


def test_function_distance_that_cannot_be_saved_is_refused_on_saving():
    for function in (unregistered, lambda a, b: a):
        with pytest.raises(ValueError, match=r"cannot be saved.*register_keras_serializable"):
            distances.FunctionDistance(function).get_config()
    with pytest.raises(ValueError, match=r"'gone>away' is not registered"):
        distances.FunctionDistance.from_config({"function": "gone>away"})


def test_function_with_a_wrong_shape_is_refused(rng):
    a, b = two_sets(rng)
    column = distances.FunctionDistance(lambda x, y: ops.sum(ops.abs(x - y), axis=-1, keepdims=True))
    for form, other in [("rowwise", b[:5]), ("pairwise", b)]:
        with pytest.raises(ValueError, match=r"shape \(n,\); got \(\d+, 1\)"):
            getattr(column, form)(a, other)
    with pytest.raises(TypeError, match="`function` must be callable"):
        distances.FunctionDistance("euclidean")


@pytest.mark.torch
def test_a_module_of_another_package_is_no_distance():
    import torch

    with pytest.raises(TypeError, match="`distance` must not be a PyTorch module; got .*Give a name"):
        distances.get(torch.nn.PairwiseDistance())
