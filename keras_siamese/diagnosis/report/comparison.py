"""Several runs side by side: `compare_runs` of diagnoses, or of the JSON reports that they wrote.

Contract: diagnoses in, a `Comparison` out, which prints as text and writes a page. It holds only what a JSON report
holds, so it needs neither the models nor their data. The page needs the extra `report`.

    print(compare_runs("before.json", "after.json"))
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_siamese._checks import check_writable
from keras_siamese._files import write_text
from keras_siamese._tables import aligned, html_table
from keras_siamese._types import StrPath
from keras_siamese.diagnosis.diagnosis import Diagnosis
from keras_siamese.diagnosis.report.page import flatten
from keras_siamese.diagnosis.report.pictures import range_of_losses
from keras_siamese.verification.pages import curves, interactive

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#17becf")


def compare_runs(*runs: Diagnosis | StrPath, names: Sequence[str] | None = None) -> Comparison:
    """Compares training runs: verdicts, held-out figures, causes, curves, and the settings that differ.

    Args:
        *runs: at least two: a `Diagnosis`, or the path of a report that `Diagnosis.to_json` wrote.
        names: what to call the runs, as many strings; by default the files' names, or "run 1", "run 2", …

    Returns:
        A `Comparison`.

    Raises:
        ValueError: if there are fewer than two runs, or if a file is not a report of a diagnosis.

    >>> from keras_siamese.diagnosis import compare_runs
    >>> compare_runs("before.json")
    Traceback (most recent call last):
    ...
    ValueError: `runs` must be at least two; got 1
    """
    if names is not None and (
        not isinstance(names, (tuple, list))
        or len(names) != len(runs)
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"`names` must be {len(runs)} strings, one for each run; got {names!r}")
    if len(runs) < 2:
        raise ValueError(f"`runs` must be at least two; got {len(runs)}")
    for run in runs:
        if not isinstance(run, (Diagnosis, str, os.PathLike)):
            raise TypeError(f"`runs` must be diagnoses or paths of their JSON reports; got {type(run).__name__}")
    names = names_of(runs) if names is None else names
    return Comparison(names, [run if isinstance(run, Diagnosis) else Diagnosis.from_json(run) for run in runs])


def names_of(runs):
    """The files' names; whole paths if two are alike."""
    names = [f"run {number}" if isinstance(run, Diagnosis) else Path(run).name for number, run in enumerate(runs, 1)]
    return (
        names
        if len(set(names)) == len(names)
        else [f"run {number}" if isinstance(run, Diagnosis) else str(run) for number, run in enumerate(runs, 1)]
    )


class Comparison:
    """Several runs side by side, made by `compare_runs`; `str()` gives the text.

    Attributes:
        names, diagnoses: of the runs, lists of equal length.
    """

    def __init__(self, names: Sequence[str], diagnoses: Sequence[Diagnosis]) -> None:
        self.names, self.diagnoses = list(names), list(diagnoses)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table of figures as rows of strings, after a head with the runs' names."""
        runs = [diagnosis.observed for diagnosis in self.diagnoses]
        yield "", *self.names
        for title, name in (("held-out EER", "eer"), ("held-out AUC", "auc")):
            yield title, *(interval(figure_of(run, name)) for run in runs)
        yield "last training loss", *(number(last(run.history.get("loss", []))) for run in runs)
        yield "epochs", *(str(len(run.history.get("loss", []))) for run in runs)
        flags = [[flag.epoch + 1 for flag in diagnosis.flags] for diagnosis in self.diagnoses]
        yield "flagged epochs", *(f"{len(epochs)}, first {epochs[0]}" if epochs else "none" for epochs in flags)
        found = [[f"{one.cause} ({one.severity})" for one in diagnosis.findings] for diagnosis in self.diagnoses]
        yield "findings", *(", ".join(names) or "none" for names in found)

    def settings(self) -> Iterator[tuple[str, ...]]:
        """The settings and versions that are not the same in all runs, as rows of strings after a head."""
        tables = [
            dict(flatten(diagnosis.observed.settings) + list(diagnosis.to_dict()["versions"].items()))
            for diagnosis in self.diagnoses
        ]
        yield "", *self.names
        for name in dict.fromkeys(name for table in tables for name in table):
            cells = [without_counter(name, str(table.get(name, "–"))) for table in tables]
            if len(set(cells)) > 1:
                yield name, *cells

    def differences(self) -> Iterator[str]:
        """For each run after the first, a sentence that says how its EER differs from that of the first."""
        first = figure_of(self.diagnoses[0].observed, "eer")
        for name, diagnosis in zip(self.names[1:], self.diagnoses[1:], strict=True):
            eer = figure_of(diagnosis.observed, "eer")
            if first is None or eer is None:
                yield f"{name}: not known, because embeddings of a run are not finite."
                continue
            change = eer.estimate - first.estimate
            # Half the width of the difference's interval: both intervals have as many standard errors.
            reach = np.hypot(first.high - first.low, eer.high - eer.low) / 2
            low, high = abs(change) - reach, abs(change) + reach
            found = f"{abs(change):.4f} [{low:.4f}, {high:.4f}] {'higher' if change > 0 else 'lower'}"
            shown = "" if low > 0 else "; no difference is shown"
            yield f"The EER of {name} is {found} than that of {self.names[0]}{shown}."

    def __str__(self) -> str:
        lines = [f"{name}: {one.verdict}" for name, one in zip(self.names, self.diagnoses, strict=True)]
        lines += ["", *aligned(self.rows()), "", *self.differences(), NOTE]
        differing = list(self.settings())
        lines += (
            ["", "Settings that differ", *aligned(differing)] if len(differing) > 1 else ["", "No setting differs."]
        )
        return "\n".join(lines)

    def _repr_html_(self):
        verdicts = zip(self.names, self.diagnoses, strict=True)
        parts = [f"<p><b>{html.escape(name)}</b>: {html.escape(one.verdict)}</p>" for name, one in verdicts]
        parts += [html_table(self.rows()), *(f"<p>{html.escape(line)}</p>" for line in (*self.differences(), NOTE))]
        return "".join([*parts, html_table(self.settings())])

    def to_html(self, path: StrPath) -> Path:
        """Writes the comparison, with the curves of all runs, as one self-contained HTML page; returns the path.

        Raises:
            ImportError: without the extra `report`.
        """
        path = check_writable("path", path)
        page = interactive("keras_siamese.diagnosis.report", "comparison.html.jinja").render(
            title=f"Comparison of {len(self.names)} runs",
            verdicts=list(zip(self.names, self.diagnoses, strict=True)),
            rows=list(self.rows()),
            differences=[*self.differences(), NOTE],
            settings=list(self.settings()),
            picture=curves(lambda figure: draw_curves(figure, self.diagnoses), (9, 3.6)) if self.has_curves else None,
        )
        write_text(path, page, errors="backslashreplace")
        return path

    @property
    def has_curves(self) -> bool:
        return any(diagnosis.observed.history.get("loss") for diagnosis in self.diagnoses)


NOTE = (
    "The interval takes the runs as measured on different identities; for runs on the same ones it is too wide. "
    "Compare figures only if the held-out data are the same."
)


def without_counter(name, cell):
    """A setting without what differs between two equal runs: Keras's number in a name, and a sequence's last epoch."""
    cell = re.sub(r"_\d+$", "", cell) if name.split(".")[-1] == "name" else cell
    return re.sub(r"; epoch \d+(?=[;)])", "", cell)


def figure_of(run, name):
    """The `Interval` of the run's EER or AUC, or None if its embeddings are not finite."""
    valid = getattr(run, "valid", None)  # a report has none
    return getattr(run, name, None) if valid is None or valid.is_finite else None


def interval(figure):
    return "–" if figure is None else f"{figure.estimate:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def number(value):
    return "–" if value is None else f"{value:.4g}"


def last(curve):
    """The last finite value of a curve, or None."""
    finite = [value for value in curve if np.isfinite(value)]
    return finite[-1] if finite else None


def draw_curves(figure, diagnoses):
    """Draw training loss and held-out EER over epochs, one line for each run; flagged epochs have dots."""
    axes = figure.subplots(1, 2)
    for place, (name, title) in enumerate((("loss", "training loss"), ("eer", "held-out EER"))):
        for run, diagnosis in enumerate(diagnoses):
            curve = np.array(diagnosis.observed.history.get(name, []), float)
            epochs, colour = np.arange(1, len(curve) + 1), COLOURS[run % len(COLOURS)]
            label = f"run {run + 1}"  # names may hold what matplotlib cannot write
            axes[place].plot(epochs, curve, color=colour, label=label, marker="." if len(curve) == 1 else None)
            flagged = [flag.epoch for flag in diagnosis.flags if flag.epoch < len(curve)]
            axes[place].plot(epochs[flagged], curve[flagged], "o", color=colour, markersize=4)
        axes[place].set(xlabel="epoch", ylabel=title)
        axes[place].fmt_ydata = (title + " {:.4g}").format
        axes[place].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylim(*range_of_losses([loss for one in diagnoses for loss in one.observed.history.get("loss", [])]))
    axes[1].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(diagnoses), frameon=False)
