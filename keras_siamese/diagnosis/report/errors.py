"""Errors at a threshold: the worst pairs, and the number of errors that involve each identity.

Contract: `ScoredTrials` and a threshold in, plain records out, worst first. A score at the threshold is accepted.
Imports `scoring` and `verification`.

    threshold = verification.eer_point(scored.same, scored.scores).threshold
    worst_pairs(scored, threshold, "accept")[0].score       # of the impostor pair with the highest score
    identity_errors(scored, threshold)[0].false_rejects     # of the identity with the largest share
"""

import os
from typing import NamedTuple

import numpy as np

from keras_siamese.data.sources import Rows, named_arrays

WORST = 6  # pairs of a kind


class Side(NamedTuple):
    """One item of a pair.

    Attributes:
        item: its row among the trials' items.
        row: its row in the samples that the user gave (for pairs, the pair's number), or None.
        identity: its label as text, or None.
        file: the path of the image, or None.
    """

    item: int
    row: int | None
    identity: str | None
    file: str | None


class WrongPair(NamedTuple):
    """A pair that is decided wrongly at the threshold: its score and its two `Side`s."""

    score: float
    left: Side
    right: Side


class IdentityErrors(NamedTuple):
    """The errors that involve one identity.

    Attributes:
        identity: its label as text.
        samples: number of its samples that were compared.
        genuine: number of its genuine pairs; `false_rejects` of them score below the threshold.
        impostor: number of impostor pairs with a sample of it; `false_accepts` of them score at or above the threshold.
        share: how much FNMR + FMR, in [0, 2], would fall if it had no errors.
    """

    identity: str
    samples: int
    genuine: int
    false_rejects: int
    impostor: int
    false_accepts: int
    share: float


def worst_pairs(scored, threshold, kind, count=WORST):
    """The worst errors of one kind, a list of at most `count` `WrongPair`s.

    Args:
        scored: `ScoredTrials`.
        threshold: score from which a pair is accepted.
        kind: "accept" for the impostor pairs with the highest scores, "reject" for the genuine pairs with the lowest.
    """
    same, scores = scored.same, scored.scores
    wrong = ~same & (scores >= threshold) if kind == "accept" else same & (scores < threshold)
    pairs = np.flatnonzero(wrong)
    badness = scores[pairs] if kind == "accept" else -scores[pairs]
    trials = scored.trials
    return [
        WrongPair(float(scores[pair]), side_of(trials, trials.left[pair]), side_of(trials, trials.right[pair]))
        for pair in pairs[np.argsort(-badness, kind="stable")[:count]]
    ]


def side_of(trials, item):
    """The `Side` that is the row `item` of the trials' items."""
    item = int(item)
    identity = None if trials.identities is None else name_of(trials, trials.identities[item])
    return Side(item, None if trials.rows is None else int(trials.rows[item]), identity, file_of(trials.items, item))


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
    """`IdentityErrors` of every identity in a pair, the largest share first; None without identities.

    A pair counts for both of its identities. The share is false_rejects / genuine pairs + false_accepts / impostor
    pairs, divided by the pairs of all identities: an identity with two samples is not first because of one pair.
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

    genuine, impostor, rejects, accepts = map(count, (same, ~same, same & ~accepted, ~same & accepted))
    share = rejects / np.count_nonzero(same) + accepts / np.count_nonzero(~same)
    samples = np.bincount(trials.identities, minlength=identities)
    columns = samples, genuine, rejects, impostor, accepts
    order = [code for code in np.argsort(-share, kind="stable") if genuine[code] + impostor[code]]
    return [
        IdentityErrors(name_of(trials, code), *(int(column[code]) for column in columns), float(share[code]))
        for code in order
    ]


def errors_dict(scored, threshold):
    """Both as plain dicts and lists; identities without errors are left out."""
    identities = identity_errors(scored, threshold)
    pairs = {
        f"false_{kind}s": [
            {"score": one.score, "left": one.left._asdict(), "right": one.right._asdict()}
            for one in worst_pairs(scored, threshold, kind)
        ]
        for kind in ("accept", "reject")
    }
    if identities is not None:
        identities = [one._asdict() for one in identities if one.false_rejects or one.false_accepts]
    return {"threshold": threshold, **pairs, "identities": identities}
