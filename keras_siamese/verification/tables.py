"""Scores of any system, read from a CSV file.

Contract: a file with a header and the columns `score` and `same` in, and optionally `left` and `right` (the
identities); checked arrays out, or one error that names the wrong lines.

    read = read_scores("scores.csv")
    print(evaluate(read.same, read.scores, left=read.left, right=read.right))
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_siamese._tables import csv_rows

SAME = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
LISTED = 5  # lines that an error lists


class ScoreTable(NamedTuple):
    """The contents of a file of scores.

    Attributes:
        same: `(n,)` bool, True = genuine.
        scores: `(n,)` float64.
        left, right: `(n,)` identities of both sides, strings; None if the file has no such columns.
    """

    same: np.ndarray
    scores: np.ndarray
    left: np.ndarray | None
    right: np.ndarray | None


def read_scores(path):
    """Reads a `ScoreTable`, one pair per line, from a CSV file with the columns `score`, `same`, `left` and `right`.

    `left` and `right` are optional. Columns are separated by commas, semicolons or tabs. They may be in any order, and
    other columns are ignored. `same` is 1 or 0, or true or false. Empty lines are skipped.

    Args:
        path: the file, in UTF-8; "-" is standard input.

    Raises:
        ValueError: if a column is missing, if there is only one of `left` and `right`, if there are no pairs, or if
            lines do not have a finite score and a label; the error then names these lines.
        OSError: if the file cannot be read.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.csv"
    >>> _ = path.write_text("score,same,left,right\\n0.9,1,ada,ada\\n0.2,0,ada,bo\\n")
    >>> table = read_scores(path)
    >>> table.scores.tolist(), table.same.tolist(), table.right.tolist()
    ([0.9, 0.2], [True, False], ['ada', 'bo'])
    """
    if str(path) == "-":
        return parse("standard input", sys.stdin)
    with open(Path(path), encoding="utf-8-sig", newline="") as file:
        try:
            return parse(str(path), file)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be a text file in UTF-8; {error}") from error


def parse(name, file):
    columns, rows = csv_rows(name, file)
    columns = [column.lower() for column in columns]
    sides = ("left", "right") if "left" in columns or "right" in columns else ()
    missing = [column for column in ("score", "same", *sides) if column not in columns]
    if missing:
        wanted, present = (", ".join(map(repr, some)) for some in (missing, columns))
        raise ValueError(f"{name} must have the columns {wanted}; it has {present}")
    places = {column: columns.index(column) for column in ("score", "same", *sides)}
    found, wrong = {column: [] for column in places}, []
    for line, fields in rows:
        try:
            score = float(fields[places["score"]])
            same = SAME[fields[places["same"]].strip().lower()]
            identities = [fields[places[side]].strip() for side in sides]
            if not math.isfinite(score) or not all(identities):
                raise ValueError
        except (ValueError, KeyError, IndexError):
            wrong.append((line, ",".join(fields)))
            continue
        for column, value in zip(places, (score, same, *identities), strict=True):
            found[column].append(value)
    if wrong:
        listed = "\n".join(f"  line {number}: {text[:80]}" for number, text in wrong[:LISTED])
        more = f"\n  and {len(wrong) - LISTED:,} more" if len(wrong) > LISTED else ""
        wanted = "a finite `score`, a `same` of 1 or 0, and no empty identity on each line"
        raise ValueError(f"{name} must have {wanted}; {len(wrong):,} of its lines do not:\n{listed}{more}")
    if not found["score"]:
        raise ValueError(f"{name} must have one pair per line below its header; it has no pairs")
    identities = [np.array(found[side]) for side in sides] or (None, None)
    return ScoreTable(np.array(found["same"], bool), np.array(found["score"], np.float64), *identities)
