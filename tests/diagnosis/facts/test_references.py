"""References: a linear model that finds the directions of identities, in known numbers; the same pairs for all."""

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import verification
from keras_siamese.attach.anatomy import dissect
from keras_siamese.diagnosis.diagnose import diagnose
from keras_siamese.diagnosis.facts.references import (
    cosines,
    deviations,
    distances,
    flat,
    linear_encoder,
    of_references,
    references_of,
)
from keras_siamese.diagnosis.facts.verification import gain_error
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import ScoredTrials, Trials, score
from tests.support import plantings
from tests.support.measured import encoder, facts_of


def test_the_linear_model_finds_the_directions_that_hold_identities():
    x, labels = plantings.train_part()
    held_out, names = plantings.held_out_part()
    trials = Trials.from_labels(held_out, names)
    project = linear_encoder(x, deviations(x, labels))
    eer = verification.eer(trials.same, -distances(project(held_out), trials.left, trials.right))
    raw = verification.eer(trials.same, cosines(held_out, trials.left, trials.right))
    assert eer < 0.08 < 0.25 < raw
    # Six directions of 24 hold identities; the others get no weight. Scaling the inputs changes nothing.
    sizes = np.linalg.svd(project(x) - project(x).mean(0), compute_uv=False)
    assert sizes[6] < 0.3 * sizes[5]
    scaled = linear_encoder(100 * x + 7, deviations(100 * x + 7, labels))
    again = verification.eer(trials.same, -distances(scaled(100 * held_out + 7), trials.left, trials.right))
    assert again == pytest.approx(eer, abs=5e-3)


def test_genuine_pairs_do_for_identities():
    x, labels = plantings.train_part()
    left, right = np.triu_indices(len(x), 1)
    same = labels[left] == labels[right]
    by_pairs, by_names = deviations(x, None, left[same], right[same]), deviations(x, labels)
    covariances = [apart.T @ apart / len(apart) for apart in (by_pairs, by_names)]
    # Both estimate the variance within identities; ten samples an identity are n − 1 = 9 degrees of freedom.
    slow = np.zeros((24, 24))
    for identity in range(60):
        slow += np.cov(x[labels == identity].T) / 60
    for covariance in covariances:
        np.testing.assert_allclose(covariance, slow, rtol=1e-3, atol=1e-3)


def test_samples_of_one_item_say_nothing_about_the_variance_within_identities():
    assert deviations(np.ones((3, 2)), np.array([0, 1, 2])).shape == (0, 2)


def test_large_samples_are_thinned_out_evenly():
    x = np.arange(2 * 50_000, dtype="float64").reshape(2, 250, 200)
    rows = flat(x)
    assert rows.shape == (2, 4096) and rows.dtype == np.float32
    assert rows[0, 0] == 0 and rows[0, -1] == 49_999 and np.diff(rows[0]).max() < 14


def test_the_error_of_a_difference_is_that_of_what_differs():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 5)
    trials = Trials.from_labels(np.zeros((200, 1)), labels)
    sides = trials.pair_identities
    scores = rng.normal(size=len(trials)) + 2 * trials.same + 0.5 * rng.normal(size=40)[sides[0]]
    assert gain_error(trials.same, scores, scores, *sides) == 0
    others = scores + 0.3 * rng.normal(size=len(trials))
    found = gain_error(trials.same, scores, others, *sides)
    drawn = [
        verification.bootstrap(["eer"], trials.same, one, *sides, samples=200)["eer"].replicates
        for one in (scores, others)
    ]
    assert found == pytest.approx((drawn[0] - drawn[1]).std(), rel=0.5)
    alone = verification.bootstrap(["eer"], trials.same, scores, *sides, samples=200)["eer"].standard_error
    assert found < 0.8 * alone  # the pairs are the same


def test_references_are_facts_of_a_run():
    x, labels = plantings.train_part()
    held_out, names = plantings.held_out_part()
    facts = facts_of(encoder(), (x, labels))
    trials = Trials.from_labels(held_out[:60], names[:60])
    raw = verification.eer(trials.same, cosines(held_out[:60], trials.left, trials.right))
    assert facts["reference_cosine"] == pytest.approx(raw)
    assert facts["behind_cosine"] == pytest.approx(facts["eer"] - raw) and facts["behind_cosine_se"] > 0
    assert facts["reference_linear"] < raw and 0 < facts["reference_untrained"] < 1
    known = references_of(facts)
    assert known[0][0] == "linear" and len(known) == 3
    assert [eer for _, _, eer in known] == sorted(eer for _, _, eer in known)


def test_what_cannot_be_made_is_missing():
    facts = facts_of(encoder())
    assert "reference_linear" not in facts and "reference_cosine" in facts
    x, labels = plantings.held_out_part()
    named = Trials.from_labels({"a": x}, labels)
    scores = np.arange(len(named), dtype="float32")
    assert of_references(Observed(Run(), ScoredTrials(named, x, scores), siamese=None)) == {}


def test_the_users_own_reference_is_compared():
    x, labels = plantings.train_part()
    held_out = plantings.held_out_part()
    model = ks.SiameseWrapper(encoder())
    diagnosis = diagnose(model, validation=held_out, train=(x, labels), reference=lambda part: part[:, :3])
    trials = Trials.of(held_out)
    own = verification.eer(trials.same, cosines(held_out[0][:, :3], trials.left, trials.right))
    assert diagnosis.facts["reference_given"] == pytest.approx(own)
    assert f"your reference {own:.3f}" in str(diagnosis)
    assert diagnosis.to_dict()["references"]["given"]["eer"] == pytest.approx(own)
    with pytest.raises(ValueError, match="`reference` must give an embedding for each of 4 items"):
        diagnose(model, validation=held_out, reference=lambda part: np.zeros(len(part), "float32"))


def test_the_untrained_network_scores_held_out_pairs_as_the_network_does():
    held_out = plantings.held_out_part()
    anatomy = dissect(encoder(), held_out[0][:4])
    observed = Observed(Run(), score(anatomy, Trials.of(held_out)), siamese=anatomy)
    assert 0.2 < of_references(observed)["reference_untrained"] < 0.5
    assert observed.untrained is observed.untrained  # made once
