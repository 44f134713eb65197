"""Do long runs and long searches need more memory, files, threads or time as they go on?

Trains a tiny model for 2,000 epochs with all callbacks of the package, and searches a grid of 300 tiny models. Memory,
open files, threads and processor time of the process are read after every tenth epoch and at the start of each trial.
The first fifth is a warm-up. The rest is divided into blocks. The slope is that of Theil and Sen: the median of the
slopes between all pairs of blocks, with its 95 % interval.

Two further parts show what Keras alone needs: 2,000 epochs with its own `BackupAndRestore`, and 300 plain models, each
trained for two epochs.

    python benchmarks/soak.py                         # an hour
    python benchmarks/soak.py --backends torch --parts epochs
    python benchmarks/soak.py --toy                   # 60 epochs and 10 trials, nothing written

Results of backends and parts that are not run again stay as they were recorded. Linux only.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import measure

PER = {"epochs": 1000, "trials": 100, "backups": 1000, "models": 100}  # each slope is the growth over so many
EVERY = 10  # epochs between two readings, and between two pictures for TensorBoard, which take longer than all the rest
BLOCKS = 40  # in the whole part; the first fifth of them is the warm-up
QUANTITIES = {
    "seconds": lambda: 0.0,  # replaced by the time since the last reading
    "memory": lambda: measure.resident()[0],
    "files": lambda: len(os.listdir("/proc/self/fd")),
    "threads": lambda: len(os.listdir("/proc/self/task")),
    "load": lambda: os.getloadavg()[0],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--parts", default=",".join(PER), help="comma-separated")
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--toy", action="store_true", help="60 epochs, 10 trials, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.epochs, options.trials = 60, 10
    if options.worker:
        work(options)
        return
    found = {} if options.toy else measure.read("soak").get("rows", {})
    for backend in options.backends.split(","):
        for part in options.parts.split(","):
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", part]
            out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            row = json.loads(out.splitlines()[-1])
            found.setdefault(backend, {})[part] = row
            print(f"{backend}, {row['count']} {part}: {json.dumps(row['slopes'])}", flush=True)
            if not options.toy:  # after each part, because all of them take hours
                about = measure.surroundings("tensorflow", "jax", "torch", "keras-tuner")
                measure.write("soak", {"surroundings": about, "command": "python benchmarks/soak.py", "rows": found})


class Gauge:
    """Reads the `QUANTITIES` whenever it is called, after `every` epochs or trials; `readings` are lists by name."""

    def __init__(self, every):
        self.every, self.readings, self.last = every, {name: [] for name in QUANTITIES}, time.process_time()

    def __call__(self):
        now = time.process_time()
        for name, read in QUANTITIES.items():
            self.readings[name].append(read())
        self.readings["seconds"][-1] = (now - self.last) / self.every
        self.last = time.process_time()


def slopes(readings, every, per):
    """Medians of blocks by quantity, and `(slope, low, high)` for `per` epochs or trials, by quantity.

    `readings` are lists by quantity, one value for `every` epochs or trials.
    """
    from scipy.stats import theilslopes

    count = len(readings["seconds"])
    size = max(1, count // BLOCKS)
    starts = range(size * (count // size // 5), count - size + 1, size)
    blocks = {name: [statistics.median(one[at : at + size]) for at in starts] for name, one in readings.items()}
    found = {}
    for name in ("memory", "files", "threads", "seconds"):
        slope, _, low, high = theilslopes(blocks[name], [every * at for at in starts], alpha=0.95)
        found[name] = [per * float(value) for value in (slope, low, high)]
    return blocks, found


def samples():
    import numpy as np

    rng, labels = np.random.default_rng(0), np.repeat(np.arange(40), 6)
    x = rng.normal(size=(40, 8))[labels] + 0.5 * rng.normal(size=(240, 8))
    return x.astype("float32"), labels


def encoder(embedding_dim=8):
    import keras
    from keras import layers

    return keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(embedding_dim)])


def train(count, gauge, folder):
    """One fit of `count` epochs with all callbacks of the package and all that they write, but for `PartialFC`.

    It needs a model with class weights.
    """
    import keras

    import keras_siamese as ks

    class Last(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if (epoch + 1) % EVERY == 0:
                gauge()

    train, valid = ks.data.split_identities(*samples(), (0.7, 0.3), seed=0)
    model = ks.SiameseWrapper(encoder())
    model.build([(None, 8), (None, 8)])  # Keras's backups on TensorFlow need it before `fit`
    model.compile("adam", loss=ks.losses.ContrastiveLoss())
    pairs = ks.data.PairSequence(*train, batch_size=32, pairs_per_epoch=64, seed=0)
    files = {"report": folder / "report.html", "log": folder / "run.jsonl"}
    monitor = ks.callbacks.DivergenceMonitor(valid, far=0.1, every_steps=3, **files)
    callbacks = [
        ks.callbacks.SetEpoch(pairs),
        ks.callbacks.HardPairRefresh(pairs),
        ks.callbacks.VerificationMonitor(valid, far=0.1, every=EVERY, log_dir=folder / "logs"),
        monitor,
        ks.callbacks.TrackRun(monitor, ks.callbacks.Tracker()),
        ks.callbacks.LiveCurves(monitor),
        ks.callbacks.AtomicBackup(folder / "backup"),
        Last(),
    ]
    public = [getattr(ks.callbacks, name) for name in ks.callbacks.__all__]
    ours = {one.__name__ for one in public if issubclass(one, keras.callbacks.Callback)}
    missing = ours - {type(one).__name__ for one in callbacks} - {"PartialFC"}
    if missing:
        raise RuntimeError(f"the soak run lacks {', '.join(sorted(missing))}")
    model.fit(pairs, epochs=count, callbacks=callbacks, verbose=0)


def search(count, gauge, folder):
    """A grid search of `count` points, in which two encoders are built again and again."""
    import keras_siamese as ks

    built = []

    def build(embedding_dim):
        if len(built) % 2 == 0:  # the first of two folds
            gauge()
        built.append(embedding_dim)
        return encoder(embedding_dim)

    grid = {"margin": [1 + at / count for at in range(count // 2)], "embedding_dim": [4, 8]}
    options = {"cv": 2, "epochs": 2, "batch_size": 64, "directory": folder, "verbose": 0}
    ks.SiameseGridSearch(build, grid, **options).fit(*samples())


def back_up(count, gauge, folder):
    """One fit of Keras alone, with a backup after each epoch."""
    import keras
    import numpy as np

    class Last(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if (epoch + 1) % EVERY == 0:
                gauge()

    x, _ = samples()
    model = encoder()
    model.compile("adam", "mse")
    backups = keras.callbacks.BackupAndRestore(folder / "backup")
    model.fit(x, np.zeros((len(x), 8)), batch_size=64, epochs=count, callbacks=[backups, Last()], verbose=0)


def build_models(count, gauge, folder):
    """`count` models of Keras alone, one after the other."""
    import gc

    import numpy as np

    x, _ = samples()
    for _ in range(count):
        gc.collect()
        gauge()
        model = encoder()
        model.compile("adam", "mse")
        model.fit(x, np.zeros((len(x), 8)), batch_size=64, epochs=2, verbose=0)


RUNS = {"epochs": train, "trials": search, "backups": back_up, "models": build_models}


def work(options):
    part = options.worker
    count = options.trials if part in ("trials", "models") else options.epochs
    every = 1 if part in ("trials", "models") else EVERY
    gauge = Gauge(every)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`logs` has")  # there are two monitors, which write the same keys
        RUNS[part](count, gauge, Path(folder))
    readings = {name: one[1:] for name, one in gauge.readings.items()}  # nothing is before the first one
    blocks, found = slopes(readings, every, PER[part])
    print(json.dumps({"count": count, "per": PER[part], "slopes": found, "blocks": blocks}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
