"""Distance-weighted sampling against pytorch-metric-learning's miner."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.losses.batch import base
from keras_siamese.losses.batch.mining import distance_weights
from tests.support.batches import uneven

torch = pytest.importorskip("torch")
peer_losses = pytest.importorskip("pytorch_metric_learning.losses")
peer_miners = pytest.importorskip("pytorch_metric_learning.miners")
peer_distances = pytest.importorskip("pytorch_metric_learning.distances")


@pytest.mark.deep
def test_chances_of_the_distance_weighted_draw_are_those_of_pytorch_metric_learnings_miner(rng):
    """The miner samples at random; thousands of samples for each anchor give the shares to two digits."""

    labels, embeddings = uneven(rng, (3, 4, 2, 3))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    batch = base.Batch(ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(embeddings))
    rows = base.Rows(batch, None, losses.BatchTripletLoss().measure)
    chances = np.asarray(ops.convert_to_numpy(distance_weights(rows)))
    miner, drawn = peer_miners.DistanceWeightedMiner(), np.zeros((len(labels), len(labels)))
    torch.manual_seed(3)
    tensors = torch.tensor(embeddings.astype("float64")), torch.tensor(labels)
    for _ in range(3000):
        a, _, n = miner(*tensors)
        np.add.at(drawn, (a.numpy(), n.numpy()), 1.0)
    samples = drawn.sum(axis=1, keepdims=True)
    assert samples.min() > 5000
    np.testing.assert_allclose(chances, drawn / samples, atol=5 * 0.5 / np.sqrt(samples.min()))
    assert np.ptp(chances[chances > 0]) > 0.2, "chances that hardly differ show nothing"
