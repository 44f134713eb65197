"""The triplet loss against a loop: hinge, soft and swapped, gradients, weights, refused shapes and options."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import TripletLoss
from tests.oracles import rows as oracles
from tests.support.gradients import gradient, numerical_gradient

# d(a, p), d(a, n), d(p, n); the third is the smaller negative distance in rows 2 and 4
DISTANCES = np.array(
    [[0.2, 0.9, 1.3], [0.8, 0.3, 0.5], [0.4, 1.6, 0.1], [0.0, 2.5, 2.0], [0.6, 1.1, 0.7], [0.0, 0.0, 0.3]], "float32"
)
ZEROS = np.zeros(len(DISTANCES))
FORMS = [{}, {"margin": 0.2}, {"soft": True}, {"swap": True}, {"swap": True, "soft": True}, {"margin": 3, "swap": True}]


def loop(distances, margin=1.0, soft=False, swap=False):
    terms = []
    for row in distances:
        negative = min(float(row[1]), float(row[2])) if swap else float(row[1])
        terms.append(oracles.triplet(float(row[0]), negative, margin=margin, soft=soft))
    return terms


def columns(options):
    return DISTANCES if options.get("swap") else DISTANCES[:, :2]


def value(loss, y_pred, y_true=ZEROS, **options):
    return ops.convert_to_numpy(loss(y_true, y_pred, **options))


@pytest.mark.each_backend
@pytest.mark.parametrize("options", FORMS)
def test_is_the_loop(options):
    expected = loop(columns(options), **options)
    np.testing.assert_allclose(value(TripletLoss(**options, reduction="none"), columns(options)), expected, 1e-5, 1e-6)
    assert value(TripletLoss(**options), columns(options)) == pytest.approx(oracles.mean(expected), rel=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize("options", FORMS)
def test_gradient_is_the_loops(options):
    loss, weights = TripletLoss(**options, reduction="none"), np.arange(1.0, 7.0)
    (analytic,) = gradient(lambda d: ops.sum(ops.multiply(loss(ZEROS, d), weights.astype("float32"))), columns(options))
    (numeric,) = numerical_gradient(lambda d: float(np.dot(loop(d, **options), weights)), columns(options))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-3, atol=1e-4)


def test_oracle_rejects_wrong_variants():
    for options in ({}, {"soft": True}):
        right = loop(DISTANCES[:, :2], **options)
        flipped = [oracles.wrong_triplet(float(p), float(n), **options) for p, n, _ in DISTANCES]
        assert not np.isclose(oracles.mean(right), oracles.mean(flipped), rtol=0.1)
    assert not np.isclose(oracles.mean(loop(DISTANCES)), oracles.mean(loop(DISTANCES, swap=True)), rtol=0.1)


def test_separated_triplets_cost_nothing():
    apart = np.array([[0.0, 1.0], [0.3, 1.4]] * 3, "float32")
    assert value(TripletLoss(margin=1.0), apart) == 0.0
    (grad,) = gradient(lambda d: TripletLoss(margin=0.9)(ZEROS, d), apart)
    np.testing.assert_array_equal(grad, np.zeros((6, 2)))


@pytest.mark.each_backend
def test_soft_form_does_not_overflow_and_ignores_the_margin():
    far, soft = np.array([[1e4, 0.0], [0.0, 1e4]] * 3, "float32"), TripletLoss(soft=True, reduction="none")
    np.testing.assert_allclose(value(soft, far), [1e4, 0.0] * 3)
    (grad,) = gradient(lambda d: ops.sum(soft(ZEROS, d)), far)
    np.testing.assert_allclose(grad, [[1, -1], [0, 0]] * 3, atol=1e-6)
    near = DISTANCES[:, :2]
    assert value(TripletLoss(soft=True, margin=0.1), near) == value(TripletLoss(soft=True), near)


@pytest.mark.parametrize("y_true", [ZEROS, np.arange(6), ZEROS[:, None], np.zeros((6, 2)), np.full(6, np.nan)])
def test_labels_are_ignored(y_true):
    assert value(TripletLoss(), DISTANCES[:, :2], y_true) == pytest.approx(oracles.mean(loop(DISTANCES)), rel=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_sample_weight_and_reduction(shape):
    weight = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0])
    terms = [w * term for w, term in zip(weight, loop(DISTANCES), strict=True)]
    given = weight.reshape(shape)
    for reduction, expected in [("sum", sum(terms)), ("sum_over_batch_size", oracles.mean(terms))]:
        got = value(TripletLoss(reduction=reduction), DISTANCES[:, :2], sample_weight=given)
        assert got == pytest.approx(expected, rel=1e-5)
    for reduction in ("none", None):
        got = value(TripletLoss(reduction=reduction), DISTANCES[:, :2], sample_weight=given)
        np.testing.assert_allclose(np.ravel(got), terms, rtol=1e-5, atol=1e-7)


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    got = value(TripletLoss(), ops.cast(DISTANCES[:, :2], dtype))
    assert got == pytest.approx(oracles.mean(loop(DISTANCES)), rel=1e-2)


def test_nan_is_not_hidden():
    for options in FORMS:
        distances = columns(options).copy()
        distances[1, 0] = np.nan
        assert np.isnan(value(TripletLoss(**options), distances))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 2, 1)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"`y_pred` must have shape \(batch, 2\); got") as error:
        TripletLoss()(ZEROS, np.zeros(shape, "float32"))
    assert str(shape) in str(error.value)
    with pytest.raises(ValueError, match=r"`y_pred` must have shape \(batch, 3\); got \(6, 2\)"):
        TripletLoss(swap=True)(ZEROS, DISTANCES[:, :2])


@pytest.mark.parametrize("margin", [-1.0, 0.0, float("nan"), float("inf")])
def test_margin_out_of_range(margin):
    with pytest.raises(ValueError, match=r"`margin` must be in \(0, inf\); got"):
        TripletLoss(margin=margin)


def test_options_are_checked():
    with pytest.raises(
        TypeError, match="TripletLoss takes the options margin, soft, swap, reduction, name, dtype; got"
    ):
        TripletLoss(positive_weight=2.0)
    with pytest.raises(ValueError, match="reduction"):
        TripletLoss(reduction="avg")


def test_margin_out_of_reach():
    TripletLoss(margin=2.0).check_output("distance", (0.0, 2.0))
    TripletLoss(margin=2.0).check_output("distance", (-1.0, 1.0))
    TripletLoss(margin=9.0, soft=True).check_output("distance", (0.0, 2.0))
    with pytest.raises(ValueError, match=r"`margin` of TripletLoss must be at most 2, .*\[-1, 1\]"):
        TripletLoss(margin=2.5).check_output("distance", (-1.0, 1.0))
    with pytest.raises(ValueError, match="expects y_pred to hold distances"):
        TripletLoss().check_output("score", (0.0, 1.0))


@pytest.mark.deep
def test_training_lowers_it(rng):
    anchor, positive, negative = rng.normal(size=(3, 32, 4)).astype("float32")
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    model = SiameseWrapper(encoder)
    model.compile(keras.optimizers.Adam(0.02), loss=TripletLoss(margin=0.5))
    triplets = (anchor, anchor + 0.1 * positive, negative)
    history = model.fit(triplets, np.zeros(32), epochs=8, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
