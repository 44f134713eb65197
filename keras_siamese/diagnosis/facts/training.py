"""Facts of training: its curves, and what it achieved on its own identities, beside the inputs and an untrained copy of
the encoder.
"""

import logging

import keras
import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese._files import reason_of
from keras_siamese._replicas import value_of
from keras_siamese._seeds import own_seeds
from keras_siamese.attach.direction import closer_label
from keras_siamese.data.sources import count_samples, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.model import rate_left
from keras_siamese.diagnosis.run import LOGGED
from keras_siamese.scoring import embed, score_embeddings, spread_over_kinds, to_numpy

logger = logging.getLogger(__name__)

LARGEST_SAMPLE = 50_000  # numbers; larger samples are not compared themselves
# Curves of the accuracy of validation pairs, of a model with one output: Keras names those of others after the outputs.
OF_VALIDATION = {f"{LOGGED}val_{name}" for name in ("accuracy", "acc", "binary_accuracy")}


def of_history(observed):
    """The flag, the loss curve, the best held-out EER and the sizes of steps."""
    found = {
        "flagged": len(observed.flags),
        "recovered": observed.recovered,
        "verifies_badly": observed.verifies_badly,
        **observed.probed,
    }
    if observed.epoch is None:
        return found
    losses, eers = (np.array(observed.history.get(name, []), float) for name in ("loss", "eer"))
    found["epochs"] = len(losses)
    finite = losses[np.isfinite(losses)]
    if len(finite) > 1:
        steps, reach = np.diff(finite), finite.max() - finite.min()
        found |= {"loss_first": finite[0], "loss_last": finite[-1]}
        found["loss_fallen"] = (finite[0] - finite.min()) / max(abs(finite[0]), limits.TINY)
        found["loss_rises"] = steps[steps > 0].sum() / reach if reach > 0 else 0.0
    if len(losses) > len(finite) and not np.isfinite(losses[-1]):
        since = int(np.flatnonzero(np.isfinite(losses))[-1]) + 1 if len(finite) else 0
        found |= {"loss_not_finite_since": since + 1, "losses_not_finite": 1 - len(finite) / len(losses)}
    if np.isfinite(eers).any():
        found |= {"best_eer": np.nanmin(eers), "best_eer_epoch": int(np.nanargmin(eers)) + 1, "first_eer": eers[0]}
    found |= rate_left(observed.history.get("learning_rate", []))
    return found | logged_accuracy(observed) | step_sizes(observed)


def logged_accuracy(observed):
    """The last accuracy that the user's own metrics logged of the training pairs, beside the best one possible; without
    training pairs also that of the validation data, if these are pairs and the model has one output.
    """
    found, direction = {}, getattr(observed.siamese, "direction", None)
    if (value := last_share(observed.history, is_accuracy)) is not None:
        found["logged_accuracy"] = value
        if observed.train is not None:
            found["train_best_accuracy"] = observed.train.accuracy[0]
            found |= at_half(observed.train, observed.output_kind, observed.positive_fraction)
    if observed.train is None and direction is not None and direction.wanted:
        value = last_share(observed.history, OF_VALIDATION.__contains__)
        if value is not None:
            found |= {"logged_val_accuracy": value, "val_best_accuracy": observed.valid.accuracy[0]}
            found |= at_half(observed.valid, observed.output_kind)
    return found


def at_half(scored, output_kind, genuine=None):
    """Accuracies of the pairs of `scored` if an output of ½ is the threshold: `accuracy_at_half`, on as many genuine as
    impostor pairs, and `accuracy_mixed`, of each label with the outputs of all pairs, of which a share is `genuine`.
    """
    accepted = scored.scores > (0.5 if output_kind == "score" else -0.5)
    right, wrong = accepted[scored.same].mean(), accepted[~scored.same].mean()  # shares that are accepted
    genuine = scored.same.mean() if genuine is None else genuine
    called = genuine * right + (1 - genuine) * wrong
    mixed = genuine * called + (1 - genuine) * (1 - called)
    return {"accuracy_at_half": (right + 1 - wrong) / 2, "accuracy_mixed": mixed}


def last_share(curves, is_wanted):
    """The last finite value of the first curve with a wanted name, if its values are in [0, 1]; None without any."""
    curves = [np.array(curve, float) for name, curve in curves.items() if is_wanted(name)]
    curves = [curve[np.isfinite(curve)] for curve in curves]
    values = [curve[-1] for curve in curves if len(curve) and 0 <= curve.min() <= curve.max() <= 1]
    return values[0] if values else None


def is_accuracy(name):
    """Whether a curve of a run is an accuracy of the training pairs that the user's metrics have logged."""
    name = name.lower()
    return name.startswith(LOGGED) and "acc" in name and not name.startswith(f"{LOGGED}val_")


def step_sizes(observed):
    """How far the weights moved in an epoch: in the first, at most, and in the last third."""
    sizes = np.array(observed.history.get("update_size", []), float)
    sizes = sizes[np.isfinite(sizes)]
    if not len(sizes):
        return {}
    last = np.median(sizes[-max(1, len(sizes) // 3) :])
    return {"update_size_first": sizes[0], "update_size_largest": sizes.max(), "update_size_last": last}


def of_training(observed):
    """Verification of the training identities, and of all pairs by their inputs and by an untrained encoder."""
    valid, train, siamese = observed.valid, observed.train, observed.siamese
    found = {}
    if train is not None:
        eer, below = observed.train_intervals["eer"], observed.train_below_chance
        found |= {"train_eer": eer.estimate, "train_eer_se": eer.standard_error}
        found |= {"train_auc": observed.train_intervals["auc"].estimate}
        found |= {"train_below_chance": below.errors, "train_below_chance_critical": below.critical}
        found |= {"gap": observed.eer_gap.estimate, "gap_error": observed.eer_gap.standard_error}
        if train.trials.identities is not None:
            found["train_identities"] = len(observed.train_names)
    for name, scored in (("input_auc", valid), ("train_input_auc", train)):
        known = None if scored is None or scored.trials.identities is not None else closeness(scored.trials)
        if known is not None:
            found[name], found[f"{name}_se"] = known
    if siamese is None or observed.is_unshared:
        return found
    for name, scored in (("input_eer", valid), ("train_input_eer", train)):
        raw = None if scored is None else input_scores(scored.trials)
        if raw is not None:
            found[name] = verification.eer(scored.same, raw)
    if not observed.has_embeddings:
        return found
    trained = valid if train is None else train
    trials = trained.trials
    embeddings = copied_embeddings(observed.untrained, trials.items)
    if embeddings is not None and np.isfinite(embeddings).all():
        scores = score_embeddings(siamese, embeddings, trials.left, trials.right)
        if np.isfinite(scores).all():
            found["untrained_eer"] = verification.eer(trials.same, scores)
        distance = distance_of_loss(observed)
        found["untrained_distance"] = impostor_distance(embeddings, trials, distance)
        found["impostor_distance"] = impostor_distance(trained.embeddings, trials, distance)
    return found


def closeness(trials, most=int(limits.SOME_PAIRS)):
    """`(AUC, standard error)` with which genuine pairs are closer than impostors in the inputs themselves, without any
    model: about ½ if labels do not follow the pairs. None if the inputs are no numbers.
    """
    rows = spread_over_kinds(trials.same, most, np.random.default_rng(0))
    same = trials.same[rows]
    sides = [take(trials.items, side[rows]) for side in (trials.left, trials.right)]
    sides = [list(side.values()) if isinstance(side, dict) else [side] for side in sides]
    if any(array.dtype.kind not in "fiub" for array in sides[0]) or not 0 < np.count_nonzero(same) < len(same):
        return None
    _, area = closer_label(*sides, same.astype(int))
    genuine = np.count_nonzero(same)
    return area, np.sqrt((1 / genuine + 1 / (len(same) - genuine)) / 12)


def distance_of_loss(observed):
    """The distance that the loss compares with its margin, a function of the embeddings of both sides `(n, dim)`: the
    loss's own, or that of the model whose output it takes; None, for the Euclidean distance, if it has none.
    """
    own, anatomy = getattr(getattr(observed.loss, "distance", None), "rowwise", None), observed.siamese
    is_output = observed.character.expects == "distance" == observed.output_kind
    return anatomy.compare if own is None and is_output and not anatomy.learned else own


def impostor_distance(embeddings, trials, distance=None):
    """Median of the `distance` of impostor pairs; None takes the Euclidean distance."""
    sides = [np.asarray(embeddings, "float32")[side[~trials.same]] for side in (trials.left, trials.right)]
    if distance is None:
        return np.median(np.linalg.norm(sides[0] - sides[1], axis=1))
    return np.median(to_numpy(distance(*map(ops.convert_to_tensor, sides))))


def untrained_copy(encoder, x):
    """A copy of `encoder` with new initial values in all weights that training may change, or None if Keras cannot copy
    it; `x` `(n, …)` are samples, with which it is built.
    """
    try:
        with own_seeds():
            copy = keras.models.clone_model(encoder)
            if not copy.built:
                copy(take(x, slice(0, 1)))
        for own, new in zip(encoder.weights, copy.weights, strict=True):
            if not own.trainable:
                # A copy of the value: on JAX `assign` would share the buffer, which `predict_on_batch` uses up.
                new.assign(value_of(own))
        return copy
    except Exception as error:  # of a user's layers, such as a look-up table without its words
        logger.info("There is no untrained copy of %r to compare with: %s", encoder.name, reason_of(error))
        return None


def copied_embeddings(copy, x):
    """Embeddings of `x` `(n, …)` by the `untrained_copy` of an encoder; None without one, or if it raises an error."""
    try:
        return None if copy is None else embed(copy, x)
    except Exception as error:  # as above
        logger.info("The untrained copy of %r gives no embeddings: %s", copy.name, reason_of(error))
        return None


def input_scores(trials):
    """Scores `(n,)` of the pairs by the inputs themselves: minus their Euclidean distance. None if the inputs are dicts
    or no numbers, or too large to compare quickly.
    """
    x, left, right = trials.items, trials.left, trials.right
    if isinstance(x, dict) or x.dtype.kind not in "fiub" or np.prod(x.shape[1:], dtype=float) > LARGEST_SAMPLE:
        return None
    flat = np.asarray(take(x, slice(None)), "float32").reshape(count_samples(x), -1)
    norms = np.sum(flat**2, axis=1)
    return -np.sqrt(np.maximum(norms[left] + norms[right] - 2 * np.einsum("ij,ij->i", flat[left], flat[right]), 0))
