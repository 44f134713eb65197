"""The cause `memorising` on facts written by hand."""

import pytest

from keras_siamese.diagnosis.causes import NotExamined
from keras_siamese.diagnosis.causes.memorising import gap_interval
from tests.support.facts_by_hand import answer, facts, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("error", 3.1)),
        ({"gap": 0.14, "eer": 0.15, "untrained_eer": 0.2}, ("warning", 1.4)),
        ({"gap": 0.14, "eer": 0.15, "flagged": 1}, ("error", 1.4)),
        ({"gap": 0.1}, None),
        ({"train_eer": 0.099}, ("error", 3.1)),
        ({"train_eer": 0.1}, None),
        ({"train_eer": 0.07, "eer": 0.17}, None),  # not 2.5 times better than held-out ones
        ({"eer_se": 0.2}, None),  # the interval holds 0
        ({"identities": 5}, ("error", 3.1)),
        ({"identities": None}, ("error", 3.1)),
    ],
)
def test_strength_is_the_gap_over_its_limit(changes, expected):
    assert severity_and_strength("memorising", **changes) == expected


def test_few_held_out_identities_say_nothing():
    found = answer("memorising", identities=4)
    assert isinstance(found, NotExamined) and found.needs == "5 held-out identities or more; there are 4"


def test_its_interval_is_students():
    low, high = gap_interval(facts(gap=0.2, eer_se=0.03, train_eer_se=0.04, identities=11))
    assert low == pytest.approx(0.2 - 2.228 * 0.05, abs=1e-4) and high == pytest.approx(0.2 + 2.228 * 0.05, abs=1e-4)
    assert gap_interval(facts(gap=0.2, eer_se=0.03, train_eer_se=0.04, identities=None)) == pytest.approx(
        (0.102, 0.298), abs=1e-4
    )


def test_it_names_the_number_of_identities_and_asks_for_more():
    finding = answer("memorising")
    assert "overfitted to its 150 training identities" in finding.summary
    assert finding.apply({"identities": 4}) == {"identities": None, "augment": True, "early_stopping": True}


def test_a_small_gap_is_no_fault_if_held_out_identities_share_the_gain():
    hard = {"eer": 0.153, "train_eer": 0.039, "gap": 0.114}
    assert severity_and_strength("memorising", **hard, untrained_eer=0.335) is None
    assert severity_and_strength("memorising", **hard, untrained_eer=0.2) is not None
    assert severity_and_strength("memorising", eer=0.2, train_eer=0.01, gap=0.19, untrained_eer=0.5) is not None


def test_a_probe_that_left_out_half_of_the_identities_is_told():
    assert "0.040 of EER" in answer("memorising", identities_gain=0.04, identities_gain_low=0.01).summary
    assert "of EER" not in answer("memorising", identities_gain=0.04, identities_gain_low=-0.01).summary
