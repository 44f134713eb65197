"""The cause `learning_rate` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined
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
        ({"train_eer": 0.1, "first_eer": 0.45, "eer": 0.4}, ("error", 10.0)),  # a pretrained encoder
        ({"train_eer": 0.1, "first_eer": 0.45, "eer": 0.3}, None),
        ({"eer": 0.099}, None),
        (steps(1.0), None),
        (steps(2.0), ("warning", 2.0)),
        (steps(4.0), ("error", 4.0)),
        (steps(40.0), ("error", 10.0)),
    ],
)
def test_strength_is_how_far_steps_are_off(changes, expected):
    assert severity_and_strength("learning_rate", **changes) == expected


UNWATCHED = {f"update_size_{name}": None for name in ("first", "last", "largest")}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"biases_moved": 0.1}, ("warning", 2.0)),  # .005 in each of 20 epochs
        ({"biases_moved": 0.2}, None),
        ({"biases_moved": 0.005, "epochs": None}, ("warning", 2.0)),
        ({"biases_moved": 0.0}, None),  # they get no gradient
        ({"biases_moved": 0.005, "train_eer": 0.2}, None),
        ({"biases_moved": 1.0, "weights_grown": 5.1}, ("error", 1.02)),
        ({"biases_moved": 1.0, "weights_grown": 4.9}, None),
        ({"weights_grown": 50.0}, ("error", 10.0)),
        ({"weights_grown": 50.0, "eer": 0.09}, None),
    ],
)
def test_after_a_run_without_a_monitor_the_weights_tell(changes, expected):
    assert severity_and_strength("learning_rate", **{**UNWATCHED, **changes}) == expected


def test_measured_steps_count_more_than_the_weights():
    assert severity_and_strength("learning_rate", **steps(0.1), weights_grown=50.0, biases_moved=1e-5) is None
    assert isinstance(answer("learning_rate", **UNWATCHED), NotExamined)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rate_left": 0.005}, ("warning", 2.0)),
        ({"rate_left": 0.01}, None),
        ({"rate_left": 0.0}, ("error", 10.0)),
        ({"rate_left": 0.005, "train_eer": 0.15}, None),  # it has learned by then
        ({"rate_left": 0.005, "train_eer": None, "eer": 0.2}, ("warning", 2.0)),
        ({**UNWATCHED, "rate_left": 0.005}, ("warning", 2.0)),
    ],
)
def test_a_schedule_may_stop_the_encoder_too_early(changes, expected):
    assert severity_and_strength("learning_rate", **{**steps(0.1), **changes}) == expected
    found = answer("learning_rate", **steps(0.1), rate_left=0.005)
    assert "the learning rate is 0.005 of what it was" in found.summary
    assert found.apply({"schedule": "early"}) == {"schedule": None}


@pytest.mark.parametrize(("measured", "times"), [(100.0, 100), (None, 1000), (0.1, 1000)])
def test_a_rate_that_was_tried_is_advised_if_it_differs_in_the_same_direction(measured, times):
    found = answer("learning_rate", **steps(1e-4), best_rate_factor=measured)
    assert f"{times} times the rate" in found.advice


def test_weights_that_do_not_change_at_all_are_not_those_of_the_steps():
    found = answer("learning_rate", **steps(0.0), learning_rate=0.05)
    assert "have not changed at all" in found.summary and "monitor.start(model)" in found.advice and found.apply is None
    zero = answer("learning_rate", **steps(0.0), learning_rate=0.0)
    assert "Adam(0.001), loss=loss)  # in place of 0" in zero.advice
    assert zero.apply({"learning_rate": 0.0}) == {"learning_rate": 0.001}


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
