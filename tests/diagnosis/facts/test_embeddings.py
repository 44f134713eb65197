"""Signals against their definitions, their ends and, for standard errors, against loops and the bootstrap."""

import math

import numpy as np
import pytest

from keras_siamese import verification
from keras_siamese.diagnosis.facts import embeddings as health
from tests.oracles import diagnosis as oracles

pytestmark = pytest.mark.any_backend


@pytest.fixture(autouse=True)
def seeded():
    """In place of conftest's: nothing here touches Keras."""


@pytest.fixture
def sphere(rng):
    z = rng.normal(size=(1500, 16))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def all_pairs(n):
    return np.triu_indices(n, 1)


# --- spread, spacing, rank


def test_spread_is_one_on_the_sphere_and_zero_at_a_point(sphere):
    assert health.spread(sphere) == pytest.approx(1, abs=0.02)
    assert health.spread(np.ones((50, 3))) == pytest.approx(0, abs=1e-12)
    assert health.spread(np.zeros((50, 3))) == 0.0


def test_spread_equals_a_loop(rng):
    embeddings = rng.normal([1.0, 2.0, 0.0], size=(20, 3))
    directions = [[value / math.dist(row, (0, 0, 0)) for value in row] for row in embeddings.tolist()]
    deviations = []
    for column in zip(*directions, strict=True):
        mean = sum(column) / len(column)
        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in column) / len(column)))
    assert health.spread(embeddings) == pytest.approx(sum(deviations) / 3 * math.sqrt(3))


def test_spread_looks_at_directions_alone(rng, sphere):
    assert health.spread(sphere * rng.uniform(0.1, 9, (len(sphere), 1))) == pytest.approx(health.spread(sphere))


def test_spacing_is_one_for_clusters_in_few_dimensions_where_spread_is_small(rng):
    poles = np.zeros((200, 64))
    poles[:, 5] = np.repeat([1, -1], 100)
    across = np.arange(100), np.arange(100) + 100
    assert health.spread(poles) == pytest.approx(1 / 8)
    assert health.spacing(poles, *across) == pytest.approx(math.sqrt(2))
    assert health.spacing(rng.normal(size=(300, 2)), *all_pairs(300)) == pytest.approx(1, abs=0.25)


def test_spacing_is_zero_at_a_point_and_ignores_outliers(rng):
    at_zero = np.zeros((100, 4))
    assert health.spacing(at_zero, *all_pairs(100)) == 0.0
    one_out = at_zero.copy()
    one_out[7, 2] = 400.0
    assert health.spacing(one_out, *all_pairs(100)) == 0.0
    around = np.array([5.0, 0, 0, 0]) + rng.normal(0, 0.01, (100, 4))
    assert health.spacing(around, *all_pairs(100)) < 0.01
    assert health.spacing(around * 1000, *all_pairs(100)) == pytest.approx(health.spacing(around, *all_pairs(100)))


def test_spacing_equals_a_loop(rng):
    embeddings = rng.normal(size=(7, 3))
    left, right = [0, 3, 5], [1, 2, 6]
    distances = sorted(math.dist(embeddings[i], embeddings[j]) for i, j in zip(left, right, strict=True))
    norm = sum(math.dist(row, (0, 0, 0)) ** 2 for row in embeddings) / 7
    assert health.spacing(embeddings, left, right) == pytest.approx(distances[1] / math.sqrt(2 * norm))


def test_effective_rank_counts_the_directions_in_use(rng):
    assert health.effective_rank(rng.normal(size=(400, 8))) == pytest.approx(8, abs=0.1)
    line = rng.normal(size=(400, 1)) * np.arange(1.0, 9.0)
    assert health.effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert health.effective_rank(np.ones((5, 3))) == 0.0
    shares = np.array([3.0, 1.0]) / 4
    uneven = np.concatenate([np.diag([3.0, 1.0]), -np.diag([3.0, 1.0])])
    assert health.effective_rank(uneven) == pytest.approx(math.exp(-np.sum(shares * np.log(shares))))


# --- what the loss sees


def test_active_fraction_counts_impostors_inside_the_margin():
    assert health.active_fraction([0.1, 0.5, 1.0, 2.0], margin=1.0) == 0.5


def test_intra_inter_ratio_is_one_at_chance():
    same = [True, True, False, False]
    assert health.intra_inter_ratio(same, [1.0, 3.0, 2.0, 2.0]) == 1.0
    assert health.intra_inter_ratio(same, [0.0, 1.0, 2.0, 2.0]) == 0.25
    assert health.intra_inter_ratio(same, [0.0, 0.0, 0.0, 0.0]) == 1.0


def test_loss_at_a_constant_is_the_share_of_each_kind():
    assert health.at_constant((1.0, 0.0), 0.25) == 0.75
    assert health.at_constant((4.0, 0.5), 0.5) == 2.25


def test_accuracy_shortfall_is_what_another_threshold_would_have_got():
    same, scores = [True, True, False, False], [0.9, 0.4, 0.3, 0.1]
    assert health.accuracy_shortfall(same, scores, 0.5, best=1.0) == 0.25
    assert health.accuracy_shortfall(same, scores, 0.4, best=1.0) == 0.0  # accepted from the threshold on


def test_noise_error_is_what_noise_shows(rng):
    same = np.arange(120) < 30
    found = [verification.auc(same, rng.normal(size=120)) for _ in range(2000)]
    assert health.noise_error(same) == pytest.approx(np.std(found), rel=0.06)


# --- standard errors


@pytest.fixture(params=["clustered", "ties", "separated"])
def trials(request, rng):
    """`(same, scores, left, right)` of all pairs of 12 identities of 3; identities differ in how well they are seen."""
    labels = np.repeat(np.arange(12), 3)
    embeddings = (
        rng.normal(size=(12, 4))[labels] * 1.2 + rng.normal(size=(36, 4)) * rng.uniform(0.3, 2, 12)[labels, None]
    )
    i, j = all_pairs(36)
    scores = -np.linalg.norm(embeddings[i] - embeddings[j], axis=1)
    if request.param == "ties":
        scores = np.round(scores)
    if request.param == "separated":
        scores = np.where(labels[i] == labels[j], 1.0, 0.0) + 1e-3 * scores
    return labels[i] == labels[j], scores, labels[i], labels[j]


def test_auc_error_is_the_sum_of_what_each_identity_moves(trials):
    found = health.standard_errors(*trials)["auc"]
    assert found == pytest.approx(oracles.auc_error(*(column.tolist() for column in trials)), rel=1e-3, abs=1e-8)


def test_the_oracle_tells_identities_from_pairs(trials):
    same, scores, left, right = (column.tolist() for column in trials)
    as_if_apart = [2 * pair for pair in range(len(left))]
    if verification.auc(same, scores) < 1:
        apart = oracles.auc_error(same[::9], scores[::9], as_if_apart[::9], [k + 1 for k in as_if_apart[::9]])
        together = oracles.auc_error(same[::9], scores[::9], left[::9], right[::9])
        assert apart != pytest.approx(together, rel=0.05)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("gap", "identities"), [(0.3, 40), (1.0, 40), (2.0, 25)])
def test_errors_agree_with_the_bootstrap(gap, identities, known):
    rng = np.random.default_rng(int(10 * gap))
    labels = np.repeat(np.arange(identities), 5)
    embeddings = gap * rng.normal(size=(identities, 6))[labels] + rng.normal(size=(len(labels), 6))
    i, j = all_pairs(len(labels))
    same, scores = labels[i] == labels[j], -np.linalg.norm(embeddings[i] - embeddings[j], axis=1)
    sides = (labels[i], labels[j]) if known else (None, None)
    quick = health.standard_errors(same, scores, *sides)
    slow = verification.bootstrap(["auc", "eer"], same, scores, *sides, samples=300)
    # The bootstrap's own error is 4 %, and it counts an impostor pair's noise once more than the jackknife; the error
    # of a small EER hangs on the density where few genuine scores lie.
    assert quick["auc"] == pytest.approx(slow["auc"].standard_error, rel=0.2)
    assert quick["eer"] == pytest.approx(slow["eer"].standard_error, rel=0.4 if gap == 2.0 else 0.2)


def test_errors_of_scores_all_alike_are_those_of_no_information():
    same = np.arange(100) < 50
    errors = health.standard_errors(same, np.zeros(100), np.arange(100), np.arange(100) + 100)
    assert errors["auc"] == 0.0 and np.isfinite(errors["eer"])
    perfect = health.standard_errors(same, np.where(same, 1.0, 0.0))
    assert perfect["auc"] == 0.0 and perfect["eer"] == pytest.approx(0, abs=1e-12)


def test_errors_do_not_depend_on_the_order_of_pairs_or_the_scale_of_scores(trials, rng):
    same, scores, left, right = trials
    order = rng.permutation(len(same))
    moved = health.standard_errors(same[order], 7 * scores[order] - 3, left[order], right[order])
    assert moved == pytest.approx(health.standard_errors(*trials))
    swapped = health.standard_errors(same, scores, right, left)
    assert swapped == pytest.approx(health.standard_errors(*trials))


# --- uniformity, alignment, neighbours


def test_uniformity_and_alignment_equal_loops(rng):
    z = rng.normal(size=(12, 3))
    unit = [[value / math.dist(row, (0, 0, 0)) for value in row] for row in z.tolist()]
    left, right = all_pairs(12)
    squares = [math.dist(unit[i], unit[j]) ** 2 for i, j in zip(left, right, strict=True)]
    mean = sum(math.exp(-2 * square) for square in squares) / len(squares)
    assert health.uniformity(z) == pytest.approx(math.log(mean))
    assert health.alignment(z, left[:7], right[:7]) == pytest.approx(sum(squares[:7]) / 7)


def test_uniformity_of_a_sphere_and_of_a_point(rng):
    sphere = rng.normal(size=(1500, 64))
    assert health.uniformity(sphere) == pytest.approx(-3.88, abs=0.02)
    assert health.uniformity(np.ones((20, 3))) == pytest.approx(0, abs=1e-9)


def test_neighbours_equal_a_loop(rng):
    z = rng.normal(size=(30, 4))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    for row, found in enumerate(health.neighbours(z, 5)):
        order = sorted((j for j in range(30) if j != row), key=lambda j: -(unit[row] @ unit[j]))
        assert found.tolist() == order[:5]


def test_purity_beside_its_permutation_null(rng):
    identities = np.repeat(np.arange(20), 5)
    noise = rng.normal(size=(100, 8))
    share, null, error = health.purity(noise, identities, k=4)
    assert abs(share - null) < 4 * error and null == pytest.approx(4 / 99, abs=0.01)
    clusters = rng.normal(size=(20, 8))[identities] + 0.01 * noise
    assert health.purity(clusters, identities, k=4)[0] == 1.0


def test_many_dimensions_have_hubs_and_few_have_none(rng):
    """Radovanović, Nanopoulos and Ivanović's finding, on their kind of data."""
    few, lonely = health.hubness(rng.uniform(size=(400, 3)) - 0.5, k=10)
    many, anti_hubs = health.hubness(rng.normal(size=(400, 100)) + 0.5, k=10)
    assert many > few + 0.5 and anti_hubs > lonely


def test_other_comparisons_of_the_same_embeddings():
    z = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    scores = health.scores_by(z, [0, 0], [1, 2])
    assert scores["cosine"].tolist() == [1.0, 0.0]
    assert scores["euclidean"].tolist() == pytest.approx([-2.0, -math.sqrt(5)])
