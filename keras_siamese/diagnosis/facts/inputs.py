"""Facts of the inputs: their scale at the first layer with weights, one input against the other, detail in images.

How held-out inputs differ from training inputs: `facts.preparation`.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_siamese.data.sources import take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.batches import is_pairs
from keras_siamese.diagnosis.facts.preparation import some_of
from keras_siamese.scoring import to_numpy

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
        sides = (take(trials.items, side) for side in (trials.left, trials.right))
        found["held_out_towers"] = towers(*sides, trials.same)
    pairs = [(*inputs, np.reshape(targets, -1)) for inputs, targets in observed.batches if is_pairs(inputs)]
    if pairs:
        left, right, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
        found["drawn_towers"] = towers(left, right, labels == observed.genuine_label)
    return found


def towers(left, right, same):
    """The `log_ratio` of the two sides `(n, …)` of pairs, of the kind of pairs in which it is nearer to 0; None if it
    is not known. A side that was preprocessed in another way differs in both kinds, impostors of another sort in one.
    """
    ratios = [log_ratio(left[kind], right[kind]) for kind in (same, ~same) if kind.any()]
    return None if None in ratios else min(ratios, key=abs)


def kind_of(items):
    """What samples are, for advice: "images", "ids" (of words, say), "numbers", or "others", such as dicts or strings.

    >>> kind_of(np.zeros((5, 28, 28))), kind_of(np.zeros((5, 12), int)), kind_of(np.zeros((5, 12)))
    ('images', 'ids', 'numbers')
    """
    if isinstance(items, dict) or items.dtype.kind not in "fiub":
        return "others"
    height, width = (*items.shape[1:3], 1, 1)[:2]
    is_image = len(items.shape) in (3, 4) and min(height, width) >= limits.LEAST_SIDE
    if is_image and (len(items.shape) == 4 or height == width):  # else a sequence of vectors
        return "images"
    return "ids" if items.dtype.kind in "iu" else "numbers"


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
    1.8 for natural images and drawings of any size, and at most .1 if they are blurred.

    Field, *Relations between the statistics of natural images and the response properties of cortical cells*, JOSA A 4,
    1987, https://doi.org/10.1364/JOSAA.4.002379: the amplitude falls as 1/frequency, so all octaves have equal power.

    >>> noise = np.random.default_rng(0).normal(size=(50, 16, 16))
    >>> round(detail(noise)), round(detail(np.cumsum(np.cumsum(noise, axis=1), axis=2)), 1)
    (4, 0.6)
    """
    from scipy.fft import dctn  # imported here, since it is slow to import

    images = np.asarray(images, float)
    grey = images.mean(axis=3) if images.ndim == 4 else images
    # A cosine transform mirrors the image at its borders, which a Fourier transform would take for edges.
    power = (dctn(grey, axes=(1, 2), norm="ortho") ** 2).mean(axis=0)
    rows, columns = (np.arange(size) / (2 * size) for size in grey.shape[1:])  # cycles per pixel
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
