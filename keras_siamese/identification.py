"""Identification (1:N search): find the samples of a gallery that are most similar to each probe.

Contract: takes the embeddings of a gallery, with or without identities. Returns, for each probe, the rows of the
gallery with the highest scores, these scores, and which of them are accepted. Scores are larger for more similar pairs.
The whole matrix of scores is never in memory. With faiss the same rows are found faster. `verifier` imports this
module, which imports `scoring`, `layers` and `distances`.

    gallery = verifier.enroll(x_enrolled, names)
    found = verifier.identify(x_probe, gallery, k=5)
    found.labels[:, 0], found.accepted[:, 0]              # most similar identity, and whether it is accepted
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_installed, check_integer
from keras_siamese.layers import LogisticHead
from keras_siamese.neighbours import at_most, first_of_each
from keras_siamese.ops import NORM_FLOOR
from keras_siamese.scoring import score_embeddings, to_numpy

CELLS = 2**24  # size of a block of the distance matrix: 64 MB
SPARE = 8  # candidates beyond k that are also scored, because rounding may have changed the order near the k-th
BY_SQUARES = (distances.EuclideanDistance, distances.SquaredEuclideanDistance)
BY_DIRECTIONS = (distances.CosineDistance, distances.AngularDistance)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Enrolled samples with their embeddings. Made by `Verifier.enroll`.

    Attributes:
        embeddings: `(m, dim)` float32.
        labels: `(m,)` identities, or None.
        index: the `FaissIndex` to search, or None.
    """

    embeddings: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    index: object = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.embeddings)

    def find(
        self, siamese: Any, probes: np.ndarray, k: int, where: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows, scores and labels, `(n, k)` each, of the best `k` for the embeddings `probes` `(n, dim)`."""
        if where is not None:
            raise ValueError("`where` needs a StoredGallery; a gallery in memory has no columns to filter by")
        k = check_integer("k", k, low=1, high=len(self))
        rows, scores = nearest(siamese, probes, self.embeddings, k, self.index)
        return rows, scores, None if self.labels is None else self.labels[rows]

    def __repr__(self) -> str:
        known = "" if self.labels is None else f" of {len(np.unique(self.labels))} identities"
        return f"Gallery({len(self)} samples{known}{'' if self.index is None else ', in faiss'})"


class Identification(NamedTuple):
    """The k best matches in the gallery for each of n probes, best first.

    Attributes:
        rows: `(n, k)` rows of the gallery.
        scores: `(n, k)` float32, in descending order.
        accepted: `(n, k)` bool, score ≥ threshold. A probe with no accepted row matches nobody in the gallery.
        labels: `(n, k)` identities of these rows, or None.
    """

    rows: np.ndarray
    scores: np.ndarray
    accepted: np.ndarray
    labels: np.ndarray | None


def nearest(siamese, probes, gallery, k, index=None):
    """Find the `k` rows of the `gallery` `(m, dim)` that score highest with each of the `probes` `(n, dim)`.

    Returns rows and scores, each `(n, k)`. If scores are equal, the lower row comes first. The candidates come from a
    matrix product, which loses digits between near duplicates. Their scores are computed by the model, pair by pair, so
    a threshold decides here as in `Verifier.verify`. With a `FaissIndex` the result is the same.
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
    """Whether the score falls as a known distance grows, for all values of the weights."""
    if siamese.distance is None:
        return False
    return siamese.head is None or isinstance(siamese.head, LogisticHead)


def shortlist_of_block(siamese, probes, gallery, k):
    """Rows `(n, k + SPARE)` of the gallery, ascending, with each probe's best `k`; all rows under another head."""
    if not falls_with_distance(siamese):
        return np.broadcast_to(np.arange(len(gallery)), (len(probes), len(gallery)))
    matrix = to_numpy(siamese.distance.pairwise(ops.convert_to_tensor(probes), ops.convert_to_tensor(gallery)))
    return smallest(matrix, min(len(gallery), k + SPARE))


def best_of(siamese, probes, gallery, shortlist, k):
    """The best `k` of each probe's `shortlist` `(n, c)` of ascending gallery rows: rows `(n, k)` and their scores."""
    left = np.repeat(np.arange(len(probes)), shortlist.shape[1])
    scores = score_embeddings(siamese, probes, left, shortlist.ravel(), gallery).reshape(shortlist.shape)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(shortlist, order, axis=1), np.take_along_axis(scores, order, axis=1)


def smallest(values, count):
    """Ascending columns `(n, count)` of the `count` smallest `values` `(n, m)` in each row; the first of equal ones."""
    row, column = at_most(values, np.partition(values, count - 1, axis=1)[:, count - 1])
    order = np.lexsort((column, values[row, column], row))  # more values may equal the last one than fit
    return np.sort(first_of_each(row[order], column[order], len(values), count), axis=1)


class FaissIndex:
    """A gallery in faiss's `IndexFlat`: exhaustive search by squared Euclidean distance or inner product.

    faiss computes ‖u − v‖² as ‖u‖² + ‖v‖² − 2u·v, with an error up to (dim + 16)·2⁻²³·(‖u‖² + ‖v‖²), and returns equal
    values in any order. So it gives only a shortlist, and `search` says for which probes the shortlist is complete.

    Matthijs Douze, Alexandr Guzhva, Chengqi Deng and others, "The Faiss library", 2024,
    https://arxiv.org/abs/2401.08281.

    Args:
        siamese: the siamese model, with the distance "euclidean", "squared_euclidean", "cosine", "angular" or
            "inner_product", and no head or the logistic one.
        gallery: embeddings `(m, dim)` float32.

    Raises:
        ValueError: for another distance or head.
        ImportError: if the extra `faiss` is not installed.
    """

    def __init__(self, siamese, gallery):
        kind = type(siamese.distance)
        if kind not in (*BY_SQUARES, *BY_DIRECTIONS, distances.InnerProductDistance):
            known = "euclidean, squared_euclidean, cosine, angular or inner_product"
            need = f'index="faiss" needs a distance that faiss can rank: {known}'
            raise ValueError(f"{need}; got {siamese.distance!r}. Use index=None")
        if not falls_with_distance(siamese):
            need = 'index="faiss" needs a score that falls as the distance grows: no head, or the logistic one'
            raise ValueError(f"{need}; got the head {siamese.head.name!r}. Use index=None")
        faiss = check_installed("faiss", "faiss")
        self.by_squares, self.by_directions = kind in BY_SQUARES, kind in BY_DIRECTIONS
        # Squared distances do not depend on the origin; around the mean, the terms that cancel are smaller.
        self.centre = gallery.mean(axis=0, dtype=np.float64).astype("float32") if self.by_squares else np.float32(0)
        points = self.points(gallery)
        self.largest = float(squares_of(points).max())
        self.flat = (faiss.IndexFlatL2 if self.by_squares else faiss.IndexFlatIP)(gallery.shape[1])
        self.flat.add(points)

    def points(self, embeddings):
        """The vectors that faiss compares for the embeddings `(n, dim)`: float32 `(n, dim)`."""
        points = embeddings.astype("float32") - self.centre
        if self.by_directions:  # as in distances.CosineDistance, a shorter vector has no direction
            norms = np.sqrt(squares_of(points))[:, None]
            points = np.where(norms > NORM_FLOOR, points / np.maximum(norms, NORM_FLOOR), 0.0).astype("float32")
        return np.ascontiguousarray(points)

    def search(self, probes, k):
        """Ascending rows `(n, min(m, k + SPARE))`, and whether `(n,)` they certainly contain each probe's best `k`."""
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
