"""Tests of `diagnosis_of`: each cause is found where it was planted and not elsewhere, and its repair works."""

import ast

import numpy as np
import pytest

from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.causes import Cause, Finding, NotExamined, RuledOut
from keras_siamese.diagnosis.diagnosis import diagnosis_of
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import ScoredTrials, Trials
from tests.support import plantings
from tests.support.batches import FURTHER
from tests.support.diagnoses import made
from tests.support.facts_by_hand import BAD, HEALTHY, SIGNS, examined


def eer(monitor):
    return monitor.diagnosis.observed.eer.estimate


DEEP = [pytest.mark.deep, pytest.mark.each_backend]


@pytest.mark.parametrize(
    "planted", [pytest.param(one, marks=FURTHER if one == "margin" else DEEP) for one in plantings.FAULTS]
)
def test_the_planted_cause_is_named_first_and_its_repair_verifies_better(planted):
    recipe = {**plantings.CONTROL, **plantings.FAULTS[planted]}
    broken = plantings.run(**recipe)
    finding = broken.diagnosis.findings[0]
    assert finding.cause == planted, str(broken.diagnosis)
    assert finding.severity in ("warning", "error") and finding.strength >= 1
    assert planted.replace("_", " ") in broken.diagnosis.verdict
    repaired = finding.apply(recipe)
    assert repaired != recipe and recipe == {**plantings.CONTROL, **plantings.FAULTS[planted]}
    assert eer(plantings.run(**repaired)) < eer(broken) - 0.05


def test_the_control_has_no_finding_but_that_a_linear_model_suits_linear_data():
    diagnosis = plantings.run().diagnosis
    assert [(one.cause, one.severity) for one in diagnosis.findings] == [("weak_features", "info")], str(diagnosis)
    assert diagnosis.leading == [] and not diagnosis.diverging
    assert diagnosis.facts["reference_linear"] < diagnosis.facts["eer"] < diagnosis.facts["reference_cosine"]
    examined = {answer.cause for answer in diagnosis.ruled_out}
    assert examined >= {"inverted_labels", "collapse", "memorising", "margin", "pair_imbalance"}


def scored(informative, seed=0, identities=20, samples=5, labelled=True):
    """Trials whose embeddings know the identity (True), nothing (None), or say the reverse in the scores (False)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    z = rng.normal(size=(len(labels), 8))
    if informative:
        z = rng.normal(size=(identities, 8))[labels] + 0.3 * z
    trials = Trials.from_labels(z, labels)
    scores = -np.linalg.norm(z[trials.left] - z[trials.right], axis=1)
    if informative is False:
        scores = -scores + 2.0 * ~trials.same
    if not labelled:
        trials = Trials(trials.items, trials.left, trials.right, trials.same, None)
    return ScoredTrials(trials, z, scores)


def history(epochs=20):
    flat = [0.5] * epochs
    return {"loss": np.geomspace(1, 0.1, epochs).tolist(), "auc": flat, "eer": flat, "auc_se": [0.02] * epochs} | {
        "eer_se": [0.02] * epochs
    }


def test_a_flag_that_nothing_explains_is_undetermined():
    diagnosis = diagnosis_of(Observed(Run(history()), scored(None)))
    assert diagnosis.diverging and [finding.cause for finding in diagnosis.findings] == ["undetermined"]
    assert diagnosis.findings[0].apply is None and "Ruled out" in str(diagnosis)
    assert {answer.cause for answer in diagnosis.not_examined} >= {"memorising", "pair_imbalance", "threshold"}


# --- facts of a healthy run, changed in what a cause reads


def test_the_facts_of_a_healthy_run_name_nothing():
    findings, others = examined()
    assert findings == [] and {answer.cause for answer in others} == set(causes.names()) == set(SIGNS)


@pytest.mark.parametrize("name", SIGNS)
def test_a_cause_is_named_by_its_signs_and_by_nothing_less(name):
    findings, _ = examined(**SIGNS[name])
    finding = findings[0]
    assert finding.cause == name and finding.explained_by is None and finding.severity in ("warning", "error")
    assert all(other.explained_by for other in findings[1:])
    assert finding.evidence and all(np.isfinite(signal.value) for signal in finding.evidence.values())
    ast.parse(finding.advice)
    recipe = {"margin": 0.01, "learning_rate": 1e-3, "similar_label": 1, "positive_fraction": 0.01}
    assert finding.apply(recipe) != recipe
    # A run that verifies well is left alone, but for what falsifies its figures.
    well = {"eer": 0.01, "train_eer": 0.005, "verifies_badly": 0, "gap": 0.005, "train_below_chance": -80.0}
    left = [one.cause for one in examined(**{**SIGNS[name], **well})[0]]
    assert left == ([name] if name in ("leakage", "threshold", "unshared_weights", "nan_gradient") else [])


@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    [
        ("a margin out of reach", {**BAD, "margin": 100.0}, "margin"),
        ("large steps", {**BAD, "update_size_first": 16.0, "update_size_largest": 16.0}, "learning_rate"),
        ("no impostors", {**BAD, "weighted_positive_fraction": 1.0, "spread": 0.02, "spacing": 0.02}, "collapse"),
        ("one tower scaled", {**BAD, "drawn_towers": 2.4}, "input_scale"),
        ("few identities in a batch", {**BAD, "batch_normalization": 1.0, "batch_identities": 1.0}, "batch_norm"),
        ("the hardest of noisy labels", {**BAD, "mined_accuracy": 0.1, "impostor_like": 0.2, "impostor_like_se": 0.01,
                                         "eer": 0.25}, "mining"),
        ("identities shared by name and likeness", {"shared_names": 30, "shared_auc": 0.95}, "leakage"),
        ("conventions that clash", {**BAD, "loss_similar_label": 0}, "inverted_labels"),
        ("a frozen random encoder", {**BAD, "trainable_share": 0.02}, "frozen_part"),
        ("blurred images", {"eer": 0.2, "train_eer": 0.12, "detail": 0.02}, "weak_features"),
    ],
)  # fmt: skip
def test_other_signs_of_the_same_causes(name, changes, cause):
    assert examined(**changes)[0][0].cause == cause, name


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_names": 30, "shared_auc": 0.5},  # both sides numbered from 0
        {"weighted_positive_fraction": 1 / 6, "genuine_loss": 0.3},  # benign imbalance
        {"input_scale": 110.0, "eer": 0.05, "train_eer": 0.03},  # large inputs that are learned all the same
        {"embedding_dim": 2, "effective_rank": 1.9, "eer": 0.05, "train_eer": 0.04, "spread": 0.17},
        {"trainable_share": 0.05},  # a pretrained backbone
        {**BAD, "verifies_badly": 0, "trainable_share": 0.05, "own_eer": 0.3, "fresh_eer": 0.42},  # on a hard task
        {"update_size_first": 0.005},  # a warm-up
        {"eer": 0.24, "train_eer": 0.17, "train_auc": 0.91, "gap": 0.07},  # hard
        {"batch_normalization": 1.0, "mode_gap": 0.02},
        {"drawn_auc": 0.985},  # somewhat harder or easier batches than all pairs
        {"impostor_like": 0.15, "impostor_like_se": 0.01, "impostor_like_held_out": 0.2, "eer": 0.3, "train_eer": 0.28},
    ],
)
def test_what_only_looks_like_a_fault_is_left_alone(changes):
    assert examined(**changes)[0] == []


def test_what_was_not_measured_is_not_examined():
    known = ("auc", "eer", "verifies_badly", "below_chance", "below_chance_critical", "spread", "spacing")
    facts = Facts({name: HEALTHY[name] for name in known})
    findings, others = causes.examine(facts)
    needs = {answer.cause: answer.needs for answer in others if isinstance(answer, NotExamined)}
    assert findings == [] and set(needs) >= {"memorising", "label_noise", "leakage", "learning_rate", "batch_norm"}
    assert all(needs.values())


def test_scores_worse_than_chance_are_inverted_labels_and_noise_is_not():
    assert diagnosis_of(Observed(Run(), scored(False))).findings[0].cause == "inverted_labels"
    for seed in range(10):
        assert not diagnosis_of(Observed(Run(), scored(None, seed))).findings


def test_the_threshold_in_use_is_held_against_one_from_other_identities():
    good = scored(True)
    best = good.accuracy[1]
    assert not diagnosis_of(Observed(Run(), good, threshold=best)).findings
    finding = diagnosis_of(Observed(Run(), good, threshold=best + 10)).findings[0]
    assert finding.cause == "threshold" and "Verifier.calibrate" in finding.advice


def test_every_cause_answers_and_is_registered():
    facts = Observed(Run(), scored(True)).facts
    answers = [cause.examine(facts) for cause in causes.CAUSES]
    assert all(isinstance(answer, (Finding, RuledOut, NotExamined)) for answer in answers)
    assert [answer.cause for answer in answers] == causes.names()
    assert set(causes.names()) == {cls.name for cls in Cause.__subclasses__()}


def test_a_loss_that_is_nan_leads_the_verdict():
    nan = float("nan")
    curves = {"loss": [1.0, nan, nan], "auc": [0.9] * 3, "eer": [0.1] * 3, "auc_se": [0.05] * 3, "eer_se": [0.05] * 3}
    diagnosis = made(noise=0.1, curves=curves)
    assert diagnosis.verdict.startswith("The loss is NaN or infinite since epoch 2; held-out EER 0.0")
    assert diagnosis.findings[0].cause == "nan_gradient" and diagnosis.leading == [diagnosis.findings[0]]


def test_a_run_that_verifies_badly_is_not_called_sound():
    """Whether or not a cause is found; without training data it says that more causes can be examined."""
    eer = 0.498
    curves = {"loss": [1.0] * 20, "auc": [0.5] * 20, "eer": [eer] * 20, "auc_se": [0.05] * 20, "eer_se": [0.05] * 20}
    diagnosis = made(noise=30.0, identities=40, curves=curves)
    assert diagnosis.findings == () and not diagnosis.flags
    bad = f"The run verifies badly, although no epoch is flagged; held-out EER {eer}; no cause was found"
    assert diagnosis.verdict == f"{bad}; give the training data (train=…) to examine more."
    diagnosis.facts.numbers["train_eer"] = 0.4
    assert diagnosis.verdict == f"{bad}."
    assert made(noise=0.1, curves=curves).verdict.startswith("No divergence of loss and verification was found;")
