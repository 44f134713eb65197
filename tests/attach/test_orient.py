"""Pairs as a model takes them, and what its output means for them."""

import numpy as np
import pytest
from keras import ops
from keras.layers import Dense

from keras_siamese.attach.anatomy import dissect
from keras_siamese.attach.encoder import classifies
from keras_siamese.attach.orient import are_pairs, loss_of, orient, pairs_of
from keras_siamese.layers import DistanceLayer
from tests.support.programs import PROGRAMS, ROWS, batch
from tests.support.two_inputs import FEATURES, encoder_model, two_towers


@pytest.fixture
def x(rng):
    return rng.normal(size=(30, FEATURES)).astype("float32")


READ_AS_PAIRS = {
    "two inputs": ("operations", batch(2), True),
    "one item for two inputs": ("operations", batch(1)[0], False),
    "triplets": ("two_distances_in_a_list", batch(3), True),
    "a pair for triplets": ("two_distances_in_a_list", batch(2), True),
    "stacked": ("stacked_pairs", np.stack(batch(2), 1), True),
    "one item for stacked": ("stacked_pairs", batch(1)[0], False),
    "subclass": ("subclass_that_compares", tuple(batch(2)), True),
}


@pytest.mark.parametrize("name", READ_AS_PAIRS)
def test_pairs_are_told_from_items_by_the_model(name):
    program, x, expected = READ_AS_PAIRS[name]
    assert are_pairs(PROGRAMS[program]()[0], x) == expected


def test_triplets_are_two_pairs_each():
    model, x = PROGRAMS["two_distances_in_a_list"]()
    left, right, labels = pairs_of(dissect(model), x, None)
    np.testing.assert_array_equal(left, np.concatenate([x[0], x[0]]))
    np.testing.assert_array_equal(right, np.concatenate(x[1:]))
    np.testing.assert_array_equal(labels, np.repeat([1, 0], ROWS))


def test_inputs_given_by_name_are_put_in_order(x):
    encoder = encoder_model()
    model = two_towers(lambda a, b: DistanceLayer()([encoder(a), encoder(b)]))
    same = np.arange(15) % 2
    left, right, labels = pairs_of(dissect(model), {"right": x[15:], "left": x[:15]}, same)
    np.testing.assert_array_equal(left, x[:15])
    np.testing.assert_array_equal(right, x[15:])
    np.testing.assert_array_equal(labels, same)


def compiled(loss, output=lambda d: d):
    encoder = encoder_model()
    model = two_towers(lambda a, b: output(DistanceLayer()([encoder(a), encoder(b)])))
    model.compile("sgd", loss)
    return model


DIRECTIONS = {
    "a distance, 1 = same": (lambda: compiled(lambda y, d: ops.mean(y * d)), 1, False, 1),
    "a distance, 1 = different": (lambda: compiled(lambda y, d: ops.mean((1 - y) * d - y * d)), 0, False, 0),
    "a probability": (lambda: compiled("binary_crossentropy", lambda d: ops.exp(-d)), 1, True, 1),
}


@pytest.mark.each_backend
@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_direction_follows_from_loss_comparator_and_data(name, rng):
    make, closer, up, similar = DIRECTIONS[name]
    labels = np.arange(60) % 2
    left = rng.normal(size=(60, FEATURES)).astype("float32")
    right = (left + rng.normal(size=left.shape) * np.where(labels == closer, 0.1, 2.0)[:, None]).astype("float32")
    anatomy = dissect(make())
    found = orient(anatomy, left, right, labels, x=[left, right], y=labels)
    assert (found.up, found.similar_label, found.contradiction) == (up, similar, None)
    assert anatomy.output_kind == ("score" if up else "distance")
    assert orient(anatomy, left, right, labels, similar_label=1 - similar).similar_label == 1 - similar


def test_why_the_loss_of_a_pair_is_not_known_is_logged(rng, caplog):
    labels, encoder = np.arange(8) % 2, encoder_model()
    encoder.compile("sgd", lambda y, z: 1 / 0)
    sides = [rng.normal(size=(8, FEATURES)).astype("float32") for _ in range(2)]
    with caplog.at_level("DEBUG", logger="keras_siamese"):
        assert np.isnan(loss_of(dissect(compiled(lambda y, d: 1 / 0)), sides, labels, labels)(1, 0.5))
        assert "The loss of a pair is not known: it raised ZeroDivisionError" in caplog.text
        assert not classifies(encoder) and "is no classifier: its loss raised " in caplog.text


def test_a_score_of_the_user_grows_with_similarity_and_only_the_label_is_found(rng):
    labels = np.arange(60) % 2
    left = rng.normal(size=(60, FEATURES)).astype("float32")
    right = (left + rng.normal(size=left.shape) * np.where(labels == 0, 0.1, 2.0)[:, None]).astype("float32")
    anatomy = dissect(compiled("mse"), score=lambda left, right: -np.abs(left - right).sum(axis=1))
    found = orient(anatomy, left, right, labels, x=[left, right], y=labels)
    assert (found.up, found.similar_label, anatomy.output_kind) == (True, 0, "score")


def test_the_loss_of_a_pair_is_that_of_the_output_that_compares():
    """The first output classifies the left item, and the second one compares."""
    model, x = PROGRAMS["auxiliary_output"]()
    classes, labels = np.zeros(ROWS, "int32"), np.arange(ROWS) % 2
    model.compile("sgd", ["sparse_categorical_crossentropy", "mean_squared_error"])
    anatomy = dissect(model, x)
    orient(anatomy, *x, labels, x=x, y=[classes, labels])
    losses = np.array([anatomy.pair_loss(1, value) for value in (0.0, 1.0, 3.0)])
    np.testing.assert_allclose(losses - losses[1], [1, 0, 4], atol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_comparison_of_two_encoders_tells_its_direction_if_it_learns_nothing(x, sign):
    """Whatever the new encoders make of items: only equal embeddings are told to the comparison."""
    one, other = encoder_model("one"), encoder_model("other")
    model = two_towers(lambda a, b: sign * DistanceLayer()([one(a), other(b)]))
    direction = orient(dissect(model, x[:4]), x[:15], x[15:], np.arange(15) % 2, similar_label=1)
    assert direction.end == -sign and direction.up == (sign < 0)


def test_the_learned_comparison_of_two_encoders_does_not(x):
    one, other = encoder_model("one"), encoder_model("other")
    model = two_towers(lambda a, b: Dense(1)(DistanceLayer()([one(a), other(b)])))
    assert orient(dissect(model, x[:4]), x[:15], x[15:], np.arange(15) % 2, similar_label=1).end == 0
