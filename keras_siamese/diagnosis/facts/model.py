"""Facts of the model and its training steps: modes of BatchNormalization, how far steps move the weights.

Contract: a model, arrays and the training sequence in; a number or a few out. All weights are restored afterwards, and
no global generator is changed.

    before = sampled_kernels(model)
    ...                                                   # an epoch
    update_size(before, sampled_kernels(model))           # ‖Δw‖ / ‖w‖
    mode_eers(siamese, batches)                           # {"training": …, "inference": …}
"""

from contextlib import contextmanager

import keras
import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese.diagnosis.facts.batches import batches_of, pair_outputs
from keras_siamese.scoring import to_numpy

SAMPLED = 4096  # numbers kept of a kernel


def of_model(run):
    """The encoder's weights, its modes, and the optimizer's rate."""
    siamese = run.siamese
    if siamese is None:
        return {}
    found = {"unshared": float(run.is_unshared), "learning_rate": run.learning_rate}
    found["trainable_share"] = trainable_share(siamese.encoder)
    found["batch_normalization"] = float(has_batch_normalization(siamese.encoder))
    if run.batches and not run.is_unshared and (eers := mode_eers(siamese, run.batches, run.genuine_label)):
        found |= {f"mode_eer_{mode}": eer for mode, eer in eers.items()}
        found["mode_gap"] = eers["inference"] - eers["training"]
    return found


def sampled_kernels(model):
    """Up to 4,096 evenly spaced numbers of each trainable matrix (or kernel) of `model`, as one vector `(n,)`."""
    parts = []
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            flat = ops.reshape(ops.convert_to_tensor(weight), (-1,))
            parts.append(to_numpy(flat[:: -(-int(np.prod(weight.shape)) // SAMPLED)]))
    return np.concatenate(parts) if parts else np.zeros(0)


def update_size(before, after):
    """‖after − before‖ / ‖before‖ of two vectors of weights; NaN if their lengths differ or `before` is zero."""
    norm = np.linalg.norm(before)
    if len(before) != len(after) or not norm:
        return float("nan")
    return float(np.linalg.norm(after - before) / norm)


@contextmanager
def restored(variables):
    """Puts the values of the `variables` back at the end of the block."""
    kept = [(one, ops.convert_to_numpy(one.value).copy()) for one in {id(one): one for one in variables}.values()]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def probe(model, source, steps=20):
    """Measures a few training steps: how far an epoch of such steps moves the weights, and by how much the loss of one
    batch falls if it is shown in every step. The model, its optimizer and its metrics are restored afterwards.

    The first measurement takes batches of the epoch. If the epoch has more than `steps`, its end is extrapolated: the
    distance from the start grows as a power of the number of steps (1 if all steps have one direction, ½ for a random
    walk), and that power is fitted to the steps taken.

    `model` is compiled and built, `source` is its training sequence, and `steps` is at least 2.
    """
    start, batches = sampled_kernels(model), batches_of(source, steps)

    def trained(batches):
        """The loss before each step, and the distance from the start after it as a share of the weights."""
        losses, distances = [], []
        with restored([*model.variables, *model.optimizer.variables, *model.metrics_variables]):
            for inputs, targets in batches:
                losses.append(float(model.train_on_batch(inputs, targets, return_dict=True)["loss"]))
                model.reset_metrics()
                distances.append(update_size(start, sampled_kernels(model)))
        return losses, distances

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


def mode_eers(siamese, batches, similar_label=1):
    """EER of the training `batches` with the encoder in training mode and in inference mode, as a dict; {} without
    BatchNormalization, if all pairs are of one kind, or if scores are not finite.

    The running statistics and the states of random layers, which training mode changes, are restored.
    """
    if not has_batch_normalization(siamese.encoder):
        return {}
    eers = {}
    with restored(siamese.non_trainable_variables):
        for mode, training in (("training", True), ("inference", False)):
            same, scores = pair_outputs(siamese, batches, similar_label, training)
            if same.all() or not same.any() or not np.isfinite(scores).all():
                return {}
            eers[mode] = verification.eer(same, scores)
    return eers


def has_batch_normalization(model):
    """Whether `model` has BatchNormalization, in nested models too."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)


def trainable_share(model):
    """Share of the numbers in the kernels of `model` that training may change; None if it has none."""
    kernels = [(int(np.prod(weight.shape)), weight.trainable) for weight in model.weights if len(weight.shape) > 1]
    return sum(size * free for size, free in kernels) / sum(size for size, _ in kernels) if kernels else None
