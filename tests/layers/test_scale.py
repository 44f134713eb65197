"""`LearnedScale`: the gradients of scale and bias are those of loops; losses without these options are refused."""

import math

import keras
import numpy as np
import pytest

from keras_siamese import losses
from keras_siamese.attach import dissect
from keras_siamese.layers import Chunked, LearnedScale
from tests.layers.test_memory import as_array, linear
from tests.oracles import views
from tests.support.batch_checks import shares

LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])
# Losses with a scale, and the loop of their value for a scale and a bias.
CASES = {
    "SigLIPLoss": (losses.SigLIPLoss, -3.0, views.siglip),
    "SigLIPLoss, bias fixed": (lambda: losses.SigLIPLoss(bias=-3.0), None, views.siglip),
    "MultipleNegativesRankingLoss": (
        losses.MultipleNegativesRankingLoss,
        None,
        lambda labels, z, scale, bias: views.ranking(labels, z, scale),
    ),
    # With two rows of each identity, one softmax in each direction.
    "NTXentLoss": (losses.NTXentLoss, None, lambda labels, z, scale, bias: ntxent(labels, z, scale)),
}


def ntxent(labels, z, scale):
    values = []
    for i, label in enumerate(labels):
        logits = {j: scale * views.cosine(z[i], z[j]) for j in range(len(labels)) if j != i}
        own = next(j for j in logits if labels[j] == label)
        values.append(math.log(sum(math.exp(x) for x in logits.values())) - logits[own])
    return values, [1.0] * len(labels)


def trained(model, x, rate=1.0):
    """A step of SGD on the scale and the bias alone; the loss before it."""
    model.encoder.trainable = False
    model.compile(keras.optimizers.SGD(rate), model.loss)
    return model.fit(x, LABELS, batch_size=8, shuffle=False, verbose=0).history["loss"][0]


@pytest.mark.each_backend
@pytest.mark.parametrize("name", CASES)
def test_scale_and_bias_follow_the_gradient_of_the_loop(rng, name):
    make, bias, loop = CASES[name]
    x = rng.normal(size=(8, 5)).astype("float32")
    model = LearnedScale(linear(), scale=4.0, bias=bias)
    model.compile("sgd", make())
    z = as_array(model(x)).astype("float64")

    def value(log_scale, bias):
        return float(np.mean(shares(*loop(LABELS.tolist(), z, math.exp(log_scale), bias))))

    at = math.log(4.0), -3.0
    assert trained(model, x) == pytest.approx(value(*at), rel=1e-4)
    slope = (value(at[0] + 1e-5, at[1]) - value(at[0] - 1e-5, at[1])) / 2e-5
    assert abs(slope) > 1e-2
    assert float(as_array(model.log_scale)) == pytest.approx(at[0] - slope, abs=3e-4)
    if bias is not None:
        slope = (value(at[0], at[1] + 1e-5) - value(at[0], at[1] - 1e-5)) / 2e-5
        assert abs(slope) > 2e-3
        assert float(as_array(model.offset)) == pytest.approx(at[1] - slope, abs=3e-4)
    assert len(model.trainable_weights) == 1 + (bias is not None)


@pytest.mark.each_backend
def test_evaluation_uses_the_learned_values_and_the_loss_keeps_its_own(rng):
    x = rng.normal(size=(8, 5)).astype("float32")
    model = LearnedScale(Chunked(linear(), rows=3), scale=4.0, bias=-3.0)
    model.compile("sgd", losses.SigLIPLoss())
    model.fit(x, LABELS, batch_size=8, verbose=0)
    scale, bias = math.exp(float(as_array(model.log_scale))), float(as_array(model.offset))
    wanted = np.mean(shares(*views.siglip(LABELS.tolist(), as_array(model(x)).astype("float64"), scale, bias)))
    assert model.evaluate(x, LABELS, batch_size=8, verbose=0) == pytest.approx(float(wanted), rel=1e-4)
    assert (model.loss.scale, model.loss.bias) == (10.0, -10.0)
    assert dissect(model).encoder is model.same_as.same_as


def test_the_inner_loss_of_a_matryoshka_loss_is_scaled(rng):
    x = rng.normal(size=(8, 5)).astype("float32")
    model = LearnedScale(linear(), scale=4.0, bias=-3.0)
    model.compile("sgd", losses.MatryoshkaLoss(losses.SigLIPLoss(), [3, 2]))
    z = as_array(model(x)).astype("float64")
    wanted = sum(np.mean(shares(*views.siglip(LABELS.tolist(), z[:, :d], 4.0, -3.0))) for d in (3, 2))
    assert trained(model, x) == pytest.approx(wanted, rel=1e-4)
    assert float(as_array(model.log_scale)) != pytest.approx(math.log(4.0), abs=1e-3)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (losses.MultiSimilarityLoss(), {}, "`loss` of LearnedScale must be a loss with a scale or a temperature"),
        ("mse", {}, "`loss` of LearnedScale must be a loss with a scale or a temperature"),
        (losses.NTXentLoss(), {"bias": 0.0}, "`bias` of LearnedScale must be None, because NTXentLoss has no bias"),
        (losses.NTXentLoss(block_size=2), {}, "`block_size` of NTXentLoss must be None where its scale is learned"),
    ],
)
def test_losses_that_do_not_fit_are_refused(rng, loss, options, message):
    model = LearnedScale(linear(), **options)
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=message):
        model.fit(rng.normal(size=(8, 5)), LABELS, verbose=0)


@pytest.mark.parametrize("scale", [0, -1.0, math.inf])
def test_the_scale_is_above_zero(scale):
    with pytest.raises(ValueError, match="`scale` must be in"):
        LearnedScale(linear(), scale=scale)
