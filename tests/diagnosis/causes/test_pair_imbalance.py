"""The cause `pair_imbalance` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined
from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"weighted_positive_fraction": 0.04}, ("warning", 2.5)),
        ({"weighted_positive_fraction": 0.025}, ("warning", 4.0)),
        ({"weighted_positive_fraction": 0.05}, None),
        ({"weighted_positive_fraction": 0.0}, ("error", 10.0)),
        ({"genuine_loss": 0.105}, None),  # 1.5 times that of impostors
        ({"genuine_loss": 0.106}, ("error", 10.0)),
        ({"genuine_loss": None}, ("error", 10.0)),
        ({"eer": 0.019}, None),
        ({"weighted_positive_fraction": 0.96, "genuine_loss": 0.01}, ("warning", 2.5)),
        ({"weighted_positive_fraction": 0.96}, None),  # impostors lose less than genuine pairs
        ({"weighted_positive_fraction": 1.0, "genuine_loss": 0.01}, None),  # that is a collapse
    ],
)
def test_strength_is_how_rare_the_rare_kind_is(changes, expected):
    assert severity_and_strength("pair_imbalance", **changes) == expected


def test_the_advice_weighs_the_rare_kind():
    genuine = answer("pair_imbalance", weighted_positive_fraction=0.02)
    assert "positive_weight=49)" in genuine.advice and "2.0% of the weight in the loss is on genuine" in genuine.summary
    impostor = answer("pair_imbalance", weighted_positive_fraction=0.98, genuine_loss=0.01)
    assert "negative_weight=49)" in impostor.advice and "on impostor pairs" in impostor.summary
    assert genuine.apply({"dim": 4}) == {"dim": 4, "positive_fraction": 0.5}


def test_its_signals_stand_beside_their_limits():
    signals = answer("pair_imbalance", genuine_loss=0.7, impostor_loss=0.0).evidence
    assert signals["loss_of_genuine_pairs_over_others"].value == pytest.approx(7e8)  # and finite
    assert signals["weighted_positive_fraction"].threshold == 0.05
    rare_impostors = answer("pair_imbalance", weighted_positive_fraction=0.98, genuine_loss=0.01).evidence
    assert rare_impostors["weighted_positive_fraction"].threshold == 0.95
    assert rare_impostors["loss_of_impostor_pairs_over_others"].value == pytest.approx(7)


UNKNOWN = {"weighted_positive_fraction": None, "genuine_loss": 1.0, "impostor_loss": 0.01, "train_eer": 0.25}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"implied_fraction": 0.01}, ("error", 10.0)),
        ({"implied_fraction": 0.04}, ("warning", 2.5)),
        ({"implied_fraction": 0.06}, None),
        ({"implied_fraction": 0.99, "genuine_loss": 0.01, "impostor_loss": 1.0}, ("error", 10.0)),
        ({"implied_fraction": 0.9995, "genuine_loss": 0.01, "impostor_loss": 1.0}, None),  # that is a collapse
        ({"implied_fraction": 0.99}, None),  # impostors lose less than genuine pairs
    ],
)
def test_the_logged_loss_tells_the_share_of_unknown_pairs(changes, expected):
    assert severity_and_strength("pair_imbalance", **{**UNKNOWN, **changes}) == expected


def test_losses_that_are_near_each_other_tell_no_share():
    assert isinstance(answer("pair_imbalance", **UNKNOWN), NotExamined)
    near = {**UNKNOWN, "impostor_loss": 0.11, "implied_fraction": 0.01}
    assert isinstance(answer("pair_imbalance", **near), NotExamined)
    learned = {**UNKNOWN, "train_eer": 0.15, "implied_fraction": 0.01}  # then the share is no matter
    assert isinstance(answer("pair_imbalance", **learned), NotExamined)
    assert "The logged loss tells that only 1.0%" in answer("pair_imbalance", **UNKNOWN, implied_fraction=0.01).summary


def test_a_loss_that_hardly_repels_is_no_matter_of_the_pairs():
    weak = {"weighted_positive_fraction": 0.98, "positive_fraction": 0.5, "genuine_loss": 0.01}
    assert severity_and_strength("pair_imbalance", **weak) is None
    assert severity_and_strength("pair_imbalance", **{**weak, "positive_fraction": 0.98}) is not None
