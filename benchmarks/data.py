"""How many batches per second do the sequences give, and how much memory do they need, compared with hand-written code?

In memory: each sequence is compared with a plain gather `x[rows]` of the same rows into the same batches, with
keras.io's `make_pairs`, and with pytorch-metric-learning's MPerClassSampler in a PyTorch DataLoader. From image files,
PNG and JPEG: `PairSequence` over an `ImageFolder` under `fit`, with 1, 2 and 4 workers, is compared with a DataLoader
that decodes the same pairs with as many workers. The training process decodes if Keras has one worker and if DataLoader
has none, so these two are compared. DataLoader's worker processes stay from epoch to epoch.

    python benchmarks/data.py                         # some minutes
    python benchmarks/data.py --toy                   # seconds; writes nothing

The part of an epoch that Keras does runs on one backend, PyTorch by default. The sequences use NumPy on every backend.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import measure

BATCH, PER_IDENTITY = 128, 20
WORKERS = (1, 2, 4)
# Image files: format, channels, the height and width of the file and of the sample, batches in an epoch.
KINDS = {
    "PNG, grey": ("png", 1, 105, 105, 64),
    "JPEG, colour": ("jpg", 3, 112, 112, 32),
    "JPEG, colour, resized": ("jpg", 3, 250, 112, 16),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="the one backend that `fit` runs on")
    parser.add_argument("--samples", type=int, default=40_000, help="of 28 × 28, in memory")
    parser.add_argument("--files", type=int, default=4_000, help="images of each kind")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--toy", action="store_true", help="few samples, one round, nothing written")
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.samples, options.files, options.rounds = 600, 300, 1
    os.environ["KERAS_BACKEND"] = options.backends
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = {"memory": [], "image_files": []}
    for side in (28, 105):
        for row in in_memory(max(600, options.samples // (1 if side == 28 else 10)), side, options.rounds):
            found["memory"].append(row)
            peers = ", ".join(f"{name} {seconds:.4f} s" for name, seconds in row["seconds"].items())
            growth = ", ".join(f"{name} {bytes / 2**20:.1f} MiB" for name, bytes in row["memory"].items())
            print(f"{options.backends}: {row['sequence']} of {side} × {side}: {peers}; {growth}", flush=True)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            row = from_files(Path(folder), kind, options.files, options.rounds, options.toy)
            found["image_files"].append(row)
            rates = (f"{name}: {row['batches'] / seconds:.1f}" for name, seconds in row["seconds"].items())
            print(f"{options.backends}: {kind}, batches/s: {', '.join(rates)}", flush=True)
    if not options.toy:
        about = measure.surroundings("torch", "pytorch-metric-learning", "pillow")
        command = f"python benchmarks/data.py --backends {options.backends}"
        print(measure.write("data", {"surroundings": about, "command": command, **found}))


def in_memory(samples, side, rounds):
    """Yields a row for each sequence: seconds of an epoch, including its table, and growth of memory, by side."""
    import numpy as np

    from keras_siamese import data

    rng = np.random.default_rng(0)
    x = rng.random((samples, side, side, 1), dtype="float32")
    labels = rng.permutation(np.arange(samples) // PER_IDENTITY)
    pairs = data.PairSequence(x, labels, batch_size=BATCH)
    triplets = data.TripletSequence(x, labels, batch_size=BATCH)
    balanced = data.BalancedBatchSequence(x, labels, classes_per_batch=min(32, samples // PER_IDENTITY // 2))
    for sequence, columns, peers in (
        (pairs, pairs.pairs()[:2], {"make_pairs": lambda: make_pairs_epoch(x, labels)}),
        (triplets, triplets.triplets(), {}),
        (balanced, (balanced.rows().ravel(),), {"MPerClassSampler": sampler_side(x, labels, balanced)}),
    ):
        size = BATCH if len(columns) > 1 else balanced.rows().shape[1]
        sides = {"sequence": epochs_of(sequence), "gather": lambda c=columns, s=size: gather(x, c, s), **peers}
        seconds = measure.alternate(sides, rounds)
        memory = {name: measure.peak_memory(run) or 0 for name, run in sides.items()}
        yield {
            "sequence": type(sequence).__name__,
            "side": side,
            "samples": samples,
            "batches": len(sequence),
            "seconds": seconds,
            "memory": memory,
            "data": x.nbytes,
        }


def epochs_of(sequence):
    """A side that makes the batches of the next epoch one after the other and keeps none of them."""
    counter = iter(range(10**9))

    def run():
        epoch = next(counter)
        sequence.set_epoch(epoch)
        for index in range(len(sequence)):
            sequence[index]

    return run


def gather(x, columns, size):
    """The lower limit: takes the rows of each batch from the array, once for each tower, and keeps none of them."""
    for start in range(0, len(columns[0]), size):
        [x[column[start : start + size]] for column in columns]


def make_pairs_epoch(x, labels):
    """Makes an epoch like keras.io's "Image similarity estimation using a Siamese Network with a contrastive loss"."""
    import numpy as np

    num_classes = max(labels) + 1
    digit_indices = [np.where(labels == i)[0] for i in range(num_classes)]
    pairs, same = [], []
    for idx1 in range(len(x)):
        x1, label1 = x[idx1], labels[idx1]
        pairs += [[x1, x[random.choice(digit_indices[label1])]]]
        same += [0]
        label2 = random.randint(0, num_classes - 1)
        while label2 == label1:
            label2 = random.randint(0, num_classes - 1)
        pairs += [[x1, x[random.choice(digit_indices[label2])]]]
        same += [1]
    pairs, same = np.array(pairs), np.array(same).astype("float32")
    left, right = pairs[:, 0], pairs[:, 1]
    # As many pairs as a PairSequence shows in an epoch: half of what make_pairs makes.
    for start in range(0, len(x), BATCH):
        left[start : start + BATCH], right[start : start + BATCH], same[start : start + BATCH]


def sampler_side(x, labels, balanced):
    import torch
    from pytorch_metric_learning.samplers import MPerClassSampler

    size = balanced.rows().shape[1]
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(labels))
    sampler = MPerClassSampler(labels, balanced.samples_per_class, size, len(balanced) * size)
    loader = torch.utils.data.DataLoader(dataset, batch_size=size, sampler=sampler)
    return lambda: sum(1 for _ in loader)


def from_files(folder, kind, files, rounds, toy):
    """The row of a kind of image files: seconds of an epoch of pairs by side, and of finding and checking the files."""
    import keras

    from keras_siamese import data

    _, channels, _, side, batches = KINDS[kind]
    write_images(folder, kind, files)
    batches = 2 if toy else batches
    start = time.perf_counter()
    mode = "grayscale" if channels == 1 else "rgb"
    source = data.ImageFolder(folder, image_size=(side, side), color_mode=mode)
    checked = time.perf_counter() - start
    cached = data.ImageFolder(folder, image_size=(side, side), color_mode=mode, check=False, cache_bytes=2**30)

    class Idle(keras.Model):
        """A model that computes nothing, so that `fit` takes only the time of Keras and of the sequence."""

        def call(self, inputs):
            return inputs[0][:, 0, 0, :1]

        def train_step(self, *state_and_data):
            logs = {"loss": keras.ops.zeros(())}
            return (logs, state_and_data[0]) if keras.backend.backend() == "jax" else logs

    def pairs_of(source, workers):
        options = {"workers": workers, "pairs_per_epoch": batches * BATCH, "batch_size": BATCH}
        return data.PairSequence(source, source.labels, **options)

    def fits(source, workers):
        model = Idle()
        model.compile("sgd", "mse", run_eagerly=True)
        sequence = pairs_of(source, workers)
        return lambda: model.fit(sequence, verbose=0)

    columns = pairs_of(source, 1).pairs()
    sides = {}
    for workers in WORKERS:
        sides[f"{workers}"] = fits(source, workers)
        sides[f"DataLoader, {workers}"] = loader_side(DecodedPairs(source.paths, side, channels, *columns), workers)
    sides["1, cached"] = fits(cached, 1)
    seconds = measure.alternate(sides, max(1, rounds // 3), budget=60.0)
    return {"kind": kind, "batches": batches, "files": files, "checking": checked, "seconds": seconds}


def write_images(folder, kind, files):
    """Writes `files` images of identities in `folder`: strokes as PNG, soft colours as JPEG."""
    import numpy as np
    from PIL import Image

    format, _, size, _, _ = KINDS[kind]
    rng = np.random.default_rng(0)
    for number in range(files):
        identity = folder / f"{number // PER_IDENTITY:04d}"
        identity.mkdir(exist_ok=True)
        if format == "png":
            strokes = np.kron(rng.random((15, 15)) < 0.2, np.ones((size // 15, size // 15)))
            image = Image.fromarray((255 * (1 - strokes)).astype("uint8"))
        else:
            colours = rng.integers(0, 256, (16, 16, 3), dtype="uint8")
            image = Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC)
        image.save(identity / f"{number:05d}.{format}")


class DecodedPairs:
    """A PyTorch dataset that opens both images of a pair, as a project would write it."""

    def __init__(self, paths, side, channels, left, right, same):
        self.paths, self.side, self.mode = paths, side, "L" if channels == 1 else "RGB"
        self.left, self.right, self.same = left, right, same

    def __len__(self):
        return len(self.left)

    def __getitem__(self, index):
        import numpy as np
        from PIL import Image

        towers = []
        for row in (self.left[index], self.right[index]):
            with Image.open(self.paths[row]) as image:
                image = image.convert(self.mode)
                if image.size != (self.side, self.side):
                    image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
                towers.append(np.asarray(image, "float32").reshape(self.side, self.side, -1))
        return *towers, float(self.same[index])


def loader_side(pairs, workers):
    import torch

    processes = 0 if workers == 1 else workers
    loader = torch.utils.data.DataLoader(
        pairs, batch_size=BATCH, num_workers=processes, persistent_workers=processes > 0
    )
    return lambda: sum(1 for _ in loader)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
