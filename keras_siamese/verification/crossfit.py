"""Cross-fitted accuracy: each pair is decided by a threshold that was chosen without it.

Contract: labels, scores and, where known, the identities of both sides in; the accuracy at thresholds from other
identities, and a threshold for new pairs, out. Pure NumPy; anything above `distances` may import it.

    accuracy, threshold = cross_fitted_accuracy(same, scores, left, right)

Gary B. Huang, Manu Ramesh, Tamara Berg, Erik Learned-Miller, "Labeled Faces in the Wild: a database for studying face
recognition in unconstrained environments", University of Massachusetts, Amherst, Technical Report 07-49, 2007,
http://vis-www.cs.umass.edu/lfw/lfw.pdf: choose on nine folds, apply to the tenth.
"""

from __future__ import annotations

import numpy as np

from keras_siamese._checks import check_column, check_integer, check_labels
from keras_siamese._types import ArrayLike
from keras_siamese.verification.pairs import check_identities, check_pairs
from keras_siamese.verification.points import best_point, just_above, operating_points


def cross_fitted_accuracy(
    same: ArrayLike,
    scores: ArrayLike,
    left: ArrayLike | None = None,
    right: ArrayLike | None = None,
    folds: int | ArrayLike = 10,
    seed: int = 0,
) -> tuple[float, float]:
    """The accuracy over all pairs, each decided by the threshold that is best on pairs of other folds.

    If identities are given, they are assigned to folds at random. A pair is tested in the fold of its left identity,
    and the threshold is the best one on the pairs that have neither identity in that fold. (The right identity of a
    tested pair may occur in those pairs.) Without identities the pairs are assigned, evenly within each class.

    If there are fewer identities (or pairs) than folds, each is a fold of its own. A fold without a tested pair is
    ignored. If the pairs outside a fold are all of one class, no threshold can be chosen: `ValueError`.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        left, right: `(n,)` identities of the two sides of each pair, integers or strings.
        folds: number of folds, at least 2; or the fold of each pair, `(n,)`, as a protocol prescribes them
            (`data.read_lfw_pairs(…).fold`), then without identities.
        seed: integer ≥ 0 for the random assignment to folds.

    Returns:
        `(accuracy, threshold)`, floats. The threshold is the best one over all pairs, to be used on new pairs; the
        cross-fitted accuracy is what to expect of it there. (On these pairs it reaches `best_accuracy`.)

    >>> rng = np.random.default_rng(0)
    >>> same = np.arange(1000) % 2
    >>> accuracy, threshold = cross_fitted_accuracy(same, rng.normal(size=1000) + 2 * same)
    >>> round(accuracy, 2), round(threshold)
    (0.85, 1)
    """
    same, scores = check_pairs(same, scores)
    identities = check_identities(left, right, len(same))
    folds = check_folds(folds, len(same), identities)
    accepted = cross_fitted_decisions(same, scores, identities, folds, check_integer("seed", seed, low=0))
    if accepted is None:
        count = folds if np.ndim(folds) == 0 else len(np.unique(folds))
        wanted = f"more pairs: both classes must remain if any one of the {count} folds is left out"
        found = f"{np.count_nonzero(same)} genuine and {np.count_nonzero(~same)} impostor pairs"
        raise ValueError(f"`same` must hold {wanted}; got {found}")
    return float((accepted == same).mean()), best_point(operating_points(same, scores))[1]


def check_folds(folds, pairs, identities):
    """Returns the number of folds, or the fold of each pair `(pairs,)`."""
    if np.ndim(folds) == 0:
        return check_integer("folds", folds, low=2)
    check_column("folds", folds, "fold", "pair", length=pairs)
    folds = check_labels("folds", folds)
    if identities is not None:
        raise ValueError("`left` and `right` must be None where `folds` gives the fold of each pair; got both")
    if len(np.unique(folds)) < 2:
        raise ValueError(f"`folds` must name at least 2 folds; all {pairs} pairs are in fold {folds[0]!r}")
    return folds


def cross_fitted_decisions(same, scores, identities, folds, seed):
    """Which pairs are accepted, `(n,)` booleans; None if for some fold no threshold can be chosen."""
    tested_in, also_in = deal_folds(same, identities, folds, seed)
    order = np.argsort(-scores)
    falling, ordered_same = scores[order], same[order]
    last_of_tie = np.concatenate((falling[1:] != falling[:-1], [True]))
    accepted = np.empty(len(same), bool)
    for fold in np.unique(tested_in):
        tested = tested_in == fold
        chosen = (~tested if also_in is tested_in else ~(tested | (also_in == fold)))[order]
        gain = np.where(ordered_same, chosen, np.negative(chosen, dtype=np.int8, casting="unsafe"))
        if not (gain.max() == 1 and gain.min() == -1):
            return None
        accepted[tested] = scores[tested].astype(np.float64) >= best_threshold(falling, gain, last_of_tie, chosen)
    return accepted


def best_threshold(falling, gain, last_of_tie, chosen):
    """The threshold of `best_point` for the `chosen` pairs, from the one order of all pairs.

    `best_point(operating_points(same[chosen], scores[chosen]))` would sort again for each fold, which takes four times
    as long with ten folds.

    All arguments are `(n,)`, by falling score. `gain` is what accepting a pair adds to the correct decisions: 1 for a
    genuine and −1 for an impostor pair that is chosen, 0 for the others.
    """
    right = np.where(last_of_tie, np.cumsum(gain, dtype=np.int64), -len(gain))
    best = int(np.argmax(right))
    return float(falling[best] if right[best] > 0 else just_above(falling[np.argmax(chosen)]))


def deal_folds(same, identities, folds, seed):
    """The fold that each pair is tested in and the fold of its right side, `(n,)` each; equal without identities."""
    if np.ndim(folds):
        return folds, folds
    rng = np.random.default_rng(seed)
    if identities is not None:
        left, right, count = identities
        fold_of = rng.permutation(count) % folds
        return fold_of[left], fold_of[right]
    # One class after the other, so that the second class starts with the folds that got one pair less of the first.
    shuffled = np.concatenate([rng.permutation(np.flatnonzero(kind)) for kind in (same, ~same)])
    fold_of = np.empty(len(same), np.int64)
    fold_of[shuffled] = np.arange(len(same)) % folds
    return fold_of, fold_of
