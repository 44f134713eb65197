"""Encoders and classifiers: which model embeds, and what enters its last layer."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.attach.anatomy import compares_as_a_whole, dissect
from keras_siamese.attach.encoder import is_encoder, without_classifier
from tests.support.two_inputs import FEATURES, encoder_model


@pytest.fixture
def x(rng):
    return rng.normal(size=(30, FEATURES)).astype("float32")


def test_an_encoder_gives_rows_of_more_than_one_number_for_one_item(x):
    assert is_encoder(encoder_model())
    assert not is_encoder(encoder_model(dim=1))
    assert not is_encoder(keras.Sequential([keras.Input((FEATURES, 2)), layers.Dense(3)]))
    pair = [keras.Input((FEATURES,)) for _ in range(2)]
    joined = keras.Model(pair, layers.Dense(2)(layers.Add()(pair)))  # two columns may be two classes
    assert not is_encoder(joined, [x, x]) and not is_encoder(joined)
    assert is_encoder(keras.Model(pair, layers.Dense(3)(layers.Add()(pair))), [x, x])
    assert not is_encoder("encoder")


class Failing(keras.Model):
    def call(self, x):
        raise RuntimeError("a mistake of the user's")


def test_why_a_call_that_fails_is_of_no_encoder_is_logged(x, caplog):
    with caplog.at_level("DEBUG", logger="keras_siamese"):
        assert not is_encoder(Failing(name="one"), x) and not compares_as_a_whole(Failing(name="two"), [x, x])
    for said in ("'one' is no encoder", "'two' does not compare its inputs"):
        assert re.search(f"{said}: its call raised RuntimeError: .*a mistake of the user's", caplog.text)


def test_a_model_without_a_classifier_stays_as_it_is():
    encoder = encoder_model()
    assert without_classifier(encoder) is encoder
    encoder.compile("sgd", "mean_squared_error")
    assert without_classifier(encoder) is encoder


def classifier(last, loss):
    body = encoder_model()
    model = keras.Sequential([keras.Input((FEATURES,)), body, *last])
    model.compile("sgd", loss)
    return model, body


CLASSIFIERS = {
    "softmax": ([layers.Dense(5, "softmax")], "sparse_categorical_crossentropy"),
    "one-hot": ([layers.Dense(5), layers.Softmax()], "categorical_crossentropy"),
    "logits": ([layers.Dense(5)], keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    "proxies": ([ks.layers.ProxyLogits(5)], ks.losses.ArcFaceLoss()),
    "centers": ([ks.layers.ProxyLogits(5, 2)], ks.losses.SubCenterArcFaceLoss()),
    "cut": ([ks.layers.ProxyLogits(5, dims=[2, 1])], ks.losses.MatryoshkaLoss(ks.losses.ArcFaceLoss(), [2, 1])),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_enters_a_classifier_is_the_embedding(name, x):
    model, body = classifier(*CLASSIFIERS[name])
    anatomy = dissect(model)
    np.testing.assert_allclose(ops.convert_to_numpy(anatomy.encoder(x)), body.predict_on_batch(x), rtol=1e-6)
    assert "classifier over identities" in str(anatomy)


def test_an_encoder_under_a_batch_loss_is_no_classifier(x):
    encoder = encoder_model(dim=5)
    encoder.compile("sgd", ks.losses.MultiSimilarityLoss())
    assert dissect(encoder).encoder is encoder


def test_a_batch_loss_is_not_called_to_find_that_it_is_no_classifier():
    class Uncallable(ks.losses.MultiSimilarityLoss):
        def __call__(self, *args, **kwargs):
            raise AssertionError("called")

    encoder = encoder_model(dim=5)
    encoder.compile("sgd", Uncallable())
    encoder.compute_loss = Uncallable().__call__
    assert without_classifier(encoder) is encoder
