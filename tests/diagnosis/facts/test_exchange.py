"""Which parts of the input reach the embedding: images, sequences and columns of which a network sees a part."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.facts.exchange import blocks_of, exchanged, moves, of_exchange
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import Trials, score


@pytest.mark.parametrize("shape", [(3,), (7,), (100,), (20, 8), (8, 2), (14, 14, 1), (9, 5, 6), (2, 2)])
def test_blocks_cover_a_sample_once(shape):
    count = np.zeros(shape, int)
    for block in blocks_of(shape):
        count[block] += 1
    assert (count == 1).all() and len(blocks_of(shape)) <= 16


def test_a_block_of_another_item_moves_what_depends_on_it():
    x, others = np.zeros((2, 4)), np.ones((2, 4))
    assert exchanged(x, others, (slice(1, 3),)).tolist() == [[0, 1, 1, 0]] * 2 and not x.any()
    found = moves(lambda part: part[:, :2] * [3.0, 4.0], x, others, blocks_of((4,)))
    np.testing.assert_allclose(found, [0.6, 0.8, 0, 0])
    assert moves(lambda part: np.ones((len(part), 2)), x, others, blocks_of((4,))) is None


def items_of(shape, seed, identities=30, samples=6):
    """Items `(n, *shape)` with a mean of their identity in each place, and the identities."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    x = rng.normal(size=(identities, *shape))[labels] + rng.normal(size=(len(labels), *shape))
    return x.astype("float32"), labels


def seen_by(layers, shape):
    """`unseen_share` of a network of `layers`."""
    network = keras.Sequential([keras.Input(shape), *layers, keras.layers.Flatten(), keras.layers.Dense(8)])
    held_out = items_of(shape, 1)
    anatomy = dissect(network, held_out[0][:4])
    scored = [score(anatomy, Trials.of(part)) for part in (held_out, items_of(shape, 2))]
    return of_exchange(Observed(Run(), *scored, siamese=anatomy))["unseen_share"]


@pytest.mark.parametrize(
    ("layers", "shape", "share"),
    [
        ([], (16,), 0.0),
        ([keras.layers.Lambda(lambda x: x[:, :4])], (16,), 0.75),
        ([keras.layers.Cropping2D(((0, 4), (0, 4)))], (8, 8, 1), 0.75),
        ([keras.layers.Cropping1D((0, 10))], (20, 3), 0.5),
        ([keras.layers.Conv2D(4, 3, activation="relu")], (8, 8, 1), 0.0),
    ],
)
def test_the_part_of_the_input_that_a_network_does_not_see(layers, shape, share):
    assert seen_by(layers, shape) == pytest.approx(share, abs=0.15)


def test_without_training_data_or_with_equal_embeddings_nothing_is_known():
    held_out = items_of((16,), 1)
    network = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4, kernel_initializer="zeros")])
    anatomy = dissect(network, held_out[0][:4])
    scored = score(anatomy, Trials.of(held_out))
    assert of_exchange(Observed(Run(), scored, siamese=anatomy)) == {}
    assert of_exchange(Observed(Run(), scored, scored, siamese=anatomy)) == {}
    assert of_exchange(SimpleNamespace(valid=scored, linear=None, siamese=anatomy, has_embeddings=True)) == {}
