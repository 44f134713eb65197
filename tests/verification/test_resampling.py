"""Figures of resamples: against operating points of pairs that are copied as often as they count, one row at a time."""

import numpy as np
import pytest

from keras_siamese.verification import points as at
from keras_siamese.verification import resampling
from keras_siamese.verification.points import operating_points
from keras_siamese.verification.resampling import RankedPairs, running

READINGS = [(at.auc,), (at.eer,), (at.tar_at_far, 0.0), (at.tar_at_far, 0.1), (at.tar_at_far, 1.0)]
READINGS += [(reading, value) for reading in (at.accuracy_at, at.fmr_at, at.fnmr_at) for value in (-9, 0.2, 1.0, 9)]

# Scores of 1,500 pairs: all different, some equal, many equal, all equal, and a few that are not equal to the others.
SCORES = {
    "different": lambda scores: scores,
    "rounded": lambda scores: np.round(scores, 1),
    "whole numbers": np.round,
    "equal": np.zeros_like,
    "nearly all equal": lambda scores: np.where(np.abs(scores) < 2, 0.5, scores),
}


@pytest.fixture
def small(monkeypatch):
    """Pieces and stretches that are small beside 1,500 pairs."""
    for name, value in {"WHOLE": 0, "STRETCH": 16, "PIECE": 100, "GROUP": 8}.items():
        monkeypatch.setattr(resampling, name, value)


def pairs(rng, number=1500, things=30):
    left, right = rng.integers(0, things, (2, number))
    right = np.where(rng.random(number) < 0.3, left, right)
    same = np.where(rng.random(number) < 0.05, left != right, left == right)
    return same, rng.normal(size=number) + same, (left, right, things)


def drawn(rng, things, rows=5, most=4):
    return np.vstack((rng.integers(0, most, (things, rows)), np.ones((1, rows), int))).astype(np.uint8)


def copied(same, scores, identities, counts):
    """The operating points of the pairs, each as often as it counts."""
    left, right, _ = identities
    copies = counts.astype(int)[left] * np.where(left == right, 1, counts.astype(int)[right])
    return operating_points(np.repeat(same, copies), np.repeat(scores, copies))


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("most", [4, 40])  # products of counts fit into a byte, or not
@pytest.mark.parametrize("whole", [False, True])
def test_a_count_is_a_number_of_copies(rng, small, kind, most, whole):
    same, scores, identities = pairs(rng)
    scores, counts = SCORES[kind](scores), drawn(rng, 30, most=most)
    rows = RankedPairs(same, scores, identities, whole).resample(counts)
    expected = [copied(same, scores, identities, counts[:, row]) for row in range(5)]
    for reading, *values in READINGS:
        np.testing.assert_array_equal(
            rows.read(reading, *values), [reading(points, *values) for points in expected], err_msg=str(values)
        )


def test_the_oracle_rejects_a_weight_that_is_the_square_of_a_count(rng, small):
    same, scores, identities = pairs(rng)
    counts = drawn(rng, 30)
    left, right, _ = identities
    rows = RankedPairs(same, scores, (left, np.where(left == right, (left + 1) % 30, right), 30)).resample(counts)
    assert rows.read(at.auc)[0] != at.auc(copied(same, scores, identities, counts[:, 0]))


def test_drawn_pairs_count_in_falling_order(rng, small):
    same, scores, _ = pairs(rng)
    counts = drawn(rng, 1500)
    falling = np.argsort(-scores)
    copies = counts[:-1, 2].astype(int)
    expected = operating_points(np.repeat(same[falling], copies), np.repeat(scores[falling], copies))
    rows = RankedPairs(same, scores, None).resample(counts)
    assert rows.read(at.auc)[2] == at.auc(expected) and rows.read(at.eer)[2] == at.eer(expected)


@pytest.mark.parametrize("whole", [False, True])
def test_resamples_without_a_class_are_left_out(rng, small, whole):
    left = np.repeat([0, 1, 2], 100)
    right = np.where(np.arange(300) % 2, left, (left + 1) % 3)
    same, scores = left == right, rng.normal(size=300)
    ranked = RankedPairs(same, scores, (left, right, 3), whole)
    rows = ranked.resample(np.array([[3, 1, 0], [0, 1, 1], [0, 1, 0], [1, 1, 1]], np.uint8)).usable()
    assert rows.read(at.auc).tolist() == [at.auc(operating_points(same, scores))]


@pytest.mark.parametrize("number", [1, 63, 64, 65, 1000])
def test_running_sums(rng, number):
    values = rng.integers(0, 9, (number, 3)).astype(np.float32)
    np.testing.assert_array_equal(running(values), np.vstack((np.zeros((1, 3)), np.cumsum(values, axis=0))))
