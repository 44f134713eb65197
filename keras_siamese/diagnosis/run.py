"""What happened in a run: curves with one value per epoch, and the flagged epochs.

Contract: a `Run` comes from a `RunRecorder` while a model trains, or from `Run.of`, which reads Keras's `History`, a
dict of logs, a run log, or a CSVLogger's file. A run log is a text file in UTF-8. Each line is a JSON object:

    "schema"    "keras_siamese.run/1"
    "epoch"     index of the epoch, from 0; it increases from line to line
    "flagged"   whether the run was flagged at this epoch
    "logs"      what Keras and the callbacks before the monitor logged
    "state"     what a resumed run needs to know; see `RunRecorder.end_epoch`
    any other   the value of a curve at this epoch: "loss", "auc", "eer", "auc_se", "eer_se", …; null if not measured

`pandas.read_json(path, lines=True)` reads it as a table. Imports `_checks` and `panels`.

    Run.of(siamese.history).curves["eer"]
    Run.of("run.jsonl"), Run.of("training.csv")
"""

import copy
import io
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_siamese._reading import bytes_of, json_of
from keras_siamese._tables import csv_rows
from keras_siamese.diagnosis.report.panels import HEALTH

SCHEMA = "keras_siamese.run/1"
OPENING = f'{{"schema": "{SCHEMA}", '.encode()  # every line begins with it
MAX_EPOCHS = 1_000_000  # a larger number is a step and not an epoch
MAX_VALUES = 100_000_000  # of all curves; a few lines with a late epoch and many names would need far more memory
OWN = ("schema", "epoch", "flagged", "logs", "state")  # keys of a line that are not curves
COUNTS = ("weights", "steps", "next_part")  # whole numbers in the "state" of a line
ALWAYS = ("loss", "auc", "eer", "auc_se", "eer_se")
NEEDED = ("loss", "val_auc", "val_eer")
LOGGED = "logged_"  # what the names of curves begin with that the user's own metrics have logged
AS_LOGGED = ("loss", "learning_rate")  # curves whose key in logs is their own name; the others are held-out figures
KEYS = {name: name if name in AS_LOGGED else f"val_{name}" for name in (*ALWAYS, *HEALTH)}  # the keys of curves in logs
HOW = "Train with callbacks=[ks.callbacks.VerificationMonitor(validation)]"
NOT_A_NUMBER = ("", "na", "nan", "none", "null")  # CSVLogger writes NA for a missing value


@dataclass(eq=False)
class Run:
    """What happened in a run.

    The curves are lists of equal length by name, with one value per epoch from epoch 0 on; NaN where nothing was
    measured. "loss", "auc", "eer", "auc_se" and "eer_se" are always there, health curves only if they were recorded.
    """

    curves: dict = field(default_factory=dict)
    flags: list = field(default_factory=list)  # flagged epochs, in order
    not_finite_since: int | None = None  # index of the first epoch since which embeddings are not finite
    epochs: int | None = None  # number of epochs that the run is planned to have
    logged: tuple = ()  # names of what was logged at the latest epoch
    parts: dict = field(default_factory=dict)  # curves of measurements within epochs, with "step"; see `add_part`
    flagged_steps: list = field(default_factory=list)  # the flagged ones of these steps, in order
    last: dict = field(default_factory=dict)  # the last line of the run log from which the run was read

    @classmethod
    def of(cls, history):
        """Read a `Run` from whatever recorded it.

        Args:
            history: Keras's `History`; a `DivergenceMonitor`, whose run is copied with all that it has recorded, or
                its `history`; a dict of lists with one value per epoch, with the keys of `VerificationMonitor`; or the
                path of a run log (`DivergenceMonitor(log=…)`) or of a CSVLogger's file.

        Raises:
            TypeError: for anything else.
            ValueError: if "loss", "val_auc" or "val_eer" is missing, if the curves have different lengths, or if the
                file is neither a run log nor a CSV file.
            OSError: if the file cannot be read.
        """
        if isinstance(history, (str, os.PathLike)):
            return read_run(Path(history))
        recorder = getattr(getattr(history, "monitor", history), "recorder", None)
        if recorder is not None and recorder.run.curves["loss"]:
            return copy.deepcopy(recorder.run)
        logs = getattr(history, "history", history)
        if not isinstance(logs, Mapping):
            wanted = "a Keras History, a dict of curves, or the path of a log"
            raise TypeError(f"`history` must be {wanted}; got a {type(history).__name__}")
        if "auc" in logs and "val_auc" not in logs:  # a monitor's own curves
            named = {KEYS.get(name, name): curve for name, curve in logs.items()}
            return cls(dict(logs) | curves_of(named, "`history`"))
        return cls(curves_of(logs, "`history`") | metrics_in(logs), logged=tuple(logs))

    @property
    def has_accuracy(self):
        """Whether an accuracy was among the logs of the latest epoch."""
        return any(key in self.logged for key in ("accuracy", "acc", "binary_accuracy"))

    def add_part(self, step, values):
        """Add what was measured after `step` training steps, `values` of the curves in `ALWAYS` by name."""
        for name, value in {"step": step, **values}.items():
            self.parts.setdefault(name, []).append(value)

    def cut(self, epoch):
        """Make the curves end before `epoch`. If they are shorter, they are filled with NaN."""
        for curve in self.curves.values():
            del curve[epoch:]
            curve += [float("nan")] * (epoch - len(curve))
        self.flags = [flag for flag in self.flags if flag < epoch]


def read_run(path):
    """The `Run` in the run log or CSV file at `path`. The first character of the file tells which of them it is."""
    with open(path, "rb") as file:
        begin = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"{"):
        run, _ = read_run_log(path)
        run.curves |= curves_of({KEYS.get(name, name): curve for name, curve in run.curves.items()}, str(path))
    else:
        run = Run(curves_of(read_csv(path), str(path)))
    if not run.curves["loss"]:
        raise ValueError(f"{path} must hold at least one epoch; it holds none")
    return run


def curves_of(logs, what):
    """The curves in `logs`, lists by the keys of `VerificationMonitor`. `what` begins the error messages."""
    missing = [key for key in NEEDED if key not in logs]
    if missing:
        raise ValueError(
            f"{what} must have the curves 'loss', 'val_auc' and 'val_eer'; {', '.join(map(repr, missing))} missing "
            f"among {sorted(logs)}. {HOW}"
        )
    curves = {name: [number_of(value) for value in logs[key]] for name, key in KEYS.items() if key in logs}
    if len(set(map(len, curves.values()))) > 1:
        found = ", ".join(f"{KEYS[name]} {len(curve)}" for name, curve in curves.items())
        raise ValueError(f"{what} must have curves of equal length, with one value per epoch; got {found}")
    return {name: curves.get(name, [float("nan")] * len(curves["loss"])) for name in dict.fromkeys([*ALWAYS, *curves])}


def metrics_in(logs):
    """The curves of what the user's own metrics logged, with names that begin with `LOGGED`: those in [0, 1]."""
    found = {}
    for name, curve in logs.items():
        if is_own_metric(name):
            values = np.array([number_of(value) for value in curve], float)
            if ((values >= 0) & (values <= 1)).any():
                found[f"{LOGGED}{name}"] = np.where((values >= 0) & (values <= 1), values, np.nan).tolist()
    return found


def is_own_metric(name):
    """Whether `name` in the logs of an epoch is not one of a `VerificationMonitor`, and no loss."""
    ours = {*KEYS.values(), "val_threshold", "val_verification_accuracy", "loss", "val_loss"}
    return name not in ours and "@" not in name


def curves_from(rows, names, epochs):
    """The curves `names` from `rows`, a dict of values by name for each epoch; NaN where there is no value."""
    if len(names) * epochs > MAX_VALUES:
        found = f"{len(names):,} curves of {epochs:,} epochs"
        raise ValueError(f"A run must have at most {MAX_VALUES:,} values in its curves; this one has {found}")
    curves = {name: [float("nan")] * epochs for name in names}
    for epoch, row in rows.items():
        for name in names:
            curves[name][epoch] = number_of(row.get(name))
    return curves


def read_csv(path):
    """Read the columns of a CSV file with a header and one row per epoch, as lists of numbers by name.

    The column `epoch`, which CSVLogger writes, holds the index of the epoch. If it falls, the run was resumed there:
    the rows from that epoch on are replaced by the later ones. Epochs without a row are NaN. If the last row has no
    line feed (the process was killed while writing), it is left out with a warning.

    Raises:
        ValueError: if the file is not text, has no header, or if a row has the wrong number of fields or a field that
            is not a number.
    """
    try:
        text = bytes_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a run log or a CSV file, in UTF-8; {error}") from error
    whole, feed, rest = text.rpartition("\n")
    if rest and whole:
        warnings.warn(f"The last line of {path} is incomplete: it is left out", stacklevel=5)
        text = whole + feed
    columns, rows = csv_rows(path, io.StringIO(text, newline=""))
    epochs = {}
    for line, fields in rows:
        if len(fields) != len(columns):
            expected = f"{len(columns)} fields on each line, as its header"
            raise ValueError(f"{path} must have {expected}; line {line} has {len(fields)}")
        row = dict(zip(columns, fields, strict=True))
        row = {key: number_in(row[key], key, line, path) for key in row if key == "epoch" or key in KEYS.values()}
        epoch = row.get("epoch", len(epochs))
        if not (0 <= epoch < MAX_EPOCHS and epoch % 1 == 0):
            expected = f"whole numbers from 0 to {MAX_EPOCHS:,} for `epoch`"
            raise ValueError(f"{path} must have {expected}; line {line} has {epoch:g}")
        while epochs and epoch <= next(reversed(epochs)):
            epochs.popitem()
        epochs[int(epoch)] = row
    return curves_from(epochs, columns, max(epochs, default=-1) + 1)


def number_in(field, column, line, path):
    """The number in a field of a CSV file; NaN if the field is empty."""
    try:
        return float("nan") if field.strip().lower() in NOT_A_NUMBER else float(field)
    except ValueError:
        raise ValueError(f"{path} must have a number for {column!r}; line {line} has {field!r}") from None


def read_run_log(path, *, name="history", before=None, quiet=False):
    """The `Run` in the run log at `path`, and `{epoch: where its line ends}` in bytes from the start of the file.

    If the last line is incomplete (the process was killed while writing), it is left out, with a warning unless
    `quiet`. Lines from the epoch `before` on are left out, and the curves end before it. Errors call the file `name`.

    Raises:
        ValueError: if the file holds anything but lines of a run log in the order of their epochs.
        OSError: if it cannot be read.
    """
    lines, ends, end, last = {}, {}, 0, -1
    *whole, rest = bytes_of(path).split(b"\n")
    if rest and (is_json(rest) or not (whole or rest.startswith(OPENING[: len(rest)]))):
        whole.append(rest)  # only the line feed is missing, as some editors remove it; or this is no run log
        rest = b""
    for number, text in enumerate(whole, 1):
        end += len(text) + 1
        where = f"line {number} of {str(path)!r}"
        line = check_line(f"`{name}` must be a run log; {where}", text)
        epoch = line["epoch"]
        if epoch <= last:
            wanted = "a run log with one line per epoch, in order"
            raise ValueError(f"`{name}` must be {wanted}; {where} is of epoch {epoch}, after epoch {last}")
        last = epoch
        if before is None or epoch < before:
            lines[epoch], ends[epoch] = line, end
    if rest and not quiet:
        warnings.warn(f"The last line of {path} is incomplete ({len(rest)} bytes): it is left out", stacklevel=3)
    names = list(dict.fromkeys(key for line in lines.values() for key in line if key not in OWN))
    curves = curves_from(lines, names, max(lines, default=-1) + 1 if before is None else before)
    return continued(Run(curves, [epoch for epoch, line in lines.items() if line["flagged"]]), lines), ends


def continued(run, lines):
    """`run` with all else that the `lines` of its log tell, a dict by epoch."""
    for epoch, line in lines.items():
        state = line.get("state", {})
        if state.get("finite") is not None:
            started = epoch if run.not_finite_since is None else run.not_finite_since
            run.not_finite_since = None if state["finite"] else started
        for name, values in state.get("parts", {}).items():
            run.parts.setdefault(name, []).extend(values if name == "step" else map(number_of, values))
        run.flagged_steps += state.get("flagged_steps", [])
        run.logged, run.last = tuple(line.get("logs", ())), line
    return run


def line_of(epoch, values, logs, flagged, state=None):
    """The line `(bytes)` of an epoch in a run log; `values` of the curves by name are NaN where not measured."""
    line = {"schema": SCHEMA, "epoch": epoch, "flagged": bool(flagged), **values, "logs": logs}
    line |= {} if state is None else {"state": state}
    return (json.dumps(plain(line), allow_nan=False) + "\n").encode()


def is_json(text):
    try:
        json_of(text, "")
    except ValueError:
        return False
    return True


def check_line(what, text):
    """Return the content of a line, a dict. `what` begins the error messages."""
    line = json_of(text, what)  # also refuses bytes that are not text
    schema = line.get("schema") if isinstance(line, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{what} must have the schema {SCHEMA!r}; it has {schema!r}")
    epoch, flagged = line.get("epoch"), line.get("flagged")
    if type(epoch) is not int or not 0 <= epoch < MAX_EPOCHS or type(flagged) is not bool:
        raise ValueError(
            f"{what} must have an `epoch` from 0 to {MAX_EPOCHS:,} and `flagged`; it has {epoch!r} and {flagged!r}"
        )
    check_state(what, line)
    for key, value in line.items():
        if key not in OWN and value is not None and type(value) not in (int, float):
            raise ValueError(f"{what} must have a number or null for {key!r}; it has {value!r}")
    return line


def check_state(what, line):
    """Check the parts of a line that a resumed run reads, if it has them. `what` begins the error messages."""
    state, logs = line.get("state", {}), line.get("logs", {})
    if not isinstance(logs, dict) or not isinstance(state, dict):
        found = f"a {type(logs).__name__} and a {type(state).__name__}"
        raise ValueError(f"{what} must have objects for 'logs' and 'state'; it has {found}")
    parts, flagged = state.get("parts", {}), state.get("flagged_steps", [])
    columns = list(parts.values()) if isinstance(parts, dict) else [None]
    is_right = all(isinstance(one, list) for one in (flagged, *columns))
    if is_right:
        counts = [state[name] for name in COUNTS if state.get(name) is not None]
        whole, numbers = [*counts, *flagged, *parts.get("step", [])], [value for one in columns for value in one]
        is_right = set(parts) in (set(), {"step", *ALWAYS}) and len(set(map(len, columns))) < 2
        is_right = (
            is_right and all(type(one) is int for one in whole) and type(state.get("finite")) in (bool, type(None))
        )
        is_right = is_right and all(type(one) in (int, float, type(None)) for one in numbers)
    if not is_right:
        raise ValueError(f"{what} must have a `state` as `DivergenceMonitor` writes it; it has {str(state)[:200]}")


def number_of(value):
    """A number of a file as a float: NaN for none, and infinity for a whole number that no float holds."""
    try:
        return float("nan") if value is None else float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def plain(value):
    """`value` for JSON: NumPy scalars and arrays become Python's, NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or isinstance(value, (bool, int)) else str(value)
