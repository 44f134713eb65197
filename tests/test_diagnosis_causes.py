"""Each cause is found where it was planted, not where it was not, and its repair repairs."""

import numpy as np
import plantings
import pytest

from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.causes import Cause, Finding, NotExamined, RuledOut
from keras_siamese.diagnosis.diagnose import diagnosis_of
from keras_siamese.diagnosis.evidence import Evidence
from keras_siamese.scoring import ScoredTrials, Trials


def eer(monitor):
    return monitor.diagnosis.evidence.eer.estimate


@pytest.mark.parametrize("planted", plantings.FAULTS)
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


def test_the_control_has_no_finding():
    diagnosis = plantings.run().diagnosis
    assert diagnosis.findings == () and not diagnosis.diverging, str(diagnosis)
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
    diagnosis = diagnosis_of(Evidence(history(), scored(None)))
    assert diagnosis.diverging and [finding.cause for finding in diagnosis.findings] == ["undetermined"]
    assert diagnosis.findings[0].apply is None and "Ruled out" in str(diagnosis)
    assert {answer.cause for answer in diagnosis.not_examined} >= {"memorising", "pair_imbalance", "threshold"}


def test_scores_worse_than_chance_are_inverted_labels_and_noise_is_not():
    assert diagnosis_of(Evidence({}, scored(False))).findings[0].cause == "inverted_labels"
    for seed in range(10):
        assert not diagnosis_of(Evidence({}, scored(None, seed))).findings


def test_the_threshold_in_use_is_held_against_one_from_other_identities():
    good = scored(True)
    best = good.accuracy[1]
    assert not diagnosis_of(Evidence({}, good, threshold=best)).findings
    finding = diagnosis_of(Evidence({}, good, threshold=best + 10)).findings[0]
    assert finding.cause == "threshold" and "Verifier.calibrate" in finding.advice


def test_every_cause_answers_and_is_registered():
    answers = [cause.examine(Evidence({}, scored(True))) for cause in causes.CAUSES]
    assert all(isinstance(answer, (Finding, RuledOut, NotExamined)) for answer in answers)
    assert [answer.cause for answer in answers] == causes.names() == [cls.name for cls in Cause.__subclasses__()]
