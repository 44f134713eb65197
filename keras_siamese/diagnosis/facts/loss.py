"""Facts of the loss: its margin, what can be reached, and how many pairs it still moves."""

import numpy as np
from keras import ops

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.embeddings import active_fraction


def of_loss(run):
    """Where a hinge stands: its margin, what can be reached, and how many pairs it still moves."""
    loss, train = run.loss, run.train
    found = {"loss_similar_label": getattr(loss, "similar_label", None)}
    found["pairs_similar_label"] = run.data_similar_label
    if has_margin(loss):
        found["margin"] = loss.margin
        name = type(loss).__name__
        found["margin_is_gap"] = float("Triplet" in name or name.endswith("MarginLoss"))
    if run.bounds and np.isfinite(run.bounds[1]):
        found["reach"] = run.bounds[1]
    if hasattr(loss, "per_pair") and run.output_kind == loss.expects == "distance" and train is not None:
        distances = -train.scores[~train.same]
        found["median_impostor_distance"] = np.median(distances)
        found["impostor_distance_reached"] = np.quantile(distances, float(limits.REACHED))
        if "margin" in found:
            found["active_impostors"] = active_fraction(distances, found["margin"])
    floor = loss_of_constant_encoder(run)
    last = int(limits.LAST_LOSSES)
    losses = np.array(run.history.get("loss", [])[-last:], float)
    if floor and len(losses) == last and np.isfinite(losses).all():
        found["loss_from_collapsed_value"] = float(np.max(np.abs(losses - floor)) / floor)
    losses = pair_losses(run)
    if losses is not None:
        found["genuine_loss"], found["impostor_loss"] = losses
    return found


def has_margin(loss):
    """Whether the loss has a margin that is a distance, or a gap between two: not an angle, nor of cosines."""
    on_distances = hasattr(loss, "distance") or getattr(loss, "expects", None) == "distance"
    return on_distances and isinstance(getattr(loss, "margin", None), (int, float))


def loss_of_constant_encoder(run):
    """The training loss of an encoder that maps all inputs to one point, or None where it cannot be known."""
    loss = run.loss
    if has_margin(loss) and "Triplet" in type(loss).__name__ and not getattr(loss, "soft", False):
        return float(loss.margin)
    if not hasattr(loss, "per_pair") or run.positive_fraction is None:
        return None
    if run.output_kind != "distance" or not run.bounds or run.bounds[0] != 0.0:
        return None
    labels = ops.convert_to_tensor(np.array([1 - loss.similar_label, loss.similar_label], "float32"))
    at_zero = ops.convert_to_numpy(loss.call(labels, ops.zeros((2, 1))))
    return at_constant(at_zero, run.positive_fraction)


def at_constant(losses_at_zero, positive_fraction):
    """The mean pair loss of an encoder that gives every input one embedding: all distances 0.

    Args:
        losses_at_zero: `(impostor, genuine)` loss of a pair at distance 0.
        positive_fraction: share of genuine pairs in training, in [0, 1].
    """
    impostor, genuine = losses_at_zero
    return float((1 - positive_fraction) * impostor + positive_fraction * genuine)


def pair_losses(run):
    """`(genuine, impostor)` mean loss of a training pair of either kind, unweighted, or None if it is not known."""
    per_pair = getattr(run.loss, "per_pair", None)
    if per_pair is None or run.train is None or run.loss.expects != run.output_kind:
        return None
    same = run.train.same
    output = run.train.scores if run.output_kind == "score" else -run.train.scores
    inputs = ops.convert_to_tensor(same.astype("float32")), ops.convert_to_tensor(output)
    losses = ops.convert_to_numpy(per_pair(*inputs))
    return float(losses[same].mean()), float(losses[~same].mean())
