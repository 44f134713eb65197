"""The cause `wrong_distance` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 5.0)),
        ({"swap_gain": 0.06}, ("warning", 3.0)),
        ({"swap_gain": 0.061}, ("error", 3.05)),
        ({"swap_gain": 0.02}, None),
        ({"swap_gain_low": 0.01}, None),
        ({"swap_gain_low": 0.011}, ("error", 5.0)),
        ({"eer": 0.019}, None),
    ],
)
def test_strength_is_the_gain_in_eer(changes, expected):
    assert severity_and_strength("wrong_distance", **changes) == expected


def test_it_names_the_better_distance():
    cosine = answer("wrong_distance")
    assert "with cosine (EER 0.100) than with EuclideanDistance() (EER 0.200)" in cosine.summary
    assert cosine.apply({}) == {"distance": "cosine", "verify_distance": "cosine", "normalize": True}
    euclidean = answer("wrong_distance", eer_cosine=0.3)
    assert 'distance="euclidean"' in euclidean.advice
    assert euclidean.apply({}) == {"distance": "euclidean", "verify_distance": "euclidean"}
    gained = cosine.evidence["eer_gained"]
    assert (gained.value, gained.threshold, gained.low, gained.high) == pytest.approx((0.1, 0.02, 0.08, 0.12))


def test_a_distance_that_the_loss_trains_is_no_fault():
    assert severity_and_strength("wrong_distance", trained_by_it=1.0) is None
    assert severity_and_strength("wrong_distance", trained_by_it=0.0) == ("error", 5.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("warning", 1.5)),
        ({"loss_gain_low": 0.0}, None),
        ({"loss_gain": 0.01}, None),
        ({"eer": 0.019}, None),
        ({"swap_gain": 0.1, "swap_gain_low": 0.08}, ("error", 5.0)),  # another distance is clearly better
    ],
)
def test_of_the_distance_that_the_loss_trains_a_smaller_gain_is_enough(changes, expected):
    small = {"swap_gain": 0.015, "swap_gain_low": 0.001, "eer_of_loss": 0.185}
    small |= {"loss_gain": 0.015, "loss_gain_low": 0.001}
    assert severity_and_strength("wrong_distance", **{**small, **changes}) == expected
    assert "and the embeddings verify better with it (EER 0.185)" in answer("wrong_distance", **small).summary


def test_without_a_plain_distance_it_is_not_examined():
    found = answer("wrong_distance", swap_gain=None, swap_gain_low=None, eer_cosine=None, eer_euclidean=None)
    assert "no learned layers" in found.needs
