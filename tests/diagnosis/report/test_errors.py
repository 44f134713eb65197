"""Errors at a threshold, counted pair by pair."""

import numpy as np
import pytest

from keras_siamese.data import ExplicitPairs, PairSequence
from keras_siamese.diagnosis.report.errors import errors_dict, identity_errors, worst_pairs
from keras_siamese.scoring import ScoredTrials, Trials
from tests.support.diagnoses import Images, made

LABELS = np.array(["bo", "ada", "bo", "cy", "ada", "bo", "dot"])


@pytest.fixture
def scored(rng):
    trials = Trials.from_labels(rng.normal(size=(7, 3)), LABELS)
    return ScoredTrials(trials, trials.items, rng.normal(size=len(trials)))


def counted(scored, threshold):
    """`{identity: [genuine, rejected, impostor, accepted]}`, a pair at a time."""
    table = {}
    names = scored.trials.names[scored.trials.identities]
    for left, right, score in zip(scored.trials.left, scored.trials.right, scored.scores, strict=True):
        one, other = names[left], names[right]
        for name in {one, other}:
            row = table.setdefault(str(name), [0, 0, 0, 0])
            row[0 if one == other else 2] += 1
            if one == other and score < threshold:
                row[1] += 1
            if one != other and score >= threshold:
                row[3] += 1
    return table


@pytest.mark.parametrize("threshold", [-0.3, 0.0, 5.0])
def test_each_identity_has_its_errors(scored, threshold):
    found = identity_errors(scored, threshold)
    assert {
        one["identity"]: [one[name] for name in ("genuine", "false_rejects", "impostor", "false_accepts")]
        for one in found
    } == counted(scored, threshold)
    assert {one["identity"]: one["samples"] for one in found} == {"ada": 2, "bo": 3, "cy": 1, "dot": 1}
    shares = [one["share"] for one in found]
    genuine, impostor = np.count_nonzero(scored.same), np.count_nonzero(~scored.same)
    assert shares == sorted(shares, reverse=True)
    assert shares == pytest.approx([one["false_rejects"] / genuine + one["false_accepts"] / impostor for one in found])


def test_a_score_at_the_threshold_is_accepted(scored):
    at = float(scored.scores[np.flatnonzero(~scored.same)[0]])
    before = sum(one["false_accepts"] for one in identity_errors(scored, np.nextafter(at, 9)))
    assert sum(one["false_accepts"] for one in identity_errors(scored, at)) == before + 2


@pytest.mark.parametrize("kind", ["accept", "reject"])
def test_the_worst_pairs_are_errors_worst_first(scored, kind):
    found = worst_pairs(scored, 0.2, kind, count=4)
    wrong = [
        (score, left, right)
        for score, same, left, right in zip(
            scored.scores, scored.same, scored.trials.left, scored.trials.right, strict=True
        )
        if same == (kind == "reject") and (score >= 0.2) == (kind == "accept")
    ]
    wrong.sort(reverse=kind == "accept")
    assert [(pair["score"], pair["left"]["item"], pair["right"]["item"]) for pair in found] == wrong[:4]
    assert all(pair["left"]["identity"] == LABELS[pair["left"]["row"]] for pair in found)
    assert worst_pairs(scored, 99.0, "accept") == []


def test_rows_are_those_of_what_was_given(rng):
    x = rng.normal(size=(30, 2))
    labels = np.repeat([f"p{i}" for i in range(10)], 3)
    for trials in (Trials.of((x, labels), max_items=12), Trials.of(PairSequence(x, labels, frozen=True, seed=1))):
        np.testing.assert_array_equal(x[trials.rows], trials.items)
        np.testing.assert_array_equal(labels[trials.rows], trials.names[trials.identities])
    pairs = Trials.of((x[:15], x[15:], np.arange(15) % 2))
    assert pairs.names is None and pairs.rows.tolist() == [*range(15), *range(15)]
    named = Trials.of(ExplicitPairs(x, [0, 1], [2, 3], [True, False], labels=labels, frozen=True))
    assert named.names[named.identities].tolist() == ["p0", "p0", "p0", "p1"]


def test_unknown_identities_and_files():
    diagnosis = made("numbers", labelled=False, curves={})
    found = errors_dict(diagnosis.observed.valid, -2.0)
    assert found["identities"] is None and found["false_rejects"][0]["left"]["identity"] is None
    assert found["false_rejects"][0]["left"]["row"] is None and found["false_rejects"][0]["left"]["file"] is None
    lazily = errors_dict(made("lazy", curves={}).observed.valid, -2.0)["false_accepts"][0]["right"]
    assert lazily["file"] == Images(np.zeros((56, 1))).paths[lazily["row"]]


def test_paths_follow_the_rows_that_are_kept():
    images = Images(np.random.default_rng(0).random((40, 2, 2)))
    trials = Trials.of((images, np.repeat(np.arange(10), 4)), max_items=20)
    scored = ScoredTrials(trials, np.zeros((20, 2)), np.arange(float(len(trials))))
    for pair in worst_pairs(scored, 0.0, "accept"):
        for side in (pair["left"], pair["right"]):
            assert side["file"] == images.paths[side["row"]] and side["identity"] == str(side["row"] // 4)
