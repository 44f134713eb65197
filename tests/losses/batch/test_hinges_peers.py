"""Losses on pairs of a batch against pytorch-metric-learning: values and gradients."""

import pytest

from keras_siamese import losses
from tests.support.batches import deep_elsewhere

torch = pytest.importorskip("torch")
peer_losses = pytest.importorskip("pytorch_metric_learning.losses")
peer_miners = pytest.importorskip("pytorch_metric_learning.miners")
peer_distances = pytest.importorskip("pytorch_metric_learning.distances")

from tests.support.peers import assert_peer, lp  # noqa: E402

CASES = {
    "contrastive": lambda: (losses.BatchContrastiveLoss(), peer_losses.ContrastiveLoss(distance=lp())),
    "contrastive with margins": lambda: (
        losses.BatchContrastiveLoss(1.5, 0.25),
        peer_losses.ContrastiveLoss(0.25, 1.5, distance=lp()),
    ),
    "intra-pair variance": lambda: (losses.IntraPairVarianceLoss(), peer_losses.IntraPairVarianceLoss()),
    "intra-pair variance with options": lambda: (
        losses.IntraPairVarianceLoss(0.25, 0.5),
        peer_losses.IntraPairVarianceLoss(0.25, 0.5),
    ),
    "SNR contrastive": lambda: (
        losses.SNRContrastiveLoss(),
        peer_losses.SignalToNoiseRatioContrastiveLoss(distance=peer_distances.SNRDistance(normalize_embeddings=False)),
    ),
    "margin": lambda: (losses.BatchMarginLoss(), peer_losses.MarginLoss(distance=lp())),
    "margin with options": lambda: (
        losses.BatchMarginLoss(0.5, 0.75),
        peer_losses.MarginLoss(0.5, beta=0.75, distance=lp()),
    ),
    "ranked list": lambda: (losses.RankedListLoss(0.4, 4.0), peer_losses.RankedListLoss(0.4, 4.0, distance=lp())),
    "ranked list with options": lambda: (
        losses.RankedListLoss(0.5, 2.0, 1.5, 0.25, 1.75),
        peer_losses.RankedListLoss(0.5, 2.0, imbalance=0.25, alpha=1.75, Tp=1.5, distance=lp()),
    ),
    "threshold-consistent margin": lambda: (
        losses.ThresholdConsistentMarginLoss(),
        peer_losses.ThresholdConsistentMarginLoss(),
    ),
    "threshold-consistent margin with options": lambda: (
        losses.ThresholdConsistentMarginLoss(2.0, 0.5, 0.75, 0.1),
        peer_losses.ThresholdConsistentMarginLoss(2.0, 0.5, 0.75, 0.1),
    ),
}


@deep_elsewhere
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorch_metric_learnings(name, rng):
    assert_peer(rng, *CASES[name]())
