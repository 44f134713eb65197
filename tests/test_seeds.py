"""Layers made within `own_seeds` get the same seeds each time, and Python's random state stays as it is."""

import random

import keras
import numpy as np

from keras_siamese._seeds import own_seeds


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
