"""Models that embed: is a model an encoder, and does it end in a classifier over identities?

Contract: functions of a model and, for a subclassed one, of some items. Imports Keras, `graph` and `layers`.

    is_encoder(model, items)                 # whether it gives embeddings (batch, dim) of one item
    holds_encoder(model, items)              # whether it does, or would without its class weights
    without_classifier(model)                # the part before the last layer, if the loss is that of a classifier
"""

import logging

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._files import reason_of
from keras_siamese.attach.graph import inputs_of, is_functional, is_input, node_of, unchanged_layers
from keras_siamese.layers.siamese import seen_through

logger = logging.getLogger(__name__)


def is_encoder(model, sample=None):
    """Whether `model` computes embeddings `(batch, dim)`, dim > 1, of one item; `sample` are some items.

    Of several inputs that are joined at once, two columns may be two classes of a pair; an embedding has more.
    """
    model = seen_through(model)
    if not isinstance(model, keras.layers.Layer):
        return False
    if is_functional(model):
        shapes = [tuple(output.shape) for output in model.outputs]
        is_item = len(model.inputs) == (1 if sample is None else len(tree.flatten(sample)))
    elif sample is not None:
        try:
            output = model(tree.map_structure(lambda one: ops.convert_to_tensor(one[:2]), sample))
        except Exception as error:  # what a user's call raises is not known
            logger.debug("%r is no encoder: its call raised %s", model.name, reason_of(error))
            return False
        shapes, is_item = [tuple(one.shape) for one in tree.flatten(output)], True
    else:
        return False
    least = 2 if (is_functional(model) and len(model.inputs) == 1) or not is_functional(model) else 3
    return is_item and len(shapes) == 1 and len(shapes[0]) == 2 and (shapes[0][1] or 0) >= least


def holds_encoder(model, sample=None):
    """Whether `model` is an encoder, or one that is followed by cosines to class weights, of any shape."""
    ends_in_classes = getattr(getattr(model, "loss", None), "expects", None) == "cosine"
    return is_encoder(without_classifier(model) if ends_in_classes else model, sample)


def without_classifier(model):
    """The part of a functional `model` that embeds: all but the classifier over identities, if it ends in one."""
    if not is_functional(model) or not classifies(model):
        return model
    node = node_of(model.outputs[0])
    while not getattr(node.operation, "weights", ()) and len(node.input_tensors) == 1:
        node = node_of(node.input_tensors[0])
    ends = node.input_tensors
    if len(ends) != 1 or len(ends[0].shape) != 2 or is_input(ends[0]):
        return model
    with unchanged_layers(model):
        return keras.Model(inputs_of(model), ends[0])


def classifies(model):
    """Whether the compiled loss of one sample is that of a classifier: it falls as the output of its class grows.

    For one-hot targets this is also true of a regression. So the loss must not change if the same number is added to
    all outputs, as for logits, or if all outputs are multiplied by the same number, as for probabilities.
    """
    expects = getattr(model.loss, "expects", None)
    if expects in ("embedding", "cosine"):  # of a loss of this package, which compares rows, or rows with class weights
        return expects == "cosine"
    classes = model.outputs[0].shape[-1]

    def loss(target, raised, add=0.0, times=1.0):
        outputs = np.full((1, classes), 1 / classes, "float32")
        outputs[0, raised] += 0.5 / classes
        y, y_pred = ops.convert_to_tensor(target), ops.convert_to_tensor(times * outputs + np.float32(add))
        return float(model.compute_loss(x=None, y=y, y_pred=y_pred))

    for is_one_hot in (False, True):
        rows = np.eye(classes, dtype="float32") if is_one_hot else np.arange(classes, dtype="int32")
        try:
            values = np.array([[loss(rows[[one]], raised) for raised in range(3)] for one in range(3)])
            ignored = [loss(rows[[0]], 0, add=1.0), loss(rows[[0]], 0, times=2.0)] if is_one_hot else values[0, :1]
        except Exception as error:  # an uncompiled model, a loss of other targets, or fewer than three classes
            logger.debug("%r is no classifier: its loss raised %s", model.name, reason_of(error))
            continue
        own, others = np.diag(values), values[~np.eye(3, dtype=bool)].reshape(3, 2)
        falls = np.isfinite(values).all() and (own[:, None] < others).all()
        if falls and np.isclose(ignored, values[0, 0], rtol=1e-4).any():
            return True
    return False
