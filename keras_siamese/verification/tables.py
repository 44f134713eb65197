"""Scores of any system, read from a CSV or Parquet file.

Contract: a file with the columns `score` and `same` in, and optionally `left` and `right` (the identities) and a column
with the groups of the pairs; checked arrays out, or one error that names the wrong lines. The file is read in blocks,
which `arrow` parses if pyarrow is installed and the block is plain; Python's `csv` reads all others, so that results
and errors are the same.

    read = read_scores("scores.csv")
    print(evaluate(read.same, read.scores, left=read.left, right=read.right))

    with opened("scores.csv") as file:                  # more pairs than fit in memory
        for block in read_blocks(file, names := {}):
            histogram.add(block.same, block.scores)
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_siamese._tables import csv_fields, csv_header
from keras_siamese._types import StrPath
from keras_siamese.verification import arrow

NEEDED, SIDES = ("score", "same"), ("left", "right")
SAME = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
LISTED = 5  # lines that an error lists
BLOCK = 2**24  # bytes read at a time, and the longest line
ROWS = 2**16  # rows that Python's csv reads at a time


class ScoreTable(NamedTuple):
    """The contents of a file of scores.

    Attributes:
        same: `(n,)` bool, True = genuine.
        scores: `(n,)` float64.
        left, right: `(n,)` identities of both sides, strings; None if the file has no such columns.
        groups: `(n,)` the group of each pair, strings; None if no column of groups is named.
    """

    same: np.ndarray
    scores: np.ndarray
    left: np.ndarray | None = None
    right: np.ndarray | None = None
    groups: np.ndarray | None = None


class OpenedScores(NamedTuple):
    """A file of scores that can be read several times: what errors call it, and the file, opened as bytes."""

    name: str
    file: io.BufferedIOBase


def read_scores(path: StrPath, *, groups: str | None = None) -> ScoreTable:
    """Reads a `ScoreTable`, one pair per row, from a CSV or Parquet file: columns `score`, `same`, `left`, `right`.

    `left` and `right` are optional. In a CSV file, columns are separated by commas, semicolons or tabs. They may be in
    any order, and other columns are ignored. `same` is 1 or 0, or true or false. Empty lines are skipped. A file whose
    name ends in .parquet is a Parquet file. It needs pyarrow (extra `tables`), with which CSV files are read about ten
    times faster.

    Args:
        path: the file, in UTF-8; "-" is a CSV file from standard input.
        groups: the name of a further column with the group of each pair, for example a device, as `compare_groups` and
            `VerificationReport.to_html` take it.

    Raises:
        ValueError: if a column is missing, if there is only one of `left` and `right`, if there are no pairs, or if
            lines do not have a finite score and a label; the error then names these lines.
        OSError: if the file cannot be read.
        ImportError: if pyarrow is needed and not installed.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.csv"
    >>> _ = path.write_text("score,same,left,right\\n0.9,1,ada,ada\\n0.2,0,ada,bo\\n")
    >>> table = read_scores(path)
    >>> table.scores.tolist(), table.same.tolist(), table.right.tolist()
    ([0.9, 0.2], [True, False], ['ada', 'bo'])
    """
    names: Any = {}
    with opened(path) as file:
        table = joined(list(read_blocks(file, names, groups=groups)))
    names = np.array(list(names))
    texts = {column: names[codes] for column in (*SIDES, "groups") if (codes := getattr(table, column)) is not None}
    return table._replace(**texts)


def joined(blocks):
    """One `ScoreTable` of several."""
    columns = zip(*blocks, strict=True)
    return ScoreTable(*(None if parts[0] is None else np.concatenate(parts) for parts in columns))


def in_order_of_names(table, names):
    """`table` with codes of identities in the alphabetical order of their `names`, a dict from name to code."""
    if table.left is None:
        return table
    places = np.empty(len(names), np.int64)
    places[np.argsort(np.array(list(names)), kind="stable")] = np.arange(len(names))
    return table._replace(left=places[table.left], right=places[table.right])


@contextlib.contextmanager
def opened(path):
    """The file at `path` as `OpenedScores`; standard input ("-") is copied into a temporary file."""
    if str(path) != "-":
        with open(Path(path), "rb") as file:
            yield OpenedScores(str(path), file)
        return
    with tempfile.TemporaryFile() as file:
        if hasattr(sys.stdin, "buffer"):
            shutil.copyfileobj(sys.stdin.buffer, file)
        else:  # a replacement that is text only
            file.write(sys.stdin.read().encode())
        yield OpenedScores("standard input", file)


def number_of_blocks(source):
    """The number of blocks that `read_blocks` reads, about."""
    size = source.file.seek(0, io.SEEK_END)
    return max(1, arrow.parquet_batches(*source) if is_parquet(source) else math.ceil(size / BLOCK))


def is_parquet(source):
    return source.name.lower().endswith(".parquet")


def read_blocks(source, names, move_on=lambda steps: None, groups=None):
    """Yields `ScoreTable`s of the rows of an opened file, with codes in place of identities and groups.

    Args:
        source: the file, as `opened` gives it; it is read from its beginning.
        names: a dict from name to code, which receives the identities and groups.
        move_on: called with 1 after each block that was read.
        groups: the name of the column of groups, or None.

    Raises:
        ValueError: as `read_scores`; about wrong lines only at the end of the file.
    """
    source.file.seek(0)
    wrong, pairs = WrongLines("identity" if groups is None else "identity or group"), 0
    blocks = parquet_blocks if is_parquet(source) else csv_blocks
    for block in blocks(*source, functools.partial(check_columns, groups=groups), names, wrong):
        move_on(1)
        pairs += len(block.same)
        yield block
    wrong.check(source.name)
    if not pairs:
        raise ValueError(f"{source.name} must have one pair per line below its header; it has no pairs")


class WrongLines:
    """The lines of a file that are no pairs: their number, and the first few; `filled` must not be empty."""

    def __init__(self, filled):
        self.count, self.listed, self.filled = 0, [], filled

    def add(self, where, text):
        self.count += 1
        if self.count <= LISTED:
            self.listed.append(f"  {where}: {text[:80]}")

    def check(self, name):
        """Raises ValueError if there are any."""
        if self.count:
            listed = "\n".join(self.listed)
            more = f"\n  and {self.count - LISTED:,} more" if self.count > LISTED else ""
            wanted = f"a finite `score`, a `same` of 1 or 0, and no empty {self.filled} on each line"
            raise ValueError(f"{name} must have {wanted}; {self.count:,} of its lines do not:\n{listed}{more}")


def check_columns(name, columns, groups=None):
    """The place of each needed column, by name; `left` and `right` are needed if one of them is there.

    The column that `groups` names has the name "groups" in the result, and is the last.
    """
    columns = [column.strip().lower() for column in columns]
    named = {column: column for column in (*NEEDED, *(SIDES if not set(SIDES).isdisjoint(columns) else ()))}
    if groups is not None:
        named["groups"] = str(groups).strip().lower()
        if named["groups"] in (*NEEDED, *SIDES):
            raise ValueError(f"`groups` must name a column other than score, same, left and right; got {groups!r}")
    missing = [column for column in named.values() if column not in columns]
    if missing:
        wanted, present = (", ".join(map(repr, some)) for some in (missing, columns))
        raise ValueError(f"{name} must have the columns {wanted}; it has {present}")
    return {name: columns.index(column) for name, column in named.items()}


def csv_blocks(name, file, places_of, names, wrong):
    """Yields the `ScoreTable`s of a CSV file, see `read_blocks`."""
    blocks = line_blocks(name, file)
    _, data = next(blocks, (1, b""))
    data = data.removeprefix("\ufeff".encode())
    end = re.search(rb"\r\n|\r|\n|\Z", data).end()
    columns, delimiter = csv_header(name, "".join(text_lines(name, [(1, data[:end])])))
    places = places_of(name, columns)
    blocks = itertools.chain([(2, data[end:])], blocks)
    for first, data in blocks:
        table = arrow.csv_table(data, len(columns), places.values(), delimiter)
        found = None if table is None else Columns(table.rename_columns(list(places)))
        if found is not None and found.sound.all():
            yield found.coded(names)
            continue
        rest = blocks if b'"' in data else ()  # a quoted name may end in a later block
        lines = text_lines(name, itertools.chain([(first, data)], rest))
        rows = csv_fields(name, lines, delimiter, first)
        for row in rows:
            yield checked(itertools.chain([row], itertools.islice(rows, ROWS - 1)), places, names, wrong)


class Columns:
    """The columns of a pyarrow table: score, same and, where they are there, left, right and groups.

    Attributes:
        sound: `(n,)` whether a row is a pair.
    """

    def __init__(self, table):
        self.scores = arrow.numbers(table.column(0))
        (self.same, self.labels), *others = map(arrow.texts, table.columns[1:])
        self.others = dict(zip(table.column_names[2:], others, strict=True))
        self.genuine = np.array([SAME.get(label.strip().lower(), -1) for label in self.labels])[self.same]
        self.sound = np.isfinite(self.scores) & (self.genuine >= 0)
        for codes, identities in self.others.values():
            self.sound &= np.array([bool(identity.strip()) for identity in identities])[codes]

    def coded(self, names):
        """The `ScoreTable` of the sound rows, with codes in place of identities and groups."""
        others = {}
        for column, (codes, identities) in self.others.items():
            used = np.flatnonzero(np.bincount(codes[self.sound], minlength=len(identities)))
            code = np.zeros(len(identities), np.int64)
            for place in used.tolist():
                code[place] = names.setdefault(identities[place].strip(), len(names))
            others[column] = code[codes[self.sound]]
        return ScoreTable(self.genuine[self.sound] == 1, self.scores[self.sound], **others)

    def text(self, row):
        """A row as an error shows it."""
        others = [texts[codes[row]] for codes, texts in [(self.same, self.labels), *self.others.values()]]
        return ",".join([str(self.scores[row]), *others])


def parquet_blocks(name, file, places_of, names, wrong):
    """Yields the `ScoreTable`s of a Parquet file, see `read_blocks`."""
    for first, table in arrow.parquet_tables(name, file, places_of):
        found = Columns(table)
        for row in np.flatnonzero(~found.sound).tolist():
            wrong.add(f"row {first + row}", found.text(row))
        yield found.coded(names)


def line_blocks(name, file):
    """Yields `(number of the first line, bytes)` of about `BLOCK` bytes each, which end with a line."""
    rest, first = b"", 1
    while data := file.read(BLOCK):
        data = rest + data
        # The last byte may be the first half of \r\n.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        if not end and len(data) > BLOCK:
            raise ValueError(f"{name} must be a CSV file; line {first:,} is longer than {BLOCK:,} bytes")
        rest = data[end:]
        if end:
            yield first, data[:end]
            first += number_of_lines(data[:end])
    if rest:
        yield first, rest


def number_of_lines(data):
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def text_lines(name, blocks):
    """Yields the lines, as text, of `(number of the first line, bytes)`."""
    for first, data in blocks:
        try:
            data.isascii() or data.decode()
        except UnicodeDecodeError as error:
            line = first + number_of_lines(data[: error.start])
            raise ValueError(f"{name} must be a text file in UTF-8; line {line}: {error.reason}") from error
        yield from io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")


def checked(rows, places, names, wrong):
    """The `ScoreTable` of `(line number, fields)` of a CSV file; rows that are no pairs are added to `wrong`."""
    found = {column: [] for column in places}
    others = [place for column, place in places.items() if column not in NEEDED]
    for line, fields in rows:
        try:
            score = float(fields[places["score"]])
            same = SAME[fields[places["same"]].strip().lower()]
            identities = [fields[place].strip() for place in others]
            if not math.isfinite(score) or not all(identities):
                raise ValueError
        except (ValueError, KeyError, IndexError):
            wrong.add(f"line {line}", ",".join(fields))
            continue
        codes = [names.setdefault(identity, len(names)) for identity in identities]
        for values, value in zip(found.values(), (score, same, *codes), strict=True):
            values.append(value)
    codes = {column: np.array(values, np.int64) for column, values in found.items() if column not in NEEDED}
    return ScoreTable(np.array(found["same"], bool), np.array(found["score"], np.float64), **codes)
