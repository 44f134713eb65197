"""Towers and comparator of programs in every form: together they give the model's own output."""

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

from keras_siamese.attach.towers import Joined, towers_of
from tests.support.programs import PROGRAMS, ROWS, batch, encoder, sides

UNTRACED = ["joined_in_channels", "subclass_that_cannot_be_traced"]
TRACED = [name for name in PROGRAMS if name not in UNTRACED]
UNSHARED = ["unshared", "preprocessed_on_one_side"]
# On TensorFlow and JAX each program is compiled; these differ in how Keras records their graph.
FEW = ["absolute_difference", "ids_and_masks", "nested_siamese", "stacked_pairs", "subclass_that_compares"]


def compared(towers, x):
    """The outputs for the batch `x`: its items embedded, then compared."""
    items = towers.items(x)
    embedded = [
        ops.convert_to_tensor(tower.predict_on_batch(one)) for tower, one in zip(towers.models, items, strict=True)
    ]
    return [ops.convert_to_numpy(one) for one in towers.compare(*embedded)]


def calls(model):
    """How many calls Keras has recorded on each layer."""
    return [(len(one._inbound_nodes), len(one._outbound_nodes)) for one in model._flatten_layers()]


@pytest.mark.parametrize("name", TRACED)
def test_towers_and_comparator_give_the_models_output(name):
    model, x = PROGRAMS[name]()
    before = calls(model)
    towers_of(model, x)
    towers = towers_of(model, x)
    assert calls(model) == before
    assert towers.is_shared == (name not in UNSHARED)
    assert all(tower.output_shape[0] is None and len(tower.output_shape) == 2 for tower in towers.models)
    expected = [one for one in tree.flatten(model.predict_on_batch(x)) if one.size % ROWS == 0]
    expected = expected[1:] if name == "auxiliary_output" else expected
    for mine, its in zip(compared(towers, x), expected, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.each_backend
@pytest.mark.parametrize("name", FEW)
def test_on_each_backend(name):
    model, x = PROGRAMS[name]()
    for mine, its in zip(compared(towers_of(model, x), x), tree.flatten(model.predict_on_batch(x)), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


def test_a_users_model_is_the_tower_itself():
    tower, ends = encoder(), sides()
    model = keras.Model(ends, layers.Dot(1)([tower(end) for end in ends]))
    assert towers_of(model).models == [tower, tower]


def test_a_change_of_one_side_changes_that_sides_embedding_alone():
    model, x = PROGRAMS["skip_connection"]()
    tower = towers_of(model).models[0]
    assert (tower.predict_on_batch(x[0]) != tower.predict_on_batch(x[0] + 1)).any(axis=1).all()
    parts = towers_of(model)
    before, after = (parts.items([x[0], right])[0] for right in (x[1], x[1] + 1))
    np.testing.assert_array_equal(before, after)


def test_inputs_of_one_item_come_together():
    model, x = PROGRAMS["ids_and_masks"]()
    items = towers_of(model).items(x)
    assert [list(item.values())[1] is mask for item, mask in zip(items, x[2:], strict=True)] == [True, True]


@pytest.mark.parametrize("name", UNTRACED)
def test_samples_themselves_are_compared_where_nothing_can_be_traced(name):
    model, x = PROGRAMS[name]()
    assert towers_of(model, x) is None
    towers = Joined(model, x, axis=None if isinstance(x, list) else 2)
    assert not towers.embeds
    np.testing.assert_allclose(compared(towers, x)[0], model.predict_on_batch(x), rtol=1e-6)


def test_a_model_that_joins_its_inputs_at_once_embeds_nothing():
    model, x = PROGRAMS["joined_at_once"]()
    towers = towers_of(model, x)
    assert not towers.embeds
    np.testing.assert_allclose(compared(towers, x)[0], model.predict_on_batch(x), rtol=1e-6)


def test_an_encoder_has_no_sides():
    assert towers_of(encoder(), batch(1)) is None
