"""Pairs of a model, and what its output means for them: `orient`.

Contract: `are_pairs` and `pairs_of` read data in the form that the model takes. `orient` finds the direction from the
loss, the comparator and the data (see `direction`) and sets `Anatomy.direction`. Imports the other modules of this room
except `anatomy`.

    left, right, labels = pairs_of(anatomy, x, y)
    orient(anatomy, left, right, labels, x=x, y=y)
    anatomy.direction.similar_label
"""

import logging

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._files import reason_of
from keras_siamese.attach.direction import closer_label, direction_of, equal_end, pull
from keras_siamese.attach.encoder import is_encoder
from keras_siamese.attach.feed import pair_labels
from keras_siamese.attach.graph import in_order, is_functional, shows_parts
from keras_siamese.attach.towers import joined, towers_of
from keras_siamese.data.sources import take

logger = logging.getLogger(__name__)

FEW = 1000  # pairs from which the direction is found


def are_pairs(model, x):
    """Whether `x` has both sides of what `model` compares, as the model takes them; otherwise `x` are items."""
    arrays = tree.flatten(x)
    is_list = isinstance(x, (tuple, list)) and len(x) in (2, 3)
    if shows_parts(model) or not is_functional(model):
        return is_list or (not shows_parts(model) and len(arrays) == 1 and towers_of(model, x) is not None)
    if len(model.inputs) == 1 and is_list:  # a pair for an encoder
        return True
    if len(model.inputs) == 1 and np.ndim(arrays[0]) != len(model.inputs[0].shape):
        return False
    towers = towers_of(model, x)
    if towers is None:  # a model that joins its inputs at once, or an encoder
        return joined(model, x) is not None and not is_encoder(model, x)
    if towers.axis is not None:
        sizes = zip(arrays[0].shape, model.inputs[0].shape, strict=True)
        return all(own in (size, None) for size, own in sizes)
    if not towers.embeds and is_encoder(model, x):
        return False
    return len(arrays) in (2 * len(towers.inputs[0]), len(model.inputs))


def pairs_of(anatomy, x, y):
    """The items of both sides and the labels `(n,)`, from what the model takes; triplets give two pairs each."""
    arrays = in_order(anatomy.model, x)
    left, right, *negative = x if anatomy.parts is None else anatomy.parts.items(arrays)
    if not negative:
        return left, right, pair_labels(y, len(tree.flatten(left)[0]))
    left, right = (
        tree.map_structure(lambda *both: np.concatenate(both), *two) for two in ((left, left), (right, *negative))
    )
    return left, right, np.repeat([1, 0], len(arrays[0]))


def orient(anatomy, left, right, labels, *, x=None, y=None, similar_label=None, up=None):
    """Find out what the output means, from the loss, the comparator and pairs; sets `direction` and `output_kind`.

    Args:
        anatomy: an `Anatomy`.
        left, right: the items of each side, arrays `(n, …)` or dicts of such.
        labels: `(n,)`, of two values.
        x, y: the same pairs as the model and its loss take them, if they are known.
        similar_label: the label that means the same identity, if the user says so.
        up: whether the output grows with similarity, if the user says so.

    Returns:
        The `Direction`.
    """
    if anatomy.wrapper is not None:
        up = anatomy.output_kind == "score"
    low, high = np.unique(labels).tolist()
    if anatomy.encoder is None:  # the user gives the score
        outputs, end, up = np.zeros(0), 0, True
    else:
        outputs, end = outputs_of(anatomy, *(take(side, slice(0, FEW)) for side in (left, right)))
    loss = None if x is None or anatomy.encoder is None else loss_of(anatomy, x, y, labels)
    if anatomy.compares_itself and loss is not None:
        anatomy.pair_loss, anatomy.labels = loss, (low, high)
    anatomy.direction = direction_of(
        (low, high),
        pulled=0 if loss is None else pull(loss, outputs, (low, high)),
        end=end,
        is_learned=bool(anatomy.learned),
        closer=closer_label(tree.flatten(left), tree.flatten(right), labels),
        similar_label=similar_label,
        up=up,
    )
    anatomy.output_kind = "score" if anatomy.direction.up else "distance"
    return anatomy.direction


def outputs_of(anatomy, left, right):
    """The outputs `(n,)` of pairs of items, and the end of them at which equal embeddings are; see `equal_end`."""
    embedded = [ops.convert_to_tensor(one) for one in anatomy.embed([left, right])]
    shifted = ops.roll(embedded[1], 1, axis=0)
    pairs = [embedded, [embedded[1], embedded[1]], [embedded[1], shifted]]
    if anatomy.other is not None and (anatomy.learned or embedded[0].shape != embedded[1].shape):
        # With weights of its own, it may expect the embeddings of each side elsewhere.
        return ops.convert_to_numpy(anatomy.compare(*embedded))[:, 0], 0
    outputs, equal, different = (ops.convert_to_numpy(anatomy.compare(*pair))[:, 0] for pair in pairs)
    return outputs, equal_end(equal, different)


def loss_of(anatomy, x, y, labels):
    """The compiled loss of one pair as a function `(label, output) → float`; NaN if it cannot be evaluated."""
    model, rows, known = anatomy.model, slice(0, 4), []
    is_keras_own = type(model).compute_loss is keras.Model.compute_loss
    if getattr(model, "loss", None) is None and (is_keras_own or not model.compiled):
        return lambda label, value: float("nan")  # where other backends raise an error, JAX's loss is then 0

    def predicted():
        if not known:
            few = tree.map_structure(lambda one: ops.convert_to_tensor(one[rows]), x)
            known.append(tree.map_structure(ops.convert_to_numpy, model(few, training=False)))
        return known[0]

    def loss(label, value):
        arrays = [one.copy() for one in tree.flatten(predicted())]
        flat = arrays[anatomy.place].reshape(len(arrays[anatomy.place]), -1)
        if flat.shape[1] == 2:
            flat[:] = 1 - value
        flat[:, anatomy.column] = value
        chosen = np.flatnonzero(labels == label)[:1].repeat(len(flat))
        targets = tree.map_structure(lambda one: ops.convert_to_tensor(one[chosen]), y)
        outputs = tree.pack_sequence_as(predicted(), [ops.convert_to_tensor(one) for one in arrays])
        return float(model.compute_loss(x=None, y=targets, y_pred=outputs))

    def or_nan(label, value):
        try:
            return loss(label, value)
        except Exception as error:  # a loss of triplets, for example: there is no loss of a pair
            logger.debug("The loss of a pair is not known: it raised %s", reason_of(error))
            return float("nan")

    return or_nan
