"""The report: a `Diagnosis` as one self-contained HTML page.

Contract: as of `verification.pages`, which it is made with. Needs the extra `report` (matplotlib, jinja2).

    html = render(diagnosis)
"""

import numpy as np

from keras_siamese import verification
from keras_siamese.verification.pages import svg, template

LOSS, EER, AUC, FLAG = "#444444", "#d62728", "#1f77b4", "#ffe08a"
MAX_POINTS = 600
MAX_COLOURED = 10
WORST = 6


def render(diagnosis):
    """The HTML page `(str)` of a `Diagnosis`."""
    facts = diagnosis.to_dict()
    return template("keras_siamese.diagnosis", "report.html.jinja").render(
        diagnosis=diagnosis,
        findings=[(finding, signal_lines(finding.evidence)) for finding in diagnosis.findings],
        ruled_out=[(answer.cause, signal_lines(answer.evidence)) for answer in diagnosis.ruled_out],
        verification=facts["verification"],
        settings=flatten(facts["settings"]),
        versions=facts["versions"],
        pictures=pictures(diagnosis),
    )


def signal_lines(signals):
    return [signal.line(name) for name, signal in signals.items()]


def flatten(settings, prefix=""):
    """Nested settings as `(name, value)` rows, without those that are None."""
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += flatten(value, f"{prefix}{name}.")
        elif value is not None:
            rows.append((f"{prefix}{name}", value))
    return rows


def pictures(diagnosis):
    """`(title, alternative text, data URI)` of each picture that the evidence allows."""
    evidence = diagnosis.evidence
    valid = evidence.valid
    drawn = []
    if evidence.epoch is not None:
        text = "Training loss with held-out EER and AUC over epochs"
        drawn.append(("Loss and verification", text, svg(lambda figure: draw_curves(figure, diagnosis), (9, 3.6))))
    drawn.append(("Scores", "Histograms of genuine and impostor scores", svg(lambda f: draw_scores(f, evidence))))
    text = "ROC curve on a logarithmic axis"
    drawn.append(("ROC", text, svg(lambda f: verification.plot_roc(f.subplots(), valid.same, valid.scores))))
    if valid.embeddings.shape[1] > 1:
        text = "Held-out embeddings on their first two principal components"
        drawn.append(("Embeddings", text, svg(lambda figure: draw_embeddings(figure, valid))))
    if is_images(valid.trials.items):
        text = "Impostor pairs with the highest and genuine pairs with the lowest scores"
        drawn.append(("Worst pairs", text, svg(lambda figure: draw_worst(figure, valid), (9, 3.2))))
    return drawn


def draw_curves(figure, diagnosis):
    history = diagnosis.evidence.history
    epochs = np.arange(1, len(history["loss"]) + 1)
    axes = figure.subplots()
    for number, flag in enumerate(diagnosis.flags):
        label = "flagged" if number == 0 else None
        axes.axvspan(flag.epoch + 0.5, flag.epoch + 1.5, color=FLAG, alpha=0.7, linewidth=0, label=label)
    if diagnosis.flags and diagnosis.findings:
        first = diagnosis.flags[0].epoch + 0.6
        cause = diagnosis.findings[0].cause.replace("_", " ")
        axes.text(first, 0.97, cause, transform=axes.get_xaxis_transform(), va="top", weight="bold")
    axes.plot(epochs, history["loss"], color=LOSS, label="training loss")
    axes.set(xlabel="epoch", ylabel="training loss", xlim=(0.5, len(epochs) + 0.5))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    right = axes.twinx()
    for name, colour, label in (("eer", EER, "held-out EER"), ("auc", AUC, "held-out AUC")):
        curve, error = np.array(history[name], float), np.nan_to_num(np.array(history[f"{name}_se"], float))
        measured = np.isfinite(curve)  # the others would tear the line
        at, curve, error = epochs[measured], curve[measured], error[measured]
        right.plot(at, curve, color=colour, label=label, marker="." if len(at) < len(epochs) else None)
        right.fill_between(at, curve - 2 * error, curve + 2 * error, color=colour, alpha=0.15, linewidth=0)
    right.set(ylabel="held-out EER and AUC", ylim=(0, 1))
    lines = [item for part in (axes, right) for item in zip(*part.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*lines, strict=True), loc="outside upper center", ncols=len(lines), frameon=False)


def draw_scores(figure, evidence):
    valid = evidence.valid
    thresholds = {"best" if evidence.threshold is not None else "threshold": valid.accuracy[1]}
    if evidence.threshold is not None:
        thresholds["in use"] = evidence.threshold
    verification.plot_scores(figure.subplots(), valid.same, valid.scores, thresholds)


def draw_embeddings(figure, valid):
    """First two principal components; the largest ten identities in colour, the rest in grey."""
    centred = valid.embeddings - valid.embeddings.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:2]
    points = centred @ components.T
    axes = figure.subplots()
    identities = valid.trials.identities
    shown = np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]
    axes.scatter(*points[shown].T, s=7, color="#bbbbbb")
    if identities is not None:
        largest = np.argsort(np.bincount(identities), kind="stable")[::-1][:MAX_COLOURED]
        for identity in largest:
            axes.scatter(*points[identities == identity][:60].T, s=14)
    axes.set(xlabel="first principal component", ylabel="second", xticks=[], yticks=[])


def is_images(items):
    return not isinstance(items, dict) and items.ndim in (3, 4) and (items.ndim == 3 or items.shape[-1] in (1, 3))


def draw_worst(figure, valid):
    """Thumbnails of the impostor pairs scored highest and the genuine pairs scored lowest, with their scores."""
    trials = valid.trials
    worst = {
        "false accepts": np.flatnonzero(~trials.same)[np.argsort(-valid.scores[~trials.same], kind="stable")[:WORST]],
        "false rejects": np.flatnonzero(trials.same)[np.argsort(valid.scores[trials.same], kind="stable")[:WORST]],
    }
    grid = figure.subplots(2, WORST, squeeze=False)
    pictures = {
        pair: np.concatenate([trials.items[side[pair]] for side in (trials.left, trials.right)], axis=1).astype(float)
        for pairs in worst.values()
        for pair in pairs
    }
    low = min(picture.min() for picture in pictures.values())
    high = max(picture.max() for picture in pictures.values())
    for row, (title, pairs) in enumerate(worst.items()):
        for axes, pair in zip(grid[row], pairs, strict=False):
            picture = (pictures[pair] - low) / (high - low or 1.0)
            axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
            axes.set_title(f"score {valid.scores[pair]:.3g}", fontsize="small")
            axes.axvline(picture.shape[1] / 2 - 0.5, color="white", linewidth=1.5)
        for axes in grid[row]:
            axes.set_axis_off()
        figure.text(0.005, 0.97 - 0.5 * row, title, fontsize="medium", weight="bold", va="top")
