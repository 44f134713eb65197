"""How accurate is a network that is trained with this package for minutes, on Omniglot with Koch's protocol?

For each seed one network is trained, only on the training drawings of the protocol (30 alphabets, drawers 9 to 20). It
answers both questions of Koch, Zemel, Salakhutdinov, "Siamese neural networks for one-shot image recognition", 2015:

- verification: do two drawings show the same character? Measured on the test pairs of the protocol, within an alphabet
  and across two, at the threshold that is best on its validation pairs of the same kind;
- one-shot: which of 20 drawings shows this character? Measured on Lake's 20 runs of 20 trials, by the nearest drawing.

    KERAS_SIAMESE_DATA=DIR python benchmarks/omniglot.py                # 16 processor minutes a seed
    KERAS_SIAMESE_DATA=DIR python benchmarks/omniglot.py --minutes 0    # 20 epochs of a residual network a seed
    python benchmarks/omniglot.py --toy                                 # seconds, on noise; writes nothing

DIR contains `omniglot_35.npz` and `omniglot_koch_protocol.npz`; without it only `--toy` runs. The row of a seed is
written when it ends. A run with `--resume` keeps the rows that exist. With `--embeddings FOLDER`, the embeddings of
each seed are kept there, and the networks of all seeds are measured together, too: by the means of their cosines.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import measure
import numpy as np

COPIES = 8  # number of views over which the embedding of a drawing is averaged
NEIGHBOURS = 50  # training characters that a drawing's scores are relative to


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="tensorflow", help="comma-separated; each trains all the seeds")
    parser.add_argument("--seeds", default="0,1", help="comma-separated")
    parser.add_argument("--minutes", type=float, default=16.0, help="of processor time for training; 0: all epochs")
    parser.add_argument("--epochs", type=int, default=20, help="of --batches, if the minutes are 0")
    parser.add_argument("--batches", type=int, default=300, help="batches of 128 drawings an epoch")
    parser.add_argument("--resume", action="store_true", help="keep the rows of seeds that were measured before")
    parser.add_argument("--embeddings", help="folder for the embeddings of the seeds, which are then measured together")
    parser.add_argument("--toy", action="store_true", help="noise, two batches, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.seeds, options.minutes, options.epochs, options.batches = "0", 0.0, 1, 2
    if options.worker:
        print(json.dumps(work(options)))
        return
    name = "omniglot" if options.minutes else "omniglot_long"
    kept = options.resume
    for backend in options.backends.split(","):
        for seed in map(int, options.seeds.split(",")):
            rows = measure.read(name).get("rows", []) if kept else []
            if any((row["backend"], row["seed"]) == (backend, seed) for row in rows):
                continue
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, __file__, *sys.argv[1:], "--seeds", str(seed), "--worker", backend]
            out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            row = next(line for line in out.splitlines() if line.startswith("{"))
            print(f"{backend}: {row}", flush=True)
            if not options.toy:
                keep(name, json.loads(row), kept)
                kept = True
    if options.embeddings:
        os.environ["KERAS_BACKEND"] = options.backends.split(",")[0]
        found = together(options)
        print(f"together: {found}", flush=True)
        if not options.toy:
            measure.write(name, {**measure.read(name), "together": found})


def keep(name, row, kept):
    """Writes the row of a seed. If `kept`, the rows that are already in the file stay; otherwise it replaces them."""
    rows = measure.read(name).get("rows", []) if kept else []
    rows = sorted([*rows, row], key=lambda row: (row["backend"], row["seed"]))
    about = measure.surroundings("tensorflow", "jax", "torch")
    command = "KERAS_SIAMESE_DATA=… python benchmarks/omniglot.py"
    command += " --minutes 0 --embeddings FOLDER" * (name == "omniglot_long")
    print(measure.write(name, {"surroundings": about, "command": command, "rows": rows}))


def together(options):
    """What all networks in the folder reach together: their unit embeddings are joined, which has the mean cosine."""
    files = sorted(Path(options.embeddings).glob("*.npz"))
    parts = [np.load(file) for file in files]
    held, protocol = drawings(options)
    embedded, centres = (np.concatenate([unit(part[name]) for part in parts], axis=1) for name in parts[0])
    return {"networks": len(files), **measured(embedded, centres, held, protocol)}


def drawings(options):
    """Images `(n, 35, 35, 1)` uint8 with their metadata, and the protocol, as dicts of arrays."""
    if options.toy:
        return noise()
    folder = os.environ.get("KERAS_SIAMESE_DATA")
    if not folder:
        sys.exit("KERAS_SIAMESE_DATA must name the folder with omniglot_35.npz and omniglot_koch_protocol.npz")
    held = dict(np.load(Path(folder) / "omniglot_35.npz"))
    held["images"] = 28 * held["images"][..., None]  # ink pixels of a block of nine, 0 … 252
    return held, dict(np.load(Path(folder) / "omniglot_koch_protocol.npz"))


def noise():
    """Small random versions of both files: an alphabet of 40 characters by 20 drawers for each part."""
    rng = np.random.default_rng(0)
    row = np.arange(3 * 40 * 20)
    held = {"class_id": row // 20, "drawer": row % 20 + 1, "alphabet": row // 800}
    held["images"] = rng.integers(0, 253, (len(row), 35, 35, 1)).astype("uint8")
    protocol = {"train_alphabets": [0], "train_drawers": range(9, 21), "val_alphabets": [1], "val_drawers": range(1, 5)}
    for part, first in (("val", 800), ("test", 1600)):
        for kind in ("within", "cross"):
            same = np.arange(100) % 2
            left = first + rng.integers(0, 800, 100)
            protocol[f"{part}_pairs_{kind}"] = np.stack([left, np.where(same, left ^ 1, (left + 20) % len(row))], 1)
            protocol[f"{part}_same_{kind}"] = same
        place = protocol if part == "val" else held
        prefix = "val_run" if part == "val" else "run"
        place[f"{prefix}_train_index"] = first + 20 * np.arange(20)[None]
        place[f"{prefix}_test_index"] = first + 20 * np.arange(20)[None] + 1
        place[f"{prefix}_answer"] = np.arange(20)[None]
    return held, protocol


def encoder():
    """Four convolutional blocks to a unit-norm embedding of 128, for 35 × 35 uint8.

    The first two blocks use strides where the reference uses pooling. This takes less than half of the time, because on
    a CPU most of it is spent in the largest feature maps.
    """
    import keras

    def block(width, size, **options):
        convolution = keras.layers.Conv2D(width, size, padding="same", use_bias=False, **options)
        return [convolution, keras.layers.BatchNormalization(), keras.layers.ReLU()]

    layers = [
        keras.Input((35, 35, 1)),
        keras.layers.Rescaling(1 / 252),
        *block(32, 5, strides=2),
        *block(64, 3, strides=2),
        *block(128, 3),
        keras.layers.MaxPooling2D(),
        *block(128, 3),
    ]
    return keras.Sequential(
        [*layers, keras.layers.Flatten(), keras.layers.Dense(128), keras.layers.UnitNormalization()]
    )


def residual_encoder():
    """Three residual blocks to a unit-norm embedding of 128, for 35 × 35 uint8: for long runs."""
    import keras

    def convolution(x, width, size, **options):
        x = keras.layers.Conv2D(width, size, padding="same", use_bias=False, **options)(x)
        return keras.layers.BatchNormalization()(x)

    images = keras.Input((35, 35, 1))
    x = keras.layers.ReLU()(convolution(keras.layers.Rescaling(1 / 252)(images), 32, 5, strides=2))
    for width, strides in ((64, 2), (128, 2)):
        inner = convolution(keras.layers.ReLU()(convolution(x, width, 3, strides=strides)), width, 3)
        x = keras.layers.ReLU()(keras.layers.Add()([inner, convolution(x, width, 1, strides=strides)]))
    x = keras.layers.Dense(128)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.UnitNormalization()(x))


def augmenter():
    from keras_siamese.data import image_augmenter

    return image_augmenter(
        rotation_range=15,
        width_shift_range=2.0,
        height_shift_range=2.0,
        shear_range=10,
        zoom_range=0.15,
        fill_mode="constant",
    )


def half_within_alphabets(x, labels, alphabets, **options):
    """A `BalancedBatchSequence` of which half of each batch's identities come from one alphabet `(n,)`.

    The test trials are within an alphabet, whose characters are hard to tell apart. A batch of characters from all
    alphabets contains few such pairs.
    """
    from keras_siamese.data import BalancedBatchSequence
    from keras_siamese.data.balanced import draw_samples

    alphabet_of = np.zeros(labels.max() + 1, dtype=int)
    alphabet_of[labels] = alphabets

    class HalfWithin(BalancedBatchSequence):
        def _draw(self, epoch):
            rng, home = self.rng(epoch), alphabet_of[self.identities]
            chosen = []
            for alphabet in rng.choice(np.unique(home), self.batches_per_epoch):
                near = np.flatnonzero(home == alphabet)
                near = rng.permutation(near)[: self.classes_per_batch // 2]
                others = np.setdiff1d(np.arange(len(home)), near)
                chosen.append([*near, *rng.choice(others, self.classes_per_batch - len(near), replace=False)])
            rows = draw_samples(rng, self.labels, self._size, np.ravel(chosen), self.samples_per_class)
            return rows.reshape(self.batches_per_epoch, -1)

    return HalfWithin(x, labels, **options)


def training_batches(held, protocol, options, seed):
    """Batches of the training drawings; turned by 90, 180 or 270° they count as characters of other alphabets."""
    part = np.isin(held["alphabet"], protocol["train_alphabets"]) & np.isin(held["drawer"], protocol["train_drawers"])
    images = held["images"][part]
    x = np.concatenate([np.rot90(images, turn, axes=(1, 2)) for turn in range(4)])
    labels, alphabets = (
        np.concatenate([held[name][part] + turn * (int(held[name].max()) + 1) for turn in range(4)])
        for name in ("class_id", "alphabet")
    )
    return half_within_alphabets(
        x,
        labels,
        alphabets,
        classes_per_batch=32,
        samples_per_class=4,
        batches_per_epoch=options.batches,
        augment=augmenter(),
        seed=seed,
    )


def clock(minutes, steps, rate=2e-3):
    """A callback that lowers the learning rate as a cosine from `rate` to 0 and then stops training.

    It takes `minutes` of processor time, or `steps` if `minutes` is 0.
    """
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.start, self.processor, self.steps = time.perf_counter(), time.process_time(), 0

        def on_train_batch_begin(self, batch, logs=None):
            done = (time.process_time() - self.processor) / (60 * minutes) if minutes else self.steps / steps
            self.model.optimizer.learning_rate = rate * (1 + np.cos(np.pi * min(done, 1))) / 2
            self.steps += 1
            self.model.stop_training = self.model.stop_training or done >= 1

        def on_train_end(self, logs=None):
            self.seconds = time.perf_counter() - self.start
            self.processor = time.process_time() - self.processor

    return Clock()


def work(options):
    import keras

    import keras_siamese as ks

    held, protocol = drawings(options)
    seed = int(options.seeds)
    keras.utils.set_random_seed(seed)
    batches = training_batches(held, protocol, options, seed)
    part = np.isin(held["alphabet"], protocol["val_alphabets"]) & np.isin(held["drawer"], protocol["val_drawers"])
    monitor = ks.callbacks.VerificationMonitor((held["images"][part], held["class_id"][part]))
    model = encoder() if options.minutes or options.toy else residual_encoder()
    model.compile(keras.optimizers.Adam(), loss=ks.losses.SupConLoss(temperature=0.1))
    watch = clock(options.minutes, options.batches * options.epochs)
    epochs = 10**6 if options.minutes else options.epochs
    callbacks = [ks.callbacks.SetEpoch(batches), watch, monitor]
    history = model.fit(batches, epochs=epochs, callbacks=callbacks, verbose=0 if options.toy else 2).history
    row = {"backend": options.worker, "seed": seed, "steps": watch.steps}
    row |= {"parameters": model.count_params(), "seconds": watch.seconds, "processor": watch.processor}
    row["val_eer"] = history["val_eer"][-1]
    used = rows_used(held, protocol)
    centres = centres_of(model, batches)
    for copies in (1, COPIES):
        embedded = np.full((len(held["images"]), 128), np.nan, "float32")
        embedded[used] = embeddings(model, held["images"][used], copies)
        row[f"{copies} views"] = measured(embedded, centres, held, protocol)
    if options.embeddings:
        Path(options.embeddings).mkdir(parents=True, exist_ok=True)
        file = Path(options.embeddings) / f"{options.worker}-{seed}.npz"
        np.savez(file, embedded=embedded, centres=centres)
    return row


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def centres_of(model, batches):
    """The mean embedding of each training character: `(characters, 128)`."""
    embedded = model.predict(batches.x, batch_size=256, verbose=0)
    return np.stack([embedded[batches.labels == label].mean(axis=0) for label in np.unique(batches.labels)])


def measured(embedded, centres, held, protocol):
    """Accuracy on pairs and trials, and on pairs by scores relative to the nearest of the training characters."""
    plain, relative = verified(embedded, protocol), verified(embedded, protocol, centres)
    return {
        **plain,
        **{f"{name}, relative": one for name, one in relative.items()},
        **one_shot(embedded, held, protocol),
    }


def rows_used(held, protocol):
    """Rows of the drawings that occur in the pairs and trials."""
    rows = [protocol[name] for name in protocol if "_pairs_" in name or "_run_t" in name]
    return np.unique(np.concatenate([np.ravel(r) for r in (*rows, held["run_train_index"], held["run_test_index"])]))


def embeddings(model, images, copies):
    """Embeddings `(n, 128)`, the means over `copies` views of each drawing; the first view is the drawing itself."""
    views = [images] + [augmenter()(images, np.random.default_rng(view)) for view in range(1, copies)]
    return np.mean([model.predict(view, batch_size=256, verbose=0) for view in views], axis=0)


def verified(embedded, protocol, centres=None):
    """Accuracy on test pairs within and across alphabets, at the threshold that is best on validation pairs.

    With `centres` `(characters, dim)`, a cosine is less the mean of what its two drawings have with their nearest
    centres. This is half of the CSLS of Conneau and others, "Word translation without parallel data", ICLR 2018.
    """
    from keras_siamese import verification

    near = np.zeros(len(embedded))
    if centres is not None:
        rows = np.flatnonzero(np.isfinite(embedded[:, 0]))
        cosines = unit(embedded[rows]) @ unit(centres).T
        near[rows] = -np.partition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS].mean(axis=1)

    def scores(pairs):
        left, right = np.transpose(pairs)
        return np.sum(unit(embedded[left]) * unit(embedded[right]), axis=1) - (near[left] + near[right]) / 2

    found = {}
    for kind in ("within", "cross"):
        valid, test = (
            (protocol[f"{part}_same_{kind}"], scores(protocol[f"{part}_pairs_{kind}"])) for part in ("val", "test")
        )
        best, threshold = verification.best_accuracy(*valid)
        found[f"val {kind}"] = float(best)
        found[kind] = float(verification.accuracy_at(*test, threshold))
    return found


def one_shot(embedded, held, protocol):
    """Share of trials in which the nearest drawing is correct, in Lake's runs and the protocol's validation runs."""
    from keras_siamese import verification

    found = {}
    for name, runs, prefix in (("val one-shot", protocol, "val_run"), ("one-shot", held, "run")):
        columns = [runs[f"{prefix}_{key}"] for key in ("train_index", "test_index", "answer")]
        right = [
            verification.recall_at_k(embedded[test], answer, gallery=embedded[train], gallery_labels=np.arange(20))
            for train, test, answer in zip(*columns, strict=True)
        ]
        found[name] = float(np.mean(right))
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
