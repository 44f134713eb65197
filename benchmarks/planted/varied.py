"""Judges recorded runs again with one limit changed: what do detection, alarms and names owe to it?

Contract: records of one half go in, counts of runs come out. A cause is examined again only if it reads the limit. If
the flag reads it, the recorded curves are flagged again, and what the facts say of the flag follows. A limit that only
measurements read cannot be judged from records.

    runs = Runs(records)
    runs.counts(), runs.counts({"POINT": 0.5})
"""

from operator import ne

from keras_siamese.diagnosis import causes, limits
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.ranking import rank
from keras_siamese.diagnosis.run import ALWAYS
from keras_siamese.diagnosis.trend import find_flags, has_recovered, verifies_badly
from planted.judging import ALARMING, killed, plant_of

FACTORS = {"half": 0.5, "double": 2.0}


def users_of(name):
    """What judges recorded runs by the limit `name`: "flag", and names of causes; empty for what only measures."""
    found = set()
    for module in limits.TABLE[name].used_by:
        kind, _, rest = module.partition(".")
        if module == "trend":
            found.add("flag")
        elif module == "causes.base":
            found |= set(causes.names())
        elif kind == "causes":
            found |= {cause.name for cause in causes.CAUSES if cause.__module__.endswith(f".{rest}")}
    return found


class Run:
    """One recorded run, with the answers of the causes under the usual limits.

    Its flags are found in its curves, since the rule may have changed after it was recorded.
    """

    def __init__(self, record):
        self.record = record
        facts = record["facts"] or {"numbers": {"not_finite": 1.0}, "words": {}}
        self.measured = Facts(facts["numbers"], facts["words"], {})
        self.is_finite = "not_finite" not in self.measured
        self.causes = [cause for cause in causes.CAUSES if self.is_finite or cause.after_nan]
        self.facts = self.flagged()
        self.answers = {cause.name: cause.examine(self.facts) for cause in self.causes}

    def flagged(self):
        """The measured facts, with what they say of the flag as the present limits find it in the curves."""
        if not self.is_finite or not self.record["history"].get("loss"):
            return self.measured
        curves = {name: self.record["history"][name] for name in ALWAYS}
        pairs = int(self.measured["pairs"])
        flags = find_flags(**curves, pairs=pairs)
        del curves["loss"]
        recovered = has_recovered(flags, **curves, pairs=pairs)
        of_flag = {
            "flagged": float(len(flags)),
            "recovered": float(recovered),
            "verifies_badly": float(verifies_badly(self.measured["eer"], flags, recovered)),
        }
        return Facts({**self.measured.numbers, **of_flag}, self.measured.words, {})

    def judged(self, users=()):
        """`(findings, flagged)`: `(cause, severity)` of each finding, in order, as the `users` of a limit judge now."""
        facts = self.flagged() if "flag" in users else self.facts
        every = facts.numbers != self.facts.numbers
        answers = [
            cause.examine(facts) if every or cause.name in users else self.answers[cause.name] for cause in self.causes
        ]
        ranked = rank([answer for answer in answers if isinstance(answer, causes.Finding)])
        found = [(finding.cause, finding.severity) for finding in ranked]
        return found if found or self.is_finite else [("undetermined", "error")], bool(facts.get("flagged"))


class Runs:
    """The faulty runs in which the fault does harm, and the healthy runs, of the `records` of one half."""

    def __init__(self, records):
        kept = killed(records)
        self.faults = [Run(r) for r in records if r["kind"] == "fault" and kept.get(plant_of(r), (False,))[0]]
        self.controls = [Run(r) for r in records if r["kind"] == "control"]
        self.usual = self.judged()

    def judged(self, values=None):
        """What is found in each faulty run, and in each healthy one, under the limits `values`, by name."""
        users = set().union(*map(users_of, values or {}))
        with limits.changed(**values or {}):
            return [[run.judged(users) for run in runs] for runs in (self.faults, self.controls)]

    def counts(self, values=None):
        """Numbers of runs: detected, with a false alarm, named first, flagged, and judged otherwise than usual."""
        faults, controls = judged = self.judged(values)
        alarms = [[alarming(found) for found, _ in runs] for runs in judged]
        planted = [run.record["name"] for run in self.faults]
        return {
            "detected": sum(map(bool, alarms[0])),
            "alarms": sum(map(bool, alarms[1])),
            "named": sum(names[:1] == [name] for names, name in zip(alarms[0], planted, strict=True)),
            "flagged_faults": sum(flagged for _, flagged in faults),
            "flagged_controls": sum(flagged for _, flagged in controls),
            "judged_otherwise": sum(map(ne, [*faults, *controls], [*self.usual[0], *self.usual[1]])),
        }


def alarming(found):
    """The causes that raise an alarm, of the `(cause, severity)` of findings."""
    return [cause for cause, severity in found if severity in ALARMING]


def varied(runs, name):
    """The counts of `runs` with the limit `name` at half and at double its value; None if records cannot tell."""
    if not users_of(name):
        return None
    return {what: runs.counts({name: limits.TABLE[name].times(factor)}) for what, factor in FACTORS.items()}
