"""The siamese model: towers, inputs and encoders of every kind, in another model, saved, compiled; refused input."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss
from tests.oracles import rows as oracles
from tests.support.encoders import (
    DIM,
    ENCODERS,
    SAME,
    N,
    Nested,
    array,
    dense_encoder,
    embeddings,
    euclidean,
    towers,
    two_input_encoder,
)

BACKEND = keras.backend.backend()


@pytest.mark.each_backend
@pytest.mark.parametrize("joint", [True, False])
def test_two_inputs_are_the_distance_of_their_embeddings(joint, rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(), joint=joint)
    expected = euclidean(*embeddings(model, left, right))
    for pair in ((left, right), [left, right]):
        assert tuple(model(pair).shape) == (N, 1)
        np.testing.assert_allclose(array(model(pair)), expected, rtol=1e-4)
    if joint:
        np.testing.assert_allclose(model.predict((left, right), batch_size=4, verbose=0), expected, rtol=1e-4)


@pytest.mark.each_backend
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("distance", ["euclidean", "snr"])
def test_three_inputs_are_anchor_positive_and_anchor_negative(joint, distance, rng):
    anchor, positive, negative = towers(rng, 4, count=3)
    model = SiameseWrapper(dense_encoder(), distance, joint=joint)
    got = array(model((anchor, positive, negative)))
    assert got.shape == (N, 2)
    a, p, n = embeddings(model, anchor, positive, negative)
    oracle = oracles.DISTANCES[distance]
    np.testing.assert_allclose(got[:, 0], oracles.rowwise(oracle, a, p), rtol=1e-3)
    np.testing.assert_allclose(got[:, 1], oracles.rowwise(oracle, a, n), rtol=1e-3)


def test_distance_may_be_asymmetric(rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(), "snr")
    a, b = embeddings(model, left, right)
    np.testing.assert_allclose(array(model((left, right)))[:, 0], oracles.rowwise(oracles.snr, a, b), rtol=1e-3)


def normalise(x, epsilon):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon)


@pytest.mark.each_backend
def test_joint_towers_share_their_batch_statistics(rng):
    left, right = towers(rng, 4)
    right = 3 * right + 1
    batch_norm = keras.layers.BatchNormalization(epsilon=1e-3)
    encoder = keras.Sequential([keras.Input((4,)), batch_norm])
    both = normalise(np.concatenate([left, right]), 1e-3)
    joint = array(SiameseWrapper(encoder)((left, right), training=True))
    np.testing.assert_allclose(joint, euclidean(both[:N], both[N:]), rtol=1e-3)
    apart = array(SiameseWrapper(encoder, joint=False)((left, right), training=True))
    np.testing.assert_allclose(apart, euclidean(normalise(left, 1e-3), normalise(right, 1e-3)), rtol=1e-3)
    assert not np.allclose(joint, apart, rtol=0.05)
    frozen = [array(SiameseWrapper(encoder, joint=form)((left, right), training=False)) for form in (True, False)]
    np.testing.assert_allclose(*frozen, rtol=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize("container", [dict, list])
@pytest.mark.parametrize("joint", [True, False])
def test_encoders_with_several_inputs(container, joint, rng):
    pair = []
    for _ in range(2):
        image, sound = rng.normal(size=(N, 6)).astype("float32"), rng.normal(size=(N, 5, 2)).astype("float32")
        pair.append({"image": image, "sound": sound} if container is dict else [image, sound])
    model = SiameseWrapper(two_input_encoder(container), joint=joint)
    expected = euclidean(*embeddings(model, *pair))
    np.testing.assert_allclose(array(model(tuple(pair))), expected, rtol=1e-4)
    if joint:
        np.testing.assert_allclose(model.predict(tuple(pair), batch_size=N, verbose=0), expected, rtol=1e-4)
    again = SiameseWrapper.from_config(model.get_config())
    again.build_from_config(json.loads(json.dumps(model.get_build_config())))
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(array(again(tuple(pair))), expected, rtol=1e-4)


@pytest.mark.each_backend
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_of_every_kind(kind, rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(ENCODERS[kind]())
    got = array(model((left, right)))
    np.testing.assert_allclose(got, euclidean(*embeddings(model, left, right)), rtol=1e-4)
    assert model.encoder.weights
    assert {id(weight) for weight in model.encoder.weights} <= {id(weight) for weight in model.weights}
    if isinstance(model.encoder, Nested):
        model.compile("adam", loss=ContrastiveLoss(), run_eagerly=BACKEND == "tensorflow")
        model.fit((left, right), SAME, verbose=0)


def test_unbuilt_encoder_is_built_for_any_batch(rng):
    model = SiameseWrapper(ENCODERS["unbuilt sequential"]())
    model(tuple(towers(rng, 4)))
    assert model.encoder.input_shape == (None, 4)


@pytest.mark.parametrize(("shape", "joint"), [((8, 2), False), ((6, 6, 1), True)])
def test_inputs_of_higher_rank(shape, joint, rng):
    left, right = towers(rng, *shape)
    layers = keras.layers
    pool = [layers.Conv1D(3, 3), layers.GlobalMaxPooling1D()] if len(shape) == 2 else [layers.Conv2D(2, 3)]
    encoder = keras.Sequential([keras.Input(shape), *pool, layers.Flatten(), layers.Dense(DIM)])
    model = SiameseWrapper(encoder, joint=joint)
    np.testing.assert_allclose(
        array(model((left, right))), euclidean(*embeddings(model, left, right)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.each_backend
def test_training_is_the_same_in_one_run_and_per_tower(rng):
    x = tuple(towers(rng, 4))
    weights = dense_encoder().get_weights()
    losses = []
    for joint in (True, False):
        model = SiameseWrapper(dense_encoder(), joint=joint)
        model.encoder.set_weights(weights)
        model.compile(keras.optimizers.SGD(0.1), loss=ContrastiveLoss(margin=2.0), run_eagerly=True)
        losses.append(model.fit(x, SAME, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


# As a layer


@pytest.mark.each_backend
def test_inside_a_functional_model(rng, tmp_path):
    left, right = towers(rng, 4)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    siamese = SiameseWrapper(dense_encoder())
    distance = siamese(inputs)
    assert tuple(distance.shape) == (None, 1)
    whole = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(distance))
    expected = whole.predict([left, right], verbose=0)
    whole.compile("adam", loss="binary_crossentropy")
    kernel = siamese.encoder.layers[0].get_weights()[0].copy()
    whole.fit([left, right], SAME, verbose=0)
    assert not np.allclose(siamese.encoder.layers[0].get_weights()[0], kernel)
    whole.save(tmp_path / "whole.keras")
    again = keras.saving.load_model(tmp_path / "whole.keras", safe_mode=True)
    now = whole.predict([left, right], verbose=0)
    np.testing.assert_allclose(again.predict([left, right], verbose=0), now, rtol=1e-5)
    assert not np.allclose(now, expected, rtol=1e-5)


def test_of_a_siamese_model_as_encoder_of_triplets_and_pairs(rng):
    """One model serves pairs and triplets, whichever it saw first."""
    a, b, c = towers(rng, 4, count=3)
    model = SiameseWrapper(dense_encoder())
    pair, triplet = array(model((a, b))), array(model((a, c, b)))
    np.testing.assert_allclose(pair[:, 0], triplet[:, 1], rtol=1e-5)


def test_a_function_that_is_not_registered_is_refused_on_saving(rng, tmp_path):
    model = SiameseWrapper(dense_encoder(), distance=lambda a, b: ops.sum(ops.square(a - b), axis=-1))
    model(tuple(towers(rng, 4)))
    with pytest.raises(ValueError, match="register_keras_serializable"):
        model.save(tmp_path / "model.keras")


# Refused input


class NoShape(keras.layers.Layer):
    def call(self, x):
        return {"embedding": x}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (NoShape, r"`encoder` must have an output shape \(batch, dim\) that Keras can compute .*\(6, 4\)"),
        (lambda: keras.Model(x := keras.Input((4,)), [x, x]), r"`encoder` must have an output shape \(batch, dim\)"),
        (keras.layers.Embedding, None),
        (
            lambda: keras.layers.Reshape((2, 2)),
            r"`encoder` must return embeddings of shape \(batch, dim\).*\(None, 2, 2\)",
        ),
        (lambda: keras.layers.Reshape((4, 1)), r"\(None, 4, 1\).*Flatten, pooling or Dense"),
        (lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]), r"`encoder` must have an output shape"),
    ],
)
def test_encoders_without_embeddings_are_refused(encoder, message, rng):
    if message is None:
        with pytest.raises(TypeError, match=r"`encoder` must be a Keras model or layer; got .* of type type"):
            SiameseWrapper(encoder)
        return
    for joint in (True, False):
        with pytest.raises(ValueError, match=message):
            SiameseWrapper(encoder(), joint=joint)(tuple(towers(rng, 4)))


@pytest.mark.parametrize("thing", [None, "resnet", lambda x: x, np.zeros(3)])
def test_encoder_is_a_layer(thing):
    with pytest.raises(TypeError, match="`encoder` must be a Keras model or layer; got"):
        SiameseWrapper(thing)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"`distance` must be one of 'euclidean', .*; got 'euclid'"):
        SiameseWrapper(dense_encoder(), "euclid")
    with pytest.raises(ValueError, match="`head` must be one of None, 'logistic'; got 'sigmoid'"):
        SiameseWrapper(dense_encoder(), head="sigmoid")
    with pytest.raises((TypeError, ValueError), match="margin"):
        SiameseWrapper(dense_encoder(), margin=1.0)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("by", ["call", "predict"])
def test_wrong_number_of_inputs(built, by, rng):
    (x,) = towers(rng, 4, count=1)
    wrong = [("one ", x), ("1 inputs", (x,)), ("4 inputs", (x,) * 4), ("one dict", {"left": x, "right": x})]
    for what, inputs in wrong:
        model = SiameseWrapper(dense_encoder())
        if built:
            model((x, x))
        with pytest.raises(
            ValueError, match=r"takes a tuple \(left, right\) or \(anchor, positive, negative\)"
        ) as error:
            model(inputs) if by == "call" else model.predict(inputs, verbose=0)
        assert f"; got {what}" in str(error.value)
        assert "call its `.encoder`" in str(error.value)


def test_towers_of_unlike_shape(rng):
    x = rng.normal(size=(N, 4)).astype("float32")
    for pair in [(x, x[:, :3]), (x, x[:, :, None]), ({"a": x}, {"b": x}), ([x, x], x), (x, x, x[:, :2])]:
        with pytest.raises(ValueError, match=r"must have the same shape, batch aside; got .*\(6, 4\)"):
            SiameseWrapper(dense_encoder())(pair)


@pytest.mark.parametrize("joint", [True, False])
def test_towers_of_unlike_length(joint, rng):
    """Stacked, 6 and 4 rows would be cut into 5 and 5."""
    x = rng.normal(size=(N, 4)).astype("float32")
    model = SiameseWrapper(dense_encoder(), joint=joint)
    with pytest.raises(ValueError, match=r"must have equally many rows; got \[6, 4\]"):
        model((x, x[:4]))
