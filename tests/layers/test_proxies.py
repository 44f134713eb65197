"""`ProxyLogits`: cosines against a loop, shapes, precision, rounding, and what it starts with."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.layers import ProxyLogits
from keras_siamese.layers.proxies import within_one
from tests.oracles import proxies as oracles
from tests.support.gradients import gradient, numerical_gradient


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def built(weights, classes, centers=1, **options):
    layer = ProxyLogits(classes, centers, **options)
    layer.build((None, weights.shape[1]))
    layer.set_weights([weights])
    return layer


@pytest.mark.each_backend
def test_cosines_are_the_loop(rng):
    embeddings, weights = 3 * rng.normal(size=(6, 4)), 0.2 * rng.normal(size=(5, 4))
    expected = [[oracles.cosine(x, w) for w in weights] for x in embeddings]
    np.testing.assert_allclose(array(built(weights, 5)(embeddings.astype("float32"))), expected, atol=1e-6)


@pytest.mark.each_backend
def test_centers_of_a_class_are_neighbours(rng):
    embeddings, weights = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    cosine = array(built(weights, 2, centers=3)(embeddings.astype("float32")))
    assert cosine.shape == (6, 2, 3)
    for i, j, k in np.ndindex(cosine.shape):
        assert cosine[i, j, k] == pytest.approx(oracles.cosine(embeddings[i], weights[3 * j + k]), abs=1e-6)


def test_output_shapes():
    assert ProxyLogits(7).compute_output_shape((None, 4)) == (None, 7)
    assert ProxyLogits(7, 3).compute_output_shape((2, 4)) == (2, 7, 3)
    model = keras.Sequential([keras.Input((4,)), ProxyLogits(7, 3)])
    assert model.output_shape == (None, 7, 3)
    assert tuple(model(np.ones((2, 4), "float32")).shape) == (2, 7, 3)


@pytest.mark.each_backend
def test_holding_within_one_keeps_the_gradient():
    """A plain clip has gradient 0 past its ends."""
    past = np.array([1.0 + 2e-7, 1.0, 0.5, -1.0, -1.0 - 2e-7, np.nan], "float32")
    held = array(within_one(ops.convert_to_tensor(past)))
    np.testing.assert_array_equal(held, np.array([1, 1, 0.5, -1, -1, np.nan], "float32"))
    (slope,) = gradient(lambda cosine: ops.sum(within_one(cosine)), past[:-1])
    np.testing.assert_array_equal(slope, np.ones(5))


def test_rounding_stays_within_one():
    """In float32 some vectors have a cosine above 1 with themselves."""
    weights = np.random.default_rng(1).normal(size=(200, 7)).astype("float32")
    layer = built(weights, 200)
    cosine = array(layer(weights))
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    assert np.max(np.sum(unit * unit, axis=1)) > 1.0
    assert np.max(np.abs(cosine)) <= 1.0
    np.testing.assert_allclose(np.diag(cosine), 1.0, atol=1e-6)
    upstream = np.random.default_rng(2).normal(size=cosine.shape).astype("float32")
    (slope,) = gradient(lambda x: ops.sum(ops.multiply(layer(x), upstream)), weights)
    wide = weights.astype("float64")
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    pull = upstream @ (wide / norm)
    expected = (pull - np.sum(pull * wide / norm, axis=1, keepdims=True) * wide / norm) / norm
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.each_backend
def test_gradient_is_the_loops(rng):
    embeddings, weights = rng.normal(size=(3, 4)).astype("float32"), rng.normal(size=(4, 4)).astype("float32")
    upstream = rng.normal(size=(3, 4)).astype("float32")
    layer = built(weights, 4)

    def ours(x, w):
        return ops.sum(ops.multiply(layer.stateless_call([w], [], x)[0], upstream))

    def loop(x, w):
        return sum(float(upstream[i, j]) * oracles.cosine(x[i], w[j]) for i in range(3) for j in range(4))

    numeric = numerical_gradient(loop, embeddings, weights)
    for got, right in zip(gradient(ours, embeddings, weights), numeric, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-3, atol=1e-4)


@pytest.mark.each_backend
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_at_least_float32_under_every_policy(policy, rng):
    embeddings, weights = rng.normal(size=(6, 4)).astype("float32"), rng.normal(size=(5, 4)).astype("float32")
    layer = built(weights, 5, dtype=policy)
    cosine = layer(300 * embeddings)  # 300² overflows float16
    assert keras.backend.standardize_dtype(cosine.dtype) == "float32"
    expected = [[oracles.cosine(x, w) for w in weights] for x in embeddings]
    np.testing.assert_allclose(array(cosine), expected, atol=1e-2 if policy in ("float16", "bfloat16") else 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_embeddings(dtype, rng):
    embeddings, weights = rng.normal(size=(6, 4)).astype("float32"), rng.normal(size=(5, 4)).astype("float32")
    cosine = built(weights, 5)(ops.cast(300 * embeddings, dtype))
    assert keras.backend.standardize_dtype(cosine.dtype) == "float32"
    expected = [[oracles.cosine(x, w) for w in weights] for x in embeddings]
    np.testing.assert_allclose(array(cosine), expected, atol=2e-2)


@pytest.mark.each_backend
def test_vectors_without_a_direction_have_cosine_zero(rng):
    weights = rng.normal(size=(5, 4)).astype("float32")
    nothing = np.array([[0.0] * 4, [1e-20] * 4], "float32")
    layer = built(weights, 5)
    np.testing.assert_array_equal(array(layer(nothing)), np.zeros((2, 5)))
    (slope,) = gradient(lambda x: ops.sum(layer(x)), nothing)
    np.testing.assert_array_equal(slope, np.zeros((2, 4)))


def test_weights_start_in_all_directions_with_length_near_one():
    layer = ProxyLogits(2000)
    layer.build((None, 64))
    weights = array(layer.proxies)
    length = np.linalg.norm(weights, axis=1)
    assert 0.95 < length.mean() < 1.05
    assert length.std() < 0.15
    assert np.linalg.norm((weights / length[:, None]).mean(axis=0)) < 0.05


@pytest.mark.each_backend
def test_sparsity_joins_the_models_losses(rng):
    weights = rng.normal(size=(4, 3))
    layer = built(weights, 2, centers=2, center_sparsity=0.5)
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    apart = [np.linalg.norm(unit[0] - unit[1]), np.linalg.norm(unit[2] - unit[3])]
    (penalty,) = layer.losses
    assert float(array(penalty)) == pytest.approx(0.5 * np.mean(apart) / 2, rel=1e-5)
    assert built(weights, 2, centers=2).losses == []


@pytest.mark.each_backend
def test_a_mask_of_time_steps_does_not_reach_the_loss():
    sequence = keras.Input((None, 4))
    pooled = keras.layers.Masking()(sequence)
    pooled = keras.layers.Lambda(lambda x: ops.sum(x, axis=1), mask=lambda inputs, mask: mask)(pooled)
    assert getattr(ProxyLogits(3)(pooled), "_keras_mask", None) is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ProxyLogits(0), ValueError, "`num_classes` must be at least 1; got 0"),
        (lambda: ProxyLogits(2.5), TypeError, "`num_classes` must be an integer; got 2.5"),
        (lambda: ProxyLogits(3, 0), ValueError, "`centers_per_class` must be at least 1; got 0"),
        (lambda: ProxyLogits(3, 2, -1.0), ValueError, r"`center_sparsity` must be in \[0, inf\); got -1.0"),
        (
            lambda: ProxyLogits(3, center_sparsity=0.2),
            ValueError,
            "needs centers_per_class > 1; got 0.2",
        ),
        (lambda: ProxyLogits(3).build((None, 4, 4)), ValueError, r"shape \(batch, dim\) .*; got shape \(None, 4, 4\)"),
        (lambda: ProxyLogits(3).build((None, None)), ValueError, r"known dim; got shape \(None, None\)"),
    ],
)
def test_options_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()
