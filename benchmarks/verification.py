"""How long do many scores, all pairs of many embeddings, a long file and a large gallery take?

- Scores: one call each for EER, AUC, TAR at two rates and the ROC curve, and the streamed `ScoreHistogram` with all
  figures. They are compared with scikit-learn's `roc_curve`, as it is by default and with all points, as `roc` has
  them, and with one sort of the scores, which every exact answer needs.
- Pairs: `compare_embeddings` over all pairs, compared with the matrix products of the same blocks, alone and with
  `numpy.histogram`, which runs up to 20,000 embeddings.
- File: `read_scores` of a CSV file with identities, with pyarrow and without, compared with `pandas.read_csv`, which
  does not check the lines; `evaluate` of the same data, including intervals; and the processor time of the command
  `keras-siamese evaluate`, beside a process that only imports Keras.
- Long files: the command on CSV and Parquet files of up to 10⁸ pairs without identities, in seconds and in memory.
- Gallery: the ten best matches with `Verifier.identify`, by blocks and by faiss, compared with faiss's own exact
  search.

    python benchmarks/verification.py                        # ten minutes, 4 GB of memory, 4 GB of files
    python benchmarks/verification.py --scores 1000000       # a part
    python benchmarks/verification.py --toy                  # seconds; writes nothing
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import measure

DIM, PER_IDENTITY, BLOCK = 128, 10, 1024
ALL_SIDES = 20_000  # embeddings; up to this number all sides of all pairs run
FAR = (0.01, 0.001)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="any installed backend: nothing here runs on it")
    parser.add_argument("--scores", default="1000000,10000000,100000000", help="comma-separated numbers of scores")
    parser.add_argument("--embeddings", default="20000,100000", help="comma-separated numbers of embeddings")
    parser.add_argument("--rows", type=int, default=1_000_000, help="lines of the file")
    parser.add_argument("--long", default="10000000,100000000", help="comma-separated numbers of lines of long files")
    parser.add_argument("--gallery", type=int, default=100_000, help="samples enrolled, for 1,000 probes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="few scores, one round, nothing written")
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.scores, options.embeddings, options.rounds, options.rows, options.gallery = "10000", "300", 1, 2000, 500
        options.long = "3000"
    os.environ["KERAS_BACKEND"] = options.backends
    found = {"scores": [], "pairs": []}
    for number in map(int, options.scores.split(",")):
        found["scores"].append(of_scores(number, options.rounds))
        show(options, f"{number:,} scores", found["scores"][-1])
    for number in map(int, options.embeddings.split(",")):
        found["pairs"].append(of_pairs(number, options.rounds))
        show(options, f"{number:,} embeddings", found["pairs"][-1])
    found["file"] = of_file(options.rows, options.rounds)
    show(options, f"{options.rows:,} lines", found["file"])
    found["long files"] = []
    for number in map(int, options.long.split(",")):
        for kind in ("csv", "parquet"):
            found["long files"].append(of_long_file(number, kind))
            show(options, f"{number:,} lines of {kind}", found["long files"][-1])
    found["gallery"] = of_gallery(options.gallery, options.rounds)
    show(options, f"a gallery of {options.gallery:,}", found["gallery"])
    if not options.toy:
        about = measure.surroundings("scikit-learn", "pandas", "pyarrow", "faiss-cpu")
        command = " ".join(["python benchmarks/verification.py", *sys.argv[1:]])
        print(measure.write("verification", {"surroundings": about, "command": command, **found}))


def show(options, what, row):
    seconds = ", ".join(f"{name} {value:.3f} s" for name, value in row["seconds"].items())
    print(f"{options.backends}: {what}: {seconds}", flush=True)


def of_scores(number, rounds):
    import numpy as np
    from sklearn.metrics import roc_curve

    from keras_siamese import verification

    rng = np.random.default_rng(0)
    same = rng.random(number) < 0.1
    scores = rng.standard_normal(number, dtype="float32")
    scores[same] += 2

    def histogram():
        streamed = verification.ScoreHistogram(-10, 12)
        streamed.add(same, scores)
        return streamed.eer(), streamed.auc(), [streamed.tar_at_far(far) for far in FAR]

    sides = {
        "histogram, all figures": histogram,
        "eer": lambda: verification.eer(same, scores),
        "auc": lambda: verification.auc(same, scores),
        "tar_at_far": lambda: verification.tar_at_far(same, scores, FAR),
        "roc": lambda: verification.roc(same, scores),
        "sort": lambda: np.sort(scores),
        "roc_curve": lambda: roc_curve(same, scores),
        "roc_curve, all points": lambda: roc_curve(same, scores, drop_intermediate=False),
    }
    if number > 2e7:  # the exact functions and scikit-learn would need tens of gigabytes
        sides = {name: sides[name] for name in ("histogram, all figures", "sort")}
    return {"number": number, "seconds": measure.alternate(sides, rounds, budget=15.0)}


def of_pairs(number, rounds):
    import numpy as np

    from keras_siamese import verification

    rng = np.random.default_rng(0)
    labels = np.arange(number) // PER_IDENTITY
    embeddings = rng.standard_normal((labels[-1] + 1, DIM), dtype="float32")[labels]
    embeddings += rng.standard_normal((number, DIM), dtype="float32")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)

    def products(count):
        starts = range(0, number, BLOCK)
        for place, row in enumerate(starts):
            for column in starts[place:]:
                block = embeddings[row : row + BLOCK] @ embeddings[column : column + BLOCK].T
                if count:
                    np.histogram(block, 65_536, (-1, 1))

    sides = {
        "compare_embeddings": lambda: verification.compare_embeddings(embeddings, labels),
        "products and histograms": lambda: products(True),
        "products": lambda: products(False),
    }
    if number > ALL_SIDES:
        sides, rounds = {name: sides[name] for name in ("compare_embeddings", "products")}, 1
    seconds = measure.alternate(sides, rounds, budget=30.0)
    memory = measure.peak_memory(sides["compare_embeddings"])
    return {"number": number, "seconds": seconds, "memory": memory}


def of_file(number, rounds):
    import numpy as np
    import pandas

    from keras_siamese import verification

    rng = np.random.default_rng(0)
    left, right = rng.integers(number // 100, size=(2, number))
    right = np.where(rng.random(number) < 0.1, left, right)
    scores = rng.standard_normal(number) + 2 * (left == right)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        table = {"score": scores, "same": (left == right).astype(int), "left": left, "right": right}
        pandas.DataFrame(table).to_csv(path, index=False)
        sides = {
            "read_scores": lambda: verification.read_scores(path),
            "without pyarrow": lambda: read_without_pyarrow(path),
            "pandas": lambda: pandas.read_csv(path),
        }
        seconds = measure.alternate(sides, rounds, budget=15.0)
        held = verification.read_scores(path)
        sides = {"evaluate": lambda: verification.evaluate(held.same, held.scores, left=held.left, right=held.right)}
        seconds |= measure.alternate(sides, rounds)
        sides = {"the command, processor": f"from keras_siamese.cli import main; main(['evaluate', {str(path)!r}])"}
        sides["import keras, processor"] = "import keras"
        taken = [{name: processor_seconds(run(code)) for name, code in sides.items()} for _ in range(rounds)]
        seconds |= {name: statistics.median(one[name] for one in taken) for name in sides}
    return {"number": number, "seconds": seconds}


def read_without_pyarrow(path):
    from keras_siamese import verification
    from keras_siamese.verification import arrow

    with mock.patch.object(arrow, "csv_table", lambda *arguments: None):
        return verification.read_scores(path)


def of_long_file(number, kind, block=1_000_000):
    """The row of a file of `number` pairs without identities: size, and what the command takes."""
    import numpy as np
    import pyarrow
    from pyarrow import csv, parquet

    rng = np.random.default_rng(0)
    schema = pyarrow.schema([("score", pyarrow.float32()), ("same", pyarrow.int8())])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scores.{kind}"
        with csv.CSVWriter(path, schema) if kind == "csv" else parquet.ParquetWriter(path, schema) as writer:
            for start in range(0, number, block):
                same = rng.random(min(block, number - start)) < 0.1
                scores = rng.standard_normal(len(same), dtype="float32") + 2 * same.astype("float32")
                writer.write_table(pyarrow.table({"score": scores, "same": same.astype("int8")}, schema))
        used, seconds = run(f"from keras_siamese.cli import main; main(['evaluate', {str(path)!r}])")
        size = path.stat().st_size
    return {
        "number": number,
        "kind": kind,
        "size": size,
        "seconds": {"the command": seconds, "of processor": processor_seconds((used, seconds))},
        "memory": used.ru_maxrss * 1024,
    }


def run(code):
    """What a fresh Python process with this package used, and its seconds."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, code)
    return used, time.perf_counter() - start


def processor_seconds(ran):
    """Processor seconds of what `run` returned, so that other work on the machine counts less."""
    used, _ = ran
    return used.ru_utime + used.ru_stime


def of_gallery(number, rounds, probes=1000, k=10):
    import faiss
    import keras
    import numpy as np

    import keras_siamese as ks

    rng = np.random.default_rng(0)
    enrolled = rng.standard_normal((number, DIM), dtype="float32")
    asked = enrolled[rng.integers(number, size=probes)] + rng.standard_normal((probes, DIM), dtype="float32")
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.UnitNormalization()])
    verifier = ks.Verifier(ks.SiameseWrapper(encoder, distance="cosine"), threshold=-0.5)
    blocks, quick = verifier.enroll(enrolled), verifier.enroll(enrolled, index="faiss")
    bare = faiss.IndexFlatIP(DIM)
    bare.add(blocks.embeddings)
    embeddings = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    sides = {
        "identify": lambda: verifier.identify(asked, blocks, k),
        'identify, index="faiss"': lambda: verifier.identify(asked, quick, k),
        "faiss alone": lambda: bare.search(embeddings, k),
    }
    return {"number": number, "probes": probes, "seconds": measure.alternate(sides, rounds, budget=30.0)}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
