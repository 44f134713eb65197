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


BEATEN = {"train_eer": 0.12, "eer": 0.2, "verifies_badly": 0, "reference_linear": 0.1, "behind_linear": 0.1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("info", 1.0)),
        ({"behind_linear": 0.02}, None),
        ({"behind_linear_se": 0.05}, None),
        ({"eer": 0.019}, None),
        ({"eer": 0.05}, ("info", 1.0)),
        ({"train_eer": 0.16}, ("warning", 1.16)),  # training pairs are not told apart either
        ({"unseen_share": 0.21}, ("warning", 3.12)),
        ({"unseen_share": 0.2}, ("info", 1.0)),
        ({"unseen_share": 0.9, "behind_linear": 0.0}, None),  # what it sees is enough
        ({"unseen_share": 0.9, "train_eer": 0.04}, ("info", 1.0)),
        ({"unseen_share": 0.9, "eer": 0.09}, ("info", 1.0)),
    ],
)
def test_a_linear_model_that_does_better_counts_with_a_second_sign(changes, expected):
    assert severity_and_strength("weak_features", **{**BEATEN, "behind_linear_se": 0.01, **changes}) == expected


def test_it_names_the_linear_model_and_what_is_not_seen():
    found = answer("weak_features", **BEATEN, behind_linear_se=0.01, unseen_share=0.5)
    assert "50% of what a linear model uses of the inputs is in parts that do not change" in found.summary
    assert "worse than a linear model of the raw inputs (EER 0.100)" in found.summary
    signal = found.evidence["eer_behind_linear_model"]
    assert (signal.value, round(signal.low, 3), round(signal.high, 3)) == (0.1, 0.08, 0.12)


def test_it_names_its_reasons():
    found = answer("weak_features", detail=0.05, effective_rank=1.5)
    assert "embeddings use 1.5 dimensions, inputs are blurred." in found.summary
    assert "the features are too weak" in answer("weak_features").summary
    assert found.apply({}) == {"width": 128, "embedding_dim": 32, "blur": 0.0}
    assert found.apply({"width": 512, "embedding_dim": 8})["width"] == 512, "nothing gets smaller"


def test_augmentation_that_a_probe_has_found_to_hide_the_identities_is_a_reason():
    known = {"unaugmented_gain": 0.05, "unaugmented_gain_low": 0.02}
    assert "augmentation hides" in answer("weak_features", **known).summary
    assert "augmentation" not in answer("weak_features", **known | {"unaugmented_gain_low": -0.01}).summary
