"""Tests of `untouched`: after any experiment everything is as it was, bit for bit."""

import random

import keras
import numpy as np
import pytest

from keras_siamese.diagnosis.experiments.untouched import same_attributes, untouched, variables_of
from tests.support import small_programs

pytestmark = pytest.mark.each_backend


def state(model):
    """Everything that training changes, as bytes."""
    arrays = [np.asarray(keras.ops.convert_to_numpy(one)) for one in variables_of(model)]
    return [array.tobytes() for array in arrays]


def drawn():
    """The next numbers of the global generators, without moving them on."""
    python, numpy = random.getstate(), np.random.get_state()
    found = random.random(), np.random.random()
    random.setstate(python)
    np.random.set_state(numpy)
    return found


@pytest.fixture(scope="module")
def program():
    return small_programs.fitted(epochs=1, dropout=0.2, norm=True)


def test_training_in_the_block_leaves_no_trace(program):
    model, _, train, _ = program
    before, numbers, optimizer = state(model), drawn(), model.optimizer
    function = model.train_function
    with untouched(model):
        model.train_on_batch(*train[0])
        random.random(), np.random.random(), keras.random.normal((2,))
        model.train_function, model.stop_training = None, True
        assert state(model) != before
    assert state(model) == before and drawn() == numbers
    assert model.optimizer is optimizer and model.train_function is function and not model.stop_training


def test_all_is_put_back_if_the_block_raises(program):
    model, _, train, _ = program
    before = state(model)
    with pytest.raises(RuntimeError, match="no"), untouched(model):
        model.train_on_batch(*train[0])
        raise RuntimeError("no")
    assert state(model) == before


def test_keras_own_generator_goes_on_as_if_nothing_had_been_drawn(program):
    keras.utils.set_random_seed(5)
    keras.random.normal((2,))
    with untouched():
        inside = keras.ops.convert_to_numpy(keras.random.normal((3,)))
    assert np.array_equal(inside, keras.ops.convert_to_numpy(keras.random.normal((3,))))


def test_attributes_have_other_values_within_the_block():
    layer = keras.layers.BatchNormalization(momentum=0.99)
    with same_attributes(layer, ("momentum",), momentum=0.5):
        assert layer.momentum == 0.5
    assert layer.momentum == 0.99
