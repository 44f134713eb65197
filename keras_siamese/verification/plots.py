"""Plots of verification: each a function that draws on a matplotlib `Axes` and returns it.

Contract: labels `(n,)` and scores `(n,)`, larger = more similar, in. The functions use only the caller's `Axes`;
this module does not import matplotlib.

    figure, axes = matplotlib.pyplot.subplots(1, 2)
    plot_scores(axes[0], same, scores, thresholds={"calibrated": -0.4})
    plot_roc(axes[1], same, scores, left, right)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any, Literal

import numpy as np

from keras_siamese._checks import check_choice, check_integer
from keras_siamese._types import ArrayLike, Axes, Source
from keras_siamese.verification.curves import det, eer, roc
from keras_siamese.verification.intervals import bootstrap
from keras_siamese.verification.pairs import balanced_weights, check_identities, check_pairs

GENUINE, IMPOSTOR, INK = "#1f77b4", "#d62728", "#444444"


def plot_scores(
    axes: Axes, same: ArrayLike, scores: ArrayLike, thresholds: Mapping[str, float] | None = None, bins: int = 60
) -> Axes:
    """Histograms of genuine and impostor scores, each with area 1, and vertical lines at thresholds.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        thresholds: dict from a name to the score to mark.
        bins: number of bins.
    """
    same, scores = check_pairs(same, scores)
    edges = np.histogram_bin_edges(scores, bins)
    axes.hist(scores[~same], edges, density=True, color=IMPOSTOR, alpha=0.55, label="impostor")
    axes.hist(scores[same], edges, density=True, color=GENUINE, alpha=0.55, label="genuine")
    for style, (name, threshold) in zip(cycle(("-", "--", ":")), (thresholds or {}).items(), strict=False):
        axes.axvline(threshold, color=INK, linestyle=style, linewidth=1.2, label=f"{name} {threshold:.3g}")
    axes.fmt_ydata = "density {:.3g}".format
    axes.set(xlabel="score (larger = more similar)", ylabel="density")
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return axes


def plot_roc(
    axes: Axes,
    same: ArrayLike,
    scores: ArrayLike,
    left: ArrayLike | None = None,
    right: ArrayLike | None = None,
    seed: int = 0,
) -> Axes:
    """ROC curve: TAR over FMR on a logarithmic axis, with chance level and EER.

    It starts at the smallest FMR that the rule of 30 allows, that of 30 false accepts.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        left, right: `(n,)` identities of both sides; if given, the band of the TAR's 95 % intervals is drawn.
        seed: integer ≥ 0 for the resamples of the intervals.
    """
    same, scores = check_pairs(same, scores)
    fmr, tar, _ = roc(same, scores)
    first = first_rate(same)
    grid = np.geomspace(first, 1, 200)
    # The largest TAR among the points whose FMR is at most that of the grid, so the curve is never too high.
    axes.plot(grid, tar[np.searchsorted(fmr, grid, side="right") - 1], color=GENUINE, label="model")
    if check_identities(left, right, len(same)) is not None:
        rates = np.geomspace(first, 1, 25)
        band = bootstrap([("tar_at_far", rate) for rate in rates], same, scores, left, right, seed=seed).values()
        low, high = ([getattr(interval, end) for interval in band] for end in ("low", "high"))
        axes.fill_between(rates, low, high, color=GENUINE, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(grid, grid, color=INK, linestyle=":", linewidth=1, label="chance")
    rate = eer(same, scores)
    if rate > first:
        axes.plot([rate], [1 - rate], "o", color=INK, markersize=5, label=f"EER {rate:.3f}")
    axes.set(xscale="log", xlabel="false match rate", ylabel="true accept rate", xlim=(first, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return axes


def first_rate(same):
    """The smallest false match rate that the rule of 30 allows a curve to show."""
    return min(30 / np.count_nonzero(~same), 0.5)


# Tick marks of an axis of normal deviates, in percent.
MARKS = np.array([0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60])


def plot_det(axes: Axes, same: ArrayLike, scores: ArrayLike) -> Axes:
    """DET curve: FNMR over FMR on normal-deviate axes, on which normally distributed scores give a straight line.

    It ends where fewer than 30 errors of either kind remain. If that is so at all thresholds, a note takes its place.

    Alvin Martin, George Doddington, Terri Kamm, Mark Ordowski, Mark Przybocki, "The DET curve in assessment of
    detection task performance", Eurospeech 1997, https://doi.org/10.21437/Eurospeech.1997-504.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
    """
    from scipy.special import ndtr, ndtri

    same, scores = check_pairs(same, scores)
    fmr, fnmr, _ = det(same, scores)
    first = first_rate(same), first_rate(~same)
    shown = (fmr >= first[0]) & (fnmr >= first[1])
    axes.plot(ndtri(fmr[shown]), ndtri(fnmr[shown]), color=GENUINE, label="model")
    if not shown.any():
        note = "too few pairs: no threshold has\n30 errors of each kind"
        axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center")
    limits = [ndtri((min(rate, 0.4), 0.6)) for rate in first]
    rate = eer(same, scores)
    if max(first) < rate < 0.6:
        axes.plot([ndtri(rate)], [ndtri(rate)], "o", color=INK, markersize=5, label=f"EER {rate:.3f}")
    diagonal = [max(low for low, _ in limits), ndtri(0.6)]
    axes.plot(diagonal, diagonal, color=INK, linestyle=":", linewidth=1, label="FMR = FNMR")
    for axis, (low, high) in zip((axes.xaxis, axes.yaxis), limits, strict=True):
        marks = MARKS[(ndtri(MARKS / 100) >= low) & (ndtri(MARKS / 100) <= high)]
        axis.set_ticks(ndtri(marks / 100), [f"{mark:g}" for mark in marks])
    axes.fmt_xdata = axes.fmt_ydata = lambda deviate: f"{100 * ndtr(deviate):.3g} %"
    axes.set(xlabel="false match rate, %", ylabel="false non-match rate, %", xlim=limits[0], ylim=limits[1])
    axes.legend(frameon=False, fontsize="small", loc="upper right")
    return axes


def plot_reliability(axes: Axes, same: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> Axes:
    """Reliability diagram: the share of genuine pairs over the predicted p(same); the diagonal is perfect calibration.

    Both classes have equal weight. Each bin holds the same number of pairs, and the area of its mark shows its share of
    the weight.

    Allan H. Murphy, Robert L. Winkler, *Reliability of Subjective Probability Forecasts of Precipitation and
    Temperature*, Applied Statistics 26, 1977, https://doi.org/10.2307/2346866.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same: `(n,)` labels, 1 genuine, 0 impostor.
        probabilities: `(n,)` p(same) in [0, 1], of pairs that were not used for the calibration.
        bins: number of bins.
    """
    same, probabilities = check_pairs(same, probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        found = f"[{probabilities.min():g}, {probabilities.max():g}]"
        hint = "Convert scores to probabilities with `platt` or `isotonic`"
        raise ValueError(f"`probabilities` must be in [0, 1]; got {found}. {hint}")
    weight = balanced_weights(same)
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, check_integer("bins", bins, low=1) + 1)))
    place = np.clip(np.searchsorted(edges, probabilities, side="right") - 1, 0, max(len(edges) - 2, 0))
    sums = [np.bincount(place, weight * values) for values in (1.0, probabilities, same)]
    total, stated, genuine = (column[sums[0] > 0] for column in sums)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1, label="calibrated")
    axes.plot(stated / total, genuine / total, color=GENUINE, linewidth=1)
    axes.scatter(stated / total, genuine / total, s=30 + 300 * total, color=GENUINE, alpha=0.7, label="bins of pairs")
    axes.set(xlabel="stated p(same)", ylabel="share of genuine pairs", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return axes


def plot_errors(
    axes: Axes,
    same: ArrayLike,
    scores: ArrayLike,
    left: Source,
    right: Source,
    kind: Literal["accept", "reject"] = "accept",
    *,
    names: tuple[Any, Any] | None = None,
    count: int = 5,
) -> Axes:
    """The worst false accepts or false rejects as pairs of pictures, with their scores and identities.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same, scores: labels `(n,)`, 1 genuine, 0 impostor, and finite scores `(n,)`, larger = more similar.
        left, right: images `(n, height, width)` or `(n, height, width, channels)` of 1, 3 or 4 channels, whole
            numbers in [0, 255] or floats in [0, 1] or [0, 255]; anything that can be indexed by an array of rows.
        kind: "accept" for the impostor pairs with the highest scores, "reject" for the genuine pairs with the lowest.
        names: `(left, right)` identities of both sides, `(n,)` each, shown below the pictures.
        count: largest number of pairs.
    """
    check_choice("kind", kind, ("accept", "reject"))
    same, scores = check_pairs(same, scores)
    rows = np.flatnonzero(~same if kind == "accept" else same)
    order = np.argsort(-scores[rows] if kind == "accept" else scores[rows], kind="stable")
    rows = rows[order[: check_integer("count", count, low=1)]]
    for column, row in enumerate(rows):
        for line, side in enumerate((left, right)):
            picture = as_picture(side[[row]])
            axes.imshow(picture, extent=(column, column + 0.95, -line - 0.95, -line), cmap="gray", vmin=0, vmax=1)
        below = f"{scores[row]:.3g}"
        if names is not None:
            below += f"\n{names[0][row]}\n{names[1][row]}"
        axes.text(column + 0.475, -2.0, below, ha="center", va="top", fontsize="x-small", color=INK)
    axes.set(xlim=(0, len(rows)), ylim=(-2.7, 0), title=f"worst false {kind}s")
    axes.set_aspect("equal")
    axes.axis("off")
    return axes


def as_picture(batch):
    """One image `(1, height, width[, channels])` as floats in [0, 1], without the batch axis and a single channel."""
    batch = np.asarray(batch)
    if batch.ndim not in (3, 4) or (batch.ndim == 4 and batch.shape[3] not in (1, 3, 4)):
        wanted = "images (n, height, width), or (n, height, width, channels) with 1, 3 or 4 channels"
        raise ValueError(f"`left` and `right` must be {wanted}; got {('n', *batch.shape[1:])}")
    picture = batch[0].astype(float)
    picture = picture / 255 if batch.dtype.kind in "iu" or picture.max(initial=0) > 1 else picture
    return np.clip(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture, 0, 1)
