"""`MarginLoss` and `OnlineContrastiveLoss` against loops: values, gradients, batches of one kind, ties, options."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import MarginLoss, OnlineContrastiveLoss
from tests.oracles import pairs as oracles
from tests.support.gradients import gradient, numerical_gradient

SAME = np.array([1, 0, 0, 1, 0, 1, 0, 0, 1])
DISTANCE = np.array([[0.3], [0.2], [1.7], [0.05], [0.9], [1.35], [0.6], [0.1], [0.55]], "float32")
HALVES = ["float32", "float16", "bfloat16"]
EACH = [MarginLoss, OnlineContrastiveLoss]


def value(loss, y_true=SAME, y_pred=DISTANCE, **options):
    return ops.convert_to_numpy(ops.cast(loss(y_true, y_pred, **options), "float32"))


def margin_rows(same, distances, **options):
    return [oracles.margin_loss(s, float(d), **options) for s, d in zip(same, distances, strict=True)]


CASES = [
    (MarginLoss, {}, margin_rows),
    (MarginLoss, {"margin": 0.5, "beta": 0.7}, margin_rows),
    (OnlineContrastiveLoss, {}, oracles.online_contrastive),
    (OnlineContrastiveLoss, {"margin": 1.5}, oracles.online_contrastive),
]


@pytest.mark.each_backend
@pytest.mark.parametrize(("cls", "options", "loop"), CASES)
def test_is_the_loop(cls, options, loop):
    expected = loop(SAME.tolist(), DISTANCE[:, 0].tolist(), **options)
    np.testing.assert_allclose(value(cls(**options, reduction="none")), expected, rtol=1e-5, atol=1e-6)
    assert value(cls(**options)) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize(("cls", "options", "loop"), CASES)
def test_gradient_is_the_loops(cls, options, loop):
    loss = cls(**options)
    (slope,) = gradient(lambda y_pred: loss(SAME, y_pred), DISTANCE)
    same = SAME.tolist()
    (numeric,) = numerical_gradient(lambda d: float(np.mean(loop(same, d[:, 0].tolist(), **options))), DISTANCE)
    np.testing.assert_allclose(slope, numeric, rtol=1e-3, atol=1e-5)


def test_oracles_reject_wrong_variants():
    same, distances = SAME.tolist(), DISTANCE[:, 0].tolist()
    wrong = [oracles.wrong_margin_loss(s, d) for s, d in zip(same, distances, strict=True)]
    assert not np.isclose(np.mean(margin_rows(same, distances)), np.mean(wrong), rtol=0.1)
    right = oracles.online_contrastive(same, distances)
    assert not np.isclose(np.mean(right), np.mean(oracles.wrong_online_contrastive(same, distances)), rtol=0.1)
    assert 0 < np.count_nonzero(right) < len(right)


def test_the_sum_is_sentence_transformers():
    for rows in (slice(0, 9), slice(1, 7)):
        same, distances = SAME[rows].tolist(), DISTANCE[rows, 0].tolist()
        expected = oracles.sentence_transformers(same, distances)
        got = value(OnlineContrastiveLoss(reduction="sum"), SAME[rows], DISTANCE[rows])
        assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("similar_label", [1, 0])
def test_weights_and_labels_of_the_family(similar_label):
    labels = SAME if similar_label == 1 else 1 - SAME
    factor = np.where(SAME == 1, 3.0, 0.5)
    for cls, options, loop in CASES:
        loss = cls(**options, positive_weight=3.0, negative_weight=0.5, similar_label=similar_label, reduction="none")
        expected = factor * loop(SAME.tolist(), DISTANCE[:, 0].tolist(), **options)
        np.testing.assert_allclose(value(loss, labels), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", EACH)
def test_sample_weight_and_reduction(cls):
    rows, weight = value(cls(reduction="none")), np.linspace(0.0, 2.0, 9)
    for shape in ((9,), (9, 1)):
        got = value(cls(), sample_weight=weight.reshape(shape))
        assert got == pytest.approx(np.mean(weight * rows), rel=1e-5)


@pytest.mark.parametrize("cls", EACH)
def test_order_of_the_batch_does_not_matter(cls):
    order = np.random.default_rng(3).permutation(9)
    loss = cls(reduction="none")
    np.testing.assert_allclose(value(loss, SAME[order], DISTANCE[order]), value(loss)[order], rtol=1e-6)


# Batches with only one kind of pairs


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", [0, 1])
def test_one_kind_alone_is_compared_with_its_own_mean(kind, dtype):
    same = np.full(9, kind)
    distances = ops.convert_to_numpy(ops.cast(DISTANCE, dtype)).astype("float32")
    got = value(OnlineContrastiveLoss(reduction="none", dtype=dtype), same, ops.cast(DISTANCE, dtype))
    expected = oracles.online_contrastive(same.tolist(), distances[:, 0].tolist())
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-4)
    assert 0 < np.count_nonzero(got) < 9


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("cls", EACH)
def test_one_row(cls, kind, dtype):
    got = value(cls(dtype=dtype), np.array([kind]), ops.cast([[1.25]], dtype))
    expected = oracles.margin_loss(kind, 1.25) if cls is MarginLoss else 0.0
    assert got == pytest.approx(expected, rel=1e-2)
    (slope,) = gradient(lambda y_pred: cls()(np.array([kind]), y_pred), np.array([[1.25]], "float32"))
    assert np.all(np.isfinite(slope))


def test_one_pair_of_each_kind_is_the_true_loss():
    """In sentence-transformers each pair is compared with itself, so neither is hard."""
    same, distances = np.array([1, 0]), np.array([[0.4], [0.1]], "float32")
    got = value(OnlineContrastiveLoss(reduction="none"), same, distances)
    np.testing.assert_allclose(got, [0.16, 0.16], rtol=1e-5)
    assert oracles.sentence_transformers(same.tolist(), distances[:, 0].tolist()) == 0.0


@pytest.mark.parametrize("dtype", HALVES)
def test_pairs_in_order_cost_nothing(dtype):
    apart = ops.cast(np.where(SAME == 1, 0.25, 0.375)[:, None], dtype)
    assert value(OnlineContrastiveLoss(dtype=dtype), SAME, apart) == 0.0
    tied = ops.cast(np.full((9, 1), 0.25), dtype)  # neither farther nor closer
    assert value(OnlineContrastiveLoss(dtype=dtype), SAME, tied) == 0.0
    far = ops.cast(np.where(SAME == 1, 1.0, 1.5)[:, None], dtype)
    assert value(MarginLoss(0.125, 1.25, dtype=dtype), SAME, far) == 0.0
    (slope,) = gradient(lambda y_pred: OnlineContrastiveLoss()(SAME, y_pred), np.full((9, 1), 0.25, "float32"))
    np.testing.assert_array_equal(slope, np.zeros((9, 1)))


@pytest.mark.each_backend
@pytest.mark.parametrize("cls", EACH)
def test_zero_distances(cls):
    (slope,) = gradient(lambda y_pred: cls()(SAME, y_pred), np.zeros((9, 1), "float32"))
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("cls", EACH)
@pytest.mark.parametrize("row", range(9))
def test_nan_is_not_hidden(cls, dtype, row):
    """The NaN can be in any pair, also in the one that the others are compared with."""
    distances = DISTANCE.copy()
    distances[row] = np.nan
    rows = value(cls(reduction="none", dtype=dtype), SAME, distances)
    assert np.isnan(rows[row])


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("cls", "options", "loop"), CASES)
def test_half_precision(cls, options, loop, dtype):
    got = value(cls(**options, dtype=dtype, reduction="none"), SAME, ops.cast(DISTANCE, dtype))
    np.testing.assert_allclose(got, loop(SAME.tolist(), DISTANCE[:, 0].tolist(), **options), rtol=3e-2, atol=1e-2)
    far = value(OnlineContrastiveLoss(), SAME, ops.cast(np.full((9, 1), 300.0) + SAME[:, None], dtype))
    assert np.isfinite(far)


# The distances that a model can reach, and refused options


def test_reach():
    MarginLoss().check_output("distance", (0.0, 2.0))
    MarginLoss(0.8, 1.2).check_output("distance", (0.0, 2.0))
    MarginLoss(5.0, 9.0).check_output("distance", (0.0, float("inf")))
    MarginLoss().check_output("distance", None)
    with pytest.raises(ValueError, match=r"`margin` of MarginLoss must be at most 0.8, .*\[0, 2\].*; got 0.9"):
        MarginLoss(0.9, 1.2).check_output("distance", (0.0, 2.0))
    with pytest.raises(ValueError, match=r"`margin` of MarginLoss must be at most 0.1, .*; got 0.2"):
        MarginLoss(0.2, 0.1).check_output("distance", (0.0, 2.0))
    with pytest.raises(ValueError, match=r"`beta` of MarginLoss must be a distance of the model, in \[0, 1\]; got 1.2"):
        MarginLoss().check_output("distance", (0.0, 1.0))
    with pytest.raises(ValueError, match=r"`margin` of OnlineContrastiveLoss must be at most 1, .*; got 1.5"):
        OnlineContrastiveLoss(1.5).check_output("distance", (0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginLoss(margin=0), r"`margin` must be in \(0, inf\); got 0"),
        (lambda: MarginLoss(beta=-1.0), r"`beta` must be in \(0, inf\); got -1.0"),
        (lambda: OnlineContrastiveLoss(margin=float("nan")), r"`margin` must be in \(0, inf\); got nan"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="MarginLoss takes the options margin, beta, positive_weight, .*; got alpha"):
        MarginLoss(alpha=1.0)


@pytest.mark.deep
@pytest.mark.parametrize("cls", EACH)
def test_training_lowers_it(cls, rng):
    x = rng.normal(size=(2, 64, 4)).astype("float32")
    same = rng.integers(0, 2, 64)
    x[1] = np.where(same[:, None] == 1, x[0] + 0.3 * x[1], x[1])
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    model = SiameseWrapper(encoder)
    jit = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.Adam(0.02), loss=cls(), jit_compile=jit)
    history = model.fit((x[0], x[1]), same, epochs=15, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
