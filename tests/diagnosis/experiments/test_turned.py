"""A loss with swapped labels has the values of the loss with swapped labels, and can be saved."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese.diagnosis.experiments.turned import TurnedLabels, turned

DISTANCES = np.array([[0.1], [0.4], [0.8], [0.3]], "float32")


@pytest.mark.parametrize(
    ("loss", "ends"),
    [
        ("binary_crossentropy", (0, 1)),
        (keras.losses.MeanSquaredError(), (-1, 1)),
        (lambda y_true, y_pred: ops.mean(ops.cast(y_true, "float32") * y_pred), (0, 1)),
        (ks.losses.ContrastiveLoss(margin=0.6), (0, 1)),
    ],
)
def test_labels_are_swapped(loss, ends):
    labels = np.array(ends, "float32")[[0, 1, 1, 0], None]
    found, given = turned(loss, ends), keras.losses.get(loss)
    expected = ops.mean(given(ops.convert_to_tensor(sum(ends) - labels), ops.convert_to_tensor(DISTANCES)))
    value = found(ops.convert_to_tensor(labels), ops.convert_to_tensor(DISTANCES))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(found(ops.convert_to_tensor(labels[:, 0]), ops.convert_to_tensor(DISTANCES))) == pytest.approx(
        float(expected), rel=1e-5
    )
    unturned = ops.mean(given(ops.convert_to_tensor(labels), ops.convert_to_tensor(DISTANCES)))
    assert float(value) != pytest.approx(float(unturned), rel=1e-2)


def test_a_loss_with_an_option_for_it_stays_what_it_is():
    assert turned(ks.losses.ContrastiveLoss(), (0, 1)).get_config()["similar_label"] == 0


def test_of_a_matryoshka_loss_the_inner_loss_is_turned():
    found = turned(ks.losses.MatryoshkaLoss(ks.losses.ContrastiveLoss(), [4, 2], [1, 0.5]), (0, 1))
    assert isinstance(found, ks.losses.MatryoshkaLoss) and (found.dims, found.weights) == ([4, 2], [1.0, 0.5])
    assert found.similar_label == 0 and found.cuts_outputs


def test_two_turns_are_none():
    loss = keras.losses.BinaryCrossentropy()
    assert turned(turned(loss, (0, 1)), (0, 1)) is loss


def test_a_turned_loss_is_saved_with_the_loss_in_it():
    found = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(TurnedLabels(keras.losses.BinaryCrossentropy(from_logits=True), 1))
    )
    assert isinstance(found, TurnedLabels) and found.loss.from_logits and found.total == 1
