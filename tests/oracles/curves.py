"""Slow, obvious loops to compare the package with. None calls the function that it is an oracle for.

Each section serves one room; a test beside its use shows that it rejects a deliberately broken variant.
"""

import itertools
import statistics
from fractions import Fraction

# --- verification: pairs are counted one by one, at one threshold at a time, in exact fractions


def error_rates(same, scores, threshold):
    """(FMR, FNMR) at `threshold`, counting pair by pair."""
    wrong = {True: 0, False: 0}
    total = {True: 0, False: 0}
    for is_same, score in zip(same, scores, strict=True):
        total[bool(is_same)] += 1
        wrong[bool(is_same)] += (score >= threshold) != bool(is_same)
    return Fraction(wrong[False], total[False]), Fraction(wrong[True], total[True])


def thresholds(scores):
    """Every threshold that makes a difference, strictest first: one above all scores, then each distinct score."""
    return [max(scores) + 1, *sorted(set(scores), reverse=True)]


def auc(same, scores):
    """Each genuine against each impostor: 1 if it scores higher, ½ if equal."""
    genuines = [score for is_same, score in zip(same, scores, strict=True) if is_same]
    impostors = [score for is_same, score in zip(same, scores, strict=True) if not is_same]
    wins = sum(Fraction(int(g > i)) + Fraction(int(g == i), 2) for g in genuines for i in impostors)
    return wins / (len(genuines) * len(impostors))


def eer(same, scores):
    """Walks the DET polyline from (0, 1) to (1, 0) and returns the height at which a segment meets the diagonal."""
    corners = [error_rates(same, scores, threshold) for threshold in thresholds(scores)]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        if x0 < y0 and x1 >= y1:
            # (1 − t)·(x0, y0) + t·(x1, y1) has equal coordinates at this t.
            t = (y0 - x0) / ((y0 - x0) + (x1 - y1))
            return (1 - t) * x0 + t * x1
    raise AssertionError("the polyline does not meet the diagonal")


def eer_point(same, scores):
    """The (threshold, FMR, FNMR) of least |FMR − FNMR|, the strictest of equals."""
    points = [(threshold, *error_rates(same, scores, threshold)) for threshold in thresholds(scores)]
    return min(points, key=lambda point: abs(point[1] - point[2]))


def tar_at_far(same, scores, far):
    """The largest TAR over all thresholds that keep to `far`."""
    rates = [error_rates(same, scores, threshold) for threshold in thresholds(scores)]
    return max(1 - fnmr for fmr, fnmr in rates if float(fmr) <= far)


def threshold_at_far(same, scores, far):
    """The smallest threshold that keeps to `far`."""
    return min(t for t in thresholds(scores) if float(error_rates(same, scores, t)[0]) <= far)


def accuracy_at(same, scores, threshold):
    right = sum((score >= threshold) == bool(is_same) for is_same, score in zip(same, scores, strict=True))
    return Fraction(right, len(scores))


def best_accuracy(same, scores):
    """(accuracy, threshold) of the best threshold, the highest of equals."""
    return max((accuracy_at(same, scores, threshold), threshold) for threshold in thresholds(scores))


def d_prime(same, scores):
    genuines = [float(score) for is_same, score in zip(same, scores, strict=True) if is_same]
    impostors = [float(score) for is_same, score in zip(same, scores, strict=True) if not is_same]
    gap = abs(statistics.fmean(genuines) - statistics.fmean(impostors))
    return gap / ((statistics.pvariance(genuines) + statistics.pvariance(impostors)) / 2) ** 0.5


def cross_fitted_accuracy(same, scores, left_folds, right_folds):
    """Pair by pair: gathers the pairs without a side in the pair's fold, chooses on them, judges the pair."""
    right = 0
    for is_same, score, fold in zip(same, scores, left_folds, strict=True):
        others = [k for k in range(len(scores)) if left_folds[k] != fold and right_folds[k] != fold]
        _, threshold = best_accuracy([same[k] for k in others], [scores[k] for k in others])
        right += (score >= threshold) == bool(is_same)
    return Fraction(right, len(scores))


def identity_resamples(same, scores, left, right):
    """Every way to draw as many identities as there are, with replacement: the pairs (same, scores) each way yields.

    The drawn identities are laid out as people in a row, two of whom may be copies. A pair of two identities occurs
    once for each two people who are them; a pair within an identity once for each person.
    """
    identities = sorted(set(left) | set(right))
    for people in itertools.product(identities, repeat=len(identities)):
        drawn = []
        for is_same, score, a, b in zip(same, scores, left, right, strict=True):
            if a == b:
                copies = sum(person == a for person in people)
            else:
                copies = sum(one == a and other == b for one in people for other in people)
            drawn += [(is_same, score)] * copies
        yield [pair[0] for pair in drawn], [pair[1] for pair in drawn]


def pair_resamples(same, scores):
    """Every way to draw as many pairs as there are, with replacement."""
    for drawn in itertools.product(range(len(scores)), repeat=len(scores)):
        yield [same[k] for k in drawn], [scores[k] for k in drawn]


def orders(genuines, impostors):
    """Every order of so many genuines and impostors on distinct scores: each as likely when the scores say nothing."""
    pairs = genuines + impostors
    for chosen in itertools.combinations(range(pairs), genuines):
        yield [k in chosen for k in range(pairs)], list(range(pairs))


def pooled(same, scores):
    """Pool adjacent violators, by the book: blocks of (genuines, pairs, how many pairs), merged while they fall."""
    blocks = []
    for score in sorted(set(scores.tolist())):
        here = scores == score
        blocks.append([int(same[here].sum()), int(here.sum())])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            genuines, number = blocks.pop()
            blocks[-1][0] += genuines
            blocks[-1][1] += number
    return blocks
