"""Facts of gradients that are not finite: the place, the pairs, and that all weights are put back."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.diagnosis.facts.gradients import gradient, of_gradients
from keras_siamese.scoring import has_finite_weights

EAGERLY = keras.backend.backend() == "tensorflow"  # a graph takes longer to trace than these runs take


def pairs(seed, twins=0, blank=0, count=128):
    """Pairs of 20 identities; the first `twins` hold one item twice, the last `blank` an item of zeros."""
    rng = np.random.default_rng(seed)
    centres, left, same = rng.normal(size=(20, 6)), rng.integers(0, 20, count), rng.integers(0, 2, count)
    right = np.where(same, left, (left + rng.integers(1, 19, count)) % 20)
    a, b = ((centres[one] + 0.3 * rng.normal(size=(count, 6))).astype("float32") for one in (left, right))
    b[:twins], a[count - blank :], same[: twins // 2] = a[:twins], 0, 0
    return [a, b], same.astype("float32")


def siamese(compare, activation=None):
    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation, use_bias=False)])
    sides = [keras.Input((6,)) for _ in range(2)]
    return keras.Model(sides, compare(*[encoder(side) for side in sides]))


def squared(u, v):
    return ops.sum((u - v) ** 2, axis=1, keepdims=True)


def root(u, v):
    return ops.sqrt(squared(u, v))


def safe(u, v):
    return ops.sqrt(ops.maximum(squared(u, v), 1e-7))


def cosine(u, v):
    return ops.sum(u * v, 1, keepdims=True) / (root(u, ops.zeros_like(u)) * root(v, ops.zeros_like(v)))


def contrastive(y_true, y_pred):
    y = ops.reshape(ops.cast(y_true, y_pred.dtype), ops.shape(y_pred))
    return ops.mean(y * y_pred**2 + (1 - y) * ops.maximum(2 - y_pred, 0) ** 2)


def of_roots(y_true, y_pred):
    return contrastive(y_true, ops.sqrt(y_pred))


def diagnosed(model, loss, data, optimizer="adam", train=True):
    model.compile(keras.optimizers.get(optimizer), loss, run_eagerly=EAGERLY)
    model.fit(*data, epochs=2, verbose=0, batch_size=32)
    return ks.diagnose(model, train=data if train else None, validation=pairs(9))


@pytest.mark.each_backend
@pytest.mark.parametrize(
    ("compare", "activation", "loss", "data", "place", "count"),
    [
        (root, None, contrastive, {"twins": 6}, "equal", 6),
        (cosine, "relu", contrastive, {"blank": 5}, "zero", 5),
        pytest.param(squared, None, of_roots, {"twins": 6}, "equal", 6, marks=pytest.mark.deep),
    ],
    ids=["a root", "a norm", "a root in the loss"],
)
def test_the_place_and_its_pairs_are_found(compare, activation, loss, data, place, count):
    keras.utils.set_random_seed(1)
    diagnosis = diagnosed(siamese(compare, activation), loss, pairs(0, **data))
    facts, finding = diagnosis.facts, diagnosis.findings[0]
    assert (finding.cause, finding.severity) == ("nan_gradient", "error"), str(diagnosis)
    assert facts[f"nan_at_{place}"] == 1 and facts[f"{place}_pairs"] == count and facts["nan_elsewhere"] == 0
    rows = np.arange(128)[:count] if place == "equal" else np.arange(128)[-count:]
    assert facts.rows[f"{place}_pairs"] == rows.tolist() and diagnosis.verdict.endswith("found: nan gradient.")


def test_nan_without_such_a_place_is_told_apart():
    keras.utils.set_random_seed(1)
    diagnosis = diagnosed(siamese(safe), contrastive, pairs(0, twins=6), keras.optimizers.SGD(1e20))
    assert [finding.cause for finding in diagnosis.findings] == ["learning_rate"]  # the size of one step is measured
    diagnosis = diagnosed(siamese(safe), lambda y, p: contrastive(y, p) * ops.log(-1.0), pairs(0, twins=6))
    assert [finding.cause for finding in diagnosis.findings] == ["undetermined"]
    assert diagnosis.facts["nan_losses"] == 1 and "the loss or the data hold NaN" in diagnosis.findings[0].summary


def test_without_training_data_the_place_alone_is_a_warning(tmp_path):
    keras.utils.set_random_seed(1)
    model = siamese(root)
    diagnosis = diagnosed(model, contrastive, pairs(0, twins=6), train=False)
    assert (diagnosis.findings[0].cause, diagnosis.findings[0].severity) == ("nan_gradient", "warning")
    assert "equal_pairs" not in diagnosis.facts and not has_finite_weights(
        model
    )  # the weights are as training left them
    with pytest.raises(ValueError, match="No embeddings of this run are finite"):
        diagnosis.to_html(tmp_path / "report.html")
    again = ks.diagnosis.Diagnosis.from_json(diagnosis.to_json(tmp_path / "report.json"))
    assert str(again) == str(diagnosis) and again.to_dict() == diagnosis.to_dict()


def test_a_step_that_raises_leaves_a_line_in_the_log(caplog):
    model = siamese(root)  # not compiled, so that it takes no step
    observed = SimpleNamespace(siamese=SimpleNamespace(model=model), fed=pairs(0), source=None)
    with caplog.at_level("INFO", logger="keras_siamese"):
        assert of_gradients(observed) == ({}, {}) and "are not looked for: a step raised" in caplog.text


def test_a_distance_matrix_with_a_root_of_its_diagonal():
    def matrix(y, z):
        distances = ops.sqrt(ops.sum((z[:, None] - z[None]) ** 2, -1))
        same = ops.cast(ops.equal(ops.reshape(y, (-1, 1)), ops.reshape(y, (1, -1))), z.dtype)
        return ops.mean(same * distances + (1 - same) * ops.maximum(1 - distances, 0))

    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(8)])
    encoder.compile("adam", matrix)
    labels = np.repeat(np.arange(16), 8)
    x = np.random.default_rng(0).normal(size=(128, 6)).astype("float32")
    encoder.fit(x, labels, verbose=0)
    diagnosis = ks.diagnose(encoder, train=(x, labels), validation=(x, labels))
    assert diagnosis.findings[0].cause == "nan_gradient" and diagnosis.facts["nan_elsewhere"] == 1


@pytest.mark.each_backend
def test_a_gradient_is_measured_by_a_step():
    u, v = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    left, right = gradient(lambda a, b: ops.sum(a * b**2, axis=1, keepdims=True), u, v)
    np.testing.assert_allclose(left, v**2 / 5, atol=1e-6)
    np.testing.assert_allclose(right, 2 * u * v / 5, atol=1e-6)
