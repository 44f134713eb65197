"""Identification: whose is this? Probes against a gallery of enrolled samples, the nearest first.

Contract: embeddings of a gallery, with identities or without, in; for each probe the rows of the gallery that score
highest, their scores, and which of them are accepted, out. Scores are larger for more similar pairs. The whole matrix
of scores is never held. `verifier` imports it; it imports `scoring`, `layers` and `distances`.

    gallery = verifier.enroll(x_enrolled, names)
    found = verifier.identify(x_probe, gallery, k=5)
    found.labels[:, 0], found.accepted[:, 0]              # who it is most like, and whether that is enough
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_siamese.layers import LogisticHead
from keras_siamese.scoring import score_embeddings, to_numpy

CELLS = 2**24  # of the matrix of distances at once: 64 MB


@dataclass(frozen=True, eq=False)
class Gallery:
    """Enrolled samples, embedded once; made by `Verifier.enroll`.

    Attributes:
        embeddings: `(m, dim)` float32.
        labels: `(m,)` identities, or None.
    """

    embeddings: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(repr=False)

    def __len__(self):
        return len(self.embeddings)

    def __repr__(self):
        known = "" if self.labels is None else f" of {len(np.unique(self.labels))} identities"
        return f"Gallery({len(self)} samples{known})"


class Identification(NamedTuple):
    """The gallery's best k for each of n probes, best first.

    Attributes:
        rows: `(n, k)` rows of the gallery.
        scores: `(n, k)` float32, falling.
        accepted: `(n, k)` bool, score ≥ threshold. A probe without any is of nobody in the gallery.
        labels: `(n, k)` identities of these rows, or None.
    """

    rows: np.ndarray
    scores: np.ndarray
    accepted: np.ndarray
    labels: np.ndarray | None


def nearest(siamese, probes, gallery, k):
    """Rows `(n, k)` of the `gallery` `(m, dim)` that score highest with each of the `probes` `(n, dim)`, and scores.

    Of equal scores the lower row comes first. The matrix product that finds them loses digits between near duplicates;
    the scores are the model's own, pair by pair, so a threshold decides here as it does elsewhere.
    """
    rows, scores = np.empty((len(probes), k), np.int64), np.empty((len(probes), k), np.float32)
    step = max(1, CELLS // len(gallery))
    for start in range(0, len(probes), step):
        block = slice(start, start + step)
        rows[block], scores[block] = nearest_of_block(siamese, probes[block], gallery, k)
    return rows, scores


def nearest_of_block(siamese, probes, gallery, k):
    n, m = len(probes), len(gallery)
    if siamese.head is None or isinstance(siamese.head, LogisticHead):  # the score falls as the distance grows
        distances = to_numpy(siamese.distance.pairwise(ops.convert_to_tensor(probes), ops.convert_to_tensor(gallery)))
        # A few more than asked for, as rounding may have put the last ones into another order.
        kept = min(m, k + 8)
        shortlist = smallest(distances, kept)
    else:
        shortlist = np.broadcast_to(np.arange(m), (n, m))
    both = np.concatenate([probes, gallery])
    left = np.repeat(np.arange(n), shortlist.shape[1])
    scores = score_embeddings(siamese, both, left, n + shortlist.ravel()).reshape(shortlist.shape)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(shortlist, order, axis=1), np.take_along_axis(scores, order, axis=1)


def smallest(values, count):
    """Columns `(n, count)`, rising, of the `count` smallest `values` `(n, m)` of each row; of equal ones the first."""
    last = np.partition(values, count - 1, axis=1)[:, count - 1, None]
    below, at_last = values < last, values == last
    wanted = count - np.count_nonzero(below, axis=1, keepdims=True)
    taken = below | (at_last & (np.cumsum(at_last, axis=1) <= wanted))
    return np.nonzero(taken)[1].reshape(len(values), count)
