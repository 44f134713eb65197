"""Errors at a threshold: the worst pairs, and the number of errors that involve each identity.

Contract: `ScoredTrials` and a threshold in, plain dicts out, worst first, as `report.schema.json` describes them. A
score at the threshold is accepted. Imports `scoring` and `verification`.

    threshold = verification.eer_point(scored.same, scored.scores).threshold
    worst_pairs(scored, threshold, "accept")[0]["score"]       # of the impostor pair with the highest score
    identity_errors(scored, threshold)[0]["false_rejects"]     # of the identity with the largest share
"""

import os

import numpy as np

from keras_siamese.data.sources import Rows, named_arrays

WORST = 6  # pairs of a kind


def errors_dict(scored, threshold):
    """The threshold, the worst pairs of both kinds, and the identities with errors; None without identities."""
    identities = identity_errors(scored, threshold)
    return {
        "threshold": threshold,
        "false_accepts": worst_pairs(scored, threshold, "accept"),
        "false_rejects": worst_pairs(scored, threshold, "reject"),
        "identities": identities and [one for one in identities if one["false_rejects"] or one["false_accepts"]],
    }


def worst_pairs(scored, threshold, kind, count=WORST):
    """The worst errors of one kind, a list of at most `count` dicts: "score", and the items "left" and "right".

    Args:
        scored: `ScoredTrials`.
        threshold: score from which a pair is accepted.
        kind: "accept" for the impostor pairs with the highest scores, "reject" for the genuine pairs with the lowest.
    """
    same, scores, trials = scored.same, scored.scores, scored.trials
    wrong = ~same & (scores >= threshold) if kind == "accept" else same & (scores < threshold)
    pairs = np.flatnonzero(wrong)
    worst = pairs[np.argsort(-scores[pairs] if kind == "accept" else scores[pairs], kind="stable")[:count]]
    sides = {"left": trials.left, "right": trials.right}
    return [
        {"score": float(scores[pair])} | {name: item_of(trials, int(side[pair])) for name, side in sides.items()}
        for pair in worst
    ]


def item_of(trials, item):
    """An item of a pair as a dict; what is not known is None.

    It has "item", the row among the trials' items; "row", the row in the samples that the user gave (for pairs, the
    pair's number); "identity", the label as text; and "file", the path of the image.
    """
    row = None if trials.rows is None else int(trials.rows[item])
    identity = None if trials.identities is None else name_of(trials, trials.identities[item])
    return {"item": item, "row": row, "identity": identity, "file": file_of(trials.items, item)}


def name_of(trials, code):
    """The label of the identity `code` as text, or the code itself if labels are not known."""
    return str(code if trials.names is None else trials.names[code])


def file_of(items, item):
    """The path of the file that an item is read from, or None if it does not come from a file."""
    for _, leaf in named_arrays("x", items):
        paths = getattr(leaf.source, "paths", None) if isinstance(leaf, Rows) else None
        if paths is not None:
            return os.fspath(paths[item if leaf.rows is None else leaf.rows[item]])
    return None


def identity_errors(scored, threshold):
    """The errors of every identity in a pair, a list of dicts with the largest share first; None without identities.

    A pair counts for both of its identities. A dict has "identity", the label as text; "samples", the number of its
    samples that were compared; "genuine", the number of its genuine pairs, of which "false_rejects" score below the
    threshold; "impostor", the number of impostor pairs with a sample of it, of which "false_accepts" score at or above
    the threshold; and "share", how much FNMR + FMR, in [0, 2], would fall if it had no errors: false_rejects / genuine
    pairs + false_accepts / impostor pairs, of the pairs of all identities. So an identity with two samples is not first
    because of one pair.
    """
    trials = scored.trials
    if trials.identities is None:
        return None
    left, right = trials.pair_identities
    same, accepted = scored.same, scored.scores >= threshold
    identities = int(trials.identities.max()) + 1

    def count(chosen):
        apart = chosen & (left != right)
        return np.bincount(left[chosen], minlength=identities) + np.bincount(right[apart], minlength=identities)

    counts = {
        "samples": np.bincount(trials.identities, minlength=identities),
        "genuine": count(same),
        "false_rejects": count(same & ~accepted),
        "impostor": count(~same),
        "false_accepts": count(~same & accepted),
    }
    share = counts["false_rejects"] / np.count_nonzero(same) + counts["false_accepts"] / np.count_nonzero(~same)
    return [
        {"identity": name_of(trials, code)}
        | {name: int(counted[code]) for name, counted in counts.items()}
        | {"share": float(share[code])}
        for code in np.argsort(-share, kind="stable")
        if counts["genuine"][code] + counts["impostor"][code]
    ]
