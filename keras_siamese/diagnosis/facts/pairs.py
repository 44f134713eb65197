"""Facts of what training is shown: kinds of pairs, identities, and how hard the pairs are that the loss uses."""

import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese.data.sources import count_samples, take
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.batches import as_tensors, is_pairs, pair_outputs
from keras_siamese.losses.batch.mining import one_negative, one_positive
from keras_siamese.losses.batch.rows import Batch, Rows
from keras_siamese.scoring import score_embeddings

MOST_NUMBERS = 20_000_000  # numbers of the pairs that are compared with each other


def of_pairs(observed):
    """What training pairs, or batches, are made of: kinds, identities, and how hard the pairs are."""
    found = {"positive_fraction": observed.positive_fraction, "weighted_positive_fraction": weighted_fraction(observed)}
    found["batch_identities"] = batch_identities(observed)
    found |= of_shown_pairs(observed) | {"crossed_eer": crossed_eer(observed)}
    counts = drawn_counts(observed.source)
    if counts is not None and len(counts) > 2:
        found |= {"effective_identities": effective_count(counts), "share_of_two": largest_share(counts)}
        found["drawn_identities"] = np.count_nonzero(counts)
    if not observed.batches or observed.siamese is None or not observed.has_embeddings:
        return found
    same, scores = pair_outputs(observed.siamese, observed.batches, observed.genuine_label)
    if np.isfinite(scores).all() and 0 < np.count_nonzero(same) < len(same):
        found["drawn_auc"] = verification.auc(same, scores)
        if observed.train is not None:
            missed = 1 - observed.train_intervals["auc"].estimate
            found["drawn_auc_se"] = chance_error(missed, np.count_nonzero(same), np.count_nonzero(~same))
    return found | {"mined_accuracy": mined_accuracy(observed)}


def chance_error(missed, genuine, impostor):
    """Standard error of the AUC of so many pairs that are as hard as all pairs, whose AUC is 1 − `missed`: with as many
    of both kinds √(f(1 − f) / 0.75n), as in `trend.standard_errors`.
    """
    pairs = 4 * genuine * impostor / (genuine + impostor)
    return float(np.sqrt(missed * (1 - missed) / (0.75 * pairs)))


def crossed_eer(observed):
    """EER of the genuine training pairs against their first items with the second items of other genuine pairs. These
    are impostors like those that the held-out data have, but for a few of the same identity; None where the training
    data have identities, or no embeddings.
    """
    train = observed.train
    if train is None or train.trials.identities is not None or not observed.has_embeddings or observed.is_unshared:
        return None
    rows = np.flatnonzero(train.same)
    others = np.roll(np.random.default_rng(0).permutation(rows), 1)
    left, right = train.trials.left[rows], train.trials.right[others]
    scores = score_embeddings(observed.siamese, train.embeddings, left, right)
    return verification.eer(np.repeat([True, False], len(rows)), np.concatenate([train.scores[rows], scores]))


def of_shown_pairs(observed):
    """What the pairs that training is shown are made of, where they are given as pairs."""
    source, found = observed.source, {}
    if hasattr(source, "pairs") and hasattr(source, "x") and not hasattr(source, "labels"):
        left, right, same = source.pairs()
        size = max(1, np.prod(shape_of(take(source.x, slice(0, 1))), dtype=float))
        kept = slice(0, int(max(MOST_NUMBERS / (2 * size), 1)))
        sides = (codes_of(*(take(source.x, rows[kept]) for rows in (left, right))), same[kept])
        found |= make_up(*sides[0], sides[1])
    valid = observed.valid.trials
    if valid.identities is None and found:
        rows = valid.balanced()[: int(limits.SOME_PAIRS)]
        codes = codes_of(*(take(valid.items, side[rows]) for side in (valid.left, valid.right)))
        found["identical_genuine_held_out"] = make_up(*codes, valid.same[rows]).get("identical_genuine")
    return found


def shape_of(x):
    """The numbers of one sample in each array of `x`, an array or a dict of arrays, as a shape."""
    return [sum(np.prod(array.shape[1:], dtype=int) for array in x.values())] if isinstance(x, dict) else x.shape[1:]


def codes_of(left, right):
    """Codes `(n,)` of the samples on both sides of n pairs: samples with equal numbers have equal codes."""
    known, sides = {}, []
    for side in (left, right):
        arrays = [np.ascontiguousarray(one) for one in (side.values() if isinstance(side, dict) else [side])]
        rows = (b"".join(array[row].tobytes() for array in arrays) for row in range(count_samples(side)))
        sides.append(np.array([known.setdefault(hash(row), len(known)) for row in rows], int))
    return sides


def make_up(left, right, same):
    """Facts of the pairs of samples with codes `left`, `right` `(n,)`, genuine where `same` `(n,)`.

    >>> found = make_up(np.array([0, 1, 2, 3]), np.array([0, 4, 4, 1]), np.array([True, True, False, False]))
    >>> found["identical_genuine"], found["identical_impostors"], found["contradictory_pairs"]
    (0.5, 0.0, 0.0)
    """
    left, right, same = np.asarray(left), np.asarray(right), np.asarray(same, bool)
    if len(same) == 0:
        return {}
    found = {}
    for name, kind in (("identical_genuine", same), ("identical_impostors", ~same)):
        if kind.any():
            found[name] = float(np.mean(left[kind] == right[kind]))
    found["constant_side"] = float(max(np.bincount(side).max() for side in (left, right)) / len(same))
    ordered = np.sort(np.stack([left, right], axis=1), axis=1)
    _, place = np.unique(ordered, axis=0, return_inverse=True)
    place = place.reshape(-1)
    genuine, count = np.bincount(place, same), np.bincount(place)
    found["contradictory_pairs"] = float(np.mean(((genuine > 0) & (genuine < count))[place]))
    items = len(np.unique(ordered))
    found |= {"times_shown": len(same) / len(count), "pairs_of_items": items * (items - 1) / 2 / len(count)}
    return found


def mined_accuracy(observed):
    """Share of the triplets that a mining loss selects in training batches whose positive is nearer than the negative;
    None for losses that use all triplets.
    """
    mining = observed.character.mining
    if mining is None or "distance_weighted" in mining:
        return None
    right = []
    for inputs, labels in observed.batches:
        if is_pairs(inputs):
            return None
        embeddings = observed.siamese.encode(as_tensors(inputs), False, None)
        right += mined_order(observed.loss.measure, embeddings, np.asarray(labels), *mining)
    return float(np.mean(right)) if right else None


def mined_order(measure, embeddings, labels, positives, negatives):
    """For each anchor, whether the selected positive is nearer than the selected negative, as a list of numbers in
    [0, 1]; [] for semi-hard ones, which are in order by definition.

    `measure` is a function from embeddings `(batch, dim)`, given twice, to distances `(batch, batch)`; `labels` are
    identities `(batch,)`. `positives` and `negatives` are "hard", "easy" or "all", not both "all": "all" positives give
    the share of them that is nearer, "all" negatives give a number for each.
    """
    if not {positives, negatives} <= {"hard", "easy", "all"}:
        return []
    rows = Rows(Batch(ops.convert_to_tensor(labels), ops.convert_to_tensor(embeddings)), None, measure)
    near = rows.matrix if positives == "all" else ops.expand_dims(one_positive(rows, positives)[1], 1)
    far = rows.matrix if negatives == "all" else ops.expand_dims(one_negative(rows, negatives)[1], 1)
    among = rows.positive if positives == "all" else rows.negative
    order, among, both = (ops.convert_to_numpy(one) for one in (near < far, among, rows.has_both))
    if "all" not in (positives, negatives):
        return order[both, 0].astype(float).tolist()
    parts = [row[mask] for row, mask in zip(order[both], among[both], strict=True)]
    if negatives == "all":
        return [float(one) for part in parts for one in part]
    return [float(np.mean(part)) for part in parts]


def effective_count(counts):
    """1 / Σ p² of shares p: the number of equally large identities that `counts` `(K,)` amount to."""
    share = np.asarray(counts, float) / np.sum(counts)
    return float(1 / np.sum(share**2))


def largest_share(counts, of=2):
    """Share of the `of` largest of `counts` `(K,)`."""
    counts = np.sort(np.asarray(counts, float))
    return float(counts[-of:].sum() / counts.sum())


def drawn_counts(source):
    """How often samples of each training identity are shown in an epoch, `(K,)`, or None if it is not known."""
    if hasattr(source, "labels") and (hasattr(source, "pairs") or hasattr(source, "rows")):
        rows = np.concatenate(source.pairs()[:2]) if hasattr(source, "pairs") else source.rows().ravel()
        return np.bincount(source.labels[rows])
    if isinstance(source, (tuple, list)) and len(source) == 2:
        return np.unique(np.asarray(source[1]), return_counts=True)[1]
    return None


def batch_identities(observed):
    """How many identities one call of the encoder sees in a training batch, on average, or None if it is not known."""
    source = observed.source
    if hasattr(source, "pairs") and hasattr(source, "labels"):
        sides, size = np.stack([source.labels[rows] for rows in source.pairs()[:2]]), source.batch_size
        if getattr(getattr(observed.siamese, "model", None), "joint", False):  # else each side is a call of its own
            sides, size = sides.T.reshape(1, -1), 2 * size
        starts = range(0, sides.shape[1], size)
        return min(float(np.mean([len(np.unique(side[at : at + size])) for at in starts])) for side in sides)
    return float(source.classes_per_batch) if hasattr(source, "classes_per_batch") else None


def weighted_fraction(observed):
    """Genuine pairs' share of the weight in the loss: `positive_fraction`, shifted by class weights; or None."""
    fraction, loss = observed.positive_fraction, observed.loss
    if fraction is None or getattr(loss, "class_weight", None) == "balanced":
        return None if fraction is None else 0.5
    by_label = getattr(loss, "class_weight", None) or {0: 1.0, 1: 1.0}
    label = getattr(loss, "similar_label", 1)
    genuine = fraction * getattr(loss, "positive_weight", 1.0) * by_label[label]
    total = genuine + (1 - fraction) * getattr(loss, "negative_weight", 1.0) * by_label[1 - label]
    return genuine / total if total else fraction
