"""Quality against error: whether samples of low quality are those that fail.

Contract: labels, scores and a quality of each pair in; the FNMR of the genuine pairs that remain if those of the lowest
quality are discarded out. Pure NumPy; anything above `distances` may import it.

    curve = error_versus_discard(same, scores, np.minimum(quality[left], quality[right]), threshold=0.6)
    plot_discard(axes, curve)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_siamese._checks import check_column, check_finite, check_number, check_reals
from keras_siamese._types import ArrayLike, Axes
from keras_siamese.verification.curves import threshold_at_far
from keras_siamese.verification.pairs import check_pairs


class DiscardCurve(NamedTuple):
    """The result of `error_versus_discard`.

    Attributes:
        discarded: `(k,)` share of the genuine pairs that is discarded, rising from 0.
        fnmr: `(k,)` FNMR of the others.
        quality: `(k,)` pairs of at least this quality remain.
        threshold: the threshold of the decisions.
    """

    discarded: np.ndarray
    fnmr: np.ndarray
    quality: np.ndarray
    threshold: float


def error_versus_discard(
    same: ArrayLike, scores: ArrayLike, quality: ArrayLike, *, threshold: float | None = None, far: float | None = None
) -> DiscardCurve:
    """The FNMR at one threshold, over the share of genuine pairs of lowest quality that is discarded.

    If the quality predicts failure, the curve falls fast. The best possible one falls to zero when as many pairs are
    discarded as are rejected. A curve that stays level shows a quality that says nothing about errors. The quality of a
    pair is usually the lower one of its two samples.

    Patrick Grother, Elham Tabassi, "Performance of biometric quality measures", IEEE Transactions on Pattern Analysis
    and Machine Intelligence 29, 2007, https://doi.org/10.1109/TPAMI.2007.1019; *error versus discard characteristic* in
    ISO/IEC 29794-1:2024.

    Args:
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        quality: `(n,)` finite quality of each pair, larger = better. Pairs of equal quality are discarded together.
        threshold: a threshold chosen on other pairs; or instead
        far: false match rate in (0, 1]: the threshold is that of these pairs at this rate.

    Returns:
        `DiscardCurve`.

    >>> same, scores = [1, 1, 1, 1, 0, 0], [0.9, 0.8, 0.2, 0.7, 0.1, 0.3]
    >>> curve = error_versus_discard(same, scores, [5, 4, 1, 3, 2, 2], threshold=0.5)
    >>> curve.discarded.tolist(), curve.fnmr.tolist()
    ([0.0, 0.25, 0.5, 0.75], [0.25, 0.0, 0.0, 0.0])
    """
    same, scores = check_pairs(same, scores)
    quality = check_reals("quality", check_column("quality", quality, "quality", "pair", len(same)))
    check_finite("quality", quality)
    if (threshold is None) == (far is None):
        raise ValueError(f"Give `threshold` or `far`, one of them; got threshold={threshold!r} and far={far!r}")
    threshold = threshold_at_far(same, scores, far) if threshold is None else check_number("threshold", threshold)
    order = np.argsort(quality[same], kind="stable")
    levels, rejected = quality[same][order], (scores[same] < threshold)[order]
    starts = np.flatnonzero(np.concatenate(([True], levels[1:] != levels[:-1])))
    remaining = len(levels) - starts
    errors = np.cumsum(rejected[::-1])[::-1][starts]
    return DiscardCurve(starts / len(levels), errors / remaining, levels[starts], float(threshold))


def plot_discard(axes: Axes, curve: DiscardCurve) -> Axes:
    """Draws a `DiscardCurve` and the best possible one on a matplotlib `Axes`, which is returned."""
    first = curve.fnmr[0]
    axes.plot(curve.discarded, curve.fnmr, color="#1f77b4", drawstyle="steps-post", label="this quality")
    share = np.linspace(0, first, 50)
    share = share[share < 1]  # no pair is left at 1
    axes.plot(share, (first - share) / (1 - share), color="#444444", linestyle=":", label="best possible")
    axes.axhline(first, color="#444444", linestyle="--", linewidth=1, label="says nothing")
    axes.set(xlabel="share of genuine pairs discarded", ylabel="false non-match rate of the others", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    return axes
