"""Masks: they work inside the encoder, come with the inputs, and do not reach the loss."""

import keras
import numpy as np
import pytest

from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.losses import ContrastiveLoss
from tests.oracles import rows as oracles
from tests.support.encoders import SAME, LeakyMean, N, array, embeddings, euclidean, leaky_encoder, masked_encoder


def sequences(rng):
    """Padded with zeros to lengths between 1 and 7, so that each row has another mask."""
    pair = rng.integers(1, 9, (2, N, 7)).astype("int32")
    for side in pair:
        for row, length in zip(side, rng.integers(1, 8, N), strict=True):
            row[length:] = 0
    return tuple(pair)


class Ask(keras.layers.Layer):
    """Remembers the mask that Keras finds on its input."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        self.seen = mask
        return x


def mask_of(tensor):
    ask = Ask()
    ask(tensor)
    return ask.seen


@pytest.mark.each_backend
@pytest.mark.parametrize(
    ("make", "joint"),
    [pytest.param(masked_encoder, True, marks=pytest.mark.deep), (leaky_encoder, True), (leaky_encoder, False)],
)
def test_masks_work_inside_and_do_not_reweight_the_loss(make, joint, rng):
    left, right = sequences(rng)
    model = SiameseWrapper(make(), joint=joint)
    output = model((left, right))
    assert mask_of(output) is None
    expected = euclidean(*embeddings(model, left, right))
    np.testing.assert_allclose(array(output), expected, rtol=1e-4, atol=1e-6)
    loss = ContrastiveLoss()
    terms = [oracles.contrastive(s, d) for s, d in zip(SAME, expected[:, 0], strict=True)]
    assert array(loss(SAME, output)) == pytest.approx(oracles.mean(terms), rel=1e-4)
    model.compile("sgd", loss=loss)
    assert model.evaluate((left, right), SAME, verbose=0) == pytest.approx(oracles.mean(terms), rel=1e-4)


@pytest.mark.each_backend
def test_padding_does_not_change_the_embedding(rng):
    """The masks reach the encoder in one run over both towers: other tokens under the mask would change the value."""
    left, right = sequences(rng)
    model = SiameseWrapper(leaky_encoder())
    table = model.encoder.layers[0].get_weights()[0]
    means = [[table[row[row > 0]].mean(axis=0) for row in side] for side in (left, right)]
    np.testing.assert_allclose(array(model((left, right))), euclidean(*means), rtol=1e-4, atol=1e-6)


def test_encoder_does_leak_its_mask(rng):
    """What the tests above guard against."""
    left, _ = sequences(rng)
    np.testing.assert_array_equal(array(mask_of(leaky_encoder()(left))), left > 0)


@pytest.mark.each_backend
@pytest.mark.filterwarnings("ignore:.*does not support masking")  # Keras says so of every functional model
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("masked", ["both", "left", "first input"])
def test_masks_that_come_with_the_inputs(joint, masked, rng):
    """A Masking layer in front of the towers; a tower, or an input of a tower, may have none."""
    two = masked == "first input"
    steps, extra = keras.Input((5, 2), name="steps"), keras.Input((2,), name="extra")
    pooled = LeakyMean()(steps)
    encoder = keras.Model({"steps": steps, "extra": extra}, pooled + extra) if two else keras.Model(steps, pooled)
    model = SiameseWrapper(encoder, joint=joint)
    inputs = [keras.Input((5, 2)), keras.Input((5, 2))]
    mask_value = keras.layers.Masking()
    heads = [mask_value(x) if i == 0 or masked != "left" else x for i, x in enumerate(inputs)]
    extras = [keras.Input((2,)), keras.Input((2,))]
    pair = [{"steps": h, "extra": e} for h, e in zip(heads, extras, strict=True)] if two else heads
    whole = keras.Model(inputs + extras if two else inputs, model(pair))
    x = rng.normal(size=(2, N, 5, 2)).astype("float32")
    more = rng.normal(size=(2, N, 2)).astype("float32")
    x[:, ::2, 3:] = 0.0
    means = []
    for i, side in enumerate(x):
        use_mask = i == 0 or masked != "left"
        means.append([row[row.any(axis=1)].mean(axis=0) if use_mask else row.mean(axis=0) for row in side])
    expected = euclidean(*[np.array(m) + (more[i] if two else 0) for i, m in enumerate(means)])
    given = [*x, *more] if two else [*x]
    np.testing.assert_allclose(array(whole(given)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.each_backend
@pytest.mark.parametrize("joint", [True, False])
def test_a_mask_on_the_inputs_does_not_come_out(joint, rng):
    x = rng.normal(size=(2, N, 5, 2)).astype("float32")
    x[:, ::2, 3:] = 0.0
    masked = [keras.layers.Masking()(side) for side in x]
    assert mask_of(masked[0]) is not None
    assert mask_of(SiameseWrapper(LeakyMean(), joint=joint)(masked)) is None


def test_distance_layer_ends_masks(rng):
    encoder = leaky_encoder()
    leaked = [encoder(side) for side in sequences(rng)]
    assert mask_of(leaked[0]) is not None
    assert mask_of(DistanceLayer()(leaked)) is None
