"""The cause `mining` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import RuledOut
from tests.support.facts_by_hand import answer, severity_and_strength

HARDEST = {"drawn_auc": None, "mined_accuracy": 0.1, "spacing": 0.24}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 10.0)),  # .28 of all pairs are missed
        ({"drawn_auc": 0.96}, ("error", 1.4)),
        ({"drawn_auc": 0.94}, None),
        ({"train_auc": 0.375, "drawn_auc": 0.875}, None),  # exactly a fifth of .625
        ({"train_auc": 0.95}, ("warning", 10.0)),
        ({"train_auc": 0.971}, None),
        ({"eer": 0.019}, None),
        ({"drawn_auc": None}, None),
        (HARDEST, ("error", 10.0)),
        ({**HARDEST, "spacing": 0.25}, None),
        ({**HARDEST, "mined_accuracy": 0.5}, None),
        ({**HARDEST, "update_size_first": 1.0}, None),  # such steps are to blame first
        ({**HARDEST, "spacing": 0.9, "impostor_like": 0.021}, ("error", 10.0)),
        ({**HARDEST, "spacing": 0.9, "impostor_like": 0.021, "impostor_like_held_out": 0.01}, None),
    ],
)
def test_strength_is_how_much_easier_the_shown_pairs_are(changes, expected):
    assert severity_and_strength("mining", **changes) == expected


def test_it_says_what_is_shown():
    assert "0.0% of the pairs that training is shown are ranked wrongly, but 28.0%" in answer("mining").summary
    assert "the hardest ones collapse the embedding" in answer("mining", **HARDEST).summary
    noisy = answer("mining", **{**HARDEST, "impostor_like": 0.3})
    assert "90% of the triplets that the loss selects" in noisy.summary and "have wrong labels" in noisy.summary
    assert noisy.apply({}) == {"positives": "all", "negatives": "all", "easy_pairs": False, "online": False}


def test_a_few_pairs_may_be_easy_by_chance():
    few = {"train_auc": 0.96, "drawn_auc": 0.995}
    assert severity_and_strength("mining", **few, drawn_auc_se=0.01) is not None
    assert severity_and_strength("mining", **few, drawn_auc_se=0.02) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 4.0)),
        ({"crossed_eer": 0.2}, None),  # some of the crossed pairs are genuine
        ({"train_eer": 0.2}, None),  # the training pairs are not easy
        ({"train_input_eer": 0.3}, None),  # and these were learned by heart, as are wrong labels
        ({"eer": 0.05}, None),
    ],
)
def test_pairs_that_are_easy_beside_pairs_of_their_own_items(changes, expected):
    given = {"train_auc": 1.0, "train_eer": 0.01, "crossed_eer": 0.4, "eer": 0.4, "drawn_auc": None}
    given |= {"train_input_eer": 0.02, "untrained_eer": 0.3}
    assert severity_and_strength("mining", **{**given, **changes}) == expected
    assert "pairs of their own items (EER 0.400)" in answer("mining", **given).summary
    assert isinstance(answer("memorising", **given), RuledOut), "it does not tell its training identities apart"
