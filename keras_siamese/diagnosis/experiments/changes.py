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

import keras
import numpy as np
from keras import tree

from keras_siamese.data import BalancedBatchSequence, PairSequence
from keras_siamese.data.sources import count_samples, map_arrays, subset, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.experiments.batches import Batches, Sequence
from keras_siamese.diagnosis.experiments.comparison import OPTIONS, recompiled
from keras_siamese.diagnosis.experiments.untouched import same_attributes

CHANGES = {}


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
    compared = {name: value for name, value in options.items() if name in OPTIONS}
    if compared:
        one = recompiled(program, compared, observed)
        if one is not None:
            program, made = one, [*made, *compared]
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
    if not hasattr(source, "labels") or not hasattr(source, "positive_fraction"):
        return None
    return replace(program, batches=Sequence(pairs_anew(source, positive_fraction=value), batches.on_batch))


def balanced(batches, share):
    """The pairs of `batches`, of which as many are shown as before, the rarer label with the `share`; None if one label
    has no pairs.
    """
    labels = batches.labels
    kinds = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(kinds) != 2:
        return None
    few = min(kinds, key=len)
    many = kinds[0] if few is kinds[1] else kinds[1]
    rng, count = np.random.default_rng(2), round(share * len(labels))
    return batches.resampled(np.concatenate([rng.choice(few, count), rng.choice(many, len(labels) - count)]))


def pairs_anew(source, **options):
    """A `PairSequence` of the samples of `source`, with its options as far as it has them."""
    names = ("batch_size", "positive_fraction", "pairs_per_epoch", "weighting", "similar_label", "seed", "augment")
    kept = {name: getattr(source, name) for name in names if getattr(source, name, None) is not None}
    return PairSequence(source.x, source.identities[source.labels], **{**kept, **options})


@changes("weighting", "easy_pairs", "one_identity", "pairs")
def _(program, value, observed):
    source = observed.source
    if hasattr(source, "labels") and hasattr(source, "positive_fraction"):
        options = {"weighting": value} if isinstance(value, str) and value == "balanced" else {}
        return replace(program, batches=Sequence(pairs_anew(source, **options)))
    if isinstance(source, tuple) and program.anatomy.model is observed.siamese.model:
        return replace(program, batches=Sequence(groups_of(*source)))
    return None


def groups_of(x, labels, classes=16, samples=4):
    """Batches in which each identity has as many samples, as losses over a whole batch need them."""
    count = len(np.unique(labels))
    return BalancedBatchSequence(x, labels, classes_per_batch=min(classes, count), samples_per_class=samples)


@changes("similar_label")
def _(program, value, observed):
    """Labels the other way round in training."""
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
    return replace(program, batches=batches.changed(y=lambda array: (ends[0] + ends[1] - array).astype(array.dtype)))


@changes("validation_similar_label")
def _(program, value, observed):
    return replace(program, sign=-program.sign, start=None)


@changes("label_noise", "epsilon")
def _(program, value, observed):
    """The suspected rows are left out."""
    names = ("suspected_labels", "equal_pairs", "zero_pairs")
    rows = sorted({row for name in names for row in observed.facts.rows.get(name, ())})
    batches, source = program.batches, observed.source
    if not rows:
        return None
    if isinstance(batches, Batches):
        count = len(tree.flatten(batches.x)[0])
        return replace(program, batches=batches.resampled(np.setdiff1d(np.arange(count), rows)))
    if not hasattr(source, "labels"):
        return None
    kept = np.setdiff1d(np.arange(count_samples(source.x)), rows)
    x, labels = subset(source.x, kept), source.identities[source.labels[kept]]
    if hasattr(source, "positive_fraction"):
        options = {name: getattr(source, name) for name in ("batch_size", "pairs_per_epoch", "similar_label")}
        return replace(program, batches=Sequence(PairSequence(x, labels, **options)))
    return replace(program, batches=Sequence(groups_of(x, labels)))


@changes("input_scale")
def _(program, value, observed):
    """Inputs with mean 0 and standard deviation 1, in training and held out."""
    arrays = [one for one in tree.flatten(program.batches.at(0)[0]) if one.dtype.kind in "fiu"]
    if not arrays:
        return None
    values = np.concatenate([np.ravel(one).astype(float) for one in arrays])
    middle, spread = values.mean(), values.std()
    if not spread:
        return None
    scaled = partial(standardised, middle=middle, spread=spread)
    trials = replace(program.trials, items=map_arrays(scaled, take(program.trials.items, slice(None))))
    return replace(program, batches=program.batches.changed(x=scaled), trials=trials)


def standardised(array, middle, spread):
    """Numbers less `middle` over `spread`; other arrays as they are."""
    return ((array - middle) / spread).astype("float32") if array.dtype.kind in "fiu" else array


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
    return replace(program, batches=Scaled(program.batches, factors), trials=replace(trials, items=items))


class Scaled:
    """Batches of pairs whose sides are multiplied by `factors` `(2,)`."""

    def __init__(self, batches, factors):
        self.batches, self.factors, self.steps = batches, factors, batches.steps

    def at(self, step):
        sides, *rest = self.batches.at(step)
        return [(side * factor).astype("float32") for side, factor in zip(sides, self.factors, strict=True)], *rest


@changes("preprocessing")
def _(program, value, observed):
    """Each held-out side with the mean and the standard deviation of the training inputs; nothing is trained."""
    x, trials = program.batches.at(0)[0], program.trials
    items = take(trials.items, slice(None))
    if isinstance(items, dict) or items.dtype.kind not in "fiu":
        return None
    wanted = np.concatenate([np.ravel(one).astype(float) for one in tree.flatten(x)])
    items, done = np.array(items, "float32"), np.zeros(len(items), bool)
    for side in (trials.left, trials.right):
        rows = np.setdiff1d(np.unique(side), np.flatnonzero(done))
        if len(rows) and (spread := items[rows].std()):
            items[rows] = (items[rows] - items[rows].mean()) / spread * wanted.std() + wanted.mean()
        done[rows] = True
    return replace(program, trials=replace(trials, items=items), start=None)


@changes("momentum")
def _(program, value, observed):
    """BatchNormalization that follows its batches faster."""
    layers = program.model._flatten_layers(include_self=True, recursive=True)
    norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
    settings = [partial(same_attributes, one, ("momentum",), momentum=value) for one in norms]
    return replace(program, settings=(*program.settings, *settings)) if norms else None
