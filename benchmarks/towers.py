"""What does a training step through SiameseWrapper cost, compared with hand-written models?

Four models with the same encoder, loss and optimizer are trained by `fit` on the same arrays, in turns:

- `wrapper`: `SiameseWrapper(encoder)`, which runs the encoder once over both towers;
- `two runs`: `SiameseWrapper(encoder, joint=False)`, which runs it once for each tower, as keras.io's example does;
- `by hand`: a `keras.Model` whose `call` does the same joint run and the distance in four lines;
- `keras.io`: the functional model of keras.io's siamese example, which calls the encoder twice and uses a Lambda layer
  for the distance.

    python benchmarks/towers.py                      # a few minutes
    python benchmarks/towers.py --backends torch
    python benchmarks/towers.py --toy                # seconds; writes nothing
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import measure


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--batches", default="16,128", help="comma-separated batch sizes, in pairs")
    parser.add_argument("--steps", type=int, default=30, help="training steps in one fit")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--toy", action="store_true", help="two steps, one round, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.batches, options.steps, options.rounds = "8", 2, 1
    if options.worker:
        work(options)
        return
    found = {}
    for backend in options.backends.split(","):
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", backend]
        out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[backend] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        for row in found[backend]:
            times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in row["seconds"].items())
            print(f"{backend:10s} {row['batch']:4d} pairs a step: {times}", flush=True)
    if not options.toy:
        about = measure.surroundings("tensorflow", "jax", "torch")
        print(measure.write("towers", {"surroundings": about, "command": " ".join(sys.argv), "rows": found}))


def work(options):
    import numpy as np

    rng = np.random.default_rng(0)
    for batch in map(int, options.batches.split(",")):
        left, right = rng.random((2, batch * options.steps, 28, 28, 1)).astype("float32")
        same = rng.integers(0, 2, batch * options.steps).astype("float32")
        sides = {}
        for name, make in SIDES.items():
            sides[name] = trainer(make(), left, right, same, batch)
        seconds = measure.alternate(sides, options.rounds, budget=60.0)
        print(
            json.dumps({"batch": batch, "seconds": {name: s / options.steps for name, s in seconds.items()}}),
            flush=True,
        )


def trainer(model, left, right, same, batch):
    """A side that runs one epoch of `fit`."""
    import keras

    from keras_siamese.losses import ContrastiveLoss

    model.compile(keras.optimizers.RMSprop(1e-3), loss=ContrastiveLoss(margin=1.0))
    inputs = [left, right] if type(model).__name__ == "Functional" else (left, right)
    return lambda: model.fit(inputs, same, batch_size=batch, shuffle=False, verbose=0)


def encoder():
    """The encoder of keras.io's "Image similarity estimation using a Siamese Network with a contrastive loss"."""
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


def wrapper(joint=True):
    from keras_siamese import SiameseWrapper

    return SiameseWrapper(encoder(), joint=joint)


def by_hand():
    import keras
    from keras import ops

    class Joint(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = encoder()

        def build(self, input_shape):
            self.built = True

        def call(self, inputs, training=None):
            embeddings = self.encoder(ops.concatenate(inputs, axis=0), training=training)
            left, right = ops.split(embeddings, 2, axis=0)
            squares = ops.sum(ops.square(left - right), axis=1, keepdims=True)
            return ops.sqrt(ops.maximum(squares, keras.config.epsilon()))

    return Joint()


def keras_io():
    import keras
    from keras import ops

    def euclidean_distance(vects):
        x, y = vects
        sum_square = ops.sum(ops.square(x - y), axis=1, keepdims=True)
        return ops.sqrt(ops.maximum(sum_square, keras.backend.epsilon()))

    shared = encoder()
    left, right = keras.layers.Input((28, 28, 1)), keras.layers.Input((28, 28, 1))
    merged = keras.layers.Lambda(euclidean_distance, output_shape=(1,))([shared(left), shared(right)])
    return keras.Model(inputs=[left, right], outputs=merged)


SIDES = {"wrapper": wrapper, "two runs": lambda: wrapper(joint=False), "by hand": by_hand, "keras.io": keras_io}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
