"""The cause `batch_norm` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 2.0)),
        ({"mode_gap": 0.1}, None),
        ({"mode_gap": 0.0, "batch_identities": 2.0}, ("error", 2.0)),
        ({"mode_gap": 0.15, "batch_identities": 2.0}, ("error", 2.0)),
        ({"mode_gap": 0.0, "batch_identities": 4.0}, None),
        ({"mode_gap": None, "batch_identities": None}, None),
        ({"batch_normalization": 0.0}, None),
        ({"eer": 0.049}, None),
    ],
)
def test_strength_is_the_gap_between_modes_or_the_lack_of_identities(changes, expected):
    assert severity_and_strength("batch_norm", **changes) == expected


def test_it_says_which_of_the_two_it_is():
    assert "EER 0.050 in training mode, but with EER 0.250 in inference mode" in answer("batch_norm").summary
    few = answer("batch_norm", mode_gap=0.0, batch_identities=1.5)
    assert "has 1.5 identities" in few.summary
    assert few.apply({}) == {"momentum": 0.9, "joint": True, "one_identity": False}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 2.0)),
        ({"statistics_off": 1.5}, None),
        ({"train_eer": 0.15}, None),  # inference mode verifies all the same
        ({"train_eer": None}, None),
        ({"mode_gap": 0.3}, ("error", 3.0)),
        ({"mode_gap": 0.05, "train_eer": 0.1}, ("error", 2.0)),  # worse than in training mode, too
        ({"mode_gap": 0.03, "train_eer": 0.1}, None),
        ({"eer": 0.04}, None),
    ],
)
def test_statistics_that_have_not_caught_up_count_if_training_pairs_are_not_told_apart(changes, expected):
    behind = {"mode_gap": 0.02, "statistics_off": 3.0, "train_eer": 0.2}
    assert severity_and_strength("batch_norm", **{**behind, **changes}) == expected
    assert "3 spreads away from those of a training batch" in answer("batch_norm", **behind).summary


def test_statistics_of_the_batch_in_inference_are_found():
    changes = {"mode_gap": 0.0, "mode_eer_training": 0.25, "batch_dependence": 0.4}
    assert severity_and_strength("batch_norm", **changes) == ("error", 8.0)
    assert "training=False" in answer("batch_norm", **changes).advice
    assert severity_and_strength("batch_norm", **{**changes, "batch_dependence": 0.05}) is None
    assert severity_and_strength("batch_norm", **changes, eer=0.049) is None
