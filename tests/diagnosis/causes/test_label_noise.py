"""The cause `label_noise` on facts written by hand."""

from types import SimpleNamespace

import numpy as np
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


ROWS = {"suspected_labels": [3, 0]}


@pytest.mark.parametrize("changes", [{}, SHOWN])
@pytest.mark.parametrize(
    ("rows", "identities", "left"),
    [
        (ROWS, 150, {"x": [[1.0], [2.0]], "labels": [6, 7]}),
        (ROWS, None, {"left_train": [[1.0], [2.0]], "right_train": [[5.0], [6.0]], "y": [1, 0]}),
        (None, 150, {}),
        (None, None, {}),
    ],
)
def test_the_advice_leaves_out_the_suspects_if_there_are_any(changes, rows, identities, left):
    advice = answer("label_noise", rows, **changes, train_identities=identities).advice
    names = {"x": np.arange(4.0)[:, None], "labels": np.array([5, 6, 7, 8]), "y": np.array([0, 1, 0, 1])}
    names |= {"left_train": np.arange(4.0)[:, None], "right_train": np.arange(4.0, 8)[:, None]}
    exec(advice, {"np": np, "diagnosis": SimpleNamespace(facts=SimpleNamespace(rows=rows or {}))}, names)
    assert {name: names[name].tolist() for name in left} == left
    assert ("facts.rows" in advice) == (rows is not None) and ("labels:" in advice) == (identities is not None)


def test_the_evidence_begins_with_the_number_of_the_sentence():
    for changes, leading in (({}, "impostor_like_genuine_pairs"), (SHOWN, "impostor_like_by_linear_model")):
        found = answer("label_noise", **changes)
        name, signal = next(iter(found.evidence.items()))
        assert name == leading and f"{signal.value:.1%} of the genuine training pairs" in found.summary
        others = [one for other, one in found.evidence.items() if other != name]
        assert signal.threshold is not None and all(one.threshold is None for one in others)


def test_its_interval_is_that_of_the_share():
    finding = answer("label_noise")
    assert finding.apply({}) == {"label_noise": 0.0}
    signal = finding.evidence["impostor_like_genuine_pairs"]
    assert (signal.low, signal.high, signal.threshold) == pytest.approx((0.26, 0.34, 0.02))
    assert answer("label_noise", impostor_like=0.99).evidence["impostor_like_genuine_pairs"].high == 1.0
