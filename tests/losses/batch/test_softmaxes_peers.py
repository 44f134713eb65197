"""Softmax losses of a batch against pytorch-metric-learning and TensorFlow Addons: values and gradients."""

import numpy as np
import pytest

from keras_siamese import addons, losses
from tests.support.batches import deep_elsewhere, evaluate, uneven

torch = pytest.importorskip("torch")
peer_losses = pytest.importorskip("pytorch_metric_learning.losses")
peer_miners = pytest.importorskip("pytorch_metric_learning.miners")
peer_distances = pytest.importorskip("pytorch_metric_learning.distances")

from tests.support.peers import assert_close, assert_peer, lp, theirs  # noqa: E402

CASES = {
    "lifted structure": lambda: (losses.LiftedStructLoss(), peer_losses.LiftedStructureLoss(distance=lp())),
    "lifted structure with a margin": lambda: (
        losses.LiftedStructLoss(0.25),
        peer_losses.LiftedStructureLoss(neg_margin=0.25, distance=lp()),
    ),
    "multi-similarity": lambda: (losses.MultiSimilarityLoss(), peer_losses.MultiSimilarityLoss()),
    "multi-similarity with options": lambda: (
        losses.MultiSimilarityLoss(3.0, 20.0, 0.25),
        peer_losses.MultiSimilarityLoss(3.0, 20.0, 0.25),
    ),
    "multi-similarity, mined": lambda: (
        losses.MultiSimilarityLoss(epsilon=0.1),
        peer_losses.MultiSimilarityLoss(),
        peer_miners.MultiSimilarityMiner(0.1),
    ),
    "circle": lambda: (losses.CircleLoss(), peer_losses.CircleLoss()),
    "circle with options": lambda: (losses.CircleLoss(0.25, 16.0), peer_losses.CircleLoss(0.25, 16.0)),
    "NT-Xent": lambda: (losses.NTXentLoss(), peer_losses.NTXentLoss()),
    "NT-Xent, warm": lambda: (losses.NTXentLoss(0.5), peer_losses.NTXentLoss(0.5)),
    "SupCon": lambda: (losses.SupConLoss(), peer_losses.SupConLoss()),
    "SupCon, warm": lambda: (losses.SupConLoss(0.5), peer_losses.SupConLoss(0.5)),
    "NCA": lambda: (losses.NCALoss(), peer_losses.NCALoss(distance=lp(2))),
    "NCA, sharp": lambda: (losses.NCALoss(3.0), peer_losses.NCALoss(3.0, distance=lp(2))),
    "tuplet margin": lambda: (losses.TupletMarginLoss(), peer_losses.TupletMarginLoss()),
    "tuplet margin with options": lambda: (losses.TupletMarginLoss(20.0, 8.0), peer_losses.TupletMarginLoss(20.0, 8.0)),
}


@deep_elsewhere
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorch_metric_learnings(name, rng):
    assert_peer(rng, *CASES[name]())


def test_generalized_lifted_is_pytorch_metric_learnings_where_no_row_lacks_a_side(rng):
    for sizes in ("pairs", (6, 2, 5, 2, 3)):
        labels, embeddings = uneven(rng, sizes)
        for margins in ((1.0, 0.0), (0.5, 0.25)):
            loss = peer_losses.GeneralizedLiftedStructureLoss(*margins, distance=lp())
            ours = losses.GeneralizedLiftedLoss(*margins)
            assert_close(evaluate(ours, labels, embeddings), theirs(loss, None, labels, embeddings))


ADDONS = {
    "lifted structure": ("LiftedStructLoss", {}, "mixed"),
    "lifted structure, one large": ("LiftedStructLoss", {"margin": 0.5}, "one large"),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ADDONS)
def test_values_and_gradients_are_tensorflow_addons(name, rng):
    import tensorflow as tf

    cls, options, sizes = ADDONS[name]
    labels, embeddings = uneven(rng, sizes)
    loss, tensor = getattr(addons.load().losses, cls)(**options), tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = loss(tf.constant(labels), tensor)
    expected = float(value), tape.gradient(value, tensor).numpy()
    assert np.abs(expected[1]).max() > 1e-3
    assert_close(evaluate(getattr(losses, cls)(**options), labels, embeddings), expected)
