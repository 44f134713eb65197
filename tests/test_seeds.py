"""Layers made within `own_seeds` or `seeded` get the same seeds each time; Python's random state is as before."""

import random
import sys

import keras
import numpy as np

from keras_siamese._seeds import own_seeds, seeded


def kernel():
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    return np.array(keras.ops.convert_to_numpy(layer.kernel))


def test_seeds_are_our_own_and_pythons_state_is_left_alone():
    state = random.getstate()
    with own_seeds():
        first, second = kernel(), kernel()
    with own_seeds():
        again = kernel()
    assert random.getstate() == state
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    kernel()
    assert random.getstate() != state


def test_an_error_ends_it():
    state = random.getstate()
    try:
        with own_seeds():
            raise KeyError
    except KeyError:
        kernel()
    assert random.getstate() != state


def test_without_a_way_to_tell_keras_pythons_generator_is_used_and_put_back(monkeypatch):
    monkeypatch.delattr(sys.modules["keras.src.random.seed_generator"], "python_random")
    state = random.getstate()
    with own_seeds(8):
        assert random.random() == random.Random(8).random()
    assert random.getstate() == state


def test_a_seed_leaves_pythons_generator_as_it_was():
    random.seed(5)
    state = random.getstate()
    with seeded(8):
        assert random.random() == random.Random(8).random()
    assert random.getstate() == state
