"""Does the package do better than keras.io's siamese example, with the example's data, encoder and epochs?

The example "Image similarity estimation using a Siamese Network with a contrastive loss" is compared with the same task
in this package:

- `keras_io`: its pairs, two for each digit and the same in each epoch, as arrays; its two towers with a Lambda layer
  between them, and its contrastive loss written out. It says "same" if the distance is at most 0.5.
- `package`: `SiameseWrapper`, `ContrastiveLoss` and a `PairSequence` with as many pairs, drawn anew for each epoch. It
  says "same" if the distance is at most the threshold that `Verifier.calibrate` finds on the half of MNIST that neither
  side trains on.

Both decide on the same test pairs, which are drawn for each seed by the rule of the example. With `--balanced`, only
this is measured, and written to a file of its own:

- `balanced`: the same encoder, epochs and number of images in each epoch, trained as the package's guides advise: a
  loss on all pairs in batches of all digits, and a rate that falls to zero. It decides as `package` does.

    KERAS_SIAMESE_DATA=DIR python benchmarks/mnist.py              # some minutes a seed
    KERAS_SIAMESE_DATA=DIR python benchmarks/mnist.py --balanced   # two minutes a seed
    python benchmarks/mnist.py --toy                               # seconds, on noise; writes nothing

DIR contains `mnist.npz`; without it only `--toy` runs.
"""

import argparse
import ast
import inspect
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import measure
import numpy as np

BATCH = 16


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="tensorflow", help="comma-separated; each trains all the seeds")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--resume", action="store_true", help="keep the rows of other seeds that were measured before")
    parser.add_argument("--balanced", action="store_true", help="only the side `balanced`")
    parser.add_argument("--toy", action="store_true", help="noise, one seed, one epoch, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.seeds, options.epochs = "0", 1
    if options.worker:
        for seed in map(int, options.seeds.split(",")):
            print(json.dumps((work_balanced if options.balanced else work)(options, seed)), flush=True)
        return
    name, command = "mnist", "KERAS_SIAMESE_DATA=… python benchmarks/mnist.py"
    if options.balanced:
        name, command = "mnist_balanced", f"{command} --balanced"
    lines = {side.__name__: lines_of(side) for side in (keras_io, package, balanced)}
    lines["keras_io"] += lines_of(make_pairs)
    rows = measure.read(name).get("rows", []) if options.resume and not options.toy else []
    for backend in options.backends.split(","):
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        worker = [sys.executable, __file__, *sys.argv[1:], "--worker", backend]
        with subprocess.Popen(worker, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for row in (json.loads(line) for line in process.stdout if line.startswith("{")):
                rows = [kept for kept in rows if (kept["backend"], kept["seed"]) != (backend, row["seed"])] + [row]
                print(f"{backend}: {json.dumps(row)}", flush=True)
                if not options.toy:
                    about = measure.surroundings("tensorflow", "jax", "torch")
                    found = {"surroundings": about, "command": command, "lines": lines, "rows": rows}
                    print(measure.write(name, found))
        if process.returncode:
            sys.exit(process.returncode)


def lines_of(function):
    """Counts the lines of code of a function, without blank lines, comments and docstrings."""
    source = inspect.getsource(function)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    texts = [node.body[0] for node in functions if ast.get_docstring(node)]
    docstrings = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
    code = [line.strip() for number, line in enumerate(source.splitlines(), 1) if number not in docstrings]
    return sum(1 for line in code if line and not line.startswith("#"))


def digits(options):
    """`(images, labels)` for training, validation (the second half of MNIST's training images) and test."""
    if options.toy:
        rng, y = np.random.default_rng(0), np.arange(80) % 10
        parts = rng.random((3, 80, 28, 28, 1), dtype="float32")
        parts[:, np.arange(80), 2 * y] += 1  # each digit has a bright row of its own
        return [(x, y) for x in parts]
    folder = os.environ.get("KERAS_SIAMESE_DATA")
    if not folder:
        sys.exit("KERAS_SIAMESE_DATA must name the folder with mnist.npz")
    held = np.load(Path(folder) / "mnist.npz")
    x, y = held["x_train"].astype("float32")[..., None], held["y_train"]
    return (x[:30000], y[:30000]), (x[30000:], y[30000:]), (held["x_test"].astype("float32")[..., None], held["y_test"])


def encoder():
    """The encoder of the example, with 5,318 parameters."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.BatchNormalization(),
            layers.Conv2D(4, (5, 5), activation="tanh"),
            layers.AveragePooling2D(pool_size=(2, 2)),
            layers.Conv2D(16, (5, 5), activation="tanh"),
            layers.AveragePooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(10, activation="tanh"),
        ]
    )


def make_pairs(x, y, seed):
    """Pairs each image with one of the same digit and one of another digit; label 0 = same, as in the example."""
    draw = random.Random(seed)
    of_digit = [np.flatnonzero(y == digit) for digit in range(10)]
    left, right = np.repeat(np.arange(len(x)), 2), []
    for digit in y:
        other = draw.choice([another for another in range(10) if another != digit])
        right += [draw.choice(of_digit[digit]), draw.choice(of_digit[other])]
    return x[left], x[right], np.tile([0.0, 1.0], len(x))


def keras_io(train, test, seed, epochs, options):
    """The example without its plots and without its accuracy on validation pairs, which it only plots."""
    import keras
    from keras import ops

    def euclidean_distance(towers):
        squares = ops.sum(ops.square(towers[0] - towers[1]), axis=1, keepdims=True)
        return ops.sqrt(ops.maximum(squares, keras.backend.epsilon()))

    def contrastive_loss(different, distance):
        near, far = ops.square(distance), ops.square(ops.maximum(1 - distance, 0))
        return ops.mean((1 - different) * near + different * far)

    shared = encoder()
    inputs = [keras.layers.Input((28, 28, 1)), keras.layers.Input((28, 28, 1))]
    distance = keras.layers.Lambda(euclidean_distance)([shared(inputs[0]), shared(inputs[1])])
    siamese = keras.Model(inputs=inputs, outputs=distance)
    siamese.compile(loss=contrastive_loss, optimizer="RMSprop", **options)
    left, right, different = make_pairs(*train, seed)
    siamese.fit([left, right], different, batch_size=BATCH, epochs=epochs, verbose=0)
    return siamese, siamese.predict(list(test), verbose=0)[:, 0] <= 0.5


def package(train, valid, test, seed, epochs, options):
    """The same task with this package."""
    import keras_siamese as ks

    siamese = ks.SiameseWrapper(encoder())
    siamese.compile("rmsprop", loss=ks.losses.ContrastiveLoss(margin=1.0), **options)
    pairs = ks.data.PairSequence(*train, batch_size=BATCH, pairs_per_epoch=2 * len(train[0]), seed=seed)
    siamese.fit(pairs, epochs=epochs, verbose=0)
    verifier = ks.Verifier.calibrate(siamese, *valid, criterion="accuracy")
    return verifier, verifier.verify(*test)


def balanced(train, valid, test, seed, epochs):
    """The same task with a loss on all pairs in batches of 32 images of each digit; as many images in each epoch."""
    import keras

    import keras_siamese as ks

    steps = max(4 * len(train[0]) // 320, 1)
    batches = ks.data.BalancedBatchSequence(
        *train, classes_per_batch=10, samples_per_class=32, batches_per_epoch=steps, seed=seed
    )
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)
    network = encoder()
    network.compile(keras.optimizers.Adam(rate), loss=ks.losses.SupConLoss(temperature=0.1))
    network.fit(batches, epochs=epochs, verbose=0, callbacks=[ks.callbacks.SetEpoch(batches)])
    verifier = ks.Verifier.calibrate(ks.SiameseWrapper(network, distance="cosine"), *valid, criterion="accuracy")
    return verifier, verifier.verify(*test)


def work_balanced(options, seed):
    """Returns the row of `balanced`: its accuracy on the pairs that the other sides decide on."""
    import keras

    train, valid, test = digits(options)
    left, right, different = make_pairs(*test, seed=100 + seed)
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    verifier, decided = balanced(train, valid, (left, right), seed, options.epochs)
    return {
        "backend": options.worker,
        "seed": seed,
        "pairs": len(different),
        "parameters": verifier.siamese.encoder.count_params(),
        "seconds": {"balanced": time.perf_counter() - start},
        "accuracy": {"balanced": float(np.mean(decided == (different == 0)))},
    }


def work(options, seed):
    """Returns a row: the accuracy of both sides on the test pairs, and of each with the other's kind of threshold."""
    import keras

    from keras_siamese import verification

    train, valid, test = digits(options)
    left, right, different = make_pairs(*test, seed=100 + seed)
    same = different == 0
    # Runs many steps in one call of the backend. The arithmetic is the same, and the 3,750 steps of an epoch are short.
    compiled = {} if options.toy or options.worker == "torch" else {"steps_per_execution": 50}
    seconds, start = {}, time.perf_counter()
    keras.utils.set_random_seed(seed)
    peer, decided = keras_io(train, (left, right), seed, options.epochs, compiled)
    seconds["keras_io"], start = time.perf_counter() - start, time.perf_counter()
    accuracy = {"keras_io": np.mean(decided == same)}
    keras.utils.set_random_seed(seed)
    verifier, decided = package(train, valid, (left, right), seed, options.epochs, compiled)
    seconds["package"] = time.perf_counter() - start
    accuracy["package"] = np.mean(decided == same)

    *towers, valid_different = make_pairs(*valid, seed=200 + seed)
    _, threshold = verification.best_accuracy(valid_different == 0, -peer.predict(towers, verbose=0)[:, 0])
    accuracy["keras_io, calibrated"] = np.mean((-peer.predict([left, right], verbose=0)[:, 0] >= threshold) == same)
    accuracy["package, at 0.5"] = np.mean((verifier.score(left, right) >= -0.5) == same)
    return {
        "backend": options.worker,
        "seed": seed,
        "pairs": len(same),
        "parameters": verifier.siamese.encoder.count_params(),
        "threshold": -verifier.threshold,
        "seconds": seconds,
        "accuracy": {name: float(share) for name, share in accuracy.items()},
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
