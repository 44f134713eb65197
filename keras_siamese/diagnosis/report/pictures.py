"""The report's pictures: matplotlib figures of a `Diagnosis`, and thumbnails of samples.

Contract: a function draws into the figure that it is given. Text from the user is never written into a picture, because
matplotlib reads "$" as mathematics and lacks many letters; the page shows names beside it. Needs the extra `report`.

    svg(lambda figure: draw_curves(figure, diagnosis))
    thumbnails(trials.items, [3, 17])                # {3: "data:image/png;base64,…", 17: …}
"""

import base64
import io

import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_installed
from keras_siamese.data.sources import named_arrays
from keras_siamese.diagnosis.facts.references import references_of
from keras_siamese.diagnosis.report.panels import lines_of, panel_of

LOSS, EER, AUC, FLAG, GREY = "#444444", "#d62728", "#1f77b4", "#ffe08a", "#bbbbbb"
ALARMS = {"error": "#b71c1c", "warning": "#c77700"}
MAX_POINTS = 600
LEAST_RANGE = 0.05  # of an axis of losses, as a share of the largest
MAX_COLOURED = 10
MAX_PIXELS = 128  # of a thumbnail's longer side


def draw_curves(figure, diagnosis, columns=4):
    """Draw training loss, held-out EER and AUC over epochs; flagged ones are shaded, the leading causes are named.

    They are drawn over training steps if the run was flagged within an epoch.

    Args:
        figure: the matplotlib `Figure`.
        diagnosis: a `Diagnosis` with a history.
        columns: number of columns of the legend.
    """
    places, unit, history = diagnosis.observed.timeline
    places = np.array(places, float)
    half = np.diff(places).min() / 2 if len(places) > 1 else 0.5
    edges = np.concatenate([[places[0] - half], (places[1:] + places[:-1]) / 2, [places[-1] + half]])
    axes = figure.subplots()
    for number, flag in enumerate(diagnosis.flags):
        label = "flagged" if number == 0 else None
        axes.axvspan(*edges[flag.epoch : flag.epoch + 2], color=FLAG, alpha=0.7, linewidth=0, label=label)
    axes.plot(places, history["loss"], color=LOSS, label="training loss", marker="." if len(places) == 1 else None)
    axes.set(xlabel=unit, ylabel="training loss", xlim=(edges[0], edges[-1]), ylim=range_of_losses(history["loss"]))
    axes.xaxis.get_major_locator().set_params(integer=True)
    right = axes.twinx()
    for name, colour, label in (("eer", EER, "held-out EER"), ("auc", AUC, "held-out AUC")):
        curve, error = np.array(history[name], float), np.nan_to_num(np.array(history[f"{name}_se"], float))
        measured = np.isfinite(curve)  # the line connects measured epochs, also across gaps
        x, curve, error = places[measured], curve[measured], error[measured]
        right.plot(x, curve, color=colour, label=label, marker="." if len(x) < max(len(places), 2) else None)
        right.fill_between(x, curve - 2 * error, curve + 2 * error, color=colour, alpha=0.15, linewidth=0)
    right.set(ylabel="held-out EER and AUC", ylim=(0, 1))
    if diagnosis.flags:
        label_causes(right, diagnosis, edges)
    draw_references(right, references_of(diagnosis.facts))
    lines = [item for part in (axes, right) for item in zip(*part.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*lines, strict=True), loc="outside upper center", ncols=columns, frameon=False)


def range_of_losses(losses):
    """`(low, high)` of an axis for `losses`: from 0 if they vary by at least as much as the lowest is above it.

    It is at least a twentieth of the largest loss wide, so that a loss that stands still looks flat.

    >>> [round(end, 4) for end in (*range_of_losses([0.9, 0.1]), *range_of_losses([0.69, 0.6]))]
    [0.0, 0.94, 0.5955, 0.6945]
    """
    losses = np.array(losses, float)
    losses = losses[np.isfinite(losses)]
    if not losses.any():
        return 0.0, 1.0
    low, high = float(losses.min()), float(losses.max())
    apart = max(high - low, LEAST_RANGE * max(-low, high))
    margin = 0.05 * apart  # as matplotlib leaves
    if 0 <= low <= apart:
        return 0.0, high + margin
    middle, half = (low + high) / 2, apart / 2 + margin
    return middle - half, middle + half


def draw_references(axes, references):
    """Draw the EER of each reference `(name, title, EER)` as a dotted line with its title, titles one above another."""
    heights, room = [], 0.055  # of a line of text, as a share of the axis
    for _, _, eer in references:  # ascending
        heights.append(max(eer, heights[-1] + room) if heights else eer)
    for (_, title, eer), height in zip(references, heights, strict=True):
        axes.axhline(eer, color=EER, linestyle=":", linewidth=1.1)
        text = axes.text(0.995, height, f"{title} {eer:.3f}", transform=axes.get_yaxis_transform(), ha="right")
        text.set(va="bottom", color=EER, fontsize="x-small")
        text.set_bbox({"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.5})


def label_causes(axes, diagnosis, edges):
    """Write the leading causes beside the first flagged epoch, on the side with more room; `edges` are the epochs'."""
    first = edges[diagnosis.flags[0].epoch]
    is_late = first - edges[0] > 0.55 * (edges[-1] - edges[0])
    gap = (edges[-1] - edges[0]) / (len(edges) - 1) / 10
    axes.text(
        first + (-gap if is_late else gap),
        0.97,
        "\nor ".join(finding.cause.replace("_", " ") for finding in diagnosis.leading) or "no cause found",
        transform=axes.get_xaxis_transform(),
        ha="right" if is_late else "left",
        va="top",
        weight="bold",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
    )


def draw_scores(figure, observed):
    """Draw histograms of the scores with up to three thresholds: of the EER, the most accurate, and the one in use."""
    same, scores = observed.valid.same, observed.valid.scores
    thresholds = {"EER": verification.eer_point(same, scores).threshold, "most accurate": observed.valid.accuracy[1]}
    if observed.threshold is not None:
        thresholds["in use"] = observed.threshold
    verification.plot_scores(figure.subplots(), same, scores, thresholds)


def draw_health(figure, name, observed):
    """Draw a health curve over epochs with its limits and references; the side that is a warning or error is tinted."""
    curve, panel = np.array(observed.history[name], float), panel_of(name)
    epochs = np.arange(1, len(curve) + 1)
    shown = np.isfinite(curve) & ((curve > 0) | (not panel.logarithmic))
    figure.set_layout_engine("none")  # the small figures are all alike, and a layout for each would double the time
    axes = figure.subplots(gridspec_kw={"left": 0.21, "right": 0.97, "bottom": 0.22, "top": 0.96})
    axes.plot(epochs[shown], curve[shown], color=AUC, marker="." if shown.sum() < max(len(curve), 2) else None)
    if panel.logarithmic:
        axes.set_yscale("log")
    lines = lines_of(name, observed)
    for line in lines:
        colour = ALARMS.get(line.name, LOSS)
        style = "--" if line.name in ALARMS else ":"
        axes.axhline(line.value, color=colour, linestyle=style, linewidth=1.1, label=f"{line.name} {line.value:.3g}")
    low, high = axes.get_ylim()
    for line in lines:
        if line.name in ALARMS and panel.better is not None:
            end = high + (high - low) if panel.better == "lower" else low - (high - low)
            axes.axhspan(line.value, end, color=ALARMS[line.name], alpha=0.07, linewidth=0)
    axes.set(xlim=(0.5, len(curve) + 0.5), ylim=(low, high), xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(labelsize="small")
    if lines:
        axes.legend(frameon=False, fontsize="x-small", loc="upper right")


def draw_embeddings(figure, valid):
    """Draw the first two principal components; the ten largest identities are coloured, the others grey."""
    centred = valid.embeddings - valid.embeddings.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:2]
    points = centred @ components.T
    axes = figure.subplots()
    identities = valid.trials.identities
    shown = np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]
    axes.scatter(*points[shown].T, s=7, color=GREY)
    if identities is not None:
        largest = np.argsort(-np.bincount(identities), kind="stable")[:MAX_COLOURED]
        for identity in largest:
            axes.scatter(*points[identities == identity][:60].T, s=14)
    axes.set(xlabel="first principal component", ylabel="second principal component", xticks=[], yticks=[])


def thumbnails(items, rows):
    """PNG pictures of the items at `rows`, as data URIs by row, on a common scale; empty if the items are not images.

    Of a dict of samples, the first part that holds images is shown: `(n, height, width)` or
    `(n, height, width, channels)` with 1, 3 or 4 channels; the fourth channel is left out.
    """
    leaves = [leaf for _, leaf in named_arrays("x", items) if is_images(leaf)]
    rows = sorted({int(row) for row in rows})
    if not leaves or not rows:
        return {}
    pictures = np.asarray(leaves[0][np.array(rows)]).astype(float)
    pictures = pictures[..., None] if pictures.ndim == 3 else pictures[..., :3]
    low, high = pictures.min(), pictures.max()
    pictures = (pictures - low) / (high - low or 1.0)
    return {row: png(picture) for row, picture in zip(rows, pictures, strict=True)}


def is_images(leaf):
    """Whether an array, or a lazily read source, holds images: numbers of shape `(n, height, width[, 1, 3 or 4])`."""
    shape = leaf.shape
    return (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))) and min(shape) > 0 and leaf.dtype != object


def png(picture):
    """A data URI of a picture `(height, width, 1 or 3)` of floats in [0, 1], reduced by a whole factor if large."""
    image = check_installed("PIL.Image", "report")  # comes with matplotlib
    height, width, _ = picture.shape
    colours = np.broadcast_to(np.round(picture * 255).astype(np.uint8), (height, width, 3))
    buffer = io.BytesIO()
    reduced = image.fromarray(np.ascontiguousarray(colours)).reduce(-(-max(height, width) // MAX_PIXELS))
    reduced.save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
