"""The report: a `Diagnosis` as one self-contained HTML page.

Contract: that of `verification.pages`, which makes the page: pictures are embedded, nothing is loaded from the network,
and every name is escaped. What is missing (a history, identities, images) is left out. Needs the extra `report`.

    html = render(diagnosis)
"""

import numpy as np

from keras_siamese import verification
from keras_siamese.diagnosis.report.errors import identity_errors, worst_pairs
from keras_siamese.diagnosis.report.panels import panel_of
from keras_siamese.diagnosis.report.pictures import (
    draw_curves,
    draw_embeddings,
    draw_health,
    draw_scores,
    thumbnails,
)
from keras_siamese.verification.pages import svg, template

NO_HEALTH = ("loss", "auc", "eer", "auc_se", "eer_se")  # drawn in the figure of loss and verification
LISTED = 15  # number of identities that are listed
LONGEST = 40  # number of characters of a name that are shown


def render(diagnosis):
    """The HTML page `(str)` of a `Diagnosis`."""
    facts, evidence = diagnosis.to_dict(), diagnosis.run
    threshold = facts["errors"]["threshold"]
    page = template("keras_siamese.diagnosis.report", "report.html.jinja")
    return page.render(
        diagnosis=diagnosis,
        cut=cut,
        findings=[(finding, signal_cells(finding.evidence)) for finding in diagnosis.findings],
        ruled_out=[(answer.cause, signal_cells(answer.evidence)) for answer in diagnosis.ruled_out],
        verification=facts["verification"],
        threshold=threshold,
        curves=curves(diagnosis),
        pictures=pictures(evidence),
        health=health(evidence),
        wrong=wrong_pairs(evidence.valid, threshold),
        identities=identities(evidence.valid, threshold),
        settings=flatten(facts["settings"]),
        versions=facts["versions"],
    )


def cut(text):
    """`text`, with its middle left out if it has more than `LONGEST` characters."""
    text = str(text)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[-half:]}"


def signal_cells(signals):
    """The rows `(name, value, interval, threshold, null)` of a table of `Signal`s, as text."""

    def number(value):
        return "" if value is None else f"{value:.4g}"

    return [
        (
            name.replace("_", " "),
            number(signal.value),
            "" if signal.low is None else f"{number(signal.low)} to {number(signal.high)}",
            number(signal.threshold),
            number(signal.null),
        )
        for name, signal in signals.items()
    ]


def flatten(settings, prefix=""):
    """Nested settings as `(name, value)` rows, without those that are None."""
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += flatten(value, f"{prefix}{name}.")
        elif value is not None:
            rows.append((f"{prefix}{name}", value))
    return rows


def curves(diagnosis):
    """Loss and verification over epochs as data URIs, a wide and a narrow picture; None without a history."""
    if diagnosis.run.epoch is None:
        return None
    wide = svg(lambda figure: draw_curves(figure, diagnosis), (9, 3.6))
    return wide, svg(lambda figure: draw_curves(figure, diagnosis, columns=2), (4.4, 4.2))


def pictures(evidence):
    """`(title, what to look at, alternative text, data URI)` of each picture of the held-out pairs and embeddings."""
    valid = evidence.valid
    pairs = valid.same, valid.scores
    drawn = [
        (
            "Scores",
            "The less the two histograms overlap, the better the model tells identities apart.",
            "Histograms of genuine and impostor scores",
            svg(lambda figure: draw_scores(figure, evidence)),
        ),
        (
            "ROC",
            "The higher the curve at a small false match rate, the better; the dotted line is chance.",
            "ROC curve",
            svg(lambda figure: verification.plot_roc(figure.subplots(), *pairs)),
        ),
        (
            "DET",
            "The nearer the curve is to the lower left corner, the better; it meets the dotted line at the EER.",
            "DET curve",
            svg(lambda figure: verification.plot_det(figure.subplots(), *pairs)),
        ),
    ]
    if valid.embeddings.shape[1] > 1:
        drawn.append(
            (
                "Embeddings",
                "Points of one colour belong to one identity and should lie close together.",
                "Held-out embeddings on their first two principal components",
                svg(lambda figure: draw_embeddings(figure, valid)),
            )
        )
    return drawn


def health(evidence):
    """`(title, which direction is better, data URI)` of each health curve that was measured at least once."""
    names = [name for name in evidence.history if name not in NO_HEALTH]
    measured = [name for name in names if np.isfinite(np.array(evidence.history[name], float)).any()]
    return [
        (
            panel_of(name).title,
            panel_of(name).better,
            svg(lambda figure, name=name: draw_health(figure, name, evidence), (2.6, 1.95)),
        )
        for name in measured
    ]


def wrong_pairs(valid, threshold):
    """`(title, pairs)` of the worst false accepts and rejects; each pair with two thumbnails, None without images."""
    kinds = {f"Worst false {kind}s": worst_pairs(valid, threshold, kind) for kind in ("accept", "reject")}
    sides = [side.item for pairs in kinds.values() for pair in pairs for side in (pair.left, pair.right)]
    shown = thumbnails(valid.trials.items, sides)
    return [
        (title, [(pair, shown.get(pair.left.item), shown.get(pair.right.item)) for pair in pairs])
        for title, pairs in kinds.items()
    ]


def identities(valid, threshold):
    """`(the worst, how many have errors, how many exist)` of the `IdentityErrors`, or None without identities."""
    found = identity_errors(valid, threshold)
    if found is None:
        return None
    wrong = [one for one in found if one.false_rejects or one.false_accepts]
    return wrong[:LISTED], len(wrong), len(found)
