"""Losses on two replicas of a TensorFlow strategy: values, gradients and weights are those of one device."""

import json

import numpy as np
import pytest
from keras import ops

from keras_siamese import _replicas, losses
from keras_siamese._replicas import gathered, refuse_replicas
from tests.support.fresh_python import fresh

TRAINED = """
import json, sys
import tensorflow as tf
(device,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, 2 * [tf.config.LogicalDeviceConfiguration()])
import keras, numpy as np, keras_siamese as ks
rng = np.random.default_rng(0)
labels = rng.permutation(np.repeat(np.arange(8), 8))  # identities lie on both replicas
x = (rng.normal(size=(8, 6))[labels] + rng.normal(size=(64, 6))).astype("float32")
pairs = (x[::2], x[1::2]), (labels[::2] == labels[1::2]).astype("float32")
weights = {rows: rng.normal(size=(rows, 4)).astype("float32") for rows in (6, 4)}

def model_of(loss):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False), ks_unit()])
    if loss.expects == "embedding":
        return encoder, x, labels
    if loss.expects == "cosine":
        proxies = keras.Sequential([encoder, ks.layers.ProxyLogits(8)])
        return proxies, x, labels
    return ks.SiameseWrapper(encoder, head="logistic" if loss.expects == "score" else None), *pairs

def ks_unit():
    return keras.layers.UnitNormalization()

strategies = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = {}
for name, options in json.loads(sys.argv[1]).items():
    outcomes = []
    for strategy in strategies:
        with strategy.scope():
            keras.utils.set_random_seed(1)
            loss = getattr(ks.losses, name)(**options)
            model, inputs, targets = model_of(loss)
            model.compile(keras.optimizers.SGD(0.05), loss)
        history = model.fit(inputs, targets, batch_size=32, epochs=3, shuffle=False, verbose=0).history["loss"]
        outcomes.append([history, [weight.numpy().ravel().tolist() for weight in model.trainable_weights]])
    (losses, first), (others, second) = outcomes
    apart = max(np.abs(np.subtract(one, other)).max() for one, other in zip(first, second))
    found[name] = [float(np.abs(np.subtract(losses, others)).max()), float(apart)]
print(json.dumps(found))
"""
COMPARING = {  # of each kind of sum: over anchors, over all triplets, over proxies, within the batch
    "NTXentLoss": {},
    "SupConLoss": {},
    "BatchTripletLoss": {},
    "MultiSimilarityLoss": {},
    "SmoothAPLoss": {},
    "HistogramLoss": {},
    "RankedListLoss": {"margin": 0.4, "negative_temperature": 10.0},
    "LiftedStructLoss": {},
    "ProxyAnchorLoss": {},
    "ArcFaceLoss": {"scale": 8.0},
    "OnlineContrastiveLoss": {},
    "ContrastiveLoss": {},
    "WeightedBinaryCrossentropy": {"class_weight": "balanced"},
}


@pytest.mark.deep
@pytest.mark.tensorflow
def test_training_on_two_replicas_is_training_on_one():
    """Two batches of 32 rows, three epochs: loss curves and weights."""
    found = fresh(TRAINED, json.dumps(COMPARING))
    assert set(found) == set(COMPARING)
    wrong = {name: apart for name, apart in found.items() if max(apart) > 2e-5}
    assert not wrong


class Context:
    """Two replicas, of which the `number`-th holds some of the `rows`."""

    num_replicas_in_sync = 2

    def __init__(self, number, parts):
        self.replica_id_in_sync_group, self.parts = number, parts

    def all_gather(self, tensor, axis):
        if tuple(tensor.shape) == (1,):
            return ops.convert_to_tensor(np.array([len(part) for part in self.parts], "int32"))
        return ops.convert_to_tensor(np.concatenate(self.parts))


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3)])
def test_the_mean_over_replicas_of_what_is_their_own_is_that_over_all_rows(monkeypatch, rng, sizes):
    values = rng.normal(size=8).astype("float32")
    parts, means = np.split(values, [sizes[0]]), []
    for number, part in enumerate(parts):
        monkeypatch.setattr(_replicas, "replica_context", lambda number=number: Context(number, parts))
        (everywhere,), own = gathered(ops.convert_to_tensor(part))
        np.testing.assert_array_equal(ops.convert_to_numpy(everywhere), values)
        means.append(ops.convert_to_numpy(own(everywhere)).mean())
    assert np.mean(means) == pytest.approx(values.mean(), abs=1e-6)


def test_without_replicas_nothing_is_gathered():
    tensor = ops.ones((3,))
    (same,), own = gathered(tensor)
    assert same is tensor and own(tensor) is tensor


def test_a_similarity_matrix_of_one_replica_is_refused(monkeypatch):
    refuse_replicas(losses.NpairsLoss())
    monkeypatch.setattr(_replicas, "replica_context", lambda: Context(0, []))
    with pytest.raises(ValueError, match="NpairsLoss takes a similarity matrix, which on each of 2 replicas lacks"):
        losses.NpairsLoss()(np.array([0, 1]), np.eye(2, dtype="float32"))
