"""Tests of the planted faults of `benchmarks/planted`: samples, plantings, jobs, and how runs are judged."""

from pathlib import Path

import numpy as np
import pytest

from keras_siamese.diagnosis import limits
from tests.support.facts_by_hand import BAD, facts


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")


def test_runs_that_ended_with_nan_are_judged_by_the_facts_that_they_have(planted):
    from planted.judging import named_by

    assert named_by({"facts": None}) is None  # of an older record
    nothing = {"numbers": {"not_finite": 1.0}, "words": {}}
    assert named_by({"facts": nothing}) is None
    root = {"numbers": {"not_finite": 1.0, "nan_at_equal": 1.0, "equal_pairs": 3.0}, "words": {}}
    assert [finding.cause for finding in named_by({"facts": root})] == ["nan_gradient"]


def test_the_first_three_suspects_are_findings_and_near_misses(planted):
    from planted.judging import named_first_three

    assert named_first_three({"facts": None}) == named_first_three({"facts": recorded()}) == []
    almost = recorded(**{**BAD, "margin": 0.01, "spread": 0.3, "spacing": 0.3})
    assert named_first_three({"facts": almost}) == ["margin", "weak_features", "collapse"]


def recorded(**changes):
    return {"numbers": facts(**changes).numbers, "words": facts().words}


def test_recorded_runs_are_judged_again_by_other_limits(planted):
    import faults
    from planted import varied
    from planted.judging import named_by

    of = [run for run in faults.read("tuning") if run["base"] == "digits-contrastive"]
    runs = varied.Runs([run for run in of if run["name"] in ("healthy", "margin", "input_scale")])
    usual = runs.counts()
    assert len(runs.faults) == usual["named"] > 4 and usual["alarms"] == usual["judged_otherwise"] == 0
    strict = {"SMALL_MARGIN": 1e-6, "LARGE_MARGIN": 1e6, "FAILED_EER": 0.4}
    with limits.changed(**strict):  # without what is kept of the usual judgement
        named = [[finding.cause for finding in named_by(run.record)] for run in runs.faults]
    found = runs.counts(strict)
    assert found["detected"] == sum(map(bool, named)) and found["named"] < usual["named"]
    assert found["judged_otherwise"] >= usual["named"] - found["named"]
    assert runs.counts() == usual and varied.varied(runs, "FLAT") is None
    never = runs.counts({"SIGNIFICANT": 0.0})
    assert never["flagged_faults"] == 0 < usual["flagged_faults"] and varied.users_of("SIGNIFICANT") == {"flag"}


def test_pairs_are_two_samples_of_one_identity_or_of_two(planted):
    from planted.heads import drawn

    labels = np.array([3, 1, 3, 1, 1, 7, 7, 0])  # identity 0 has no second sample
    left, right, same = drawn(labels, 4000, 0.25, np.random.default_rng(0))
    assert (left != right).all() and ((labels[left] == labels[right]) == same).all()
    assert 0.2 < same.mean() < 0.3
    assert set(zip(left[same].tolist(), right[same].tolist(), strict=True)) == {
        (one, other) for one in range(8) for other in range(8) if one != other and labels[one] == labels[other]
    }


def test_each_half_has_every_family_and_every_kind_of_data(planted):
    from planted import recipes

    halves = recipes.TUNING, recipes.TEST
    assert not set(halves[0]) & set(halves[1])
    for half in halves:
        assert {recipes.family_of(base) for base in half} == {family for family, _ in recipes.PROGRAMS.values()}
        assert {recipes.BASES[base]["data"] for base in half} == set(recipes.DATA)
    losses = [{recipes.BASES[base]["loss"] for base in half} - {None, "BatchTriplet"} for half in halves]
    assert losses[0] and losses[1] and not losses[0] & losses[1]


def homes_of(piece, sources):
    return {place for place, source in enumerate(sources) if piece in source}


def test_pieces_of_text_are_of_the_three_modules_of_their_identity(planted):
    from planted import texts

    pieces, labels = texts.pieces_of(4, 5, 12, np.random.default_rng(0))
    assert pieces.shape == (20, 12, texts.LENGTH) and labels.tolist() == sorted(labels.tolist())
    sources = [source.tobytes() for source in texts.modules()]
    homes = [[homes_of(piece.tobytes(), sources) for piece in sample] for sample in pieces]
    mixtures = set()
    for label in range(4):
        found = [home for row in np.flatnonzero(labels == label) for home in homes[row]]
        clear = set.union(*(home for home in found if len(home) == 1))  # some pieces are in several modules
        assert len(clear) == texts.MIXED and all(home & clear for home in found)
        mixtures.add(tuple(sorted(clear)))
    assert len(mixtures) == 4
    assert (pieces == texts.pieces_of(4, 5, 12, np.random.default_rng(0))[0]).all()


def test_counts_of_trigrams_are_those_of_a_loop(planted, monkeypatch):
    from planted import texts

    monkeypatch.setattr(texts, "LENGTH", 8)
    pieces = np.frombuffer(b"abcabcxyzabc--the same, the same", np.uint8).reshape(2, 2, 8)
    ids = texts.trigrams(pieces)
    assert ids.shape == (2, 12) and 0 <= ids.min() <= ids.max() < texts.BUCKETS
    assert ids[0, 0] == ids[0, 3] != ids[0, 1]  # "abc" twice
    roots = np.array([[sum(one == bucket for one in row) ** 0.5 for bucket in range(texts.BUCKETS)] for row in ids])
    for bucket in {*ids.ravel().tolist()}:
        column = roots[:, bucket] - roots[:, bucket].mean()
        np.testing.assert_allclose(texts.counts(ids)[:, bucket], column / max(column.std(), 1e-6), rtol=1e-5)


def test_a_pair_plants_both_faults_and_nothing_where_one_does_not_apply(planted):
    from planted.plantings import planting_of
    from planted.recipes import BASES

    name, dose = "label_noise + leakage", "40 % + same images"
    for base in ("digits-supcon", "text-head"):
        changed = {**BASES[base], "label_noise": 0.4, "leak": "images"}
        assert planting_of("pair", name, dose)(BASES[base]) == changed
    only_pairs = "mining + label_noise", "only easy pairs + 40 %"
    assert planting_of("pair", *only_pairs)(BASES["digits-contrastive"])["easy_pairs"]
    assert planting_of("pair", *only_pairs)(BASES["digits-head"]) is None


def test_each_planting_applies_to_a_base_of_each_half_or_of_one(planted):
    from planted import plantings, recipes

    for kind, name, dose in plantings.every():
        planting = plantings.planting_of(kind, name, dose)
        found = [base for base in recipes.TUNING + recipes.TEST if planting(recipes.BASES[base]) is not None]
        assert found, (kind, name, dose)
        for base in found:
            assert planting(recipes.BASES[base]).keys() == recipes.BASES[base].keys(), (base, name, dose)


def test_few_jobs_are_one_variant_of_each_fault_and_those_of_the_pairs(planted):
    from planted.records import FEW_CONTROLS, jobs

    few, every = (list(jobs(["digits-supcon"], [0, 1], few=few)) for few in (True, False))
    assert set(few) < set(every)
    assert sum(kind == "control" for _, kind, *_ in few) == 2 * FEW_CONTROLS
    causes = [{name for _, kind, name, *_ in chosen if kind == "fault"} for chosen in (few, every)]
    assert causes[0] == causes[1]
    assert ("digits-supcon", "fault", "leakage", "same identities", 0) in set(every) - set(few)
    only = list(jobs(["digits-supcon"], [0], kinds=("pair",), causes=("leakage",)))
    assert only[0][1:3] == ("control", "healthy") and len(only) > 2
    assert all("leakage" in name for _, kind, name, *_ in only[1:])


def run_of(kind, name, dose, seed, outcome, base="digits-contrastive"):
    facts = {"numbers": {"eer": outcome}, "words": {}}
    return {"base": base, "kind": kind, "name": name, "dose": dose, "seed": seed, "outcome": outcome, "facts": facts}


def two_faults(alone, together):
    """Records of three seeds: healthy ones, each fault alone, and both; outcomes differ a little between the seeds."""
    runs = []
    for seed, shift in enumerate((0.0, 0.001, 0.003)):
        runs.append(run_of("control", "healthy", "", seed, 0.1))
        for name, outcome in zip(("margin", "label_noise"), alone, strict=True):
            runs.append(run_of("fault", name, "x", seed, outcome + shift))
        runs.append({**run_of("pair", "margin + label_noise", "x + x", seed, together + shift**2), "flags": []})
    return runs


@pytest.mark.parametrize(
    "alone, together, kept",
    [((0.2, 0.3), 0.25, True), ((0.1, 0.3), 0.3, False), ((0.08, 0.05), 0.2, True), ((0.08, 0.2), 0.1, False)],
)
def test_a_pair_counts_if_both_faults_do_harm(planted, alone, together, kept):
    from planted.judging import killed, pairs_kept

    runs = two_faults(alone, together)
    assert pairs_kept(runs, killed(runs)) == {("digits-contrastive", "margin + label_noise", "x + x"): kept}


def test_of_two_faults_both_must_be_named_in_the_first_three_places(planted, monkeypatch):
    from planted import judging

    named = iter([["label_noise", "leakage", "margin"], ["margin"], ["leakage", "collapse", "label_noise"]])
    monkeypatch.setattr(judging, "named_first_three", lambda run: next(named))
    alarms = iter([["label_noise"], [], ["leakage", "margin"]])
    monkeypatch.setattr(judging, "alarms_of", lambda run: next(alarms))
    runs = two_faults((0.2, 0.3), 0.25)
    found = judging.judged_pairs(runs, judging.killed(runs))
    assert found["pairs"] == {"margin + label_noise": {"runs": 3, "detected": 2, "first": 1, "one": 3, "both": 1}}
    assert found["overall"]["both"][0] == pytest.approx(1 / 3) and found["left_out"] == []


def test_a_control_that_verifies_clearly_worse_is_none(planted):
    from planted.judging import unhealthy_controls

    sound = {("digits-contrastive", seed): run_of("control", "healthy", "", seed, 0.1) for seed in range(3)}
    outcomes = {"logits": 0.2, "BatchNormalization": 0.11, "healthy but hard": 0.3}
    runs = [run_of("control", name, "", seed, eer + seed / 1000) for name, eer in outcomes.items() for seed in range(3)]
    assert unhealthy_controls(runs, sound) == {("digits-contrastive", "logits"): pytest.approx(0.101)}


def test_a_threshold_is_held_against_the_fitted_one_and_names_that_were_planted_too_are_right(planted):
    from planted.judging import harm_of, is_right

    sound, fault = run_of("control", "healthy", "", 0, 0.1), run_of("fault", "threshold", "fixed 1", 0, 0.16)
    assert harm_of({**fault, "fitted": 0.15}, sound) == pytest.approx(0.01)
    assert harm_of(fault, sound) == pytest.approx(0.06)
    collapse = run_of("fault", "collapse", "hardest mining, rate × 30, no norm", 0, 0.3)
    assert is_right(collapse, ["learning_rate"]) and not is_right(collapse, ["weak_features"])
    assert is_right(fault, ["margin", "threshold"]) and not is_right(fault, [])


def test_repairs_count_where_more_was_lost_than_seeds_differ_by(planted):
    from planted.judging import judged_restored

    healthy = {
        ("digits-contrastive", seed): run_of("control", "healthy", "", seed, 0.1 + seed / 100) for seed in (0, 1)
    }
    faults = [run_of("fault", "margin", "x", 0, 0.3), run_of("fault", "mining", "x", 0, 0.11)]
    restored = [{**run_of("restored", name, "x", 0, 0.12), "kept": ["a"], "epochs": 9} for name in ("margin", "mining")]
    kill = {("digits-contrastive", name, "x"): (True,) for name in ("margin", "mining")}
    found = judged_restored([*faults, *restored], kill, healthy)
    assert found["runs"] == 1 and found["causes"] == {"margin": {"runs": 1, "restored": 1, "changed": 1, "epochs": 9}}


def test_figures_of_families_add_up(planted):
    from planted import judging

    curves = {"history": {"loss": [1.0, 0.5], "eer": [0.3, 0.1]}, "logs": {"loss": [1.0], "val_loss": [1.0]}}
    runs = [
        {**run, **curves, "flags": []}
        for base in ("digits-contrastive", "digits-supcon")
        for run in two_faults_on(base)
    ]
    found = judging.judged(runs)
    assert set(found["families"]) == {"contrastive", "batch loss"}
    for what in ("runs", "controls"):
        assert sum(one[what] for one in found["families"].values()) == found["overall"][what]
    assert found["overall"]["controls"] == 6 and found["faults"] == found["overall"]["runs"] == 12


def two_faults_on(base):
    return [{**run, "base": base} for run in two_faults((0.2, 0.3), 0.25)]


def test_the_rules_of_peers_name_what_they_alarm_on(planted):
    from planted import baselines

    quiet = {
        "history": {"loss": [1.0, 0.5, 0.4], "eer": [0.4, 0.3, 0.2]},
        "logs": {"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.9, 0.8]},
        "facts": {"numbers": {"input_scale": 0.5, "eer": 0.2, "train_eer": 0.1}},
    }
    for rule in baselines.BASELINES:
        assert bool(rule(quiet)) is (rule is baselines.always), rule
    rising = {**quiet, "logs": {"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.9, 1.1]}}
    assert baselines.umlaut_overfitting(rising) == baselines.umlaut(rising) == ["memorising"]
    large = {**quiet, "facts": {"numbers": {"input_scale": 150.0}}}
    assert baselines.umlaut(large) == ["input_scale"]
    good = {**quiet, "history": {"loss": [1.0, 0.5, 0.4], "eer": [0.4, 0.3, 0.04]}}
    assert baselines.umlaut(good) == ["leakage"]
    stuck = {**quiet, "history": {"loss": [1.0, 0.5, 0.4], "eer": [0.5, 0.495, 0.49]}}
    assert baselines.autotrainer(stuck) == ["learning_rate"]
    broken = {**quiet, "history": {"loss": [1.0, float("nan")], "eer": [0.5, float("nan")]}}
    assert baselines.terminate_on_nan(broken) == baselines.autotrainer(broken) == ["nan_gradient"]
