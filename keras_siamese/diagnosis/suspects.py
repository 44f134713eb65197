"""Suspects: the causes that may be behind a run that verifies badly, the most suspicious first.

The findings come first. After them come near misses: causes that were ruled out, but would be found if one of their
limits were larger or smaller by a factor of at most `limits.NEAR_MISS`. A near miss is a second guess, so it never
raises an alarm. It must be able to explain why a run verifies badly; a cause of wrong figures (leakage, threshold)
cannot.

Contract: facts and ranked findings go in, `Suspect`s come out. Every cause is judged again from the same facts, with
one of its limits changed for this judgement alone. This takes some tens of milliseconds.

    findings, _ = examine(facts)
    for suspect in suspects_of(facts, findings):
        print(suspect.cause, suspect.factor, suspect.reason)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from math import log2
from typing import Any

from keras_siamese._files import SideWork
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes import CAUSES, Finding, RuledOut, Signal, explaining_flags
from keras_siamese.diagnosis.causes.base import answer_of

STEPS = 8  # to a factor of 2
FACTORS = tuple(2 ** (step / STEPS) for step in range(1, STEPS + 1))
# They say whether a run verifies well enough to be left alone, or how strong a finding is, and nothing about its cause.
GUARDS = frozenset({"GOOD_EER", "WELL_EER", "SCALED_EER", "FAILED_EER", "BAD_EER", "STRONGEST"})


@dataclass(frozen=True)
class Suspect:
    """A cause that may be behind the run.

    Attributes:
        cause: identifier, such as "margin".
        factor: the factor in (1, 1.6] by which one of the cause's limits would have to be less strict for it to be
            found; 1 if it was found.
        limit: the name of this limit in `limits.TABLE`; None if the cause was found.
        reason: why it is a suspect, in words.
        evidence: `Signal` by name, with the limits as they are.
        finding: the `Finding`, or the one that there would be with the other limit.
    """

    cause: str
    factor: float
    limit: str | None
    reason: str
    evidence: dict[str, Signal] = field(default_factory=dict)
    finding: Finding | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        return asdict(replace(self, finding=None), dict_factory=without_finding)


def without_finding(pairs):
    return {name: value for name, value in pairs if name != "finding"}


def suspects_of(facts, findings, leading=(), side=None):
    """The `Suspect`s of a run as a tuple: the `leading` findings, the other `findings` as they are ranked, near misses.

    Near misses are left out if the run verifies as it should and nothing alarms: nothing then needs explanation. If a
    cause raises, `side`, a `SideWork`, is told; None raises.
    """
    found = [finding for finding in findings if finding.cause != "undetermined"]
    found.sort(key=lambda finding: all(finding is not one for one in leading))
    near = near_misses(facts, side=side) if wants_explaining(facts, findings) else ()
    known = {finding.cause for finding in found}  # an experiment may have shown one of the near misses
    return (*map(of_finding, found), *(one for one in near if one.cause not in known))


def wants_explaining(facts, findings):
    """Whether a run ended with NaN, verifies badly, diverges, or has a finding that alarms and could be wrong."""
    alarms = [finding for finding in explaining_flags(findings) if finding.severity != "info"]
    return bool("not_finite" in facts or facts.get("verifies_badly") or alarms)


def of_finding(finding):
    by = f", explained by {finding.explained_by}" if finding.explained_by else ""
    return Suspect(finding.cause, 1.0, None, f"found ({finding.severity}{by})", finding.evidence, finding)


def near_misses(facts, reach=None, side=None):
    """The causes that are ruled out, but by a factor of at most `reach`, by default `limits.NEAR_MISS`, as a list of
    `Suspect`s, the nearest first.
    """
    reach = limits.NEAR_MISS if reach is None else reach
    causes = [cause for cause in CAUSES if cause.explains_flag and (cause.after_nan or "not_finite" not in facts)]
    side = SideWork(strict=True) if side is None else side
    answers = [(cause, answer_of(cause, facts, side)) for cause in causes]
    near = [near_miss(cause, answer, facts, reach, side) for cause, answer in answers if isinstance(answer, RuledOut)]
    return sorted((one for one in near if one is not None), key=lambda one: one.factor)


def near_miss(cause, ruled_out, facts, reach, side):
    """The `Suspect` of a cause that is `ruled_out`, or None if it is by more than a factor of `reach`."""
    names = limits_of(cause)
    for factor in FACTORS[: int(STEPS * log2(reach))]:
        for name in names:
            limit = limits.TABLE[name]
            for value in (limit.times(factor), limit.times(1 / factor)):
                if limit.unit.startswith("share") and value > 1:
                    continue
                found = judged(cause, facts, {name: value}, side)
                if isinstance(found, Finding):
                    limit_of = f"the limit {name.lower()} were {value:.3g} in place of {limit:.3g} ({limit.unit})"
                    reason = f"it would be found if {limit_of}"
                    return Suspect(cause.name, factor, name, reason, ruled_out.evidence, found)
    return None


def limits_of(cause):
    """Names of the limits that decide whether a `cause` is found."""
    module = ".".join(type(cause).__module__.split(".")[-2:])
    return [name for name, limit in limits.TABLE.items() if module in limit.used_by and name not in GUARDS]


def judged(cause, facts, values, side):
    """What a `cause` answers on `facts` if some limits have other `values`; `side` is told if it raises."""
    with limits.changed(**values):
        return answer_of(cause, facts, side)
