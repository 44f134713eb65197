"""Tests that each benchmark runs at toy size, and that `benchmarks/README.md` shows the recorded results."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_siamese.diagnosis import limits
from tests.support.facts_by_hand import BAD, facts

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in ("measure.py", "tables.py"))
OF_BACKENDS = ("attach.py", "callbacks.py", "losses.py", "towers.py")  # their results depend on the backend


def run(*command):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment, timeout=500, check=False
    )


@pytest.mark.deep
@pytest.mark.parametrize("script", SCRIPTS)
def test_runs_at_toy_size(script):
    pytest.importorskip("pytorch_metric_learning")
    backend = keras.backend.backend() if script in OF_BACKENDS else "torch"
    before = sorted(BENCHMARKS.glob("results/*"))
    done = run(BENCHMARKS / script, "--toy", "--backends", backend)
    assert done.returncode == 0, done.stderr[-3000:]
    assert backend in done.stdout
    assert sorted(BENCHMARKS.glob("results/*")) == before


def test_the_page_shows_the_results():
    done = run(BENCHMARKS / "tables.py", "--check")
    assert done.returncode == 0, "run python benchmarks/tables.py"


def test_each_script_is_on_the_page():
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert SCRIPTS
    for script in SCRIPTS:
        assert f"## {script}" in page


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


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
