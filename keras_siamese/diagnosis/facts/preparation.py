"""Facts of how held-out inputs were prepared, beside training inputs: their values, their orientation, and the order of
their channels.

Data sets differ for harmless reasons too. So a clear difference is undone, as far as that is possible: the held-out
items are prepared like the training items, and the model scores them again. If it now tells pairs apart better, the
difference did harm.

Contract: all functions but `of_preparation` and `undone` take arrays and know no run.

    other_scale(train, held_out)        # (log10 of the ratio of spreads, difference of the means)
    preparing(train, held_out)          # a function that turns samples back and scales them like training samples
"""

import functools
import itertools
from dataclasses import replace

import numpy as np

from keras_siamese import verification
from keras_siamese.data.sources import Rows, count_samples, named_arrays, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.references import has_numbers
from keras_siamese.diagnosis.facts.verification import gain_error, widening
from keras_siamese.scoring import score

SOME, NUMBERS = 512, 16_000_000  # samples that are compared, fewer if they have more numbers, but at least FEW
FEW = 32
VALUES = ("held_out_spread", "held_out_shift", "held_out_difference")  # differences of the numbers, in any place


def beyond():
    """From where on each difference is clear, by name, with the limits of the moment."""
    return {
        "held_out_spread": limits.SCALES_APART,
        "held_out_shift": limits.INPUTS_SHIFTED,
        "held_out_difference": limits.OTHER_VALUES,
        "turned": limits.TURNED,
        "swapped_channels": limits.SIGMAS,
    }


def of_preparation(observed):
    """How the held-out inputs differ from the training inputs, as numbers and as pictures; of pairs, each side.

    If they differ clearly, also the EER that is gained by undoing it, `undone_gain`, with its standard error.
    """
    valid = observed.valid.trials
    if observed.train is None:
        return {}
    drawn, sides = some_of(observed.train.trials.items), [some_of(take_side(valid, rows)) for rows in sides_of(valid)]
    if any(not has_numbers(side) or side.shape[1:] != getattr(drawn, "shape", ())[1:] for side in (drawn, *sides)):
        return {}
    each = [differences(drawn, side) for side in sides]
    found = {name: max((one[name] for one in each), key=abs) for name in each[0]}
    # Signed whole numbers are usually codes, such as those of words, and cannot be scaled.
    if observed.siamese is None or not is_clear(found) or drawn.dtype.kind == "i":
        return found
    scored, pairs = score(observed.siamese, undone(valid, drawn)), observed.valid
    if not scored.is_finite:
        return found
    gain = observed.eer.estimate - verification.eer(pairs.same, scored.scores)
    error = gain_error(pairs.same, pairs.scores, scored.scores, *valid.pair_identities) * widening(valid)
    return {**found, "undone_gain": gain, "undone_gain_se": error}


def some_of(items):
    """At most `SOME` of the samples `items`, evenly spaced."""
    size = sum(np.prod(array.shape[1:], dtype=float) for _, array in named_arrays("items", items))
    most = int(np.clip(NUMBERS / max(size, 1), FEW, SOME))
    return take(items, np.unique(np.linspace(0, count_samples(items) - 1, most).astype(int)))


def sides_of(trials):
    """Rows of the items on each side of pairs; all rows at once if identities are known, whose items have no side."""
    if trials.identities is not None:
        return [np.arange(count_samples(trials.items))]
    left = np.unique(trials.left)
    return [rows for rows in (left, np.setdiff1d(trials.right, left)) if len(rows)]


def take_side(trials, rows):
    """The items in the `rows` of `trials`; all of them as they are, so that lazy ones are not read."""
    return trials.items if len(rows) == count_samples(trials.items) else take(trials.items, rows)


def differences(train, held_out):
    """How the samples `held_out` differ from the samples `train`, by the names in `beyond`; 0 is no difference."""
    spread, shift = other_scale(train, held_out)
    found = {"held_out_spread": spread, "held_out_shift": shift}
    found["held_out_difference"] = value_difference(train, held_out)
    if is_clear(found):
        held_out = revalued(train, held_out)(held_out)
    return found | {"turned": turned(train, held_out)[0], "swapped_channels": swapped_channels(train, held_out)[0]}


def is_clear(found):
    """Whether a difference that was found is beyond its limit."""
    return any(abs(value) > beyond()[name] for name, value in found.items())


def undone(trials, train):
    """The `trials` with their items prepared like the samples `train` `(n, …)` when they are read, each side of pairs
    for itself.
    """
    sides = sides_of(trials)
    functions = [preparing(train, some_of(take_side(trials, rows))) for rows in sides]
    of_item = np.zeros(count_samples(trials.items), int)
    for number, rows in enumerate(sides):
        of_item[rows] = number
    return replace(trials, items=Rows(Prepared(trials.items, functions, of_item)))


class Prepared:
    """A source of `items`, each changed by the one of the `functions` whose number is in `of_item` `(items,)`."""

    def __init__(self, items, functions, of_item):
        self.items, self.functions, self.of_item = items, functions, of_item

    def __len__(self):
        return len(self.of_item)

    def __getitem__(self, rows):
        rows = np.asarray(rows)
        samples, numbers = np.asarray(take(self.items, rows)), self.of_item[rows]
        changed = np.empty(samples.shape, "float32")
        for number in np.unique(numbers):
            changed[numbers == number] = self.functions[number](samples[numbers == number])
        return changed


def preparing(train, held_out):
    """A function that gives samples like `held_out` `(n, …)` the values, the orientation and the channels of samples
    like `train`, where both differ clearly.
    """
    found, steps = differences(train, held_out), []
    if is_clear({name: found[name] for name in VALUES}):
        steps.append(revalued(train, held_out))
        held_out = steps[-1](held_out)
    if found["turned"] > limits.TURNED:
        order, flipped = turned(train, held_out)[1]
        order = (0, *(1 + axis for axis in order), *range(1 + len(order), held_out.ndim))
        axes = [1 + axis for axis in flipped]
        steps.append(lambda x: np.flip(x.transpose(order), axes))
    if found["swapped_channels"] > limits.SIGMAS:
        channels = list(range(held_out.shape[-1]))
        one, other = swapped_channels(train, held_out)[1]
        channels[one], channels[other] = other, one
        steps.append(lambda x: x[..., channels])
    return lambda x: functools.reduce(lambda x, step: step(x), steps, x)


def revalued(train, held_out):
    """A function that gives samples like `held_out` `(n, …)` the mean and the spread of all numbers in `train`.

    It also negates them, as dark for light, if the mean sample then fits that of `train` better in some orientation; if
    the samples have no shape in common, if their numbers are then distributed much more like those of `train`.
    """
    spread, middle = float(np.std(held_out)), float(np.mean(held_out))
    factor, mean = float(np.std(train)) / spread if spread > 0 else 1.0, float(np.mean(train))

    def change(x, sign):
        return (sign * factor * (np.asarray(x, "float32") - middle) + mean).astype("float32")

    fits = orientations(train, held_out).values()
    if fits:
        is_negated = -min(fits) > max(fits)
    else:
        as_it_is, negated = (value_difference(train, change(held_out, sign)) for sign in (1, -1))
        is_negated = limits.TWICE * negated < as_it_is
    return functools.partial(change, sign=-1 if is_negated else 1)


def other_scale(train, held_out):
    """`(log10 of the ratio of spreads, difference of the means in spreads of the training inputs)` of two samples."""
    train, held_out = (np.asarray(side, float) for side in (train, held_out))
    spread = train.std()
    if not min(spread, held_out.std()) > 0:
        return 0.0, 0.0
    return float(np.log10(held_out.std() / spread)), float((held_out.mean() - train.mean()) / spread)


def value_difference(train, held_out, most=20_000):
    """The largest difference of the distribution functions of all numbers in two samples: in [0, 1], 0 if equal."""
    sides = []
    for side in (train, held_out):
        values = np.asarray(side, float).ravel()
        sides.append(np.sort(values[np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)]))
    at = np.concatenate(sides)
    below = [np.searchsorted(side, at, side="right") / len(side) for side in sides]
    return float(np.abs(below[0] - below[1]).max())


def turned(train, held_out):
    """`(gain, (order, flipped))`: how much better the mean held-out sample correlates with the mean training sample
    once its axes are brought into the `order` and those in `flipped` are reversed.

    The gain is at most 2, and 0 if it is best as it is, or if the samples of one set have no shape in common.
    """
    found = orientations(train, held_out)
    way = max(found, key=found.get, default=None)
    if way is None or found[way] <= limits.SAME_SHAPE:
        return 0.0, None
    return float(found[way] - found[tuple(sorted(way[0])), ()]), way


def orientations(train, held_out):
    """How the mean held-out sample correlates with the mean training sample in each orientation, by `(order, flipped)`
    as in `turned`; {} if the samples of one set have no shape in common.

    Mean samples of a few identities differ by chance. K identities without a common shape give a mean that explains
    1/K of the variance, so both means must explain more than five would.
    """
    means = []
    for side in (train, held_out):
        side = without_channels(np.asarray(side, float))
        if side.ndim < 2 or np.prod(side.shape[1:]) < limits.LEAST_PLACES:
            return {}
        mean = side.mean(axis=0)
        if mean.var() < limits.COMMON_SHAPE * side.var() or not mean.var() > 0:
            return {}
        means.append(mean)
    axes = range(means[0].ndim)
    orders = [order for order in itertools.permutations(axes) if means[1].transpose(order).shape == means[0].shape]
    flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
    return {
        (order, flip): np.corrcoef(means[0].ravel(), np.flip(means[1].transpose(order), flip).ravel())[0, 1]
        for order in orders
        for flip in flips
    }


def without_channels(x):
    """Samples `(n, …)` averaged over their last axis, if it holds channels: at most four, beside a longer axis."""
    return x.mean(axis=-1) if has_channels(x) else x


def has_channels(x):
    return x.ndim > 2 and 1 <= x.shape[-1] <= limits.MOST_CHANNELS and max(x.shape[1:-1]) > limits.MOST_CHANNELS


def swapped_channels(train, held_out):
    """`(errors, (one, other))`: how clearly two channels of the held-out samples `(n, …, channels)` are exchanged, in
    standard errors by which the smaller of both differences of their means lies beyond 0, on opposite sides; 0 if no
    two are. Both differences must
    be of the same size to a factor of two. The errors are widened for samples of one identity.

    Differences within a sample do not depend on how bright it is.
    """
    train, held_out = np.asarray(train, float), np.asarray(held_out, float)
    if not has_channels(train):
        return 0.0, None
    means = [side.mean(axis=tuple(range(1, side.ndim - 1))) for side in (train, held_out)]
    most = 0.0, None
    for one, other in itertools.combinations(range(train.shape[-1]), 2):
        gaps = [side[:, one] - side[:, other] for side in means]
        errors = [float(limits.SHARED) * gap.std() / np.sqrt(len(gap)) for gap in gaps]
        sizes = [gap.mean() for gap in gaps]
        if sizes[0] * sizes[1] >= 0 or not 1 / limits.TWICE <= abs(sizes[0] / sizes[1]) <= limits.TWICE:
            continue
        least = min(abs(size) / max(error, 1e-12) for size, error in zip(sizes, errors, strict=True))
        most = max(most, (float(min(least, 1 / limits.SMALLEST_SHARE)), (one, other)), key=lambda found: found[0])
    return most
