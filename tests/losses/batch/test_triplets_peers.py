"""Triplet losses of a batch against pytorch-metric-learning and TensorFlow Addons: values and gradients."""

import numpy as np
import pytest

from keras_siamese import addons, losses
from tests.support.batches import deep_elsewhere, evaluate, uneven

torch = pytest.importorskip("torch")
peer_losses = pytest.importorskip("pytorch_metric_learning.losses")
peer_miners = pytest.importorskip("pytorch_metric_learning.miners")
peer_distances = pytest.importorskip("pytorch_metric_learning.distances")

from tests.support.peers import assert_close, assert_peer, lp, theirs, triplet_margin  # noqa: E402


def easy_hard(positives, negatives):
    strategies = positives.replace("_", ""), negatives.replace("_", "")
    return peer_miners.BatchEasyHardMiner(*strategies, distance=lp())


def triplet_miner(kind, margin=0.2):
    return peer_miners.TripletMarginMiner(margin, kind, distance=lp())


STRATEGIES = ("all", "hard", "semi_hard", "easy")


REFUSED = {("semi_hard", "semi_hard"), ("semi_hard", "all"), ("all", "semi_hard")}


COMBINATIONS = [(p, n) for p in STRATEGIES for n in STRATEGIES if (p, n) not in REFUSED]


CASES = {
    "triplets": lambda: (losses.BatchTripletLoss(), triplet_margin()),
    "triplets, wide margin": lambda: (losses.BatchTripletLoss(2.5), triplet_margin(margin=2.5)),
    "triplets, soft": lambda: (losses.BatchTripletLoss(soft=True), triplet_margin(smooth_loss=True)),
    "triplets of the margin miner": lambda: (losses.BatchTripletLoss(), triplet_margin(), triplet_miner("all")),
    "semi-hard triplets": lambda: (
        losses.BatchTripletLoss(0.3, negatives="semi_hard"),
        triplet_margin(margin=0.3),
        triplet_miner("semihard", 0.3),
    ),
    "semi-hard triplets, soft": lambda: (
        losses.BatchTripletLoss(negatives="semi_hard", soft=True),
        triplet_margin(smooth_loss=True),
        triplet_miner("semihard"),
    ),
    **{
        f"{p} positives, {n} negatives": lambda p=p, n=n: (
            losses.BatchTripletLoss(1.0, p, n),
            triplet_margin(margin=1.0),
            easy_hard(p, n),
        )
        for p, n in COMBINATIONS
    },
    **{
        f"{p} positives, {n} negatives, soft": lambda p=p, n=n: (
            losses.BatchTripletLoss(positives=p, negatives=n, soft=True),
            triplet_margin(smooth_loss=True),
            easy_hard(p, n),
        )
        for p, n in (("hard", "all"), ("all", "hard"), ("hard", "hard"))
    },
}


@deep_elsewhere
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorch_metric_learnings(name, rng):
    assert_peer(rng, *CASES[name]())


def test_the_comparison_tells_losses_apart(rng):
    labels, embeddings = uneven(rng)
    expected = theirs(triplet_margin(), None, labels, embeddings)
    for loss in (losses.BatchTripletLoss(0.21), losses.BatchTripletLoss(negatives="hard")):
        with pytest.raises(AssertionError):
            assert_close(evaluate(loss, labels, embeddings), expected)


METRICS = ("L2", "squared-L2", "angular")
ADDONS = {
    **{f"semi-hard, {m}": ("TripletSemiHardLoss", {"distance_metric": m}, "mixed") for m in METRICS},
    **{f"semi-hard, {m}, no singletons": ("TripletSemiHardLoss", {"distance_metric": m}, "pairs") for m in METRICS},
    **{f"hard, {m}": ("TripletHardLoss", {"distance_metric": m}, "pairs") for m in METRICS},
    **{f"hard, soft, {m}": ("TripletHardLoss", {"distance_metric": m, "soft": True}, "pairs") for m in METRICS},
    "hard, narrow": ("TripletHardLoss", {"margin": 0.25}, "pairs"),
    "semi-hard, narrow": ("TripletSemiHardLoss", {"margin": 0.25}, "one large"),
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
