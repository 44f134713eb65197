"""The cause `margin` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined, RuledOut
from tests.support.facts_by_hand import BAD, answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"margin": 0.05}, ("error", 2.0)),  # of a distance of 1 between untrained impostors
        ({"margin": 0.05, "untrained_distance": 2.0}, ("error", 4.0)),
        ({"margin": 0.0}, ("error", 10.0)),
        ({"margin": 0.1}, None),
        ({"margin": 2.0}, None),
        ({"margin": 2.5}, ("error", 1.0)),  # beyond the reach of 2
        ({"margin": 16.0, "reach": None}, ("error", 2.0)),
        ({"margin": 8.0, "reach": None}, None),
        ({"margin_is_gap": 1.0, "margin": 0.01}, ("error", 2.0)),  # a gap is a fifth of a distance
        ({"margin_is_gap": 1.0, "margin": 0.021}, None),
        ({"margin_is_gap": 1.0, "margin": 3.2, "reach": None}, ("error", 2.0)),
        ({"eer": 0.049}, None),
        ({"untrained_distance": 0.0}, None),
    ],
)
def test_strength_is_how_far_the_margin_is_off(changes, expected):
    assert severity_and_strength("margin", **changes) == expected


def test_the_advised_margin_is_on_the_scale_of_the_distances():
    assert "ContrastiveLoss(margin=1)" in answer("margin").advice
    assert "(margin=3)" in answer("margin", untrained_distance=3.0, reach=None).advice
    gap = answer("margin", margin_is_gap=1.0, margin=0.001)
    assert "(margin=0.2)" in gap.advice and gap.apply({})["margin"] == 0.2
    assert answer("margin").apply({"margin": 9, "dim": 4}) == {"margin": 1.0, "normalize": True, "dim": 4}
    unscaled = answer("margin", untrained_distance=3.0, reach=None).apply({"margin": 9, "normalize": None})
    assert unscaled == {"margin": 3.0, "normalize": None}, "the recipe cannot fix the scale"


def test_its_signals_stand_beside_their_limits():
    signals = answer("margin", **BAD, margin=0.01, untrained_distance=0.5).evidence
    relative = signals["margin_over_untrained_distance"]
    assert (relative.value, relative.threshold, relative.null) == (0.02, 0.1, 1.0)
    assert signals["margin"].threshold == 2.0 and signals["active_impostors"].threshold == 0.99


@pytest.mark.parametrize(
    ("changes", "threshold", "null"),
    [
        ({"margin": 0.05}, 0.1, 1.0),
        ({"margin": 392.0, "reach": None}, 8.0, 1.0),
        ({"margin": 392.0, "reach": 2.0}, None, 1.0),  # the reach decides; it is the limit of the margin itself
        ({"margin": 0.01, "margin_is_gap": 1.0}, 0.02, 0.2),
        ({"margin": 3.2, "margin_is_gap": 1.0, "reach": None}, 1.6, 0.2),
    ],
)
def test_the_limit_beside_the_margin_is_the_one_that_decided(changes, threshold, null):
    signal = answer("margin", **changes).evidence["margin_over_untrained_distance"]
    assert (signal.threshold, signal.null) == pytest.approx((threshold, null))


@pytest.mark.parametrize(
    ("temperature", "expected"), [(7.0, ("error", 10.0)), (1.4, ("error", 2.0)), (0.5, None), (0.001, ("error", 2.0))]
)
def test_a_temperature_that_is_far_from_the_range_of_cosines_is_an_error(temperature, expected):
    known = {"margin": None, "temperature": temperature, "usual_temperature": 0.07}
    assert severity_and_strength("margin", **known) == expected
    assert severity_and_strength("margin", **known, eer=0.049) is None


def test_the_usual_temperature_is_advised_and_a_margin_is_judged_beside_a_sound_one():
    known = {"temperature": 7.0, "usual_temperature": 0.05}
    found = answer("margin", **known)
    assert "temperature=0.05" in found.advice and "scale=20" in found.advice and "alike" in found.summary
    assert found.apply({"margin": 1.0}) == {"margin": 1.0, "temperature": 0.05}
    assert "hardest" in answer("margin", **known | {"temperature": 1e-4}).summary
    assert "margin 0.01" in answer("margin", **known | {"temperature": 0.1}, margin=0.01).summary
    assert isinstance(answer("margin", margin=None), NotExamined)


def test_a_loss_without_a_margin_is_ruled_out():
    assert answer("margin", margin=None, loss_has_scale=0.0) == RuledOut("margin")
    assert isinstance(answer("margin", margin=None, loss_has_scale=1.0), NotExamined)
