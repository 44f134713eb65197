"""Standard errors of AUC and EER against loops and the bootstrap; accuracies at a threshold."""

from dataclasses import replace

import numpy as np
import pytest

from keras_siamese import verification
from keras_siamese.diagnosis.facts.verification import (
    accuracy_shortfall,
    loss_error,
    noise_error,
    quick_errors,
    standard_errors,
)
from keras_siamese.scoring import ScoredTrials, Trials
from tests.oracles import diagnosis as oracles


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest.py: nothing here uses Keras."""


def all_pairs(n):
    return np.triu_indices(n, 1)


@pytest.fixture(params=["clustered", "ties", "separated"])
def trials(request, rng):
    """`(same, scores, left, right)` of all pairs of 12 identities of 3 items; identities differ in their noise."""
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


def test_accuracy_shortfall_is_what_another_threshold_would_have_got():
    same, scores = [True, True, False, False], [0.9, 0.4, 0.3, 0.1]
    assert accuracy_shortfall(same, scores, 0.5, best=1.0) == 0.25
    assert accuracy_shortfall(same, scores, 0.4, best=1.0) == 0.0  # accepted from the threshold on


def test_only_pairs_between_two_thresholds_tell_what_one_of_them_loses(rng):
    same, scores = rng.uniform(size=4000) < 0.5, rng.normal(size=4000)
    scores[same] += 2
    lost = (((scores >= 1) == same) * 1.0) - ((scores >= 0.7) == same)
    assert loss_error(same, scores, 0.7, 1.0) == pytest.approx(lost.std() / np.sqrt(4000))
    assert loss_error(same, scores, 1.0, 1.0) == 0
    assert loss_error(same, scores, 0.7, 1.0) < 0.8 * np.sqrt(0.85 * 0.15 / 4000)  # that of one accuracy


def test_noise_error_is_what_noise_shows(rng):
    same = np.arange(120) < 30
    found = [verification.auc(same, rng.normal(size=120)) for _ in range(2000)]
    assert noise_error(same) == pytest.approx(np.std(found), rel=0.06)


def test_auc_error_is_the_sum_of_what_each_identity_moves(trials):
    found = standard_errors(*trials)["auc"]
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
    quick = standard_errors(same, scores, *sides)
    slow = verification.bootstrap(["auc", "eer"], same, scores, *sides, samples=300)
    # The bootstrap itself has an error of 4 %, and counts the noise of an impostor pair once more than the jackknife.
    # The error of a small EER depends on the density of scores where there are few genuine ones.
    assert quick["auc"] == pytest.approx(slow["auc"].standard_error, rel=0.2)
    assert quick["eer"] == pytest.approx(slow["eer"].standard_error, rel=0.4 if gap == 2.0 else 0.2)


def test_errors_of_scores_all_alike_are_those_of_no_information():
    same = np.arange(100) < 50
    errors = standard_errors(same, np.zeros(100), np.arange(100), np.arange(100) + 100)
    assert errors["auc"] == 0.0 and np.isfinite(errors["eer"])
    perfect = standard_errors(same, np.where(same, 1.0, 0.0))
    assert perfect["auc"] == 0.0 and perfect["eer"] == pytest.approx(0, abs=1e-12)


def test_errors_do_not_depend_on_the_order_of_pairs_or_the_scale_of_scores(trials, rng):
    same, scores, left, right = trials
    order = rng.permutation(len(same))
    moved = standard_errors(same[order], 7 * scores[order] - 3, left[order], right[order])
    assert moved == pytest.approx(standard_errors(*trials))
    swapped = standard_errors(same, scores, right, left)
    assert swapped == pytest.approx(standard_errors(*trials))


def test_errors_of_unknown_identities_are_widened(rng):
    labels = np.repeat(np.arange(6), 4)
    z = rng.normal(size=(6, 5))[labels] + rng.normal(size=(24, 5))
    known = Trials.from_labels(z, labels)
    scores = -np.linalg.norm(z[known.left] - z[known.right], axis=1)
    over_identities = standard_errors(known.same, scores, labels[known.left], labels[known.right])
    assert quick_errors(ScoredTrials(known, z, scores)) == over_identities
    independent = standard_errors(known.same, scores)
    widened = {name: 3.6 * error for name, error in independent.items()}
    assert quick_errors(ScoredTrials(replace(known, identities=None), z, scores)) == pytest.approx(widened)
