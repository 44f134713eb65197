"""Facts of the loss: its margin, what can be reached, and how many pairs it still moves."""

import keras
import numpy as np
from keras import ops

from keras_siamese.diagnosis import limits


def of_loss(observed):
    """The margin, what can be reached, how many pairs the loss still moves, and how near it is to a collapse."""
    loss, train, bounds = observed.character, observed.train, observed.bounds or (None, np.inf)
    found = {"loss_similar_label": loss.similar_label, "pairs_similar_label": observed.data_similar_label}
    found["same_label"] = same_label(observed)
    found["loss_of_package"] = float(loss.is_stated)
    found["lowest_label"] = lowest_label(observed)
    found["loss_mines"] = float(loss.mining is not None)
    if loss.margin is not None:
        found |= {"margin": loss.margin, "margin_is_gap": float(loss.margin_is_gap)}
    if loss.cosine_temperature is not None:
        found |= {"temperature": loss.cosine_temperature, "usual_temperature": usual_temperature(observed.loss)}
    found["loss_has_scale"] = has_scale(observed.loss, loss)
    if np.isfinite(bounds[1]):
        found["reach"] = bounds[1]
    if (loss.kind, loss.expects, observed.output_kind) == ("pair", "distance", "distance") and train is not None:
        distances = -train.scores[~train.same]
        found["median_impostor_distance"] = np.median(distances)
        found["impostor_distance_reached"] = np.quantile(distances, float(limits.REACHED))
        if loss.margin is not None:
            found["active_impostors"] = np.mean(distances < loss.margin)  # on the others, a hinge has no gradient
    last = int(limits.LAST_LOSSES)
    losses, collapsed = np.array(observed.history.get("loss", [])[-last:], float), value_at_collapse(observed)
    if collapsed and len(losses) == last and np.isfinite(losses).all():
        found["loss_from_collapsed_value"] = float(np.max(np.abs(losses - collapsed)) / collapsed)
    found |= pair_losses(observed)
    if "genuine_loss" in found and len(losses) and np.isfinite(losses[-1]):
        weights = [getattr(observed.loss, name, 1.0) for name in ("positive_weight", "negative_weight")]
        kinds = weights[0] * found["genuine_loss"], weights[1] * found["impostor_loss"]
        found["implied_fraction"] = implied_fraction(losses[-1], *kinds)
    return found


def same_label(observed):
    """The label, 0 or 1, of pairs that are the same in what `fit` is given, or None: that of the sequence of pairs, or
    the one that was found for held-out pairs as the model takes them, of which its loss was asked.
    """
    direction = getattr(observed.siamese, "direction", None)
    if observed.data_similar_label is not None or direction is None or not direction.wanted:
        return observed.data_similar_label
    return float(direction.similar_label > 0)


def lowest_label(observed):
    """The lower of the two labels of pairs as the model takes them, such as 0 or −1; None if it is not known."""
    labels = getattr(observed.siamese, "labels", None)
    return None if labels is None else float(min(labels))


def has_scale(loss, character):
    """1 if a `loss` has a margin or a temperature, which have to fit the scale of the output; 0 if it has none, as a
    cross-entropy; None if that is not known. `character` is its `LossCharacter`.
    """
    if character.margin is not None or character.cosine_temperature is not None:
        return 1.0
    if character.is_stated:  # a margin may be one of probabilities, a temperature one of squared distances
        return None if any(hasattr(loss, name) for name in ("margin", "temperature", "scale")) else 0.0
    if character.kind == "pair":  # it was measured
        return 0.0
    return None if loss is None or is_hinge(loss) is None else float(is_hinge(loss))


def is_hinge(loss):
    """Whether a loss of Keras, an object, a function or a name, is a hinge; None for one from elsewhere."""
    try:
        loss = keras.losses.get(loss)
    except Exception:  # a dict of losses, or another library's
        return None
    function = getattr(loss, "fn", loss)
    is_of_keras = str(getattr(function, "__module__", "")).partition(".")[0] == "keras"
    name = getattr(function, "__name__", type(function).__name__)
    return "hinge" in name.lower() if is_of_keras else None


def usual_temperature(loss):
    """The temperature of cosines that a loss of this class has by default, if it is one to begin with; else .1."""
    try:
        usual = type(loss)().cosine_temperature
    except TypeError:  # it has an argument without a default
        usual = float(limits.USUAL_TEMPERATURE)
    fits = limits.SMALL_TEMPERATURE <= usual <= limits.LARGE_TEMPERATURE
    return usual if fits else float(limits.USUAL_TEMPERATURE)


def implied_fraction(loss, genuine, impostor):
    """The share of genuine pairs at which the mean loss of all pairs is `loss`, if that of a genuine pair, with its
    weight, is `genuine` and that of an impostor pair `impostor`; in [0, 1]. None if both are equal, so that it cannot
    be told.

    >>> round(implied_fraction(0.1, genuine=0.9, impostor=0.0), 3)
    0.111
    """
    apart = genuine - impostor
    return float(np.clip((loss - impostor) / apart, 0.0, 1.0)) if apart else None


def value_at_collapse(observed):
    """The training loss of an encoder that gives all inputs the same embedding, or None if it is not known.

    A loss on pair distances takes its value at distance 0, so it is known only if a distance can be 0.
    """
    is_pair = observed.character.kind == "pair"
    if is_pair and (observed.output_kind != "distance" or not observed.bounds or observed.bounds[0] != 0):
        return None
    return observed.character.value_at_collapse(observed.positive_fraction)


def pair_losses(observed):
    """The mean loss, unweighted, of a genuine and of an impostor training pair, by name; {} if it is not known."""
    per_pair = getattr(observed.loss, "per_pair", None)
    if per_pair is None or observed.train is None or observed.loss.expects != observed.output_kind:
        return {}
    same = observed.train.same
    output = observed.train.scores if observed.output_kind == "score" else -observed.train.scores
    inputs = ops.convert_to_tensor(same.astype("float32")), ops.convert_to_tensor(output)
    losses = ops.convert_to_numpy(per_pair(*inputs))
    return {"genuine_loss": losses[same].mean(), "impostor_loss": losses[~same].mean()}
