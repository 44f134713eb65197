"""The report: a `Diagnosis` as one self-contained HTML page.

Contract: that of `verification.pages`, which makes the page: pictures are embedded, nothing is loaded from the network,
and every name is escaped. What is missing (a history, identities, images) is left out. Needs the extra `report`.

    html = render(diagnosis)
"""

import numpy as np

from keras_siamese import verification
from keras_siamese._checks import check_labels
from keras_siamese.diagnosis.facts.references import references_of
from keras_siamese.diagnosis.meanings import MEANINGS
from keras_siamese.diagnosis.report.errors import item_of
from keras_siamese.diagnosis.report.panels import panel_of
from keras_siamese.diagnosis.report.pictures import draw_curves, draw_embeddings, draw_health, draw_scores, thumbnails
from keras_siamese.diagnosis.run import ALWAYS
from keras_siamese.scoring import negated
from keras_siamese.verification.explorer import Example, explore, grouped, spread
from keras_siamese.verification.pages import curves, interactive

LISTED = 15  # number of identities that are listed
LONGEST = 40  # number of characters of a name that are shown


def render(diagnosis, groups=None):
    """The HTML page `(str)` of a `Diagnosis`; `groups` `(n,)` are those of the validation samples, or of the pairs."""
    facts, observed = diagnosis.to_dict(), diagnosis.observed
    wrong = {name: facts["errors"][name] for name in ("false_accepts", "false_rejects")}
    items = [pair[side]["item"] for pairs in wrong.values() for pair in pairs for side in ("left", "right")]
    return interactive("keras_siamese.diagnosis.report", "report.html.jinja").render(
        explorer=explorer(observed, groups),
        diagnosis=diagnosis,
        cut=cut,
        findings=[(finding, signal_cells(finding.evidence)) for finding in diagnosis.findings],
        also_possible=[(suspect, signal_cells(suspect.evidence)) for suspect in diagnosis.also_possible],
        ruled_out=[(answer.cause, signal_cells(answer.evidence)) for answer in diagnosis.ruled_out],
        verification=facts["verification"],
        threshold=facts["errors"]["threshold"],
        curves=over_epochs(diagnosis),
        pictures=pictures(observed),
        health=health(observed),
        references=references(diagnosis.facts),
        wrong=wrong,
        thumbnails=thumbnails(observed.valid.trials.items, items),
        identities=identities(observed.valid.trials, facts["errors"]["identities"]),
        settings=flatten(facts["settings"]),
        versions=facts["versions"],
    )


def explorer(observed, groups=None):
    """What the threshold in use, else that of the EER, does with the held-out pairs, and examples of them."""
    valid = observed.valid
    threshold = observed.threshold
    if threshold is None:
        threshold = verification.eer_point(valid.same, valid.scores).threshold
    trials = valid.trials
    groups = None if groups is None else groups_of_pairs(trials, groups)
    codes = None if groups is None else groups.codes
    pairs = spread(valid.same, valid.scores, codes)
    sides = np.stack([trials.left[pairs], trials.right[pairs]], axis=1)
    pictures = thumbnails(trials.items, sides.ravel())
    examples = [
        Example(
            float(valid.scores[pair]),
            bool(valid.same[pair]),
            tuple(described(item_of(trials, int(item))) for item in both),
            tuple(pictures[int(item)] for item in both) if pictures else (),
            None if codes is None else int(codes[pair]),
        )
        for pair, both in zip(pairs, sides, strict=True)
    ]
    negative = None if observed.siamese is None else negated(observed.siamese)
    return explore(valid.same, valid.scores, threshold, examples, groups, negative)


def groups_of_pairs(trials, groups):
    """The `Groups` of pairs, "a and b" for samples of two groups; `groups` are those of the user's rows.

    Raises `ValueError` if a sample has no group.
    """
    rows = np.arange(int(max(trials.left.max(), trials.right.max())) + 1) if trials.rows is None else trials.rows
    names = check_labels("groups", groups).astype(str)
    if rows.max() >= len(names):
        found = f"validation row {rows.max()} is in a pair; got {len(names)} groups"
        raise ValueError(f"`groups` must have the group of each validation sample (of each pair, for pairs): {found}")
    if np.array_equal(rows[trials.left], rows[trials.right]):  # pairs were given, with one group for both samples
        return grouped(names[rows[trials.left]], "Each pair is in the group that was given for it.")
    left, right = names[rows[trials.left]], names[rows[trials.right]]
    both = [" and ".join(sorted({one, other})) for one, other in zip(left, right, strict=True)]
    about = "A pair is in a group if both of its samples are."
    if any(one != other for one, other in zip(left, right, strict=True)):
        about += " Pairs of samples of two groups are in a group of their own, “a and b”."
    return grouped(np.array(both), about)


def described(item):
    """An item, as `errors.item_of` gives it, in a few words."""
    row = f"sample {item['item']}" if item["row"] is None else f"row {item['row']}"
    names = [cut(name) for name in (item["identity"], item["file"]) if name is not None]
    return ", ".join(names if item["file"] is not None else [*names, row])


def cut(text):
    """`text`, with its middle left out if it has more than `LONGEST` characters."""
    text = str(text)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[-half:]}"


def signal_cells(signals):
    """The rows `(name, meaning, value, interval, threshold, null)` of a table of `Signal`s, as text."""

    def number(value):
        return "" if value is None else f"{value:.4g}"

    return [
        (
            name.replace("_", " "),
            MEANINGS.get(name, ""),
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


def references(facts):
    """Rows `(title, EER, by how much the model's is higher or lower, as text)` of the references in `facts`."""
    rows = []
    for name, title, eer in references_of(facts):
        behind, error = facts[f"behind_{name}"], facts[f"behind_{name}_se"]
        beside = f"{abs(behind):.3f} {'higher' if behind > 0 else 'lower'} (standard error {error:.3f})"
        rows.append((title, eer, beside))
    return rows


def over_epochs(diagnosis):
    """The `Curves` of loss and verification over epochs, a wide and a narrow picture; None without a history."""
    if diagnosis.observed.epoch is None and not diagnosis.observed.parts:
        return None
    wide = curves(lambda figure: draw_curves(figure, diagnosis), (9, 3.6))
    return wide, curves(lambda figure: draw_curves(figure, diagnosis, columns=2), (4.4, 4.2))


def pictures(observed):
    """The pictures of the held-out pairs and embeddings, `Curves` by name; embeddings of one dimension have none."""
    valid = observed.valid
    drawn = {
        "scores": lambda figure: draw_scores(figure, observed),
        "roc": lambda figure: verification.plot_roc(figure.subplots(), valid.same, valid.scores),
        "det": lambda figure: verification.plot_det(figure.subplots(), valid.same, valid.scores),
    }
    if valid.embeddings.shape[1] > 1:
        drawn["embeddings"] = lambda figure: draw_embeddings(figure, valid)
    return {name: curves(draw) for name, draw in drawn.items()}


def health(observed):
    """`(Panel, Curves)` of each health curve that was measured at least once."""
    measured = {name: curve for name, curve in observed.history.items() if name not in ALWAYS}
    return [
        (panel_of(name), curves(lambda figure, name=name: draw_health(figure, name, observed), (2.6, 1.95)))
        for name, curve in measured.items()
        if np.isfinite(np.array(curve, float)).any()
    ]


def identities(trials, wrong):
    """`(the worst, how many have errors, how many are compared)` of the identities with errors, or None without."""
    if wrong is None:
        return None
    return wrong[:LISTED], len(wrong), len(np.unique(np.concatenate(trials.pair_identities)))
