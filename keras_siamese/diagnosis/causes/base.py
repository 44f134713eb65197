"""What a cause is, and what it answers with.

Contract: a cause takes `Facts` and answers with a `Finding`, `RuledOut` (what it measured), or `NotExamined` (what it
would have needed). Adding a cause is adding one subclass of `Cause` in one file of this room. A repair works on a
*recipe*, a plain dict of options under this package's argument names, and returns a new one.

A finding's `strength` says how far past its threshold the leading signal is; severities say how sure it is that
something is wrong: "error" where the signal has no innocent reading, "warning" where it has to be looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from keras_siamese.diagnosis.trend import GOOD_EER

SEVERITIES = ("info", "warning", "error")
STRONGEST = 10.0  # past this the strengths of two causes are as good as equal
TOLD_APART = 0.10  # EER of identities that an encoder has learned


@dataclass(frozen=True)
class Signal:
    """A measured value beside the threshold it is held against and its value under the null."""

    value: float
    threshold: float | None = None
    null: float | None = None
    low: float | None = None
    high: float | None = None

    def line(self, name):
        """The signal as one line of text under its `name`."""
        text = f"{name.replace('_', ' ')} {self.value:.4g}"
        if self.low is not None:
            text += f" [{self.low:.4g}, {self.high:.4g}]"
        beside = (("threshold", self.threshold), ("null", self.null))
        notes = ", ".join(f"{what} {value:.4g}" for what, value in beside if value is not None)
        return f"{text}  ({notes})" if notes else text


@dataclass(frozen=True)
class Finding:
    """A cause, found.

    Attributes:
        cause: identifier, such as "inverted_labels".
        severity: "info", "warning" or "error".
        epoch: epoch of the evidence, or None.
        summary: one sentence that says what was seen.
        evidence: `Signal` by name.
        advice: what to change, as code that runs.
        apply: a function from a recipe (dict of options) to a repaired one, or None where only a person can act.
        strength: how far past its threshold the leading signal is, as a ratio in [1, 10]; ranks within a severity.
        explains: causes that would be found as well if this one were the only one.
        explained_by: the cause that brings this finding about as well, or None.
    """

    cause: str
    severity: str
    epoch: int | None
    summary: str
    evidence: dict[str, Signal]
    advice: str
    apply: Callable[[dict], dict] | None = None
    strength: float = 1.0
    explains: tuple[str, ...] = ()
    explained_by: str | None = None


@dataclass(frozen=True)
class RuledOut:
    """A cause that the evidence speaks against."""

    cause: str
    evidence: dict[str, Signal] = field(default_factory=dict)


@dataclass(frozen=True)
class NotExamined:
    """A cause that could not be examined, and what it would have needed."""

    cause: str
    needs: str


class Cause:
    """Base of the causes.

    Attributes:
        name: the identifier.
        explains_flag: whether it can be why AUC and EER do not follow the loss.
        reads: facts without which it cannot be examined.
        needs: how a user brings them about, in words.
        explains: causes that would be found as well if this one were the only one.
    """

    name = ""
    explains_flag = True
    reads = ()
    needs = ""
    explains = ()

    def examine(self, facts):
        """A `Finding`, `RuledOut` or `NotExamined` from `facts`."""
        if any(name not in facts for name in self.reads):
            return NotExamined(self.name, self.needs)
        return self.judge(facts)

    def judge(self, facts):
        """A `Finding` or `RuledOut`; the facts in `reads` are there."""
        raise NotImplementedError

    def found(self, facts, severity, summary, signals, advice, apply, strength, explains=None):
        strength = float(np.clip(strength, 1.0, STRONGEST))
        epochs = facts.get("epochs")
        epoch = None if epochs is None else int(epochs) - 1
        explains = self.explains if explains is None else explains
        return Finding(self.name, severity, epoch, summary, signals, advice, apply, strength, tuple(explains))


def change(**options):
    """A repair that sets `options` in a recipe."""
    return lambda recipe: {**recipe, **options}


def signals_of(facts, **thresholds):
    """`Signal`s of those named facts that were measured; a threshold, or (threshold, null)."""
    found = {}
    for name, beside in thresholds.items():
        if name in facts:
            threshold, null = beside if isinstance(beside, tuple) else (beside, None)
            found[name] = Signal(facts[name], threshold, null)
    return found


def is_imperfect(facts, least=GOOD_EER):
    """Whether held-out verification leaves anything to gain."""
    return facts["eer"] >= least


def leaves_to_explain(facts):
    """Whether the held-out EER is worse than the user wants, above .25 without a target, or the run diverged."""
    return bool(facts["verifies_badly"])


def is_told_apart(facts):
    """Whether training did its job on its own identities; False where they are not known."""
    return facts.get("train_eer", 1.0) < TOLD_APART
