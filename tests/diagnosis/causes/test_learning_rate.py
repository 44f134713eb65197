"""The cause `learning_rate` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes.learning_rate import power_of_ten
from tests.support.facts_by_hand import answer, severity_and_strength


def steps(size):
    return {f"update_size_{name}": size for name in ("first", "last", "largest")}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (steps(0.005), ("warning", 2.0)),
        (steps(0.0009), ("error", 10.0)),
        (steps(0.0), ("error", 10.0)),
        (steps(0.01), None),
        ({"train_eer": 0.24, "untrained_eer": 0.35}, None),  # it has learned something
        ({"train_eer": 0.26, "untrained_eer": 0.35}, ("error", 10.0)),
        ({"eer": 0.099}, None),
        (steps(1.0), None),
        (steps(2.0), ("warning", 2.0)),
        (steps(4.0), ("error", 4.0)),
        (steps(40.0), ("error", 10.0)),
    ],
)
def test_strength_is_how_far_steps_are_off(changes, expected):
    assert severity_and_strength("learning_rate", **changes) == expected


def test_its_repair_is_a_power_of_ten():
    small, large = answer("learning_rate", **steps(0.0009)), answer("learning_rate", **steps(4.0))
    assert small.apply({"learning_rate": 0.01})["learning_rate"] == pytest.approx(1.0)
    assert small.apply({})["learning_rate"] == pytest.approx(0.1)
    assert "Adam(0.1)" in small.advice and "100 times the rate" in small.advice
    assert large.apply({"learning_rate": 0.01})["learning_rate"] == pytest.approx(1e-4)
    assert "Adam(1e-05)" in large.advice and "1/100 of the rate" in large.advice


@pytest.mark.parametrize(("ratio", "most", "power"), [(1.0, 4, 10.0), (40.0, 4, 100.0), (20.0, 4, 10.0), (1e8, 3, 1e3)])
def test_the_nearest_power_of_ten(ratio, most, power):
    assert power_of_ten(ratio, most) == power
