"""Tests of `diagnose`: it knows what a monitor knew, and checks its arguments first."""

import pytest

from keras_siamese.diagnosis.diagnose import diagnose, nan_from
from tests.support import plantings


def test_a_diagnosis_after_training_knows_what_the_monitor_knew():
    monitor = plantings.run(**plantings.FAULTS["margin"])
    before, held_out = monitor.diagnosis, plantings.held_out_part()
    after = diagnose(monitor.model, validation=held_out, history=monitor)
    assert after.facts.numbers == pytest.approx(before.facts.numbers, abs=1e-6)
    assert [one.cause for one in after.findings] == [one.cause for one in before.findings]
    assert after.observed.target_eer == plantings.TARGET_EER and after.observed.source is before.observed.source
    # Items with their identities tell less than the pairs that were shown; what is given here counts.
    again = diagnose(monitor.model, validation=held_out, train=plantings.train_part(), history=monitor, target_eer=0.1)
    assert again.facts["positive_fraction"] == 0.5 and again.observed.target_eer == 0.1
    assert again.facts["update_size_first"] == before.facts["update_size_first"]
    curves = diagnose(monitor.model, validation=held_out, history=monitor.history)
    assert "positive_fraction" not in curves.facts and "train_eer" not in curves.facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "half"}, "`threshold` must be a number"),
        ({"target_eer": 1.0}, r"`target_eer` must be in \(0, 1\)"),
    ],
)
def test_options_are_checked_before_anything_is_measured(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        diagnose(None, validation=None, **options)


def test_the_first_epoch_without_a_measured_eer():
    nan = float("nan")
    assert nan_from({"eer": [0.3, 0.2, nan, nan]}) == 2 and nan_from({"eer": [nan, nan]}) == 0
    assert nan_from({}) is None and nan_from({"eer": [0.3]}) == 1
