"""The cause `weak_features` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("warning", 1.33)),
        ({"train_eer": 0.15}, None),
        ({"train_eer": 0.16}, ("warning", 1.16)),
        ({"verifies_badly": 0}, None),
        ({"eer": 0.099}, None),
        ({"effective_rank": 4.7}, ("warning", 3.33)),  # .15 of 32 dimensions are 4.8
        ({"effective_rank": 4.8}, ("warning", 1.33)),
        ({"effective_rank": 2.0, "train_identities": 8}, ("warning", 1.33)),  # at least 2 dimensions
        ({"effective_rank": 1.9, "train_identities": 8}, ("warning", 3.33)),
        ({"embedding_dim": 4}, ("warning", 3.33)),
        ({"embedding_dim": 4, "train_eer": 0.06, "verifies_badly": 0}, ("warning", 3.06)),  # a reason needs less
        ({"embedding_dim": 4, "train_eer": 0.049, "verifies_badly": 0}, None),
        ({"detail": 0.09, "embedding_dim": 2}, ("warning", 5.33)),
    ],
)
def test_strength_counts_the_visible_reasons(changes, expected):
    assert severity_and_strength("weak_features", **changes) == expected


def test_it_names_its_reasons():
    found = answer("weak_features", detail=0.05, effective_rank=1.5)
    assert "embeddings use 1.5 dimensions, inputs are blurred." in found.summary
    assert "no other cause was found" in answer("weak_features").summary
    assert found.apply({}) == {"width": 128, "embedding_dim": 32, "blur": 0.0}
