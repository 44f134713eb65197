"""Batch losses against live peers: pytorch-metric-learning and TensorFlow Addons; values, and gradients by embeddings.

The peers work in float64 on the CPU, ours in float32 on the backend at hand; NumPy stands between.
"""

import keras
import numpy as np
import pytest

from keras_siamese import addons, losses
from tests.support.batches import SIZES, evaluate, uneven

torch = pytest.importorskip("torch")
peer_losses = pytest.importorskip("pytorch_metric_learning.losses")
peer_miners = pytest.importorskip("pytorch_metric_learning.miners")
peer_distances = pytest.importorskip("pytorch_metric_learning.distances")


def lp(power=1):
    return peer_distances.LpDistance(normalize_embeddings=False, power=power)


def triplet_margin(**options):
    return peer_losses.TripletMarginLoss(distance=lp(), **{"margin": 0.2, **options})


def easy_hard(positives, negatives):
    strategies = positives.replace("_", ""), negatives.replace("_", "")
    return peer_miners.BatchEasyHardMiner(*strategies, distance=lp())


def triplet_miner(kind, margin=0.2):
    return peer_miners.TripletMarginMiner(margin, kind, distance=lp())


def pair(ours, theirs, miner=None):
    return ours, theirs, miner


STRATEGIES = ("all", "hard", "semi_hard", "easy")
REFUSED = {("semi_hard", "semi_hard"), ("semi_hard", "all"), ("all", "semi_hard")}
COMBINATIONS = [(p, n) for p in STRATEGIES for n in STRATEGIES if (p, n) not in REFUSED]

CASES = {
    "contrastive": lambda: pair(losses.BatchContrastiveLoss(), peer_losses.ContrastiveLoss(distance=lp())),
    "contrastive with margins": lambda: pair(
        losses.BatchContrastiveLoss(1.5, 0.25), peer_losses.ContrastiveLoss(0.25, 1.5, distance=lp())
    ),
    "triplets": lambda: pair(losses.BatchTripletLoss(), triplet_margin()),
    "triplets, wide margin": lambda: pair(losses.BatchTripletLoss(2.5), triplet_margin(margin=2.5)),
    "triplets, soft": lambda: pair(losses.BatchTripletLoss(soft=True), triplet_margin(smooth_loss=True)),
    "triplets of the margin miner": lambda: pair(losses.BatchTripletLoss(), triplet_margin(), triplet_miner("all")),
    "semi-hard triplets": lambda: pair(
        losses.BatchTripletLoss(0.3, negatives="semi_hard"), triplet_margin(margin=0.3), triplet_miner("semihard", 0.3)
    ),
    "semi-hard triplets, soft": lambda: pair(
        losses.BatchTripletLoss(negatives="semi_hard", soft=True),
        triplet_margin(smooth_loss=True),
        triplet_miner("semihard"),
    ),
    **{
        f"{p} positives, {n} negatives": lambda p=p, n=n: pair(
            losses.BatchTripletLoss(1.0, p, n), triplet_margin(margin=1.0), easy_hard(p, n)
        )
        for p, n in COMBINATIONS
    },
    **{
        f"{p} positives, {n} negatives, soft": lambda p=p, n=n: pair(
            losses.BatchTripletLoss(positives=p, negatives=n, soft=True),
            triplet_margin(smooth_loss=True),
            easy_hard(p, n),
        )
        for p, n in (("hard", "all"), ("all", "hard"), ("hard", "hard"))
    },
    "lifted structure": lambda: pair(losses.LiftedStructLoss(), peer_losses.LiftedStructureLoss(distance=lp())),
    "lifted structure with a margin": lambda: pair(
        losses.LiftedStructLoss(0.25), peer_losses.LiftedStructureLoss(neg_margin=0.25, distance=lp())
    ),
    "multi-similarity": lambda: pair(losses.MultiSimilarityLoss(), peer_losses.MultiSimilarityLoss()),
    "multi-similarity with options": lambda: pair(
        losses.MultiSimilarityLoss(3.0, 20.0, 0.25), peer_losses.MultiSimilarityLoss(3.0, 20.0, 0.25)
    ),
    "multi-similarity, mined": lambda: pair(
        losses.MultiSimilarityLoss(epsilon=0.1),
        peer_losses.MultiSimilarityLoss(),
        peer_miners.MultiSimilarityMiner(0.1),
    ),
    "circle": lambda: pair(losses.CircleLoss(), peer_losses.CircleLoss()),
    "circle with options": lambda: pair(losses.CircleLoss(0.25, 16.0), peer_losses.CircleLoss(0.25, 16.0)),
    "NT-Xent": lambda: pair(losses.NTXentLoss(), peer_losses.NTXentLoss()),
    "NT-Xent, warm": lambda: pair(losses.NTXentLoss(0.5), peer_losses.NTXentLoss(0.5)),
    "SupCon": lambda: pair(losses.SupConLoss(), peer_losses.SupConLoss()),
    "SupCon, warm": lambda: pair(losses.SupConLoss(0.5), peer_losses.SupConLoss(0.5)),
    "NCA": lambda: pair(losses.NCALoss(), peer_losses.NCALoss(distance=lp(2))),
    "NCA, sharp": lambda: pair(losses.NCALoss(3.0), peer_losses.NCALoss(3.0, distance=lp(2))),
    "tuplet margin": lambda: pair(losses.TupletMarginLoss(), peer_losses.TupletMarginLoss()),
    "tuplet margin with options": lambda: pair(
        losses.TupletMarginLoss(20.0, 8.0), peer_losses.TupletMarginLoss(20.0, 8.0)
    ),
    "intra-pair variance": lambda: pair(losses.IntraPairVarianceLoss(), peer_losses.IntraPairVarianceLoss()),
    "intra-pair variance with options": lambda: pair(
        losses.IntraPairVarianceLoss(0.25, 0.5), peer_losses.IntraPairVarianceLoss(0.25, 0.5)
    ),
    "SNR contrastive": lambda: pair(
        losses.SNRContrastiveLoss(),
        peer_losses.SignalToNoiseRatioContrastiveLoss(distance=peer_distances.SNRDistance(normalize_embeddings=False)),
    ),
    "margin": lambda: pair(losses.BatchMarginLoss(), peer_losses.MarginLoss(distance=lp())),
    "margin with options": lambda: pair(
        losses.BatchMarginLoss(0.5, 0.75), peer_losses.MarginLoss(0.5, beta=0.75, distance=lp())
    ),
    "ranked list": lambda: pair(losses.RankedListLoss(0.4, 4.0), peer_losses.RankedListLoss(0.4, 4.0, distance=lp())),
    "ranked list with options": lambda: pair(
        losses.RankedListLoss(0.5, 2.0, 1.5, 0.25, 1.75),
        peer_losses.RankedListLoss(0.5, 2.0, imbalance=0.25, alpha=1.75, Tp=1.5, distance=lp()),
    ),
    "threshold-consistent margin": lambda: pair(
        losses.ThresholdConsistentMarginLoss(), peer_losses.ThresholdConsistentMarginLoss()
    ),
    "threshold-consistent margin with options": lambda: pair(
        losses.ThresholdConsistentMarginLoss(2.0, 0.5, 0.75, 0.1),
        peer_losses.ThresholdConsistentMarginLoss(2.0, 0.5, 0.75, 0.1),
    ),
}


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


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorch_metric_learnings(name, rng):
    ours, loss, miner = CASES[name]()
    moved = 0
    for sizes in SIZES:
        labels, embeddings = uneven(rng, sizes)
        expected = theirs(loss, miner, labels, embeddings)
        assert_close(evaluate(ours, labels, embeddings), expected)
        moved += np.abs(expected[1]).max() > 1e-4
    assert moved >= 2, "batches on which nothing moves show nothing"


def test_generalized_lifted_is_pytorch_metric_learnings_where_no_row_lacks_a_side(rng):
    for sizes in ("pairs", (6, 2, 5, 2, 3)):
        labels, embeddings = uneven(rng, sizes)
        for margins in ((1.0, 0.0), (0.5, 0.25)):
            loss = peer_losses.GeneralizedLiftedStructureLoss(*margins, distance=lp())
            ours = losses.GeneralizedLiftedLoss(*margins)
            assert_close(evaluate(ours, labels, embeddings), theirs(loss, None, labels, embeddings))


def test_the_comparison_tells_losses_apart(rng):
    labels, embeddings = uneven(rng)
    expected = theirs(triplet_margin(), None, labels, embeddings)
    for loss in (losses.BatchTripletLoss(0.21), losses.BatchTripletLoss(negatives="hard")):
        with pytest.raises(AssertionError):
            assert_close(evaluate(loss, labels, embeddings), expected)


def test_chances_of_the_distance_weighted_draw_are_those_of_pytorch_metric_learnings_miner(rng):
    """Its miner draws; from thousands of draws an anchor, the shares come out to two digits."""
    from keras import ops

    from keras_siamese.losses.batch.base import Rows, as_batch
    from keras_siamese.losses.batch.mining import distance_weights

    labels, embeddings = uneven(rng, (3, 4, 2, 3))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    batch = as_batch(ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(embeddings))
    rows = Rows(batch, None, losses.BatchTripletLoss().measure)
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


# TensorFlow Addons

METRICS = ("L2", "squared-L2", "angular")
ADDONS = {
    **{f"semi-hard, {m}": ("TripletSemiHardLoss", {"distance_metric": m}, "mixed") for m in METRICS},
    **{f"semi-hard, {m}, no singletons": ("TripletSemiHardLoss", {"distance_metric": m}, "pairs") for m in METRICS},
    **{f"hard, {m}": ("TripletHardLoss", {"distance_metric": m}, "pairs") for m in METRICS},
    **{f"hard, soft, {m}": ("TripletHardLoss", {"distance_metric": m, "soft": True}, "pairs") for m in METRICS},
    "hard, narrow": ("TripletHardLoss", {"margin": 0.25}, "pairs"),
    "semi-hard, narrow": ("TripletSemiHardLoss", {"margin": 0.25}, "one large"),
    "lifted structure": ("LiftedStructLoss", {}, "mixed"),
    "lifted structure, one large": ("LiftedStructLoss", {"margin": 0.5}, "one large"),
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow Addons needs TensorFlow's tensors")
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
