"""Scales of the inputs, also at the first layer with weights, and detail in images."""

import keras
import numpy as np
import pytest

from keras_siamese.diagnosis.facts.inputs import detail, first_inputs, root_mean_square
from tests.support.measured import encoder


def test_scale_over_an_array_and_a_dict():
    assert root_mean_square(np.array([[3.0, -4.0]])) == pytest.approx(np.sqrt(12.5))
    assert root_mean_square({"a": np.full((2, 2), 2.0), "b": np.zeros((2, 2))}) == pytest.approx(np.sqrt(2))


def test_detail_falls_with_blur_and_not_with_brightness(rng):
    from scipy.ndimage import gaussian_filter

    drawings = (rng.random((40, 24, 24)) > 0.8).astype(float)
    blurred = [gaussian_filter(drawings, (0, sigma, sigma)) for sigma in (0.7, 1.5)]
    values = [detail(images) for images in (drawings, *blurred)]
    assert values[0] > 1 > values[1] > values[2] and values[2] < 0.1
    assert detail(50 + 3 * drawings[..., None]) == pytest.approx(values[0])


@pytest.mark.each_backend
def test_what_the_first_layer_sees_is_after_the_rescaling():
    x = np.random.default_rng(0).normal(size=(50, 24)).astype("float32")
    assert np.std(first_inputs(encoder(rescaling=100.0), 100 * x)) == pytest.approx(1, abs=0.05)
    assert np.std(first_inputs(encoder(), 100 * x)) == pytest.approx(100, rel=0.05)
    inner = keras.Sequential([keras.Input((24,)), keras.layers.Rescaling(0.01), encoder()])
    assert np.std(first_inputs(inner, 100 * x)) == pytest.approx(1, abs=0.05)
