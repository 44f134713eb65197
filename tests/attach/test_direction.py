"""The direction of an output, from losses, comparators and data of which it is known."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.attach.direction import Direction, closer_label, direction_of, equal_end, pull


def value_of(loss):
    """A loss `(y_true, y_pred)` as a function of two numbers."""
    return lambda label, output: float(
        ops.mean(loss(np.full((1, 1), label, "float32"), np.full((1, 1), output, "float32")))
    )


def contrastive(label, distance, margin=1.0):
    return label * distance**2 + (1 - label) * max(margin - distance, 0) ** 2


PROBABILITIES, DISTANCES = np.linspace(0.4, 0.6, 20), np.linspace(0.1, 4, 20)
LOSSES = {
    "cross-entropy": (value_of(keras.losses.BinaryCrossentropy()), PROBABILITIES, (0, 1), 1),
    "of logits": (value_of(keras.losses.BinaryCrossentropy(from_logits=True)), DISTANCES - 2, (0, 1), 1),
    "squared error": (value_of(keras.losses.MeanSquaredError()), PROBABILITIES, (0, 1), 1),
    "squared error of a cosine": (value_of(keras.losses.MeanSquaredError()), DISTANCES / 4 - 0.5, (-1, 1), 1),
    "hinge": (value_of(keras.losses.Hinge()), DISTANCES / 4 - 0.5, (-1, 1), 1),
    "cross-entropy of distances": (value_of(keras.losses.BinaryCrossentropy()), DISTANCES, (0, 1), 1),
    "contrastive": (contrastive, DISTANCES, (0, 1), -1),
    "contrastive, 1 = different": (lambda label, d: contrastive(1 - label, d), DISTANCES, (0, 1), 1),
    "contrastive with a margin out of reach": (lambda label, d: contrastive(label, d, 20.0), DISTANCES, (0, 1), -1),
    "of labels alone": (lambda label, output: float(label), DISTANCES, (0, 1), 0),
    "not a number": (lambda label, output: float("nan"), DISTANCES, (0, 1), 0),
    "both ways": (lambda label, d: label * np.sin(4 * d), DISTANCES, (0, 1), 0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_pulls_the_output_of_the_higher_label(name):
    loss, outputs, labels, expected = LOSSES[name]
    assert pull(loss, outputs, labels) == expected


def test_a_constant_output_is_looked_around():
    assert pull(LOSSES["cross-entropy"][0], np.full(9, 1.0), (0, 1)) == 1
    assert pull(contrastive, np.full(9, 3.0), (0, 1)) == -1
    assert pull(contrastive, np.full(9, np.nan), (0, 1)) == -1


def test_equal_embeddings_at_an_end():
    different = np.array([0.5, 0.2, 0.9])
    assert equal_end(np.zeros(3), different) == -1
    assert equal_end(np.ones(3), different) == 1
    assert equal_end(np.full(3, 0.4), different) == 0
    assert equal_end(np.array([0.0, 0.1, 0.9]), different) == 0
    assert equal_end(np.zeros(3), np.zeros(3)) == 0


def test_pairs_of_one_label_are_closer(rng):
    labels = np.arange(400) % 2
    left = rng.normal(size=(400, 3))
    right = left + rng.normal(size=(400, 3)) * np.where(labels, 0.1, 2.0)[:, None]
    label, area = closer_label([left], [right], labels)
    assert label == 1 and area > 0.95
    assert closer_label([left], [right], 1 - labels)[0] == 0
    assert closer_label([left], [rng.normal(size=(400, 3))], labels)[0] is None


def test_codes_are_equal_or_not(rng):
    labels = np.arange(200) % 2
    left = rng.integers(0, 1000, (200, 8))
    right = np.where((rng.random((200, 8)) < 0.6) & (labels[:, None] == 1), left, rng.integers(0, 1000, (200, 8)))
    assert closer_label([left], [right], labels)[0] == 1


KNOWN = {
    # what the witnesses say → up, the label that means same, contradiction
    "probability": ({"pulled": 1, "closer": (1, 0.8)}, (True, 1, False)),
    "distance": ({"pulled": -1, "end": -1, "closer": (1, 0.8)}, (False, 1, False)),
    "probability of different": ({"pulled": 1, "closer": (0, 0.2), "is_learned": True}, (False, 0, False)),
    "labels unclear, from the comparator": ({"pulled": 1, "end": -1}, (False, 0, False)),
    "labels unclear, nothing else": ({"pulled": 1}, (True, 1, False)),
    "the formula of the other convention": ({"pulled": 1, "end": -1, "closer": (1, 0.8)}, (False, 1, True)),
    "a head that starts backwards": ({"pulled": 1, "end": 1, "closer": (0, 0.2), "is_learned": True}, (False, 0, True)),
    "no loss": ({"end": -1}, (False, 1, False)),
    "the user decides": ({"pulled": 1, "closer": (1, 0.8), "similar_label": 0}, (False, 0, False)),
    "nothing known": ({}, (True, 1, False)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_the_witnesses_say_together(name):
    said, (up, same, contradicts) = KNOWN[name]
    found = direction_of((0, 1), **said)
    assert (found.up, found.similar_label, found.contradiction is not None) == (up, same, contradicts)


def test_it_is_stated_in_a_line():
    text = str(direction_of((0, 1), pulled=-1, end=-1, closer=(1, 0.8)))
    assert text.startswith(
        "The output falls with similarity; label 1 means same. The loss pulls the output of label 1 down."
    )
    assert "(AUC 0.80)" in text and "\n" not in text
    assert str(Direction(True, 0)) == "The output grows with similarity; label 0 means same. "
