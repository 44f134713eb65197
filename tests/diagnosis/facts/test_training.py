"""An untrained copy of the encoder leaves the original and the random generators alone."""

import random

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.diagnosis.facts.training import untrained_embeddings
from tests.support.measured import encoder

pytestmark = pytest.mark.each_backend


def test_an_untrained_copy_leaves_the_original_and_the_generator_alone():
    model = encoder()
    x = np.ones((3, 24), "float32")
    own, state = ops.convert_to_numpy(model(x)), random.getstate()
    copied = untrained_embeddings(model, x)
    assert copied.shape == (3, 6) and not np.allclose(copied, own)
    assert random.getstate() == state
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), own)
    model.trainable = False
    np.testing.assert_allclose(untrained_embeddings(model, x), own, rtol=1e-5)


def test_a_subclassed_encoder_that_cannot_be_copied_has_no_untrained_twin():
    class Own(keras.Model):
        def __init__(self, size):
            super().__init__()
            self.dense = keras.layers.Dense(size)

        def call(self, x):
            return self.dense(x)

    assert untrained_embeddings(Own(3), np.ones((2, 4), "float32")) is None
