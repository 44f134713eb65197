"""Tests that each benchmark runs at toy size, and that `benchmarks/README.md` shows the recorded results."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if path.stem not in ("measure", "tables", "scale_tables")
)
OF_BACKENDS = (
    "attach.py",
    "callbacks.py",
    "losses.py",
    "resume.py",
    "scale.py",
    "soak.py",
    "towers.py",
)  # their results depend on the backend


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
