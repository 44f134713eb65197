"""The cause `identity_imbalance` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 5.4)),
        ({"share_of_two": 0.8}, ("warning", 4.8)),
        ({"share_of_two": 0.5}, None),
        ({"drawn_identities": 8}, ("error", 5.4)),
        ({"drawn_identities": 7}, None),
        ({"eer": 0.019}, None),
    ],
)
def test_strength_is_the_share_of_the_two_largest(changes, expected):
    assert severity_and_strength("identity_imbalance", **changes) == expected


def test_it_says_how_many_identities_that_amounts_to():
    finding = answer("identity_imbalance")
    assert "Two of 150 identities make up 90%" in finding.summary and "2.5 identities" in finding.summary
    assert finding.evidence["share_of_two"].null == pytest.approx(2 / 150)
    assert finding.apply({}) == {"weighting": "balanced"}
