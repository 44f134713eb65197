"""Recorded runs are judged again without training, in milliseconds and with the same words."""

import json
import time

import pytest

from keras_siamese.diagnosis import Diagnosis, causes
from keras_siamese.diagnosis.facts.table import Facts
from tests.support.diagnoses import made
from tests.support.recordings import FOLDER, REPORTS

RUNS = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest.py: nothing here uses Keras."""


def test_a_run_of_every_cause_is_recorded():
    assert set(RUNS) == {"healthy", *causes.names()}


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_is_judged_by_its_facts(name):
    findings, others = causes.examine(Facts(RUNS[name]["numbers"], RUNS[name]["words"]))
    assert [one.cause for one in findings if one.explained_by is None] == ([] if name == "healthy" else [name])
    is_finite = "not_finite" not in RUNS[name]["numbers"]
    assert len(findings) + len(others) == sum(is_finite or cause.after_nan for cause in causes.CAUSES)


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_judged_again_to_the_same_text(name):
    path = FOLDER / f"{name}.json"
    started = time.perf_counter()
    diagnosis = Diagnosis.from_json(path)
    assert time.perf_counter() - started < 1
    recorded = json.loads(path.read_text(encoding="utf-8"))
    assert diagnosis.to_dict() == recorded
    assert [finding.cause for finding in diagnosis.findings][:1] == [{"control": "weak_features"}.get(name, name)]
    assert (diagnosis.leading == []) == (name == "control")  # a linear model does better on such data: information
    assert diagnosis.diverging == bool(recorded["flags"]) and diagnosis.verdict == recorded["verdict"]


def test_a_diagnosis_survives_its_json(tmp_path):
    original = made()
    again = Diagnosis.from_json(original.to_json(tmp_path / "report.json"))
    assert str(again) == str(original) and again.to_dict() == original.to_dict()
    assert again.flags == original.flags and again.run.epoch == original.run.epoch
    with pytest.raises(ValueError, match="no samples and scores"):
        again.to_html(tmp_path / "report.html")


def test_a_run_that_is_not_finite_survives_too(tmp_path):
    original = made(not_finite_since=3)
    again = Diagnosis.from_json(original.to_json(tmp_path / "report.json"))
    assert str(again) == str(original) and again.findings[0].severity == "error"


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"schema": "keras_siamese.diagnosis/2"}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="must be a report that Diagnosis.to_json wrote"):
        Diagnosis.from_json(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"flags": [{"epoch": 1}]},
        {"findings": [1]},
        {"facts": []},
        {"signals": {"eer": "high"}},
        {"run": None},
        {"verification": {"auc": None}},
        {"settings": 3},
        {"history": {"loss": 1}},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_damaged_report_is_refused(tmp_path, damage):
    report = json.loads((FOLDER / "margin.json").read_text(encoding="utf-8"))
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**report, **damage}), encoding="utf-8")
    with pytest.raises(ValueError, match="must be a whole report .* is damaged: "):
        Diagnosis.from_json(path)


def test_a_report_that_is_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"schema": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="nested too deeply"):
        Diagnosis.from_json(path)
