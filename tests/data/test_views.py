"""EpochBatches: the batches of each epoch in any order, as a Grain source and as a tf.data.Dataset."""

import keras
import numpy as np
import pytest

from keras_siamese import SiameseWrapper, losses
from keras_siamese.data import BalancedBatchSequence, EpochBatches, PairSequence, TripletSequence

LABELS = np.arange(20) // 4
X = np.arange(40, dtype="float32").reshape(20, 2)
SEQUENCES = {
    "pairs": lambda **o: PairSequence(X, LABELS, batch_size=6, augment=lambda b, rng: b + rng.random(b.shape), **o),
    "triplets": lambda **o: TripletSequence(X, LABELS, batch_size=6, **o),
    "balanced": lambda **o: BalancedBatchSequence(X, LABELS, classes_per_batch=3, samples_per_class=2, **o),
}


def flat(batch):
    return keras.tree.flatten(batch)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_each_epoch_has_its_own_batches_in_any_order(kind):
    sequence = SEQUENCES[kind](seed=5)
    batches = EpochBatches(sequence, epochs=3, first_epoch=2)
    assert len(batches) == 3 * len(sequence)
    other = SEQUENCES[kind](seed=5)
    expected = []
    for epoch in (2, 3, 4):
        other.set_epoch(epoch)
        expected += [flat(other[i]) for i in range(len(other))]
    for index in np.random.default_rng(0).permutation(len(batches)):
        for got, wanted in zip(flat(batches[int(index)]), expected[index], strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert sequence.epoch == 0
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_as_a_tf_dataset():
    pytest.importorskip("tensorflow")
    batches = EpochBatches(SEQUENCES["pairs"](), epochs=2)
    dataset = batches.as_tf_dataset()
    assert int(dataset.cardinality()) == len(batches) == 8
    for got, wanted in zip(dataset, batches, strict=True):
        for one, other in zip(flat(got), flat(wanted), strict=True):
            np.testing.assert_array_equal(one.numpy(), other)


@pytest.mark.deep
@pytest.mark.each_backend
def test_fit_on_a_tf_dataset(rng):
    pytest.importorskip("tensorflow")
    sequence = PairSequence(X / 40, LABELS, batch_size=6)
    model = SiameseWrapper(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    model.compile("sgd", loss=losses.ContrastiveLoss())
    dataset = EpochBatches(sequence, epochs=2).as_tf_dataset()
    history = model.fit(dataset, epochs=2, steps_per_epoch=len(sequence), shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.partner("grain")
def test_as_a_grain_source():
    import grain

    batches = EpochBatches(SEQUENCES["balanced"](), epochs=2)
    for got, wanted in zip(grain.MapDataset.source(batches), batches, strict=True):
        for one, other in zip(flat(got), flat(wanted), strict=True):
            np.testing.assert_array_equal(one, other)


def test_refuses():
    with pytest.raises(TypeError, match="`sequence` must be a sequence of keras_siamese.data; got list"):
        EpochBatches([1, 2], epochs=2)
    with pytest.raises(ValueError, match="`epochs` must be at least 1; got 0"):
        EpochBatches(SEQUENCES["pairs"](), epochs=0)
    with pytest.raises(ValueError, match="`first_epoch` must be at least 0; got -1"):
        EpochBatches(SEQUENCES["pairs"](), epochs=1, first_epoch=-1)
