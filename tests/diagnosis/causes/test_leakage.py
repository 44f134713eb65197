"""The cause `leakage` on facts written by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.causes import NotExamined
from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"duplicates": 0.011}, ("error", 10.0)),
        ({"duplicates": 0.01}, None),
        ({"duplicates": 0.0, "near_duplicates": 0.051}, ("error", 10.0)),
        ({"duplicates": 0.0, "near_duplicates": 0.05}, None),
        ({"duplicates": 0.0, "shared_names": 30, "shared_auc": 0.71}, ("error", 10.0)),
        ({"duplicates": 0.0, "shared_names": 30, "shared_auc": 0.7}, None),
        ({"duplicates": 0.0, "shared_names": 3, "shared_auc": 0.99}, None),  # ½ + 3·√(1/36) is 1
        ({"duplicates": 0.0, "shared_names": 12, "shared_auc": 0.76}, ("error", 10.0)),  # ½ + 3·√(1/144) is ¾
        ({"duplicates": 0.0, "shared_names": 12, "shared_auc": 0.75}, None),
        ({"duplicates": None, "shared_names": 30, "shared_auc": 0.9}, ("error", 10.0)),
    ],
)
def test_copies_and_shared_identities_are_leaks(changes, expected):
    assert severity_and_strength("leakage", **changes) == expected


def test_without_training_samples_it_is_not_examined():
    assert isinstance(answer("leakage", duplicates=None, shared_names=None), NotExamined)


@pytest.mark.parametrize(("same_label", "of_genuine"), [(1, 1.0), (0, 0.0)])
def test_pairs_are_made_within_each_part_of_the_split(same_label, of_genuine):
    assert "PairSequence" not in answer("leakage").advice
    x, labels = np.arange(60.0)[:, None], np.repeat(np.arange(20), 3)
    fed = {}
    siamese = SimpleNamespace(fit=lambda train, epochs, callbacks: fed.update(train=train, callbacks=callbacks))
    advice = answer("leakage", train_identities=None, same_label=same_label).advice
    names = {"x": x, "labels": labels, "siamese": siamese}
    exec(advice, {"ks": ks}, names)
    (left, right), y = fed["train"][0]
    assert ((left // 3 == right // 3)[:, 0] == (y == of_genuine)).all() and set(y) == {0.0, 1.0}
    assert not set(left[:, 0]) & set(names["valid"][0][:, 0]) and fed["callbacks"] == [names["monitor"]]


def test_it_says_what_both_sides_share():
    finding = answer("leakage", near_duplicates=0.1, shared_names=30, shared_auc=0.9)
    assert "30 identities are on both sides and 40.0% of the held-out samples are, or nearly are," in finding.summary
    assert "split_identities" in finding.advice and finding.apply({"leak": 1}) == {"leak": None}
    assert finding.evidence["shared_auc"].threshold == 0.7
