"""Tests of `confirm`: what a repair gains is measured beside the run without it, and the order of findings follows."""

import random
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes import Finding
from keras_siamese.diagnosis.experiments.confirm import (
    Confirmation,
    by_confirmation,
    check_budget,
    compare,
    confirm,
    with_confirmations,
)
from keras_siamese.diagnosis.experiments.confirm import tested as with_tests
from keras_siamese.diagnosis.experiments.program import Outcome, program_of
from keras_siamese.scoring import ScoredTrials, Trials
from tests.support import small_programs
from tests.support.recordings import FOLDER


def weights(model):
    return [keras.ops.convert_to_numpy(one) for one in [*model.variables, *model.optimizer.variables]]


@pytest.fixture(scope="module")
def inverted():
    return small_programs.fitted(similar_label=0, rate=0.02, epochs=6, confirm=True)


def test_json_keeps_what_was_tested_and_the_order(inverted, tmp_path):
    diagnosis = inverted[1].diagnosis
    again = ks.Diagnosis.from_json(diagnosis.to_json(tmp_path / "run.json"))
    assert [str(one.confirmation) for one in again.findings] == [str(one.confirmation) for one in diagnosis.findings]
    assert [one.cause for one in again.findings] == [one.cause for one in diagnosis.findings]


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow", "jax")
def test_the_repair_is_confirmed_and_the_run_is_as_it_would_have_been(inverted):
    model, monitor, *_ = inverted
    drawn = random.random(), np.random.random()
    state = random.getstate(), np.random.get_state()
    finding = monitor.diagnosis.findings[0]
    tested = finding.confirmation
    assert (finding.cause, tested.verdict, tested.made) == ("inverted_labels", "confirmed", ("similar_label",))
    assert tested.before - tested.after == pytest.approx(tested.gain) and 0 < tested.low < tested.gain < tested.high
    assert 0 < tested.steps * 2 <= 36  # half of the epochs, for both sides
    assert "confirmed: EER" in str(monitor.diagnosis) and drawn
    other = small_programs.fitted(similar_label=0, rate=0.02, epochs=6)[0]
    assert all(np.array_equal(one, same) for one, same in zip(weights(model), weights(other), strict=True))
    random.setstate(state[0])
    np.random.set_state(state[1])


def test_diagnose_tests_after_training_and_leaves_the_model_alone(inverted, capsys):
    model, monitor, train, valid = inverted
    before, state = weights(model), random.getstate()
    found = ks.diagnose(model, validation=valid, train=train, history=monitor, budget_epochs=3)
    assert found.findings[0].confirmation.verdict == "confirmed" and random.getstate() == state
    assert all(np.array_equal(one, same) for one, same in zip(before, weights(model), strict=True))
    assert "step" in capsys.readouterr().out  # Keras's progress bar
    plain = ks.diagnose(model, validation=valid, train=train, history=monitor)
    assert plain.findings[0].confirmation is None


def test_what_makes_no_difference_is_not_confirmed(inverted):
    observed = inverted[1].diagnosis.observed
    same = Finding("margin", "error", 3, "", {}, "", lambda recipe: {**recipe, "margin": 1.0})
    found = confirm([same], observed, program_of(observed), steps=24)["margin"]
    assert found.verdict != "confirmed" and found.low <= 0


def test_what_cannot_be_tested_says_what_it_would_need(inverted):
    observed = inverted[1].diagnosis.observed
    person = Finding("leakage", "error", 3, "", {}, "", None)
    margin = Finding("margin", "error", 3, "", {}, "", lambda recipe: {**recipe, "margin": 1.0, "normalize": True})
    assert "only you can make" in confirm([person], observed, program_of(observed), 10)["leakage"].needs
    assert "training data" in confirm([margin], observed, None, 10)["margin"].needs
    assert "1e-09 seconds" in confirm([margin], observed, program_of(observed), 4, seconds=1e-9)["margin"].needs

    assert "2 training steps" in confirm([margin], observed, program_of(observed), 1)["margin"].needs

    class Broken:
        steps = 3

        def at(self, step):
            raise OSError("the disk is gone")

    broken = replace(program_of(observed), batches=Broken())
    found = confirm([margin], observed, broken, 4)["margin"]
    assert found.verdict == "not testable" and "OSError: the disk is gone" in str(found)


def outcome(apart, seed=0):
    """Scored pairs of which genuine ones are `apart` standard deviations above the impostors."""
    rng = np.random.default_rng(seed)
    trials = Trials.from_labels(rng.normal(size=(120, 2)), np.repeat(np.arange(20), 6), max_pairs=2000)
    return Outcome([], ScoredTrials(trials, np.zeros((120, 0)), rng.normal(size=2000) + apart * trials.same))


@pytest.mark.parametrize(("first", "then", "verdict"), [(0.5, 3.0, "confirmed"), (3.0, 0.5, "refuted")])
def test_outcomes_are_compared_on_the_same_pairs(first, then, verdict):
    found = compare(outcome(first), outcome(then))
    assert found.verdict == verdict and found.low < found.gain < found.high
    assert found.before == ks.verification.eer(outcome(first).scored.same, outcome(first).scored.scores)


def test_a_failure_that_has_not_come_yet_refutes_nothing():
    assert compare(outcome(0.5), outcome(0.5), run=outcome(3.0)).verdict == "undecided"
    assert compare(outcome(0.5), outcome(0.5), run=outcome(0.5)).verdict == "refuted"


def test_equal_outcomes_are_no_gain_and_nan_is_chance():
    assert compare(outcome(1.0), outcome(1.0)).gain == 0
    broken = outcome(1.0)
    broken.scored.scores[0] = np.nan
    assert compare(broken, outcome(3.0)).before == pytest.approx(0.5)


def finding(cause, severity, verdict=None, gain=None, by=None, made=None):
    ends = (None, None) if gain is None else (gain - 0.03, gain + 0.03)
    tested = None if verdict is None else Confirmation(verdict, 0.5, 0.4, gain, *ends, made=made or (cause,))
    return Finding(cause, severity, None, "", {}, "", explained_by=by, confirmation=tested)


def test_confirmed_causes_come_first_and_refuted_ones_last():
    found = by_confirmation(
        [
            finding("a", "error", "refuted", 0.0),
            finding("b", "warning"),
            finding("c", "info", "confirmed", 0.05, by="a"),
            finding("d", "error", "confirmed", 0.2),
            finding("f", "error", "confirmed", 0.22),
            finding("e", "warning", "undecided", 0.01),
        ]
    )
    assert [one.cause for one in found] == ["d", "f", "b", "e", "c", "a"]
    assert [one.severity for one in found] == ["error", "error", "warning", "warning", "warning", "warning"]
    assert found[2].explained_by is None


def test_a_cause_that_another_explains_stays_behind_it_unless_that_is_refuted():
    first, explained = finding("a", "error", "undecided", 0.0), finding("b", "info", "confirmed", 0.1, by="a")
    found = by_confirmation([first, explained])
    assert [(one.cause, one.severity, one.explained_by) for one in found] == [("a", "error", None), ("b", "info", "a")]


def test_a_repair_that_contains_that_of_another_does_not_pass_it():
    narrow = finding("learning_rate", "error", "confirmed", 0.1, made=("rate",))
    broad = finding("collapse", "error", "confirmed", 0.3, made=("normalize", "rate"))
    assert [one.cause for one in by_confirmation([narrow, broad])] == ["learning_rate", "collapse"]


def test_a_suspect_that_only_a_test_has_shown_becomes_a_finding():
    with limits.changed(NEAR_MISS=2.0):  # `identity_imbalance` is not nearer
        diagnosis = ks.Diagnosis.from_json(FOLDER / "memorising.json")
        (near,) = [one.cause for one in diagnosis.also_possible]
        found = with_confirmations(
            diagnosis,
            {near: {"verdict": "confirmed", "before": 0.4, "after": 0.1, "gain": 0.3, "low": 0.2, "high": 0.4}},
        )
        assert [one.cause for one in found.findings] == ["memorising", near]  # an error that is not refuted comes first
        assert found.findings[1].severity == "warning" and not found.also_possible
        shown = {near: {"verdict": "confirmed", "gain": 0.3}, "memorising": {"verdict": "refuted", "gain": 0.0}}
        assert [one.cause for one in with_confirmations(diagnosis, shown).findings] == [near, "memorising"]
        refuted = with_confirmations(diagnosis, {near: {"verdict": "refuted", "gain": 0.0}})
        assert [one.cause for one in refuted.findings] == ["memorising"]
        alone = with_confirmations(diagnosis, {"memorising": {"verdict": "refuted", "gain": 0.0}})
        assert alone.verdict.endswith(": memorising, refuted by experiment.")


def test_a_diagnosis_without_findings_is_as_it_was():
    diagnosis = small_programs.fitted(epochs=8, rate=0.01)[1].diagnosis
    assert not diagnosis.leading and with_tests(diagnosis) is diagnosis


def test_a_budget_is_a_positive_number():
    assert check_budget(2, None) == (2.0, None)
    for given in ((0, None), (None, -1.0)):
        with pytest.raises(ValueError, match="budget_"):
            check_budget(*given)
