"""Is the grid search as good and as fast as scikit-learn's, and what does Hyperband save?

The grid is margin {1, 2, 3} × embedding_dim {64, 128, 256} × learning_rate {1e-3, 1e-4} with 3 identity-disjoint folds
of Omniglot drawings. It is searched three times: with `SiameseGridSearch`; with scikit-learn's `GridSearchCV` over
scikeras's `KerasClassifier`, with the same build function and as many pairs, drawn once inside each fold, and with the
EER of the held-out pairs as the score; and with KerasTuner's `Hyperband` over `SiameseHyperModel`, on the same points
and one held-out third. Seconds are processor time: the sides run one after the other, and other work on the machine is
not counted.

    pip install scikeras "scikit-learn<1.6"             # scikeras works with no later version
    KERAS_SIAMESE_DATA=DIR python benchmarks/tuning.py  # some minutes
    python benchmarks/tuning.py --toy                   # seconds, on noise; writes nothing

DIR contains `omniglot_35.npz`. Without scikeras, `--toy` leaves out its side, and a full run ends with an error.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import measure

GRID = {"margin": [1.0, 2.0, 3.0], "embedding_dim": [64, 128, 256], "learning_rate": [1e-3, 1e-4]}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="comma-separated")
    parser.add_argument("--identities", type=int, default=90)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--toy", action="store_true", help="two points, two epochs, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.worker:
        work(options)
        return
    found = {} if options.toy else measure.read("tuning").get("rows", {})  # of backends that are not measured now
    for backend in options.backends.split(","):
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", backend]
        out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[backend] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        print(f"{backend}: {json.dumps(found[backend])}", flush=True)
    if not options.toy:
        about = measure.surroundings("tensorflow", "jax", "torch", "keras-tuner", "scikit-learn", "scikeras")
        command = "KERAS_SIAMESE_DATA=… python benchmarks/tuning.py"
        print(measure.write("tuning", {"surroundings": about, "command": command, "rows": found}))


def drawings(options):
    """Samples `(n, 1225)` and identities `(n,)`."""
    import numpy as np

    folder = os.environ.get("KERAS_SIAMESE_DATA")
    if options.toy:
        labels = np.repeat(np.arange(12), 6)
        return np.random.default_rng(0).random((len(labels), 1225)).astype("float32"), labels
    if not folder:
        sys.exit("KERAS_SIAMESE_DATA must name the folder with omniglot_35.npz")
    held = np.load(Path(folder) / "omniglot_35.npz")
    classes = np.random.default_rng(0).choice(np.unique(held["class_id"]), options.identities, replace=False)
    rows = np.isin(held["class_id"], classes)
    return (held["images"][rows] / 9).reshape(rows.sum(), -1).astype("float32"), held["class_id"][rows]


def encoder(embedding_dim):
    import keras

    layers = [keras.layers.Dense(256, activation="relu"), keras.layers.Dense(embedding_dim)]
    return keras.Sequential([keras.Input((1225,)), *layers])


def build(margin, embedding_dim, learning_rate):
    """Builds the model that both grid searches train."""
    import keras

    import keras_siamese as ks

    inputs = keras.Input((1225,)), keras.Input((1225,))
    siamese = ks.SiameseWrapper(encoder(embedding_dim), distance="euclidean")
    model = keras.Model(inputs, siamese(inputs))  # scikeras asks the model for its outputs
    model.compile(keras.optimizers.Adam(learning_rate), loss=ks.losses.ContrastiveLoss(margin=margin))
    return model


def ours(x, labels, grid, epochs):
    import keras_siamese as ks

    monitor, spent = ks.callbacks.VerificationMonitor, []
    measure_epoch = monitor.on_epoch_end

    def timed(*args):
        start = time.process_time()
        measure_epoch(*args)
        spent.append(time.process_time() - start)

    with mock.patch.object(monitor, "on_epoch_end", timed):
        start = time.process_time()
        search = ks.SiameseGridSearch(build, grid, cv=3, epochs=epochs, batch_size=64, verbose=0).fit(x, labels)
        seconds = time.process_time() - start
    found = {"seconds": seconds, "measuring": sum(spent), "eer": search.cv_results_["mean_val_eer"].tolist()}
    return {**found, "best": search.best_params_, "points": search.cv_results_["params"]}


def scikit_learn(x, labels, grid, epochs):
    """The same search with `GridSearchCV`, on pairs drawn once inside each fold, as many as samples."""
    import numpy as np
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import FunctionTransformer

    import keras_siamese as ks

    class Siamese(KerasClassifier):
        @property
        def feature_encoder(self):
            return FunctionTransformer(lambda pairs: (pairs[:, 0], pairs[:, 1]))

    pairs, same, fold = [], [], []
    for number, (_, held_out) in enumerate(ks.data.IdentityKFold(3).split(x, labels)):
        drawn = ks.data.PairSequence(x[held_out], labels[held_out], frozen=True)
        left, right, genuine = drawn.pairs()
        pairs.append(np.stack([x[held_out][left], x[held_out][right]], axis=1))
        same.append(genuine.astype(int))
        fold.append(np.full(len(genuine), number))
    pairs, same, fold = map(np.concatenate, (pairs, same, fold))
    folds = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(3)]

    def negative_eer(estimator, pairs, same):
        distances = estimator.model_.predict((pairs[:, 0], pairs[:, 1]), batch_size=256, verbose=0)
        return -ks.verification.eer(same, -distances[:, 0])

    start = time.process_time()
    estimator = Siamese(build, epochs=epochs, batch_size=64, verbose=0, **{name: one[0] for name, one in grid.items()})
    search = GridSearchCV(estimator, grid, cv=folds, scoring=negative_eer, error_score="raise").fit(pairs, same)
    means = (-search.cv_results_["mean_test_score"]).tolist()
    points = search.cv_results_["params"]
    return {"seconds": time.process_time() - start, "best": search.best_params_, "eer": means, "points": points}


def hyperband(x, labels, grid, epochs):
    """Returns the best point that Hyperband finds on one held-out third, and the number of epochs that it trains."""
    import keras_tuner

    import keras_siamese as ks

    fit_rows, held_out = next(ks.data.IdentityKFold(3).split(x, labels))
    space = ks.tuning.SearchSpace(**grid, batch_size=64)
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            ks.tuning.SiameseHyperModel(encoder, space),
            objective=ks.tuning.objective("val_eer"),
            max_epochs=epochs,
            seed=1,
            directory=folder,
        )
        start = time.process_time()
        tuner.search(x[fit_rows], labels[fit_rows], validation_data=(x[held_out], labels[held_out]), verbose=0)
        seconds = time.process_time() - start
        trials = [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]
        best = tuner.get_best_hyperparameters()[0].values
    spent = sum(values["tuner/epochs"] - values["tuner/initial_epoch"] for values in trials)
    tried = {tuple(values[name] for name in grid) for values in trials}
    return {"seconds": seconds, "best": {name: best[name] for name in grid}, "epochs": spent, "tried": len(tried)}


def work(options):
    import contextlib

    import keras

    x, labels = drawings(options)
    grid, epochs = GRID, options.epochs
    if options.toy:
        grid, epochs = {"margin": [1.0, 2.0], "embedding_dim": [8], "learning_rate": [1e-3]}, 2
    found = {"identities": len(set(labels.tolist())), "samples": len(labels), "epochs": epochs}
    found["points"] = len(list(itertools.product(*grid.values())))
    with contextlib.redirect_stdout(sys.stderr):
        build(*(values[0] for values in grid.values()))  # imports and first calls are counted for no side
        keras.utils.set_random_seed(0)
        found["ours"] = ours(x, labels, grid, epochs)
        if not options.toy or importlib.util.find_spec("scikeras"):
            found["scikit-learn"] = scikit_learn(x, labels, grid, epochs)
        found["hyperband"] = hyperband(x, labels, grid, epochs)
    print(json.dumps(found))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
