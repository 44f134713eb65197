"""Facts of the labels: which share of the genuine pairs scores as impostors do, and the rows in most of them."""

import numpy as np

from keras_siamese.data.sources import count_samples
from keras_siamese.diagnosis import limits


def of_labels(run):
    """The share of genuine pairs that score as impostors do, on both sides, and the training rows in most of them."""
    found, rows = {}, {}
    for name, scored in (("impostor_like", run.train), ("impostor_like_held_out", run.valid)):
        if scored is None:
            continue
        found[name] = impostor_like(scored.same, scored.scores)
        found[f"{name}_se"] = np.sqrt(found[name] / (limits.IMPOSTOR_TAIL * np.count_nonzero(scored.same)))
    if "impostor_like" in found:
        trials = run.train.trials
        pairs = trials.same, run.train.scores, trials.left, trials.right
        wrong = found["impostor_like"] - found.get("impostor_like_held_out", 0.0)
        suspects = suspected_labels(*pairs, count_samples(trials.items), wrong)
        found["suspected_labels"] = len(suspects) / count_samples(trials.items)
        rows["suspected_labels"] = (suspects if trials.rows is None else trials.rows[suspects]).tolist()
    return found, rows


def impostor_like(same, scores, quantile=float(limits.IMPOSTOR_TAIL)):
    """Share of the genuine pairs `(n,)` that score as impostors do: the genuine pairs below the impostors' `quantile`,
    over `quantile`, at most 1. Wrong labels put it near their share of the pairs; of right ones that are told apart
    with AUC .97 it is a few hundredths.

    Of a mixture (1 − π)·G + π·I of scores the tail that G does not reach is π times that of I.

    Scott, Blanchard, Handy, *Classification with Asymmetric Label Noise: Consistency and Maximal Denoising*, COLT 2013,
    https://arxiv.org/abs/1303.1208

    >>> impostor_like(np.array([True] * 4 + [False] * 4), np.array([9.0, 9, 9, 0, 1, 2, 3, 4]))
    1.0
    """
    same = np.asarray(same, bool)
    bound = np.quantile(scores[~same], quantile)
    return float(min(np.mean(scores[same] < bound) / quantile, 1.0))


def suspected_labels(same, scores, left, right, items, wrong_pairs, quantile=float(limits.SUSPECT_TAIL)):
    """Rows `(m,)` of the `items` that belong least to their label, most suspected first: those of whose genuine pairs
    most, and more than half, lie below the impostors' `quantile`. A wrong label makes impostors of all pairs of its
    row, and of one pair of each other's.

    As many as explain a share `wrong_pairs` of the genuine pairs: with a share r of wrong labels 1 − (1 − r)² of them
    are of two identities.

    Args:
        same: `(n,)` bool of pairs.
        scores: `(n,)`, larger = more similar.
        left, right: `(n,)` rows of each pair.
        items: how many rows there are.
        wrong_pairs: in [0, 1], as `impostor_like` estimates it, less what right labels show.
        quantile: in (0, 1): about the share of the wrong labels that can be found.

    >>> left, right = np.triu_indices(5, 1)
    >>> scores = np.where((left == 3) | (right == 3) | (right == 4), -1.0, 1.0)
    >>> suspected_labels(right < 4, scores, left, right, 5, wrong_pairs=0.5).tolist()
    [3]
    """
    same = np.asarray(same, bool)
    bad = scores[same] <= np.quantile(scores[~same], quantile)
    count, wrong = np.zeros(items), np.zeros(items)
    for side in (left[same], right[same]):
        count += np.bincount(side, minlength=items)
        wrong += np.bincount(side[bad], minlength=items)
    share = np.where(count > 1, wrong / np.maximum(count, 1), 0.0)
    most = int(np.ceil((1 - np.sqrt(1 - min(max(wrong_pairs, 0.0), 1.0))) * items))
    order = np.argsort(-share, kind="stable")[:most]
    return order[share[order] > 0.5]
