"""From distance to output: `DistanceLayer`, heads, what the output can reach, precision under every policy."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese.layers import DistanceLayer, LogisticHead, SiameseWrapper
from keras_siamese.losses import ContrastiveLoss, WeightedBinaryCrossentropy
from tests.oracles import rows as oracles
from tests.support.encoders import (
    DIM,
    SAME,
    N,
    Subclassed,
    array,
    dense_encoder,
    embeddings,
    euclidean,
    towers,
)
from tests.support.gradients import gradient

BACKEND = keras.backend.backend()


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


def test_logistic_head_takes_the_range_of_the_model():
    unit = keras.layers.UnitNormalization
    for tail, distance, expected in [
        ([unit()], "euclidean", (0.0, 2.0)),
        ([unit()], "inner_product", (-1.0, 1.0)),
        ([unit(axis=-1)], "manhattan", (0.0, float("inf"))),
        ([], "euclidean", (0.0, float("inf"))),
        ([], "cosine", (0.0, 2.0)),
        ([], "inner_product", (-float("inf"), float("inf"))),
    ]:
        model = SiameseWrapper(dense_encoder(*tail), distance, head="logistic")
        assert (model.head.low, model.head.high) == expected
        assert (model.bounds, model.output_kind) == ((0.0, 1.0), "score")
        model = SiameseWrapper(dense_encoder(*tail), distance)
        assert (model.bounds, model.output_kind) == (expected, "distance")


def test_unit_norm_is_found_inside():
    unit = keras.layers.UnitNormalization()
    x = keras.Input((4,))
    inside = keras.Sequential([keras.Input((4,)), dense_encoder(), keras.Sequential([unit])])
    for encoder in (keras.Model(x, unit(dense_encoder()(x))), inside, keras.Model(x, inside(x)), unit):
        assert SiameseWrapper(encoder).bounds == (0.0, 2.0)
    over_the_batch = dense_encoder(keras.layers.UnitNormalization(axis=0))
    for encoder in (dense_encoder(unit, keras.layers.Dense(2)), over_the_batch, keras.Sequential(), Subclassed()):
        assert SiameseWrapper(encoder).bounds == (0.0, float("inf"))


def test_own_head(rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(), head=keras.layers.Dense(1, activation="sigmoid"))
    got = array(model((left, right)))
    kernel, bias = (array(weight) for weight in model.head.weights)
    distance = euclidean(*embeddings(model, left, right))
    expected = [[oracles.sigmoid(kernel[0, 0] * d + bias[0])] for d in distance[:, 0].tolist()]
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert (model.bounds, model.output_kind) == (None, "score")
    model.compile("adam", loss="binary_crossentropy", run_eagerly=BACKEND == "tensorflow")
    model.fit((left, right), SAME, verbose=0)


def test_own_logistic_head_keeps_its_options(rng):
    class Steep(LogisticHead):
        pass

    for head in (LogisticHead(0.5, 0.75, name="mine"), Steep(0.5, 0.75, name="mine")):
        model = SiameseWrapper(dense_encoder(), head=head)
        with keras.saving.custom_object_scope({"Steep": Steep}):
            again = SiameseWrapper.from_config(model.get_config())
        assert (type(again.head), again.head.name, again.head.low, again.head.high) == (type(head), "mine", 0.5, 0.75)


# Precision


@pytest.mark.parametrize(("policy", "head"), [("mixed_float16", None), ("mixed_bfloat16", "logistic")])
def test_mixed_precision(policy, head, rng):
    left, right = towers(rng, 4)
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = SiameseWrapper(dense_encoder(), "squared_euclidean", head=head)
        output = model((left, right))
        loss = ContrastiveLoss() if head is None else WeightedBinaryCrossentropy()
        model.compile(keras.optimizers.SGD(0.01), loss=loss)
        history = model.fit((left, right), SAME, verbose=0).history
    finally:
        keras.config.set_dtype_policy(previous)
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    assert np.isfinite(history["loss"]).all()
    assert model.encoder.compute_dtype == policy.removeprefix("mixed_")


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


@pytest.mark.skipif(BACKEND == "torch", reason="Keras compiles with jit on TensorFlow and JAX")
def test_compiled_with_xla(rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(keras.layers.UnitNormalization()), "cosine", head="logistic")
    model.compile(keras.optimizers.SGD(0.1), loss=WeightedBinaryCrossentropy("balanced"), jit_compile=True)
    before = array(model((left, right)))
    np.testing.assert_allclose(model.predict((left, right), verbose=0), before, rtol=1e-4)
    assert np.isfinite(model.fit((left, right), SAME, epochs=2, verbose=0).history["loss"]).all()
    assert not np.allclose(array(model((left, right))), before, rtol=1e-4)
