"""The cause `threshold` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined
from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("warning", 10.0)),
        ({"accuracy_lost": 0.06}, ("warning", 3.0)),
        ({"accuracy_lost": 0.02}, None),
        ({"accuracy_lost": 0.02, "accuracy_se": 0.002}, ("warning", 2.0)),
        ({"accuracy_lost": 0.01, "accuracy_se": 0.002}, None),
        ({"accuracy_lost": 0.06, "default_threshold": 1.0}, ("warning", 2.0)),  # Keras's own ½ may lose more
        ({"accuracy_lost": 0.03, "default_threshold": 1.0}, None),
        ({"accuracy_lost": 0.06, "accuracy_se": 0.02}, ("warning", 1.5)),  # two standard errors
        ({"accuracy_lost": 0.06, "accuracy_se": 0.03}, None),
    ],
)
def test_strength_is_the_lost_accuracy(changes, expected):
    assert severity_and_strength("threshold", **changes) == expected


def test_it_needs_a_threshold_and_pairs_to_choose_another():
    assert isinstance(answer("threshold", threshold=None), NotExamined)
    assert "more held-out pairs" in answer("threshold", accuracy_lost=None).needs


def test_it_says_what_another_threshold_gives():
    finding = answer("threshold")
    assert "gives accuracy 0.700, while one chosen on other identities gives 0.900" in finding.summary
    assert finding.apply({"threshold": 1}) == {"threshold": None}
    assert "The score is −distance: a pair is accepted if its distance is at most 0.5." in finding.summary


LOGGED = {"threshold": None, "accuracy_lost": None, "train_best_accuracy": 0.92, "logged_accuracy": 0.5}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"logged_accuracy": 0.8}, "not examined"),  # a mean over the epoch, with dropout, is lower
        ({"train_eer": 0.3}, "not examined"),  # pairs are not told apart, so an accuracy near .5 is right
        ({"eer": 0.3}, "not examined"),
        ({"train_best_accuracy": None}, "not examined"),
    ],
)
def test_a_logged_accuracy_that_contradicts_the_ranking(changes, expected):
    if expected == "not examined":
        assert isinstance(answer("threshold", **{**LOGGED, **changes}), NotExamined)
    else:
        assert severity_and_strength("threshold", **{**LOGGED, **changes}) == expected


HELD_OUT = {"threshold": None, "train_best_accuracy": None, "val_best_accuracy": 0.9, "logged_val_accuracy": 0.05}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("warning", 10.0)),
        ({"logged_val_accuracy": 0.65}, ("warning", 8.333)),
        ({"logged_val_accuracy": 0.7}, None),
        ({"eer": 0.26}, None),  # pairs are not told apart, so an accuracy near .5 is right
        ({"val_best_accuracy": None}, None),
        ({"threshold": -0.5, "accuracy_lost": 0.0}, None),  # which says more
        ({"train_best_accuracy": 0.9, "logged_accuracy": 0.05}, ("error", 10.0)),  # and so do the training pairs
    ],
)
def test_without_training_pairs_the_accuracy_of_the_validation_data_counts(changes, expected):
    assert severity_and_strength("threshold", **{**HELD_OUT, **changes}) == expected
    assert "of the validation data is 0.050" in answer("threshold", **HELD_OUT).summary
    assert "calls genuine pairs different" in answer("threshold", **HELD_OUT).summary


def test_a_metric_that_mixes_pairs_up_is_told_from_a_threshold():
    mixed = {**LOGGED, "logged_accuracy": 0.52, "accuracy_at_half": 0.9, "accuracy_mixed": 0.5}
    found = answer("threshold", **mixed)
    assert "does not compare each label with its own output" in found.summary and "reshape" in found.advice
    for change in ({"logged_accuracy": 0.6}, {"accuracy_at_half": 0.6}, {"accuracy_mixed": None}):
        found = answer("threshold", **{**mixed, **change})
        assert "a threshold that does not fit" in found.summary and "calibrate" in found.advice


def test_it_tells_a_threshold_from_a_reversed_metric():
    assert "does not fit" in answer("threshold", **LOGGED).summary
    assert "calls genuine pairs different" in answer("threshold", **{**LOGGED, "logged_accuracy": 0.1}).summary
