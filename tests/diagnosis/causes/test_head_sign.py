"""The cause `head_sign` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import BAD, answer, examined, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"equal_end": -1.0}, None),  # the head has the right sign
        ({"equal_end": 1.0, "wanted_end": 1.0}, None),  # so has one over a similarity
        ({"equal_end": -1.0, "wanted_end": 1.0}, ("error", 10.0)),
        ({"equal_end": 0.0}, None),  # equal embeddings are at no end
        ({"wanted_end": 0.0}, None),  # what the loss wants is not known
        ({"head_is_scalar": 0.0}, None),  # a head over many columns, or none
        ({"eer": 0.09}, None),
    ],
)
def test_a_scalar_head_of_the_wrong_sign(changes, expected):
    assert severity_and_strength("head_sign", **changes) == expected


def test_it_says_which_end_is_wrong():
    found = answer("head_sign")
    assert "highest" in found.summary.split(",")[0] and found.apply({}) == {"head": "logistic"}
    assert found.evidence["output_of_equal_embeddings"].null == -1
    assert "lowest" in answer("head_sign", equal_end=-1.0, wanted_end=1.0).summary.split(",")[0]


def test_it_explains_pairs_that_are_ranked_worse_than_chance():
    worse = {"auc": 0.48, "train_auc": 0.42, "below_chance": 1.0, "train_below_chance": 9.0}
    first, *others = examined(**{**BAD, **worse, "head_is_scalar": 1.0, "learned_head": 1.0, "equal_end": 1.0})[0]
    assert first.cause == "head_sign" and all(one.explained_by for one in others)
