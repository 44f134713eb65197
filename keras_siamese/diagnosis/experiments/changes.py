"""What the options of a recipe mean for a user's own program: each changes a `Program`.

Contract: `changed(program, options, observed)` makes those of the `options` that this program has, and says which ones
they were. A repair of a finding is such a dict of options, under this package's argument names; see `Finding.apply`. A
function here takes the program, the value of its option, and `observed`. It returns the changed program, or None if
the program does not have what the option changes.

    options = options_of(finding, observed.facts)            # {"learning_rate": 0.001}
    program, made = changed(program, options, observed)      # made == ("learning_rate",)
"""

from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_siamese.data import BalancedBatchSequence, PairSequence
from keras_siamese.data.sources import count_samples, subset, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.experiments.batches import Batches, Sequence
from keras_siamese.diagnosis.experiments.comparison import differing, recompiled, with_scaled_side, with_towers
from keras_siamese.diagnosis.experiments.program import values_of
from keras_siamese.diagnosis.experiments.turned import turned
from keras_siamese.diagnosis.experiments.untouched import same_attributes
from keras_siamese.diagnosis.facts.preparation import undone
from keras_siamese.diagnosis.facts.references import has_numbers

CHANGES: dict[str, Any] = {}
# What tells how a sequence draws its batches: for pairs, and for batches of identities.
KINDS = {
    PairSequence: ("batch_size", "positive_fraction", "pairs_per_epoch", "weighting", "similar_label"),
    BalancedBatchSequence: ("classes_per_batch", "samples_per_class", "batches_per_epoch", "weighting"),
}
OF_ALL = ("seed", "augment")
CLASSES = 16  # identities in a batch that is drawn from samples without a sequence


def changes(*names):
    """Register the function for the options `names`."""

    def add(function):
        CHANGES.update(dict.fromkeys(names, function))
        return function

    return add


def options_of(finding, facts):
    """The options that the repair of a `finding` sets, a dict; {} if only a person can act."""
    if finding.apply is None:
        return {}
    present = {"learning_rate": facts.get("learning_rate", float(limits.USUAL_RATE))}
    repaired = finding.apply(dict(present))
    return {name: value for name, value in repaired.items() if name not in present or value != present[name]}


def changed(program, options, observed):
    """`(program, made)`: the program with the `options`, and the names of those that it has, in order."""
    made = []
    for name, value in options.items():
        one = CHANGES[name](program, value, observed) if name in CHANGES else None
        if one is not None:
            program, made = one, [*made, name]
    compared = differing(program, options, observed)
    one = recompiled(program, compared, observed) if compared else None
    program, made = (program, made) if one is None else (one, [*made, *compared])
    if made and program.start is not None:  # layers that were made for it start anew, too
        program = replace(program, start=values_of(program.model, known=program.start))
    return program, tuple(made)


@changes("learning_rate")
def _(program, value, observed):
    present = observed.facts.get("learning_rate")
    return None if not present else replace(program, rate=program.rate * value / present)


@changes("positive_fraction")
def _(program, value, observed):
    batches, source = program.batches, observed.source
    if isinstance(batches, Batches):
        return replace(program, batches=balanced(batches, value))
    if not has_identities(source) or not hasattr(source, "positive_fraction"):
        return None
    return replace(program, batches=Sequence(anew(source, positive_fraction=value), batches.on_batch))


def balanced(batches, share):
    """The pairs of `batches`, of which as many are shown as before, the rarer label with the `share`; None if one label
    has no pairs.
    """
    shown = batches.shown
    labels = batches.labels[shown]
    kinds = [shown[labels == label] for label in np.unique(labels)]
    if len(kinds) != 2:
        return None
    few = min(kinds, key=len)
    many = kinds[0] if few is kinds[1] else kinds[1]
    rng, count = np.random.default_rng(2), round(share * len(labels))
    return batches.resampled(np.concatenate([rng.choice(few, count), rng.choice(many, len(labels) - count)]))


def anew(source, rows=None, **options):
    """A sequence like `source`, with its options as far as it has them, of its samples `rows` `(m,)`; None keeps all.

    `source` has samples and identities: a sequence of pairs or of balanced batches, or `(x, labels)`.
    """
    if isinstance(source, tuple):
        x, labels = source
        kind, names = BalancedBatchSequence, ()
        options = {"classes_per_batch": min(CLASSES, len(np.unique(labels))), **options}
    else:
        x, labels = source.x, source.identities[source.labels]
        kind, names = next((kind, names) for kind, names in KINDS.items() if all(hasattr(source, one) for one in names))
    kept = {name: getattr(source, name) for name in (*names, *OF_ALL) if getattr(source, name, None) is not None}
    if rows is not None:
        x, labels = subset(x, rows), np.asarray(labels)[rows]
    return kind(x, labels, **{**kept, **options})


def has_identities(source):
    """Whether new batches can be drawn from `source`."""
    if isinstance(source, tuple):
        return len(source) == 2 and source[1] is not None
    is_known = any(all(hasattr(source, one) for one in names) for names in KINDS.values())
    return hasattr(source, "identities") and is_known


def are_equal(batch, other):
    """Whether two batches hold the same numbers."""
    return all(map(np.array_equal, tree.flatten(batch), tree.flatten(other)))


@changes("weighting", "easy_pairs", "one_identity", "pairs")
def _(program, value, observed):
    """Pairs, or batches of identities, that are drawn as the package draws them."""
    if not has_identities(observed.source):
        return None
    options = {"weighting": "balanced"} if value == "balanced" else {}
    batches = Sequence(anew(observed.source, **options))
    return None if are_equal(batches.at(0), program.batches.at(0)) else replace(program, batches=batches)


@changes("similar_label")
def _(program, value, observed):
    """Labels swapped in training: by the loss, or in the batches of a model that cannot be compiled anew."""
    batches = program.batches
    try:
        if isinstance(batches, Batches):
            labels = batches.labels
        else:
            labels = np.concatenate([np.reshape(batches.at(step)[1], -1) for step in range(batches.steps)])
    except (ValueError, IndexError):
        return None
    ends = np.unique(labels)
    if len(ends) != 2:
        return None
    anatomy, loss, found = program.anatomy, observed.loss, None
    if anatomy.has_embeddings and (isinstance(loss, str) or callable(loss)):
        found = with_towers(program, observed, anatomy.encoder, anatomy.other, turned(loss, ends.tolist()))
    if found is not None:
        return found
    return replace(program, batches=batches.changed(y=lambda array: (ends[0] + ends[1] - array).astype(array.dtype)))


@changes("validation_similar_label")
def _(program, value, observed):
    return replace(program, sign=-program.sign, start=None)


@changes("label_noise")
def _(program, value, observed):
    return without(program, observed, "suspected_labels")


@changes("epsilon")
def _(program, value, observed):
    return without(program, observed, "equal_pairs", "zero_pairs")


def without(program, observed, *names):
    """The program without the training rows that are listed under `names`; None if there are none."""
    rows = sorted({row for name in names for row in observed.facts.rows.get(name, ())})
    batches, source = program.batches, observed.source
    if not rows:
        return None
    if isinstance(batches, Batches):
        return replace(program, batches=batches.without(rows))
    if not has_identities(source):
        return None
    count = count_samples(source[0] if isinstance(source, tuple) else source.x)
    return replace(program, batches=Sequence(anew(source, np.setdiff1d(np.arange(count), rows))))


@changes("tower_scale")
def _(program, value, observed):
    """The side whose inputs are farther from a root mean square of 1 at the scale of the other one."""
    x, trials = program.batches.at(0)[0], program.trials
    if not isinstance(x, (tuple, list)) or len(x) != 2 or len(np.intersect1d(trials.left, trials.right)):
        return None
    sizes = np.array([np.sqrt(np.mean(np.square(np.asarray(side, float)))) for side in x])
    if not sizes.all():
        return None
    side = int(np.argmax(np.abs(np.log(sizes))))
    factors = np.ones(2, "float32")
    factors[side] = sizes[1 - side] / sizes[side]
    items = np.array(take(trials.items, slice(None)), "float32")
    items[np.unique((trials.left, trials.right)[side])] *= factors[side]
    finish = partial(with_scaled_side, side=side, spread=float(1 / factors[side]))
    trials = replace(trials, items=items)
    return replace(program, batches=Scaled(program.batches, factors), trials=trials, finish=finish)


class Scaled:
    """Batches of pairs whose sides are multiplied by `factors` `(2,)`."""

    def __init__(self, batches, factors):
        self.batches, self.factors, self.steps = batches, factors, batches.steps

    def at(self, step):
        sides, *rest = self.batches.at(step)
        return [(side * factor).astype("float32") for side, factor in zip(sides, self.factors, strict=True)], *rest


@changes("preprocessing")
def _(program, value, observed):
    """Held-out inputs prepared like the training inputs; nothing is trained."""
    drawn = tree.flatten(program.batches.at(0)[0])
    items = program.trials.items
    if not has_numbers(items) or items.dtype.kind == "i" or any(one.shape[1:] != items.shape[1:] for one in drawn):
        return None
    return replace(program, trials=undone(program.trials, np.concatenate(drawn)), start=None)


@changes("momentum")
def _(program, value, observed):
    """BatchNormalization that follows its batches faster."""
    layers = program.model._flatten_layers(include_self=True, recursive=True)
    norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
    settings = [partial(same_attributes, one, ("momentum",), momentum=value) for one in norms]
    return replace(program, settings=(*program.settings, *settings)) if norms else None
