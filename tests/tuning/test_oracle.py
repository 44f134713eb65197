"""The oracle in KerasTuner: what the diagnosis of a trial leads to, folds, resuming, and early ends."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras_tuner
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.tuning import (
    DiagnosisOracle,
    Range,
    SearchResults,
    SearchSpace,
    SiameseHyperModel,
    objective,
    repairs,
)
from keras_siamese.tuning.hypermodel import Finder
from tests.support.searches import digits, encoder, few, quiet, script, trials_in

pytestmark = quiet

ROOT = Path(__file__).resolve().parents[2]

SPACE = SearchSpace(margin=Range(1e-6, 1.0, log=True), embedding_dim=[4, 8], learning_rate=0.01, batch_size=12)


def searched(folder, space=SPACE, max_trials=3, aim="val_eer", seed=0):
    oracle = DiagnosisOracle(objective(aim), max_trials, seed=seed)
    tuner = keras_tuner.Tuner(oracle, SiameseHyperModel(encoder, space), directory=folder)
    tuner.oracle.verbose = 0
    return tuner


def reports(monkeypatch, findings):
    """The diagnosis of each fit is what `findings(values)` returns."""
    monkeypatch.setattr(repairs, "findings_of", lambda diagnosis, values, margin=None: findings(values))


def small_margin(values):
    changes = {"margin": 1.0} if values["margin"] < 0.9 else {}
    return [{"cause": "margin", "severity": "error", "changes": changes}] if changes else []


def test_it_is_an_oracle_of_kerastuner_with_checked_arguments():
    assert issubclass(DiagnosisOracle, keras_tuner.Oracle)
    assert ks.tuning.DiagnosisOracle is DiagnosisOracle and "DiagnosisOracle" in dir(ks.tuning)
    with pytest.raises(ValueError, match="`max_trials` must be"):
        DiagnosisOracle("val_loss", 0)
    with pytest.raises(ValueError, match="`seed` must be"):
        DiagnosisOracle("val_loss", 1, seed=-1)


def test_it_draws_from_no_global_generator():
    random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    oracle = DiagnosisOracle("val_loss", 3)
    oracle.hyperparameters.Float("rate", 0.0, 1.0)
    oracle.populate_space("0")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("aim", ["val_eer", "val_auc"])
def test_the_second_trial_repairs_the_first(monkeypatch, tmp_path, aim):
    reports(monkeypatch, small_margin)
    script(monkeypatch, lambda model, sequence: {aim: [0.5]})
    tuner = searched(tmp_path, aim=aim)
    tuner.search(*few(), cv=2)
    first, second, third = (one.hyperparameters.values for one in trials_in(tuner))
    assert first["margin"] < 0.9 and second == {**first, "margin": 1.0}
    assert third != second
    assert tuner.oracle.reasons["0"] == {"parent": None, "causes": []}
    assert tuner.oracle.reasons["1"] == {"parent": "0", "causes": ["margin"]}
    assert len(repairs.read(Path(tuner.get_trial_dir("0")))) == 2, "one list of findings a fold"


def test_it_starts_from_the_trial_that_is_best_in_the_direction_of_the_objective(monkeypatch, tmp_path):
    reports(monkeypatch, lambda values: [])
    script(monkeypatch, lambda model, sequence: {"val_auc": [float(model.loss.margin)]})
    tuner = searched(tmp_path, aim="val_auc", max_trials=8)
    tuner.search(*few(), cv=2)
    scores = [one.score for one in trials_in(tuner)]
    for number in range(1, 8):
        parent = tuner.oracle.reasons[f"{number}"]["parent"]
        assert parent is None or scores[int(parent)] == max(scores[:number])
    assert sum(tuner.oracle.reasons[f"{number}"]["parent"] is not None for number in range(1, 8)) > 4


def test_a_trial_with_nan_is_repaired(monkeypatch, tmp_path):
    reports(monkeypatch, small_margin)
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5 if model.loss.margin > 0.9 else float("nan")]})
    tuner = searched(tmp_path, max_trials=2)
    tuner.search(*few(), cv=2)
    first, second = trials_in(tuner)
    assert (first.status, second.status) == ("FAILED", "COMPLETED")
    assert second.hyperparameters.values == {**first.hyperparameters.values, "margin": 1.0}


def test_an_interrupted_search_goes_on_as_the_whole_one(monkeypatch, tmp_path):
    reports(monkeypatch, small_margin)
    begun = []

    def curves(model, sequence):
        begun.append(model)
        if len(begun) == stop:
            raise KeyboardInterrupt
        return {"val_eer": [0.5 - 0.1 * model.loss.margin]}

    script(monkeypatch, curves)
    stop = None
    whole = searched(tmp_path / "whole", max_trials=6)
    whole.search(*few(), cv=2)
    begun, stop = [], 7  # the fourth trial
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "broken", max_trials=6).search(*few(), cv=2)
    resumed = searched(tmp_path / "broken", max_trials=6)
    assert list(resumed.oracle.reasons) == ["0", "1", "2", "3"]
    resumed.search(*few(), cv=2)
    values = [[one.hyperparameters.values for one in trials_in(tuner)] for tuner in (whole, resumed)]
    assert values[0] == values[1]
    assert whole.oracle.reasons == resumed.oracle.reasons


def test_without_its_file_a_trial_is_stepped_from(monkeypatch, tmp_path):
    reports(monkeypatch, small_margin)
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    monkeypatch.setattr(repairs, "keep", lambda folder, fold, findings: None)
    tuner = searched(tmp_path)
    tuner.search(*few(), cv=2)
    assert [one["causes"] for one in tuner.oracle.reasons.values()] == [[], [], []]


def test_other_oracles_neither_diagnose_nor_keep_findings(monkeypatch, tmp_path):
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    tuner = keras_tuner.RandomSearch(
        SiameseHyperModel(encoder, SPACE), objective=objective("val_eer"), max_trials=1, seed=1, directory=tmp_path
    )
    tuner.search(*few(), cv=2, verbose=0)
    assert not list(tmp_path.rglob(repairs.FINDINGS))


def test_a_fit_is_not_ended_for_a_repair_that_was_tried(monkeypatch):
    reports(monkeypatch, small_margin)
    hp = keras_tuner.HyperParameters()
    hp.Float("margin", 1e-6, 1.0, sampling="log")
    hp.values["margin"], model = 0.1, SimpleNamespace(loss=ks.losses.ContrastiveLoss())
    for tried, severities, is_repairable in (
        ([], ("error",), True),
        ([], ("warning",), False),
        ([{"margin": 0.1}], ("error",), True),
        ([{"margin": 1.0}], ("error",), False),
    ):
        finder = Finder(hp, model, lambda tried=tried: tried)
        assert finder.is_repairable("diagnosis", severities) == is_repairable


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow", "jax")
def test_a_search_from_a_margin_that_is_far_too_small(tmp_path):
    """Without any script: the diagnosis finds the margin, "stop" ends the fit early, and the next trial is better."""
    x, labels = digits()
    space = SearchSpace(margin=[0.001, 1.0], embedding_dim=8, learning_rate=0.01, batch_size=12)
    for seed in range(5):  # the first trial is drawn
        tuner = searched(tmp_path / str(seed), space, max_trials=2, seed=seed)
        if tuner.oracle.populate_space("0")["values"]["margin"] == 0.001:
            break
    tuner.search(
        x[labels < 7],
        labels[labels < 7],
        validation_data=(x[labels >= 7], labels[labels >= 7]),
        epochs=4,
        on_divergence="stop",
    )
    first, second = SearchResults.of(tuner).trials
    assert (first.params["margin"], second.params["margin"]) == (0.001, 1.0)
    assert tuner.oracle.reasons["1"] == {"parent": "0", "causes": ["margin"]}
    epochs = [len(json.loads(Path(tuner.get_trial_dir(one)).joinpath("folds.json").read_text())) for one in ("0", "1")]
    assert epochs == [1, 1] and first.records[0]["epoch"] <= 2


@pytest.mark.deep
def test_the_chief_reads_what_the_workers_found(tmp_path):
    options = ["--oracle", "diagnosis", "--trials", "5", "--epochs", "2", "--directory", str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths}
    command = [sys.executable, "-W", "ignore", str(ROOT / "docs" / "parallel_search.py"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    project = tmp_path / "parallel_search"
    trials = [json.loads(path.read_text()) for path in sorted(project.glob("trial_*/trial.json"))]
    assert [trial["status"] for trial in trials] == ["COMPLETED"] * 5
    kept = [json.loads(path.read_text()) for path in sorted(project.glob(f"trial_*/{repairs.FINDINGS}"))]
    assert [len(folds) for folds in kept] == [3] * 5
    reasons = json.loads((project / "oracle.json").read_text())["reasons"]
    assert len(reasons) == 5 and any(one["parent"] is not None for one in reasons.values())
    assert len({json.dumps(trial["hyperparameters"]["values"]) for trial in trials}) == 5
