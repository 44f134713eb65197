"""The cause `preprocessing_mismatch` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined
from tests.support.facts_by_hand import answer, examined, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"held_out_spread": -0.6, "held_out_shift": 0.0, "held_out_difference": 0.0}, ("error", 2.0)),
        ({"held_out_spread": 0.29, "held_out_shift": 0.9, "held_out_difference": 0.3}, None),  # other light
        ({"held_out_spread": 0.0, "held_out_shift": -1.5, "held_out_difference": 0.3}, ("error", 1.5)),
        ({"held_out_spread": 0.0, "held_out_shift": 0.0, "held_out_difference": 0.8}, ("error", 2.0)),
        ({"held_out_spread": 0.0, "held_out_shift": 0.0, "held_out_difference": 0.0, "turned": 0.6}, ("error", 2.0)),
        ({"gap": 0.05, "held_out_shift": 9.9}, None),  # the encoder does not mind, or learns nothing at all
        ({"eer": 0.05, "held_out_shift": 9.9}, None),
        ({"eer": 0.05}, ("warning", 10.0)),  # 80 spreads away
        ({"eer": 0.01}, None),
        ({"gap": 0.01, "undone_gain": 0.03, "undone_gain_se": 0.01}, ("error", 10.0)),
        ({"gap": 0.01, "undone_gain": 0.03, "undone_gain_se": 0.02, "held_out_shift": 9.9}, None),
        ({"gap": 0.01, "undone_gain": -0.03, "undone_gain_se": 0.01, "held_out_shift": 9.9}, None),
        ({"undone_gain": -0.03, "undone_gain_se": 0.01}, ("error", 10.0)),  # what differs could not be undone
        ({"drawn_towers": 1.0}, None),  # one side of the training pairs is scaled as well
    ],
)
def test_strength_is_the_difference_over_its_limit(changes, expected):
    assert severity_and_strength("preprocessing_mismatch", **changes) == expected


def test_it_says_how_the_inputs_differ():
    alike = {"held_out_spread": 0.0, "held_out_shift": 0.0, "held_out_difference": 0.0}
    assert "39.8 times the spread" in answer("preprocessing_mismatch").summary
    assert "mirrored" in answer("preprocessing_mismatch", **alike, turned=0.9).summary
    assert "another order" in answer("preprocessing_mismatch", **alike, swapped_channels=9.0).summary
    assert "EER is 0.250, not 0.400" in answer("preprocessing_mismatch", undone_gain=0.15, undone_gain_se=0.01).summary


def test_one_side_of_the_held_out_pairs_may_be_prepared_otherwise():
    alike = {"held_out_spread": 0.0, "held_out_shift": 0.0, "held_out_difference": 0.0}
    found = answer("preprocessing_mismatch", **alike, drawn_towers=0.0, held_out_towers=-2.0)
    assert "100 times as large on one side of the pairs as on the other" in found.summary
    assert severity_and_strength("preprocessing_mismatch", **alike, held_out_towers=-0.2) is None
    assert severity_and_strength("preprocessing_mismatch", **alike, drawn_towers=None, held_out_towers=-2.0) is None


def test_it_needs_training_samples():
    assert isinstance(answer("preprocessing_mismatch", gap=None), NotExamined)


def test_it_explains_the_scale_that_the_first_layer_sees():
    signs = {"eer": 0.4, "gap": 0.3, "held_out_spread": 1.6, "held_out_shift": 80.0, "input_scale": 130.0}
    findings, _ = examined(**signs)
    assert findings[0].cause == "preprocessing_mismatch"
    assert {one.cause: one.explained_by for one in findings}["input_scale"] == "preprocessing_mismatch"
