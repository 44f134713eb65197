"""A run as its JSON report records it: enough to judge it again, without the model, its data or any training.

Contract: `Recorded` has those attributes of `observed.Observed` that a diagnosis reads. It lacks what needs the
samples, such as the pictures of the HTML page.

    run = Recorded(json.loads(text))
    run.facts["eer"], run.flags, run.eer.low
"""

from typing import NamedTuple

from keras_siamese._files import SideWork
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.trend import Flag


class Figure(NamedTuple):
    """A figure with its 95 % interval."""

    estimate: float
    low: float
    high: float


def curves_in(curves):
    """Curves by name, as JSON holds them; it writes NaN as null."""
    return {name: [float("nan") if value is None else value for value in curve] for name, curve in curves.items()}


def check_types(report):
    """Refuse a report whose facts are of other types than those that were measured: the causes compute with them."""
    kinds = {"words": (str,), "rows": (list,), "errors": (str,)}
    parts = [("signals", report["signals"], (int, float, type(None)))]
    parts += [(name, values, kinds[name]) for name, values in report["facts"].items()]
    for name, values, allowed in [*parts, ("settings", report["settings"], None)]:
        if not isinstance(values, dict):
            raise ValueError(f"{name} must be an object; it is a {type(values).__name__}")
        wrong = [key for key, value in values.items() if allowed and type(value) not in allowed]
        if wrong:
            expected = " or ".join(kind.__name__ for kind in allowed)
            raise ValueError(f"{name} must hold values of type {expected}; {wrong[0]!r:.200} is another")


class Recorded:
    """The run of a `report`, a dict as `Diagnosis.to_dict` gives it; the other attributes are those of `Observed`."""

    def __init__(self, report):
        check_types(report)
        self.report = report
        self.facts, self.side = Facts(report["signals"], **report["facts"]), SideWork()
        self.flags = [Flag(**flag) for flag in report["flags"]]
        names = ("recovered", "not_finite_since", "why_no_flags")
        self.recovered, self.not_finite_since, self.why_no_flags = (report["run"][name] for name in names)
        self.history, self.parts = (curves_in(report.get(name, {})) for name in ("history", "parts"))
        self.epoch = len(self.history["loss"]) - 1 if self.history.get("loss") else None
        self.settings = report["settings"]
        found = report["verification"]
        self.is_finite = self.not_finite_since is None and found is not None
        if found is not None:
            self.auc, self.eer = (Figure(found[name], *found[f"{name}_interval"]) for name in ("auc", "eer"))
