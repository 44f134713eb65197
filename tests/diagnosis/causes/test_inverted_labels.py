"""The cause `inverted_labels` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength

UNTRAINED = {"train_below_chance": None, "train_auc": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 2.903)),  # 9 of 3.1 standard errors
        ({"train_below_chance": 3.1}, None),
        ({"below_chance": -3.2}, None),  # held-out pairs are ranked well
        ({"below_chance": 6.2, **UNTRAINED}, ("error", 2.0)),
        ({"below_chance": 3.1, **UNTRAINED}, None),
        ({"below_chance": 6.2, "train_below_chance": -9.0}, None),  # of known identities no label can be inverted
        ({"below_chance": 6.2, "train_below_chance": -9.0, "identities": None}, ("error", 2.0)),
        ({"loss_similar_label": 0, "train_below_chance": -9.0}, ("error", 10.0)),
        ({"loss_similar_label": 0, "train_below_chance": -9.0, "eer": 0.099}, None),
        ({"loss_similar_label": None, "train_below_chance": -9.0}, None),
    ],
)
def test_strength_is_how_far_below_chance_pairs_are_ranked(changes, expected):
    assert severity_and_strength("inverted_labels", **changes) == expected


def test_the_advice_says_which_side_is_inverted():
    assert "ContrastiveLoss(similar_label=0)" in answer("inverted_labels").advice
    assert answer("inverted_labels").apply({"similar_label": 0}) == {"similar_label": 1}
    clash = answer("inverted_labels", loss_similar_label=0)
    assert "similar_label=1)" in clash.advice and 'takes the label 0 for "same"' in clash.summary
    held_out = answer("inverted_labels", below_chance=6.2, train_below_chance=-9.0, identities=None)
    assert "DivergenceMonitor(validation, similar_label=0)" in held_out.advice
    assert held_out.apply({}) == {"validation_similar_label": 1}
    assert "either in the loss or in these pairs" in answer("inverted_labels", below_chance=6.2, **UNTRAINED).summary


@pytest.mark.parametrize(
    ("changes", "turned", "made"),
    [
        ({"same_label": 0}, ["y = 1 - y"], "PairSequence(x, labels)"),
        ({"same_label": 1}, ["y = 1 - y"], "PairSequence(x, labels, similar_label=0)"),
        ({"loss_similar_label": 0}, ["y = 1 - y"], "PairSequence(x, labels, similar_label=0)"),  # measured
        ({"identities": None}, ["y = 1 - y", "y_valid = 1 - y_valid"], "PairSequence(x, labels)"),
        ({"identities": None, "lowest_label": -1}, ["y = -y", "y_valid = -y_valid"], None),
        ({"identities": None, "train_input_auc": 0.25, "input_auc": 0.75}, ["y = 1 - y"], "PairSequence(x, labels)"),
    ],
)
def test_labels_are_turned_where_the_loss_is_not_of_this_package(changes, turned, made):
    """Its option would come with another loss, of distances, while the output may be a score."""
    unknown = {"loss_of_package": 0.0, "loss_similar_label": None}
    advice = answer("inverted_labels", **{**unknown, **changes}).advice
    assert [line for line in advice.splitlines() if line.startswith("y")] == turned
    assert "ks.losses" not in advice and ("PairSequence" in advice) == (made is not None)
    assert made is None or made in advice


def test_the_label_that_the_loss_wants_is_that_of_pairs_which_the_package_makes():
    assert "PairSequence(x, labels)" in answer("inverted_labels").advice
    assert "PairSequence(x, labels, similar_label=0)" in answer("inverted_labels", loss_similar_label=0).advice


def test_a_loss_that_asks_pairs_of_the_same_for_the_far_end():
    signs = {"auc": 0.6, "eer": 0.4, "below_chance": -3.0, "train_auc": 0.6, "train_below_chance": -3.0}
    ends = {"equal_end": -1, "wanted_end": 1}
    found = answer("inverted_labels", **signs, **ends, learned_head=0)
    assert "Equal embeddings give the lowest output" in found.summary and found.severity == "error"
    assert severity_and_strength("inverted_labels", **signs, **ends, learned_head=1) is None
    assert severity_and_strength("inverted_labels", **signs, equal_end=-1, wanted_end=-1, learned_head=0) is None
    assert severity_and_strength("inverted_labels", **{**signs, "eer": 0.05}, **ends, learned_head=0) is None


def test_a_head_that_has_not_found_its_sign_is_no_inverted_label():
    head = {"learned_head": 1, "train_input_auc": 0.9, "input_auc": 0.9}
    assert severity_and_strength("inverted_labels", **head) is None
    assert severity_and_strength("inverted_labels", **{**head, "train_input_auc": 0.55}) == ("error", 2.903)


def test_training_labels_that_mean_the_opposite_of_the_held_out_ones():
    signs = {"auc": 0.6, "eer": 0.4, "below_chance": -3.0, "train_auc": 0.9, "train_below_chance": -20.0}
    reversed_labels = {"train_input_auc": 0.25, "input_auc": 0.75}
    assert "mean the opposite" in answer("inverted_labels", **signs, **reversed_labels).summary
    assert severity_and_strength("inverted_labels", **signs, train_input_auc=0.48, input_auc=0.75) is None
    assert severity_and_strength("inverted_labels", **{**signs, "eer": 0.05}, **reversed_labels) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 2.0)),
        ({"linear_train_eer": 0.26}, None),  # the labels may be wrong
        ({"linear_train_eer": None}, None),
        ({"untrained_eer": 0.41}, None),
        ({"spread": 0.24}, None),  # a collapse
        ({"update_size_first": 1.1}, None),  # steps that are too large
        ({"update_size_first": None, "weights_grown": 5.1}, None),
        ({"update_size_first": None, "weights_grown": 1.2}, ("error", 2.0)),
        ({"learned_head": 1.0}, None),
    ],
)
def test_training_that_makes_an_encoder_worse_pulls_the_wrong_way(changes, expected):
    facts = {"train_eer": 0.5, "untrained_eer": 0.3, "linear_train_eer": 0.15, "train_below_chance": 0.0}
    facts |= {"eer": 0.46, "auc": 0.56, "below_chance": -3.0}
    assert severity_and_strength("inverted_labels", **{**facts, **changes}) == expected
