"""Tests a suspected cause: the run with its repair against the run without it.

Contract: both programs start from the same weights and see the same batches in the same order, except for what the
repair changes in them. After as many steps, the same held-out pairs tell the difference in EER, with an interval over
identities. The user's model is as it was (see `untouched`).

    diagnosis = tested(diagnosis, budget_epochs=5)
    diagnosis.findings[0].confirmation.verdict, diagnosis.findings[0].confirmation.gain      # "confirmed", 0.11
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_number
from keras_siamese._seeds import own_seeds, same_generators, same_names
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.experiments.changes import changed, options_of
from keras_siamese.diagnosis.experiments.program import program_of, run
from keras_siamese.diagnosis.suspects import wants_explaining
from keras_siamese.verification.pairs import progress_bar

SAMPLES = 200  # resamples of an interval
LOWER = {"error": "warning", "warning": "info"}
NO_PROGRAM = "a compiled model and training data that can be read again, as `train`"
NO_REPAIR = "a repair that only you can make, such as other data"


@dataclass(frozen=True)
class Confirmation:
    """What the test of a cause has shown.

    Attributes:
        verdict: "confirmed", "refuted", "undecided" (the interval holds both), or "not testable".
        before, after: held-out EER without and with the repair, after the same number of steps.
        gain: before − after; `low` and `high` are the ends of its 95 % interval over identities.
        steps: training steps of each side; 0 if nothing had to be trained.
        seconds: that the repaired side took.
        made: the options of the repair that were changed, by name.
        needs: what a test would need, if there was none.
    """

    verdict: str
    before: float | None = None
    after: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    steps: int = 0
    seconds: float = 0.0
    made: tuple[str, ...] = ()
    needs: str = ""

    def __str__(self) -> str:
        if self.verdict == "not testable":
            return f"not tested: it would need {self.needs}"
        how = f"after {self.steps} steps" if self.steps else "without training"
        interval = f"gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.verdict}: EER {self.before:.3f} → {self.after:.3f} with the repair, {how} ({interval})"

    to_dict = asdict


def confirm(findings, observed, program, steps, seconds=None, on_step=None):
    """Test the causes of `findings`: a dict from each cause to its `Confirmation`.

    Args:
        findings: `Finding`s, the most suspected first.
        observed: the `Observed` run.
        program: its `Program`, or None if it cannot be trained again.
        steps: training steps for all sides together.
        seconds: no further cause is tested after so many seconds; None sets no limit.
        on_step: a function that is called after each step, with 1.
    """
    started = time.perf_counter()
    if program is None:
        return {one.cause: Confirmation("not testable", needs=NO_PROGRAM) for one in findings}
    arms = {one.cause: or_why(changed, program, options_of(one, observed.facts), observed) for one in findings}
    found = {cause: untestable(arm) for cause, arm in arms.items() if isinstance(arm, str)}
    found |= {cause: untestable(NO_REPAIR) for cause, arm in arms.items() if not arm[1]}
    arms = {cause: arm for cause, arm in arms.items() if cause not in found}
    trains = [cause for cause, (arm, _) in arms.items() if arm.start is not None]
    each = steps // (1 + len(trains))
    if trains and not each:
        found |= {cause: untestable(f"a budget of at least {1 + len(trains)} training steps") for cause in trains}
        arms, trains = {cause: arm for cause, arm in arms.items() if cause not in trains}, []
    count = None if on_step is None else partial(on_step, 1)
    base = or_why(run, program, each, count) if trains else None
    present = or_why(run, replace(program, start=None), 0)
    for cause, (arm, made) in arms.items():
        begun = time.perf_counter()
        if seconds is not None and begun - started > seconds:
            found[cause] = untestable(f"more than {seconds:g} seconds")
            continue
        trained = each if cause in trains else 0
        sides = base if trained else present, or_why(run, arm, trained, count)
        why = next((one for one in sides if isinstance(one, str)), None)
        compared = compare(*sides, present) if why is None else untestable(why)
        found[cause] = replace(compared, steps=trained, seconds=time.perf_counter() - begun, made=made)
    return found


def untestable(needs):
    return Confirmation("not testable", needs=needs)


def or_why(function, *args):
    """What `function` returns, or a text if it raises: an experiment must not end the run that it examines."""
    try:
        return function(*args)
    except Exception as error:  # what the user's model and data raise is not known
        return f"steps that do not raise {type(error).__name__}: {error}"


def check_budget(epochs, seconds):
    """Return the budget of experiments, each number above 0 or None."""
    given = {"budget_epochs": epochs, "budget_seconds": seconds}
    return tuple(
        None if value is None else check_number(name, value, low=0, open_low=True) for name, value in given.items()
    )


def tested(diagnosis, budget_epochs=None, budget_seconds=None, *, progress=False, program=None):
    """The `Diagnosis` with its leading causes tested: each tested finding has a `confirmation`, and the order follows.

    Args:
        diagnosis: a `Diagnosis` of a run.
        budget_epochs: all training steps together, in epochs, > 0; by default half as many as the run had, or 5.
        budget_seconds: no further test begins after so many seconds; None sets no limit.
        progress: whether to show Keras's progress bar.
        program: the `Program` that was run; by default it is made from what was observed.
    """
    observed = diagnosis.observed
    suspects = [one.finding for one in diagnosis.suspects[: int(limits.TESTED)]]
    if not suspects or not observed.is_finite or not wants_explaining(diagnosis.facts, diagnosis.findings):
        return diagnosis
    if budget_epochs is None:
        budget_epochs = 5.0 if observed.epoch is None else (observed.epoch + 1) / 2
    with same_generators(python=True), same_names(), own_seeds():
        program = program_of(observed) if program is None else program
        steps = 0 if program is None else max(1, round(budget_epochs * program.batches.steps))
        bar = progress_bar(steps, "step", progress and steps > 0)
        found = confirm(suspects, observed, program, steps, budget_seconds, bar)
    return with_confirmations(diagnosis, found)


def with_confirmations(diagnosis, found):
    """The `Diagnosis` with what tests have `found`, a `Confirmation` (or its dict) by cause, and the order by it. A
    suspect that only a test has shown becomes a finding.
    """
    found = {cause: Confirmation(**one) if isinstance(one, dict) else one for cause, one in found.items()}
    return replace(diagnosis, findings=tuple(findings_by(found, diagnosis.findings, diagnosis.suspects)))


def findings_by(found, findings, suspects):
    """The `findings`, and those `suspects` that only a test has shown, with their confirmations, in the order of these.

    Args:
        found: `Confirmation`s by cause.
        findings: `Finding`s as they were ranked.
        suspects: `Suspect`s.
    """
    shown = {cause for cause, one in found.items() if one is not None and one.verdict == "confirmed"}
    shown -= {one.cause for one in findings}
    ranked = by_confirmation([replace(one, confirmation=found.get(one.cause)) for one in findings])
    added = [one.finding for one in suspects if one.cause in shown]
    added = [replace(one, confirmation=found[one.cause], severity="warning", explained_by=None) for one in added]
    # Without evidence of its own, a suspect comes after what alarms and is not refuted: many repairs help whatever the
    # cause is.
    stays = [one.severity != "info" and verdict_of(one) != "refuted" for one in ranked]
    place = max((place + 1 for place, stay in enumerate(stays) if stay), default=0)
    return [*ranked[:place], *added, *ranked[place:]]


def by_confirmation(findings):
    """Sort `findings`: confirmed ones first, refuted ones last, each as they were ranked. A confirmed one comes before
    another only if it gains clearly more (its interval is above that of the other) by other means: a repair that
    contains that of the other explains nothing more. A cause that another one explains stays behind it, unless that one
    is refuted. Information that is confirmed becomes a warning, but comes after what has alarmed without a test. A
    refuted error becomes a warning, since its evidence remains, and a refuted warning becomes "info".
    """
    placed = {"confirmed": [], None: [], "info": [], "refuted": []}
    refuted = {one.cause for one in findings if verdict_of(one) == "refuted"}
    for finding in findings:
        verdict = verdict_of(finding)
        if verdict == "confirmed" and finding.explained_by in (None, *refuted):
            kind = placed["info" if finding.severity == "info" else verdict]
            severity = "warning" if finding.severity == "info" else finding.severity
            finding = replace(finding, severity=severity, explained_by=None)
            above = [at for at, one in enumerate(kind) if surpasses(finding.confirmation, one.confirmation)]
            kind.insert(min(above, default=len(kind)), finding)
        elif verdict == "refuted":
            placed[verdict].append(replace(finding, severity=LOWER.get(finding.severity, "info")))
        else:
            placed[None].append(finding)
    return [finding for kind in placed.values() for finding in kind]


def verdict_of(finding):
    return None if finding.confirmation is None else finding.confirmation.verdict


def surpasses(tested, other):
    """Whether one confirmed repair gains clearly more than the `other`, and by other means."""
    return other.high < tested.low and not set(other.made) <= set(tested.made)


def compare(without, repaired, run=None):
    """The `Confirmation` of two outcomes on the same held-out pairs.

    A cause can be refuted only if the side without the repair does as badly as the whole run has done, whose outcome is
    `run`: before that, the failure that the repair is to prevent may not have come yet.
    """
    trials = without.scored.trials
    sides, replicates = trials.pair_identities, []
    for outcome in (without, repaired):
        found = verification.bootstrap(["eer"], trials.same, scores_of(outcome), *sides, samples=SAMPLES)
        replicates.append(found["eer"])
    before, after = (one.estimate for one in replicates)
    differences = replicates[0].replicates - replicates[1].replicates
    low, high = np.quantile(differences, [1 - limits.UPPER_TAIL, limits.UPPER_TAIL])
    verdict = "undecided"
    if low > 0 and before - after >= limits.CONFIRMED_GAIN:
        verdict = "confirmed"
    elif high < limits.CONFIRMED_GAIN and (run is None or before < eer_of(run) + limits.CONFIRMED_GAIN):
        verdict = "refuted"
    return Confirmation(verdict, before, after, before - after, float(low), float(high))


def eer_of(outcome):
    return 1.0 if isinstance(outcome, str) else verification.eer(outcome.scored.same, scores_of(outcome))


def scores_of(outcome):
    """The scores of the pairs; equal ones if some are not finite, because then no pairs are told apart."""
    scores = outcome.scored.scores
    return scores if np.isfinite(scores).all() else np.zeros(len(scores), "float32")
