"""Facts of what training achieved on its own identities, beside the inputs and an untrained copy of the encoder."""

import random

import keras
import numpy as np
from keras import ops, tree

from keras_siamese import verification
from keras_siamese.data.sources import count_samples, take
from keras_siamese.scoring import embed, score_embeddings


def of_training(run):
    """What training came to on its own identities, beside held-out ones, the inputs and an untrained encoder."""
    valid, train, siamese = run.valid, run.train, run.siamese
    found = {}
    if train is not None:
        eer, auc = run.train_intervals["eer"], run.train_intervals["auc"]
        found |= {"train_eer": eer.estimate, "train_eer_se": eer.standard_error, "train_auc": auc.estimate}
        found["train_below_chance"] = run.train_below_chance.errors
        found["train_below_chance_critical"] = run.train_below_chance.critical
        found["gap"], found["gap_error"] = run.eer_gap.estimate, run.eer_gap.standard_error
        if train.trials.identities is not None:
            found["train_identities"] = len(run.train_names)
    if siamese is None or run.is_unshared:
        return found
    for name, scored in (("", valid), ("train_", train)):
        if scored is None:
            continue
        trials = scored.trials
        raw = input_scores(trials.items, trials.left, trials.right)
        if raw is not None:
            found[f"{name}input_eer"] = verification.eer(trials.same, raw)
    trials = valid.trials if train is None else train.trials
    embeddings = untrained_embeddings(siamese.encoder, trials.items)
    if embeddings is not None and np.isfinite(embeddings).all():
        scores = score_embeddings(siamese, embeddings, trials.left, trials.right)
        found["untrained_eer"] = verification.eer(trials.same, scores)
        found["untrained_distance"] = impostor_distance(embeddings, trials)
        found["impostor_distance"] = impostor_distance((valid if train is None else train).embeddings, trials)
    return found


def impostor_distance(embeddings, trials):
    """Median Euclidean distance of impostor pairs."""
    z, rows = np.asarray(embeddings, float), ~trials.same
    return np.median(np.linalg.norm(z[trials.left[rows]] - z[trials.right[rows]], axis=1))


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
