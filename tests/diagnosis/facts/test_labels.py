"""Wrong labels: their estimated share of the genuine pairs, and the suspected rows."""

import numpy as np
import pytest

from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.facts.labels import impostor_like, suspected_labels, suspected_pairs
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import Trials, score
from tests.support import plantings
from tests.support.measured import encoder


def scored_identities(rng, noise, identities=120, per=6):
    """`(same, scores, left, right, wrong)` of well separated identities; a share `noise` of the labels is permuted."""
    truth = np.repeat(np.arange(identities), per)
    z = rng.normal(size=(identities, 16))[truth] + 0.2 * rng.normal(size=(len(truth), 16))
    labels = truth.copy()
    wrong = rng.permutation(len(truth))[: int(noise * len(truth))]
    labels[wrong] = rng.permutation(truth)[wrong]
    left, right = np.triu_indices(len(truth), 1)
    scores = -np.linalg.norm(z[left] - z[right], axis=1)
    return labels[left] == labels[right], scores, left, right, np.flatnonzero(labels != truth)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2, 0.4])
def test_wrong_labels_make_genuine_pairs_score_as_impostors(rng, noise):
    same, scores, left, right, wrong = scored_identities(rng, noise)
    impostors = np.mean(np.isin(left[same], wrong) | np.isin(right[same], wrong))
    assert impostor_like(same, scores) == pytest.approx(impostors, rel=0.2, abs=0.01)


def test_of_right_labels_few_score_so_however_hard_they_are(rng):
    scores = np.concatenate([rng.normal(1.5, 1, 4000), rng.normal(0, 1, 4000)])
    assert impostor_like(np.arange(8000) < 4000, scores) < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15, 0.4])
def test_the_suspected_rows_are_those_with_wrong_labels(rng, noise):
    same, scores, left, right, wrong = scored_identities(rng, noise)
    suspects = suspected_labels(same, scores, left, right, 720)
    assert len(np.intersect1d(suspects, wrong)) >= 0.75 * len(wrong)
    assert len(np.setdiff1d(suspects, wrong)) <= (0.01 + 0.1 * noise) * 720
    is_wrong = np.isin(suspects, wrong)
    assert is_wrong[: len(suspects) // 2].mean() >= is_wrong.mean() if noise else True  # the most suspected first


def test_an_item_without_a_genuine_pair_is_not_suspected():
    left, right = np.triu_indices(5, 1)
    scores = np.where(right < 4, 1.0, -1.0)
    assert suspected_labels(right < 4, scores, left, right, 5).tolist() == []


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_pairs_of_given_labels_are_suspected_as_far_as_held_out_ones_do_not_score_so(rng, noise):
    truth = np.arange(4000) < 2000
    scores = np.where(truth, 2.0, -2.0) + rng.normal(size=4000)
    wrong = rng.permutation(4000)[: int(noise * 4000)]
    given = truth.copy()
    given[wrong] = ~truth[wrong]
    held_out = np.arange(1000) < 500
    suspects = suspected_pairs(given, scores, held_out, np.where(held_out, 2.0, -2.0) + rng.normal(size=1000))
    assert len(suspects) == pytest.approx(len(wrong), abs=0.02 * 4000)
    assert len(np.intersect1d(suspects, wrong)) >= 0.85 * len(wrong)


def test_a_linear_model_shows_labels_that_are_wrong_and_by_which_rows():
    x, labels = plantings.identities(40, 10, seed=1)
    held_out = plantings.held_out_part()
    wrong = labels.copy()
    wrong[:100] = wrong[:100] // 20  # ten identities under five names
    found = {}
    for name, own in (("right", labels), ("wrong", wrong)):
        anatomy = dissect(encoder(), x[:4])
        trained, valid = (score(anatomy, Trials.from_labels(*one)) for one in ((x, own), held_out))
        found[name] = Observed(Run(), valid, trained, siamese=anatomy).facts
    assert found["right"]["suspected_labels"] == 0 < found["wrong"]["suspected_labels"]
    assert found["right"]["linear_impostor_like"] < 0.01 < 0.05 < found["wrong"]["linear_impostor_like"]
    assert found["right"]["linear_train_eer"] < found["right"]["reference_linear"] + 0.01
    assert found["wrong"]["linear_train_eer"] > found["wrong"]["reference_linear"] + 0.02
