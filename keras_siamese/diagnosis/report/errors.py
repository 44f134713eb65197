"""What a threshold gets wrong: the worst pairs, and how many errors each identity has a part in.

Contract: `ScoredTrials` and a threshold in, plain records out, worst first. A pair is accepted from the threshold on.
Imports `scoring` and `verification`.

    threshold = verification.eer_point(scored.same, scored.scores).threshold
    worst_pairs(scored, threshold, "accept")[0].score       # of the impostor pair that scores highest
    identity_errors(scored, threshold)[0].false_rejects     # of the identity with the largest part in the errors
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
        row: where it is in the samples that were given, of pairs the pair's number; or None.
        identity: its label as it was given, as text; or None.
        file: the path of the image it was read from, or None.
    """

    item: int
    row: int | None
    identity: str | None
    file: str | None


class WrongPair(NamedTuple):
    """A pair that a threshold gets wrong: its score, and its `Side`s."""

    score: float
    left: Side
    right: Side


class IdentityErrors(NamedTuple):
    """The errors that one identity has a part in.

    Attributes:
        identity: the label as it was given, as text.
        samples: how many of its samples were compared.
        genuine: its genuine pairs; `false_rejects` of them score below the threshold.
        impostor: impostor pairs that it is one side of; `false_accepts` of them score at it or above.
        share: what would go from FNMR + FMR, in [0, 2], if its errors were none.
    """

    identity: str
    samples: int
    genuine: int
    false_rejects: int
    impostor: int
    false_accepts: int
    share: float


def worst_pairs(scored, threshold, kind, count=WORST):
    """The worst errors of a kind as a list of `WrongPair`s: fewer than `count`, or none, where there are no more.

    Args:
        scored: `ScoredTrials`.
        threshold: score from which a pair is accepted.
        kind: "accept" for the impostor pairs of the highest scores, "reject" for the genuine pairs of the lowest.
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
    """The label of the identity `code` as text; the code itself where labels are not known."""
    return str(code if trials.names is None else trials.names[code])


def file_of(items, item):
    """The path that an item is read from, where the samples, or a part of them, are files; else None."""
    for _, leaf in named_arrays("x", items):
        paths = getattr(leaf.source, "paths", None) if isinstance(leaf, Rows) else None
        if paths is not None:
            return os.fspath(paths[item if leaf.rows is None else leaf.rows[item]])
    return None


def identity_errors(scored, threshold):
    """`IdentityErrors` of every identity that takes part in a pair, largest share first; None without identities.

    A pair counts under both of its identities. The share is false_rejects / genuine pairs + false_accepts / impostor
    pairs, over the pairs of all: an identity of two samples cannot lead by one rejected pair.
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
    """The same as plain dicts and lists, of identities those alone that have an error."""
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
