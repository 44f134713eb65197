"""`repair`: diagnoses a run, changes what was found, trains again, until the run is healthy.

Contract: every attempt is a `Program` from the same initial weights. It is trained with its changes, measured on the
same held-out pairs after every epoch, and diagnosed. `helps` decides whether a change is kept.

    found = repair(model, (x, y), validation, budget=50)
    print(found)                        # what was tried, and what a person would write
    found.model, found.diagnosis
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_siamese import verification
from keras_siamese._checks import check_integer, check_number
from keras_siamese._replicas import train_on_batch
from keras_siamese._tables import aligned
from keras_siamese._types import Data, DistanceLike
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import explained
from keras_siamese.diagnosis.causes import Finding
from keras_siamese.diagnosis.diagnosis import Diagnosis, diagnosis_of
from keras_siamese.diagnosis.experiments.batches import Batches, Sequence
from keras_siamese.diagnosis.experiments.changes import changed, options_of
from keras_siamese.diagnosis.experiments.confirm import compare, eer_of, or_why, tested, verdict_of
from keras_siamese.diagnosis.experiments.program import Outcome, begun, is_scheduled, program_of, run, values_of
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.recipe import fed_of, recipe_of, training_of
from keras_siamese.diagnosis.recorder import RunRecorder
from keras_siamese.diagnosis.run import Run
from keras_siamese.diagnosis.suspects import wants_explaining
from keras_siamese.distances import Distance
from keras_siamese.scoring import attach, check_similar_label, score
from keras_siamese.verification.pairs import progress_bar

RATE_FACTORS = tuple(10 ** (power / 2) for power in range(-2, 3))  # on the rate that a cause asks for
RATE_EPOCHS = 2  # of each short run that compares rates
SOUND = "Nothing is found that could be repaired."
TRAIN_ITEMS, TRAIN_PAIRS = 10_000, 200_000  # in which wrong labels are looked for


@dataclass(frozen=True, eq=False)
class Attempt:
    """One training of a `repair`.

    Attributes:
        finding: the `Finding` whose repair was tried; None for the program as it was given.
        options: the options that were changed, under this package's argument names; see `Finding.apply`.
        eer: held-out EER at the end.
        epochs: that were trained.
        kept: whether the change was kept.
        diagnosis: the `Diagnosis` of this training.
    """

    finding: Finding | None
    options: dict[str, Any]
    eer: float
    epochs: int
    kept: bool
    diagnosis: Diagnosis

    @property
    def cause(self) -> str | None:
        """The suspected cause whose repair was tried, or None."""
        return None if self.finding is None else self.finding.cause


@dataclass(frozen=True, eq=False)
class Repair:
    """What a `repair` has found.

    Attributes:
        model: the best model, with its weights, compiled with the loss and the learning rate by which it was trained.
            It takes the inputs of the model that was given. It is that model, unless its comparison, loss or encoder,
            or the scale of its inputs, had to be changed: then it is another one over the same layers. Settings of
            layers, such as `trainable`, and schedules are as given: before you train it further, change them as `code`
            says.
        distance: the `Distance` with which the model was verified; None if the model compares by itself. Pass it on to
            `Verifier` and `diagnose`.
        attempts: all `Attempt`s, in order.
        why: why no further attempt was made, a sentence.
    """

    model: keras.Model
    distance: Distance | None
    attempts: tuple[Attempt, ...]
    why: str

    @property
    def kept(self) -> tuple[Attempt, ...]:
        """The attempts whose changes the best model has, the program as it was given first."""
        return tuple(one for one in self.attempts if one.kept)

    @property
    def diagnosis(self) -> Diagnosis:
        """The `Diagnosis` of the best model."""
        return self.kept[-1].diagnosis

    @property
    def is_repaired(self) -> bool:
        """Whether a change was kept."""
        return len(self.kept) > 1

    @property
    def code(self) -> str:
        """What a person would write: the advice of each change that was kept, with the last of its learning rates."""
        found = {one.finding.summary: one.finding.advice for one in self.kept[1:]}
        return "\n\n".join(f"# {summary}\n{advice}" for summary, advice in found.items())

    def __str__(self) -> str:
        rows = [("repair of", "changed", "EER", "kept")]
        rows += [
            (
                one.cause or "as it was given",
                ", ".join(f"{name}={shown(value)}" for name, value in one.options.items()),
                f"{one.eer:.3f}",
                "yes" if one.kept else "no",
            )
            for one in self.attempts
        ]
        lines = [*aligned(rows, right=(2,)), self.why]
        return "\n".join([*lines, *(["", self.code] if self.is_repaired else [])])


def shown(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def repair(
    build_or_model: keras.Model | Callable[[], keras.Model],
    train: Data,
    validation: Data,
    budget: int | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    target_eer: float | None = None,
    distance: DistanceLike | None = None,
    similar_label: int | None = None,
    progress: bool = True,
) -> Repair:
    """Train a siamese model, and repair its training where it does not verify.

    The model is trained and diagnosed. If there are several leading causes, they are tested (see
    `experiments.confirm`). The repair of the first one is made, and the model is trained again from the same initial
    weights. The repair is kept if the held-out EER is clearly lower, or if it is lower and the cause is not found any
    more; otherwise the next one is tried. If wrong labels are found, the model is trained without them, and the
    diagnosis looks for further ones. When no warning or error is left, the repairs of earlier ones are tried too, and
    at last those of findings that are only information. The search ends when nothing is found, nothing helps, or the
    budget is spent. If the first training has no warning or error, nothing is changed. No file is written.

    A repaired program may need a learning rate of its own: short runs at five rates tell which one is tried next. Where
    a repair gives pairs a contrastive or a logistic loss, the other one is tried too.

    Zhang, Zhai, Ma, Shen, *AutoTrainer: An Automatic DNN Training Problem Detection and Repair System*, ICSE 2021,
    https://ieeexplore.ieee.org/document/9402077, also repairs by training again.

    Args:
        build_or_model: a compiled siamese model, whose weights are changed; or a function without arguments that
            returns one.
        train: training data as `fit` takes them, `(x, y)`, or a sequence.
        validation: held-out data, as in `diagnose`.
        budget: epochs of training for all attempts together, at least `epochs`; by default eight times as many.
        epochs: of each attempt, ≥ 1.
        batch_size: samples in a batch, ≥ 1, of training data that are arrays.
        target_eer: EER below which nothing is changed, in (0, 1).
        distance, similar_label: as in `diagnose`.
        progress: whether to show Keras's progress bar.

    Returns:
        A `Repair`.

    Raises:
        ValueError: if the model is not compiled, or for what `diagnose` refuses.
    """
    epochs = check_integer("epochs", epochs, low=1)
    budget = check_number("budget", 8 * epochs if budget is None else budget, low=epochs)
    check_similar_label(similar_label)
    if not callable(build_or_model):
        wanted = "a Keras model or a function that returns one"
        raise TypeError(f"`build_or_model` must be {wanted}; got {build_or_model!r}")
    model = build_or_model if isinstance(build_or_model, keras.layers.Layer) else build_or_model()
    if not getattr(model, "compiled", False):
        raise ValueError(f"`build_or_model` must be, or return, a compiled Keras model; got {model!r}")
    batch_size = check_integer("batch_size", batch_size, low=1)
    search = Search(epochs, budget, target_eer, progress)
    return search.run(program_to_train(model, train, validation, batch_size, similar_label, distance))


def program_to_train(model, train, validation, batch_size, similar_label=None, distance=None):
    """The `Program` of a compiled `model` that was not trained yet."""
    options = {"max_items": int(limits.REPAIR_ITEMS), "similar_label": similar_label, "distance": distance}
    anatomy, trials = attach(model, validation, **options)
    fed = fed_of(train)
    if fed is None:
        raise ValueError("`train` must be training data as `fit` takes them, (x, y) or a sequence; got None")
    source, _ = training_of(anatomy, fed)
    observed = Observed(Run(), score(anatomy, trials), **recipe_of(anatomy, source, fed), initial=values_of(model))
    program = program_of(observed)
    if isinstance(program.batches, Batches):
        program = replace(program, batches=replace(program.batches, size=batch_size))
    return program


class Search:
    """The attempts of a `repair`, one after the other."""

    def __init__(self, epochs, budget, target_eer, progress):
        self.epochs, self.left, self.target_eer, self.progress = epochs, budget, target_eer, progress
        self.attempts, self.examined, self.tried = [], [], set()

    def run(self, program):
        """The `Repair` of `program`."""
        best, (diagnosis, outcome, values) = program, self.train(program)
        self.note(None, {}, outcome, diagnosis, kept=True)
        while (why := self.why_ended(diagnosis)) is None:
            diagnosis = self.test(best, diagnosis)
            chosen = next(self.candidates(best, diagnosis), None)
            if chosen is None:
                why = sound(diagnosis) if is_sound(diagnosis) else "No other repair is left to try."
                break
            *chosen, key = chosen
            self.tried.add(key)
            before, is_kept = best, False
            for finding, options, repaired in self.variants(*chosen, before):
                trained = or_why(self.train, repaired)
                if isinstance(trained, str):  # such as a step without a gradient, which PyTorch refuses
                    continue
                found, new_outcome, new_values = trained
                is_lower = eer_of(new_outcome) < eer_of(outcome)  # between two rates of one repair, this is enough
                gained = is_lower if is_kept else helps(finding, outcome, new_outcome, found)
                self.note(finding, options, new_outcome, found, kept=gained)
                if gained:
                    best, diagnosis, outcome, values, is_kept = repaired, found, new_outcome, new_values, True
        for variable in best.model.variables:
            variable.assign(values[id(variable)])
        if best.rate != 1 and (present := rate_of(best)) is not None:
            best.model.optimizer.learning_rate = present * best.rate
        model = best.model if best.finish is None else best.finish(best) or best.model
        distance = None if best.anatomy.compares_itself else best.anatomy.distance
        return Repair(model, distance, tuple(self.attempts), why)

    def note(self, finding, options, outcome, diagnosis, kept):
        self.attempts.append(Attempt(finding, options, eer_of(outcome), self.epochs, kept, diagnosis))

    def why_ended(self, diagnosis):
        """Why no further attempt is made, a sentence, or None."""
        eer = next(one.eer for one in reversed(self.attempts) if one.kept)
        if self.target_eer is not None and eer <= self.target_eer:
            return f"The held-out EER {eer:.3f} has reached the target."
        if is_sound(diagnosis) and (len(self.attempts) == 1 or not diagnosis.findings):
            return sound(diagnosis)
        if self.left < self.epochs:
            return "The budget is spent."
        return None

    def test(self, program, diagnosis):
        """The diagnosis of the best program so far, with its suspects tested, once. If there is one finding, its repair
        is the test.
        """
        if diagnosis in self.examined or not diagnosis.observed.is_finite or is_sound(diagnosis):
            return diagnosis
        repairable = {one.cause for one, *_ in self.candidates(program, diagnosis) if one in diagnosis.findings}
        if len(repairable) == 1:
            return diagnosis
        spent = min(self.epochs / 2, self.left)
        diagnosis = tested(diagnosis, budget_epochs=spent, progress=self.progress, program=program)
        self.left -= spent
        self.examined.append(diagnosis)
        place = max(place for place, one in enumerate(self.attempts) if one.kept)
        self.attempts[place] = replace(self.attempts[place], diagnosis=diagnosis)
        return diagnosis

    def candidates(self, program, diagnosis):
        """Yield `(finding, options, program, key)` of each repair that was not tried yet."""
        suspected = [(one, way) for one, facts in self.suspected(diagnosis) for way in ways_of(options_of(one, facts))]
        for finding, way in suspected:
            found = or_why(changed, program, way, diagnosis.observed)
            if isinstance(found, str):
                continue
            repaired, made = found
            options = {name: way[name] for name in made}
            rows = diagnosis.facts.rows if "label_noise" in made else {}
            key = repr((sorted(options.items(), key=repr), rows))
            if made and repaired.start is not None and key not in self.tried:
                yield finding, options, repaired, key

    def suspected(self, diagnosis):
        """`(finding, facts)` of all whose repairs may be tried: what alarms now; what has alarmed before, if it is not
        only information now; information; and, if something alarms, near misses, and what a test has refuted.
        """
        alarming, information, refuted, before = [], [], [], []
        for one in diagnosis.findings:
            kind = alarming if one.severity != "info" else information
            (refuted if verdict_of(one) == "refuted" else kind).append((one, diagnosis.facts))
        known = {one.cause for one, _ in information}
        for found in (one.diagnosis for one in reversed(self.attempts) if one.kept and one.diagnosis is not diagnosis):
            alarmed = [one for one in found.findings if one.severity != "info" and verdict_of(one) != "refuted"]
            before += [(one, found.facts) for one in alarmed if one.cause not in known]
        near = [(one.finding, diagnosis.facts) for one in diagnosis.also_possible]
        return [*alarming, *before, *information, *([] if is_sound(diagnosis) else [*near, *refuted])]

    def variants(self, finding, options, program, before):
        """Yield `(finding, options, program)` as it is given; if the budget allows it, also at another rate, if
        it verifies best there after `RATE_EPOCHS`.
        """
        yield finding, options, program
        spent, present = RATE_EPOCHS * len(RATE_FACTORS), rate_of(program)
        if self.left < spent + self.epochs or present is None:
            return
        self.left -= spent
        steps = RATE_EPOCHS * program.batches.steps
        programs = [replace(program, rate=factor * program.rate) for factor in RATE_FACTORS]
        best = programs[int(np.argmin([eer_of(or_why(run, one, steps)) for one in programs]))]
        is_known = best.model is before.model and np.isclose(best.rate, before.rate)
        if best.rate != program.rate and not is_known:
            rate = present * best.rate
            faster = explained(f"siamese.optimizer.learning_rate = {rate:.2g}  # the best of short runs")
            advice = f"{finding.advice}\n{faster}"
            yield replace(finding, advice=advice), options | {"learning_rate": rate}, best

    def train(self, program):
        """`(diagnosis, outcome, values)`: train `program` and diagnose it; its scored pairs, and the values of its
        variables, at the end.
        """
        model, steps = program.model, program.batches.steps
        recorder, bar = RunRecorder(target_eer=self.target_eer), progress_bar(self.epochs, "epoch", self.progress)
        recorder.begin_fit(self.epochs)
        with begun(program):
            for epoch in range(self.epochs):
                recorder.begin_epoch(epoch, model)
                losses = []
                for step in range(epoch * steps, (epoch + 1) * steps):
                    losses.append(float(train_on_batch(model, *program.batches.at(step))["loss"]))
                    model.reset_metrics()
                scored = score(program.anatomy, program.trials)
                recorder.end_epoch(epoch, model, {"loss": np.mean(losses), **figures(scored)}, scored)
                bar(1)
            self.left -= self.epochs
            fed = as_fit_takes(program.batches)
            source, trials = training_of(program.anatomy, fed, max_items=TRAIN_ITEMS, max_pairs=TRAIN_PAIRS)
            valid, trained = scored, None
            if valid.is_finite:
                trained = None if trials is None else score(program.anatomy, trials)
            else:
                valid = recorder.scored or valid
            recipe = recipe_of(program.anatomy, source, fed) | {"initial": program.start}
            diagnosis = diagnosis_of(recorder.observed(valid, trained, **recipe))  # measured while the settings hold
        return diagnosis, Outcome([], scored), values_of(model)


def sound(diagnosis):
    """What is said of a program that needs no repair: a sentence, and what was found all the same."""
    minor = ", ".join(finding.cause for finding in diagnosis.findings)
    return f"{SOUND} Read in the diagnosis what was found all the same: {minor}." if minor else SOUND


def is_sound(diagnosis):
    """Whether nothing alarms, and the run verifies as it should."""
    return not wants_explaining(diagnosis.facts, diagnosis.findings)


def ways_of(options):
    """The ways to make a repair with these `options`, the one that changes least first."""
    if "verify_distance" in options:  # verification alone, or training too
        return {"verify_distance": options["verify_distance"]}, options
    if options.get("trainable"):  # if no layer is frozen, the comparison may stop the gradient
        return options, {"head": "logistic"}
    if "head" in options or "loss" in options:  # the two usual losses of pairs
        contrastive = {"margin": 1.0, "normalize": True, "loss": "contrastive"}
        return options, contrastive if "head" in options else {"head": "logistic"}
    return (options,)


def helps(finding, before, after, diagnosis):
    """Whether a repair helps: it lowers the held-out EER clearly, or lowers it, and what alarmed is not found again.

    Args:
        finding: what was repaired.
        before, after: the `Outcome` without and with the repair.
        diagnosis: the `Diagnosis` with it.
    """
    if compare(before, after).verdict == "confirmed":
        return True
    alarms = {one.cause for one in diagnosis.findings if one.severity != "info"}
    is_gone = finding.severity != "info" and finding.cause not in alarms
    return is_gone and eer_of(after) < eer_of(before)


def rate_of(program):
    """The learning rate of the optimizer, without the factor of the `program`; None if it follows a schedule."""
    optimizer = program.model.optimizer
    return None if is_scheduled(optimizer) else float(ops.convert_to_numpy(optimizer.learning_rate))


def figures(scored):
    """The logs of an epoch that `RunRecorder` reads."""
    if not scored.is_finite:
        return {}
    found = {"auc": verification.auc, "eer": verification.eer}
    return {f"val_{name}": float(function(scored.same, scored.scores)) for name, function in found.items()}


def as_fit_takes(batches):
    """The samples of `batches` as `fit` takes them: a sequence that was not changed, or arrays of two epochs."""
    if isinstance(batches, Sequence) and batches.on_batch is None:
        return batches.source
    if isinstance(batches, Batches):
        rows = slice(None) if batches.rows is None else batches.rows
        return tuple(tree.map_structure(lambda array: array[rows], part) for part in (batches.x, batches.y))
    parts = [batches.at(step)[:2] for step in range(2 * batches.steps)]
    return tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
