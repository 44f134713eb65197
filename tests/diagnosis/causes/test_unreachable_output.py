"""The cause `unreachable_output` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import RuledOut
from tests.support.facts_by_hand import BAD, answer, examined, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 2.0)),
        ({"out_of_reach": 0.49}, None),
        ({"out_of_reach": 0.5}, ("error", 1.0)),
        ({"out_of_reach": 10.0}, ("error", 10.0)),
        ({"eer": 0.099}, None),  # a cosine of positive embeddings under labels of -1 and 1 verifies well
        ({"out_of_reach_least": 0.25}, None),  # both labels: the loss is made for another output
        ({"out_of_reach_least": 0.3, "output_low": 1.0}, ("error", 2.0)),  # a constant reaches neither
    ],
)
def test_strength_is_the_share_that_cannot_be_won(changes, expected):
    assert severity_and_strength("unreachable_output", **changes) == expected


def test_it_names_the_label_and_the_range():
    found = answer("unreachable_output")
    assert "lies between 0.5 and 1" in found.summary and "For pairs of label 0, the best output" in found.summary
    assert "LogisticHead" in found.advice and found.apply({}) == {"head": "logistic"}
    constant = answer("unreachable_output", output_low=1.0)
    assert "is 1 for all pairs" in constant.summary and "sigmoid" in constant.advice


@pytest.mark.parametrize(
    ("share", "cost"), [(0.6, "60% of the"), (1.0, "at least the"), (2.0, "2 times the"), (10.0, "10 times the")]
)
def test_it_says_what_the_best_output_costs(share, cost):
    summary = answer("unreachable_output", out_of_reach=share).summary
    assert f"the best output that the model can give still costs {cost} loss of a constant guess" in summary


def test_it_explains_pairs_that_are_ranked_worse_than_chance():
    worse = {"auc": 0.48, "train_auc": 0.42, "below_chance": 1.0, "train_below_chance": 9.0}
    signs = {**BAD, **worse, "output_low": 0.5, "output_high": 1.0, "out_of_reach": 1.0, "wanted_end": 1.0,
             "wants_distance": 0.0, "wants_probability": 1.0}  # fmt: skip
    first, *others = examined(**signs)[0]
    assert first.cause == "unreachable_output" and first.explained_by is None
    assert {one.cause: one.explained_by for one in others}["inverted_labels"] == "unreachable_output"
    assert "loss_mismatch" not in [one.cause for one in others]


def test_a_margin_that_can_be_reached_is_ruled_out():
    found = answer("unreachable_output", out_of_reach=0.16, output_low=0.0, output_high=2.0)
    assert isinstance(found, RuledOut) and found.evidence["least_loss_over_that_of_a_guess"].value == 0.16
