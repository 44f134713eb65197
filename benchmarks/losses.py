"""How much time and memory do the batch losses need, forward and backward, compared with other libraries?

Measures this package on each backend, pytorch-metric-learning on PyTorch, tensorflow-addons on TensorFlow, and, as a
lower limit (the floor), one matrix product with an exponential over the (batch, batch) matrix. The embeddings have 128
dimensions, and each identity has 8 rows.

    python benchmarks/losses.py                                   # everything, about an hour on two cores
    python benchmarks/losses.py --backends torch --batches 256    # a part; it replaces this part of the results
    python benchmarks/losses.py --resident --batches 16384 --backends torch   # memory of each loss in blocks of rows
    python benchmarks/losses.py --toy                             # seconds; writes nothing

Each backend runs in its own process, in turns with the other libraries: pytorch-metric-learning in the processes of
PyTorch and JAX, tensorflow-addons in that of TensorFlow.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import measure

DIM, PER_IDENTITY = 128, 8
BLOCK_SIZE = 512  # with --resident
PEER_LIMIT = 90  # seconds for one run of another library, including the warm-up

# Options of the class here; class, options and miner (or None) of pytorch-metric-learning.
CASES = {
    "BatchContrastiveLoss": ({}, ("ContrastiveLoss", {}, None)),
    "BatchTripletLoss": ({}, ("TripletMarginLoss", {"margin": 0.2}, None)),
    "BatchTripletLoss, soft": ({"soft": True}, ("TripletMarginLoss", {"margin": 0.2, "smooth_loss": True}, None)),
    "BatchTripletLoss, hard/semi_hard": (
        {"positives": "hard", "negatives": "semi_hard"},
        (
            "TripletMarginLoss",
            {"margin": 0.2},
            ("BatchEasyHardMiner", {"pos_strategy": "hard", "neg_strategy": "semihard"}),
        ),
    ),
    "BatchTripletLoss, all/semi_hard": (
        {"negatives": "semi_hard"},
        ("TripletMarginLoss", {"margin": 0.2}, ("TripletMarginMiner", {"margin": 0.2, "type_of_triplets": "semihard"})),
    ),
    "BatchTripletLoss, all/distance_weighted": (
        {"negatives": "distance_weighted"},
        ("TripletMarginLoss", {"margin": 0.2}, ("DistanceWeightedMiner", {})),
    ),
    "TripletSemiHardLoss": ({}, None),
    "TripletHardLoss": ({}, None),
    "PNLoss": ({}, None),
    "LiftedStructLoss": ({}, ("LiftedStructureLoss", {}, None)),
    "GeneralizedLiftedLoss": ({}, ("GeneralizedLiftedStructureLoss", {}, None)),
    "MultiSimilarityLoss": ({}, ("MultiSimilarityLoss", {}, None)),
    "MultiSimilarityLoss, mined": (
        {"epsilon": 0.1},
        ("MultiSimilarityLoss", {}, ("MultiSimilarityMiner", {"epsilon": 0.1})),
    ),
    "CircleLoss": ({}, ("CircleLoss", {}, None)),
    "NTXentLoss": ({}, ("NTXentLoss", {}, None)),
    "SupConLoss": ({}, ("SupConLoss", {}, None)),
    "NCALoss": ({}, ("NCALoss", {}, None)),
    "SoftNearestNeighborLoss": ({}, None),
    "TupletMarginLoss": ({}, ("TupletMarginLoss", {}, None)),
    "AngularLoss": ({}, ("AngularLoss", {}, None)),
    "IntraPairVarianceLoss": ({}, ("IntraPairVarianceLoss", {}, None)),
    "FastAPLoss": ({}, ("FastAPLoss", {}, None)),
    "SmoothAPLoss": ({}, ("SmoothAPLoss", {}, None)),
    "HistogramLoss": ({}, ("HistogramLoss", {}, None)),
    "SNRContrastiveLoss": ({}, ("SignalToNoiseRatioContrastiveLoss", {}, None)),
    "BatchMarginLoss": ({}, ("MarginLoss", {}, None)),
    "RankedListLoss": (
        {"margin": 0.4, "negative_temperature": 10.0},
        ("RankedListLoss", {"margin": 0.4, "Tn": 10.0}, None),
    ),
    "ThresholdConsistentMarginLoss": ({}, ("ThresholdConsistentMarginLoss", {}, None)),
    "MultipleNegativesRankingLoss": ({}, None),
    "VICRegLoss": ({}, None),
    "BarlowTwinsLoss": ({}, None),
}
# What a loss computes beyond one matrix product and one elementwise pass (with a sum), the floor.
BEYOND_FLOOR = {
    "BatchContrastiveLoss": "a root and two hinges, each with a sum and a count",
    "BatchTripletLoss": "a value for each triplet: one pass for each positive of an anchor",
    "BatchTripletLoss, hard/semi_hard": "the farthest positive, then the nearest negative beyond it",
    "TripletSemiHardLoss": "a search among the negatives for each positive pair",
    "TripletHardLoss": "a root, the farthest positive and the nearest negative",
    "PNLoss": "three searches in each row",
    "LiftedStructLoss": "a root, a log-sum-exp of each row, and one of two rows for each pair",
    "GeneralizedLiftedLoss": "a root and two log-sum-exps of each row",
    "MultiSimilarityLoss": "two log-sum-exps of each row",
    "MultiSimilarityLoss, mined": "a maximum and a minimum of each row, then two log-sum-exps",
    "CircleLoss": "two log-sum-exps of each row, with a weight for each pair",
    "NTXentLoss": "a log-sum-exp of each row, then a softplus for each positive pair",
    "SupConLoss": "a log-softmax of each row, then a sum over its positives",
    "NCALoss": "a log-softmax of each row, then a log-sum-exp over its positives",
    "SoftNearestNeighborLoss": "a log-softmax of each row, then a log-sum-exp over its positives",
    "TupletMarginLoss": "a log-sum-exp of each row, then a root and a softplus for each positive pair",
    "AngularLoss": "a log-sum-exp over all negatives for each positive pair",
    "IntraPairVarianceLoss": "two means of the batch, then two squared hinges",
    "FastAPLoss": "a histogram of each row: sums over scattered entries",
    "SmoothAPLoss": "a sigmoid of each row's difference from each row of the anchor's identity",
    "HistogramLoss": "two histograms of each row: sums over scattered entries",
    "SNRContrastiveLoss": "a ratio of variances and two hinges, each with a sum and a count",
    "BatchMarginLoss": "a root and two hinges, each with a sum and a count",
    "RankedListLoss": "a root, two hinges and two weighted means, with an exponential",
    "ThresholdConsistentMarginLoss": "two masks that depend on the cosines, each with a sum and a count",
    "MultipleNegativesRankingLoss": "a log-sum-exp of each row",
}
ADDONS = {
    "TripletSemiHardLoss": "TripletSemiHardLoss",
    "TripletHardLoss": "TripletHardLoss",
    "LiftedStructLoss": "LiftedStructLoss",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--batches", default="256,1024,4096", help="comma-separated batch sizes")
    parser.add_argument("--losses", default="", help="comma-separated beginnings of names; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--resident",
        action="store_true",
        help=f"print the largest resident memory of a process that runs a loss once, in blocks of {BLOCK_SIZE} rows",
    )
    parser.add_argument("--toy", action="store_true", help="one small batch, one round, nothing written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.batches, options.rounds = "32", 1
    if options.worker:
        (run_alone if options.resident else work)(options)
        return
    if options.resident:
        print_resident(options)
        return
    found = {}
    for backend in options.backends.split(","):
        found[backend] = []
        for batch in options.batches.split(","):
            for row in rows_of(backend, int(batch), options):
                found[backend].append(row)
                print(describe(backend, row), flush=True)
    if not (options.toy or options.losses):
        about = measure.surroundings("tensorflow", "jax", "torch", "pytorch-metric-learning", "tensorflow-addons")
        name = "losses" if options.device == "cpu" else "losses_gpu"
        earlier = measure.read(name).get("rows", {})
        for backend, rows in earlier.items():
            measured = {row["batch"] for row in found.get(backend, [])}
            found[backend] = [row for row in rows if row["batch"] not in measured] + found.get(backend, [])
        found = {backend: found[backend] for backend in ("torch", "jax", "tensorflow") if backend in found}
        command = f"python benchmarks/losses.py{' --device gpu' if name != 'losses' else ''}"
        print(measure.write(name, {"surroundings": about, "command": command, "rows": found}))


def rows_of(backend, batch, options):
    """Runs a worker and yields its rows.

    If another library ends the process, as TensorFlow does if an allocation fails, a new worker measures this loss
    without that library and continues from there.
    """
    environment = environment_of(backend, options)
    cases = len(chosen_cases(options))
    done, alone = 0, -1
    while done < cases:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", f"{backend},{batch},{done},{alone}"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("{"):
                done += 1
                yield json.loads(line)
        if process.wait() and alone == done:
            sys.exit(f"the worker for {backend}, batch {batch}, ended with {process.returncode}")
        alone = done


def environment_of(backend, options):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return environment | ({"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {})


def print_resident(options):
    """Prints a line for each loss: the largest resident memory of its own process, and the seconds of one run."""
    for backend in options.backends.split(","):
        for batch in options.batches.split(","):
            for place, (name, *_) in enumerate(chosen_cases(options)):
                command = [sys.executable, __file__, *sys.argv[1:], "--worker", f"{backend},{batch},{place}"]
                environment = environment_of(backend, options)
                run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                memory, seconds = map(float, run.stdout.split())
                size = f"{memory / 2**30:6.2f} GiB, {seconds:.1f} s"
                print(f"{backend:10s} {int(batch):5d} rows {name:40s} {size}", flush=True)


def run_alone(options):
    """Runs one loss once, forward and backward; prints the largest resident memory of this process, and the seconds."""
    import keras_siamese as ks

    backend, batch, place = options.worker.split(",")
    name, own, _ = chosen_cases(options)[int(place)]
    kind = getattr(ks.losses, name.split(",")[0])
    blocks = {"block_size": BLOCK_SIZE} if issubclass(kind, ks.losses.BatchLoss) else {}
    side = ours(backend, kind(**own, **blocks), *data(int(batch)))
    start = time.perf_counter()
    side()
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter() - start)


def data(batch):
    """Identities `(batch,)` and embeddings `(batch, DIM)` of unit norm."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(batch) // PER_IDENTITY).astype("int32")
    centres = rng.normal(size=(batch // PER_IDENTITY, DIM))
    embeddings = centres[labels] + rng.normal(size=(batch, DIM))
    return labels, (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype("float32")


def chosen_cases(options):
    wanted = tuple(filter(None, options.losses.split(",")))
    return [(name, *case) for name, case in CASES.items() if not wanted or name.startswith(wanted)]


def describe(backend, row):
    told = [
        f"{name} {peer if isinstance(peer, str) else f'{1e3 * peer:.1f} ms'}" for name, peer in row["peers"].items()
    ]
    if row["memory"] is not None:
        told.insert(0, f"{row['memory'] / 2**20:.0f} MiB")
    times = f"{1e3 * row['seconds']:8.1f} ms, floor {1e3 * row['floor']:.1f} ms"
    return f"{backend:10s} {row['batch']:5d} rows {row['loss']:40s} {times}; {', '.join(told)}"


def work(options):
    """Prints a JSON line for each loss from `first` on, for one backend and batch size.

    The loss at `alone` runs without other libraries.
    """
    import keras_siamese as ks

    backend, *numbers = options.worker.split(",")
    batch, first, alone = map(int, numbers)
    if options.device == "cpu":
        measure.limit_memory(20)
    labels, embeddings = data(batch)
    for place, (name, own, peer) in list(enumerate(chosen_cases(options)))[first:]:
        loss = getattr(ks.losses, name.split(",")[0])(**own)
        sides = {"ours": ours(backend, loss, labels, embeddings), "floor": ours(backend, floor, labels, embeddings)}
        peers = {}
        for title, make in (("PML", lambda peer=peer: pml(*peer)), ("TFA", lambda name=name: tfa(name, backend))):
            # It always runs on PyTorch, so beside JAX it is measured only up to 1,024 rows, to save time.
            wanted_here = backend == "torch" or (backend == "jax" and batch <= 1024)
            if (title == "PML" and peer and wanted_here) or (
                title == "TFA" and name in ADDONS and backend == "tensorflow"
            ):
                if place == alone:
                    peers[title] = "out of memory"
                    continue
                try:
                    run = make()(labels, embeddings, options.device)
                    with measure.time_limit(PEER_LIMIT):
                        run()
                    sides[title] = run
                except (RuntimeError, MemoryError, IndexError, ValueError, measure.TooLong) as error:
                    peers[title] = reason(error)
                except Exception as error:  # ResourceExhaustedError of TensorFlow shares no base class with the others
                    if "ResourceExhausted" not in type(error).__name__:
                        raise
                    peers[title] = "out of memory"
        seconds = measure.alternate(sides, options.rounds, warm=("PML", "TFA"))
        peers.update({title: seconds[title] for title in sides if title not in ("ours", "floor")})
        row = {
            "loss": name,
            "batch": batch,
            "seconds": seconds["ours"],
            "floor": seconds["floor"],
            "peers": peers,
            "memory": memory(backend, options.device, sides["ours"]),
        }
        print(json.dumps(row), flush=True)


def floor(labels, embeddings):
    from keras import ops

    return ops.mean(ops.exp(ops.matmul(embeddings, ops.transpose(embeddings))))


def ours(backend, loss, labels, embeddings):
    """A side that computes `loss` and its gradient, compiled as Keras compiles a training step on this backend."""
    if backend == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(loss, argnums=1))
        placed = jax.device_put((labels, embeddings))
        return lambda: jax.block_until_ready(step(*placed))
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function
        def step(labels, embeddings):
            with tf.GradientTape() as tape:
                tape.watch(embeddings)
                value = loss(labels, embeddings)
            return value, tf.convert_to_tensor(tape.gradient(value, embeddings))

        placed = tf.constant(labels), tf.constant(embeddings)
        return lambda: [tensor.numpy() for tensor in step(*placed)]
    return torch_side(loss, labels, embeddings)


def torch_side(loss, labels, embeddings):
    import keras
    import torch

    device = keras.src.backend.torch.core.get_device() if keras.backend.backend() == "torch" else "cpu"
    labels = torch.as_tensor(labels, device=device)

    def run():
        leaf = torch.tensor(embeddings, requires_grad=True, device=device)
        loss(labels, leaf).backward()
        return float(leaf.grad.sum())

    return run


def pml(loss, own, miner):
    """Returns a function that makes sides for a loss and a miner of pytorch-metric-learning, given by name."""
    from pytorch_metric_learning import losses, miners

    loss, miner = getattr(losses, loss)(**own), getattr(miners, miner[0])(**miner[1]) if miner else None

    def make(labels, embeddings, device):
        def both(labels, embeddings):
            return loss(embeddings, labels, miner(embeddings, labels)) if miner else loss(embeddings, labels)

        # SmoothAPLoss needs the rows of an identity next to each other.
        order = labels.argsort(kind="stable")
        return torch_side(both, labels[order].astype("int64"), embeddings[order])

    return make


def tfa(name, backend):
    """Returns a function that makes sides for a loss of tensorflow-addons, given by name."""
    from keras_siamese import addons

    loss = getattr(addons.load().losses, ADDONS[name])()
    return lambda labels, embeddings, device: ours(backend, loss, labels, embeddings)


def reason(error):
    """Returns why another library has no time: the memory that it asked for, or the time limit."""
    asked = next((int(word) for word in str(error).split() if word.isdigit() and int(word) > 2**20), None)
    if asked:
        return f"asks for {asked / 1e9:.0f} GB"
    return str(error) if isinstance(error, measure.TooLong) else f"{type(error).__name__}: {str(error)[:60]}"


def memory(backend, device, run):
    if device == "cpu":
        return measure.peak_memory(run)
    if backend == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    import jax

    run()
    return jax.devices()[0].memory_stats()["peak_bytes_in_use"]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
