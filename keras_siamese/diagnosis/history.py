"""The history of a run, from wherever it was kept: Keras's `History`, a dict, the run log, or a CSVLogger's file.

Contract: what a person has, in; the curves that `Evidence` takes, out: lists of one length, a value an epoch, by name,
"loss", "auc", "eer", "auc_se", "eer_se" and any of health, NaN where not measured. Imports `panels` and `runlog`.

    curves_of(siamese.history)["eer"]
    curves_of("run.jsonl"), curves_of("training.csv")
"""

import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from keras_siamese._tables import csv_rows
from keras_siamese.diagnosis.report.panels import HEALTH
from keras_siamese.diagnosis.runlog import MAX_EPOCHS, number_of, read_run_log

ALWAYS = ("loss", "auc", "eer", "auc_se", "eer_se")
NEEDED = ("loss", "val_auc", "val_eer")
KEYS = {name: name if name == "loss" else f"val_{name}" for name in (*ALWAYS, *HEALTH)}  # what logs call a curve
HOW = "Train with callbacks=[ks.callbacks.VerificationMonitor(validation)]"
NOT_A_NUMBER = ("", "na", "nan", "none", "null")  # CSVLogger writes NA where it was given nothing


def curves_of(history):
    """The curves that `Evidence` needs.

    Args:
        history: Keras's `History`; a dict of lists, a value an epoch, under the keys of `VerificationMonitor`; or the
            path of a run log (`DivergenceMonitor(log=…)`) or of a CSV file as CSVLogger writes it.

    Raises:
        TypeError: for anything else.
        ValueError: if "loss", "val_auc" or "val_eer" is missing or curves are not as long as each other; for a file
            that is neither.
        OSError: if the file cannot be read.
    """
    if isinstance(history, (str, os.PathLike)):
        return curves_of_file(Path(history))
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            f"`history` must be a Keras History, a dict of curves, or the path of a log; got a {type(history).__name__}"
        )
    return from_logs(logs, "`history`")


def curves_of_file(path):
    """The curves in the run log or CSV file at `path`; which of them it is, its first character tells."""
    with open(path, "rb") as file:
        begin = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"{"):
        logged = read_run_log(path).curves
        curves = from_logs({KEYS.get(name, name): curve for name, curve in logged.items()}, str(path))
        curves = logged | curves
    else:
        curves = from_logs(read_csv(path), str(path))
    if not curves["loss"]:
        raise ValueError(f"{path} must hold an epoch at least; it holds none")
    return curves


def from_logs(logs, what):
    """The curves among the `logs`, lists by the keys of `VerificationMonitor`; `what` begins the errors."""
    missing = [key for key in NEEDED if key not in logs]
    if missing:
        raise ValueError(
            f"{what} must have the curves 'loss', 'val_auc' and 'val_eer'; {', '.join(map(repr, missing))} missing "
            f"among {sorted(logs)}. {HOW}"
        )
    curves = {name: [number_of(value) for value in logs[key]] for name, key in KEYS.items() if key in logs}
    lengths = {KEYS[name]: len(curve) for name, curve in curves.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise ValueError(f"{what} must have curves of one length, a value an epoch; got {found}")
    unknown = [float("nan")] * lengths["loss"]
    return {name: curves.get(name, list(unknown)) for name in dict.fromkeys([*ALWAYS, *curves])}


def read_csv(path):
    """The columns of a CSV file with a header as lists of numbers by name; a row an epoch.

    A column `epoch`, as CSVLogger writes it, says which: where it falls, the run was taken up again there, and the rows
    from that epoch on are replaced by those that follow; epochs without a row are NaN. A last row without its end, as
    `kill -9` leaves it, is left out with a warning.

    Raises:
        ValueError: if the file is no text, has no header, or a row (named) has other fields or holds no number.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a run log or a CSV file, in UTF-8; {error}") from error
    whole, feed, rest = text.rpartition("\n")
    if rest and whole:
        warnings.warn(f"The last line of {path} is torn, it has no end: it is left out", stacklevel=4)
        text = whole + feed
    columns, rows = csv_rows(path, io.StringIO(text, newline=""))
    epochs = {}
    for line, fields in rows:
        if len(fields) != len(columns):
            raise ValueError(
                f"{path} must have {len(columns)} fields on each line, as its header; line {line} has {len(fields)}"
            )
        row = dict(zip(columns, fields, strict=True))
        row = {key: number_in(row[key], key, line, path) for key in row if key == "epoch" or key in KEYS.values()}
        epoch = row.get("epoch", len(epochs))
        if not (0 <= epoch < MAX_EPOCHS and epoch % 1 == 0):
            raise ValueError(
                f"{path} must have whole numbers from 0 to {MAX_EPOCHS:,} for `epoch`; line {line} has {epoch:g}"
            )
        if epochs and epoch <= max(epochs):
            epochs = {earlier: kept for earlier, kept in epochs.items() if earlier < epoch}
        epochs[int(epoch)] = row
    every = range(max(epochs, default=-1) + 1)
    return {column: [epochs.get(epoch, {}).get(column, float("nan")) for epoch in every] for column in columns}


def number_in(field, column, line, path):
    """The number that a field of a CSV file holds, NaN for none."""
    try:
        return float("nan") if field.strip().lower() in NOT_A_NUMBER else float(field)
    except ValueError:
        raise ValueError(f"{path} must have a number for {column!r}; line {line} has {field!r}") from None
