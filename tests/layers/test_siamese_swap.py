"""The third distance of a triplet, d(positive, negative): put out, saved, trained on, and told apart from two."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.losses import ContrastiveLoss, TripletLoss, WeightedBinaryCrossentropy
from tests.oracles import rows as oracles


def encoder():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])


def triplets(rng, rows=6):
    return tuple(rng.normal(size=(3, rows, 4)).astype("float32"))


@pytest.mark.each_backend
@pytest.mark.parametrize("name", ["euclidean", "snr"])  # snr: d(p, n) is not d(n, p)
def test_the_third_distance_is_the_loops(name, rng):
    anchor, positive, negative = triplets(rng)
    out = ops.convert_to_numpy(DistanceLayer(name, swap=True)([anchor, positive, negative]))
    pairs = ((anchor, positive), (anchor, negative), (positive, negative))
    expected = np.transpose([oracles.rowwise(oracles.DISTANCES[name], a, b) for a, b in pairs])
    np.testing.assert_allclose(out, expected, rtol=1e-4)


@pytest.mark.parametrize("joint", [True, False])
def test_shapes_of_the_model(joint, rng):
    towers = triplets(rng)
    swapped, plain = SiameseWrapper(encoder(), joint=joint, swap=True), SiameseWrapper(encoder(), joint=joint)
    plain.encoder.set_weights(swapped.encoder.get_weights())
    three, two = (ops.convert_to_numpy(model(towers)) for model in (swapped, plain))
    assert (three.shape, two.shape) == ((6, 3), (6, 2))
    np.testing.assert_allclose(three[:, :2], two, rtol=1e-5)
    assert swapped.compute_output_shape([(6, 4)] * 3) == (6, 3)
    assert swapped.compute_output_shape([(6, 4)] * 2) == (6, 1)
    pair = SiameseWrapper(encoder(), swap=True)
    assert tuple(pair(towers[:2]).shape) == (6, 1)


def test_with_a_head(rng):
    model = SiameseWrapper(encoder(), head="logistic", swap=True)
    assert tuple(model(triplets(rng)).shape) == (6, 3)
    dense = SiameseWrapper(encoder(), head=keras.layers.Dense(1), swap=True)
    assert tuple(dense(triplets(rng)).shape) == (6, 1)
    assert dense.head.kernel.shape == (3, 1)


@pytest.mark.each_backend
@pytest.mark.parametrize("soft", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_training_and_saving(soft, tmp_path, rng):
    anchor, positive, negative = triplets(rng, 32)
    towers = (anchor, anchor + 0.1 * positive, negative)
    model = SiameseWrapper(encoder(), swap=True)
    model.compile(keras.optimizers.Adam(0.02), loss=TripletLoss(margin=0.5, soft=soft, swap=True))
    history = model.fit(towers, np.zeros(32), epochs=8, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.95 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (again.swap, again.loss.swap) == (True, True)
    np.testing.assert_allclose(again.predict(towers, verbose=0), model.predict(towers, verbose=0), atol=1e-6)
    # Pairs of the trained encoder are compared as ever.
    pairs = SiameseWrapper(again.encoder)
    pairs.compile(loss=ContrastiveLoss())
    assert np.isfinite(pairs.evaluate(towers[:2], np.ones(32), verbose=0))


def test_the_loss_says_which_option_is_missing(rng):
    towers = triplets(rng)
    for model_swaps, loss_swaps, message in [
        (
            False,
            True,
            r"shape \(batch, 3\); got \(6, 2\): use swap=True in the siamese model .*or swap=False in the loss",
        ),
        (
            True,
            False,
            r"shape \(batch, 2\); got \(6, 3\): use swap=False in the siamese model .*or swap=True in the loss",
        ),
    ]:
        model = SiameseWrapper(encoder(), swap=model_swaps)
        with pytest.raises(ValueError, match=message):
            TripletLoss(swap=loss_swaps)(np.zeros(6), model(towers))


def test_a_pair_loss_still_refuses_three_distances(rng):
    model = SiameseWrapper(encoder(), head="logistic", swap=True)
    with pytest.raises(ValueError, match=r"`y_pred` must have shape \(batch,\) or \(batch, 1\); got \(6, 3\)"):
        WeightedBinaryCrossentropy()(np.zeros(6), model(triplets(rng)))
