"""Wrong labels: their estimated share of the genuine pairs, and the suspected rows."""

import numpy as np
import pytest

from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.facts.labels import impostor_like, suspected_labels
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import Trials, score
from tests.support import plantings
from tests.support.measured import encoder


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest.py: nothing here uses Keras."""


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


def test_the_suspected_rows_are_those_with_wrong_labels(rng):
    same, scores, left, right, wrong = scored_identities(rng, 0.15)
    like = impostor_like(same, scores)
    suspects = suspected_labels(same, scores, left, right, 720, like)
    assert len(np.intersect1d(suspects, wrong)) >= 0.75 * len(wrong)
    assert len(np.setdiff1d(suspects, wrong)) <= 0.02 * 720
    same, scores, left, right, _ = scored_identities(rng, 0.0)
    assert len(suspected_labels(same, scores, left, right, 720, like)) == 0


def test_an_encoder_that_has_learned_nothing_makes_nobody_suspect(rng):
    labels = np.repeat(np.arange(30), 6)
    left, right = np.triu_indices(180, 1)
    same, scores = labels[left] == labels[right], rng.normal(size=len(left))
    assert len(suspected_labels(same, scores, left, right, 180, wrong_pairs=0.0)) == 0


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
    assert found["right"]["linear_impostor_like"] < 0.01 < 0.05 < found["wrong"]["linear_impostor_like"]
    assert found["right"]["linear_train_eer"] < found["right"]["reference_linear"] + 0.01
    assert found["wrong"]["linear_train_eer"] > found["wrong"]["reference_linear"] + 0.02
