"""pytorch-metric-learning's losses beside ours: its value and gradient in float64, and the comparison.

Import it after `pytest.importorskip("pytorch_metric_learning")`.

    assert_peer(rng, NTXentLoss(), peer_losses.NTXentLoss())
"""

import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances as peer_distances
from pytorch_metric_learning import losses as peer_losses

from tests.support.batches import SIZES, evaluate, uneven


def lp(power=1):
    return peer_distances.LpDistance(normalize_embeddings=False, power=power)


def triplet_margin(**options):
    return peer_losses.TripletMarginLoss(distance=lp(), **{"margin": 0.2, **options})


def theirs(loss, miner, labels, embeddings):
    """The peer's value and gradient, in float64."""
    labels, embeddings = torch.tensor(labels), torch.tensor(embeddings.astype("float64"), requires_grad=True)
    mined = None if miner is None else miner(embeddings, labels)
    value = loss(embeddings, labels, mined)
    value.backward()
    return float(value.detach()), embeddings.grad.numpy()


def assert_close(found, expected, tolerance=1e-4):
    """Value and gradient, the latter on the scale of its largest entry."""
    assert found[0] == pytest.approx(expected[0], rel=tolerance, abs=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=tolerance * max(np.abs(expected[1]).max(), 1e-2))


def assert_peer(rng, ours, loss, miner=None):
    """Value and gradient are the peer's on each kind of batch."""
    moved = 0
    for sizes in SIZES:
        labels, embeddings = uneven(rng, sizes)
        expected = theirs(loss, miner, labels, embeddings)
        assert_close(evaluate(ours, labels, embeddings), expected)
        moved += np.abs(expected[1]).max() > 1e-4
    assert moved >= 2, "batches on which nothing moves show nothing"
