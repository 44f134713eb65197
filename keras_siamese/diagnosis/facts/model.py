"""Facts of the model and its training steps: modes of BatchNormalization, how far steps move the weights.

Contract: a model, arrays and the training sequence in; a number or a few out. All weights are restored afterwards, and
no global generator is changed.

    before = sampled_kernels(model)
    ...                                                   # an epoch
    update_size(before, sampled_kernels(model))           # ‖Δw‖ / ‖w‖
    mode_eers(siamese, batches)                           # {"training": …, "inference": …}
"""

import logging
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese._files import reason_of
from keras_siamese._replicas import is_in_memory, train_on_batch, value_of
from keras_siamese._seeds import own_seeds
from keras_siamese.data.sources import take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.batches import as_tensors, batches_of, is_pairs, pair_outputs
from keras_siamese.scoring import embed, to_numpy

logger = logging.getLogger(__name__)

SAMPLED = 4096  # numbers kept of a kernel
FRESH_PAIRS, FRESH_DRAWS = 500, 5  # with which an encoder is compared with new random weights


def of_model(observed):
    """The encoder's weights, its modes, and the optimizer's rate."""
    siamese = observed.siamese
    if siamese is None:
        return {}
    found = {"unshared": float(observed.is_unshared), "learning_rate": observed.learning_rate}
    found["trainable_share"] = trainable_share(body_of(observed))
    moved = np.array(observed.history.get("moved_share", []), float)
    if np.isfinite(moved).any():
        found["moved_share"] = moved[np.isfinite(moved)][-1]
    rates = [] if "learning_rate" in observed.history else scheduled_rates(getattr(siamese, "model", siamese))
    found |= {} if not rates else rate_left(rates)
    if not observed.has_embeddings:
        return found
    if observed.untrained is not None:
        found |= against_new(siamese.encoder, observed.untrained)
    shares = (found["trainable_share"], found.get("moved_share"), 1.0)
    if min(share for share in shares if share is not None) < limits.FROZEN and not observed.is_unshared:
        found |= frozen_eers(observed)
    found["batch_normalization"] = float(has_batch_normalization(siamese.encoder))
    if found["batch_normalization"]:
        found["batch_dependence"] = batch_dependence(siamese.encoder, observed.valid.trials.items)
    eers = None
    if observed.batches and not observed.is_unshared:
        eers = mode_eers(siamese, observed.batches, observed.genuine_label)
        found["statistics_off"] = statistics_off(siamese, observed.batches[0][0])
    if eers:
        found |= {f"mode_eer_{mode}": eer for mode, eer in eers.items()}
        found["mode_gap"] = eers["inference"] - eers["training"]
    return found


def learning_rate_of(model):
    """The optimizer's learning rate as it is now, or None without one."""
    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    return None if rate is None else float(ops.convert_to_numpy(rate))


def scheduled_rates(model, points=16):
    """The learning rates of the steps so far, at `points` of them, evenly spaced, if the optimizer has a schedule; else
    [].
    """
    optimizer = getattr(model, "optimizer", None)
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return []
    steps = np.linspace(0, float(ops.convert_to_numpy(optimizer.iterations)), points)
    try:
        return [float(ops.convert_to_numpy(schedule(step))) for step in steps]
    except Exception as error:  # a user's schedule may take none but the optimizer's own steps
        logger.info("The rates of %r are not known: %s", type(schedule).__name__, reason_of(error))
        return []


def rate_left(rates):
    """`rate_left`: the median learning rate after the first quarter of the run, over the largest; from the `rates` at
    evenly spaced times, of which there must be four.
    """
    rates = np.array(rates, float)
    rates = rates[np.isfinite(rates)]
    if len(rates) < 4 or not rates.max() > 0:
        return {}
    return {"rate_left": float(np.median(rates[len(rates) // 4 :]) / rates.max())}


def against_new(encoder, copy):
    """How `encoder` differs from a `copy` with new initial values, from which it may have been trained, by name.

    `weights_grown`: the norm of a trainable kernel over that of the new one, the least of all kernels: 1 if training
    did not change it, and √(1 + u²) after steps that moved it by u times its size in directions of their own.
    `biases_moved`: how far its other trainable weights, which all runs begin with the same values, have moved, relative
    to the kernels.
    """
    own, grown, moved = [], [], []
    for one, other in zip(encoder.trainable_weights, copy.trainable_weights, strict=True):
        values, fresh = (np.asarray(ops.convert_to_numpy(weight.value), "float64").ravel() for weight in (one, other))
        if len(one.shape) > 1 and fresh.any():
            own.append(values)
            grown.append(np.linalg.norm(values) / np.linalg.norm(fresh))
        elif len(fresh) and np.ptp(fresh) == 0:
            moved.append(values - fresh)
    found = {"weights_grown": min(grown)} if grown else {}
    if moved and root_mean_square(own):
        found["biases_moved"] = root_mean_square(moved) / root_mean_square(own)
    return found


def root_mean_square(parts):
    """√ of the mean square of all numbers in a list of vectors; 0 without any."""
    count = sum(map(len, parts))
    return float(np.sqrt(sum(np.sum(part**2) for part in parts) / count)) if count else 0.0


def body_of(observed):
    """The encoder, or the whole model if it has no embeddings."""
    return observed.siamese.encoder if observed.has_embeddings else observed.siamese.model


def sampled_kernels(model):
    """Up to 4,096 evenly spaced numbers of each trainable matrix (or kernel) of `model`, as one vector `(n,)`."""
    parts = []
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            parts.append(sampled(weight))
    return np.concatenate(parts) if parts else np.zeros(0)


def sampled(weight):
    """Up to 4,096 evenly spaced numbers of a `weight`."""
    step = -(-int(np.prod(weight.shape)) // SAMPLED)
    if is_in_memory():
        return ops.convert_to_numpy(weight).ravel()[::step].astype("float32")
    return to_numpy(ops.reshape(ops.convert_to_tensor(weight), (-1,))[::step])


def update_size(before, after):
    """‖after − before‖ / ‖before‖ of two vectors of weights; NaN if their lengths differ or `before` is zero."""
    before, after = np.asarray(before, float), np.asarray(after, float)  # a huge step overflows float32
    norm = np.linalg.norm(before)
    if len(before) != len(after) or not norm:
        return float("nan")
    return float(np.linalg.norm(after - before) / norm)


def kernels_of(model):
    """Each matrix (or kernel) of `model`, trained or not: `(layer's name, size, up to 4,096 of its numbers)`."""
    found = []
    for layer in model._flatten_layers(include_self=True, recursive=True):
        for weight in (*layer._trainable_variables, *layer._non_trainable_variables):
            if len(weight.shape) > 1:
                found.append((layer.name, int(np.prod(weight.shape)), sampled(weight)))
    return found


def moved_share(before, after):
    """Share of the numbers of `kernels_of` a model that belong to a kernel which has changed; NaN without kernels."""
    sizes = {True: 0, False: 0}
    for (_, size, one), (_, _, other) in zip(before, after, strict=True):
        sizes[bool(np.any(one != other))] += size
    return sizes[True] / sum(sizes.values()) if before else float("nan")


def frozen_layers(observed):
    """Names of the layers whose kernels training may not change, and of those that have not moved in the run."""
    encoder, names = body_of(observed), []
    for layer in encoder._flatten_layers(include_self=True, recursive=True):
        kernels = [one for one in (*layer._trainable_variables, *layer._non_trainable_variables) if len(one.shape) > 1]
        if kernels and not any(one.trainable for one in kernels):
            names.append(layer.name)
    return [*names, *(name for name in observed.still if name not in names)]


def frozen_eers(observed):
    """EER of the Euclidean distance between embeddings of the encoder, and of it with new initial values in all
    weights, the mean of some draws, as `{"own_eer": …, "fresh_eer": …}`; {} if these embeddings are not finite.
    """
    scored, encoder = observed.valid if observed.train is None else observed.train, observed.siamese.encoder
    trials = scored.trials
    rows = np.random.default_rng(0).permutation(trials.balanced())[:FRESH_PAIRS]  # of all pairs, few are genuine
    items, places = np.unique(np.concatenate([trials.left[rows], trials.right[rows]]), return_inverse=True)
    left, right = np.split(places, 2)

    def eer(z):
        scores = -np.linalg.norm(z[left] - z[right], axis=1)
        return verification.eer(trials.same[rows], scores) if np.isfinite(scores).all() else np.nan

    fresh = []
    with own_seeds():
        for _ in range(FRESH_DRAWS):
            with restored(encoder.variables):
                make_new(encoder)
                fresh.append(eer(embed(encoder, take(trials.items, items))))
    found = {"own_eer": eer(scored.embeddings[items]), "fresh_eer": np.mean(fresh)}
    return found if np.isfinite(list(found.values())).all() else {}


def make_new(model, only_broken=False):
    """Give the layers of `model` new initial values, or only those layers that have weights which are not finite."""
    for layer in model._flatten_layers(include_self=True, recursive=True):
        own = [*layer._trainable_variables, *layer._non_trainable_variables]
        if own and not (only_broken and all(map(is_finite, own))):
            for variable, value in zip(own, initial_values(layer, own), strict=True):
                variable.assign(value)


def is_finite(variable):
    return bool(np.isfinite(value_of(variable).astype("float64")).all())


def initial_values(layer, own):
    """New initial values of a layer's `own` variables, as the layer itself makes them when it is built."""
    try:
        copy = type(layer).from_config(layer.get_config())
        copy.build_from_config(layer.get_build_config())
        made = [*copy._trainable_variables, *copy._non_trainable_variables]
        if [one.shape for one in made] == [one.shape for one in own]:
            return [value_of(one) for one in made]
    except Exception as error:  # a layer from elsewhere may support neither
        logger.info("%r gets normal numbers, as it cannot be made again: %s", layer.name, reason_of(error))
    rng = np.random.default_rng(0)
    scales = [np.sqrt(max(1, int(np.prod(one.shape[:-1])))) if len(one.shape) > 1 else np.inf for one in own]
    return [rng.normal(size=one.shape) / scale for one, scale in zip(own, scales, strict=True)]


@contextmanager
def restored(variables):
    """Puts the values of the `variables` back at the end of the block."""
    kept = [(one, value_of(one)) for one in {id(one): one for one in variables}.values()]
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
                losses.append(float(train_on_batch(model, inputs, targets)["loss"]))
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
    with restored(getattr(siamese, "model", siamese).non_trainable_variables):
        for mode, training in (("training", True), ("inference", False)):
            same, scores = pair_outputs(siamese, batches, similar_label, training)
            if same.all() or not same.any() or not np.isfinite(scores).all():
                return {}
            eers[mode] = verification.eer(same, scores)
    return eers


def statistics_off(siamese, inputs):
    """By how much the running statistics of BatchNormalization differ from those of a training batch of `inputs`: the
    median over the channels of the larger of |Δmean| / spread and |log₂ of the ratio of spreads|, in the worst layer.
    None without running statistics that training changes.

    A call in training mode moves them by a share 1 − momentum of the difference, which tells the batch's own. They are
    restored.
    """
    layers = siamese.encoder._flatten_layers(include_self=True, recursive=True)
    norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization) and one.momentum < 1]
    norms = [one for one in norms if one.trainable]  # the others use their running statistics in training mode too
    kept = [(one, *running_statistics(one)) for one in norms]
    with restored(getattr(siamese, "model", siamese).non_trainable_variables):
        siamese.encode(as_tensors(inputs[0] if is_pairs(inputs) else inputs), True, None)
        moved = [running_statistics(one) for one in norms]
    worst = []
    for (norm, *before), after in zip(kept, moved, strict=True):
        mean, variance = (one + (other - one) / (1 - norm.momentum) for one, other in zip(before, after, strict=True))
        spread, running = (np.sqrt(np.maximum(one, norm.epsilon)) for one in (variance, before[1]))
        off = np.maximum(np.abs(mean - before[0]) / spread, np.abs(np.log2(spread / running)))
        worst.append(float(np.median(off)))
    return max(worst, default=None)


def running_statistics(norm):
    """`(mean, variance)`, each `(channels,)`, of a BatchNormalization layer."""
    both = norm.moving_mean, norm.moving_variance
    return [value_of(one).astype("float64") for one in both]


def batch_dependence(encoder, x, count=32):
    """By how much the embeddings of items `x` `(n, …)` in inference mode depend on the other items of their batch,
    relative to how much they differ between items; None if they also differ between two calls.
    """
    items = take(x, slice(0, count))
    whole, again, parts = (embed(encoder, items, size) for size in (count, count, max(1, count // 4)))
    spread = np.linalg.norm(whole - whole.mean(axis=0))
    if not spread or not np.array_equal(whole, again):
        return None
    return float(np.linalg.norm(whole - parts) / spread)


def has_batch_normalization(model):
    """Whether `model` has BatchNormalization, in nested models too."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)


def trainable_share(model):
    """Share of the numbers in the kernels of `model` that training may change; None if it has none."""
    kernels = [(int(np.prod(weight.shape)), weight.trainable) for weight in model.weights if len(weight.shape) > 1]
    return sum(size * free for size, free in kernels) / sum(size for size, _ in kernels) if kernels else None
