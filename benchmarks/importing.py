"""How long does importing keras_siamese take, once Keras is imported?

Each side is a fresh Python process that imports Keras, and then one package. The seconds are the processor time of the
second import, so that other work on the machine counts less. The processes run in turns. The package is compiled to
bytecode first, as pip does with every package that it installs.

    python benchmarks/importing.py                     # a minute or two
    python benchmarks/importing.py --backends jax
    python benchmarks/importing.py --toy               # one round, nothing written
"""

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import measure

PACKAGES = ("keras_siamese", "keras_tuner", "pytorch_metric_learning.losses")
CODE = """
import time
import keras
start = time.process_time()
import {package}
print("seconds", time.process_time() - start)
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--toy", action="store_true", help="one round, nothing written")
    return parser.parse_args()


def main():
    options = arguments()
    compileall.compile_dir(Path(__file__).parent.parent / "keras_siamese", quiet=1)
    found = {}
    for backend in options.backends.split(","):
        taken, keras_alone = {package: [] for package in PACKAGES}, []
        for _ in range(1 if options.toy else options.rounds):
            for package in PACKAGES:
                seconds, whole = import_after_keras(package, backend)
                taken[package].append(seconds)
                keras_alone.append(whole - seconds)
        found[backend] = {package: statistics.median(seconds) for package, seconds in taken.items()}
        found[backend]["the process without it"] = statistics.median(keras_alone)
        print(f"{backend:10s}", ", ".join(f"{name} {1e3 * one:.0f} ms" for name, one in found[backend].items()))
    if not options.toy:
        about = measure.surroundings("tensorflow", "jax", "torch", "keras-tuner", "pytorch-metric-learning")
        print(measure.write("importing", {"surroundings": about, "command": " ".join(sys.argv), "rows": found}))


def import_after_keras(package, backend):
    """Processor seconds of the import, and seconds of the whole process."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", CODE.format(package=package)]
    start = time.perf_counter()
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(out.rsplit("seconds", 1)[1]), time.perf_counter() - start


if __name__ == "__main__":
    main()
