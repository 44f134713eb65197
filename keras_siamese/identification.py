"""Identification: whose is this? Probes against a gallery of enrolled samples, the nearest first.

Contract: embeddings of a gallery, with identities or without, in; for each probe the rows of the gallery that score
highest, their scores, and which of them are accepted, out. Scores are larger for more similar pairs. The whole matrix
of scores is never held. `verifier` imports it; it imports `scoring`, `layers` and `distances`. faiss, where asked for,
finds the same rows sooner.

    gallery = verifier.enroll(x_enrolled, names)
    found = verifier.identify(x_probe, gallery, k=5)
    found.labels[:, 0], found.accepted[:, 0]              # who it is most like, and whether that is enough
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_installed
from keras_siamese.layers import LogisticHead
from keras_siamese.ops import NORM_FLOOR
from keras_siamese.scoring import score_embeddings, to_numpy

CELLS = 2**24  # of the matrix of distances at once: 64 MB
SPARE = 8  # how many more than asked for are scored, as rounding may have put the last ones into another order
BY_SQUARES = (distances.EuclideanDistance, distances.SquaredEuclideanDistance)
BY_DIRECTIONS = (distances.CosineDistance, distances.AngularDistance)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Enrolled samples, embedded once; made by `Verifier.enroll`.

    Attributes:
        embeddings: `(m, dim)` float32.
        labels: `(m,)` identities, or None.
        index: the `FaissIndex` that is searched, or None.
    """

    embeddings: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    index: object = field(default=None, repr=False)

    def __len__(self):
        return len(self.embeddings)

    def __repr__(self):
        known = "" if self.labels is None else f" of {len(np.unique(self.labels))} identities"
        return f"Gallery({len(self)} samples{known}{'' if self.index is None else ', in faiss'})"


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


def nearest(siamese, probes, gallery, k, index=None):
    """Rows `(n, k)` of the `gallery` `(m, dim)` that score highest with each of the `probes` `(n, dim)`, and scores.

    Of equal scores the lower row comes first. The matrix product that finds them loses digits between near duplicates;
    the scores are the model's own, pair by pair, so a threshold decides here as it does elsewhere. With the gallery's
    `FaissIndex` the result is the same.
    """
    rows, scores = np.empty((len(probes), k), np.int64), np.empty((len(probes), k), np.float32)
    unsure = np.arange(len(probes))
    if index is not None:
        shortlist, is_sure = index.search(probes, k)
        rows[is_sure], scores[is_sure] = best_of(siamese, probes[is_sure], gallery, shortlist[is_sure], k)
        unsure = np.flatnonzero(~is_sure)
    step = max(1, CELLS // len(gallery))
    for start in range(0, len(unsure), step):
        block = unsure[start : start + step]
        shortlist = shortlist_of_block(siamese, probes[block], gallery, k)
        rows[block], scores[block] = best_of(siamese, probes[block], gallery, shortlist, k)
    return rows, scores


def falls_with_distance(siamese):
    """Whether the score falls as the distance grows, whatever the weights."""
    return siamese.head is None or isinstance(siamese.head, LogisticHead)


def shortlist_of_block(siamese, probes, gallery, k):
    """Rows `(n, k + SPARE)` of the gallery, rising, among which are each probe's best `k`; all where none is sure."""
    if not falls_with_distance(siamese):
        return np.broadcast_to(np.arange(len(gallery)), (len(probes), len(gallery)))
    matrix = to_numpy(siamese.distance.pairwise(ops.convert_to_tensor(probes), ops.convert_to_tensor(gallery)))
    return smallest(matrix, min(len(gallery), k + SPARE))


def best_of(siamese, probes, gallery, shortlist, k):
    """The best `k` of each probe's `shortlist` `(n, c)` of rising rows of the gallery: rows `(n, k)`, and scores."""
    left = np.repeat(np.arange(len(probes)), shortlist.shape[1])
    scores = score_embeddings(siamese, probes, left, shortlist.ravel(), gallery).reshape(shortlist.shape)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(shortlist, order, axis=1), np.take_along_axis(scores, order, axis=1)


def smallest(values, count):
    """Columns `(n, count)`, rising, of the `count` smallest `values` `(n, m)` of each row; of equal ones the first."""
    last = np.partition(values, count - 1, axis=1)[:, count - 1]
    row, column = np.divmod(np.flatnonzero(values <= last[:, None]), values.shape[1])
    if len(row) > values.shape[0] * count:  # more are equal to the last than there is room for
        at_last = values[row, column] == last[row]
        order = np.lexsort((column, at_last, row))
        row, column = row[order], column[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        column = column[place < count]
    return np.sort(column.reshape(len(values), count), axis=1)


class FaissIndex:
    """A gallery in faiss's `IndexFlat`, which compares all of it, by squared Euclidean distance or inner product.

    faiss computes ‖u − v‖² as ‖u‖² + ‖v‖² − 2u·v, off by up to (dim + 16)·2⁻²³·(‖u‖² + ‖v‖²), and takes any of equal
    ones. It serves for a shortlist, and says of which probes it is sure.

    Matthijs Douze, Alexandr Guzhva, Chengqi Deng and others, "The Faiss library", 2024,
    https://arxiv.org/abs/2401.08281.

    Args:
        siamese: the `SiameseWrapper` that compares, by "euclidean", "squared_euclidean", "cosine", "angular" or
            "inner_product", without a head or with the logistic one.
        gallery: embeddings `(m, dim)` float32.

    Raises:
        ValueError: for another distance or head.
        ImportError: without the extra `faiss`.
    """

    def __init__(self, siamese, gallery):
        kind = type(siamese.distance)
        if kind not in (*BY_SQUARES, *BY_DIRECTIONS, distances.InnerProductDistance):
            raise ValueError(
                'index="faiss" needs a distance that faiss ranks by: euclidean, squared_euclidean, cosine, angular or '
                f"inner_product; got {siamese.distance!r}"
            )
        if not falls_with_distance(siamese):
            raise ValueError(
                'index="faiss" needs a score that falls as the distance grows, of no head or of the logistic one; got '
                f"the head {siamese.head.name!r}"
            )
        faiss = check_installed("faiss", "faiss")
        self.by_squares, self.by_directions = kind in BY_SQUARES, kind in BY_DIRECTIONS
        # Only differences count, and about their mean the terms that cancel are smaller.
        self.centre = gallery.mean(axis=0, dtype=np.float64).astype("float32") if self.by_squares else np.float32(0)
        points = self.points(gallery)
        self.largest = float(squares_of(points).max())
        self.flat = (faiss.IndexFlatL2 if self.by_squares else faiss.IndexFlatIP)(gallery.shape[1])
        self.flat.add(points)

    def points(self, embeddings):
        """What faiss compares of the embeddings `(n, dim)`: float32 `(n, dim)`."""
        points = embeddings.astype("float32") - self.centre
        if self.by_directions:  # as in distances.CosineDistance, a vector that short has no direction
            norms = np.sqrt(squares_of(points))[:, None]
            points = np.where(norms > NORM_FLOOR, points / np.maximum(norms, NORM_FLOOR), 0.0).astype("float32")
        return np.ascontiguousarray(points)

    def search(self, probes, k):
        """A shortlist of rows `(n, min(m, k + SPARE))`, rising, and whether `(n,)` it is sure to hold the best `k`."""
        points, count = self.points(probes), min(self.flat.ntotal, k + SPARE)
        values, rows = self.flat.search(points, count)
        squares = squares_of(points)
        size = squares + self.largest if self.by_squares else np.sqrt(squares * self.largest)
        error = (points.shape[1] + 16) * 2.0**-23 * size
        gap = np.abs(values[:, -1].astype(np.float64) - values[:, k - 1])
        return np.sort(rows, axis=1), (gap > 4 * error) | (count == self.flat.ntotal)


def squares_of(points):
    """Squared norms `(n,)` of `points` `(n, dim)`, in float64."""
    return np.einsum("nd,nd->n", points, points, dtype=np.float64)
