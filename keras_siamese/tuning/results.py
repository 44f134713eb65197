"""Results of a search: all trials as a table, as scikit-learn's `cv_results_`, and as an HTML page.

Contract: `SearchResults.of(tuner)` reads a KerasTuner tuner during a search, after it, or a new tuner on the same
folder.

    results = SearchResults.of(tuner)
    print(results)                                      # the table, the failures and the causes
    results.to_frame(), results.to_html("search.html"), results.to_tensorboard("logs")
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import html
from pathlib import Path
from typing import Any

import numpy as np

from keras_siamese import _checks
from keras_siamese._files import write_text
from keras_siamese._tables import aligned, html_table
from keras_siamese._types import DataFrame, Objective, Self, StrPath, Tuner
from keras_siamese.tuning import report
from keras_siamese.tuning.folds import FILE, read_json
from keras_siamese.tuning.objectives import sign_of

FAILURE = "failure.txt"


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """The result of one trial."""

    name: str  # KerasTuner's id of the trial
    params: dict[str, Any]  # its active hyperparameters by name
    records: list[Any]  # one for each fit, see `folds`
    value: float  # the mean of the objective over the folds; NaN if the trial failed or is not finished
    error: str | None = None  # the traceback of a failed trial

    @property
    def cause(self):
        """The most frequent cause among its flagged fits, None if no fit was flagged."""
        causes = collections.Counter(record["cause"] for record in self.records if record.get("cause"))
        return causes.most_common(1)[0][0] if causes else None


class SearchResults:
    """The trials of a search, as tables, page and TensorBoard summaries.

    Args:
        trials: list of `TrialResult`, in the order in which they were started.
        objective: KerasTuner's `Objective`.
        cv: number of folds of a trial; 1 if all trials are measured on the same held-out data.

    Attributes:
        trials, objective, cv: as given.
        names: the names of all hyperparameters of the trials, in order of their first occurrence.
        failures: dict from the name of each failed trial to its traceback.
        causes: dict from each cause of divergence to the number of trials flagged with it.
        best: the best `TrialResult`.
        cv_results_: dict of arrays with one entry for each trial, as in scikit-learn: `params`, `param_<name>` (masked
            where the trial does not have it), `split<i>_test_score`, `mean_test_score`, `std_test_score`,
            `rank_test_score`, `mean_fit_time`, `std_fit_time` (seconds); also `split<i>_<objective>`,
            `mean_<objective>`, `std_<objective>`, `split<i>_best_epoch` (from 1). A greater test score is better: if
            the objective is minimised, it is the negative value, as for scikit-learn's `neg_` scorers.

    Raises:
        RuntimeError: from `best` and `of`, if every trial failed; it contains the first traceback.
    """

    def __init__(self, trials: list[TrialResult], objective: Objective, cv: int) -> None:
        self.trials, self.objective, self.cv = list(trials), objective, cv
        self.failures = {trial.name: trial.error for trial in self.trials if trial.error is not None}
        causes = collections.Counter(trial.cause for trial in self.trials if trial.cause)
        self.causes = dict(causes.most_common())
        self.names = list(dict.fromkeys(name for trial in self.trials for name in trial.params))
        self.cv_results_ = self._table()

    @classmethod
    def of(cls, tuner: Tuner) -> Self:
        """Reads the results of a KerasTuner `tuner` whose hypermodel is a `SiameseHyperModel`.

        Raises:
            TypeError: if `tuner` is no tuner.
        """
        if not hasattr(tuner, "oracle"):
            raise TypeError(f"`tuner` must be a KerasTuner tuner; got {tuner!r} of type {type(tuner).__name__}")
        known = getattr(tuner.oracle, "trials", None)
        if known is None:
            raise ValueError("`tuner` must be the tuner of the chief, which knows all trials; got that of a worker")
        trials = [known[name] for name in tuner.oracle.start_order]
        folder = Path(tuner.project_dir)
        found = [read_trial(folder / f"trial_{trial.trial_id}", trial, tuner.oracle.objective) for trial in trials]
        results = cls(found, tuner.oracle.objective, max((len(trial.records) for trial in found), default=1) or 1)
        if results.trials and len(results.failures) == len(results.trials):
            raise RuntimeError(results.failure())
        return results

    def failure(self) -> str:
        """The text of an error: how many trials failed, and the hyperparameters and traceback of the first of them."""
        first = next(trial for trial in self.trials if trial.error is not None)
        return f"{len(self.failures)} of {len(self.trials)} trials failed; first {first.params}:\n{first.error}"

    @property
    def best(self) -> TrialResult:
        if self.failures and len(self.failures) == len(self.trials):
            raise RuntimeError(self.failure())
        if not np.isfinite([trial.value for trial in self.trials]).any():
            raise RuntimeError("No trial is finished")
        return self.trials[int(np.argmin(self.cv_results_["rank_test_score"]))]

    def _table(self):
        """`cv_results_`; folds that a trial did not reach are NaN."""
        table = np.full((3, self.cv, len(self.trials)), np.nan)
        for entry, trial in enumerate(self.trials):
            for fold, record in enumerate(trial.records):
                table[:, fold, entry] = record["logs"][self.objective.name], record["epoch"], record["seconds"]
        values, epochs, seconds = table
        sign, name = sign_of(self.objective), self.objective.name
        means = np.array([trial.value for trial in self.trials], dtype=float)
        with np.errstate(invalid="ignore"):  # d′ can be infinite; its spread is then NaN
            spread = values.std(axis=0)
        ranked = np.where(np.isnan(means), -np.inf, sign * means)
        return {
            "mean_fit_time": seconds.mean(axis=0),
            "std_fit_time": seconds.std(axis=0),
            **{f"param_{name}": column_of(self.trials, name) for name in self.names},
            "params": copy.deepcopy([trial.params for trial in self.trials]),
            **{f"split{fold}_test_score": sign * one for fold, one in enumerate(values)},
            "mean_test_score": sign * means,
            "std_test_score": spread,
            "rank_test_score": 1 + np.sum(ranked > ranked[:, None], axis=1, dtype=np.int32),
            **{f"split{fold}_{name}": one for fold, one in enumerate(values)},
            f"mean_{name}": means,
            f"std_{name}": spread,
            **{f"split{fold}_best_epoch": one for fold, one in enumerate(epochs)},
        }

    def to_frame(self) -> DataFrame:
        """`cv_results_` as a pandas DataFrame, best trial first, with the extra columns `trial`, `cause`, `error`."""
        pandas = _checks.check_installed("pandas", "test")
        frame = pandas.DataFrame({key: list(column) for key, column in self.cv_results_.items()})
        frame.insert(0, "trial", [trial.name for trial in self.trials])
        frame["cause"] = [trial.cause for trial in self.trials]
        frame["error"] = [trial.error for trial in self.trials]
        return frame.sort_values("rank_test_score", kind="stable").reset_index(drop=True)

    def rows(self) -> list[list[str]]:
        """The table as rows of strings, best trial first, after a head row; it leaves out what is in `constants`."""
        names = [name for name in self.names if name not in self.constants]
        name = self.objective.name
        table = [["rank", "trial", name, "±", "epoch", "seconds", *names, "remark"]]
        for at in np.argsort(self.cv_results_["rank_test_score"], kind="stable"):
            trial = self.trials[at]
            values = [trial.value, self.cv_results_[f"std_{name}"][at] if self.cv > 1 else np.nan]
            epochs = [record["epoch"] for record in trial.records]
            spent = [record["seconds"] for record in trial.records]
            rank = str(self.cv_results_["rank_test_score"][at]) if trial.error is None else ""
            cells = [rank, trial.name, *(f"{value:.4f}" if not np.isnan(value) else "" for value in values)]
            cells += [f"{np.mean(epochs):.1f}" if epochs else "", f"{sum(spent):.1f}" if spent else ""]
            table.append([*cells, *(shown(trial.params.get(name)) for name in names), self.remark(trial)])
        return table

    @property
    def constants(self) -> dict[str, Any]:
        """The hyperparameters that have the same value in all of several trials, by name."""
        first, *others = self.trials or [None]
        same = [name for name in self.names if all(name in trial.params for trial in self.trials)]
        same = [name for name in same if all(trial.params[name] == first.params[name] for trial in others)]
        return {name: first.params[name] for name in same if others}

    def remark(self, trial: TrialResult) -> str:
        """A remark on a trial: whether it failed, was given up, or diverged, and why."""
        if trial.error is not None:
            return f"failed: {trial.error.strip().splitlines()[-1]}"
        parts = [f"given up after {len(trial.records)} of {self.cv} folds"] if len(trial.records) < self.cv else []
        return "; ".join(parts + ([f"diverged: {trial.cause}"] if trial.cause else []))

    def summary(self) -> str:
        """One line: the numbers of trials and failures, the causes, and the values that all trials share."""
        parts = [f"{len(self.trials)} trials"]
        parts += [f"{len(self.failures)} failed"] * bool(self.failures)
        causes = ", ".join(f"{cause} {count}" for cause, count in self.causes.items())
        parts += [f"{sum(self.causes.values())} diverged ({causes})"] * bool(self.causes)
        alike = ", ".join(f"{name} {shown(value)}" for name, value in self.constants.items())
        return ", ".join(parts) + (f"; all with {alike}" if alike else "")

    def __str__(self) -> str:
        return "\n".join([*aligned(self.rows()), self.summary()])

    def _repr_html_(self):
        return f"<p>{html.escape(self.summary())}</p>{html_table(self.rows())}"

    def to_html(self, path: StrPath) -> None:
        """Writes one self-contained HTML page with the table and a parallel-coordinates plot (extra `report`)."""
        path = _checks.check_writable("path", path)
        write_text(path, report.render(self))

    def to_tensorboard(self, log_dir: StrPath) -> None:
        """Writes the trials into a folder for the HParams tab of TensorBoard (package `tensorboard`)."""
        report.write_hparams(self, log_dir)


def read_trial(folder, trial, objective):
    """The `TrialResult` of KerasTuner's `trial`, with the records and the traceback in its folder."""
    file, failure = folder / FILE, folder / FAILURE
    records = read_json(file, "list") if file.exists() else []
    params = {name: value for name, value in trial.hyperparameters.values.items() if not name.startswith("tuner/")}
    error = None
    if trial.status in ("FAILED", "INVALID"):
        error = failure.read_text(encoding="utf-8") if failure.exists() else trial.message or "no traceback"
    is_scored = trial.status == "COMPLETED" and trial.metrics.exists(objective.name)
    value = trial.metrics.get_best_value(objective.name) if is_scored else np.nan
    return TrialResult(trial.trial_id, params, records, float(value), error)


def shown(value):
    """A hyperparameter's value in a table."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def column_of(trials, name):
    """One hyperparameter of all trials, masked for trials that do not have it."""
    # Without the None at the end, values that are lists of equal length would become the rows of a matrix.
    values = np.array([*(trial.params.get(name) for trial in trials), None], dtype=object)[:-1]
    return np.ma.masked_array(values, [name not in trial.params for trial in trials])
