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
        ({"gap": 0.05}, None),  # the encoder does not mind, or learns nothing at all
        ({"eer": 0.05}, None),
    ],
)
def test_strength_is_the_difference_over_its_limit(changes, expected):
    assert severity_and_strength("preprocessing_mismatch", **changes) == expected


def test_it_says_how_the_inputs_differ():
    alike = {"held_out_spread": 0.0, "held_out_shift": 0.0, "held_out_difference": 0.0}
    assert "39.8 times the spread" in answer("preprocessing_mismatch").summary
    assert "mirrored" in answer("preprocessing_mismatch", **alike, turned=0.9).summary
    assert "another order" in answer("preprocessing_mismatch", **alike, swapped_channels=9.0).summary


def test_it_needs_training_samples():
    assert isinstance(answer("preprocessing_mismatch", gap=None), NotExamined)


def test_it_explains_the_scale_that_the_first_layer_sees():
    signs = {"eer": 0.4, "gap": 0.3, "held_out_spread": 1.6, "held_out_shift": 80.0, "input_scale": 130.0}
    findings, _ = examined(**signs)
    assert findings[0].cause == "preprocessing_mismatch"
    assert {one.cause: one.explained_by for one in findings}["input_scale"] == "preprocessing_mismatch"
