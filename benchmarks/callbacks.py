"""What do the monitors add to an epoch?

Trains on drawings of the size of Omniglot, with an encoder of four convolutional blocks like that of `omniglot.py`:
without a monitor, with `VerificationMonitor` and with `DivergenceMonitor`, in turns. Each monitor embeds the same
held-out drawings in each epoch. The cost is measured in two ways: as the difference of whole epochs, which includes the
noise of the machine, and as the seconds that Keras spends in the monitor's own calls, divided by the rest of the same
epoch.

    KERAS_SIAMESE_DATA=DIR python benchmarks/callbacks.py          # half an hour, most of it on JAX
    KERAS_SIAMESE_DATA=DIR python benchmarks/callbacks.py --backends torch
    python benchmarks/callbacks.py --toy                           # seconds, on noise; writes nothing

DIR holds `omniglot_35.npz`; without it only `--toy` runs. Results of backends that are not run again stay as they were
recorded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import measure


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--batches", type=int, default=60, help="batches of 128 drawings an epoch")
    parser.add_argument("--items", type=int, default=1000, help="held-out drawings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--toy", action="store_true", help="two batches, one round, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.batches, options.items, options.rounds = 2, 40, 1
    if options.worker:
        work(options)
        return
    about, before = measure.surroundings("tensorflow", "jax", "torch"), measure.read("callbacks")
    found = {} if options.toy else before.get("rows", {})  # backends that are not run again stay as they were
    for row in found.values():
        row.setdefault("date", before["surroundings"]["date"])
    for backend in options.backends.split(","):
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", backend]
        out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[backend] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        found[backend]["date"] = about["date"]
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found[backend]["shares"].items())
        seconds = found[backend]["seconds"]["without"]
        print(f"{backend}: an epoch of {options.batches} batches {seconds:.2f} s; {shares}", flush=True)
    if not options.toy:
        command = "KERAS_SIAMESE_DATA=… python benchmarks/callbacks.py"
        print(measure.write("callbacks", {"surroundings": about, "command": command, "rows": found}))


def drawings(options):
    import numpy as np

    folder = os.environ.get("KERAS_SIAMESE_DATA")
    if options.toy:
        labels = np.repeat(np.arange(40), 8)
        return np.random.default_rng(0).random((len(labels), 35, 35, 1)).astype("float32"), labels
    if not folder:
        sys.exit("KERAS_SIAMESE_DATA must name the folder with omniglot_35.npz")
    held = np.load(Path(folder) / "omniglot_35.npz")
    return (held["images"] / 9)[:, :, :, None].astype("float32"), held["class_id"]


def encoder():
    import keras

    layers = [keras.Input((35, 35, 1))]
    for width in (64, 64, 128, 128):
        layers += [
            keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(128), keras.layers.UnitNormalization()]
    return keras.Sequential(layers)


def timed(monitor):
    """Makes `monitor` add the seconds of its calls within an epoch to its attribute `spent`, and returns it."""
    monitor.spent = 0.0

    def watched(hook):
        def call(*arguments, **named):
            start = time.perf_counter()
            hook(*arguments, **named)
            monitor.spent += time.perf_counter() - start

        return call

    monitor.on_epoch_begin = watched(monitor.on_epoch_begin)
    monitor.on_epoch_end = watched(monitor.on_epoch_end)
    return monitor


def work(options):
    import keras

    import keras_siamese as ks

    x, labels = drawings(options)
    train, valid = ks.data.split_identities(x, labels, (0.7, 0.3), seed=0)
    valid = valid[0][: options.items], valid[1][: options.items]
    classes = 8 if options.toy else 32
    batches = ks.data.BalancedBatchSequence(
        *train, classes_per_batch=classes, samples_per_class=4, batches_per_epoch=options.batches
    )

    class Stopwatch(keras.callbacks.Callback):
        """Measures the time from the first batch until the callbacks before this one have ended the epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds = time.perf_counter() - self.start

    def side(*monitors):
        """A side that trains one more epoch and returns its seconds, and those of the monitors."""
        model = encoder()
        model.compile("adam", loss=ks.losses.SupConLoss())
        epochs, watch = iter(range(10**6)), Stopwatch()

        def run():
            epoch, before = next(epochs), sum(one.spent for one in monitors)
            callbacks = [ks.callbacks.SetEpoch(batches), *monitors, watch]
            model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=callbacks, verbose=0)
            return watch.seconds, sum(one.spent for one in monitors) - before

        return run

    keras.utils.set_random_seed(0)
    sides = {
        "without": side(),
        "VerificationMonitor": side(timed(ks.callbacks.VerificationMonitor(valid))),
        "DivergenceMonitor": side(timed(ks.callbacks.DivergenceMonitor(valid))),
    }
    for run in sides.values():
        run()
    rounds = [{name: run() for name, run in sides.items()} for _ in range(options.rounds)]
    seconds = {name: statistics.median(one[name][0] for one in rounds) for name in sides}
    shares = {
        name: statistics.median(spent / (whole - spent) for whole, spent in (one[name] for one in rounds))
        for name in sides
        if name != "without"
    }
    print(json.dumps({"items": len(valid[1]), "batches": options.batches, "seconds": seconds, "shares": shares}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
