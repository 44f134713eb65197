"""Retrieval (identification): how near queries find embeddings of their own identity.

Contract: `embeddings (n, dim)` and `labels (n,)` in, figures out. Each embedding is a query. It is compared with all
other embeddings or, if `gallery (m, dim)` and `gallery_labels (m,)` are given, with the whole gallery. A mate is an
embedding of the query's identity among these; queries without a mate are left out and counted. The neighbours are
ranked

    by distance, and at equal distance by row number, the lower first

so that every figure is well defined if distances tie. One pass over blocks of the distances finds as many neighbours as
the figures need (see `neighbours`); memory is O(block + (n + m)·dim). Embeddings in `Shards` are searched by tasks for
joblib's workers (see `searches`). Anything above `distances` may import it.

    print(evaluate_retrieval(embeddings, labels))                       # all of it, from one pass
    recall_at_k(probes, probe_labels, 1, gallery=gallery, gallery_labels=gallery_labels)
    map_at_r(embeddings, labels, distance="euclidean")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from keras_siamese._tables import aligned
from keras_siamese._types import ArrayLike, DistanceLike, StrPath
from keras_siamese.neighbours import nearest_blocks
from keras_siamese.verification.pairs import progress_bar
from keras_siamese.verification.searches import How, check_rank, check_searches, search
from keras_siamese.verification.shards import Shards
from keras_siamese.verification.tasks import check_workers


@dataclass(frozen=True, eq=False)
class Retrieval:
    """The result of `evaluate_retrieval`; `str()` gives a table.

    Attributes:
        recall: `{k: recall_at_k}` for each requested k.
        r_precision, map_at_r, cmc: see the functions of these names; `cmc` is `(max_rank,)` float64.
        queries: number of queries with a mate; all figures are means over these.
        without_mate: number of queries left out because they have no mate.
        gallery: number of embeddings that each query is compared with.
    """

    recall: dict[int, float]
    r_precision: float
    map_at_r: float
    cmc: np.ndarray
    queries: int
    without_mate: int
    gallery: int

    def __str__(self) -> str:
        figures = [(f"recall@{k}", value) for k, value in self.recall.items()]
        figures += [("R-precision", self.r_precision), ("MAP@R", self.map_at_r)]
        left_out = f"; {self.without_mate:,} without a mate left out" if self.without_mate else ""
        heading = f"Retrieval of {self.queries:,} queries among {self.gallery:,} embeddings each{left_out}"
        return "\n".join([heading, *aligned((name, f"{value:.4f}") for name, value in figures)])


def evaluate_retrieval(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    *,
    k: ArrayLike = (1, 5, 10),
    max_rank: int = 20,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
    folder: StrPath | None = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> Retrieval:
    """Recall at k, R-precision, MAP@R and the cumulative match characteristic in one pass, as a `Retrieval`.

    Embeddings in files, as `Shards`, are searched by the workers of joblib: threads, processes, Dask or Ray, whichever
    backend is active. The figures are those of arrays (with other distances than cosine and Euclidean, up to the
    rounding of the distance, which may depend on the part of the gallery). A task takes up to 16,384 queries and reads
    the gallery 32,768 rows at a time; with R the most mates of a query, or `max_rank`, its memory is
    O((queries + 32,768) · dim + queries · R), with at most 2²² / R queries, and 64 MB for a block of distances. If a
    worker dies, its tasks are done again. Each worker opens the files itself.

    Args:
        embeddings: `(n, dim)` finite numbers, the queries; an array or `Shards`.
        labels: `(n,)` identities, integers or strings.
        k: rank or ranks of the recall, each from 1 to the number of embeddings that a query is compared with.
        max_rank: length of the CMC curve, in the same range.
        gallery: `(m, dim)` embeddings that the queries are compared with, an array or `Shards`. If None, each embedding
            is compared with all others. A query that is also in `gallery` is compared with itself too.
        gallery_labels: `(m,)` identities of the gallery; required with `gallery`.
        distance: name, `Distance`, its config or a function `(a, b) → (n,)`, where `a` is the query; see
            `keras_siamese.distances`.
        folder: where checkpoints are written, three times a minute. If it holds those of the same evaluation, it goes
            on from there.
        n_jobs: number of workers, as in `joblib.Parallel`; None takes that of the active backend for `Shards`, and no
            workers for arrays without `folder`.
        progress: whether to show Keras's progress bar, and for tasks the estimated work.

    Raises:
        ValueError: if no query has a mate, with the counts; or if `folder` holds another evaluation.

    >>> embeddings = [[0.0], [1.0], [3.0], [4.5], [9.0]]
    >>> print(evaluate_retrieval(embeddings, list("aabab"), k=(1, 2), max_rank=3, distance="euclidean"))
    Retrieval of 5 queries among 4 embeddings each
    recall@1     0.4000
    recall@2     0.8000
    R-precision  0.3000
    MAP@R        0.2500
    """
    inputs = check_searches(embeddings, labels, gallery, gallery_labels)
    ranks = [check_rank("k", rank, inputs) for rank in np.ravel(np.asarray(k, dtype=object)).tolist()]
    max_rank = check_rank("max_rank", max_rank, inputs)
    how = How(*check_workers(folder, n_jobs), progress)
    found = _find_mates(inputs, max([max_rank, *ranks]), distance, need_mates=True, how=how)
    return Retrieval(
        recall={rank: float((found.first <= rank).mean()) for rank in ranks},
        r_precision=float(found.precision.mean()),
        map_at_r=float(found.average_precision.mean()),
        cmc=_shares(found.first, max_rank),
        queries=len(found.first),
        without_mate=len(inputs.mates) - len(found.first),
        gallery=inputs.compared,
    )


@overload
def recall_at_k(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    k: int = 1,
    *,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
) -> float: ...
@overload
def recall_at_k(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    k: Sequence[int] | np.ndarray,
    *,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
) -> np.ndarray: ...
def recall_at_k(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    k: int | Sequence[int] | np.ndarray = 1,
    *,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
) -> float | np.ndarray:
    """The share, in [0, 1], of queries with at least one mate among their k nearest.

    Hervé Jégou, Matthijs Douze, Cordelia Schmid, "Product quantization for nearest neighbor search", IEEE Transactions
    on Pattern Analysis and Machine Intelligence 33, 2011, https://doi.org/10.1109/TPAMI.2010.57; used for metric
    learning in this sense since Hyun Oh Song, Yu Xiang, Stefanie Jegelka, Silvio Savarese, "Deep metric learning via
    lifted structured feature embedding", CVPR 2016, https://arxiv.org/abs/1511.06452.

    Args:
        embeddings `(n, dim)`, labels `(n,)`, gallery, gallery_labels, distance: as in `evaluate_retrieval`.
        k: rank from 1 to the number of embeddings that a query is compared with, or a sequence of them: the result is
            then an array of its shape.

    >>> recall_at_k([[0.0], [1.0], [3.0], [4.5], [9.0]], list("aabab"), k=[1, 2, 4], distance="euclidean").tolist()
    [0.4, 0.8, 1.0]
    """
    inputs = check_searches(embeddings, labels, gallery, gallery_labels)
    ranks = np.asarray(k, dtype=object)
    checked = [check_rank("k", rank, inputs) for rank in ranks.ravel().tolist()]
    first = _find_mates(inputs, max(checked, default=1), distance).first
    shares = np.array([(first <= rank).mean() for rank in checked], dtype=np.float64).reshape(ranks.shape)
    return shares if ranks.ndim else float(shares)


def cmc(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    *,
    max_rank: int = 20,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
) -> np.ndarray:
    """Cumulative match characteristic: the share of queries whose first mate is at rank ≤ r, for r = 1 … max_rank.

    This is the closed-set true-positive identification rate of ISO/IEC 19795-1:2021, "Biometric performance testing and
    reporting – Part 1: Principles and framework", https://www.iso.org/standard/73515.html, except that ranks count
    embeddings, not identities. Entry r − 1 is `recall_at_k` at k = r.

    Args:
        embeddings `(n, dim)`, labels `(n,)`, gallery, gallery_labels, distance: as in `evaluate_retrieval`.
        max_rank: length of the curve, from 1 to the number of embeddings that a query is compared with.

    Returns:
        `(max_rank,)` float64, rising, in [0, 1].

    >>> cmc([[0.0], [1.0], [3.0], [4.5], [9.0]], list("aabab"), max_rank=4, distance="euclidean").tolist()
    [0.4, 0.8, 0.8, 1.0]
    """
    inputs = check_searches(embeddings, labels, gallery, gallery_labels)
    max_rank = check_rank("max_rank", max_rank, inputs)
    return _shares(_find_mates(inputs, max_rank, distance).first, max_rank)


def r_precision(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
) -> float:
    """R-precision, in [0, 1]: for a query with R mates, the share of mates among its R nearest; the mean over queries.

    Kevin Musgrave, Serge Belongie, Ser-Nam Lim, "A metric learning reality check", ECCV 2020,
    https://arxiv.org/abs/2003.08505.

    Args:
        embeddings `(n, dim)`, labels `(n,)`, gallery, gallery_labels, distance: as in `evaluate_retrieval`.

    >>> r_precision([[0.0], [1.0], [3.0], [4.5], [9.0]], list("aabab"), distance="euclidean")
    0.3
    """
    inputs = check_searches(embeddings, labels, gallery, gallery_labels)
    return float(_find_mates(inputs, 1, distance, need_mates=True).precision.mean())


def map_at_r(
    embeddings: ArrayLike | Shards,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | Shards | None = None,
    gallery_labels: ArrayLike | None = None,
    distance: DistanceLike = "cosine",
) -> float:
    """Mean average precision at R, in [0, R-precision]; it takes the order of the R nearest into account.

        MAP@R = mean over queries of 1/R Σ_{i=1…R} P(i),   P(i) = mates among the i nearest / i if i is a mate, else 0

    R is the query's number of mates. Kevin Musgrave, Serge Belongie, Ser-Nam Lim, "A metric learning reality check",
    ECCV 2020, https://arxiv.org/abs/2003.08505.

    Args:
        embeddings `(n, dim)`, labels `(n,)`, gallery, gallery_labels, distance: as in `evaluate_retrieval`.

    >>> map_at_r([[0.0], [1.0], [3.0], [4.5], [9.0]], list("aabab"), distance="euclidean")
    0.25
    """
    inputs = check_searches(embeddings, labels, gallery, gallery_labels)
    return float(_find_mates(inputs, 1, distance, need_mates=True).average_precision.mean())


class _Mates(NamedTuple):
    """For each query with mates, `(queries,)`: the rank of the first mate (2^62 if not found) and two means over R."""

    first: np.ndarray
    precision: np.ndarray
    average_precision: np.ndarray


def _find_mates(inputs, depth, distance, *, need_mates=False, how=None):
    """Ranks the `depth` nearest of each query, at least all R if `need_mates`, and finds the mates among them."""
    queries, how = np.flatnonzero(inputs.mates), how or How()
    if need_mates:
        depth = max(depth, int(inputs.mates.max()))
    if how.has_tasks(inputs):
        return _Mates(*search(inputs, read_mates, depth, distance, how))
    blocks = nearest_blocks(inputs.queries, inputs.gallery, depth, distance, own=inputs.own, chosen=queries)
    move_on = progress_bar(len(queries), "query", how.progress)
    found = []
    for block, nearest in blocks:
        hits = inputs.gallery_codes[nearest] == inputs.query_codes[block, None]
        found.append(_read(hits, inputs.mates[block]))
        move_on(len(block))
    return _Mates(*map(np.concatenate, zip(*found, strict=True)))


def read_mates(task, found):
    """What `_Mates` holds, of the queries of a task."""
    return _read(task.gallery_codes[found.nearest] == found.codes[:, None], found.mates)


def _read(hits, mates):
    """First rank, R-precision and average precision at R of `hits (rows, depth)`, mates nearest first."""
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 2**62)
    ranks = np.arange(1, hits.shape[1] + 1)
    hits = hits & (ranks <= mates[:, None])
    precision = hits.sum(axis=1) / mates
    return first, precision, (np.cumsum(hits, axis=1) / ranks * hits).sum(axis=1) / mates


def _shares(first, max_rank):
    return np.cumsum(np.bincount(first[first <= max_rank], minlength=max_rank + 1)[1:]) / len(first)
