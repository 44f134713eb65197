"""Probes: short trainings that ask one question about a program, whatever is suspected.

Contract: a `Program` in, numbers out, facts by name. Nothing is left changed. `probed` answers all of them, for
`diagnose(probe=True)`.

    overfit(program)                    # share of the loss on eight samples that is left after 100 steps
    sweep(program)                      # {0.01: 0.98, 0.1: 0.8, …}: loss after ÷ before, by factor of the rate
    against_half(program, source)       # EER that all identities gain over half of them
    unaugmented(program, source)        # EER that the samples gain without their augmentation
"""

from dataclasses import replace

import numpy as np
from keras import tree

from keras_siamese._seeds import own_seeds, same_generators, same_names
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.experiments.batches import Sequence
from keras_siamese.diagnosis.experiments.changes import anew, has_identities
from keras_siamese.diagnosis.experiments.confirm import compare
from keras_siamese.diagnosis.experiments.program import run

FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
FURTHER = (1000.0, 10_000.0), (0.001, 0.0001)  # tried one after the other while the best factor is the last one
FEW = 8  # samples that every network can learn
OVERFIT_STEPS, SWEEP_STEPS, PAIRED_STEPS = 100, 40, 200
LEAST_IDENTITIES = 8  # of which half are left out
LAST = 5  # steps at each end whose losses are averaged


class Repeated:
    """The same few samples in every batch, of each label as many if labels are pairs'."""

    steps = 1

    def __init__(self, batches, count=FEW):
        x, *y = batches.at(0)
        rows = np.arange(len(tree.flatten(x)[0]))
        labels = np.asarray(tree.flatten(y)[0]).reshape(len(rows), -1)[:, -1] if y else np.zeros(len(rows))
        kinds = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        each = max(2, count // len(kinds))  # of identities, at least two samples
        rows = np.sort(np.concatenate([kind[:each] for kind in kinds])[:count])
        self.batch = tuple(tree.map_structure(lambda array: np.asarray(array)[rows], part) for part in (x, *y))

    def at(self, step):
        return self.batch


def overfit(program, steps=OVERFIT_STEPS):
    """Share of the loss on eight training samples that is left if they are shown in every step from the initial
    weights on: near 0 for a network that can learn. About 1: it is broken before any question about the data.
    """
    return left_of(run(replace(program, batches=Repeated(program.batches)), steps).losses)


def sweep(program, factors=FACTORS, steps=SWEEP_STEPS):
    """Loss after ÷ before some steps from the initial weights, at the learning rate times each of the `factors`: a dict
    by factor; inf where a loss is not finite. If the first or the last factor is the best one, further ones are tried.
    """
    left = {}

    def measure(factor):
        left[factor] = left_of(run(replace(program, rate=program.rate * factor), steps).losses)

    for factor in factors:
        measure(factor)
    for further, end in zip(FURTHER, (max, min), strict=True):
        for factor in further:
            if min(left, key=left.get) == end(left):
                measure(factor)
    return left


def against_half(program, source, steps=PAIRED_STEPS):
    """The `Confirmation` that training on all identities verifies better than on a random half of them, each for as
    many steps; None if new batches cannot be drawn from the `source`, or it has fewer than eight identities.
    """
    if not has_identities(source):
        return None
    labels = np.asarray(source[1] if isinstance(source, tuple) else source.labels)
    names = np.unique(labels)
    if len(names) < LEAST_IDENTITIES:
        return None
    half = np.random.default_rng(0).permutation(names)[: len(names) // 2]
    sides = (anew(source, rows) for rows in (np.flatnonzero(np.isin(labels, half)), None))
    return compare(*(run(replace(program, batches=Sequence(side)), steps) for side in sides))


def unaugmented(program, source, steps=PAIRED_STEPS):
    """The `Confirmation` that training without the augmentation of the `source` verifies better; None if it has none,
    or if new batches cannot be drawn from it.
    """
    if getattr(source, "augment", None) is None or not has_identities(source):
        return None
    plain = replace(program, batches=Sequence(anew(source, augment=None)))
    return compare(run(program, steps), run(plain, steps))


def left_of(losses):
    """The mean of the last losses over that of the first ones, inf if one is not finite."""
    if not np.isfinite(losses).all():
        return float("inf")
    first = np.mean(losses[: min(LAST, max(1, len(losses) // 4))])
    return float(np.mean(losses[-LAST:]) / max(first, limits.TINY))


def probed(program, source=None):
    """The facts of all probes: `overfit_loss_left`; of the sweep `rate_loss_left` at the program's own rate,
    `best_rate_loss_left` and `best_rate_factor` at the best one; the EER gained by all identities over half of them,
    `identities_gain`, and without augmentation, `unaugmented_gain`, each with the lower end of its 95 % interval.

    `source` is the training data, from which new batches are drawn if it has identities.
    """
    with same_generators(python=True), same_names(), own_seeds():
        left = sweep(program)
        best = min(left, key=left.get)
        found = {"overfit_loss_left": overfit(program), "rate_loss_left": left[1.0]}
        found |= {"best_rate_loss_left": left[best], "best_rate_factor": best}
        for name, one in (("identities", against_half), ("unaugmented", unaugmented)):
            if (tested := one(program, source)) is not None:
                found |= {f"{name}_gain": tested.gain, f"{name}_gain_low": tested.low}
    return {name: value for name, value in found.items() if np.isfinite(value)}
