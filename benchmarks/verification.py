"""How long do EER, AUC and TAR at FAR of many scores take, and all pairs of a set of embeddings?

Scores: one call each for EER, AUC and TAR at two rates, and the streamed `ScoreHistogram` with all of them, against
scikit-learn's `roc_curve` (which gives the curve alone) and one sort of the scores, the least that any exact answer
takes. Pairs: `compare_embeddings` over all pairs against the matrix products and `numpy.histogram` of the same blocks.

    python benchmarks/verification.py                        # a few minutes, 4 GB
    python benchmarks/verification.py --scores 1000000       # a part
    python benchmarks/verification.py --toy                  # seconds; writes nothing
"""

import argparse
import os
import sys
from pathlib import Path

import measure

DIM, PER_IDENTITY, BLOCK = 128, 10, 1024
FAR = (0.01, 0.001)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="torch", help="whatever is installed: nothing here runs on it")
    parser.add_argument("--scores", default="1000000,10000000,100000000", help="comma-separated numbers of scores")
    parser.add_argument("--embeddings", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="few scores, one round, nothing written")
    return parser.parse_args()


def main():
    options = arguments()
    if options.toy:
        options.scores, options.embeddings, options.rounds = "10000", 300, 1
    os.environ["KERAS_BACKEND"] = options.backends
    found = {"scores": [], "pairs": None}
    for number in map(int, options.scores.split(",")):
        row = of_scores(number, options.rounds)
        found["scores"].append(row)
        print(f"{options.backends}: {number:,} scores: {told(row['seconds'])}", flush=True)
    found["pairs"] = of_pairs(options.embeddings, options.rounds)
    print(f"{options.backends}: {options.embeddings:,} embeddings: {told(found['pairs']['seconds'])}", flush=True)
    if not options.toy:
        about = measure.surroundings("scikit-learn")
        command = "python benchmarks/verification.py"
        print(measure.write("verification", {"surroundings": about, "command": command, **found}))


def told(seconds):
    return ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())


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
        "sort": lambda: np.sort(scores),
        "roc_curve": lambda: roc_curve(same, scores),
    }
    if number > 2e7:  # beyond 10⁷ the exact functions and scikit-learn want tens of gigabytes
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
    seconds = measure.alternate(sides, rounds, budget=30.0)
    memory = measure.peak_memory(sides["compare_embeddings"])
    return {"number": number, "seconds": seconds, "memory": memory}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
