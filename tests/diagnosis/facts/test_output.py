"""Facts of the output: curves of losses whose wishes are known, and models whose reach is known."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.facts.embeddings import of_swaps
from keras_siamese.diagnosis.facts.output import (
    GRID,
    Curve,
    best_guess,
    is_stuck,
    of_output,
    out_of_reach,
    probes,
    reach_of,
    stuck_cells,
    wants_distance,
    wants_probability,
)
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.scoring import attach, score


def cross_entropy(label, p):
    p = min(max(p, 1e-7), 1 - 1e-7)
    return -label * np.log(p) - (1 - label) * np.log(1 - p)


def of_logits(label, x):
    return np.logaddexp(0, x) - label * x


def squared(label, x):
    return (label - x) ** 2


def hinge(label, x):
    return max(0, 1 - label * x)


def contrastive(margin):
    return lambda label, d: label * d**2 + (1 - label) * max(margin - d, 0) ** 2


def curves(loss, labels=(1, 0)):
    return [Curve(loss, label) for label in labels]


@pytest.mark.parametrize(
    ("loss", "labels", "guess", "kind"),
    [
        (cross_entropy, (1, 0), 0.5, "probability"),
        (of_logits, (1, 0), 0, None),
        (squared, (1, 0), 0.5, None),
        (squared, (1, -1), 0, None),
        (hinge, (1, -1), 0, None),
        (contrastive(1), (1, 0), 0.5, "distance"),
        (contrastive(1), (0, 1), 0.5, "distance"),
        (contrastive(0.01), (1, 0), 0.0, "distance"),
        (contrastive(20), (1, 0), 10, "distance"),
    ],
)
def test_the_kind_of_output_that_a_loss_wants(loss, labels, guess, kind):
    of = curves(loss, labels)
    assert all(curve.is_bounded for curve in of) and best_guess(of) == pytest.approx(guess, rel=0.25, abs=0.01)
    assert (wants_distance(of), wants_probability(of)) == (kind == "distance", kind == "probability")


def test_a_loss_that_falls_for_ever():
    assert not Curve(lambda label, x: -label * x, 1).is_bounded
    assert not Curve(lambda label, x: label * x**2 + (1 - label) * max(1 - x, 0) ** 2, -1).is_bounded
    assert Curve(lambda label, x: -min(label * x, 1), 1).is_bounded


@pytest.mark.parametrize(
    ("loss", "labels", "low", "high", "expected"),
    [
        (cross_entropy, (1, 0), 0.5, 1.0, (0, 1)),  # the sigmoid of a distance
        (cross_entropy, (1, 0), 1.0, 1.0, (0, 10)),  # a softmax over one unit
        (cross_entropy, (1, 0), 0.0, 1.0, (0, 0)),
        (contrastive(1), (1, 0), 0.0, 2.0, (0, 0)),
        (contrastive(4), (1, 0), 0.0, 2.0, (0, 1)),  # (4 - 2)² over (4 - 2)²
        (contrastive(2), (1, 0), 0.0, 2.0, (0, 0)),
        (squared, (1, -1), 0.0, 1.0, (0, 1)),  # a ReLU
        (hinge, (1, -1), 0.0, 5.0, (0, 1)),
        (of_logits, (1, 0), 0.0, 1.0, (0.452, 1)),  # a sigmoid, taken for a logit
        (of_logits, (1, 0), -1.0, 1.0, (0.452, 0.452)),  # a cosine, taken for a logit
    ],
)
def test_what_a_range_of_outputs_cannot_win(loss, labels, low, high, expected):
    of = curves(loss, labels)
    assert out_of_reach(of, best_guess(of), low, high) == pytest.approx(expected, abs=0.08)


def test_where_a_loss_is_stuck():
    middle = (GRID[:-1] + GRID[1:]) / 2
    outside = (middle < 0) | (middle > 1)
    both = curves(cross_entropy)
    assert (stuck_cells(both, 0.5) == outside).all()
    assert (stuck_cells(both[:1], 0.5) == (middle < 0)).all()  # above 1, label 1 has no loss
    for loss, labels in ((contrastive(1), (1, 0)), (hinge, (1, -1)), (squared, (1, 0)), (contrastive(0.01), (1, 0))):
        of = curves(loss, labels)
        assert not stuck_cells(of, best_guess(of)).any()
        assert not any(stuck_cells([curve], best_guess(of)).any() for curve in of)


def test_a_saturated_probability_is_not_cut_off():
    outputs = np.array([-0.01, 0.0, 0.5, 1.0, 1.01, 1e6, -1e6])
    assert is_stuck(curves(cross_entropy), 0.5, outputs).tolist() == [True, False, False, False, True, True, True]


def test_probes_keep_signs_and_unit_norms(rng):
    z = rng.normal(size=(2, 20, 4))
    free = probes(*z)
    assert len(free) == 4 * 5 and max(np.abs(one).max() for pair in free for one in pair) > 500
    unit = z / np.linalg.norm(z, axis=2, keepdims=True)
    assert all(np.allclose(np.linalg.norm(one, axis=1), 1) for pair in probes(*unit) for one in pair)
    positive = probes(*np.abs(z))
    assert min(one.min() for pair in positive for one in pair) == 0
    collapsed = probes(*np.zeros((2, 20, 4)))
    assert max(np.abs(one).max() for pair in collapsed for one in pair) > 1


def model_of(compare, *, activation=None, unit=False):
    encoder = [keras.Input((6,)), layers.Dense(8, activation)] + ([layers.UnitNormalization()] if unit else [])
    encoder = keras.Sequential(encoder)
    sides = [keras.Input((6,)) for _ in range(2)]
    return keras.Model(sides, compare(*[encoder(side) for side in sides]))


def distance(u, v):
    return ops.sqrt(ops.maximum(ops.sum((u - v) ** 2, axis=1, keepdims=True), 1e-7))


def cosine(u, v):
    return layers.Dot(1, normalize=True)([u, v])


def constant(x):
    return ops.sigmoid(x) / ops.sigmoid(x)


COMPARATORS = {
    "a distance": (distance, {}, 0, None),
    "of unit vectors": (distance, {"unit": True}, 0, 2),
    "the sigmoid of a distance": (lambda u, v: ops.sigmoid(distance(u, v)), {}, 0.5, 1),
    "a cosine": (cosine, {}, -1, 1),
    "a cosine of positive vectors": (cosine, {"activation": "relu"}, 0, 1),
    "a head": (lambda u, v: layers.Dense(1, "sigmoid")(distance(u, v)), {}, 0, 1),
    "a head over many columns": (lambda u, v: layers.Dense(1, "sigmoid")(ops.abs(u - v)), {}, 0, 1),
    "a constant, as a softmax over one unit": (lambda u, v: constant(layers.Dense(1)(ops.abs(u - v))), {}, 1, 1),
}


@pytest.mark.each_backend
@pytest.mark.parametrize("name", COMPARATORS)
def test_the_reach_of_a_comparator(name, rng):
    compare, options, low, high = COMPARATORS[name]
    model = model_of(compare, **options)
    anatomy = dissect(model)
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    x = rng.normal(size=(2, 30, 6)).astype("float32")
    found = reach_of(anatomy, *[ops.convert_to_numpy(one) for one in anatomy.embed(list(x))])
    assert found[0] == pytest.approx(low, abs=0.02)
    assert found[1] > 1000 if high is None else found[1] == pytest.approx(high, abs=0.05)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def pairs(seed, count=400):
    rng = np.random.default_rng(seed)
    centres, left, same = rng.normal(size=(20, 6)), rng.integers(0, 20, count), rng.integers(0, 2, count)
    right = np.where(same, left, (left + rng.integers(1, 19, count)) % 20)
    a, b = ((centres[one] + 0.3 * rng.normal(size=(count, 6))).astype("float32") for one in (left, right))
    return [a, b], same.astype("float32")


def facts_of(model, loss, flip=False):
    model.compile("adam", loss)
    x, y = pairs(0)
    anatomy, trials = attach(model, (x, 1 - y if flip else y))
    return facts_by(anatomy, trials)


def facts_by(anatomy, trials):
    run = Observed({}, score(anatomy, trials), siamese=anatomy, output_kind=anatomy.output_kind)
    return of_output(run) | of_swaps(run)


@pytest.mark.each_backend
def test_facts_of_cross_entropy_of_a_distance():
    facts = facts_of(model_of(distance), "binary_crossentropy", flip=True)
    assert (facts["equal_end"], facts["wanted_end"], facts["wants_probability"]) == (-1, -1, 1)
    assert facts["cut_off_share"] > 0.5 and facts["out_of_reach"] == pytest.approx(0, abs=0.01)
    assert (facts["head_is_scalar"], facts["learned_head"], facts["trained_by_it"]) == (0, 0, 1)


def test_facts_of_the_sigmoid_of_a_distance():
    facts = facts_of(model_of(lambda u, v: ops.sigmoid(distance(u, v))), "binary_crossentropy")
    assert (facts["out_of_reach"], facts["out_of_reach_label"]) == (pytest.approx(1, abs=0.01), 0)
    assert (facts["cut_off_share"], facts["out_of_reach_least"]) == (0, pytest.approx(0, abs=0.01))


def test_facts_of_a_head_of_the_wrong_sign():
    head = layers.Dense(1, "sigmoid", kernel_initializer="ones")
    facts = facts_of(model_of(lambda u, v: head(distance(u, v))), "binary_crossentropy")
    assert (facts["head_is_scalar"], facts["equal_end"], facts["wanted_end"]) == (1, -1, 1)
    assert facts["out_of_reach"] == pytest.approx(0, abs=0.01) and "swap_gain" not in facts


def test_labels_that_a_loss_does_not_expect():
    def loss(y_true, y_pred):
        y = ops.reshape(ops.cast(y_true, y_pred.dtype), ops.shape(y_pred))
        return ops.mean(y * y_pred**2 + (1 - y) * ops.maximum(2 - y_pred, 0) ** 2)

    model = model_of(distance)
    model.compile("adam", loss)
    x, y = pairs(0)
    for labels, falls in ((y, 0), (2 * y - 1, 1)):
        anatomy, trials = attach(model, (x, labels))
        assert facts_by(anatomy, trials)["loss_falls_for_ever"] == falls


@pytest.mark.each_backend
def test_a_model_without_a_loss_of_pairs_has_no_curves():
    model = model_of(distance)
    anatomy, trials = attach(model, pairs(0))
    facts = facts_by(anatomy, trials)
    assert facts["equal_end"] == -1 and "out_of_reach" not in facts
