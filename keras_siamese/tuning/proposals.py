"""What a search tries next: the repair of what was found in its best trial, or a step from the best trial.

Contract: `propose` takes the search space (KerasTuner's `HyperParameters`), the trials so far and a random generator,
and returns the next values. It reads and writes no file. A lower score is better.

    finding = {"cause": "learning_rate", "severity": "error", "changes": {"learning_rate": 1e-3}}
    propose(hp, [Tried("0", {"learning_rate": 1e-5}, 0.4, [finding])], np.random.default_rng(0))
    # Proposal(values={"learning_rate": 0.001}, parent="0", causes=("learning_rate",))
"""

import collections
import dataclasses
import math
from typing import NamedTuple

from keras_siamese import _checks

keras_tuner = _checks.check_installed("keras_tuner", "tuner")

ATTEMPTS = 50  # draws of a new point, before the space counts as exhausted
SAME = 0.02  # two values of a range are the same if they differ by less than this share of it
STEP, SHORTEST, SHORTER = 0.12, 0.04, 0.85  # standard deviation of a step, as a share of a range; its decay
ANYWHERE = 0.1  # share of points that are drawn from the whole space although there is a trial to start from


@dataclasses.dataclass(frozen=True)
class Tried:
    """A trial so far. `score`: less is better; None if the trial has failed or not ended.

    `parent` and `causes` are those of the `Proposal` that it came from.
    """

    name: str
    values: dict
    score: float | None = None
    findings: list = dataclasses.field(default_factory=list)  # see `repairs`; worst first
    is_ended: bool = True
    parent: str | None = None
    causes: tuple = ()

    def rank(self):
        """Its score, infinite without one."""
        return math.inf if self.score is None else self.score

    @property
    def repairs(self):
        """The errors and warnings that ask for another value of a hyperparameter."""
        return [one for one in self.findings if one["changes"] and one["severity"] in ("error", "warning")]

    @property
    def hints(self):
        """The findings that ask for another value although nothing is wrong."""
        return [one for one in self.findings if one["changes"] and one["severity"] == "hint"]


class Proposal(NamedTuple):
    """The hyperparameters of a trial; the trial that they start from, if any, and the causes that they repair."""

    values: dict
    parent: str | None = None
    causes: tuple = ()


def propose(space, trials, rng):
    """The next `Proposal`, or None if no new point was found.

    Trials are gone through from the best to the first one without a fault, and the first repair that leads to a new
    point is proposed: first all of a trial's repairs together, then each of them alone. Causes whose repairs have not
    helped in this search are left out. Otherwise it is a step from the best trial: what its curve hints at, or the move
    that led to it once more, or a random step. One time in ten it is a point from the whole space instead of a random
    step.

    Args:
        space: KerasTuner's `HyperParameters`; its values are not used.
        trials: list of `Tried`, in the order in which they were started.
        rng: NumPy's `Generator`.
    """
    ended = sorted((one for one in trials if one.is_ended), key=Tried.rank)
    known, useless = [one.values for one in trials], useless_causes(trials)
    for trial in ended:
        for causes, changes in repairs_of(trial, useless):
            values = changed(space, trial.values, changes, rng)
            if values is not None and is_new(space, values, known):
                return Proposal(values, trial.name, causes)
        if trial.score is not None and not trial.repairs:
            break
    best = ended[0] if ended and ended[0].score is not None else None
    for causes, values in points_from(space, best, trials, useless, rng):
        if values is not None and is_new(space, values, known):
            return Proposal(values, best.name, causes)
    for _ in range(ATTEMPTS):
        values = complete(space, {}, rng)
        if is_new(space, values, known):
            return Proposal(values)
    return None


def points_from(space, best, trials, useless, rng):
    """`(causes, values)` to try from the best trial: what it hints at, its own move once more, and random steps."""
    if best is None:
        return
    for hint in best.hints:
        if hint["cause"] not in useless:
            yield (hint["cause"],), changed(space, best.values, hint["changes"], rng)
    for parent in trials:
        if parent.name == best.parent and not best.causes:
            yield (), onward(space, parent.values, best.values, rng)
    if rng.random() < ANYWHERE:
        return
    failed = sum(one.is_ended for one in trials[1 + trials.index(best) :])
    width = max(SHORTEST, STEP * SHORTER**failed)
    for _ in range(ATTEMPTS):
        yield (), step(space, best.values, width, rng)


def onward(space, start, now, rng):
    """`now` moved on by as much as it differs from `start`, in numbers; None if no number differs."""
    moved = {}
    for hp in active(space, now):
        if hp.name in start and is_ordered(hp) and start[hp.name] != now[hp.name]:
            here = place(hp, now[hp.name])
            moved[hp.name] = hp.prob_to_value(inside(2 * here - place(hp, start[hp.name])))
    return complete(space, {**now, **moved}, rng) if moved else None


def inside(share):
    """A place in a range, in [0, 1)."""
    return min(max(share, 0.0), 1.0 - 1e-9)


def useless_causes(trials):
    """The causes whose repairs have made more trials worse than better, so far, than those they started from."""
    scores = {one.name: one.rank() for one in trials}
    balance = collections.Counter()
    for one in trials:
        if one.is_ended and one.parent in scores:
            has_helped = one.rank() < scores[one.parent]
            for cause in one.causes if has_helped or len(one.causes) == 1 else ():  # of several, any may be to blame
                balance[cause] += 1 if has_helped else -1
    return {cause for cause, count in balance.items() if count < 0}


def repairs_of(trial, useless=()):
    """`(causes, changes)` to try for a trial: all repairs together, where the worst finding has its way; then each.

    Causes that are `useless` are left out.
    """
    repairs = [one for one in trial.repairs if one["cause"] not in useless]
    if len(repairs) > 1:
        together = {name: value for one in reversed(repairs) for name, value in one["changes"].items()}
        yield tuple(one["cause"] for one in repairs), together
    for one in repairs:
        yield (one["cause"],), one["changes"]


def changed(space, values, changes, rng):
    """`values` with `changes`, each rounded to the nearest value that `space` has; None if nothing changes."""
    found = {}
    for hp in active(space, values):
        if hp.name in changes:
            value = nearest(hp, changes[hp.name])
            if value is not None and place(hp, value) != place(hp, values[hp.name]):
                found[hp.name] = value
    return complete(space, {**values, **found}, rng) if found else None


def complete(space, values, rng):
    """The values of all active hyperparameters: those of `values`, and others at random."""
    drawn = keras_tuner.HyperParameters()
    for hp in space.space:
        drawn.merge([hp])
        if drawn.is_active(hp):
            drawn.values[hp.name] = values[hp.name] if hp.name in values else hp.prob_to_value(rng.random())
    return drawn.values


def step(space, values, width, rng):
    """`values` with one or two hyperparameters changed: numbers by normal steps of `width` times their range."""
    free = [hp for hp in active(space, values) if not isinstance(hp, keras_tuner.engine.hyperparameters.Fixed)]
    if not free:
        return dict(values)
    count = min(1 + int(rng.random() < 0.5), len(free))
    moved = {}
    for at in rng.choice(len(free), count, replace=False):
        hp, now = free[at], values[free[at].name]
        choices = choices_of(hp)
        if choices is not None and not is_ordered(hp):
            others = [one for one in choices if one != now]
            moved[hp.name] = others[rng.integers(len(others))] if others else now
            continue
        share = width * rng.standard_normal()
        if choices is not None:  # at least to the next value
            share = math.copysign(max(abs(share), 1.01 / len(choices)), share)
        moved[hp.name] = hp.prob_to_value(inside(place(hp, now) + share))
    return complete(space, {**values, **moved}, rng)


def is_new(space, values, known):
    """Whether `values` differ from each of `known`, a list of dicts, by more than the last digits of a number."""
    own = {hp.name: place(hp, values[hp.name]) for hp in active(space, values)}

    def is_same(others):
        if others.keys() != values.keys():
            return False
        return all(abs(place(hp, others[hp.name]) - own[hp.name]) < SAME for hp in active(space, values))

    return not any(is_same(others) for others in known)


def active(space, values):
    """The hyperparameters that are active with `values`, one a name."""
    holder = keras_tuner.HyperParameters()
    holder.values = values
    return list({hp.name: hp for hp in space.space if holder.is_active(hp) and hp.name in values}.values())


def choices_of(hp):
    """All values of a hyperparameter as a list, or None if it is a range without steps."""
    if getattr(hp, "min_value", None) is not None and hp.step is None:
        return None
    return list(hp.values)


def is_ordered(hp):
    """Whether the values of a hyperparameter are numbers."""
    return hasattr(hp, "min_value") or bool(getattr(hp, "ordered", False))


def nearest(hp, value):
    """The value of a hyperparameter that is nearest to `value`, in ratio if all are above 0; None if none fits."""
    choices = choices_of(hp)
    if not is_ordered(hp):
        return value if value in (choices or []) else None
    if isinstance(value, (str, bool)):
        return None
    if choices is None:
        value = min(max(value, hp.min_value), hp.max_value)
        return round(value) if isinstance(hp, keras_tuner.engine.hyperparameters.Int) else float(value)
    if value > 0 and min(choices) > 0:
        return min(choices, key=lambda one: abs(math.log(one / value)))
    return min(choices, key=lambda one: abs(one - value))


def place(hp, value):
    """Where a value of a hyperparameter lies in its range, in [0, 1]; values of a choice are evenly spaced.

    KerasTuner sends numbers between processes in single precision, so the nearest of its values is taken.
    """
    choices = choices_of(hp)
    if choices is None:
        return hp.value_to_prob(min(max(value, hp.min_value), hp.max_value))
    known = value if value in choices else nearest(hp, value)
    return 0.0 if known is None else (choices.index(known) + 0.5) / len(choices)
