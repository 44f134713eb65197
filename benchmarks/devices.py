"""What the package gives on several devices, compared with one device, and the table in `docs/guides/devices.md`.

Each strategy runs in processes of its own, because the number of devices must be set before the backend starts. A
process computes all features and prints them as JSON. A feature is "equal" if its numbers are those of one device of
the same backend, to 1e-5, and "refused" if it raises an error; anything else is a fault.

    python benchmarks/devices.py                          # all strategies and losses; writes the table
    python benchmarks/devices.py --few                    # the same with one loss of each kind
    python benchmarks/devices.py --only mirrored-2        # computes that column again; the others stay as they are
    python benchmarks/devices.py --feature '^embeddings'   # computes that row again
    python benchmarks/devices.py --worker mirrored-2      # the process that computes the features
"""

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from several.features import FEATURES, SIZE

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guides" / "devices.md"
TOLERANCE = 1e-5
# Parts in which rounding may show: how much they may differ, and what the page then says.
NEAR = {
    "facts after training": (
        0.05,
        "Findings, and facts without training steps, agree to 1e-5. Facts after training steps differ by up to",
    ),
    "val_verification_accuracy": (
        1 / 3000,  # of 3,136 pairs
        "All figures but the accuracy agree to 1e-5. The accuracy differs by one pair at the threshold, by",
    ),
}
LIMIT = 1800  # seconds for one process
# On the CPU, XLA runs all devices on one pool of threads. With a thread for each device, two programs that run at once
# can take threads from each other and wait for ever; NPROC is the least number of threads.
FOUR = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0", "NPROC": "16"}
ONE = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
# name: backend, name of the column, processes, environment
STRATEGIES = {
    "tensorflow": ("tensorflow", None, 1, {}),
    "mirrored-2": ("tensorflow", "MirroredStrategy, 2 devices", 1, {}),
    "mirrored-4": ("tensorflow", "MirroredStrategy, 4 devices", 1, {}),
    "multiworker": ("tensorflow", "MultiWorkerMirroredStrategy, 2 processes", 2, {}),
    "jax": ("jax", None, 1, ONE),
    "data-parallel": ("jax", "DataParallel, 4 devices", 1, FOUR),
    "model-parallel": ("jax", "ModelParallel, 2 × 2 devices", 1, FOUR),
    "processes": ("jax", "DataParallel, 2 processes", 2, ONE),
    "torch": ("torch", None, 1, {}),
    "ddp": ("torch", "DistributedDataParallel, 2 processes", 2, {}),
}

ALL_IN = ("tensorflow", "mirrored-2", "jax", "data-parallel", "torch", "ddp")  # the others have one loss of each kind


def prepared(name, rank, address):
    """Sets up the devices of a strategy, and returns the scope in which models are made and trained."""
    if name.startswith("mirrored"):
        import tensorflow as tf

        count = int(name[-1])
        (device,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(device, count * [tf.config.LogicalDeviceConfiguration()])
        return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)]).scope()
    if name == "multiworker":
        import tensorflow as tf

        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    if name == "ddp":
        import torch.distributed

        torch.distributed.init_process_group("gloo", f"tcp://{address}", rank=rank, world_size=2)
        return contextlib.nullcontext()
    if name == "data-parallel":
        import keras

        return keras.distribution.DataParallel().scope()
    if name == "processes":
        import jax

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        import keras

        keras.distribution.initialize(address, num_processes=2, process_id=rank)  # also seeds both alike
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope()
    if name == "model-parallel":
        import keras

        mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*dense.*kernel"] = (None, "model")
        return keras.distribution.ModelParallel(layout_map=layout).scope()
    return contextlib.nullcontext()


def worker(name, rank, address, wanted, few):
    import numpy as np

    SIZE.few = few or name not in ALL_IN
    warnings.simplefilter("ignore")
    found = {}
    with prepared(name, rank, address):
        for feature, function in FEATURES.items():
            if not re.search(wanted, feature):
                continue
            start = time.time()
            try:
                result = function()
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}"[:2000]}
            found[feature] = result
            print(f"{feature}: {time.time() - start:.1f} s", file=sys.stderr, flush=True)
    print("\n" + json.dumps(found, default=np.ndarray.tolist), flush=True)


def run(name, wanted="", few=False):
    """What each process of a strategy found: a list of `{feature: result}`."""
    backend, _, count, environment = STRATEGIES[name]
    ports = free_ports(count)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    processes = []
    with contextlib.ExitStack() as stack:
        for rank in range(count):
            own = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
            own |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment}
            if name == "multiworker":
                task = {"type": "worker", "index": rank}
                own["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            out = stack.enter_context(tempfile.TemporaryFile("w+"))
            err = stack.enter_context(tempfile.TemporaryFile("w+"))
            command = [sys.executable, __file__, "--worker", name, "--rank", str(rank)]
            command += ["--address", addresses[0], "--feature", wanted, *["--few"] * few]
            processes.append((subprocess.Popen(command, env=own, stdout=out, stderr=err), out, err))
        try:
            results = []
            for process, out, err in processes:
                code = process.wait(timeout=LIMIT)
                out.seek(0)
                err.seek(0)
                if code:
                    raise RuntimeError(f"{name} ended with code {code}:\n{err.read()[-4000:]}")
                results.append(json.loads(out.read().splitlines()[-1]))
            return results
        finally:
            for process, _, _ in processes:
                process.kill()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def apart(one, other):
    """The largest difference between two results; infinite if they have different parts."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return float("inf")
        return max([apart(one[name], other[name]) for name in one], default=0.0)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return float("inf")
        return max(map(apart, one, other), default=0.0)
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return 0.0 if one == other else float("inf")
    if one != one or other != other:
        return 0.0 if one != one and other != other else float("inf")
    return abs(one - other) / max(1.0, abs(one))


def verdict(reference, result):
    """`(word, detail)`: "equal", "near", "refused" or "WRONG".

    "near": only parts in `NEAR` differ, by no more than is given there.
    """
    if "error" in result if isinstance(result, dict) else False:
        return "refused", result["error"]
    distance = apart(reference, result)
    if distance <= TOLERANCE:
        return "equal", f"{distance:.1e}"
    parts = reference if isinstance(reference, dict) and isinstance(result, dict) else {}
    wrong = [part for part in parts if apart(reference[part], result.get(part)) > TOLERANCE]
    if len(wrong) == 1 and wrong[0] in NEAR and distance <= NEAR[wrong[0]][0]:
        return "near", f"{NEAR[wrong[0]][1]} {distance:.1e}"
    return "WRONG", f"{distance:.1e} {', '.join(wrong)}"


def kept(name, arguments):
    """What `run` returns, read from the folder `--keep` if it is there, and written there otherwise."""
    path = None if arguments.keep is None else Path(arguments.keep) / f"{name}.json"
    if path is None or not path.exists():
        start, found = time.time(), run(name, arguments.feature, arguments.few)
        print(f"== {name}: {time.time() - start:.0f} s", flush=True)
        if path is not None:
            path.write_text(json.dumps(found), encoding="utf-8")
        return found
    return json.loads(path.read_text(encoding="utf-8"))


def wanted_of(feature, reference, result):
    """The part of a `reference` that a strategy computes: some losses, or one of the two numbers of devices."""
    if feature not in ("`local_negatives=True`", *(name for name in FEATURES if name.startswith("losses: "))):
        return reference
    return {part: reference[part] for part in result if part in reference}


def verdicts(results, reference):
    """`{feature: (word, detail)}` of a strategy: the worst of its processes."""
    order = ("equal", "near", "refused", "WRONG")
    found = [{name: verdict(wanted_of(name, reference[name], one[name]), one[name]) for name in one} for one in results]
    return {name: max((one[name] for one in found), key=lambda pair: order.index(pair[0])) for name in found[0]}


def table(columns):
    """The table of the page: a row for each feature, a column for each strategy, and what the refusals say."""
    titles = [STRATEGIES[name][1] for name in columns]
    backends = [NAMES[STRATEGIES[name][0]] for name in columns]
    lines = [f"| | {' | '.join(f'{one}: {two}' for one, two in zip(backends, titles, strict=True))} |"]
    lines.append("| --- |" + " --- |" * len(columns))
    notes = []
    for feature in FEATURES:
        cells = []
        for name in columns:
            word, detail = columns[name][feature]
            if word != "equal":
                note = {"refused": first_sentence, "near": str, "WRONG": (WRONG + "{}").format}[word](detail)
                if note not in notes:
                    notes.append(note)
                word = f"{SHOWN[word]} ({notes.index(note) + 1})"
            cells.append(word)
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


WRONG = "The largest difference: "
SHOWN = {"refused": "refused", "near": "equal", "WRONG": "differs"}
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def first_sentence(error):
    """An error for the page, in one line."""
    text = re.sub(r"\s+", " ", error.replace("|", "/")).strip()
    text = re.sub(r"\{\{.*?\}\} ", "", text)
    text = re.sub(r"\(PerReplica:.*", "(PerReplica: …)", text)
    return f"`{text[:200].replace('`', '')}{'…' if len(text) > 200 else ''}`"


def page_columns():
    """`{feature: (word, detail)}` of each strategy that is on the page, as `verdicts` gives it."""
    text = PAGE.read_text(encoding="utf-8").split("<!-- table -->\n")[1]
    notes = {number: note.strip("`") for number, note in re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE)}
    title, _, *rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    places = {cell.strip(): place for place, cell in enumerate(title)}
    found = {}
    for name, (backend, column, *_) in STRATEGIES.items():
        place = places.get(f"{NAMES[backend]}: {column}")
        if place is not None:
            cells = {row[0].strip(): row[place].strip().partition(" ") for row in rows}
            details = {one: notes.get(note.strip("()"), "") for one, (_, _, note) in cells.items()}
            found[name] = {
                one: (word_of(word, details[one]), details[one].removeprefix(WRONG))
                for one, (word, *_) in cells.items()
            }
    return found


def word_of(shown, note):
    """The word of a `verdict` that the table shows so, with this note."""
    return next((word for word, cell in SHOWN.items() if cell == shown and note), "equal")


def write(columns):
    """Puts the table between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, after = page.split("<!-- table -->\n")
    PAGE.write_text("<!-- table -->\n".join([before, f"{table(columns)}\n", after]), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--address")
    parser.add_argument("--feature", default="", help="a regular expression")
    parser.add_argument("--only", nargs="*", choices=STRATEGIES)
    parser.add_argument("--few", action="store_true", help="one loss of each kind")
    parser.add_argument("--keep", help="folder for what processes print; what is there is not computed again")
    parser.add_argument("--toy", action="store_true", help="two features on one device")
    parser.add_argument("--backends", nargs="*", default=["torch"], help="those of --toy")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.rank, arguments.address, arguments.feature, arguments.few)
        return
    if arguments.toy:
        for backend in arguments.backends:
            (found,) = run(backend, "^`predict|^embeddings")
            print(backend, {feature: verdict(result, result) for feature, result in found.items()})
        return
    references, columns = {}, {}
    for name in arguments.only or [name for name, (_, column, *_) in STRATEGIES.items() if column]:
        backend = STRATEGIES[name][0]
        if backend not in references:
            references[backend] = kept(backend, arguments)[0]
        columns[name] = verdicts(kept(name, arguments), references[backend])
        for feature, (word, detail) in columns[name].items():
            print(f"{word:8} {feature}: {detail[:400]}", flush=True)
    found = page_columns()
    found = {name: found.get(name, {}) | columns.get(name, {}) for name in STRATEGIES if STRATEGIES[name][1]}
    if all(FEATURES.keys() <= found[name].keys() for name in found):
        write(found)


if __name__ == "__main__":
    main()
