"""How held-out inputs were prepared, beside training inputs, and what undoes it."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.facts.preparation import (
    differences,
    is_clear,
    of_preparation,
    other_scale,
    preparing,
    some_of,
    swapped_channels,
    turned,
    undone,
    value_difference,
)
from keras_siamese.scoring import Trials, score
from tests.support import plantings
from tests.support.measured import encoder, facts_of


def pictures(rng, count, shift=0.0):
    """Pictures `(count, 12, 12, 3)` of one scene, brighter at the top left, in reddish light."""
    scene = np.add.outer(np.linspace(1, 0, 12), np.linspace(0.5, 0, 12))[..., None] * [1.0, 0.8, 0.6]
    return scene + 0.1 * rng.normal(size=(count, 12, 12, 3)) + 0.1 * rng.normal(size=(count, 1, 1, 1)) + shift


def test_another_scale_is_told_in_spreads_of_the_training_inputs(rng):
    x, y = rng.normal(size=(200, 5)), rng.normal(size=(300, 5))
    spread, shift = other_scale(x, 40 * y + 128)
    assert spread == pytest.approx(np.log10(40), abs=0.05) and shift == pytest.approx(128, rel=0.1)
    assert max(map(abs, other_scale(x, y))) < 0.1 and other_scale(x, np.zeros((3, 5))) == (0.0, 0.0)


def test_the_difference_of_values_equals_a_slow_one(rng):
    x, y = rng.normal(size=(30, 2)), rng.normal(0.5, 2, size=(20, 2))
    expected = max(abs(np.mean(x <= at) - np.mean(y <= at)) for at in np.concatenate([x.ravel(), y.ravel()]))
    assert value_difference(x, y) == pytest.approx(expected)
    assert value_difference(x, x) == 0


def test_turned_and_mirrored_samples_are_found_and_healthy_ones_are_not(rng):
    train, held_out = pictures(rng, 80), pictures(rng, 60, shift=0.3)
    assert turned(train, held_out)[0] < 0.05
    assert turned(train, held_out[:, ::-1])[0] > 0.3 and turned(train, np.rot90(held_out, 2, axes=(1, 2)))[0] > 0.3
    ramps = np.linspace(0, 1, 20)[:, None] + 0.1 * rng.normal(size=(50, 20, 2))
    assert turned(ramps, ramps[:, ::-1])[0] > 0.3 and turned(ramps, ramps)[0] == 0


def test_a_few_people_without_a_common_shape_are_not_turned(rng):
    def curves(people):
        waves = np.cumsum(rng.normal(size=(people, 40, 2)), axis=1)
        return np.repeat(waves - waves.mean(axis=1, keepdims=True), 10, axis=0)

    assert max(turned(curves(8), curves(40))[0] for _ in range(20)) == 0


def test_exchanged_channels_are_found_in_any_light(rng):
    train, held_out = pictures(rng, 80), pictures(rng, 60, shift=0.3)
    assert swapped_channels(train, held_out)[0] == 0
    assert swapped_channels(train, held_out[..., ::-1])[0] > 3
    assert swapped_channels(train.mean(axis=3), held_out.mean(axis=3))[0] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: 40 * x + 128,
        lambda x: 255 - 255 * x,
        lambda x: x[:, ::-1],
        lambda x: x.swapaxes(1, 2)[:, :, ::-1],
        lambda x: x[..., [1, 0, 2]],
        lambda x: 255 - 255 * x[:, ::-1, :, ::-1],
    ],
    ids=["scaled", "negated", "mirrored", "turned", "channels", "all"],
)
def test_what_differs_clearly_is_undone(rng, spoil):
    """Up to the means and spreads of the two sets, which differ a little."""
    train, held_out = pictures(rng, 80) ** 2, pictures(rng, 60) ** 2
    spoilt = np.ascontiguousarray(spoil(held_out), "float32")
    back = preparing(train, spoilt)(spoilt)
    assert back.shape == held_out.shape and np.abs(back - held_out).mean() < 0.1 * held_out.std()


def test_numbers_that_are_spread_evenly_are_negated_by_their_shape_alone(rng):
    """The distribution of the numbers is the same either way."""
    ramp = np.linspace(-1, 1, 40) + 0.1 * rng.normal(size=(80, 40))
    back = preparing(ramp, 5 - ramp)(5 - ramp)
    assert np.abs(back - ramp).max() < 0.1


def test_what_does_not_differ_is_left_as_it_is(rng):
    train, held_out = pictures(rng, 80), pictures(rng, 60, shift=0.1)
    assert not is_clear(differences(train, held_out)) and preparing(train, held_out)(held_out) is held_out


def test_each_side_of_pairs_is_undone_for_itself(rng):
    left, right = rng.normal(size=(2, 50, 6)).astype("float32")
    trials = Trials.from_pairs(100 * left + 7, right, np.arange(50) % 2)
    back = undone(trials, rng.normal(size=(300, 6)))
    assert np.abs(back.items[:50] - left).mean() < 0.2 and np.array_equal(back.items[50:], right)
    mixed = back.items[np.array([60, 3, 3])]
    assert np.array_equal(mixed, np.stack([back.items[60], *2 * [back.items[3]]])), "in any order, repeated"
    assert back.left is trials.left


def test_the_eer_is_measured_again_only_if_something_differs(rng):
    x, labels = plantings.train_part()
    model = ks.SiameseWrapper(encoder())
    alike, other = (facts_of(model, train) for train in ((x, labels), (40 * x + 128, labels)))
    assert "undone_gain" not in alike and "held_out_shift" in alike
    assert other["undone_gain_se"] > 0 and abs(other["undone_gain"]) < other["eer"]


def test_of_large_samples_fewer_are_compared(rng):
    assert len(some_of(np.zeros((2000, 4)))) == 512 and len(some_of(np.zeros((5, 4)))) == 5
    assert len(some_of({"a": np.zeros((900, 100_000), "int8")})["a"]) == 160
    assert len(some_of(np.broadcast_to(np.float32(0), (900, 1000, 1000)))) == 32


def test_codes_are_not_scaled(rng):
    """The encoder would look up codes that it does not have."""
    lookup = [keras.Input((6,)), keras.layers.Embedding(50, 4), keras.layers.Flatten(), keras.layers.Dense(8)]
    ids, labels = rng.integers(0, 10, (60, 6)), np.arange(60) // 3
    siamese = dissect(ks.SiameseWrapper(keras.Sequential(lookup)), ids[:4])
    valid, train = (score(siamese, Trials.from_labels(x, labels)) for x in (ids + 40, ids))
    facts = of_preparation(SimpleNamespace(valid=valid, train=train, siamese=siamese))
    assert facts["held_out_difference"] == 1.0 and "undone_gain" not in facts
