"""Signals of the model and its training: steps, modes, what the first layer sees, what training pairs show.

Contract: a model (a `SiameseWrapper` over the user's layers), arrays and the training sequence in; a number or a few
out. Every weight is as it was afterwards, and no global generator is touched. No signal decides
anything: thresholds live with the causes. Imports `scoring`.

    before = sampled_kernels(model)
    ...                                                   # an epoch
    update_size(before, sampled_kernels(model))           # ‖Δw‖ / ‖w‖
    mode_eers(siamese, batches)                           # {"training": …, "inference": …}
"""

import random

import keras
import numpy as np
from keras import ops, tree

from keras_siamese import verification
from keras_siamese.data.sources import count_samples, take
from keras_siamese.scoring import embed, score_embeddings, to_numpy

SAMPLED = 4096  # numbers kept of a kernel
NORMALISING = (
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
)


def sampled_kernels(model):
    """Up to 4,096 evenly spaced numbers of each trainable matrix (or kernel) of `model`, as one vector `(n,)`."""
    parts = []
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            flat = ops.reshape(ops.convert_to_tensor(weight), (-1,))
            parts.append(to_numpy(flat[:: -(-int(np.prod(weight.shape)) // SAMPLED)]))
    return np.concatenate(parts) if parts else np.zeros(0)


def update_size(before, after):
    """‖after − before‖ / ‖before‖ of two vectors of weights; NaN where they are not comparable."""
    norm = np.linalg.norm(before)
    if len(before) != len(after) or not norm:
        return float("nan")
    return float(np.linalg.norm(after - before) / norm)


def probe(model, source, steps=20):
    """What a few steps do, as facts: how far an epoch of them moves the weights, and by how much the loss of one batch
    falls that is shown again and again. The model, its optimizer and its metrics are put back as they were.

    The first takes the epoch's own batches. An epoch of more than `steps` is not run: the distance d from the start
    grows as a power of the number of steps, which is 1 where all go the same way and ½ in a random walk; it is read off
    the steps taken, and d continued by it.

    Args:
        model: compiled, and built.
        source: the training sequence.
        steps: how many, at least 2.
    """
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    kept = [(one, ops.convert_to_numpy(one.value).copy()) for one in {id(one): one for one in variables}.values()]

    def trained(batches):
        """The loss before each step, and the distance from the start after it as a share of the weights."""
        start, losses, distances = sampled_kernels(model), [], []
        try:
            for inputs, targets in batches:
                losses.append(float(model.train_on_batch(inputs, targets, return_dict=True)["loss"]))
                model.reset_metrics()
                distances.append(update_size(start, sampled_kernels(model)))
        finally:
            for variable, value in kept:
                variable.assign(value)
        return losses, distances

    batches = batches_of(source, steps)
    size = continued(trained(batches)[1], len(source))
    losses, _ = trained(batches[:1] * steps)
    found = {f"update_size_{name}": size for name in ("first", "last", "largest")}
    return {**found, "probe_loss_fallen": 1 - losses[-1] / losses[0] if losses[0] else 0.0}


def continued(distances, steps):
    """The distance after `steps` steps, from those after 1, 2, … of them, by the power law of their second half."""
    taken = len(distances)
    if steps <= taken or not distances[0] > 0:
        return distances[-1]
    half = np.arange(max(taken // 2, 1), taken + 1)
    growth = np.polyfit(np.log(half), np.log(np.array(distances)[half - 1]), 1)[0] if len(half) > 1 else 1.0
    return float(distances[-1] * (steps / taken) ** np.clip(growth, 0.0, 1.0))


def batches_of(source, count=6):
    """Up to `count` batches `(inputs, targets)` of a training sequence, evenly spaced over the current epoch."""
    places = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))
    return [source[int(place)][:2] for place in places]


def is_pairs(inputs):
    """Whether a batch's inputs are two towers."""
    return isinstance(inputs, (tuple, list)) and len(inputs) == 2


def pair_outputs(siamese, batches, similar_label=1, training=False):
    """`(same, scores)` of training `batches`, of pairs or of identities, in one mode of the encoder."""
    same, scores = [], []
    sign = -1.0 if siamese.output_kind == "distance" else 1.0
    for inputs, targets in batches:
        targets = np.asarray(targets)
        if is_pairs(inputs):
            outputs = siamese.embed(tuple(inputs), training=training)
            same.append(targets.reshape(-1) == similar_label)
            scores.append(sign * to_numpy(siamese.compare(*outputs))[:, 0])
        else:
            embeddings = to_numpy(siamese.encode(as_tensors(inputs), training, None))
            left, right = np.triu_indices(len(targets), 1)
            same.append(targets[left] == targets[right])
            scores.append(score_embeddings(siamese, embeddings, left, right))
    return np.concatenate(same), np.concatenate(scores)


def as_tensors(inputs):
    return tree.map_structure(ops.convert_to_tensor, inputs)


def mode_eers(siamese, batches, similar_label=1):
    """EER of the training `batches` with the encoder in training mode and in inference mode, as a dict; {} without
    BatchNormalization, or where a batch has pairs of one kind alone.

    What training mode moves (running statistics, the states of random layers) is put back.
    """
    kept = [(weight, ops.convert_to_numpy(weight.value).copy()) for weight in siamese.non_trainable_variables]
    if not has_batch_normalization(siamese.encoder):
        return {}
    eers = {}
    try:
        for name, training in (("training", True), ("inference", False)):
            same, scores = pair_outputs(siamese, batches, similar_label, training)
            if same.all() or not same.any() or not np.isfinite(scores).all():
                return {}
            eers[name] = verification.eer(same, scores)
    finally:
        for weight, value in kept:
            weight.assign(value)
    return eers


def has_batch_normalization(model):
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_of(model))


def layers_of(model):
    """All layers within `model`, nested ones too, in order."""
    return list(model._flatten_layers(include_self=True, recursive=True))


def trainable_share(model):
    """Share of the numbers in the kernels of `model` that training may change; None if it has none."""
    kernels = [weight for weight in model.weights if len(weight.shape) > 1]
    sizes = [int(np.prod(weight.shape)) for weight in kernels]
    free = [size for weight, size in zip(kernels, sizes, strict=True) if weight.trainable]
    return sum(free) / sum(sizes) if kernels else None


def first_inputs(encoder, x):
    """What reaches the first layer with a kernel: `x` `(n, …)` after the `Rescaling`, normalising and reshaping layers
    before it, as an array; `x` itself where the encoder's layers do not stand in a row, or it takes a dict.
    """
    if isinstance(x, dict) or not isinstance(encoder, keras.Sequential):
        layers = getattr(encoder, "layers", None)
        is_row = isinstance(encoder, keras.Model) and layers and len(getattr(encoder, "inputs", None) or []) == 1
        if isinstance(x, dict) or not is_row or not all(is_only_one(layer) for layer in layers):
            return x
    value = ops.convert_to_tensor(np.asarray(x, "float32"))
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, (keras.Sequential, keras.Model)):
            return first_inputs(layer, to_numpy(value))
        if layer.weights and not isinstance(layer, NORMALISING):
            return to_numpy(value)
        value = layer(value, training=False) if isinstance(layer, keras.layers.BatchNormalization) else layer(value)
    return to_numpy(value)


def is_only_one(layer):
    """Whether a functional model calls `layer` once, on one tensor."""
    nodes = layer._inbound_nodes
    return isinstance(layer, keras.layers.InputLayer) or (len(nodes) == 1 and len(nodes[0].input_tensors) == 1)


def untrained_embeddings(encoder, x):
    """Embeddings of `x` `(n, …)` by a copy of `encoder` with new initial values in all weights that training may
    change, or None where Keras cannot copy it.
    """
    state = random.getstate()  # from which Keras seeds the new initializers
    try:
        copy = keras.models.clone_model(encoder)
        if not copy.built:
            copy(tree.map_structure(lambda part: part[:1], take(x, slice(0, 1))))
        for own, new in zip(encoder.weights, copy.weights, strict=True):
            if not own.trainable:
                # A copy of the value: on JAX `assign` would share the buffer, which `predict_on_batch` uses up.
                new.assign(np.array(ops.convert_to_numpy(own)))
        return embed(copy, x)
    except (TypeError, ValueError, NotImplementedError, AttributeError):  # what subclassed models and layers raise
        return None
    finally:
        random.setstate(state)


def input_scores(x, left, right):
    """Scores `(n,)` of the pairs of rows by the inputs themselves: minus their Euclidean distance; None for a dict, or
    where a sample is too large to be worth it.
    """
    if isinstance(x, dict) or np.prod(x.shape[1:], dtype=float) > 50_000:
        return None
    flat = np.asarray(take(x, slice(None)), "float32").reshape(count_samples(x), -1)
    norms = np.sum(flat**2, axis=1)
    return -np.sqrt(np.maximum(norms[left] + norms[right] - 2 * np.einsum("ij,ij->i", flat[left], flat[right]), 0))
