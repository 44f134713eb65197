"""`Diagnosis`: the verdict on a run, the ranked findings, and what was ruled out; as text, JSON and HTML.

diagnosis = diagnosis_of(observed)
print(diagnosis)
diagnosis.to_html("report.html")
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_writable
from keras_siamese._files import write_text
from keras_siamese._reading import json_of, text_of
from keras_siamese._types import ArrayLike, StrPath
from keras_siamese._version import __version__
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import explained, smaller_rate
from keras_siamese.diagnosis.causes import Finding, NotExamined, RuledOut, Signal, examine, explaining_flags
from keras_siamese.diagnosis.causes.base import signals_of
from keras_siamese.diagnosis.experiments.confirm import with_confirmations
from keras_siamese.diagnosis.facts.references import references_of
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.recorded import Recorded
from keras_siamese.diagnosis.report.errors import errors_dict
from keras_siamese.diagnosis.report.notebook import html_of
from keras_siamese.diagnosis.run import plain
from keras_siamese.diagnosis.suspects import Suspect, suspects_of
from keras_siamese.diagnosis.trend import Flag

SCHEMA = "keras_siamese.diagnosis/2.3"  # of report.schema.json


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about one run.

    Attributes:
        diverging: whether the loss fell while verification did not follow, at any epoch.
        findings: `Finding`s, ranked; "undetermined" first if the run diverged for good and nothing explains it.
        ruled_out: `RuledOut` causes with what was measured.
        not_examined: `NotExamined` causes with what they would have needed, or the error that made it impossible.
        observed: the `Observed` that it was made from, or the `Recorded` that was read from JSON. Older names of it,
            `run` and `evidence`, remain.
    """

    observed: Observed | Recorded
    findings: tuple[Finding, ...]
    ruled_out: tuple[RuledOut, ...]
    not_examined: tuple[NotExamined, ...]

    @property
    def run(self) -> Observed | Recorded:
        """An older name of `observed`."""
        return self.observed

    evidence = run

    @property
    def facts(self) -> Any:
        """The `Facts` that the causes have judged: numbers, words and rows, by name."""
        return self.observed.facts

    @property
    def diverging(self) -> bool:
        return bool(self.observed.flags)

    @property
    def flags(self) -> list[Flag]:
        """Flagged epochs, as `trend.Flag`s in order."""
        return self.observed.flags

    @property
    def verdict(self) -> str:
        """One sentence: whether the run diverged, since when, and why."""
        if not self.observed.is_finite:
            return "; ".join([*nan_since(self.observed), *self._causes]) + "."
        eer = f"held-out EER {self.observed.eer.estimate:.3f}"
        if "loss_not_finite_since" in self.facts:
            state = f"The loss is NaN or infinite since epoch {self.facts['loss_not_finite_since']:.0f}"
        elif self.diverging:
            since = f"{self.flags[0].place} ({self.flags[0].reason})"
            if self.observed.recovered:
                state = f"The loss fell and verification did not follow at {since}, but has since"
            else:
                state = f"The loss falls and verification does not follow since {since}"
        elif self.observed.why_no_flags is not None:
            state = f"Whether verification follows the loss is not known ({self.observed.why_no_flags})"
        elif self.facts.get("verifies_badly"):
            state = "The run verifies badly, although no epoch is flagged"
        else:
            state = "No divergence of loss and verification was found"
        return "; ".join([state, eer, *self._causes]) + "."

    @property
    def leading(self) -> list[Finding]:
        """The leading `Finding`, or those that explain the evidence equally well, as a list; empty if none counts."""
        leading = [one for one in self.findings if one.explained_by is None and one.severity != "info"]
        if not self.observed.is_finite and leading[0].cause == "undetermined":
            return []
        tested = [one for one in leading if one.confirmation is not None and one.confirmation.verdict == "confirmed"]
        if tested:
            most = tested[0].confirmation.gain
            return [one for one in tested if one.confirmation.gain > limits.EQUALLY_WELL * most]
        if self.diverging:  # a threshold, say, moves neither AUC nor EER
            leading = explaining_flags(leading) or leading[:1]
        least = limits.EQUALLY_WELL * leading[0].strength if leading else 0.0
        return [one for one in leading if one.severity == leading[0].severity and one.strength > least]

    @cached_property
    def suspects(self) -> tuple[Suspect, ...]:
        """The causes that may be behind the run, as a tuple of `Suspect`s: the leading findings first, then the others,
        then causes that were ruled out, but not by far. These are given only if the run verifies badly.
        """
        return suspects_of(self.facts, self.findings, self.leading, self.observed.side)

    @property
    def also_possible(self) -> list[Suspect]:
        """The `suspects` that were not found."""
        return [suspect for suspect in self.suspects if suspect.limit is not None]

    @property
    def is_alarming(self) -> bool:
        """Whether an error was found that explains why verification does not follow, even if no epoch is flagged."""
        return any(one.severity == "error" for one in explaining_flags(self.leading))

    @property
    def _causes(self):
        """The leading causes, or that none was found of a run that verifies badly, as a list of one clause or none."""
        if not self.leading:
            if not self.observed.is_finite or not self.facts.get("verifies_badly"):
                return []
            why = "; give the training data (train=…) to examine more" if "train_eer" not in self.facts else ""
            return [f"no cause was found{why}"]
        causes = " or ".join(finding.cause.replace("_", " ") for finding in self.leading)
        tie = ", which explain it equally well" if len(self.leading) > 1 else ""
        if all(one.confirmation is not None and one.confirmation.verdict == "refuted" for one in self.leading):
            tie = ", refuted by experiment"
        return [f"{'cause' if self.diverging else 'found'}: {causes}{tie}"]

    def __str__(self) -> str:
        lines = [self.verdict]
        if references := references_of(self.facts):
            beside = ", ".join(f"{title} {eer:.3f}" for _, title, eer in references)
            lines.append(f"Held-out EER of references, on the same pairs: {beside}.")
        for number, finding in enumerate(self.findings, 1):
            by = f", explained by {finding.explained_by}" if finding.explained_by else ""
            lines.append(f"\n{number}. {finding.cause} ({finding.severity}{by}): {finding.summary}")
            lines += [f"     {signal.line(name)}" for name, signal in finding.evidence.items()]
            lines += [f"   {finding.confirmation}"] if finding.confirmation else []
            lines += ["   advice:"] + [f"     {line}" for line in finding.advice.splitlines()]
        for suspect in self.also_possible:
            lines.append(f"\nAlso possible: {suspect.cause}; {suspect.reason}")
            lines += [f"     {signal.line(name)}" for name, signal in suspect.evidence.items()]
        if self.ruled_out:
            lines.append(f"\nRuled out: {', '.join(answer.cause for answer in self.ruled_out)}.")
        lines += [f"Not examined: {', '.join(causes)} ({reason})." for reason, causes in self.unexamined.items()]
        return "\n".join(lines)

    def _repr_html_(self):
        return html_of(self)

    @property
    def unexamined(self) -> dict[str, list[str]]:
        """Why causes were not examined, "needs …" or "error: …", and which of them: a dict of lists."""
        reasons = {}
        for answer in self.not_examined:
            reasons.setdefault(answer.reason, []).append(answer.cause)
        return reasons

    @property
    def needed(self) -> dict[str, list[str]]:
        """What the causes that were not examined would have needed, and which need it: a dict of lists."""
        needed = {}
        for answer in [answer for answer in self.not_examined if answer.error is None]:
            needed.setdefault(answer.needs, []).append(answer.cause)
        return needed

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, as `to_json` writes them; NaN is None."""
        return plain(
            {
                "schema": SCHEMA,
                "verdict": self.verdict,
                "diverging": self.diverging,
                "flags": [flag.to_dict() for flag in self.flags],
                "findings": [finding_dict(finding) for finding in self.findings],
                "suspects": [suspect.to_dict() for suspect in self.suspects],
                "ruled_out": [asdict(answer) for answer in self.ruled_out],
                "not_examined": [not_examined_dict(answer) for answer in self.not_examined],
                "signals": self.facts.numbers,
                "facts": {name: value for name, value in self.facts.to_dict().items() if name != "numbers"},
                "references": {
                    name: {"title": title, "eer": eer, "behind": self.facts.get(f"behind_{name}")}
                    | {"standard_error": self.facts.get(f"behind_{name}_se")}
                    for name, title, eer in references_of(self.facts)
                },
                "run": {
                    name: getattr(self.observed, name) for name in ("recovered", "not_finite_since", "why_no_flags")
                },
                "history": self.observed.history,
                "parts": self.observed.parts,
                **measured_dict(self.observed),
                "settings": self.observed.settings,
            }
        )

    def to_json(self, path: StrPath) -> Path:
        """Writes `to_dict()` as JSON to `path`; returns the path."""
        path = check_writable("path", path)
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def from_json(cls, path: StrPath) -> Diagnosis:
        """The `Diagnosis` of a report that `to_json` wrote: its causes are judged again from the recorded facts.

        This takes milliseconds and needs neither the model nor its data. `to_html` cannot draw such a diagnosis.

        Raises:
            ValueError: if `path` is no report of a diagnosis, or of a version before 2.1, which recorded less.
        """
        name = f"`path` must be a report that Diagnosis.to_json wrote; {str(path)!r}"
        report = json_of(text_of(path, name), name)
        report = report if isinstance(report, dict) else {}
        if not {"schema", "facts", "run"} <= set(report):
            found = report.get("schema", "no schema")
            raise ValueError(
                f"`path` must be a report that Diagnosis.to_json wrote, with the schema {SCHEMA!r}; {str(path)!r} has "
                f"{found!r}. Diagnose the run again to write one"
            )
        try:
            found = {one["cause"]: one.get("confirmation") for one in report["findings"]}
            diagnosis = with_confirmations(diagnosis_of(Recorded(report)), found)
            diagnosis.to_dict(), str(diagnosis)  # what is of a wrong type is found now and not when it is printed
        except MemoryError:
            raise
        except Exception as error:  # a value of a wrong type fails wherever it is used first
            raise ValueError(
                f"`path` must be a whole report that Diagnosis.to_json wrote; {str(path)!r} is damaged: "
                f"{type(error).__name__}: {error}"
            ) from error
        return diagnosis

    def to_html(self, path: StrPath, groups: ArrayLike | None = None) -> Path:
        """Writes the report as one self-contained HTML file to `path`; returns the path. Needs the extra `report`.

        With `groups`, a reader can choose a group of pairs: error rates, counts and curves over the threshold, and the
        examples, are then those of the group. It is that of each validation sample `(n,)`, such as its device, or of
        each pair if the validation data are pairs, integers or strings. Pairs of samples of two groups are in a group
        of their own, "a and b". Of more than a hundred groups, the smallest are put together.
        """
        if isinstance(self.observed, Recorded):
            raise ValueError(
                "A diagnosis that was read from JSON has no samples and scores, so its page cannot be drawn. Call "
                "to_html on the diagnosis of the model itself"
            )
        if not self.observed.valid.is_finite:
            raise ValueError("No embeddings of this run are finite, so it has no page. Call to_json instead")
        from keras_siamese.diagnosis.report.page import render

        path = check_writable("path", path)
        # A file's name may hold what is no text: its bytes are spelt out.
        write_text(path, render(self, groups), errors="backslashreplace")
        return path


def measured_dict(observed):
    """What a report says of the held-out verification, its errors, and the versions that measured it."""
    versions = {"keras_siamese": __version__, "keras": keras.__version__, "backend": keras.backend.backend()}
    versions |= {"numpy": np.__version__, "python": platform.python_version()}
    if isinstance(observed, Recorded):
        return {name: observed.report[name] for name in ("verification", "errors", "versions")}
    valid = observed.valid
    if not valid.is_finite:
        return {"verification": None, "errors": None, "versions": versions}
    genuine = int(np.count_nonzero(valid.same))
    figures = {"items": len(valid.embeddings), "genuine_pairs": genuine, "impostor_pairs": len(valid.same) - genuine}
    for name, found in observed.intervals.items():
        figures |= {name: found.estimate, f"{name}_interval": [found.low, found.high]}
    errors = errors_dict(valid, verification.eer_point(valid.same, valid.scores).threshold)
    return {"verification": figures, "errors": errors, "versions": versions}


def diagnosis_of(observed):
    """The `Diagnosis` of `observed`: every cause examined, "undetermined" where a diverging run is left unexplained."""
    findings, others = examine(observed.facts, observed.side)
    if not observed.is_finite and not findings:
        findings = [not_finite(observed)]
    ruled_out, not_examined = (
        tuple(answer for answer in others if isinstance(answer, kind)) for kind in (RuledOut, NotExamined)
    )
    if observed.is_finite and observed.flags and not observed.recovered and not explaining_flags(findings):
        findings = [undetermined(observed, ruled_out), *findings]
    return Diagnosis(observed, tuple(findings), ruled_out, not_examined)


def undetermined(observed, ruled_out):
    """The finding that no examined cause explains the flags, with what a person may start from."""
    auc, facts = observed.auc, observed.facts
    signals = {"auc": Signal(auc.estimate, None, 0.5, auc.low, auc.high)}
    signals |= signals_of(facts, spread=(None, 1.0), effective_rank=None)
    if "intra_inter_ratio" in facts:
        signals["genuine_over_impostor_distance"] = Signal(facts["intra_inter_ratio"], None, 1.0)
    return Finding(
        "undetermined",
        "warning",
        observed.epoch,
        "The loss falls and verification does not follow; none of the examined causes explains it. "
        f"Ruled out: {', '.join(answer.cause for answer in ruled_out) or 'nothing'}.",
        signals,
        explained(
            "print(ks.diagnose(siamese, train=(x, labels), validation=(x_valid, labels_valid), history=history))"
        ),
    )


def nan_since(observed):
    """Clauses that say since when embeddings are not finite, and how they verified before."""
    if observed.not_finite_since is None:
        return ["Embeddings are NaN or infinite"]
    known = isinstance(observed, Recorded) or observed.valid.is_finite
    since = f"Embeddings are NaN or infinite since epoch {observed.not_finite_since + 1}"
    has_figures = known and hasattr(observed, "eer")
    return [since, f"held-out EER {observed.eer.estimate:.3f} before"] if has_figures else [since]


def not_finite(observed):
    """The finding that training has left NaN or infinity, and no examined cause explains it."""
    since = "" if observed.not_finite_since is None else f"From epoch {observed.not_finite_since + 1} on "
    return Finding(
        "undetermined",
        "error",
        observed.epoch,
        f"{since or 'The '}embeddings are NaN or infinite: a step was too large, or the loss or the data hold NaN."
        + (" Figures are of the last epoch before." if since else ""),
        {},
        explained(
            f"siamese.compile(keras.optimizers.Adam({smaller_rate(observed.facts)}, clipnorm=1.0), loss=loss)\n"
            "stop = keras.callbacks.TerminateOnNaN()  # a callback"
        ),
        lambda recipe: {**recipe, "learning_rate": recipe.get("learning_rate", limits.USUAL_RATE) / 10},
    )


def not_examined_dict(answer):
    """A `NotExamined` as a plain dict; without its `error` if there is none."""
    return {name: value for name, value in asdict(answer).items() if value is not None}


def finding_dict(finding):
    """A finding as a plain dict; whether it can be applied stands for the function."""
    left_out = ("apply", "stage", "explains_flag")
    own = {name: value for name, value in asdict(finding).items() if name not in left_out}
    return own | {"can_apply": finding.apply is not None}
