"""Selection of triplets: the loop over positives and the sort against a plain loop, and the switch between them."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.losses.batch import base, mining
from tests.oracles import batch as oracles
from tests.oracles.batch import Batch, shares
from tests.support.batch_checks import (
    per_row,
)
from tests.support.batches import FURTHER, array, evaluate, uneven
from tests.support.gradients import gradient


def rows_of(labels, embeddings):
    """A `Rows` of numbers `(batch, 1)` with exact distances, so that ties are real."""
    batch = base.Batch(ops.convert_to_tensor(np.asarray(labels, "int32")), ops.convert_to_tensor(embeddings))
    return base.Rows(batch, None, losses.BatchTripletLoss(distance="manhattan").measure)


def hinge(gap, margin):
    value = ops.relu(gap + margin)
    return value, ops.cast(value > 0, value.dtype)


def walked(rows, margin):
    negative = ops.cast(rows.negative, "float32")
    return mining.walk_triplets(rows, lambda gap: hinge(gap, margin), negative)


def grid(rng, sizes):
    """Embeddings on a coarse grid along one axis: many equal distances, all exact in float32."""
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return labels, rng.integers(0, 5, size=(len(labels), 1)).astype("float32") * 0.25


def triplet_sums(labels, embeddings, margin):
    """For each anchor: Σ [gap + m]₊, how many terms are above zero, and the derivative by each distance."""
    batch, size = Batch(labels, embeddings), len(labels)
    sums, active, slopes = np.zeros(size), np.zeros(size), np.zeros((size, size))
    for a, p, n in batch.triplets():
        value = batch.d[a][p] - batch.d[a][n] + margin
        if value > 0:
            sums[a] += value
            active[a] += 1
            slopes[a, p] += 1
            slopes[a, n] -= 1
    return sums, active, slopes


@pytest.mark.each_backend
@pytest.mark.parametrize("margin", [pytest.param(0.0, marks=FURTHER), 0.25, pytest.param(0.3, marks=FURTHER)])
@pytest.mark.parametrize(
    "sizes", [(4, 1, 3, 2), (36, 1, 4, 2), *(pytest.param(few, marks=FURTHER) for few in ((2, 2), (5,), (1, 1, 1)))]
)
@pytest.mark.parametrize("way", [walked, mining.sorted_triplets], ids=["walk", "sort"])
def test_both_ways_to_all_triplets_are_the_loop_ties_included(way, sizes, margin, rng):
    labels, embeddings = grid(rng, sizes)
    found = [array(part) for part in way(rows_of(labels, embeddings), margin)]
    for part, expected in zip(found, triplet_sums(labels, embeddings, margin), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize("largest", [33, pytest.param(34, marks=FURTHER)])
def test_identities_on_both_sides_of_the_switch_from_walk_to_sort(largest, rng):
    """32 positives use the loop, 33 use the sort."""
    labels, embeddings = uneven(rng, (largest, 1, 3, 2), dim=3)
    values, grad = evaluate(per_row(losses.BatchTripletLoss(0.3)), labels, embeddings)
    sides = oracles.triplets(Batch(labels, embeddings), 0.3)
    np.testing.assert_allclose(values, shares(sides, len(labels)), rtol=1e-4, atol=1e-5)
    _, _, slopes = triplet_sums(labels, embeddings, 0.3)
    counted = sum(c for _, _, c in sides[0])

    def linear(x):
        weights = ops.convert_to_tensor((slopes / counted).astype("float32"))
        return ops.sum(losses.BatchTripletLoss().measure(x, x) * weights)

    np.testing.assert_allclose(grad, gradient(linear, embeddings)[0], rtol=0, atol=1e-4 * np.abs(grad).max())


def test_the_switch_is_where_the_loss_says(rng, monkeypatch):
    ways = []
    for name in ("walk_triplets", "sorted_triplets"):
        kept = getattr(mining, name)
        monkeypatch.setattr(mining, name, lambda *a, kept=kept, name=name: ways.append(name) or kept(*a))
    for largest in (mining.WALK_UP_TO + 1, mining.WALK_UP_TO + 2):
        labels, embeddings = grid(rng, (largest, 2))
        rows, expected = rows_of(labels, embeddings), triplet_sums(labels, embeddings, 0.25)[0]
        np.testing.assert_allclose(array(mining.all_triplets(rows, 0.25)[0]), expected, rtol=1e-5)
    assert {"walk_triplets", "sorted_triplets"} <= set(ways)
