"""`loss.metrics(…)` of pair and triplet losses: equal to loops over an epoch, also after reloading."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import SiameseWrapper, losses

DISTANCES = np.array([[0.2], [1.4], [0.3], [0.7], [1.1]], "float32")
SAME = np.array([1, 1, 0, 0, 0])


def read(metric):
    return float(metric.result())


def encoder():
    layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()]
    return keras.Sequential(layers)


@pytest.mark.each_backend
@pytest.mark.parametrize("similar_label", [1, 0])
def test_pairs(similar_label):
    loss = losses.ContrastiveLoss(margin=1.0, positive_margin=0.25, similar_label=similar_label)
    metrics = loss.metrics()
    assert [metric.name for metric in metrics] == ["positive_distance", "negative_distance", "active_fraction"]
    loss(SAME if similar_label else 1 - SAME, DISTANCES)
    # above zero: the genuine pair with 1.4 > .25, and the impostor pairs with .3 and .7 < 1
    assert [read(metric) for metric in metrics] == pytest.approx([0.8, 0.7, 0.6], rel=1e-6)


def test_triplets():
    distances = np.array([[0.2, 0.9, 0.3], [0.4, 1.5, 1.0]], "float32")
    loss = losses.TripletLoss(margin=0.5, swap=True)
    positive, negative, active = loss.metrics()
    loss(np.zeros(2), distances)
    assert [read(positive), read(negative), read(active)] == pytest.approx([0.3, 0.65, 0.5], rel=1e-6)
    assert losses.TripletLoss(soft=True).statistic_names() == ("positive_distance", "negative_distance")


def test_a_metric_that_is_told_does_not_count_twice():
    loss = losses.ContrastiveLoss()
    (metric,) = loss.metrics("negative_distance")
    for _ in range(2):
        loss(SAME, DISTANCES)
        metric.update_state(SAME, DISTANCES)
    assert float(metric.count) == 6
    metric.reset_state()
    metric.update_state(SAME, DISTANCES)  # alone, it asks the loss
    assert (float(metric.count), read(metric)) == (3, pytest.approx(0.7))


@pytest.mark.each_backend
@pytest.mark.parametrize(
    "jit_compile",
    [
        # On JAX, each operation is compiled by itself without it, which nobody chooses.
        pytest.param(False, marks=[pytest.mark.deep] if keras.backend.backend() == "jax" else []),
        pytest.param(
            True,
            marks=pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch.compile needs a C++ toolchain"),
        ),
    ],
)
@pytest.mark.deep_on("tensorflow")
def test_in_fit_evaluate_and_after_reloading(rng, tmp_path, jit_compile):
    left, right = rng.normal(size=(2, 22, 4)).astype("float32")
    same = rng.integers(0, 2, 22)
    model = SiameseWrapper(encoder())
    loss = losses.ContrastiveLoss(margin=1.0)
    model.compile(keras.optimizers.SGD(0.0), loss=loss, metrics=loss.metrics(), jit_compile=jit_compile)
    history = model.fit((left, right), same, batch_size=8, epochs=2, verbose=0).history
    distances = ops.convert_to_numpy(model((left, right)))[:, 0]
    hard = np.where(same == 1, distances > 0, distances < 1.0)
    expected = [distances[same == 1].mean(), distances[same == 0].mean(), hard.mean()]
    names = ["positive_distance", "negative_distance", "active_fraction"]
    for epoch in range(2):
        assert [history[name][epoch] for name in names] == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        found = one.evaluate((left, right), same, batch_size=8, verbose=0, return_dict=True)
        assert [found[name] for name in names] == pytest.approx(expected, rel=1e-5)


def test_unknown_statistics_and_losses_without_any():
    with pytest.raises(ValueError, match=r"`statistics` must be one of 'positive_distance', .*; got 'acc'"):
        losses.ContrastiveLoss().metrics("acc")
    with pytest.raises(ValueError, match="WeightedBinaryCrossentropy computes no distances"):
        losses.WeightedBinaryCrossentropy().metrics()
