"""What a cause is, and what it answers with.

Contract: a cause takes `Facts` and answers with a `Finding`, with `RuledOut` (what it measured), or with `NotExamined`
(what it would have needed). A repair works on a *recipe*, a plain dict of options under this package's argument names,
and returns a new one.

A finding's `strength` is how far the leading signal is past its limit. Its severity says how sure it is that something
is wrong: "error" if the signal has no harmless explanation, "warning" if a person should look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import explained
from keras_siamese.diagnosis.facts.table import Facts

WITHOUT_EMBEDDINGS = "embeddings: a model that embeds each item by itself, or `encoder=`"
TRAINING_DATA = "the training data: train=(x, labels) or train=([left, right], y)"
ARRAYS = "samples that are one array of numbers, of one shape in training and held-out data"


@dataclass(frozen=True)
class Signal:
    """A measured value, the threshold that it is compared with, and its value under the null hypothesis."""

    value: float
    threshold: float | None = None
    null: float | None = None
    low: float | None = None
    high: float | None = None

    def line(self, name: str) -> str:
        """The signal as one line of text under its `name`."""
        text = f"{name.replace('_', ' ')} {self.value:.4g}"
        if self.low is not None:
            text += f" [{self.low:.4g}, {self.high:.4g}]"
        beside = (("threshold", self.threshold), ("null", self.null))
        notes = ", ".join(f"{what} {value:.4g}" for what, value in beside if value is not None)
        return f"{text}  ({notes})" if notes else text


@dataclass(frozen=True)
class Finding:
    """A cause that was found.

    Attributes:
        cause: identifier, such as "inverted_labels".
        severity: "info", "warning" or "error".
        epoch: epoch at which it was found, or None.
        summary: one sentence that says what was seen.
        evidence: `Signal` by name.
        advice: what to change, as code that runs.
        apply: a function from a recipe (dict of options) to a repaired one, or None where only a person can act.
        strength: how far past its threshold the leading signal is, as a ratio in [1, 10]; ranks within a severity.
        explained_by: the cause that also explains this finding, or None.
        stage: the stage of the run that the cause belongs to, see `ranking`; "" for "undetermined".
        explains_flag: whether it can be the reason why AUC and EER do not follow the loss.
        confirmation: what an experiment has shown, see `experiments.confirm.Confirmation`; None if none was made.
    """

    cause: str
    severity: str
    epoch: int | None
    summary: str
    evidence: dict[str, Signal]
    advice: str
    apply: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    strength: float = 1.0
    explained_by: str | None = None
    stage: str = ""
    explains_flag: bool = True
    confirmation: Any = None


@dataclass(frozen=True)
class RuledOut:
    """A cause that the measured values speak against."""

    cause: str
    evidence: dict[str, Signal] = field(default_factory=dict)


@dataclass(frozen=True)
class NotExamined:
    """A cause that could not be examined: what it would have needed, or the error because of which it was not."""

    cause: str
    needs: str
    error: str | None = None  # why it failed, if what it needs raised an error, or itself

    @property
    def reason(self):
        return f"needs {self.needs}" if self.error is None else f"error: {self.error}"


class Cause:
    """Base of the causes.

    Attributes:
        name: the identifier, by default the name of the module that defines the cause.
        stage: the stage of the run that it belongs to, one of `ranking.STAGES`.
        explains_flag: whether it can be the reason why AUC and EER do not follow the loss.
        needs_embeddings: whether it is about embeddings, which a model that joins its inputs at once does not have.
        after_nan: whether it can be judged of a run that has left NaN in its weights.
        reads: facts without which it cannot be examined.
        needs: how a user provides them, in words.
        advice: what to change, as code that runs, where it does not depend on the facts.
    """

    name = ""
    stage = ""
    explains_flag = True
    needs_embeddings = False
    after_nan = False
    reads: tuple[str, ...] = ()
    needs = ""
    advice = ""

    def __init_subclass__(cls):
        cls.name = cls.name or cls.__module__.rpartition(".")[2]

    def examine(self, facts):
        """A `Finding`, `RuledOut` or `NotExamined` from `facts`."""
        if self.needs_embeddings and not facts.get("has_embeddings", 1):
            return NotExamined(self.name, WITHOUT_EMBEDDINGS)
        if any(name not in facts for name in self.reads):
            return NotExamined(self.name, self.lacking(facts))
        return self.judge(facts)

    def lacking(self, facts):
        """What is missing in `facts` for it to be examined, in one clause: `needs`, unless the facts tell more."""
        return self.needs

    def judge(self, facts):
        """The answer, given that `facts` has all facts that `reads` names."""
        raise NotImplementedError

    def found(self, facts, severity, summary, signals, strength, apply, advice=None, stage=None):
        """The `Finding` of this cause, with its strength in [1, 10]; `advice` and `stage` if they are not the usual."""
        epoch = int(facts["epochs"]) - 1 if "epochs" in facts else None
        options = {"stage": stage or self.stage, "explains_flag": self.explains_flag}
        strength = float(np.clip(strength, 1.0, limits.STRONGEST))
        advice = explained(self.advice if advice is None else advice)
        return Finding(self.name, severity, epoch, summary, signals, advice, apply, strength, **options)


class OfOutput:
    """What the causes have in common that are about the output of the model and the loss of one pair."""

    needs = "held-out pairs as the model takes them, and a loss that can be computed of one pair"

    def lacking(self, facts):
        if not facts.get("compares_itself", 1):
            return "a model of two inputs"
        if "equal_end" not in facts:
            return "held-out pairs as the model takes them: ([left, right], y)"
        return "a loss that can be computed of one pair"


class Asked(Facts):
    """Facts that remember which names were asked for and are missing, in `missing`."""

    def __init__(self, facts):
        super().__init__(facts.numbers, facts.words, facts.rows, facts.errors)
        object.__setattr__(self, "missing", [])

    def __getitem__(self, name):
        return super().__getitem__(name) if name in self else self.numbers[name]

    def __contains__(self, name):
        if name not in self.numbers:
            self.missing.append(name)
        return name in self.numbers

    def get(self, name, default=None):
        return super().get(name, default) if name in self else default


def answer_of(cause, facts, side):
    """What `cause` answers on `facts`. If it raises, or lacks facts because measuring them did, it is `NotExamined`.

    Args:
        cause: the `Cause`.
        facts: the `Facts`.
        side: the `SideWork` that is told if the cause itself raises.
    """
    asked = Asked(facts) if facts.errors else facts
    try:
        answer = cause.examine(asked)
    except Exception as error:
        answer = error
    if not isinstance(answer, (NotExamined, Exception)):
        return answer
    lost = next(filter(None, map(facts.error_of, asked.missing)), None) if facts.errors else None
    if isinstance(answer, Exception) and not (lost and isinstance(answer, KeyError)):
        kept = side.failed(f"The cause {cause.name}", answer, then="it is not examined, and the others are")
        lost = f"{kept.why} ({kept.where})"
    return answer if lost is None else NotExamined(cause.name, cause.needs, lost)


def is_training_known(facts):
    """Whether training data were given, as pairs or with identities."""
    return "train_auc" in facts


def change(**options):
    """A repair that sets `options` in a recipe."""
    return lambda recipe: {**recipe, **options}


def signals_of(facts, **thresholds):
    """`Signal`s of those named facts that were measured; a threshold, or (threshold, null)."""
    beside = {name: one if isinstance(one, tuple) else (one, None) for name, one in thresholds.items()}
    return {name: Signal(facts[name], *beside[name]) for name in beside if name in facts}


def is_imperfect(facts, least=None):
    """Whether held-out verification can still improve: its EER is at least `least` (.02), or was lost to NaN."""
    return "not_finite" in facts or facts["eer"] >= (limits.GOOD_EER if least is None else least)


def shown_are_easy(facts):
    """Whether the given training pairs are told apart, also by raw inputs or an untrained encoder, and their genuine
    ones not from pairs of their own items. Pairs with wrong labels, which were learned by heart, are not easy before.
    """
    before = min(facts.get("train_input_eer", 0.5), facts.get("untrained_eer", 0.5))
    is_easy = max(facts["train_eer"] / limits.TOLD_APART, before / limits.UNLEARNED) <= 1
    return facts.get("crossed_eer", 0.0) >= limits.BAD_EER and is_easy


def moved_an_epoch(facts):
    """The largest share of the weights by which an epoch moved them; if the run was not watched, the mean of all epochs
    as far as the biases tell. None if that is not known.
    """
    if "update_size_largest" in facts:
        return facts["update_size_largest"]
    return facts["biases_moved"] / facts.get("epochs", 1.0) if "biases_moved" in facts else None


def has_hardly_moved(facts):
    """Whether steps have moved the weights by very little: the encoder is what it was before training. Biases that have
    not moved at all prove nothing: they may get no gradient.
    """
    moved = moved_an_epoch(facts)
    if moved is None or (moved == 0 and "update_size_largest" not in facts):
        return False
    return moved < limits.SMALL_UPDATE


def implied_share(facts):
    """The share of genuine pairs that the logged loss implies, if the losses of both kinds tell it clearly; or None. It
    is no matter if training pairs are told apart.
    """
    if "implied_fraction" not in facts or facts.get("train_eer", 1.0) <= limits.UNLEARNED:
        return None
    losses = sorted((facts["genuine_loss"], facts["impostor_loss"]))
    is_clear = losses[1] > limits.CLEAR_RATIO * max(losses[0], limits.TINY)
    return facts["implied_fraction"] if is_clear else None
