"""Comparators, examined with random embeddings: which output compares, and where weights follow."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_siamese.attach.anatomy import dissect
from keras_siamese.attach.comparator import EXAMINED, Examined, columns_weighted, own_distance
from keras_siamese.attach.towers import towers_of
from keras_siamese.layers import DistanceLayer
from tests.support.programs import PROGRAMS
from tests.support.two_inputs import encoder_model, two_towers


def distance(u, v):
    return ops.sqrt(ops.maximum(ops.sum((u - v) ** 2, axis=1, keepdims=True), 1e-7))


def compared_by(compare):
    encoder = encoder_model(dim=8)
    return two_towers(lambda left, right: compare(encoder(left), encoder(right)))


@pytest.mark.parametrize(
    ("name", "place", "column"),
    [
        ("absolute_difference", 0, 0),
        ("two_classes", 0, 1),  # the second class stands for label 1
        ("auxiliary_output", 1, 0),  # what depends on one side alone is left out
        ("two_distances_in_a_list", 0, 0),  # the first distance is that of the anchor and the positive
    ],
)
def test_the_output_that_compares_the_first_two_sides(name, place, column):
    found = Examined(towers_of(*PROGRAMS[name]())).output
    assert (found["place"], found["column"]) == (place, column)


@pytest.mark.parametrize(
    ("compare", "end", "scale_free"),
    [
        (distance, -1, False),
        (lambda u, v: ops.exp(-distance(u, v)), 1, False),
        (lambda u, v: layers.Dot(1, normalize=True)([u, v]), 1, True),
        (lambda u, v: layers.Dense(1)(layers.Concatenate()([u, v])), 0, False),
    ],
)
def test_where_equal_embeddings_are_and_whether_norms_matter(compare, end, scale_free):
    examined = Examined(towers_of(compared_by(compare)))
    assert (examined.end, bool(examined.scale_free)) == (end, scale_free)


def test_outputs_that_are_the_embeddings_are_told():
    for name, expected in (("concatenated_embeddings", True), ("absolute_difference", False)):
        assert Examined(towers_of(*PROGRAMS[name]())).are_embeddings == expected


def test_a_wrapper_stands_for_a_distance_of_the_package_and_one_layer():
    for last, has_wrapper in ((layers.Identity(), True), (layers.Dense(1), True), (layers.Lambda(ops.sin), False)):
        model = compared_by(lambda u, v, last=last: last(DistanceLayer("cosine")([u, v])))
        towers = towers_of(model)
        assert (Examined(towers).wrapper() is not None) == has_wrapper
        assert type(own_distance(towers.comparator)).__name__ == "CosineDistance"
    assert own_distance(towers_of(compared_by(distance)).comparator) is None


def test_the_compared_output_is_the_models(rng):
    model = compared_by(lambda u, v: layers.Dense(1)(ops.abs(u - v)))
    towers = towers_of(model)
    x = rng.normal(size=(2, EXAMINED, 4)).astype("float32")
    ends = [tower(side) for tower, side in zip(towers.models, x, strict=True)]
    mine = keras.ops.convert_to_numpy(Examined(towers).output["compare"](*ends))
    np.testing.assert_allclose(mine, model.predict_on_batch(list(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("compare", "columns"),
    [
        (distance, 0),
        (lambda u, v: layers.Dense(1)(distance(u, v)), 1),
        (lambda u, v: layers.Dense(1)(layers.Dense(4)(layers.BatchNormalization()(distance(u, v)))), 1),
        (lambda u, v: layers.Dense(1)(ops.abs(u - v)), 8),
        (lambda u, v: layers.Dense(1)(layers.Concatenate()([distance(u, v), u * v])), 9),
    ],
)
def test_how_many_columns_the_first_weights_are_applied_to(compare, columns):
    anatomy = dissect(compared_by(compare))
    assert columns_weighted(anatomy.comparator) == columns
    assert anatomy.has_scalar_head == (columns == 1) and bool(anatomy.learned) == (columns > 0)
