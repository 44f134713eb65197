"""Facts of embeddings against their definitions, against loops, and at the ends of their ranges."""

import math
from dataclasses import replace

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import verification
from keras_siamese.diagnosis.facts.embeddings import (
    HEALTH,
    alignment,
    effective_rank,
    health_of,
    hubness,
    intra_inter_ratio,
    neighbours,
    of_swaps,
    purity,
    resembles_distance,
    scores_by,
    spacing,
    spread,
    uniformity,
)
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import ScoredTrials, Trials


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest.py: nothing here draws from Keras."""


@pytest.fixture
def sphere(rng):
    z = rng.normal(size=(1500, 16))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def all_pairs(n):
    return np.triu_indices(n, 1)


def test_spread_is_one_on_the_sphere_and_zero_at_a_point(sphere):
    assert spread(sphere) == pytest.approx(1, abs=0.02)
    assert spread(np.ones((50, 3))) == pytest.approx(0, abs=1e-12)
    assert spread(np.zeros((50, 3))) == 0.0


def test_spread_equals_a_loop(rng):
    embeddings = rng.normal([1.0, 2.0, 0.0], size=(20, 3))
    directions = [[value / math.dist(row, (0, 0, 0)) for value in row] for row in embeddings.tolist()]
    deviations = []
    for column in zip(*directions, strict=True):
        mean = sum(column) / len(column)
        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in column) / len(column)))
    assert spread(embeddings) == pytest.approx(sum(deviations) / 3 * math.sqrt(3))


def test_spread_looks_at_directions_alone(rng, sphere):
    assert spread(sphere * rng.uniform(0.1, 9, (len(sphere), 1))) == pytest.approx(spread(sphere))


def test_spacing_is_one_for_clusters_in_few_dimensions_where_spread_is_small(rng):
    poles = np.zeros((200, 64))
    poles[:, 5] = np.repeat([1, -1], 100)
    across = np.arange(100), np.arange(100) + 100
    assert spread(poles) == pytest.approx(1 / 8)
    assert spacing(poles, *across) == pytest.approx(math.sqrt(2))
    assert spacing(rng.normal(size=(300, 2)), *all_pairs(300)) == pytest.approx(1, abs=0.25)


def test_spacing_is_zero_at_a_point_and_ignores_outliers(rng):
    at_zero = np.zeros((100, 4))
    assert spacing(at_zero, *all_pairs(100)) == 0.0
    one_out = at_zero.copy()
    one_out[7, 2] = 400.0
    assert spacing(one_out, *all_pairs(100)) == 0.0
    around = np.array([5.0, 0, 0, 0]) + rng.normal(0, 0.01, (100, 4))
    assert spacing(around, *all_pairs(100)) < 0.01
    assert spacing(around * 1000, *all_pairs(100)) == pytest.approx(spacing(around, *all_pairs(100)))


def test_spacing_equals_a_loop(rng):
    embeddings = rng.normal(size=(7, 3))
    left, right = [0, 3, 5], [1, 2, 6]
    distances = sorted(math.dist(embeddings[i], embeddings[j]) for i, j in zip(left, right, strict=True))
    norm = sum(math.dist(row, (0, 0, 0)) ** 2 for row in embeddings) / 7
    assert spacing(embeddings, left, right) == pytest.approx(distances[1] / math.sqrt(2 * norm))


def test_effective_rank_counts_the_directions_in_use(rng):
    assert effective_rank(rng.normal(size=(400, 8))) == pytest.approx(8, abs=0.1)
    line = rng.normal(size=(400, 1)) * np.arange(1.0, 9.0)
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert effective_rank(np.ones((5, 3))) == 0.0
    shares = np.array([3.0, 1.0]) / 4
    uneven = np.concatenate([np.diag([3.0, 1.0]), -np.diag([3.0, 1.0])])
    assert effective_rank(uneven) == pytest.approx(math.exp(-np.sum(shares * np.log(shares))))


def test_intra_inter_ratio_is_one_at_chance():
    same = [True, True, False, False]
    assert intra_inter_ratio(same, [1.0, 3.0, 2.0, 2.0]) == 1.0
    assert intra_inter_ratio(same, [0.0, 1.0, 2.0, 2.0]) == 0.25
    assert intra_inter_ratio(same, [0.0, 0.0, 0.0, 0.0]) == 1.0


def test_uniformity_and_alignment_equal_loops(rng):
    z = rng.normal(size=(12, 3))
    unit = [[value / math.dist(row, (0, 0, 0)) for value in row] for row in z.tolist()]
    left, right = all_pairs(12)
    squares = [math.dist(unit[i], unit[j]) ** 2 for i, j in zip(left, right, strict=True)]
    mean = sum(math.exp(-2 * square) for square in squares) / len(squares)
    assert uniformity(z) == pytest.approx(math.log(mean))
    assert alignment(z, left[:7], right[:7]) == pytest.approx(sum(squares[:7]) / 7)


def test_uniformity_of_a_sphere_and_of_a_point(rng):
    sphere = rng.normal(size=(1500, 64))
    assert uniformity(sphere) == pytest.approx(-3.88, abs=0.02)
    assert uniformity(np.ones((20, 3))) == pytest.approx(0, abs=1e-9)
    assert uniformity(np.eye(4)) == pytest.approx(-4)


def test_neighbours_equal_a_loop(rng):
    z = rng.normal(size=(30, 4))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    for row, found in enumerate(neighbours(z, 5)):
        order = sorted((j for j in range(30) if j != row), key=lambda j: -(unit[row] @ unit[j]))
        assert found.tolist() == order[:5]
    assert neighbours(z[:4], 5).shape == (4, 3)


def test_purity_beside_its_permutation_null(rng):
    identities = np.repeat(np.arange(20), 5)
    noise = rng.normal(size=(100, 8))
    share, null, error = purity(noise, identities, k=4)
    assert abs(share - null) < 4 * error and null == pytest.approx(4 / 99, abs=0.01)
    clusters = rng.normal(size=(20, 8))[identities] + 0.01 * noise
    assert purity(clusters, identities, k=4)[0] == 1.0


def test_many_dimensions_have_hubs_and_few_have_none(rng):
    """As Radovanović, Nanopoulos and Ivanović found on such data."""
    few, lonely = hubness(rng.uniform(size=(400, 3)) - 0.5, k=10)
    many, anti_hubs = hubness(rng.normal(size=(400, 100)) + 0.5, k=10)
    assert many > few + 0.5 and anti_hubs > lonely
    assert hubness(np.repeat(np.eye(3), 4, axis=0), k=3) == (0.0, 0.0)


def test_other_comparisons_of_the_same_embeddings():
    z = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    scores = scores_by(z, [0, 0], [1, 2])
    assert scores["cosine"].tolist() == [1.0, 0.0]
    assert scores["euclidean"].tolist() == pytest.approx([-2.0, -math.sqrt(5)])


@pytest.mark.parametrize(("identities", "has_purity"), [(3, False), (4, True)])
def test_health_is_that_of_the_embeddings(rng, identities, has_purity):
    """Purity is measured for more than 12 embeddings of known identities."""
    labels = np.repeat(np.arange(identities), 4)
    z = rng.normal(size=(identities, 5))[labels] + rng.normal(size=(len(labels), 5))
    trials = Trials.from_labels(z, labels)
    same, scores = trials.same, -np.linalg.norm(z[trials.left] - z[trials.right], axis=1)
    found = health_of(ScoredTrials(trials, z, scores))
    assert tuple(found) == HEALTH and found["spread"] == spread(z) and found["effective_rank"] == effective_rank(z)
    assert found["uniformity"] == uniformity(z)
    assert found["alignment"] == alignment(z, trials.left[same], trials.right[same])
    assert found["d_prime"] == verification.d_prime(same, scores)
    expected = purity(z, labels, permutations=2)[0] if has_purity else math.nan
    assert found["purity"] == pytest.approx(expected, nan_ok=True)
    assert math.isnan(health_of(ScoredTrials(replace(trials, identities=None), z, scores))["purity"])


def test_facts_of_embeddings_that_verify_better_by_the_cosine(rng):
    labels = np.repeat(np.arange(15), 4)
    z = (rng.normal(size=(15, 5))[labels] + 0.4 * rng.normal(size=(60, 5))) * rng.uniform(0.1, 9, (60, 1))
    trials = Trials.from_labels(z, labels)
    left, right, same = trials.left, trials.right, trials.same
    scores = scores_by(z, left, right)
    facts = Observed(Run(), ScoredTrials(trials, z, scores["euclidean"])).facts
    norms = [math.dist(row, [0] * 5) for row in z.tolist()]
    assert facts["norm_variation"] == pytest.approx(np.std(norms) / np.mean(norms)) and facts["embedding_dim"] == 5
    assert (facts["hub_skew"], facts["anti_hubs"]) == hubness(z)
    assert (facts["purity"], facts["purity_null"], facts["purity_se"]) == purity(z, labels)
    assert facts["intra_inter_ratio"] == intra_inter_ratio(same, -scores["euclidean"])
    assert facts["spacing"] == spacing(z, left[~same], right[~same])
    eers = {name: verification.eer(same, other) for name, other in scores.items()}
    assert (facts["eer_cosine"], facts["eer_euclidean"]) == (eers["cosine"], facts["eer"])
    assert facts["swap_gain"] == pytest.approx(eers["euclidean"] - eers["cosine"]) and facts["swap_gain"] > 0.01
    pairs = labels[left], labels[right]
    resampled = [verification.bootstrap(["eer"], same, one, *pairs, samples=100)["eer"] for one in scores.values()]
    low = np.quantile(resampled[1].replicates - resampled[0].replicates, 0.025)
    assert facts["swap_gain_low"] == pytest.approx(low)


def test_facts_of_a_score_that_ignores_norms(rng):
    labels = np.repeat(np.arange(3), 4)
    z = rng.normal(size=(12, 5)) * rng.uniform(0.1, 9, (12, 1))
    trials = Trials.from_labels(z, labels)
    scored = ScoredTrials(trials, z, scores_by(z, trials.left, trials.right)["cosine"])
    facts = Observed(Run(), scored, output_kind="score", scale_free=True).facts
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    impostors = trials.left[~trials.same], trials.right[~trials.same]
    assert facts["spacing"] == pytest.approx(spacing(unit, *impostors)) != spacing(z, *impostors)
    assert "intra_inter_ratio" not in facts and "hub_skew" not in facts  # a score is no distance, 12 rows are too few
    assert facts["eer_cosine"] == facts["eer"]


def test_scores_that_rank_as_a_distance_does(rng):
    z, left, right = rng.normal(size=(30, 5)), *rng.integers(0, 30, (2, 200))
    known = {
        **scores_by(z, left, right),
        "inner": (z[left] * z[right]).sum(1),
        "L1": -np.abs(z[left] - z[right]).sum(1),
    }
    for scores in known.values():
        assert resembles_distance(scores, z, left, right) and resembles_distance(np.exp(scores / 9), z, left, right)
        assert not resembles_distance(-scores, z, left, right)
    assert not resembles_distance(np.abs(z[left] - z[right]) @ [1, -2, 3, 0, 1], z, left, right)
    assert not resembles_distance(np.zeros(200), z, left, right)


def test_the_distance_that_a_loss_trains_is_tried_where_it_ranks_pairs_otherwise(rng):
    labels = np.repeat(np.arange(30), 5)
    z = (rng.normal(size=(30, 8))[labels] + 0.5 * rng.normal(size=(150, 8))).astype("float32")
    z *= rng.uniform(0.2, 3.0, size=(150, 1)).astype("float32")  # norms say nothing
    trials = Trials.from_labels(z, labels)
    loss = ks.losses.BatchTripletLoss(distance="cosine")
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosine = np.sum(unit[trials.left] * unit[trials.right], axis=1)
    euclidean = -np.linalg.norm(z[trials.left] - z[trials.right], axis=1)
    swaps = of_swaps(Observed(Run(), ScoredTrials(trials, z, euclidean), loss=loss))
    assert swaps["eer_of_loss"] == pytest.approx(verification.eer(trials.same, cosine), abs=1e-3)
    assert swaps["loss_gain"] == pytest.approx(verification.eer(trials.same, euclidean) - swaps["eer_of_loss"])
    assert 0 < swaps["loss_gain_low"] < swaps["loss_gain"]
    assert "loss_gain" not in of_swaps(Observed(Run(), ScoredTrials(trials, z, cosine), loss=loss))
    other = ks.losses.ContrastiveLoss()
    assert "loss_gain" not in of_swaps(Observed(Run(), ScoredTrials(trials, z, euclidean), loss=other))
