"""Signals of the samples: suspected labels, who holds how many of them, input scales, what both sides share.

Contract: arrays in, a number or a few out; NumPy only. No signal decides anything: thresholds live with the causes.

    impostor_like(same, scores)                              # share of genuine pairs that score as impostors do
    effective_count(np.bincount(identities))                 # 1/Σp²: how many identities the samples amount to
    shared_auc(z_train, y_train, z_valid, y_valid)           # do equal names on both sides mean the same?
"""

import numpy as np

from keras_siamese.diagnosis.facts.embeddings import below, normalised


def impostor_like(same, scores, quantile=0.25):
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


def suspected_labels(same, scores, left, right, items, wrong_pairs, quantile=0.9):
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


def effective_count(counts):
    """1 / Σ p² of shares p: how many identities `counts` `(K,)` amount to if all were as large.

    >>> effective_count([5, 5, 0])
    2.0
    """
    share = np.asarray(counts, float) / np.sum(counts)
    return float(1 / np.sum(share**2))


def largest_share(counts, of=2):
    """Share of the `of` largest of `counts` `(K,)`.

    >>> largest_share([8, 1, 1])
    0.9
    """
    counts = np.sort(np.asarray(counts, float))
    return float(counts[-of:].sum() / counts.sum())


def root_mean_square(x):
    """√ of the mean of x² over all numbers of an array, or of a dict of them."""
    arrays = x.values() if isinstance(x, dict) else [x]
    squares = [np.square(np.asarray(array, float)) for array in arrays]
    return float(np.sqrt(sum(square.sum() for square in squares) / sum(square.size for square in squares)))


def detail(images):
    """Power of the finest octave of `(n, height, width[, channels])` over that of the next coarser one: near 1 for
    natural images and drawings of any size (they were between .27 and 1.8), a twentieth and less once they are blurred.

    Field, *Relations between the statistics of natural images and the response properties of cortical cells*, JOSA A 4,
    1987, https://doi.org/10.1364/JOSAA.4.002379: amplitude falls as 1/frequency, so each octave holds as much.

    >>> noise = np.random.default_rng(0).normal(size=(50, 16, 16))
    >>> round(detail(noise)), round(detail(np.cumsum(np.cumsum(noise, axis=1), axis=2)), 1)
    (5, 0.4)
    """
    images = np.asarray(images, float)
    grey = images.mean(axis=3) if images.ndim == 4 else images
    # A window, for the edges of an image are no edges in it.
    window = np.hanning(grey.shape[1])[:, None] * np.hanning(grey.shape[2])
    power = (np.abs(np.fft.fft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    rows, columns = (np.abs(np.fft.fftfreq(size)) for size in grey.shape[1:])
    frequency = np.maximum(rows[:, None], columns)
    finest, coarser = power[frequency >= 0.25].sum(), power[(frequency >= 0.125) & (frequency < 0.25)].sum()
    return float(finest / coarser) if coarser else 1.0


def shared_auc(train, train_names, valid, valid_names):
    """Whether equal names on both sides mean the same: AUC of the cosine between rows of `train` and of `valid`, those
    with one name against those with two. ½ where the sides were numbered each by itself; None without shared names.

    Args:
        train, valid: embeddings `(n, dim)`, `(m, dim)`.
        train_names, valid_names: their identities as they were given.
    """
    train_names, valid_names = np.asarray(train_names), np.asarray(valid_names)
    if train_names.dtype.kind in "US" and valid_names.dtype.kind not in "US":
        return None
    rows = [np.isin(names, np.intersect1d(train_names, valid_names)) for names in (train_names, valid_names)]
    if not rows[0].any() or (valid_names.dtype.kind in "US" and train_names.dtype.kind not in "US"):
        return None
    similarity = normalised(train[rows[0]]) @ normalised(valid[rows[1]]).T
    same = train_names[rows[0]][:, None] == valid_names[rows[1]]
    if same.all() or not same.any():
        return None
    return float(below(np.sort(similarity[~same]), similarity[same]).mean())
