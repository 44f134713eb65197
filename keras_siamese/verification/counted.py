"""The evaluation of a file of scores of any length, in bounded memory.

Contract: a CSV or Parquet file in. Up to `LIMIT` pairs are held and evaluated exactly: the `VerificationReport` of
`evaluate`. More pairs are counted in bins while the file is read a second time: a `CountedScores`, whose figures have
error bounds, but no intervals. The command line uses it.

    print(evaluate_file("scores.csv", far=(0.01, 0.001), progress=True))
"""

import math
from typing import NamedTuple

import numpy as np

from keras_siamese._checks import check_number
from keras_siamese.verification.evidence import in_words, of_negatives
from keras_siamese.verification.histogram import ScoreHistogram
from keras_siamese.verification.pairs import progress_bar
from keras_siamese.verification.report import evaluate
from keras_siamese.verification.tables import in_order_of_names, joined, number_of_blocks, opened, read_blocks

LIMIT = 10_000_000  # pairs that are held in memory
TAIL = 1_000_000  # impostor scores that are kept at most


def evaluate_file(path, *, far=(0.01, 0.001), threshold=None, distance=False, groups=None, progress=False, **settings):
    """Evaluates the pairs in a file: a `VerificationReport` of up to ten million pairs, a `CountedScores` of more.

    Args:
        path: the file, as in `read_scores`.
        far: false match rates in (0, 1] at which the TAR is reported.
        threshold: a threshold chosen on other pairs, in units of the file.
        distance: whether the scores are distances, smaller = more similar; the report is about −distance.
        groups: the name of a column, as in `read_scores`; the groups are `pairs["groups"]` of a `VerificationReport`.
        progress: whether to show a Keras progress bar.
        **settings: `confidence` and `seed` of `evaluate`.
    """
    far = [check_number("far", rate, low=0, high=1, open_low=True) for rate in np.ravel(far).tolist()]
    sign = -1.0 if distance else 1.0
    threshold = None if threshold is None else sign * check_number("threshold", threshold)
    with opened(path) as file:
        seen = Seen()
        move_on = progress_bar(number_of_blocks(file), "block", progress)
        for block in read_blocks(file, seen.names, move_on, groups):
            seen.add(block)
        if seen.blocks is None:
            move_on = progress_bar(number_of_blocks(file), "block", progress)
            return count(seen, sign, read_blocks(file, {}, move_on), far, threshold)
    table = seen.table()
    identities = {"left": table.left, "right": table.right}
    report = evaluate(table.same, sign * table.scores, far=far, threshold=threshold, **identities, **settings)
    if distance:
        report.pairs["negated"] = "distance"
    if groups is not None:
        report.pairs["groups"] = np.array(list(seen.names))[table.groups]
    return report


class Seen:
    """What the first reading of a file keeps.

    Attributes:
        pairs, genuines: numbers of pairs.
        lowest, highest: the smallest and the largest score.
        blocks, names: all pairs, and the codes of identities by name; blocks is None if there are too many pairs.
    """

    def __init__(self):
        self.pairs, self.genuines, self.lowest, self.highest = 0, 0, math.inf, -math.inf
        self.blocks, self.names = [], {}

    def add(self, block):
        if not len(block.same):
            return
        self.pairs, self.genuines = self.pairs + len(block.same), self.genuines + int(np.count_nonzero(block.same))
        self.lowest = min(self.lowest, float(block.scores.min()))
        self.highest = max(self.highest, float(block.scores.max()))
        if self.pairs > LIMIT:
            self.blocks = None
            self.names.clear()  # identities are used only where all pairs are held
        else:
            self.blocks.append(block)

    def table(self):
        return in_order_of_names(joined(self.blocks), self.names)


def count(seen, sign, blocks, far, threshold):
    """The `CountedScores` of the pairs in `blocks`."""
    impostors = seen.pairs - seen.genuines
    low, high = sorted((sign * seen.lowest, sign * seen.highest))
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    tail = min(TAIL, max(1000, math.ceil(10 * min(far) * impostors)))
    histogram, accepted = ScoreHistogram(low, high, tail=tail), np.zeros(2, np.int64)
    for block in blocks:
        scores = sign * block.scores
        histogram.add(block.same, scores)
        if threshold is not None:
            accepted += np.bincount(block.same[scores >= threshold], minlength=2)
    return CountedScores(histogram, tuple(far), threshold, *accepted.tolist(), "distance" if sign < 0 else None)


class CountedScores(NamedTuple):
    """The result of `evaluate_file` for more pairs than are held in memory; `str()` gives a table.

    Attributes:
        histogram: the `ScoreHistogram` of the scores, with all figures and their error bounds.
        far: the false match rates at which the TAR is reported.
        threshold: the given threshold, or None.
        accepted_impostors, accepted_genuines: numbers of pairs whose score is at least the threshold.
        negated: "distance" if the scores are negative distances.
    """

    histogram: ScoreHistogram
    far: tuple[float, ...]
    threshold: float | None
    accepted_impostors: int
    accepted_genuines: int
    negated: str | None = None

    def at_threshold(self):
        """Accuracy, FMR and FNMR at the threshold, exact; None without one."""
        if self.threshold is None:
            return dict.fromkeys(("accuracy", "fmr", "fnmr"))
        genuines, impostors = self.histogram.genuines, self.histogram.impostors
        right = self.accepted_genuines + impostors - self.accepted_impostors
        fmr, fnmr = self.accepted_impostors / impostors, (genuines - self.accepted_genuines) / genuines
        return {"accuracy": right / (genuines + impostors), "fmr": fmr, "fnmr": fnmr}

    def to_dict(self):
        """The figures as numbers, lists and dicts for JSON."""
        return {**self.histogram.to_dict(self.far), "threshold": self.threshold, **self.at_threshold()}

    def __str__(self):
        lines = [self.histogram.table(self.far)]
        if self.threshold is not None:
            found = self.at_threshold()
            lines.append(in_words(self.threshold, found["fmr"], found["fnmr"]))
            lines += [] if self.negated is None else [of_negatives(self.threshold, self.negated)]
            lines.append("FMR {fmr:.4f}, FNMR {fnmr:.4f}, accuracy {accuracy:.4f}".format(**found))
        lines.append(f"More than {LIMIT:,} pairs are counted in bins and have no intervals.")
        return "\n".join(lines)
