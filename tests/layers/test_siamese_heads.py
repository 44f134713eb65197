"""The siamese model's heads, what its output can reach, and its precision under every policy."""

import keras
import numpy as np
import pytest

from keras_siamese.layers import LogisticHead, SiameseWrapper
from keras_siamese.losses import ContrastiveLoss, WeightedBinaryCrossentropy
from tests.oracles import rows as oracles
from tests.support.encoders import SAME, Subclassed, array, dense_encoder, embeddings, euclidean, towers


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
    model.compile("adam", loss="binary_crossentropy", run_eagerly=keras.backend.backend() == "tensorflow")
    model.fit((left, right), SAME, verbose=0)


def test_own_logistic_head_keeps_its_options(rng):
    class Steep(LogisticHead):
        pass

    for head in (LogisticHead(0.5, 0.75, name="mine"), Steep(0.5, 0.75, name="mine")):
        model = SiameseWrapper(dense_encoder(), head=head)
        with keras.saving.custom_object_scope({"Steep": Steep}):
            again = SiameseWrapper.from_config(model.get_config())
        assert (type(again.head), again.head.name, again.head.low, again.head.high) == (type(head), "mine", 0.5, 0.75)


@pytest.mark.each_backend
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


@pytest.mark.tensorflow  # on PyTorch, Keras does not compile with XLA
@pytest.mark.jax
def test_compiled_with_xla(rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(keras.layers.UnitNormalization()), "cosine", head="logistic")
    model.compile(keras.optimizers.SGD(0.1), loss=WeightedBinaryCrossentropy("balanced"), jit_compile=True)
    before = array(model((left, right)))
    np.testing.assert_allclose(model.predict((left, right), verbose=0), before, rtol=1e-4)
    assert np.isfinite(model.fit((left, right), SAME, epochs=2, verbose=0).history["loss"]).all()
    assert not np.allclose(array(model((left, right))), before, rtol=1e-4)
