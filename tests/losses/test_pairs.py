"""Pair losses against loops: values, gradients, labels, weights, reductions, degenerate batches, refused options."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from keras import ops
from sklearn.utils.class_weight import compute_sample_weight

from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss, PairLoss, SiameseLoss, WeightedBinaryCrossentropy
from tests.oracles import rows as oracles
from tests.support.gradients import gradient, numerical_gradient

SAME = np.array([1, 0, 0, 1, 0, 1, 0, 0])
DISTANCE = np.array([[0.3], [0.2], [1.7], [0.05], [0.9], [1.4], [0.6], [0.0]], "float32")
PROBABILITY = np.array([[0.9], [0.2], [0.01], [0.4], [0.6], [0.99], [0.5], [0.3]], "float32")


def value(loss, y_true=SAME, y_pred=DISTANCE, **options):
    return ops.convert_to_numpy(loss(y_true, y_pred, **options))


def per_pair(loss, y_true=SAME, y_pred=DISTANCE, **options):
    loss.reduction = "none"
    return value(loss, y_true, y_pred, **options)


CONTRASTIVE = [
    {},
    {"margin": 0.5},
    {"margin": 2.0, "positive_margin": 0.25},
    {"squared": False},
    {"margin": 1.5, "positive_margin": 1.5, "squared": False},
]


@pytest.mark.each_backend
@pytest.mark.parametrize("options", CONTRASTIVE)
def test_contrastive_is_the_loop(options):
    expected = [oracles.contrastive(s, d, **options) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)]
    np.testing.assert_allclose(per_pair(ContrastiveLoss(**options)), expected, rtol=1e-5, atol=1e-7)
    assert value(ContrastiveLoss(**options)) == pytest.approx(oracles.mean(expected), rel=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize("options", CONTRASTIVE)
def test_contrastive_gradient_is_the_loops(options):
    def loop(y_pred):
        return oracles.mean(oracles.contrastive(s, d, **options) for s, d in zip(SAME, y_pred[:, 0], strict=True))

    loss = ContrastiveLoss(**options)
    (analytic,) = gradient(lambda y_pred: loss(SAME, y_pred), DISTANCE)
    np.testing.assert_allclose(analytic, numerical_gradient(loop, DISTANCE)[0], rtol=1e-3, atol=1e-5)


def test_oracles_reject_wrong_variants():
    right = [oracles.contrastive(s, d) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)]
    flipped = [oracles.wrong_contrastive(s, d) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)]
    assert not np.isclose(oracles.mean(right), oracles.mean(flipped), rtol=0.1)
    weights, arguments = {0: 1.0, 1: 3.0}, (SAME, PROBABILITY[:, 0].tolist())
    weighted = oracles.weighted_binary_crossentropy(*arguments, weights.get)
    assert not np.isclose(weighted, oracles.wrong_weighted_binary_crossentropy(*arguments, weights.get), rtol=0.1)
    assert not np.isclose(
        weighted, oracles.weighted_binary_crossentropy(*arguments, lambda s: weights[1 - s]), rtol=0.01
    )


def test_perfect_separation_is_exactly_zero():
    """Broadcasting to (batch, batch) would give 1.25."""
    same, distance = np.repeat([1, 0], 4), np.repeat([[0.0], [2.0]], 4, axis=0).astype("float32")
    for y_true in (same, same[:, None]):
        assert value(ContrastiveLoss(), y_true, distance) == 0.0
        assert value(ContrastiveLoss(), y_true, distance[:, 0]) == 0.0
    assert np.mean(same * distance**2 + (1 - same) * np.maximum(1 - distance, 0) ** 2) == 1.25


LABELS = [SAME, SAME[:, None], SAME.astype(bool), SAME.astype("float32"), SAME.astype("uint8"), SAME[:, None] == 1]


@pytest.mark.parametrize("y_true", LABELS, ids=lambda labels: f"{labels.dtype}{labels.ndim}")
@pytest.mark.parametrize("y_pred", [DISTANCE, DISTANCE[:, 0]], ids=["column", "row"])
def test_label_forms(y_true, y_pred):
    expected = [oracles.contrastive(s, d) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)]
    np.testing.assert_allclose(per_pair(ContrastiveLoss(), y_true, y_pred), expected, rtol=1e-5)
    probability = PROBABILITY if y_pred.ndim == 2 else PROBABILITY[:, 0]
    crossentropy = [oracles.binary_crossentropy(s, p) for s, p in zip(SAME, PROBABILITY[:, 0].tolist(), strict=True)]
    np.testing.assert_allclose(per_pair(WeightedBinaryCrossentropy(), y_true, probability), crossentropy, rtol=1e-4)


@pytest.mark.parametrize("loss", [ContrastiveLoss, WeightedBinaryCrossentropy])
def test_shapes_that_would_broadcast_are_refused(loss):
    square = np.zeros((8, 8), "float32")
    with pytest.raises(ValueError, match=r"`y_true` must have shape \(batch,\) or \(batch, 1\); got \(8, 8\)"):
        loss()(square, DISTANCE)
    with pytest.raises(ValueError, match=r"`y_pred` must have shape .*; got \(8, 8\)"):
        loss()(SAME, square)
    with pytest.raises(ValueError, match=r"one row (a|for each) pair; got \(1,\) and \(8,\)"):
        loss()(SAME[:1], DISTANCE)


@pytest.mark.parametrize("make", [ContrastiveLoss, lambda **o: WeightedBinaryCrossentropy("balanced", **o)])
def test_similar_label_zero_is_the_opposite_convention(make):
    y_pred = DISTANCE if make is ContrastiveLoss else PROBABILITY
    weights = {"positive_weight": 3.0, "negative_weight": 0.5}
    ours, theirs = make(**weights), make(similar_label=0, **weights)
    np.testing.assert_allclose(per_pair(ours, SAME, y_pred), per_pair(theirs, 1 - SAME, y_pred), rtol=1e-6)
    assert not np.allclose(per_pair(ours, SAME, y_pred), per_pair(theirs, SAME, y_pred), rtol=0.1)


def test_positive_and_negative_weight():
    loss = ContrastiveLoss(positive_weight=3.0, negative_weight=0.5)
    expected = [
        (3.0 if s else 0.5) * oracles.contrastive(s, d) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)
    ]
    np.testing.assert_allclose(per_pair(loss), expected, rtol=1e-5)
    only = per_pair(ContrastiveLoss(negative_weight=0.0))
    np.testing.assert_array_equal(only[SAME == 0], np.zeros(5))
    assert only[SAME == 1].min() > 0


# Weighted binary cross-entropy


@pytest.mark.each_backend
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 3.0}, {0: 0.2, 1: 0.0}])
@pytest.mark.parametrize("similar_label", [1, 0])
def test_weighted_crossentropy_is_the_loop(class_weight, similar_label):
    y_true = SAME if similar_label == 1 else 1 - SAME
    if class_weight == "balanced":
        sample = dict(zip(y_true.tolist(), compute_sample_weight("balanced", y_true).tolist(), strict=True))
    else:
        sample = class_weight or {0: 1.0, 1: 1.0}

    def weight(same):
        return sample[int(same) if similar_label == 1 else 1 - int(same)]

    loss = WeightedBinaryCrossentropy(class_weight, similar_label=similar_label)
    expected = oracles.weighted_binary_crossentropy(SAME, PROBABILITY[:, 0].tolist(), weight)
    assert value(loss, y_true, PROBABILITY) == pytest.approx(expected, rel=1e-5)

    def loop(y_pred):
        return oracles.weighted_binary_crossentropy(SAME, y_pred[:, 0], weight)

    (analytic,) = gradient(lambda y_pred: loss(y_true, y_pred), PROBABILITY)
    np.testing.assert_allclose(analytic, numerical_gradient(loop, PROBABILITY, step=1e-6)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 0.5}])
def test_logits_are_probabilities_in_another_form(class_weight):
    logits = np.array([[2.0], [-1.5], [4.0], [-3.0], [0.1], [-0.2], [0.7], [1.9]], "float32")
    probability = np.array([[oracles.sigmoid(x)] for x in logits[:, 0].tolist()], "float32")
    from_logits = value(WeightedBinaryCrossentropy(class_weight, from_logits=True), SAME, logits)
    assert from_logits == pytest.approx(value(WeightedBinaryCrossentropy(class_weight), SAME, probability), rel=1e-4)


@pytest.mark.each_backend
def test_large_logits_neither_overflow_nor_stop_the_gradient():
    logits, loss = np.where(SAME == 0, 200.0, -200.0).astype("float32"), WeightedBinaryCrossentropy(from_logits=True)
    assert value(loss, SAME, logits) == pytest.approx(200.0)
    (grad,) = gradient(lambda y_pred: loss(SAME, y_pred), logits)
    np.testing.assert_allclose(grad, np.where(SAME == 0, 1 / 8, -1 / 8), rtol=1e-5)


@pytest.mark.each_backend
def test_certain_and_wrong_is_finite():
    loss, y_pred = WeightedBinaryCrossentropy(), SAME[:, None].astype("float32")
    assert np.isfinite(value(loss, 1 - SAME, y_pred))
    assert value(loss, SAME, y_pred) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(gradient(lambda p: loss(1 - SAME, p), y_pred)).all()


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("class_weight", ["balanced", {0: 5.0, 1: 2.0}])
def test_batch_of_one_class_is_the_plain_mean(label, class_weight):
    y_true = np.full(8, label)
    expected = oracles.mean(oracles.binary_crossentropy(label, p) for p in PROBABILITY[:, 0].tolist())
    assert value(WeightedBinaryCrossentropy(class_weight), y_true, PROBABILITY) == pytest.approx(expected, rel=1e-5)


def test_batch_without_weight_is_zero():
    loss = WeightedBinaryCrossentropy({0: 0.0, 1: 1.0})
    assert value(loss, np.zeros(8), PROBABILITY) == 0.0
    np.testing.assert_array_equal(gradient(lambda p: loss(np.zeros(8), p), PROBABILITY)[0], np.zeros((8, 1)))


def test_balanced_does_not_follow_the_share_of_the_classes():
    """Each class has one constant loss; the classes have 4 and 4 pairs, then 1 and 7."""
    share = [np.repeat([1, 0], counts) for counts in ((4, 4), (1, 7))]
    predictions = [np.where(y == 1, 0.5, 0.1).astype("float32") for y in share]
    balanced, plain = WeightedBinaryCrossentropy("balanced"), WeightedBinaryCrossentropy()
    even, uneven = (float(value(balanced, *batch)) for batch in zip(share, predictions, strict=True))
    assert uneven == pytest.approx(even, rel=1e-5)
    even, uneven = (float(value(plain, *batch)) for batch in zip(share, predictions, strict=True))
    assert uneven < 0.5 * even


# Degenerate distances


@pytest.mark.each_backend
@pytest.mark.parametrize("squared", [True, False])
def test_zero_distance(squared):
    loss, zero = ContrastiveLoss(margin=0.5, squared=squared, reduction="none"), np.zeros((8, 1), "float32")
    np.testing.assert_allclose(value(loss, SAME, zero), np.where(SAME == 1, 0.0, 0.25 if squared else 0.5))
    (grad,) = gradient(lambda d: ops.sum(loss(SAME, d)), zero)
    np.testing.assert_allclose(grad[:, 0], np.where(SAME == 1, 0.0, -1.0))


@pytest.mark.each_backend
def test_nan_is_not_hidden():
    y_pred = DISTANCE.copy()
    y_pred[3] = np.nan
    assert np.isnan(value(ContrastiveLoss(), SAME, y_pred))
    for class_weight in (None, "balanced", {0: 1.0, 1: 2.0}):
        assert np.isnan(value(WeightedBinaryCrossentropy(class_weight, from_logits=True), SAME, y_pred))
        assert np.isnan(value(WeightedBinaryCrossentropy(class_weight), SAME, y_pred))


@pytest.mark.each_backend
@pytest.mark.parametrize("wrong", [-1.0, 2.0, np.nan])
def test_labels_are_between_0_and_1(wrong):
    same = np.where(SAME == 1, 1.0, wrong).astype("float32")
    with pytest.raises(ValueError, match=r"`y_true` must hold labels in \[0, 1\]; got labels from .* similar_label=0"):
        ContrastiveLoss()(same, DISTANCE)
    traced = ContrastiveLoss(reduction="none").call(ops.convert_to_tensor(same), ops.convert_to_tensor(DISTANCE))
    np.testing.assert_array_equal(np.isnan(ops.convert_to_numpy(traced)), SAME != 1)
    smooth, right, wrong = (value(ContrastiveLoss(), one, DISTANCE) for one in (0.8 * SAME + 0.1, SAME, 1 - SAME))
    assert smooth == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_predictions(dtype):
    far = np.array([300.0] * 8, "float32")[:, None]
    assert value(ContrastiveLoss(), SAME, ops.cast(far, dtype)) == pytest.approx(90_000.0 * 3 / 8)
    expected = value(ContrastiveLoss(), SAME, DISTANCE)
    assert value(ContrastiveLoss(), SAME, ops.cast(DISTANCE, dtype)) == pytest.approx(float(expected), rel=1e-2)
    narrow = per_pair(ContrastiveLoss(dtype=dtype), SAME, DISTANCE).astype("float32")
    np.testing.assert_allclose(narrow, per_pair(ContrastiveLoss(), SAME, DISTANCE), rtol=3e-2, atol=1e-2)


# Keras's own options keep their meaning


def accepts(reduction):
    try:
        keras.losses.MeanSquaredError(reduction=reduction)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none", None, "mean", "mean_with_sample_weight"])
@pytest.mark.parametrize("shape", [None, (8,), (8, 1)])
def test_reduction_and_sample_weight(reduction, shape):
    if not accepts(reduction):
        with pytest.raises(ValueError, match="reduction"):
            ContrastiveLoss(reduction=reduction)
        return
    weight = np.array([0.0, 1.0, 2.0, 0.5, 1.0, 3.0, 0.25, 1.0])
    given = None if shape is None else weight.reshape(shape)
    pairs = zip(SAME, DISTANCE[:, 0].tolist(), weight if shape else np.ones(8), strict=True)
    terms = [w * oracles.contrastive(s, d) for s, d, w in pairs]
    got = value(ContrastiveLoss(reduction=reduction), sample_weight=given)
    if reduction in ("none", None):
        np.testing.assert_allclose(np.ravel(got), terms, rtol=1e-5)
    else:
        count = weight.sum() if reduction == "mean_with_sample_weight" and shape else 8
        assert got == pytest.approx(sum(terms) / (1 if reduction == "sum" else count), rel=1e-5)


class Through(keras.layers.Layer):
    """Multiplies its input by a weight of 1, so that `fit` has a weight to train."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x * self.scale


@pytest.mark.each_backend
@pytest.mark.parametrize("form", ["row", "column"])
def test_class_weight_in_fit(form):
    model = keras.Sequential([keras.Input((1,)), Through()])
    model.compile(keras.optimizers.SGD(0.0), loss=ContrastiveLoss(), run_eagerly=True)
    y_true = SAME if form == "row" else SAME[:, None]
    history = model.fit(DISTANCE, y_true, batch_size=8, class_weight={0: 0.5, 1: 3.0}, verbose=0)
    terms = [
        (3.0 if s else 0.5) * oracles.contrastive(s, d) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)
    ]
    assert history.history["loss"][0] == pytest.approx(oracles.mean(terms), rel=1e-5)


@hypothesis.settings(max_examples=20, deadline=None, database=None, derandomize=True)
@hypothesis.given(order=st.permutations(range(8)))
def test_order_of_the_batch_does_not_matter(order):
    for loss, y_pred in [(ContrastiveLoss(), DISTANCE), (WeightedBinaryCrossentropy("balanced"), PROBABILITY)]:
        assert value(loss, SAME[order], y_pred[order]) == pytest.approx(float(value(loss, SAME, y_pred)), rel=1e-5)


# Refused options


@pytest.mark.parametrize("margin", [-1.0, 0.0, 0, float("nan"), float("inf"), -float("inf")])
def test_margin_out_of_range(margin):
    with pytest.raises(ValueError, match=r"`margin` must be in \(0, inf\); got"):
        ContrastiveLoss(margin=margin)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"margin": "1"}, TypeError, "`margin` must be a number"),
        ({"margin": True}, TypeError, "`margin` must be a number"),
        ({"margin": 0.5, "positive_margin": 0.6}, ValueError, r"`positive_margin` must be in \[0, 0.5\]; got 0.6"),
        ({"positive_margin": -0.1}, ValueError, r"`positive_margin` must be in \[0, 1\]; got -0.1"),
        ({"positive_weight": -1.0}, ValueError, "`positive_weight` must be in"),
        ({"positive_weight": float("inf")}, ValueError, "`positive_weight` must be in"),
        ({"negative_weight": -1.0}, ValueError, "`negative_weight` must be in"),
        ({"similar_label": 2}, ValueError, "`similar_label` must be one of 0, 1; got 2"),
        ({"similar_label": "same"}, ValueError, "`similar_label` must be one of 0, 1; got 'same'"),
        (
            {"margn": 1.0},
            TypeError,
            "ContrastiveLoss takes the options margin, positive_margin, squared, .*; got margn",
        ),
        ({"reduction": "avg"}, ValueError, "`reduction`.*sum_over_batch_size"),
    ],
)
def test_contrastive_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        ContrastiveLoss(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"class_weight": "balance"}, ValueError, "`class_weight` must be one of None, 'balanced'; got 'balance'"),
        ({"class_weight": {0: 1.0}}, ValueError, '`class_weight` must be None, "balanced" or {0: w0, 1: w1}; got'),
        ({"class_weight": {0: 1.0, 2: 1.0}}, ValueError, "`class_weight` must be"),
        ({"class_weight": [1.0, 2.0]}, ValueError, "`class_weight` must be"),
        ({"class_weight": {0: 1.0, 1: -1.0}}, ValueError, r"`class_weight\[1\]` must be in \[0, inf\)"),
        ({"class_weight": {0: 1.0, 1: "2"}}, TypeError, r"`class_weight\[1\]` must be a number"),
        ({"margin": 1.0}, TypeError, "WeightedBinaryCrossentropy takes the options class_weight, from_logits, .*; got"),
    ],
)
def test_crossentropy_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        WeightedBinaryCrossentropy(**options)


def test_misspelt_options_show_those_of_the_bases():
    with pytest.raises(
        TypeError, match=r"positive_weight, negative_weight, similar_label, reduction, name, dtype; got"
    ):
        ContrastiveLoss(weights=1.0)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 0.25, 1: 4.0}])
def test_class_weight_survives_its_config(class_weight):
    loss = WeightedBinaryCrossentropy(class_weight, similar_label=0)
    again = WeightedBinaryCrossentropy.from_config(loss.get_config())
    assert again.class_weight == loss.class_weight
    assert value(again, SAME, PROBABILITY) == value(loss, SAME, PROBABILITY)


# The model's output is compared with what the loss expects


def test_margin_out_of_reach():
    ContrastiveLoss(margin=2.0).check_output("distance", (0.0, 2.0))
    ContrastiveLoss(margin=50.0).check_output("distance", (0.0, float("inf")))
    ContrastiveLoss(margin=50.0).check_output("distance", None)
    with pytest.raises(ValueError, match=r"`margin` of ContrastiveLoss must be at most 2, .*\[0, 2\].*; got 2.01"):
        ContrastiveLoss(margin=2.01).check_output("distance", (0.0, 2.0))


def test_kind_of_output():
    WeightedBinaryCrossentropy().check_output("score", (0.0, 1.0))
    with pytest.raises(ValueError, match=r"expects y_pred to hold distances, .* returns scores: .*head=None"):
        ContrastiveLoss().check_output("score", (0.0, 1.0))
    with pytest.raises(ValueError, match=r'expects y_pred to hold scores, .* returns distances: .*head="logistic"'):
        WeightedBinaryCrossentropy().check_output("distance", (0.0, 2.0))
    with pytest.raises(ValueError, match=r"has from_logits=True, but the model returns probabilities"):
        WeightedBinaryCrossentropy(from_logits=True).check_output("score", (0.0, 1.0))
    WeightedBinaryCrossentropy(from_logits=True).check_output("score", None)

    class OnEmbeddings(SiameseLoss):
        expects = "embedding"

    with pytest.raises(ValueError, match=r"expects y_pred to hold embeddings, .* use the encoder itself"):
        OnEmbeddings().check_output("distance", None)


def test_a_new_pair_loss_is_one_method():
    class Hinge(PairLoss):
        def per_pair(self, same, prediction):
            return ops.relu(1.0 + (2.0 * same - 1.0) * (prediction - 1.0))

    assert isinstance(Hinge(), SiameseLoss)
    expected = [max(1 + (1 if s else -1) * (d - 1), 0) for s, d in zip(SAME, DISTANCE[:, 0].tolist(), strict=True)]
    np.testing.assert_allclose(per_pair(Hinge()), expected, rtol=1e-5)
    with pytest.raises(TypeError, match="Hinge takes the options positive_weight"):
        Hinge(margin=1.0)


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow")
def test_training_with_each_loss_lowers_it(rng):
    x = rng.normal(size=(2, 32, 4)).astype("float32")
    same = rng.integers(0, 2, 32)
    x[1] = np.where(same[:, None] == 1, x[0] + 0.05 * x[1], x[1])
    for loss, head in [(ContrastiveLoss(), None), (WeightedBinaryCrossentropy("balanced"), "logistic")]:
        encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
        model = SiameseWrapper(encoder, head=head)
        model.compile(keras.optimizers.Adam(0.02), loss=loss)
        history = model.fit((x[0], x[1]), same, epochs=8, batch_size=16, verbose=0).history["loss"]
        assert history[-1] < 0.8 * history[0]
