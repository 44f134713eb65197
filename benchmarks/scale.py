"""What do large batches, a million identities, frozen encoders and all pairs of files cost?

Section "cached": training steps of an encoder with `NTXentLoss`, as it is and in `ks.layers.Chunked`, which computes
the activations of 128 rows at a time. Each measurement is a fresh process. Memory is the largest resident memory during
`fit`, less that before it; seconds are processor time of the last of three steps (of two for 65,536 rows). The loss
after these steps shows that both train the same.

Section "memory": the same loss with batches of 16 drawings of Omniglot, with and without `ks.layers.CrossBatchMemory`
in the second half of training. Accuracy is that on the characters of the validation alphabets: EER over all pairs, and
how often the nearest drawing is of the same character.

Section "omniglot": 500 steps on the same drawings with `SupConLoss`, in batches of 16, and of 512, whole and in
`ks.layers.Chunked` with 32 rows at a time.

Section "classes": steps of an encoder with `ArcFaceLoss` over a million classes: a `ProxyLogits` layer of all, and
`ks.callbacks.PartialFC` with a tenth and a hundredth of them.

Section "frozen": five epochs of a head on a frozen convolutional encoder: the encoder in the model, and
`ks.frozen_embeddings` with an empty folder and with one that holds them.

Section "pairs": all pairs of 30,000 embeddings of 128 numbers in `.npy` files, by `compare_shards` with one and with
two processes, and by `compare_embeddings`, which has them in memory.

Section "devices": `SupConLoss` of 4,096 and 8,192 embeddings that one, two and four processes of PyTorch share
(DistributedDataParallel, one thread each): its value, and each process's seconds of processor time and memory.

Section "cluster": all pairs of 60,000 embeddings on a Dask cluster of two worker processes: undisturbed, and with a
worker that is killed (SIGKILL) after a third of that time.

Section "gallery": a `StoredGallery` of 200,000 and of 10⁷ samples: enrolled samples a second, and milliseconds for each
of 64 searches at once, exactly and through an index of each kind, whose recall is stated; the smaller one beside a
`Gallery` in memory with faiss.

    KERAS_SIAMESE_DATA=DIR python benchmarks/scale.py                # everything, hours on two cores
    python benchmarks/scale.py --sections cached --backends torch --batches 1024,4096   # a part; it replaces this part
    python benchmarks/scale.py --toy                                 # one small batch, and noise; nothing written

DIR contains `omniglot_35.npz` and `omniglot_koch_protocol.npz`.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import measure
import numpy as np
import omniglot

SIDE, CHUNK, STEPS, LARGE = 28, 128, 3, 65_536
SLOW = ("jax", "convolution"), 1024  # XLA computes gradients of convolutions in loops slowly on CPUs
IDENTITIES, DRAWINGS, REMEMBERED = 8, 2, 1024
CLASSES, SAMPLES = 1_000_000, {"a hundredth": 0.01, "a tenth": 0.1, "all": 0.0}
IN_MEMORY = 2_000_000  # more samples are searched on disk only, and without a graph, which takes hours to build
KINDS = {"HnswSq": "graph", "IvfSq": "cells"}
WAYS = {"batch alone": None, "memory": {}, "memory, momentum": {"momentum": 0.99}}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--batches", default="1024,4096,16384,65536", help="comma-separated batch sizes")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="comma-separated")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated")
    parser.add_argument("--enrolled", default="200000,10000000", help="comma-separated sizes, of the section gallery")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated, of the section memory")
    parser.add_argument("--steps", type=int, default=8000, help="of training, in the section memory")
    parser.add_argument("--toy", action="store_true", help="one small batch, and noise; nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def dense():
    from keras import layers

    return [layers.Flatten(), *(layers.Dense(1024, activation="relu") for _ in range(6))]


def convolution():
    from keras import layers

    filters = (32, 64, 64)
    return [*(layers.Conv2D(one, 3, strides=2, activation="relu") for one in filters), layers.Flatten()]


ENCODERS = {"dense": dense, "convolution": convolution}


def main():
    options = arguments()
    if options.worker:
        section, *numbers = options.worker.split(";")
        print(json.dumps(WORKERS[section](options, *numbers)))
        return
    if options.toy:
        options.batches, options.encoders, options.seeds, options.steps = "300", "dense", "0", 10
    rows = []
    for backend in options.backends.split(","):
        for section in options.sections.split(","):
            for key, workers in SECTIONS[section](backend, options):
                row = {"section": section, "backend": backend, **key}
                row |= {name: alone(f"{section};{worker}", backend) for name, worker in workers.items()}
                rows.append(row)
                print(describe(row), flush=True)
    if not options.toy:
        earlier, new = measure.read("scale").get("rows", []), {key_of(row) for row in rows}
        rows = [row for row in earlier if key_of(row) not in new] + rows
        about = measure.surroundings("tensorflow", "jax", "torch")
        command = "KERAS_SIAMESE_DATA=… python benchmarks/scale.py"
        print(measure.write("scale", {"surroundings": about, "command": command, "rows": rows}))


def key_of(row):
    return tuple(sorted((name, value) for name, value in row.items() if not isinstance(value, dict)))


def cached(backend, options):
    """The rows of the section and, for each, its measurements: what a worker is told, by name."""
    for encoder in options.encoders.split(","):
        for batch in map(int, options.batches.split(",")):
            if (backend, encoder) != SLOW[0] or batch <= SLOW[1]:
                workers = {name: f"{batch};{encoder};{chunk}" for name, chunk in (("plain", 0), ("chunked", CHUNK))}
                yield {"encoder": encoder, "batch": batch}, workers


def memory(backend, options):
    for seed in map(int, options.seeds.split(",")):
        yield {"seed": seed, "steps": options.steps}, {way: f"{seed};{options.steps};{way}" for way in WAYS}


def omniglot_in_chunks(backend, options):
    large = 32 if options.toy else 512
    ways = {"batches of 16": (16, 0), "plain": (large, 0), "chunked": (large, large // 16)}
    for seed in map(int, options.seeds.split(",")):
        yield {"seed": seed}, {way: f"{seed};{rows};{chunk}" for way, (rows, chunk) in ways.items()}


def alone(worker, backend):
    """What a fresh process measures; {"failed": its exit status} if it ends, as when the memory is used up."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = {**os.environ, **hidden, "KERAS_BACKEND": backend}
    command = [sys.executable, __file__, *(["--toy"] if "--toy" in sys.argv else []), "--worker", worker]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return {"failed": run.returncode} if run.returncode else json.loads(run.stdout.splitlines()[-1])


def classes(backend, options):
    count = 20_000 if options.toy else CLASSES
    yield {"classes": count}, {way: f"{count};{share}" for way, share in SAMPLES.items()}


def frozen(backend, options):
    yield {"samples": 300 if options.toy else 5000}, {"frozen": "300" if options.toy else "5000"}


def pairs(backend, options):
    if backend == options.backends.split(",")[0]:  # runs in NumPy
        count = 3000 if options.toy else 30_000
        yield {"embeddings": count}, {"pairs": f"{count}"}


def devices(backend, options):
    if backend == "torch":
        for batch in (256,) if options.toy else (4096, 8192):
            yield {"rows": batch}, {str(count): f"{batch};{count}" for count in ((1, 2) if options.toy else (1, 2, 4))}


def cluster(backend, options):
    if backend == options.backends.split(",")[0]:  # runs in NumPy
        count = 3000 if options.toy else 60_000
        yield {"embeddings": count}, {"cluster": f"{count}"}


def gallery(backend, options):
    if backend == options.backends.split(",")[0]:  # LanceDB and faiss search, on any backend
        for count in [3000] if options.toy else map(int, options.enrolled.split(",")):
            yield {"enrolled": count}, {"gallery": f"{count}"}


def step(options, batch, encoder, chunk):
    """Memory in bytes of training steps, processor time of the last one in seconds, and the loss after them."""
    import keras

    import keras_siamese as ks

    batch, chunk = int(batch), int(chunk)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(batch, SIDE, SIDE, 1)).astype("float32"), np.arange(batch) // 4
    keras.utils.set_random_seed(0)
    layers = [*ENCODERS[encoder](), keras.layers.Dense(64), keras.layers.UnitNormalization()]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *layers])
    if chunk:
        model = ks.layers.Chunked(model, rows=chunk)
    model.compile(keras.optimizers.SGD(0.1), ks.losses.NTXentLoss(block_size=CHUNK))
    starts, found, steps = [], {}, STEPS if batch < LARGE else 2
    began = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: starts.append(time.process_time()))

    def fit():
        options = {"batch_size": batch, "epochs": steps, "shuffle": False, "verbose": 0, "callbacks": [began]}
        found["loss"] = model.fit(x, labels, **options).history["loss"][-1]

    found["memory"] = measure.peak_memory(fit)
    return {**found, "seconds": time.process_time() - starts[-1]}


class Drawn:
    """Batches of random samples of random classes."""

    def __init__(self, classes):
        self.classes = classes

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return rng.normal(size=(CHUNK, 128)).astype("float32"), rng.integers(0, self.classes, CHUNK)


def over_classes(options, count, share):
    """Memory and median seconds of steps over `count` classes, of which each step has a share; 0 means one layer."""
    import keras

    import keras_siamese as ks

    count, share, ends = int(count), float(share), []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
    batches, callbacks = Drawn(count), [clock]
    partial = ks.callbacks.PartialFC(batches, count, share) if share else None
    layers = [keras.Input((128,)), keras.layers.Dense(128), ks.layers.ProxyLogits(partial.sample if share else count)]
    model = keras.Sequential(layers)
    model.compile("adam", ks.losses.ArcFaceLoss())

    def fit():
        data = partial.batches() if share else (batches[index] for index in range(len(batches)))
        given = [partial, clock] if share else callbacks
        model.fit(data, steps_per_epoch=len(batches), shuffle=False, verbose=0, callbacks=given)

    found = measure.peak_memory(fit)
    return {"memory": found, "seconds": float(np.median(np.diff(ends)))}


def with_a_head(options, count):
    """Seconds of five epochs of a head: on the encoder, on embeddings that are made first, on those from the disk."""
    import tempfile

    import keras

    import keras_siamese as ks

    count, folder = int(count), tempfile.mkdtemp()
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(count, 35, 35, 1)).astype("float32"), np.arange(count) // 10
    backbone = keras.Sequential([keras.Input((35, 35, 1)), *convolution(), keras.layers.Dense(256)])
    backbone.trainable = False

    def head():
        return keras.Sequential([keras.layers.Dense(64), keras.layers.UnitNormalization()])

    def fitted(encoder, samples):
        siamese = ks.SiameseWrapper(encoder)
        siamese.compile("adam", ks.losses.ContrastiveLoss())
        siamese.fit(ks.data.PairSequence(samples, labels, batch_size=128), epochs=5, verbose=0)

    def by(way):
        start = time.perf_counter()
        if way == "whole":
            fitted(keras.Sequential([keras.Input((35, 35, 1)), backbone, head()]), x)
        else:
            z = ks.frozen_embeddings(backbone, x, folder, verbose=0)
            fitted(keras.Sequential([keras.Input(z.shape[1:]), head()]), z)
        return time.perf_counter() - start

    by("whole")  # compiles what all of them use
    return {way: by(way) for way in ("whole", "first", "again")}


def on_devices(options, batch, count):
    """What `shared_step` measures in the first of `count` processes."""
    import pathlib
    import tempfile

    from torch import multiprocessing

    folder = tempfile.mkdtemp()
    multiprocessing.spawn(shared_step, (int(batch), int(count), folder), nprocs=int(count))
    return json.loads(pathlib.Path(folder, "found.json").read_text())


def shared_step(rank, batch, count, folder):
    """The loss of a batch of which each process has a part; memory and seconds of one process for loss and gradient."""
    import pathlib

    import torch
    from torch import distributed

    import keras_siamese as ks

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/start", rank=rank, world_size=count)
    rng, own = np.random.default_rng(0), slice(rank * batch // count, (rank + 1) * batch // count)
    labels = torch.tensor(np.arange(batch) // 4)[own]
    embeddings = torch.tensor(rng.normal(size=(batch, 128)).astype("float32")[own], requires_grad=True)
    loss, values, seconds = ks.losses.SupConLoss(), [], []

    def step():
        start = time.process_time()
        value = loss(labels, embeddings)
        value.backward()
        seconds.append(time.process_time() - start)
        values.append(value.detach())

    step()
    memory = measure.peak_memory(step)
    for _ in range(3):
        step()
    distributed.all_reduce(values[0])
    if rank == 0:
        found = {"loss": float(values[0]) / count, "memory": memory, "seconds": float(np.median(seconds[1:]))}
        pathlib.Path(folder, "found.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def in_files(count):
    """Embeddings of ten samples of each identity, `(count, 128)`, their labels, and four files with the embeddings."""
    import tempfile

    folder, rng = tempfile.mkdtemp(), np.random.default_rng(0)
    labels = np.arange(count) // 10
    embeddings = (rng.normal(size=(labels[-1] + 1, 128))[labels] + rng.normal(size=(count, 128))).astype("float32")
    files = [f"{folder}/{number}.npy" for number in range(4)]
    for file, part in zip(files, np.array_split(embeddings, 4), strict=True):
        np.save(file, part)
    return embeddings, labels, files


def of_files(options, count):
    """Pairs a second by one process, by two, and of embeddings in memory; bytes that the workers read."""
    import joblib

    from keras_siamese import verification

    count = int(count)
    embeddings, labels, files = in_files(count)

    def spread(jobs):
        with joblib.parallel_backend("loky", n_jobs=jobs):
            return verification.compare_shards(files, labels, progress=False)

    def whole():
        return verification.compare_embeddings(embeddings, labels)

    sides = {"whole": whole, "one": lambda: spread(1), "two": lambda: spread(2)}
    eers = {name: run().eer() for name, run in sides.items()}
    assert max(eers.values()) - min(eers.values()) < 1e-4, eers
    seconds = measure.alternate(sides, rounds=1 if options.toy else 5, warm=tuple(sides))
    total = count * (count - 1) // 2
    return {**{name: total / taken for name, taken in seconds.items()}, "eer": eers["one"]}


def on_a_cluster(options, count):
    """Seconds of all pairs on two workers, undisturbed and with one killed, and whether the counts are equal."""
    import importlib
    import signal
    import threading

    import distributed
    import joblib

    from keras_siamese import verification

    _, labels, files = in_files(int(count))
    rows = 500 if options.toy else None

    def compared(killed_after=None):
        """Seconds, and the counts."""
        workers = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with workers, distributed.Client(workers) as client, joblib.parallel_config("dask"):
            client.run(importlib.import_module, "keras_siamese")  # which takes seconds
            first = next(iter(client.run(os.getpid).values()))
            if killed_after is not None:
                threading.Timer(killed_after, os.kill, (first, signal.SIGKILL)).start()
            start = time.perf_counter()
            found = verification.compare_shards(files, labels, rows=rows, progress=False)
            seconds = time.perf_counter() - start
            gone = first not in client.run(os.getpid).values()
        assert gone == (killed_after is not None)
        return seconds, found

    undisturbed, expected = compared()
    killed, found = compared(undisturbed / 3)
    equal = all(np.array_equal(array, expected._state()[name]) for name, array in found._state().items())
    return {"undisturbed": undisturbed, "killed": killed, "equal": equal, "pairs": found.genuines + found.impostors}


def searched(options, count):
    """Samples enrolled a second, milliseconds a search without and with each index, its seconds and recall, bytes."""
    import pathlib
    import tempfile

    import keras

    import keras_siamese as ks

    count, people, folder = int(count), int(count) // 2, tempfile.mkdtemp()
    rng = np.random.default_rng(0)
    encoder = keras.Sequential([keras.Input((128,)), keras.layers.UnitNormalization()])

    def samples(labels):
        """Around a centre of each person, which its number gives; people are in groups, as in real embeddings."""
        groups = np.random.default_rng(1).normal(size=(1000, 128)).astype("float32")
        own = np.stack([np.random.default_rng(label).normal(size=128) for label in labels]).astype("float32")
        return groups[labels % 1000] + own + 0.5 * rng.normal(size=own.shape).astype("float32")

    calibrated = rng.integers(0, people, 100).repeat(4)
    verifier = ks.Verifier.calibrate(ks.SiameseWrapper(encoder, "cosine"), samples(calibrated), calibrated)
    stored, step = ks.StoredGallery(folder, verifier), min(count, 50_000)
    parts, enrolling = [], 0.0
    for first in range(0, count, step):
        labels = np.arange(first, first + step) // 2
        x = samples(labels)
        start = time.perf_counter()
        stored.enroll(x, labels)
        enrolling += time.perf_counter() - start
        if count <= IN_MEMORY:
            parts.append(x)
    wanted = rng.integers(0, people, 64)
    probes, found = samples(wanted), {}

    def milliseconds(gallery):
        seconds = measure.alternate({"search": lambda: verifier.identify(probes, gallery, k=10)}, 3, warm=("search",))
        return 1000 * seconds["search"] / len(probes)

    found["exact"] = milliseconds(stored)
    if count <= IN_MEMORY:
        found["faiss"] = milliseconds(verifier.enroll(np.concatenate(parts), np.arange(count) // 2, index="faiss"))
    size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())
    for kind, name in KINDS.items():
        if kind != "HnswSq" or count <= IN_MEMORY:
            start = time.perf_counter()
            stored.build_index(kind)
            found[f"building {name}"] = time.perf_counter() - start
            found[name] = milliseconds(stored)
            found[f"recall {name}"] = stored.recall(probes, k=10)
    right = float((verifier.identify(probes, stored).labels[:, 0] == wanted).mean())
    return {"rate": count / enrolling, **found, "bytes": size, "right": right}


def trained(options, seed, steps, way):
    """Accuracy on other characters after training with small batches, and the seconds of training."""
    import keras

    import keras_siamese as ks

    seed, steps = int(seed), int(steps)
    (x, labels), validation = characters(options)
    halves = [
        ks.data.BalancedBatchSequence(
            x, labels, classes_per_batch=IDENTITIES, samples_per_class=DRAWINGS, batches_per_epoch=steps // 2, seed=part
        )
        for part in (2 * seed, 2 * seed + 1)
    ]
    encoder = of_characters(seed)
    size = 32 if options.toy else REMEMBERED
    model = encoder if WAYS[way] is None else ks.layers.CrossBatchMemory(encoder, size, **WAYS[way])
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps))
    start = time.perf_counter()
    for one, batches in zip((encoder, model), halves, strict=True):
        one.compile(optimizer, ks.losses.SupConLoss())
        one.fit(batches, verbose=0)
    return {**accuracy(encoder, *validation), "seconds": time.perf_counter() - start}


def characters(options):
    """Drawings of Omniglot and their characters: those of the training alphabets, and those of validation."""
    held, protocol = omniglot.drawings(options)
    parts = [
        np.isin(held["alphabet"], protocol[f"{name}_alphabets"]) & np.isin(held["drawer"], protocol[f"{name}_drawers"])
        for name in ("train", "val")
    ]
    return [(held["images"][part], held["class_id"][part]) for part in parts]


def of_characters(seed):
    """An encoder of drawings."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = [keras.Input((35, 35, 1)), keras.layers.Rescaling(1 / 252), *convolution()]
    return keras.Sequential([*layers, keras.layers.Dense(64), keras.layers.UnitNormalization()])


def accuracy(encoder, valid, codes):
    """EER over all pairs, and how often the nearest drawing is of the same character."""
    import keras_siamese as ks

    embeddings = encoder.predict(valid, batch_size=256, verbose=0)
    eer = ks.verification.compare_embeddings(embeddings, codes).eer()
    return {"eer": float(eer), "nearest": float(ks.verification.recall_at_k(embeddings, codes, k=1))}


def of_large_batches(options, seed, rows, chunk):
    """Accuracy after training with large batches, whole or in chunks, the memory in bytes and processor time."""
    import keras

    import keras_siamese as ks

    seed, rows, chunk = int(seed), int(rows), int(chunk)
    (x, labels), validation = characters(options)
    sizes = {"classes_per_batch": rows // DRAWINGS, "samples_per_class": DRAWINGS}
    batches = ks.data.BalancedBatchSequence(x, labels, **sizes, batches_per_epoch=10 if options.toy else 500, seed=seed)
    encoder = of_characters(seed)
    model = ks.layers.Chunked(encoder, rows=chunk) if chunk else encoder
    model.compile(keras.optimizers.Adam(1e-3), ks.losses.SupConLoss())
    start = time.process_time()
    memory = measure.peak_memory(lambda: model.fit(batches, verbose=0))
    return {**accuracy(encoder, *validation), "memory": memory, "seconds": time.process_time() - start}


SECTIONS = {
    "cached": cached,
    "memory": memory,
    "omniglot": omniglot_in_chunks,
    "classes": classes,
    "frozen": frozen,
    "pairs": pairs,
    "devices": devices,
    "cluster": cluster,
    "gallery": gallery,
}
WORKERS = {"cached": step, "memory": trained, "classes": over_classes, "frozen": with_a_head, "pairs": of_files}
WORKERS |= {"omniglot": of_large_batches, "devices": on_devices, "cluster": on_a_cluster, "gallery": searched}


def describe(row):
    told = []
    for name, one in row.items():
        if isinstance(one, dict):
            told.append(f"{name} {', '.join(map(figure, one.items()))}")
    key = ", ".join(f"{name} {value}" for name, value in row.items() if not isinstance(value, dict))
    return f"{key}: {'; '.join(told)}"


def figure(item):
    name, value = item
    if name == "memory" and value is not None:
        return f"{value / 2**30:.2f} GiB"
    return f"{value:.2f} s" if name == "seconds" else f"{name} {value}"


if __name__ == "__main__":
    main()
