"""A user's training program, which can be run for a few steps with something changed and leaves no trace.

Contract: a `Program` is a model with its optimizer and loss, the batches that train it, and held-out trials. `run`
starts it from given weights, trains some steps, scores the trials, and puts everything back (see `untouched`). Programs
that start from the same weights and have the same batches differ only in what was changed.

    program = program_of(observed)
    found = run(program, steps=40)
    found.losses, found.scored
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import keras
import numpy as np
from keras import ops

from keras_siamese._replicas import train_on_batch, value_of
from keras_siamese._seeds import own_seeds
from keras_siamese.data.sources import subset
from keras_siamese.diagnosis.experiments.batches import batches_of
from keras_siamese.diagnosis.experiments.untouched import same_attributes, untouched
from keras_siamese.diagnosis.facts.model import initial_values
from keras_siamese.scoring import ScoredTrials, Trials, score

PAIRS = 4_000  # held-out pairs on which programs are compared


@dataclass(frozen=True, eq=False)
class Program:
    """A training program.

    Attributes:
        model: the compiled model.
        anatomy: the `Anatomy` by which its pairs are scored.
        batches: `Batches` or `Sequence`.
        trials: the held-out `Trials`.
        start: initial values by variable, `{id: array}`; the other variables keep their present values. None trains
            from the present weights, with the present state of the optimizer.
        rate: factor on the learning rate.
        settings: functions that return a context manager, in which the program is trained.
        sign: −1 if the scores of pairs are to be read the other way round.
        finish: a function from the program to a model that takes the user's inputs, where `batches` and `trials` have
            others; None otherwise.
    """

    model: keras.Model
    anatomy: object
    batches: object
    trials: Trials
    start: dict | None = None
    rate: float = 1.0
    settings: tuple = field(default=())
    sign: float = 1.0
    finish: object = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a program did: its losses, one for each step, and its scored held-out trials."""

    losses: list
    scored: ScoredTrials


def program_of(observed):
    """The program of a run as it was `observed`; None if its model cannot be trained, or its batches not be read."""
    anatomy = observed.siamese
    model = getattr(anatomy, "model", None)
    batches = batches_of(observed)
    if batches is None or getattr(model, "optimizer", None) is None or not getattr(model, "compiled", False):
        return None
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    start = new_values(model) if observed.initial is None else observed.initial
    return Program(model, anatomy, batches, fewer(observed.valid.trials), start)


def fewer(trials, most=PAIRS):
    """As many genuine as impostor comparisons of `trials`, at most `most`, and the items that they need."""
    rows = np.sort(np.random.default_rng(0).permutation(trials.balanced())[:most])
    used, places = np.unique(np.concatenate([trials.left[rows], trials.right[rows]]), return_inverse=True)
    left, right = np.split(places.reshape(-1), 2)
    of_items = {name: None if (of := getattr(trials, name)) is None else of[used] for name in ("identities", "rows")}
    return replace(trials, items=subset(trials.items, used), left=left, right=right, same=trials.same[rows], **of_items)


def values_of(model, known=None):
    """The values of all variables of `model`, `{id of a variable: array}`: those that are `known`, or the present ones.

    Values of other models are left out, because Python uses the id of a deleted variable again.
    """
    new = [one for one in model.variables if id(one) not in (known or {})]
    found = {id(one): ops.convert_to_numpy(one.value).copy() for one in new}
    return found | {id(one): known[id(one)] for one in model.variables if id(one) not in found}


def new_values(model):
    """New initial values of all layers that have a weight which training may change: `{id of a variable: array}`."""
    found = {}
    with own_seeds():
        for layer in model._flatten_layers(include_self=True, recursive=True):
            own = [*layer._trainable_variables, *layer._non_trainable_variables]
            if any(one.trainable for one in own):
                found |= {id(one): new for one, new in zip(own, initial_values(layer, own), strict=True)}
    return found


def run(program, steps, on_step=None):
    """Train `program` for `steps` steps and score its trials; everything is put back afterwards.

    Args:
        program: a `Program`.
        steps: number of steps, ≥ 0. With 0 it is only scored.
        on_step: a function without arguments that is called after each step.

    Returns:
        An `Outcome`. Training ends at the first loss that is not finite.
    """
    model, losses = program.model, []
    with untouched(model), own_seeds(), begun(program):
        model.reset_metrics()
        for step in range(steps):
            losses.append(float(train_on_batch(model, *program.batches.at(step))["loss"]))
            model.reset_metrics()
            if on_step is not None:
                on_step()
            if not np.isfinite(losses[-1]):
                break
        scored = score(program.anatomy, program.trials)
    return Outcome(losses, replace(scored, scores=program.sign * scored.scores))


@contextmanager
def begun(program):
    """The model of `program` has its initial values, and its settings and its learning rate within the block."""
    with ExitStack() as stack:
        if program.settings or (program.rate != 1 and is_scheduled(program.model.optimizer)):
            stack.enter_context(compiled_anew(program.model))
        for setting in program.settings:
            stack.enter_context(setting())
        optimizer = program.model.optimizer
        if not optimizer.built:  # of a model that was made for this program
            optimizer.build(program.model.trainable_variables)
        if program.start is not None:
            set_values(program)
        stack.enter_context(at_rate(program.model, program.rate))
        yield


@contextmanager
def compiled_anew(model):
    """The training step is compiled anew in the block, and again after it: what was compiled has the former settings.

    JAX takes what it has compiled for the same method, so that the step must be a function of its own.
    """
    step = model.train_step

    def train_step(*args, **kwargs):
        return step(*args, **kwargs)

    with same_attributes(model, ("train_function",), train_function=None):
        model.train_step = train_step
        try:
            yield
        finally:
            del model.train_step


def is_scheduled(optimizer):
    return isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def set_values(program):
    """Set the initial values and a new state of the optimizer."""
    for variable in program.model.variables:
        if id(variable) in program.start:
            variable.assign(program.start[id(variable)])
    optimizer = program.model.optimizer
    new = type(optimizer).from_config(optimizer.get_config())
    new.build(program.model.trainable_variables)
    for own, value in zip(optimizer.variables, new.variables, strict=True):
        own.assign(value_of(value))


@contextmanager
def at_rate(model, factor):
    """The optimizer of `model` has `factor` times its learning rate within the block, with a schedule too."""
    optimizer = model.optimizer
    if factor == 1:
        yield
        return
    if is_scheduled(optimizer):
        scaled = Scaled(optimizer._learning_rate, factor)
        with same_attributes(optimizer, ("_learning_rate",), _learning_rate=scaled):
            yield
        return
    present = float(ops.convert_to_numpy(optimizer.learning_rate))
    optimizer.learning_rate = present * factor
    try:
        yield
    finally:
        optimizer.learning_rate = present


class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """`factor` times the rate of another schedule."""

    def __init__(self, schedule, factor):
        self.schedule, self.factor = schedule, factor

    def __call__(self, step):
        return self.schedule(step) * self.factor

    def get_config(self):
        return {"schedule": self.schedule, "factor": self.factor}
