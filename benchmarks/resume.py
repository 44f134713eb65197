"""Is a run that was killed and resumed the same as one that was not?

A process trains a small model with `AtomicBackup` and a `DivergenceMonitor` that writes a run log and a report. It
is killed (SIGKILL) at a random moment between the start of `fit` and the end of the report, and the same program is
started again. In the end the run log, the JSON report and the weights are compared with those of a process that was not
killed: all lines, all keys, all bits. In every second run the backup stands before the monitor.

    python benchmarks/resume.py                          # twenty minutes
    python benchmarks/resume.py --backends jax --kills 5
    python benchmarks/resume.py --toy                    # two kills, nothing written

The exit status is 1 if a resumed run differs.
"""

import argparse
import collections
import importlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import measure

EPOCHS = 8
IMPORTED = ("keras", "keras_siamese", "h5py", "jinja2", "matplotlib.pyplot", "scipy.stats", "sklearn.linear_model")
FILES = ("run.jsonl", "report.json", "weights.npy")
PHASES = ("before the first epoch ended", f"between epochs 1 and {EPOCHS}", "before the report", "after the report")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--toy", action="store_true", help="two kills, nothing written")
    parser.add_argument("--here", action="store_true", help="in this process, whose backend is set already")
    return parser.parse_args()


def main():
    options = arguments()
    kills = 2 if options.toy else options.kills
    if options.here:
        print(json.dumps(measured(kills)))
        return
    found = {}
    for backend in options.backends.split(","):
        command = [sys.executable, __file__, "--here", "--kills", str(kills)]
        with tempfile.TemporaryDirectory() as compiled:  # by the first process, for all others
            jax = {"JAX_COMPILATION_CACHE_DIR": compiled, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            environment = {**os.environ, **jax, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found[backend] = json.loads(done.stdout.splitlines()[-1])
        print(f"{backend:10s} {found[backend]['equal']} of {kills} runs are equal; {found[backend]['phases']}")
    if not options.toy:
        about = measure.surroundings("tensorflow", "jax", "torch")
        print(measure.write("resume", {"surroundings": about, "command": " ".join(sys.argv), "rows": found}))
    sys.exit(any(row["differ"] for row in found.values()))


def measured(kills):
    """Kill and resume that many runs. Returns what `main` records of one backend."""
    for module in IMPORTED:  # the processes that train are forked from this one, which computes nothing
        importlib.import_module(module)
    rng, phases, differing = random.Random(0), collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        seconds = finished(whole, backup_first=False)
        expected = content(whole)
        for number in range(kills):
            resumed = Path(folder, "resumed")
            moment = (number + rng.random()) / kills * seconds  # spread over the whole run
            kill(resumed, moment, backup_first=number % 2 == 0)
            phases[phase(resumed)] += 1
            try:
                finished(resumed, backup_first=number % 2 == 0)
                wrong = [name for name, one in content(resumed).items() if one != expected[name]]
            except RuntimeError as error:
                wrong = [str(error)]
            if wrong:
                differing.append({"seconds": moment, "wrong": wrong})
            shutil.rmtree(resumed)
    phases = {name: phases[name] for name in PHASES}
    return {"kills": kills, "equal": kills - len(differing), "phases": phases, "seconds": seconds, "differ": differing}


def started(folder, backup_first):
    """Fork a process that trains into `folder`. Returns its id and a pipe, which is closed when `fit` begins."""
    folder.mkdir(exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        with open(folder / "output.txt", "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        train(folder, backup_first, begin=lambda: os.close(writing))
        code = 0
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def kill(folder, moment, backup_first):
    """Start to train, and kill the process `moment` seconds after `fit` begins."""
    child, reading = started(folder, backup_first)
    select.select([reading], [], [])
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)


def finished(folder, backup_first):
    """Train to the end. Returns the seconds since the start of `fit`."""
    child, reading = started(folder, backup_first)
    select.select([reading], [], [])
    begin = time.monotonic()
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if status:
        raise RuntimeError((folder / "error.txt").read_text().splitlines()[-1])
    return time.monotonic() - begin


def phase(folder):
    """How far a killed run had come."""
    log, report = folder / "run.jsonl", folder / "report.json"
    lines = log.read_bytes().count(b"\n") if log.exists() else 0
    if report.exists():
        return PHASES[3]
    return PHASES[0] if lines == 0 else PHASES[1] if lines < EPOCHS else PHASES[2]


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def train(folder, backup_first, begin):
    """The program that is killed. It is the same when it is started again."""
    import keras
    import numpy as np
    from keras import layers

    import keras_siamese as ks

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 6)
    x = (rng.normal(size=(40, 8))[labels] + 0.5 * rng.normal(size=(240, 8))).astype("float32")
    train, valid = ks.data.split_identities(x, labels, (0.7, 0.3), seed=0)
    encoder = [keras.Input((8,)), layers.Dense(16, "relu"), layers.BatchNormalization(), layers.Dense(8)]
    model = ks.SiameseWrapper(keras.Sequential(encoder))
    model.compile("adam", loss=ks.losses.ContrastiveLoss())
    model([x[:2], x[:2]])
    monitor = ks.callbacks.DivergenceMonitor(
        valid, report=folder / "report.html", log=folder / "run.jsonl", far=0.1, every_steps=30
    )
    backup = ks.callbacks.AtomicBackup(folder / "backup")
    pairs = ks.data.PairSequence(*train, batch_size=32, pairs_per_epoch=320, seed=0)
    begin()
    callbacks = [backup, monitor] if backup_first else [monitor, backup]
    model.fit(pairs, epochs=EPOCHS, shuffle=False, callbacks=callbacks, verbose=0)
    np.save(folder / "weights.npy", np.concatenate([one.ravel() for one in model.get_weights()]))


if __name__ == "__main__":
    main()
