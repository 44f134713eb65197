"""Runs one search on several processes: KerasTuner's chief chooses the trials, and workers run them.

    python docs/parallel_search.py --workers 2 --directory runs

The script starts itself again as the chief and as each worker. As usual in KerasTuner, three environment variables tell
a process its role and the address of the chief. If several machines share the directory, start the script by hand
instead: once with KERASTUNER_TUNER_ID=chief, and as workers with tuner0, tuner1, … on any of the machines. Set
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT to the address of the chief in all of them.

If a worker fails before the search ends, the script restarts it under the same name, and the chief gives it the same
trial again. The directory holds the state of the search: run the same command again to continue an interrupted search.
"""

import argparse
import os
import socket
import subprocess
import sys
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--oracle", choices=("random", "diagnosis"), default="random")
    parser.add_argument("--directory", default="runs")
    options = parser.parse_args()
    if "KERASTUNER_TUNER_ID" not in os.environ:
        start(options.workers)
    else:
        search(options)


def search(options):
    """Runs in each process: in `tuner.search` the chief serves the trials and the workers train them."""
    import keras
    import keras_tuner
    from sklearn.datasets import load_digits

    import keras_siamese as ks

    x, labels = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")

    def encoder(embedding_dim):
        layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(embedding_dim)]
        return keras.Sequential([keras.Input((64,)), *layers, keras.layers.UnitNormalization()])

    space = ks.tuning.SearchSpace(
        relative_margin=ks.tuning.Range(0.01, 0.7, log=True),
        embedding_dim=[8, 16, 32],
        learning_rate=ks.tuning.Range(1e-6, 1e-1, log=True),
    )
    oracles = {"random": keras_tuner.oracles.RandomSearchOracle, "diagnosis": ks.tuning.DiagnosisOracle}
    tuner = keras_tuner.Tuner(
        oracles[options.oracle](objective=ks.tuning.objective("val_eer"), max_trials=options.trials, seed=1),
        ks.tuning.SiameseHyperModel(encoder, space),
        directory=options.directory,
        project_name="parallel_search",
    )
    tuner.search(x, labels, cv=3, epochs=options.epochs, verbose=0)
    if os.environ["KERASTUNER_TUNER_ID"] == "chief":
        print(ks.tuning.SearchResults.of(tuner), flush=True)


def start(workers):
    """Starts the chief and the workers, restarts workers that fail, and exits with the chief's status."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def process(name):
        where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
        environment = {**os.environ, **where, "KERASTUNER_TUNER_ID": name}
        started = subprocess.Popen([sys.executable, *sys.argv], env=environment)
        print(f"{name} is process {started.pid}", flush=True)
        return started

    chief = process("chief")
    running = {f"tuner{number}": process(f"tuner{number}") for number in range(workers)}
    try:
        while chief.poll() is None:
            for name, worker in running.items():
                if worker.poll() not in (None, 0):  # 0: the chief had no more trials
                    running[name] = process(name)
            time.sleep(0.5)
    finally:
        for one in (chief, *running.values()):
            one.terminate()
            one.wait()
    sys.exit(chief.returncode)


if __name__ == "__main__":
    main()
