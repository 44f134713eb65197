"""The cause `loss_mismatch` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, examined, severity_and_strength

NONE = {"cut_off_share": 0.0}
LOGITS = {**NONE, "output_low": 0.0, "output_high": 1.0, "out_of_reach": 1.0, "out_of_reach_least": 0.45,
          "wants_probability": 0.0}  # fmt: skip
UPSIDE_DOWN = {**NONE, "equal_end": -1.0, "wanted_end": 1.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 5.0)),
        ({"cut_off_share": 0.019}, None),
        ({"cut_off_share": 0.02}, ("error", 1.0)),
        ({"eer": 0.049}, None),
        ({"eer": 0.051}, ("error", 5.0)),
        (NONE, None),  # a probability, as the loss wants it
        ({**NONE, "stuck_share": 0.6}, None),  # a saturated sigmoid: its slope is the optimizer's matter
        (LOGITS, ("error", 2.0)),
        ({**LOGITS, "out_of_reach_least": 0.24}, None),  # one label only: `unreachable_output`
        ({**LOGITS, "out_of_reach": 0.45}, None),  # a cosine as logit, from -1 to 1
        ({**LOGITS, "output_low": 1.0}, None),  # a constant output
        ({**LOGITS, "eer": 0.09}, None),  # which verifies well all the same
        (UPSIDE_DOWN, ("error", 10.0)),  # cross-entropy of a distance, label 1 = same
        ({**UPSIDE_DOWN, "learned_head": 1.0}, None),  # a head can turn it
        ({**UPSIDE_DOWN, "out_of_reach": 1.0}, None),  # the sigmoid of a distance: `unreachable_output`
        ({**UPSIDE_DOWN, "eer": 0.09}, None),
        ({**UPSIDE_DOWN, "wants_probability": 0.0, "wants_distance": 1.0}, None),  # `inverted_labels`
        ({**NONE, "equal_end": 1.0, "wanted_end": -1.0, "wants_distance": 1.0}, ("error", 10.0)),
        ({"loss_falls_for_ever": 1.0}, ("error", 10.0)),
        ({"loss_falls_for_ever": 1.0, "eer": 0.09}, None),
        ({**NONE, "least_loss": -16.0}, ("error", 10.0)),
        ({**NONE, "least_loss": -16.0, "eer": 0.09}, None),
        ({**NONE, "least_loss": -1.0, "wants_probability": 0.0}, None),  # minus a cosine may be negative
    ],
)
def test_a_loss_of_another_kind_of_output(changes, expected):
    assert severity_and_strength("loss_mismatch", **changes) == expected


def test_a_loss_without_a_least_value_has_no_other_facts():
    unknown = dict.fromkeys(("cut_off_share", "out_of_reach", "out_of_reach_least", "least_loss", "wants_probability"))
    assert severity_and_strength("loss_mismatch", **unknown, loss_falls_for_ever=1.0) == ("error", 10.0)
    assert severity_and_strength("loss_mismatch", **unknown, loss_falls_for_ever=1.0, eer=0.05) is None
    assert severity_and_strength("loss_mismatch", **unknown, loss_falls_for_ever=0.0) is None


def test_its_words_follow_the_sign():
    cut_off = answer("loss_mismatch")
    assert "10% of the training pairs" in cut_off.summary and "of probabilities" in cut_off.summary
    assert "ContrastiveLoss" in cut_off.advice and cut_off.apply({}) == {"loss": "contrastive"}
    assert "logit" in answer("loss_mismatch", **LOGITS).summary
    assert "from_logits=False" in answer("loss_mismatch", **LOGITS).advice
    assert "is a distance and the loss is one of probabilities" in answer("loss_mismatch", **UPSIDE_DOWN).summary
    similar = answer("loss_mismatch", **NONE, equal_end=1.0, wanted_end=-1.0, wants_distance=1.0)
    assert "is a similarity and the loss is one of distances" in similar.summary and "cosine" in similar.advice
    assert "below 0" in answer("loss_mismatch", **NONE, least_loss=-16.0).summary


def test_contrastive_losses_are_no_mismatch():
    assert examined(equal_end=-1.0, wants_distance=1.0, eer=0.3, stuck_share=0.0)[0] == []
