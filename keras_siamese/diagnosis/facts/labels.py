"""Facts of the labels: the share of genuine pairs that score as impostors do, and the rows with suspected labels."""

import numpy as np

from keras_siamese import verification
from keras_siamese.data.sources import count_samples
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.references import linear_scores
from keras_siamese.diagnosis.facts.verification import standard_errors, widening


def of_labels(observed):
    """The share of genuine pairs that score as impostors do, on both sides, and the suspected training rows."""
    found = {}
    for name, scored in (("impostor_like", observed.train), ("impostor_like_held_out", observed.valid)):
        if scored is not None:
            found[name] = impostor_like(scored.same, scored.scores)
            found[f"{name}_se"] = np.sqrt(found[name] / (limits.IMPOSTOR_TAIL * np.count_nonzero(scored.same)))
    if observed.train is None:
        return found, {}
    trials, scores, count = observed.train.trials, observed.train.scores, count_samples(observed.train.trials.items)
    wrong = found["impostor_like"] - found["impostor_like_held_out"]
    if observed.linear is not None:
        by_linear, linear, eer = of_linear(observed)
        found |= by_linear
        excess = found["linear_impostor_like"] - found["linear_impostor_like_held_out"]
        halfway = (verification.eer(observed.valid.same, observed.valid.scores) + 0.5) / 2  # to chance
        if excess > wrong and eer < halfway:
            wrong, scores = excess, linear
    if wrong <= 0:
        suspects = np.array([], int)
    elif trials.identities is None:
        suspects = suspected_pairs(trials.same, scores, observed.valid.same, observed.valid.scores)
    else:
        suspects = suspected_labels(trials.same, scores, trials.left, trials.right, count)
    found["suspected_labels"] = len(suspects) / (count if trials.identities is not None else len(trials.same))
    return found, {"suspected_labels": (suspects if trials.rows is None else trials.rows[suspects]).tolist()}


def of_linear(observed):
    """`(facts, scores, eer)`: the same by a linear model of the raw inputs, fitted on these labels, its scores `(n,)`
    of the training pairs, and its held-out EER. It is too small to learn wrong labels by heart, as a network does.
    """
    train, valid = observed.train.trials, observed.valid.trials
    scores, held_out = (linear_scores(observed.linear, trials) for trials in (train, valid))
    found = {"linear_train_eer": verification.eer(train.same, scores)}
    found["linear_train_eer_se"] = standard_errors(train.same, scores, *train.pair_identities)["eer"] * widening(train)
    found["linear_eer_se"] = standard_errors(valid.same, held_out, *valid.pair_identities)["eer"] * widening(valid)
    for name, trials, own in (("", train, scores), ("_held_out", valid, held_out)):
        share = impostor_like(trials.same, own)
        found[f"linear_impostor_like{name}"] = share
        error = np.sqrt(share / (limits.IMPOSTOR_TAIL * np.count_nonzero(trials.same)))
        found[f"linear_impostor_like{name}_se"] = error
    return found, scores, verification.eer(valid.same, held_out)


def impostor_like(same, scores, quantile=float(limits.IMPOSTOR_TAIL)):
    """Share of the genuine pairs `(n,)` that score as impostors do: the share below the impostors' `quantile`, divided
    by `quantile`, at most 1. With wrong labels it is about their share of the pairs; if all labels are right and pairs
    are told apart with AUC .97, it is a few hundredths.

    In a mixture (1 − π)·G + π·I of scores, the tail that G does not reach is π times that of I.

    Scott, Blanchard, Handy, *Classification with Asymmetric Label Noise: Consistency and Maximal Denoising*, COLT 2013,
    https://arxiv.org/abs/1303.1208

    >>> impostor_like(np.array([True] * 4 + [False] * 4), np.array([9.0, 9, 9, 0, 1, 2, 3, 4]))
    1.0
    """
    same = np.asarray(same, bool)
    bound = np.quantile(scores[~same], quantile)
    return float(min(np.mean(scores[same] < bound) / quantile, 1.0))


def suspected_labels(same, scores, left, right, items):
    """Rows `(m,)` of the `items` whose labels are probably wrong, the most suspected first: those whose genuine pairs
    score nearer to their impostor pairs than is usual for an item, by more than half.

    A wrong label makes all pairs of its own row impostors, but only one pair of each other row. The usual difference is
    the upper quartile, which is the median of the right rows if half of all labels are wrong.

    Args:
        same, scores, left, right: `(n,)` pairs of rows, as in `Trials`.
        items: the number of rows.

    >>> left, right = np.triu_indices(6, 1)
    >>> scores = np.where((left == 3) | (right >= 3), -1.0, 1.0)
    >>> suspected_labels(right < 4, scores, left, right, 6).tolist()
    [3]
    """
    same = np.asarray(same, bool)
    sides, means = np.stack([left, right]), []
    for kind in (same, ~same):
        rows, values = sides[:, kind].ravel(), np.tile(scores[kind], 2)
        count = np.bincount(rows, minlength=items)
        means.append(np.where(count > 0, np.bincount(rows, values, minlength=items) / np.maximum(count, 1), np.nan))
    nearer = means[0] - np.where(np.isnan(means[1]), np.mean(scores[~same]), means[1])
    usual = np.nanquantile(nearer, limits.USUAL_ROWS)
    order = np.argsort(nearer, kind="stable")
    return order[nearer[order] < usual / 2]  # halfway between right and wrong labels


def suspected_pairs(same, scores, same_held_out, scores_held_out):
    """Rows `(m,)` of pairs `(n,)` whose labels are probably wrong, the most suspected first: those that score as the
    other label does. For each label these are as many as there are more than among held-out pairs `(k,)`.

    >>> same, scores = np.array([True, True, True, False, False, False]), np.array([5.0, 4, 0, 0, 1, 2])
    >>> suspected_pairs(same, scores, same[[0, 1, 3, 4]], scores[[0, 1, 3, 4]]).tolist()
    [2]
    """
    found, beyond = [], []
    middle = (np.quantile(scores[same], limits.USUAL_ROWS) + np.quantile(scores[~same], 1 - limits.USUAL_ROWS)) / 2
    for kind, sign in ((True, 1), (False, -1)):
        rows, held_out = np.flatnonzero(same == kind), scores_held_out[same_held_out == kind]
        far = sign * (middle - scores[rows])
        excess = np.mean(far > 0) - np.mean(sign * (middle - held_out) > 0)
        order = np.argsort(-far, kind="stable")[: int(max(excess, 0) * len(rows))]
        found, beyond = [*found, *rows[order]], [*beyond, *far[order]]
    return np.array(found, int)[np.argsort(np.negative(beyond), kind="stable")]
