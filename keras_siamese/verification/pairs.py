"""Input checks of verification: pair labels, scores and identities. The draw of pairs from identities.

Contract: the caller's arguments in; arrays of equal length out, or a `ValueError`/`TypeError` that names the argument
and counts the wrong values. This room and `scoring` import it.

    same, scores = check_pairs(same, scores)                      # (n,) booleans, (n,) floats, both classes present
    left, right, count = check_identities(left, right, len(same)) # (n,) codes below count; None without identities
"""

import keras
import numpy as np

from keras_siamese._checks import check_column, check_finite, check_labels, check_reals, check_same


def check_pairs(same, scores):
    """Returns `same` as booleans `(n,)`, True = genuine, and `scores` as finite floats `(n,)`, larger = more similar.

    float16, float32 and float64 keep their dtype, so that a threshold just above the maximum is just above it in the
    dtype in which scores are compared. bfloat16 becomes float32, everything else float64.
    """
    scores = check_scores(scores)
    same = check_same("same", same, length=len(scores))
    check_finite("scores", scores)
    genuines = int(np.count_nonzero(same))
    if genuines in (0, len(same)):
        found = f"{genuines} genuine and {len(same) - genuines} impostor pairs"
        raise ValueError(f"`same` must hold pairs of both classes; got {found}")
    return same, scores


def check_counts(counts, same):
    """Returns `counts` as float64 `(n,)`, the number of pairs that each row of `same` stands for: 1 each for None."""
    if counts is None:
        return np.ones(len(same))
    counts = check_reals("counts", check_column("counts", counts, "number", "pair", len(same))).astype(np.float64)
    check_finite("counts", counts)
    if (counts < 0).any() or not (counts[same].sum() and counts[~same].sum()):
        found = f"{counts[same].sum():g} genuine and {counts[~same].sum():g} impostor pairs"
        must = "`counts` must be at least 0 and count pairs of both classes"
        raise ValueError(f"{must}; got {found}, and {counts.min():g} as the least number")
    return counts


def balanced_weights(same, counts=None):
    """Weights `(n,)` that add up to ½ in each class, for rows that stand for `counts` `(n,)` pairs each."""
    counts = np.ones(len(same)) if counts is None else counts
    return counts * np.where(same, 0.5 / counts[same].sum(), 0.5 / counts[~same].sum())


def check_scores(scores):
    """Returns `scores` as floats `(n,)`, of a dtype as in `check_pairs`; whether they are finite is not checked."""
    scores = check_reals("scores", check_column("scores", scores, "score", "pair"))
    if scores.dtype.name == "bfloat16":
        scores = scores.astype(np.float32)
    if scores.dtype not in (np.float16, np.float32, np.float64):
        scores = scores.astype(np.float64)
    return scores


def check_identities(left, right, pairs):
    """Returns the identities of both sides as codes `(n,)`, `(n,)` and their number; None if neither side is given."""
    if left is None and right is None:
        return None
    if left is None or right is None:
        missing, given = ("left", "right") if left is None else ("right", "left")
        why = "because intervals need the identities of both sides"
        raise ValueError(f"`{missing}` must be given if `{given}` is, {why}; got None")
    left, right = check_labels("left", left, length=pairs), check_labels("right", right, length=pairs)
    return encode_identities("left", left, "right", right)


def check_agreement(same, left, right):
    """Raises if a pair is genuine in `same` and the codes of its identities differ. An impostor pair may have one
    identity twice: a skilled forgery has the name of the person that it claims to be.
    """
    wrong = np.flatnonzero(same & (left != right))
    if len(wrong):
        found = f"they differ in {len(wrong)} of {np.count_nonzero(same)} genuine pairs, first at index {wrong[0]}"
        raise ValueError(f"`left` and `right` must be equal identities where `same` is 1; {found}")


def encode_identities(name, labels, other_name, others):
    """Returns checked labels `(n,)` and `(m,)` as codes of the same identities, and the number of identities."""
    if (labels.dtype.kind in "US") != (others.dtype.kind in "US"):
        found = f"dtypes {labels.dtype} and {others.dtype}"
        raise ValueError(f"`{name}` and `{other_name}` must both be strings or both be integers; got {found}")
    both = np.concatenate((labels, others))
    if both.dtype.kind in "iu" and both.size and both.min() >= 0 and both.max() < 4 * both.size:
        names, codes = _ranks_of_small(both)
    else:
        names, codes = np.unique(both, return_inverse=True)
    return codes[: len(labels)], codes[len(labels) :], len(names)


def _ranks_of_small(numbers):
    """As `numpy.unique` with its inverse, without a sort, for whole numbers `(n,)` from 0 to a few n."""
    present = np.bincount(numbers) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[numbers]


def check_embeddings(embeddings):
    """Returns `embeddings` as finite float32 or float64 `(n, dim)`, dim ≥ 1."""
    embeddings = check_reals("embeddings", embeddings)
    if embeddings.ndim != 2 or not embeddings.shape[1]:
        raise ValueError(f"`embeddings` must have shape (n, dim); got shape {embeddings.shape}")
    check_finite("embeddings", embeddings)
    return embeddings if embeddings.dtype in (np.float32, np.float64) else embeddings.astype(np.float32)


def draw_pairs(codes, max_pairs, rng):
    """Draw at most `max_pairs` ≥ 2 pairs of samples with identities `codes` `(n,)`: rows `(left, right)`, left < right.

    If there are no more than `max_pairs` pairs, all are returned. Otherwise min(all, max_pairs // 2) genuine and
    min(all, the rest) impostor pairs are drawn. Each kind is a simple random sample without replacement.
    """
    n = len(codes)
    if n * (n - 1) // 2 <= max_pairs:
        return np.triu_indices(n, 1)
    # In the order of identities, the genuine partners of a place are the places from the next one to its block's end,
    # the impostor partners those from there on; each pair is counted at its first place.
    order = np.argsort(codes, kind="stable")
    _, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
    block_end = np.repeat(starts + sizes, sizes)
    genuine = draw_partners(np.arange(1, n + 1), block_end, max_pairs // 2, rng)
    impostor = draw_partners(block_end, np.full(n, n), max_pairs - genuine.shape[1], rng)
    return tuple(np.sort(order[np.concatenate([genuine, impostor], axis=1)], axis=0))


def draw_partners(first, end, count, rng):
    """`count` distinct `(place, partner)`, first[place] ≤ partner < end[place], or all if there are fewer: `(2, k)`."""
    up_to = np.cumsum(end - first)
    total = int(up_to[-1])
    numbers = np.arange(total) if total <= count else np.sort(rng.choice(total, count, replace=False))
    place = np.searchsorted(up_to, numbers, side="right")
    return np.stack([place, end[place] - (up_to[place] - numbers)])


def progress_bar(total, unit, shown):
    """A function that moves Keras's progress bar on by a number of steps, or does nothing if no bar is `shown`."""
    return keras.utils.Progbar(total, unit_name=unit).add if shown else lambda steps: None


def say(text):
    """Shows a line as Keras shows its progress: on the standard output, or in the log if Keras is told to log."""
    keras.src.utils.io_utils.print_msg(text)
