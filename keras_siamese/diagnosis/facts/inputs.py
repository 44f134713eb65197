"""Facts of the inputs: their scale at the first layer with weights, one input against the other, detail in images."""

import itertools

import keras
import numpy as np
from keras import layers, ops

from keras_siamese.data.sources import count_samples, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.batches import is_pairs
from keras_siamese.scoring import to_numpy

SOME = 512  # samples whose scale is measured
NORMALISING = (layers.Rescaling, layers.Normalization, layers.BatchNormalization, layers.LayerNormalization)


def of_inputs(observed):
    """The scale of the inputs at the first layer with weights, and of one side of the pairs against the other."""
    found, siamese, trials = {}, observed.siamese, observed.valid.trials
    some = some_of(trials.items)
    if isinstance(some, dict) or not np.issubdtype(some.dtype, np.number):
        return found
    if siamese is not None:  # held-out inputs may be prepared in another way than those that the encoder learned from
        learned = some if observed.train is None else some_of(observed.train.trials.items)
        given = first_inputs(siamese.encoder, learned) if observed.has_embeddings else learned
        if not looks_up(siamese.encoder):
            found["input_scale"] = root_mean_square(given)
        if some.ndim == 4 and min(some.shape[1:3]) >= limits.LEAST_SIDE:
            found["detail"] = detail(some)
    if trials.identities is None:
        found["held_out_towers"] = log_ratio(*(take(trials.items, side) for side in (trials.left, trials.right)))
    found |= of_preprocessing(observed, some)
    pairs = [inputs for inputs, _ in observed.batches if is_pairs(inputs)]
    if pairs:
        found["drawn_towers"] = log_ratio(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
    return found


def some_of(items):
    """At most `SOME` of the samples `items`, evenly spaced."""
    return take(items, np.unique(np.linspace(0, count_samples(items) - 1, SOME).astype(int)))


def of_preprocessing(observed, held_out):
    """How the held-out inputs differ from the training inputs, as numbers and as pictures; of pairs, each side."""
    if observed.train is None:
        return {}
    trials = observed.train.trials
    drawn = some_of(trials.items)
    if isinstance(drawn, dict) or drawn.dtype.kind not in "fiu" or drawn.shape[1:] != held_out.shape[1:]:
        return {}
    sides, valid = [held_out], observed.valid.trials
    if valid.identities is None:
        sides = [take(valid.items, rows[:SOME]) for rows in (valid.left, valid.right)]
    spreads, shifts = zip(*(other_scale(drawn, side) for side in sides), strict=True)
    found = {"held_out_spread": max(spreads, key=abs), "held_out_shift": max(shifts, key=abs)}
    found["held_out_difference"] = max(value_difference(drawn, side) for side in sides)
    found["turned"] = max(turned(drawn, side) for side in sides)
    found["swapped_channels"] = max(swapped_channels(drawn, side) for side in sides)
    return found


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
    """How much better the mean held-out sample correlates with the mean training sample once it is turned, mirrored or
    reversed: at most 2, 0 if it is best as it is, or if the samples of one set have no shape in common.

    Mean samples of a few identities differ by chance. K identities without a common shape give a mean that explains
    1/K of the variance, so both means must explain more than five would.
    """
    means = []
    for side in (train, held_out):
        side = without_channels(np.asarray(side, float))
        if side.ndim < 2 or np.prod(side.shape[1:]) < limits.LEAST_PLACES:
            return 0.0
        mean = side.mean(axis=0)
        if mean.var() < limits.COMMON_SHAPE * side.var() or not mean.var() > 0:
            return 0.0
        means.append(mean)
    axes = range(means[0].ndim)
    orders = [order for order in itertools.permutations(axes) if means[1].transpose(order).shape == means[0].shape]
    flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
    found = {
        (order, flip): np.corrcoef(means[0].ravel(), np.flip(means[1].transpose(order), flip).ravel())[0, 1]
        for order in orders
        for flip in flips
    }
    as_it_is, best = found[tuple(axes), ()], max(found.values())
    return float(best - as_it_is) if best > limits.SAME_SHAPE else 0.0


def without_channels(x):
    """Samples `(n, …)` averaged over their last axis, if it holds channels: at most four, beside a longer axis."""
    return x.mean(axis=-1) if has_channels(x) else x


def has_channels(x):
    return x.ndim > 2 and 1 <= x.shape[-1] <= limits.MOST_CHANNELS and max(x.shape[1:-1]) > limits.MOST_CHANNELS


def swapped_channels(train, held_out):
    """How clearly two channels of the held-out samples `(n, …, channels)` are exchanged: standard errors by which the
    smaller of both differences of their means lies beyond 0, on opposite sides; 0 if no two are. Both differences must
    be of the same size to a factor of two. The errors are widened for samples of one identity.

    Differences within a sample do not depend on how bright it is.
    """
    train, held_out = np.asarray(train, float), np.asarray(held_out, float)
    if not has_channels(train):
        return 0.0
    means = [side.mean(axis=tuple(range(1, side.ndim - 1))) for side in (train, held_out)]
    most = 0.0
    for one, other in itertools.combinations(range(train.shape[-1]), 2):
        gaps = [side[:, one] - side[:, other] for side in means]
        errors = [float(limits.SHARED) * gap.std() / np.sqrt(len(gap)) for gap in gaps]
        sizes = [gap.mean() for gap in gaps]
        if sizes[0] * sizes[1] >= 0 or not 0.5 <= abs(sizes[0] / sizes[1]) <= 2:
            continue
        most = max(most, min(abs(size) / max(error, 1e-12) for size, error in zip(sizes, errors, strict=True)))
    return float(min(most, 1 / limits.SMALLEST_SHARE))


def log_ratio(left, right):
    """log10 of the scale of the `left` inputs over that of the `right` ones; None if one side is all zeros."""
    scales = [root_mean_square(side) for side in (left, right)]
    return float(np.log10(scales[0] / scales[1])) if min(scales) > 0 else None


def root_mean_square(x):
    """√ of the mean of x² over all numbers of an array, or of a dict of them."""
    arrays = x.values() if isinstance(x, dict) else [x]
    squares = [np.square(np.asarray(array, float)) for array in arrays]
    return float(np.sqrt(sum(square.sum() for square in squares) / sum(square.size for square in squares)))


def detail(images):
    """Power of the finest octave of `(n, height, width[, channels])` over that of the next coarser one: between .27 and
    1.8 for natural images and drawings of any size, and at most .05 if they are blurred.

    Field, *Relations between the statistics of natural images and the response properties of cortical cells*, JOSA A 4,
    1987, https://doi.org/10.1364/JOSAA.4.002379: the amplitude falls as 1/frequency, so all octaves have equal power.

    >>> noise = np.random.default_rng(0).normal(size=(50, 16, 16))
    >>> round(detail(noise)), round(detail(np.cumsum(np.cumsum(noise, axis=1), axis=2)), 1)
    (5, 0.4)
    """
    images = np.asarray(images, float)
    grey = images.mean(axis=3) if images.ndim == 4 else images
    # The window hides the borders of the image, which the Fourier transform would take for edges.
    window = np.hanning(grey.shape[1])[:, None] * np.hanning(grey.shape[2])
    power = (np.abs(np.fft.fft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    rows, columns = (np.abs(np.fft.fftfreq(size)) for size in grey.shape[1:])
    frequency = np.maximum(rows[:, None], columns)
    finest, coarser = power[frequency >= 0.25].sum(), power[(frequency >= 0.125) & (frequency < 0.25)].sum()
    return float(finest / coarser) if coarser else 1.0


def first_inputs(encoder, x):
    """The inputs of the first layer with a kernel: `x` `(n, …)` after the `Rescaling`, normalising and reshaping layers
    before it, as an array. `x` itself if it is a dict or if the layers of the encoder are not a sequence.
    """
    if isinstance(x, dict) or not is_sequence(encoder):
        return x
    value = ops.convert_to_tensor(np.asarray(x, "float32"))
    for layer in encoder.layers:
        if isinstance(layer, keras.Model):
            return first_inputs(layer, to_numpy(value))
        if layer.weights and not isinstance(layer, NORMALISING):
            break
        if not isinstance(layer, layers.InputLayer):
            value = layer(value, training=False) if isinstance(layer, layers.BatchNormalization) else layer(value)
    return to_numpy(value)


def looks_up(encoder):
    """Whether the first layer with weights takes ids to look up, such as those of words, whose size says nothing."""
    for layer in getattr(encoder, "layers", ()):
        if isinstance(layer, keras.Model):
            return looks_up(layer)
        if layer.weights and not isinstance(layer, NORMALISING):
            return isinstance(layer, layers.Embedding)
    return False


def is_sequence(encoder):
    """Whether the layers of an encoder are called once each, on one tensor, so that they follow each other."""
    if isinstance(encoder, keras.Sequential):
        return True
    if not isinstance(encoder, keras.Model) or len(getattr(encoder, "inputs", None) or []) != 1 or not encoder.layers:
        return False
    nodes = [layer._inbound_nodes for layer in encoder.layers if not isinstance(layer, layers.InputLayer)]
    return all(len(calls) == 1 and len(calls[0].input_tensors) == 1 for calls in nodes)
