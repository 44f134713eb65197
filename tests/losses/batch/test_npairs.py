"""`NpairsLoss` and `NpairsMultilabelLoss` against TensorFlow Addons and loops; and refused inputs."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import addons
from keras_siamese.losses import NpairsLoss, NpairsMultilabelLoss
from tests.oracles import npairs as oracles
from tests.support.batch_checks import QUICK_DTYPES, assert_compiles
from tests.support.batches import array, evaluate
from tests.support.gradients import gradient, numerical_gradient

LABELS = np.array([3, 1, 3, 2, 1, 3, 70_001])
CLASSES = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]])
CASES = {
    "NpairsLoss": (NpairsLoss, LABELS, oracles.npairs, oracles.wrong_npairs),
    "NpairsMultilabelLoss": (NpairsMultilabelLoss, CLASSES, oracles.multilabel, oracles.wrong_multilabel),
}
every_loss = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def similarity(rng):
    """Not symmetric, like the similarities of anchors with positives."""
    return (3.0 * rng.normal(size=(7, 7))).astype("float32")


@pytest.mark.tensorflow
@pytest.mark.parametrize("scale", [1.0, 40.0])
@every_loss
def test_value_and_gradient_are_tensorflow_addons(name, scale, similarity):
    import tensorflow as tf

    cls, y_true, _, _ = CASES[name]
    loss, tensor = getattr(addons.load().losses, name)(), tf.constant(scale * similarity)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = loss(tf.constant(y_true), tensor)
    found, grad = evaluate(cls(), y_true, scale * similarity)
    assert found == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(grad, tape.gradient(value, tensor).numpy(), atol=1e-6)


@pytest.mark.each_backend
@every_loss
def test_rows_are_the_loops(name, similarity):
    cls, y_true, oracle, _ = CASES[name]
    expected = oracle(y_true.tolist(), similarity.astype("float64").tolist())
    np.testing.assert_allclose(array(cls(reduction="none")(y_true, similarity)), expected, rtol=1e-5, atol=1e-5)
    assert array(cls()(y_true, similarity)) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.each_backend
@every_loss
def test_gradient_with_sample_weights_is_the_loops(name, similarity, rng):
    cls, y_true, oracle, _ = CASES[name]
    weights = rng.uniform(0, 2, size=7).astype("float32")
    (found,) = gradient(lambda s: cls()(y_true, s, sample_weight=weights), similarity)
    (numeric,) = numerical_gradient(lambda s: float(np.mean(weights * oracle(y_true.tolist(), s.tolist()))), similarity)
    np.testing.assert_allclose(found, numeric, atol=1e-5)


@every_loss
def test_oracles_reject_wrong_variants(name, similarity):
    _, y_true, oracle, wrong = CASES[name]
    arguments = y_true.tolist(), similarity.tolist()
    assert np.abs(np.subtract(oracle(*arguments), wrong(*arguments))).max() > 0.2


@pytest.mark.each_backend
@every_loss
def test_compiled_for_any_batch_size(name, similarity):
    cls, y_true, _, _ = CASES[name]
    assert_compiles(cls(), [(y_true, similarity), (y_true[:4], similarity[:4, :4])], y_true_rank=y_true.ndim)


# Edge cases


@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@every_loss
def test_batch_of_one_is_zero(name, dtype):
    cls, y_true, _, _ = CASES[name]
    values, grad = evaluate(cls(reduction="none"), y_true[:1], np.array([[2.5]], "float32"), dtype)
    assert (values.tolist(), grad.tolist()) == ([0.0], [[0.0]])


KINDS = {"all the same": [4] * 7, "all different": list(range(7))}


@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone(kind, dtype, similarity):
    similarity = np.round(similarity * 4) / 4
    values, grad = evaluate(NpairsLoss(reduction="none"), KINDS[kind], similarity, dtype)
    np.testing.assert_allclose(values, oracles.npairs(KINDS[kind], similarity.tolist()), rtol=1e-5, atol=1e-5)
    assert np.isfinite(grad).all()


def test_row_without_a_class_costs_nothing(similarity):
    classes = CLASSES.copy()
    classes[2] = 0
    values, grad = evaluate(NpairsMultilabelLoss(reduction="none"), classes, similarity)
    np.testing.assert_allclose(values, oracles.multilabel(classes.tolist(), similarity.tolist()), rtol=1e-5)
    assert values[2] == 0
    assert not grad[2].any()
    values, grad = evaluate(NpairsMultilabelLoss(), np.zeros_like(CLASSES), similarity)
    assert values == 0
    assert not grad.any()


@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@every_loss
def test_large_similarities_do_not_overflow(name, dtype):
    cls, y_true, _, _ = CASES[name]
    values, grad = evaluate(cls(reduction="none"), y_true, 2e4 * np.eye(7, dtype="float32"), dtype)
    assert np.isfinite(values).all()
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@every_loss
def test_nan_shows(name, dtype, similarity):
    cls, y_true, _, _ = CASES[name]
    similarity[2, 5] = np.nan
    values = array(cls(reduction="none")(y_true, ops.convert_to_tensor(similarity, dtype)))
    assert np.flatnonzero(np.isnan(values)).tolist() == [2]


def test_nan_among_the_classes_shows(similarity):
    classes = CLASSES.astype("float32")
    classes[2, 0] = np.nan
    assert np.isnan(array(NpairsMultilabelLoss()(ops.convert_to_tensor(classes), similarity)))


def test_large_and_named_identities_stay_apart(similarity):
    """float32 cannot tell 2²⁴ and 2²⁴ + 1 apart."""
    named = np.array(["c", "a", "c", "b", "a", "c", "d"])
    for labels in (named, named[:, None], np.unique(named, return_inverse=True)[1] + 2**24):
        expected = array(NpairsLoss(reduction="none")(LABELS, similarity))
        np.testing.assert_allclose(array(NpairsLoss(reduction="none")(labels, similarity)), expected)


def test_wrong_shapes_are_refused(similarity):
    for y_pred in (similarity[:, :5], similarity[:5, :5], similarity[0]):
        for cls, y_true, _, _ in CASES.values():
            with pytest.raises(ValueError, match="`y_pred` must be a matrix of similarities"):
                cls()(y_true, y_pred)
    with pytest.raises(ValueError, match="`y_true` must be identities of shape"):
        NpairsLoss()(CLASSES, similarity)
    with pytest.raises(ValueError, match="`y_true` must be classes of shape"):
        NpairsMultilabelLoss()(LABELS, similarity)
    with pytest.raises(ValueError, match="`y_true` must hold only 1 .* got 2"):
        NpairsMultilabelLoss()(2 * CLASSES, similarity)


@every_loss
def test_a_siamese_model_is_refused(name):
    with pytest.raises(ValueError, match=r"a matrix of similarities \(batch, batch\), but the model returns distances"):
        CASES[name][0]().check_output("distance", (0.0, 2.0))
