"""Suspects: what was found comes first, then what almost was, and a healthy run has none."""

import json
from dataclasses import replace

import pytest

from keras_siamese.diagnosis import Diagnosis, causes, limits
from keras_siamese.diagnosis.causes import Finding, RuledOut
from keras_siamese.diagnosis.suspects import FACTORS, limits_of, near_misses, suspects_of
from tests.support.facts_by_hand import BAD, SIGNS, examined, facts
from tests.support.recordings import FOLDER

# Facts of a bad run that lie just on the harmless side of one limit of a cause.
ALMOST = {
    ("collapse", "POINT"): {"spread": 0.28, "spacing": 0.28},
    ("margin", "SMALL_MARGIN"): {"margin": 0.12},
    ("learning_rate", "SMALL_UPDATE"): {"update_size_largest": 0.012, "untrained_eer": 0.35},
    ("identity_imbalance", "SHARE_OF_TWO"): {"share_of_two": 0.45},
    ("input_scale", "LARGE_INPUT"): {"input_scale": 17.0},
    ("batch_norm", "MODE_GAP"): {"batch_normalization": 1.0, "mode_gap": 0.09, "mode_eer_training": 0.3,
                                 "mode_eer_inference": 0.39},
    ("memorising", "GAP"): {"train_eer": 0.05, "gap": 0.09, "eer": 0.26, "untrained_eer": 0.3, "flagged": 1},
    ("wrong_distance", "SWAP_GAIN"): {"eer_cosine": 0.332, "swap_gain": 0.018, "swap_gain_low": 0.015},
    ("pair_imbalance", "RARE_KIND"): {"weighted_positive_fraction": 0.06, "genuine_loss": 0.9},
    ("unreachable_output", "OUT_OF_REACH"): {"out_of_reach": 0.45},
}  # fmt: skip


def suspects(**changes):
    return suspects_of(facts(**changes), examined(**changes)[0])


def test_a_run_that_verifies_as_it_should_has_no_suspects():
    assert suspects() == ()
    for (name, _), changes in ALMOST.items():
        assert suspects(**{**changes, "eer": 0.12, "verifies_badly": 0}) == (), name


@pytest.mark.parametrize(("name", "limit"), ALMOST)
def test_what_almost_was_found_is_a_suspect_and_no_finding(name, limit):
    changes = {**BAD, **ALMOST[name, limit]}
    found, _ = examined(**changes)
    near = {one.cause: one for one in suspects(**changes) if one.limit is not None}
    assert name not in [finding.cause for finding in found]
    assert near[name].limit == limit and 1 < near[name].factor <= 2 ** (3 / 8)
    assert f"if the limit {limit.lower()} were" in near[name].reason and limits.TABLE[limit].unit in near[name].reason
    # The evidence shows the limits as they are.
    answer = next(one for one in examined(**changes)[1] if one.cause == name)
    assert near[name].evidence == answer.evidence != {}


def test_no_near_miss_needs_a_share_above_1():
    changes = {**BAD, "frozen_parts": 1.0, "frozen_share": 1.0}
    for one in near_misses(facts(**changes), reach=1000.0):
        limit = limits.TABLE[one.limit]
        value = float(one.reason.split(" were ")[1].split()[0])
        assert value <= 1 or not limit.unit.startswith("share"), one.reason


def test_nearer_misses_come_first():
    near = near_misses(facts(**BAD, margin=0.12, spread=0.35, spacing=0.35))
    factors = [one.factor for one in near]
    assert factors == sorted(factors) and [one.cause for one in near if one.cause in ("margin", "collapse")] == [
        "margin",
        "collapse",
    ]
    assert "collapse" not in [one.cause for one in near_misses(facts(**BAD, spread=0.55, spacing=0.55))]


@pytest.mark.parametrize("name", SIGNS)
def test_suspects_begin_with_what_was_found(name):
    findings = examined(**SIGNS[name])[0]
    found = suspects(**SIGNS[name])
    assert [one.cause for one in found[: len(findings)]] == [finding.cause for finding in findings]
    assert all(one.limit is None and one.factor == 1 for one in found[: len(findings)])
    assert all(one.limit is not None and one.factor > 1 for one in found[len(findings) :])
    assert len({one.cause for one in found}) == len(found)


def test_the_nearest_limit_is_that_of_a_slow_search():
    """Every limit of a cause is tried at every factor; the smallest that makes it found is the distance."""
    changes = {**BAD, "margin": 0.12, "spread": 0.3, "spacing": 0.35, "share_of_two": 0.4, "input_scale": 14.0}
    of = facts(**changes)
    slow = {}
    for cause in causes.CAUSES:
        if not isinstance(cause.examine(of), RuledOut):
            continue
        for name in limits_of(cause):
            for factor in [one for one in FACTORS if one <= limits.NEAR_MISS]:
                for value in (limits.TABLE[name].times(factor), limits.TABLE[name].times(1 / factor)):
                    with limits.changed(**{name: value}):
                        if isinstance(cause.examine(of), Finding):
                            slow[cause.name] = min(slow.get(cause.name, 9), factor)
    assert len(slow) >= 3 and {one.cause: one.factor for one in near_misses(of)} == slow


def test_leading_findings_come_first_and_undetermined_is_no_cause():
    changes = {**SIGNS["margin"], "threshold": -0.5, "accuracy_lost": 0.2, "best_accuracy": 0.9, "accuracy_se": 0.01}
    findings = examined(**changes)[0]
    assert [finding.cause for finding in findings][:1] == ["margin"] and len(findings) > 2
    for leading in findings:
        named = [one.cause for one in suspects_of(facts(**changes), findings, [leading])]
        assert named[0] == leading.cause and set(named) >= {finding.cause for finding in findings}
    explained = next(finding for finding in findings if finding.explained_by)
    reason = next(one.reason for one in suspects(**changes) if one.cause == explained.cause)
    assert reason == f"found (info, explained by {explained.explained_by})"
    nothing = replace(findings[0], cause="undetermined")
    almost = facts(**{**BAD, "margin": 0.12, "train_eer": 0.1})
    assert suspects_of(almost, [nothing])[0].cause == "margin"


@pytest.mark.parametrize("margin", [1.0, 0.05])
def test_a_limit_that_is_far_away_makes_no_suspect_whether_or_not_something_was_found(margin):
    changes = {**BAD, "train_eer": 0.13, "margin": margin}
    for spread, is_near in ((0.97, False), (0.45, False), (0.38, True), (0.28, True)):
        found = suspects(**changes, spread=spread, spacing=spread)
        assert ("collapse" in [one.cause for one in found]) == is_near, spread
        assert all(one.factor <= limits.NEAR_MISS for one in found)
    assert bool(examined(**changes)[0]) == (margin == 0.05)


def test_a_run_of_nan_has_those_suspects_that_it_can_have():
    lost = {"not_finite": 1, "update_size_first": 0.8, "update_size_largest": 0.8}
    assert [(one.cause, one.limit) for one in suspects(**lost)] == [("learning_rate", "LARGE_UPDATE")]


def test_causes_of_wrong_figures_are_no_second_guess():
    """They do not explain why a run verifies badly."""
    almost = {**BAD, "duplicates": 0.009, "threshold": -0.5, "accuracy_lost": 0.025, "best_accuracy": 0.9}
    near = [one.cause for one in suspects(**almost, accuracy_se=0.001) if one.limit is not None]
    assert not {"leakage", "threshold"} & set(near)


def diagnosis_with(folder, **changes):
    """The diagnosis of the recorded healthy run with other facts."""
    report = json.loads((FOLDER / "control.json").read_text(encoding="utf-8"))
    report["signals"] |= changes
    path = folder / "report.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    return Diagnosis.from_json(path)


def test_a_diagnosis_shows_what_is_also_possible_and_does_not_alarm(tmp_path):
    diagnosis = diagnosis_with(tmp_path, **{**BAD, "spread": 0.28, "spacing": 0.28, "train_eer": 0.12})
    assert (
        {one.severity for one in diagnosis.findings} == {"info"}
        and diagnosis.leading == []
        and not diagnosis.is_alarming
    )
    assert list(diagnosis.suspects)[1:] == diagnosis.also_possible and diagnosis.suspects[1].cause == "collapse"
    text = str(diagnosis)
    shown = text[
        text.index("Also possible: collapse; it would be found if the limit point were 0.297 in place of 0.25") :
    ]
    assert "spread 0.28  (threshold 0.25, null 1)" in shown and "collapse" not in diagnosis.verdict
    written = diagnosis.to_dict()["suspects"][1]
    assert (written["cause"], written["limit"]) == ("collapse", "POINT") and written["evidence"]["spread"][
        "value"
    ] == 0.28
    well = diagnosis_with(tmp_path)
    assert well.also_possible == [] and "Also possible" not in str(well) and len(well.to_dict()["suspects"]) == 1
