"""Plots of verification: each a function that draws on a matplotlib `Axes` and returns it.

Contract: labels `(n,)` and scores `(n,)`, larger = more similar, in. matplotlib comes from the caller's `Axes`;
nothing is imported here.

    figure, axes = matplotlib.pyplot.subplots(1, 2)
    plot_scores(axes[0], same, scores, thresholds={"calibrated": -0.4})
    plot_roc(axes[1], same, scores)
"""

from itertools import cycle

import numpy as np

from keras_siamese.verification.curves import eer, roc
from keras_siamese.verification.pairs import check_pairs

__all__ = ["plot_roc", "plot_scores"]

GENUINE, IMPOSTOR, INK = "#1f77b4", "#d62728", "#444444"


def plot_scores(axes, same, scores, thresholds=None, bins=60):
    """Histograms of genuine and impostor scores, each of area 1, with vertical lines at thresholds.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same: `(n,)` labels, 1 genuine, 0 impostor.
        scores: `(n,)` finite scores, larger = more similar.
        thresholds: dict from a name to the score to mark.
        bins: number of bins.
    """
    same, scores = check_pairs(same, scores)
    edges = np.histogram_bin_edges(scores, bins)
    axes.hist(scores[~same], edges, density=True, color=IMPOSTOR, alpha=0.55, label="impostor")
    axes.hist(scores[same], edges, density=True, color=GENUINE, alpha=0.55, label="genuine")
    for style, (name, threshold) in zip(cycle(("-", "--", ":")), (thresholds or {}).items(), strict=False):
        axes.axvline(threshold, color=INK, linestyle=style, linewidth=1.2, label=f"{name} {threshold:.3g}")
    axes.set(xlabel="score (larger = more similar)", ylabel="density")
    axes.legend(frameon=False, fontsize="small")
    return axes


def plot_roc(axes, same, scores):
    """TAR over FMR on a logarithmic axis, from where the rule of 30 begins (30 false accepts), with chance and EER.

    Args:
        axes: the matplotlib `Axes` to draw on; returned.
        same: `(n,)` labels, 1 genuine, 0 impostor.
        scores: `(n,)` finite scores, larger = more similar.
    """
    same, scores = check_pairs(same, scores)
    fmr, tar, _ = roc(same, scores)
    first = min(30 / np.count_nonzero(~same), 0.5)
    grid = np.geomspace(first, 1, 200)
    # The largest TAR among points whose FMR is no larger: never one whose FMR is above.
    axes.plot(grid, tar[np.searchsorted(fmr, grid, side="right") - 1], color=GENUINE, label="model")
    axes.plot(grid, grid, color=INK, linestyle=":", linewidth=1, label="chance")
    rate = eer(same, scores)
    if rate > first:
        axes.plot([rate], [1 - rate], "o", color=INK, markersize=5, label=f"EER {rate:.3f}")
    axes.set(xscale="log", xlabel="false match rate", ylabel="true accept rate", xlim=(first, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return axes
