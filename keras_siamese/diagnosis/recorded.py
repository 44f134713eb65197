"""A run as its report in JSON has recorded it: enough to judge it again, without the model, its data or any training.

Contract: `Recorded` has those attributes of `observed.Observed` that a diagnosis reads. What needs the samples, such as
the pictures of the HTML page, is not there.

    run = Recorded.from_report(json.loads(text))
    run.facts["eer"], run.flags, run.eer.low
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.trend import Flag


class Figure(NamedTuple):
    """A figure with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(eq=False)
class Recorded:
    """A recorded run. `report` is all that the JSON says; the other attributes are those of `Observed`."""

    facts: Facts
    flags: list = field(default_factory=list)
    recovered: bool = False
    not_finite_since: int | None = None
    why_no_flags: str | None = None
    report: dict = field(default_factory=dict)

    @classmethod
    def from_report(cls, report):
        """The run that the dict `report` describes, as `Diagnosis.to_dict` gives it."""
        run, facts = report["run"], report["facts"]
        flags = [Flag(**flag) for flag in report["flags"]]
        return cls(Facts(report["signals"], facts["words"], facts["rows"]), flags, **run, report=report)

    @property
    def history(self):
        curves = self.report["history"]
        return {name: [float("nan") if value is None else value for value in curve] for name, curve in curves.items()}

    @property
    def settings(self):
        return self.report["settings"]

    @property
    def epoch(self):
        """Index of the last epoch, from 0; None without a history."""
        return len(self.history["loss"]) - 1 if self.history.get("loss") else None

    @property
    def auc(self):
        return self.figure("auc")

    @property
    def eer(self):
        return self.figure("eer")

    def figure(self, name):
        found = self.report["verification"]
        return Figure(found[name], *found[f"{name}_interval"])
