"""`DistanceLayer` and `LogisticHead`: values, gradients, shapes that are refused, precision under every policy."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese.layers import DistanceLayer, LogisticHead, SiameseWrapper
from keras_siamese.losses import ContrastiveLoss
from tests.oracles import rows as oracles
from tests.support.encoders import (
    DIM,
    N,
    array,
    dense_encoder,
    towers,
)
from tests.support.gradients import gradient

# DistanceLayer


@pytest.mark.parametrize("name", ks.distances.names())
def test_distance_layer_in_the_functional_api(name, rng, tmp_path):
    left, right = towers(rng, DIM)
    inputs = [keras.Input((DIM,)), keras.Input((DIM,))]
    layer = DistanceLayer(name)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 1)
    expected = np.asarray(array(layer.distance.rowwise(left, right)))[:, None]
    np.testing.assert_allclose(array(model([left, right])), expected, rtol=1e-5)
    assert layer.get_config()["distance"] == keras.saving.serialize_keras_object(layer.distance)
    again = keras.Model.from_config(json.loads(json.dumps(model.get_config(), allow_nan=False)))
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(array(again([left, right])), expected, rtol=1e-5)


@pytest.mark.each_backend
def test_distance_layer_of_three(rng):
    anchor, positive, negative = towers(rng, DIM, count=3)
    layer = DistanceLayer("snr")
    got = array(layer([anchor, positive, negative]))
    np.testing.assert_allclose(got[:, 0], oracles.rowwise(oracles.snr, anchor, positive), rtol=1e-4)
    np.testing.assert_allclose(got[:, 1], oracles.rowwise(oracles.snr, anchor, negative), rtol=1e-4)
    assert layer.compute_output_shape([(N, DIM)] * 3) == (N, 2)


def test_distance_layer_builds_and_trains_its_distance(rng):
    left, right = towers(rng, DIM)
    distance = ks.distances.MahalanobisDistance(rank=2)
    layer = DistanceLayer(distance)
    assert not distance.built
    layer([left, right])
    assert [tuple(weight.shape) for weight in layer.trainable_weights] == [(DIM, 2)]
    model = SiameseWrapper(dense_encoder(), ks.distances.WeightedManhattanDistance())
    model.compile(keras.optimizers.SGD(5.0), loss=ContrastiveLoss(), run_eagerly=True)
    x = tuple(towers(rng, 4))
    model.fit(x, np.ones(N), epochs=2, verbose=0)
    (weight,) = model.distance.get_weights()
    assert (weight >= 0).all()
    assert not np.allclose(weight, 1.0)


@pytest.mark.each_backend
@pytest.mark.parametrize("form", ["two", "three"])
def test_gradient_reaches_every_tower_at_equal_embeddings(form, rng):
    (x,) = towers(rng, DIM, count=1)
    layer = DistanceLayer("euclidean")
    inputs = [x, x.copy(), x.copy() + 1.0][: 2 if form == "two" else 3]
    grads = gradient(lambda *towers: ops.sum(layer(list(towers))), *inputs)
    assert np.isfinite(grads).all()
    np.testing.assert_array_equal(grads[1], np.zeros((N, DIM)))


def test_distance_layer_refuses_other_shapes(rng):
    x = rng.normal(size=(N, DIM)).astype("float32")
    for wrong in ([x], [x] * 4, [x, x[:, :2]], [x, x[:, :, None]], x):
        with pytest.raises(ValueError, match=r"two or three embeddings|one known dimension"):
            DistanceLayer()(wrong)
    with pytest.raises(ValueError, match="one known dimension"):
        DistanceLayer()([keras.Input((None,)), keras.Input((None,))])


# Heads


@pytest.mark.each_backend
def test_logistic_head_falls_with_the_distance_whatever_it_learned():
    distance = np.linspace(0.0, 2.0, 9, dtype="float32")[:, None]
    head = LogisticHead(0.0, 2.0)
    start = array(head(distance))[:, 0]
    np.testing.assert_allclose(start[[0, 4, 8]], [0.99, 0.5, 0.01], atol=1e-3)
    for log_slope, offset in [(-3.0, -1.0), (2.0, 4.0), (-8.0, 0.0)]:
        head.set_weights([np.float32(log_slope), np.float32(offset)])
        got = array(head(distance))[:, 0]
        assert (np.diff(got) <= 0).all()
        assert got[0] > got[-1]
        expected = [oracles.sigmoid(offset - np.exp(log_slope) * d) for d in distance[:, 0].tolist()]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_logistic_head_without_a_known_range():
    distance = np.array([[0.0], [1.0], [2.0]], "float32")
    for head in (LogisticHead(), LogisticHead(-float("inf"))):
        np.testing.assert_allclose(array(head(distance))[:, 0], [0.99, 0.5, 0.01], atol=1e-3)
        json.dumps(head.get_config(), allow_nan=False)
        again = LogisticHead.from_config(head.get_config())
        assert (again.low, again.high) == (head.low, head.high)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("inf"), float("inf")), (float("nan"), 1.0)])
def test_logistic_head_range_is_checked(low, high):
    with pytest.raises(ValueError, match=r"`(low|high)` must be in"):
        LogisticHead(low, high)


# Precision


@pytest.mark.each_backend
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_does_not_narrow_the_distance(policy):
    a, b = np.full((1, 4), 1.0, "float32"), np.full((1, 4), 1.0001, "float32")
    layer = DistanceLayer("euclidean", dtype=policy)
    assert array(layer([a, b]))[0, 0] == pytest.approx(2e-4, rel=1e-2)
    assert array(layer([a, 1e5 * b]))[0, 0] == pytest.approx(2e5, rel=1e-3)
    far = ops.cast(np.full((1, 4), 300.0), policy.removeprefix("mixed_"))
    assert array(DistanceLayer("squared_euclidean", dtype=policy)([far, -far]))[0, 0] == pytest.approx(4 * 600.0**2)
    head = LogisticHead(0.0, 2.0, dtype=policy)
    probability = array(head(np.array([[1.0001]], "float32")))
    assert probability.dtype == "float32"
    assert 0.5 - probability[0, 0] == pytest.approx(4.6e-4 / 4, rel=1e-2)
