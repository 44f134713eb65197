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
    trials, scores = observed.train.trials, observed.train.scores
    wrong, count = found["impostor_like"] - found["impostor_like_held_out"], count_samples(trials.items)
    if observed.linear is not None:
        by_linear, linear = of_linear(observed)
        found |= by_linear
        if (excess := found["linear_impostor_like"] - found["linear_impostor_like_held_out"]) > wrong:
            wrong, scores = excess, linear
    suspects = suspected_labels(trials.same, scores, trials.left, trials.right, count, wrong)
    found["suspected_labels"] = len(suspects) / count
    return found, {"suspected_labels": (suspects if trials.rows is None else trials.rows[suspects]).tolist()}


def of_linear(observed):
    """`(facts, scores)`: the same by a linear model of the raw inputs, fitted on these labels, and its scores `(n,)` of
    the training pairs. It is too small to learn wrong labels by heart, as a network does.
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
    return found, scores


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


def suspected_labels(same, scores, left, right, items, wrong_pairs, quantile=float(limits.SUSPECT_TAIL)):
    """Rows `(m,)` of the `items` whose labels are probably wrong, most suspected first: those with the largest share,
    more than half, of genuine pairs below the impostors' `quantile`. A wrong label makes all pairs of its own row
    impostors, but only one pair of each other row.

    At most as many rows as explain a share `wrong_pairs` of the genuine pairs: if a share r of the labels is wrong,
    1 − (1 − r)² of these pairs have two identities.

    Args:
        same, scores, left, right: `(n,)` pairs of rows, as in `Trials`.
        items: the number of rows.
        wrong_pairs: in [0, 1], the estimate of `impostor_like`, less its value for right labels.
        quantile: in (0, 1): about the share of the wrong labels that can be found.

    >>> left, right = np.triu_indices(5, 1)
    >>> scores = np.where((left == 3) | (right == 3) | (right == 4), -1.0, 1.0)
    >>> suspected_labels(right < 4, scores, left, right, 5, wrong_pairs=0.5).tolist()
    [3]
    """
    same = np.asarray(same, bool)
    bad = scores[same] <= np.quantile(scores[~same], quantile)
    sides = np.stack([left[same], right[same]])
    count, wrong = (np.bincount(rows.ravel(), minlength=items) for rows in (sides, sides[:, bad]))
    share = np.where(count > 1, wrong / np.maximum(count, 1), 0.0)
    most = int(np.ceil((1 - np.sqrt(1 - min(max(wrong_pairs, 0.0), 1.0))) * items))
    order = np.argsort(-share, kind="stable")[:most]
    return order[share[order] > 0.5]
