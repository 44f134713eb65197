"""The cause `label_noise` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


def test_a_frozen_encoder_says_nothing_about_labels():
    for name, least in (("trainable_share", 0.3), ("moved_share", 0.3), ("update_size_largest", 0.01)):
        assert severity_and_strength("label_noise", **{name: 0.99 * least}) is None
        assert severity_and_strength("label_noise", **{name: least}) is not None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),
        ({"impostor_like": 0.05}, ("error", 2.5)),
        ({"impostor_like": 0.04, "impostor_like_se": 0.01}, ("warning", 2.0)),
        ({"impostor_like": 0.02, "impostor_like_se": 0.0}, None),
        ({"impostor_like": 0.04, "impostor_like_se": 0.02}, None),  # the interval holds the share of held-out pairs
        ({"impostor_like": 0.3, "impostor_like_held_out": 0.1}, ("error", 2.5)),
        ({"impostor_like": 0.3, "impostor_like_held_out": 0.1, "impostor_like_held_out_se": 0.1}, None),
        ({"train_eer": 0.17}, None),  # training identities verify better
        ({"train_eer": 0.19}, ("error", 10.0)),
        ({"eer": 0.019, "train_eer": 0.02}, None),
    ],
)
def test_strength_is_the_share_over_that_of_held_out_pairs(changes, expected):
    assert severity_and_strength("label_noise", **changes) == expected


SHOWN = {"impostor_like": 0.0, "train_eer": 0.02, "linear_impostor_like": 0.12, "linear_impostor_like_se": 0.01}
SHOWN |= {"linear_impostor_like_held_out": 0.02, "linear_impostor_like_held_out_se": 0.0, "linear_train_eer": 0.2}
SHOWN |= {"reference_linear": 0.15, "linear_train_eer_se": 0.01, "linear_eer_se": 0.01}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("warning", 3.0)),  # the network has learned the wrong labels by heart
        ({"linear_impostor_like": 0.07}, ("info", 1.75)),  # few
        ({"linear_impostor_like": 0.04}, None),
        ({"linear_impostor_like_se": 0.05}, None),
        ({"linear_train_eer": 0.15}, None),  # a small model fits right labels at least as well as new ones
        ({"linear_train_eer": 0.17}, ("info", 3.0)),
        ({"eer": 0.019}, None),
    ],
)
def test_a_linear_model_shows_labels_that_the_network_has_learned(changes, expected):
    assert severity_and_strength("label_noise", **{**SHOWN, **changes}) == expected


def test_a_few_wrong_labels_are_information_only():
    few = {"impostor_like": 0.05, "impostor_like_se": 0.01, "linear_impostor_like": 0.04}
    linear = {**SHOWN, **few, "train_eer": 0.2}
    assert severity_and_strength("label_noise", **linear) == ("info", 2.5)
    assert severity_and_strength("label_noise", **{**linear, "linear_impostor_like": 0.12}) == ("error", 2.5)
    assert severity_and_strength("label_noise", **{**few, "linear_impostor_like": None}) == ("error", 2.5)


def test_the_advice_lists_the_suspects():
    finding = answer("label_noise")
    assert "facts.rows['suspected_labels']" in finding.advice and finding.apply({}) == {"label_noise": 0.0}
    signal = finding.evidence["impostor_like_genuine_pairs"]
    assert (signal.low, signal.high, signal.threshold) == pytest.approx((0.26, 0.34, 0.02))
    assert answer("label_noise", impostor_like=0.99).evidence["impostor_like_genuine_pairs"].high == 1.0
