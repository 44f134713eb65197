"""Searches of which a process is killed: one that goes on after it, and KerasTuner's chief with two workers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.deep

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "parallel_search.py"


def wait_for(condition, process, seconds=300):
    """What `condition()` returns once it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{condition.__name__} did not come about; the script's exit status is {process.poll()}")


def test_a_search_is_completed_though_a_worker_is_killed(tmp_path):
    options = ["--trials", "4", "--epochs", "4", "--directory", str(tmp_path)]
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *options]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths}
    project, log = tmp_path / "parallel_search", tmp_path / "log.txt"

    def both_at_work():
        try:
            ongoing = json.loads((project / "oracle.json").read_text())["ongoing_trials"]
        except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or being written
            return None
        begun = {name: trial for name, trial in ongoing.items() if (project / f"trial_{trial}" / "folds.json").exists()}
        return begun if begun.keys() == {"tuner0", "tuner1"} else None

    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            interrupted = wait_for(both_at_work, process)["tuner0"]
            pid = int(re.search(r"tuner0 is process (\d+)", log.read_text())[1])
            os.kill(pid, signal.SIGKILL)
            assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=60)
    text = log.read_text()
    assert text.count("tuner0 is process") == 2, "it was started again"
    assert text.count("tuner1 is process") == text.count("chief is process") == 1
    trials = [json.loads(path.read_text()) for path in sorted(project.glob("trial_*/trial.json"))]
    assert [trial["status"] for trial in trials] == ["COMPLETED"] * 4
    assert all(len(json.loads(path.read_text())) == 3 for path in project.glob("trial_*/folds.json"))
    assert interrupted in [trial["trial_id"] for trial in trials]
    assert len({json.dumps(trial["hyperparameters"]["values"]) for trial in trials}) == 4
    assert "4 trials; all with" in text, "the chief shows the table"


SEARCH = """
import sys, time
sys.path.insert(0, {tests!r})
from keras_siamese.tuning import SearchSpace, SiameseHyperModel
from tests.support import searches
x, labels = searches.digits()
space = SearchSpace(embedding_dim=[2, 3, 4, 5], batch_size=12)

def encoder(embedding_dim):
    print("built", embedding_dim, flush=True)
    return searches.encoder(embedding_dim)

tuner = searches.tuner_of(SiameseHyperModel(encoder, space), {folder!r}, max_trials=4)
tuner.search(x, labels, cv=3, epochs={epochs})
print("finished", [(one.status, one.hyperparameters.values["embedding_dim"]) for one in searches.trials_in(tuner)])
"""


def test_a_killed_search_goes_on_without_repeating_a_finished_trial(tmp_path):
    command = SEARCH.format(tests=str(ROOT), folder=str(tmp_path), epochs=2)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(until=None):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", command], stdout=subprocess.PIPE, text=True, env=environment
        )
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if until and until(lines):
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
        process.stdout.close()
        process.wait(timeout=60)
        return lines

    def third_fold_of_the_second_trial(lines):
        folder = tmp_path / "untitled_project" / "trial_1" / "folds.json"
        return folder.exists() and len(json.loads(folder.read_text())) == 1 and lines[-1].startswith("built")

    run(until=third_fold_of_the_second_trial)
    first = json.loads((tmp_path / "untitled_project" / "trial_0" / "trial.json").read_text())
    interrupted = json.loads((tmp_path / "untitled_project" / "trial_1" / "trial.json").read_text())
    assert (first["status"], interrupted["status"]) == ("COMPLETED", "RUNNING")
    *built, finished = [line for line in run() if line.startswith(("built", "finished"))]
    dims = [int(line.split()[1]) for line in built]
    assert finished.count("COMPLETED") == 4
    assert first["hyperparameters"]["values"]["embedding_dim"] not in dims, "not trained again"
    assert json.loads((tmp_path / "untitled_project" / "trial_0" / "trial.json").read_text()) == first
    assert dims.count(interrupted["hyperparameters"]["values"]["embedding_dim"]) == 3, "its three folds begin anew"
