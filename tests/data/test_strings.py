"""Strings as samples: on TensorFlow a model may read them; elsewhere the error says what to do."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_siamese as ks
from keras_siamese.data.sources import check_source

WORDS = ["red", "green", "blue", "dog", "cat", "bird"]
LABELS = np.repeat(np.arange(6), 4)
TEXTS = np.array([f"{WORDS[label]} {WORDS[row % 5]}" for row, label in enumerate(LABELS)])


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", [str, object, bytes])
def test_a_model_of_texts_trains_is_measured_and_verifies(kind):
    x = TEXTS.astype(kind)
    vectorise = layers.TextVectorization(output_sequence_length=3)
    vectorise.adapt(TEXTS)
    stack = [keras.Input((), dtype="string"), vectorise, layers.Embedding(9, 4), layers.GlobalAveragePooling1D()]
    siamese = ks.SiameseWrapper(keras.Sequential(stack))
    siamese.compile("adam", loss=ks.losses.ContrastiveLoss())
    sequence = ks.data.PairSequence(x, LABELS, batch_size=8)
    siamese.fit(sequence, verbose=0, callbacks=[ks.callbacks.VerificationMonitor((x, LABELS))])
    assert "Diagnosis" in type(ks.diagnose(siamese, validation=(x, LABELS))).__name__
    verifier = ks.Verifier.calibrate(siamese, x, LABELS, far=0.2)
    expected = siamese.predict((TEXTS[:3].astype(object), TEXTS[3:6].astype(object)), verbose=0)[:, 0]
    np.testing.assert_allclose(verifier.score(x[:3], x[3:6]), -expected, atol=1e-6)
    batch, labels = ks.data.BalancedBatchSequence(x, LABELS, classes_per_batch=2, samples_per_class=2)[0]
    assert (batch.dtype, len(labels)) == ("string", 4)


@pytest.mark.torch
def test_other_backends_are_told_what_to_do():
    with pytest.raises(TypeError, match="`x` holds strings, which the backend .* Turn them into numbers first"):
        ks.data.PairSequence(TEXTS, LABELS)[0]


@pytest.mark.parametrize("kind", [object, bytes])
def test_texts_are_the_same_whatever_holds_them(kind):
    assert check_source("x", TEXTS.astype(kind)).tolist() == TEXTS.tolist()


def test_objects_that_are_numbers_are_numbers():
    assert check_source("x", np.array([[1, 2.5], [3, 4]], dtype=object)).dtype == "float64"


@pytest.mark.parametrize("wrong", [[None, "a"], ["a", 1], [{}, {}], [np.ones(2), np.ones(3)]])
def test_other_objects_are_refused(wrong):
    x = np.empty(2, dtype=object)
    x[:] = wrong
    with pytest.raises(TypeError, match="`x` must be an array of numbers or of strings; got an array of objects"):
        check_source("x", x)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="`x` must hold bytes that are UTF-8 text"):
        check_source("x", np.array([b"\xff\xfe", b"a"]))
