"""Scales of the inputs, also at the first layer with weights, and detail in images."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.inputs import (
    detail,
    first_inputs,
    of_inputs,
    root_mean_square,
    towers,
)
from keras_siamese.scoring import Trials
from tests.support import plantings
from tests.support.measured import encoder, facts_of


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


def test_the_scale_is_that_of_the_training_inputs_where_they_are_known():
    x, labels = plantings.train_part()
    model = ks.SiameseWrapper(encoder())
    alone, beside = (facts_of(model, train)["input_scale"] for train in (None, (40 * x, labels)))
    assert beside == pytest.approx(40 * alone, rel=0.1)


def test_token_ids_that_an_embedding_looks_up_have_no_scale(rng):
    ids = rng.integers(500, 1000, (30, 24))
    lookup = [keras.Input((24,)), keras.layers.Embedding(1000, 4), keras.layers.Flatten(), keras.layers.Dense(8)]
    nested = keras.Sequential([keras.Input((24,)), keras.Sequential(lookup)])

    def facts(model):
        trials = Trials.from_labels(ids, np.arange(30) // 3)
        known = {"siamese": SimpleNamespace(encoder=model), "valid": SimpleNamespace(trials=trials)}
        return of_inputs(SimpleNamespace(**known, train=None, batches=[], has_embeddings=True))

    assert "input_scale" not in facts(keras.Sequential(lookup)) and "input_scale" not in facts(nested)
    assert 700 < facts(keras.Sequential([keras.Input((24,)), keras.layers.Dense(8)]))["input_scale"] < 800


def test_a_side_is_scaled_if_it_is_in_both_kinds_of_pairs():
    rng = np.random.default_rng(0)
    left, right, same = *rng.normal(size=(2, 400, 8)), np.arange(400) < 200
    assert towers(left, right, same) == pytest.approx(0, abs=0.05)
    assert towers(255 * left, right, same) == pytest.approx(np.log10(255), abs=0.05)
    impostors = np.where(same[:, None], right, 5 * right)  # such as easy negatives of another sort
    assert towers(left, impostors, same) == pytest.approx(0, abs=0.05)
    assert towers(255 * left, right, np.ones(400, bool)) == pytest.approx(np.log10(255), abs=0.05)
    assert towers(0 * left, right, same) is None
