"""Tests that each benchmark runs at toy size, and that `benchmarks/README.md` shows the recorded results."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

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


def test_pairs_are_two_samples_of_one_identity_or_of_two(planted):
    from planted.heads import drawn

    labels = np.array([3, 1, 3, 1, 1, 7, 7, 0])  # identity 0 has no second sample
    left, right, same = drawn(labels, 4000, 0.25, np.random.default_rng(0))
    assert (left != right).all() and ((labels[left] == labels[right]) == same).all()
    assert 0.2 < same.mean() < 0.3
    assert set(zip(left[same].tolist(), right[same].tolist(), strict=True)) == {
        (one, other) for one in range(8) for other in range(8) if one != other and labels[one] == labels[other]
    }
