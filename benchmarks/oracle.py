"""How many epochs does `DiagnosisOracle` need to find what KerasTuner's searches find?

Three search spaces contain large regions in which nothing is learned: rates from 1e-6 to 1, margins that cannot be
reached or are close to 0, almost no genuine or almost no impostor pairs, distances that do not suit the data. Each is
searched with KerasTuner's `RandomSearch`, `BayesianOptimization` and `Hyperband`, and with `DiagnosisOracle`, on the
same training and held-out identities, with five seeds. A trial trains at most nine epochs. The figure is the number of
epochs after which `DiagnosisOracle` has reached the best held-out EER of each other search, in relation to all epochs
of that search, and to those after which it had found its best.

    KERAS_SIAMESE_DATA=DIR python benchmarks/oracle.py  # a quarter of an hour
    python benchmarks/oracle.py --toy                   # seconds; writes nothing

DIR contains `fashion_mnist_small.npz`. See `planted/samples.py` for the data.
"""

import argparse
import contextlib
import gc
import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

EPOCHS = 9  # of a trial; Hyperband's brackets are powers of three
TRIALS = 10  # of random search and Bayesian optimization
LIMIT = 6  # DiagnosisOracle's epochs, in full trials: more than half of those of the others
SPACES = ("blobs", "digits", "garments")
SEEDS = range(5)
PEERS = ("RandomSearch", "BayesianOptimization", "Hyperband")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="one of them")
    parser.add_argument("--spaces", default=",".join(SPACES), help="comma-separated")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="comma-separated")
    parser.add_argument("--kinds", default=",".join([*PEERS, "DiagnosisOracle"]), help="comma-separated")
    parser.add_argument("--toy", action="store_true", help="one space, one seed, few epochs, nothing written")
    parser.add_argument("--rows", help="file of JSON lines: searches that it holds are not run again, others are added")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.worker:
        work(options)
        return
    environment = {**os.environ, "KERAS_BACKEND": options.backends.split(",")[0], "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    rows = known_rows(options.rows)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("{"):
                rows.append(json.loads(line))
                print(f"{environment['KERAS_BACKEND']}: {shown(rows[-1])}", flush=True)
                if options.rows:
                    with open(options.rows, "a") as file:
                        file.write(line)
    if process.returncode:
        sys.exit(process.returncode)
    if len(rows) == len(SPACES) * len(SEEDS) * (1 + len(PEERS)):
        rows.sort(key=lambda row: (row["space"], row["seed"]))
        about = measure.surroundings("torch", "keras-tuner", "scikit-learn")
        command = "KERAS_SIAMESE_DATA=… python benchmarks/oracle.py"
        print(measure.write("oracle", {"surroundings": about, "command": command, "rows": rows}))


def known_rows(file):
    """The rows that a file of JSON lines holds; none without a file."""
    held = Path(file).read_text().splitlines() if file and Path(file).exists() else []
    return [json.loads(line) for line in held]


def shown(row):
    trace = [value for value in row["trace"] if value is not None]
    text = f"{row['space']:9} {row['seed']} {row['kind']:21} best {min(trace):.4f} at epoch "
    return text + f"{1 + row['trace'].index(min(trace)):3} of {len(row['trace']):3}, {row['seconds']:.0f} s"


def work(options):
    importlib.import_module("keras_tuner")  # so that it is frozen
    gc.freeze()  # KerasTuner collects garbage twice a trial, which would take longer than the trial
    spaces, seeds = options.spaces.split(","), [int(seed) for seed in options.seeds.split(",")]
    sizes = {"epochs": EPOCHS, "trials": TRIALS}
    if options.toy:
        spaces, seeds, sizes = ["blobs"], [0], {"epochs": 1, "trials": 1}
    held = {(row["space"], row["seed"], row["kind"]) for row in known_rows(options.rows)}
    wanted = [one for one in itertools.product(spaces, seeds, options.kinds.split(",")) if one not in held]
    for space, seed, kind in wanted:
        with contextlib.redirect_stdout(sys.stderr):
            row = search(space, seed, kind, **sizes)
        print(json.dumps({"space": space, "seed": seed, "kind": kind, **row}), flush=True)
        gc.freeze()


def space_of(name):
    """`(SearchSpace, encoder)` of one of `SPACES`; the encoder is a function of the fields of the space."""
    import keras

    import keras_siamese as ks

    Range = ks.tuning.Range
    rates = {"learning_rate": Range(1e-6, 1.0, log=True), "batch_size": 256}

    def encoder(embedding_dim=32, width=128, depth=1, dropout=0.0, normalize=True):
        layers = [keras.layers.Flatten()]
        for _ in range(depth):
            layers += [keras.layers.Dense(width, activation="relu")]
        layers += [keras.layers.Dropout(dropout)] if dropout else []
        layers += [keras.layers.Dense(embedding_dim)] + ([keras.layers.UnitNormalization()] if normalize else [])
        return keras.Sequential(layers)

    if name == "blobs":  # pairs: everything that the diagnosis knows, and a size that it knows little of
        space = ks.tuning.SearchSpace(
            margin=Range(1e-3, 2.0, log=True),
            positive_fraction=[0.01, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.99],
            distance=["euclidean", "cosine", "chebyshev", "manhattan"],
            embedding_dim=[2, 4, 8, 16, 32, 64],
            **rates,
        )
        return space, lambda embedding_dim: encoder(embedding_dim)
    if name == "digits":  # three kinds of losses, with their own batches and mining
        space = ks.tuning.SearchSpace(
            loss=["ContrastiveLoss", "BatchTripletLoss", "NTXentLoss"],
            margin=Range(1e-3, 2.0, log=True),
            mining=["none", "hard"],
            positive_fraction=[0.01, 0.1, 0.5, 0.9, 0.99],
            classes_per_batch=32,
            samples_per_class=4,
            embedding_dim=[2, 8, 32],
            encoder={"dropout": [0.0, 0.5, 0.9]},
            **rates,
        )
        return space, lambda embedding_dim, dropout: encoder(embedding_dim, dropout=dropout)
    space = ks.tuning.SearchSpace(  # an encoder without a scale, and with sizes that no repair knows
        margin=Range(1e-3, 1e3, log=True),
        positive_fraction=[0.02, 0.1, 0.5, 0.9, 0.98],
        optimizer=["adam", "sgd"],
        encoder={"depth": [1, 2, 3], "width": [8, 32, 128], "dropout": [0.0, 0.3, 0.6]},
        **rates,
    )
    return space, lambda depth, width, dropout: encoder(32, width, depth, dropout, normalize=False)


def parts_of(name, seed):
    """`(train, valid)` of a data set, each `(x, labels)`."""
    from planted import recipes, samples

    parts = samples.parts_of({**recipes.COMMON, "data": name}, seed)
    x, labels = parts["valid"]
    held_out = labels < labels.min() + 40  # enough, and an epoch is measured faster
    return parts["train"], (x[held_out], labels[held_out])


def search(name, seed, kind, epochs, trials):
    """One search: the EER after each epoch that it trained, the trials, and its processor time."""
    import keras
    import keras_tuner

    import keras_siamese as ks

    space, encoder = space_of(name)
    train, valid = parts_of(name, seed)
    trace = []

    class Trace(keras.callbacks.Callback):
        def __deepcopy__(self, memo):
            return self

        def on_epoch_end(self, epoch, logs=None):
            trace.append(None if logs["val_eer"] != logs["val_eer"] else logs["val_eer"])
            if len(trace) >= epochs * LIMIT and kind == "DiagnosisOracle":
                raise keras_tuner.errors.FatalError("the epochs are used up")

    hypermodel = ks.tuning.SiameseHyperModel(encoder, space)
    more = {"objective": ks.tuning.objective("val_eer"), "seed": 1 + seed, "max_consecutive_failed_trials": 1000}
    with tempfile.TemporaryDirectory() as folder:
        if kind == "DiagnosisOracle":
            oracle = ks.tuning.DiagnosisOracle(**more, max_trials=1000)
            tuner = keras_tuner.Tuner(oracle, hypermodel, directory=folder)
        elif kind == "Hyperband":
            tuner = keras_tuner.Hyperband(hypermodel, **more, max_epochs=epochs, directory=folder)
        else:
            # By default, Bayesian optimization would draw more random points than there are trials here.
            options = {"num_initial_points": 5} if kind == "BayesianOptimization" else {}
            tuner = getattr(keras_tuner, kind)(hypermodel, **more, **options, max_trials=trials, directory=folder)
        start = time.process_time()
        options = {"on_divergence": "stop"} if kind == "DiagnosisOracle" else {}
        options |= {} if kind == "Hyperband" else {"epochs": epochs}
        with contextlib.suppress(keras_tuner.errors.FatalError):
            tuner.search(*train, validation_data=valid, callbacks=[Trace()], verbose=0, **options)
        seconds = time.process_time() - start
        reasons = getattr(tuner.oracle, "reasons", {})
        tried = []
        for one in map(tuner.oracle.get_trial, tuner.oracle.start_order):
            values = {
                name: value for name, value in one.hyperparameters.values.items() if not name.startswith("tuner/")
            }
            tried.append({"values": values, "score": one.score, **reasons.get(one.trial_id, {})})
    found = {"trace": trace, "seconds": seconds}
    return found | ({"trials": tried} if reasons else {})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
