"""Evidence: what a given number of pairs can show, whatever their scores are.

Contract: numbers of pairs in, limits of what can be concluded out: which false match rates can be measured, what the
absence of errors proves, and what pure noise reaches. All functions treat pairs as independent; pairs that share
identities carry less evidence. Standard library only; anything above `distances` may import it.

    rule_of_30(0.001, impostors=3000).mark             # 'uncertain'
    rule_of_3(3000)                                    # no error among 3,000: the true rate is below 0.001
    best_accuracy_floor(genuines=250, impostors=250)   # what noise reaches once in a hundred
"""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import NormalDist
from typing import NamedTuple

from keras_siamese._checks import check_integer, check_number


class RuleOf30(NamedTuple):
    """How reliable a figure at a false match rate is.

    Attributes:
        mark: `"plain"`, `"uncertain"` (print it with a mark) or `"withheld"` (do not print it).
        expected: expected number of false matches, far · impostors.
        needed: number of impostor pairs that makes the figure plain, 30 / far.
        shown_from: number of impostor pairs from which the figure is shown at all, 3 / far.
    """

    mark: str
    expected: float
    needed: int
    shown_from: int


def rule_of_30(far: float, impostors: int) -> RuleOf30:
    """Whether this number of impostor pairs is enough for a figure at the false match rate `far`, as a `RuleOf30`.

        plain: far · impostors ≥ 30        uncertain: 3 to 30        withheld: below 3

    With thirty errors, the true rate is within 30 % of the observed one with 90 % confidence. If fewer than three
    errors are expected, the chance to see none is above 5 %, so the observed rate cannot distinguish `far` from 0.

    George R. Doddington, Mark A. Przybocki, Alvin F. Martin, Douglas A. Reynolds, "The NIST speaker recognition
    evaluation – overview, methodology, systems, results, perspective", Speech Communication 31, 2000,
    https://doi.org/10.1016/S0167-6393(99)00080-1.

    Args:
        far: false match rate in (0, 1].
        impostors: number of impostor pairs, ≥ 1.

    >>> rule_of_30(0.01, impostors=500)
    RuleOf30(mark='uncertain', expected=5.0, needed=3000, shown_from=300)
    """
    far = check_number("far", far, low=0, high=1, open_low=True)
    impostors = check_integer("impostors", impostors, low=1)
    # Rounded, because .0003 · 100,000 is 29.999… in binary but must count as 30.
    expected = float(f"{far * impostors:.12g}")
    needed, shown_from = (math.ceil(float(f"{errors / far:.12g}")) for errors in (30, 3))
    mark = "plain" if expected >= 30 else "uncertain" if expected >= 3 else "withheld"
    return RuleOf30(mark, expected, needed, shown_from)


def tar_note(rule, threshold):
    """What a table says beside a TAR at `threshold`; `rule` has the attributes of `RuleOf30`."""
    if rule.mark == "withheld":
        return f"needs {rule.shown_from:,} impostor pairs, {rule.needed:,} for a reliable figure"
    uncertain = f"uncertain: reliable from {rule.needed:,} impostor pairs; " if rule.mark == "uncertain" else ""
    return f"{uncertain}at threshold {threshold:.6g}"


def in_words(threshold, fmr, fnmr):
    """What a threshold does, as a sentence: how many of 100 genuine and of 100 impostor pairs it accepts.

    The sentence counts out of 1,000, 10,000, … pairs if a rate is below one in a hundred.

    >>> in_words(-0.61, fmr=0.13, fnmr=0.1304)
    'At threshold -0.61: of 100 genuine pairs 87 are accepted; of 100 impostor pairs 13 are accepted.'
    >>> in_words(0.9, fmr=0.0012, fnmr=0)
    'At threshold 0.9: all genuine pairs are accepted; of 1,000 impostor pairs 1 is accepted.'
    """

    def of_some(kind, accepted):
        if accepted in (0, 1):
            return f"{'all' if accepted else 'no'} {kind} pairs are accepted"
        some = 100
        while not 0 < round(accepted * some) < some:
            some *= 10
        count = round(accepted * some)
        return f"of {some:,} {kind} pairs {count:,} {'is' if count == 1 else 'are'} accepted"

    return f"At threshold {threshold:.6g}: {of_some('genuine', 1 - fnmr)}; {of_some('impostor', fmr)}."


def of_negatives(threshold, what):
    """What a threshold accepts if scores are the negative of what a model gives, its "distance" or "output".

    >>> of_negatives(-0.61, "distance")
    'The score is −distance: a pair is accepted if its distance is at most 0.61.'
    """
    return f"The score is −{what}: a pair is accepted if its {what} is at most {-threshold:.6g}."


def rule_of_3(pairs: int) -> float:
    """Upper bound in (0, 1] of the true error rate, with 95 % confidence, if no error was seen among this many pairs.

        (1 − p)ⁿ ≥ .05,  hence  p < 3 / n

    James A. Hanley, Abby Lippman-Hand, "If nothing goes wrong, is everything all right? Interpreting zero numerators",
    Journal of the American Medical Association 249, 1983, https://doi.org/10.1001/jama.1983.03330370053031.

    Args:
        pairs: number of independent pairs without an error, ≥ 1.

    >>> rule_of_3(3000)
    0.001
    """
    return min(1.0, 3 / check_integer("pairs", pairs, low=1))


def best_accuracy_floor(genuines: int, impostors: int, quantile: float = 0.99) -> float:
    """Accuracy that `best_accuracy` reaches on pure noise: a quantile of its distribution for random scores.

    Lower the threshold step by step from reject-all: each genuine pair adds a correct decision, each impostor pair
    takes one away. This is a walk of G steps up and I steps down in random order. Its maximum M gives the best
    accuracy, (I + M) / (G + I). By the reflection principle

        P(M ≥ m) = C(G + I, I + m) / C(G + I, I),   m ≥ max(0, G − I)

    which is exact for scores without ties (ties only lower M). With G = I it is the one-sided Kolmogorov–Smirnov law.

    William Feller, "An introduction to probability theory and its applications", volume 1, third edition, Wiley, 1968,
    chapter III.

    Args:
        genuines, impostors: numbers of pairs G and I, ≥ 1.
        quantile: in (0, 1).

    Returns:
        A float: the smallest accuracy that noise exceeds with probability at most 1 − quantile. It is at least the
        share of the larger class.

    >>> [round(best_accuracy_floor(n // 2, n // 2), 3) for n in (100, 1000, 6000)]
    [0.65, 0.547, 0.519]
    """
    genuines, impostors = check_integer("genuines", genuines, low=1), check_integer("impostors", impostors, low=1)
    quantile = check_number("quantile", quantile, low=0, high=1, open_low=True, open_high=True)
    pairs = genuines + impostors

    def log_choose(up):
        return math.lgamma(pairs + 1) - math.lgamma(up + 1) - math.lgamma(pairs - up + 1)

    allowed = log_choose(impostors) + math.log1p(-quantile)
    # The least m with P(M ≥ m + 1) ≤ 1 − quantile: P falls with m, and is 0 for m = G.
    low = max(0, genuines - impostors)
    m = bisect_left(range(genuines), True, low, key=lambda m: log_choose(impostors + m + 1) <= allowed)
    return (impostors + m) / pairs


def auc_floor(genuines: int, impostors: int, quantile: float = 0.99) -> float:
    """AUC in [0, 1] that pure noise reaches: a quantile of its normal approximation for random scores.

        ½ + z · √((G + I + 1) / (12 · G · I))

    Henry B. Mann, Donald R. Whitney, "On a test of whether one of two random variables is stochastically larger than
    the other", Annals of Mathematical Statistics 18, 1947, https://doi.org/10.1214/aoms/1177730491.

    Args:
        genuines, impostors: numbers of pairs G and I, ≥ 1.
        quantile: in (0, 1); with a small quantile an AUC below the result shows inverted scores.

    >>> round(auc_floor(500, 500), 4)
    0.5425
    """
    genuines, impostors = check_integer("genuines", genuines, low=1), check_integer("impostors", impostors, low=1)
    z = NormalDist().inv_cdf(check_number("quantile", quantile, low=0, high=1, open_low=True, open_high=True))
    deviation = math.sqrt((genuines + impostors + 1) / (12 * genuines * impostors))
    return min(1.0, max(0.0, 0.5 + z * deviation))
