"""The run log: a line an epoch, written while a run goes on, from which it can be diagnosed after it has ended or died.

Contract: a text file in UTF-8, each line a JSON object that ends in a line feed. Each holds

    "schema"    "keras_siamese.run/1"
    "epoch"     index of the epoch, from 0, larger than the line's before
    "flagged"   whether the run was flagged at this epoch
    "logs"      what Keras and the callbacks before the monitor logged
    any other   a curve's value at this epoch, as "loss", "auc", "eer", "auc_se", "eer_se"; null where not measured

so that `pandas.read_json(path, lines=True)` is a table. Imports `_checks`.

    log = RunLog("run.jsonl")
    log.begin(0)                                           # drops what the file holds of epoch 0 and later
    log.write(0, {"loss": 0.7, "auc": 0.5}, logs, flagged=False)
    read_run_log("run.jsonl").curves["loss"]
"""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_siamese._checks import check_writable

SCHEMA = "keras_siamese.run/1"
OPENING = f'{{"schema": "{SCHEMA}", '.encode()  # of every line
MAX_EPOCHS = 1_000_000  # more are steps, or no epochs at all
OWN = ("schema", "epoch", "flagged", "logs")  # keys that are no curves


class LoggedRun(NamedTuple):
    """What a run log holds.

    Attributes:
        curves: lists of one length, a value an epoch from 0 on, by name; NaN where nothing was measured or logged.
        flags: flagged epochs, in order.
        ends: `{epoch: where its line ends}`, in bytes from the file's begin.
    """

    curves: dict
    flags: list
    ends: dict


class RunLog:
    """Writes a run log, one line an epoch; after `kill -9` at most the line being written is lost.

    Each line is written whole and handed to the system before `write` returns. A file that has changed between two
    lines is another run's: this one warns and writes no more, as it does where the disk is full.

    Args:
        path: the file; that of a run taken up again goes on, its folder is made if it is missing.
        numbered: write into the first of path-1, path-2, … (before the suffix) that does not exist yet.

    Raises:
        ValueError: for a path that cannot be written, or a file that holds something else.
    """

    def __init__(self, path, numbered=False):
        self.base = check_writable("log", path)
        self.numbered = numbered
        self.path = None if numbered else self.base
        self._last, self._end, self._lost = None, None, False
        if not numbered and self.base.exists():
            read_run_log(self.base, name="log", quiet=True)

    def copy(self):
        """The log of another run, in a numbered file of its own."""
        return RunLog(self.base, numbered=True)

    def begin(self, epoch):
        """Makes the file end before `epoch`; returns the `LoggedRun` it then holds, None if there was nothing to do.

        To be called when an epoch begins. It reads the file where a run begins, or is taken up again.
        """
        if self._last is not None and epoch == self._last + 1:
            return None
        if self.path is None:
            self.path = first_free(self.base)
        self.path.touch()
        kept = read_run_log(self.path, name="log", before=epoch)
        self._end = max(kept.ends.values(), default=0)
        with open(self.path, "r+b") as file:
            if file.seek(0, 2) < self._end:  # the last line feed is missing
                file.write(b"\n")
            file.truncate(self._end)
        self._last, self._lost = epoch - 1, False
        return kept

    def write(self, epoch, curves, logs, flagged):
        """Adds the line of an epoch.

        Args:
            epoch: index of the epoch, from 0.
            curves: its value of each curve by name, NaN where not measured.
            logs: what was logged.
            flagged: whether the run was flagged at it.
        """
        self._last = epoch
        if self._lost:
            return
        facts = {"schema": SCHEMA, "epoch": epoch, "flagged": bool(flagged), **curves, "logs": logs}
        line = (json.dumps(plain(facts), allow_nan=False) + "\n").encode()
        try:
            with open(self.path, "r+b") as file:
                changed = file.seek(0, 2) != self._end
                if not changed:
                    file.write(line)
        except OSError as error:
            self._stop(str(error))
        else:
            if changed:
                self._stop("it has changed since its last line, as if another run wrote into it")
            self._end += len(line)

    def _stop(self, why):
        self._lost = True
        warnings.warn(f"{self.path} is written no more: {why}", stacklevel=4)


def first_free(path):
    """The first of path-1, path-2, … that did not exist; it does now, so that no other run takes it."""
    number = 1
    while True:
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            candidate.touch(exist_ok=False)
            return candidate
        except FileExistsError:
            number += 1


def read_run_log(path, *, name="history", before=None, quiet=False):
    """The `LoggedRun` in the file at `path`; a torn last line, as `kill -9` leaves it, is left out with a warning.

    Args:
        path: the file.
        name: the argument that errors name.
        before: the epoch from which on lines are left out, and before which curves end; None keeps all.
        quiet: whether to say nothing about a torn line.

    Raises:
        ValueError: if the file holds anything but lines of a run log in the order of their epochs.
        OSError: if it cannot be read.
    """
    path, lines, ends, end, last = Path(path), {}, {}, 0, -1
    *whole, rest = path.read_bytes().split(b"\n")
    if rest and is_json(rest):  # only the line feed is missing, as where an editor has been
        whole.append(rest)
        rest = b""
    elif rest and not whole and not rest.startswith(OPENING[: len(rest)]):
        check_line(f"`{name}` must be a run log; line 1 of {str(path)!r}", rest)
    for number, line in enumerate(whole, 1):
        end += len(line) + 1
        facts = check_line(f"`{name}` must be a run log; line {number} of {str(path)!r}", line)
        epoch = facts["epoch"]
        if epoch <= last:
            raise ValueError(
                f"`{name}` must be a run log with a line an epoch, in order; line {number} of {str(path)!r} is of "
                f"epoch {epoch}, after epoch {last}"
            )
        last = epoch
        if before is None or epoch < before:
            lines[epoch], ends[epoch] = facts, end
    if rest and not quiet:
        message = f"The last line of {path} is torn, {len(rest)} bytes without an end: it is left out"
        warnings.warn(message, stacklevel=3)
    names = list(dict.fromkeys(key for facts in lines.values() for key in facts if key not in OWN))
    epochs = range(max(lines, default=-1) + 1 if before is None else before)
    curves = {key: [number_of(lines.get(epoch, {}).get(key)) for epoch in epochs] for key in names}
    return LoggedRun(curves, [epoch for epoch, facts in lines.items() if facts["flagged"]], ends)


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def check_line(what, text):
    """The facts of one line, a dict; `what` begins the error."""
    try:
        facts = json.loads(text)
    except ValueError as error:  # of bytes that are no text as well
        raise ValueError(f"{what} is no JSON: {error}") from error
    schema = facts.get("schema") if isinstance(facts, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{what} must have the schema {SCHEMA!r}; it has {schema!r}")
    epoch, flagged = facts.get("epoch"), facts.get("flagged")
    if type(epoch) is not int or not 0 <= epoch < MAX_EPOCHS or type(flagged) is not bool:
        raise ValueError(
            f"{what} must have an `epoch` from 0 to {MAX_EPOCHS:,} and `flagged`; it has {epoch!r} and {flagged!r}"
        )
    for key, value in facts.items():
        if key not in OWN and value is not None and type(value) not in (int, float):
            raise ValueError(f"{what} must have a number or null for {key!r}; it has {value!r}")
    return facts


def number_of(value):
    return float("nan") if value is None else float(value)


def plain(value):
    """`value` with NumPy scalars and arrays as Python ones, and NaN and infinities as None, for JSON."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value if value is None else str(value)
