"""Searches of a gallery by many queries: their checked input, and their work as tasks for joblib's workers.

Contract: embeddings and identities of queries and of a gallery in, arrays or `Shards`; what is read from the nearest
rows of each query out, in the order of the queries. A task takes a range of queries and reads the gallery a part at a
time, so a worker that dies costs its range. `retrieval` and `open_set` use this module.

    inputs = check_searches(embeddings, labels, gallery, gallery_labels)
    arrays = search(inputs, reading, depth, distance, how=How(folder="run", n_jobs=8))
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_finite, check_integer, check_labels, check_reals
from keras_siamese._types import ArrayLike, DistanceLike, StrPath
from keras_siamese.neighbours import nearest_in_parts
from keras_siamese.verification.pairs import encode_identities, progress_bar, say
from keras_siamese.verification.shards import Shards
from keras_siamese.verification.tasks import Ledger, Plan, check_workers, key_of

ROWS = 16_384  # most queries of a task
PART = 32_768  # rows of the gallery that a task holds at a time
CELLS = 2**22  # neighbours that a task holds, unless one query has more
VALUES = 2**22  # numbers of the embeddings of pairs that are scored at a time


class Neighbours(NamedTuple):
    """The result of `search_embeddings`, best first.

    Attributes:
        rows: `(n, k)` int64, rows of the gallery.
        scores: `(n, k)` float64, −distance, with the precision of the distance.
    """

    rows: np.ndarray
    scores: np.ndarray


def search_embeddings(
    queries: ArrayLike | Shards,
    gallery: ArrayLike | Shards | None = None,
    k: int = 1,
    *,
    distance: DistanceLike = "cosine",
    folder: StrPath | None = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> Neighbours:
    """The k nearest embeddings of a gallery for each query, on the workers of joblib.

    The search is exhaustive. At equal distance the lower row comes first. Tasks, workers, memory and checkpoints are
    those of `evaluate_retrieval`. To decide with a calibrated threshold, see `Verifier.identify`.

    Args:
        queries: `(n, dim)` finite embeddings, an array or `Shards`.
        gallery: `(m, dim)` finite embeddings, an array or `Shards`. If None, each query is compared with all others.
        k: number of neighbours, from 1 to the number of embeddings that a query is compared with.
        distance: name, `Distance`, its config or a function `(a, b) → (n,)`, where `a` is the query.
        folder, n_jobs, progress: as in `evaluate_retrieval`; here, the work is always divided into tasks.

    Returns:
        `Neighbours(rows, scores)`.

    >>> gallery = np.array([[0.0], [1.0], [3.0], [1.0]])
    >>> found = search_embeddings([[0.9], [4.0]], gallery, k=2, distance="euclidean")
    >>> found.rows.tolist(), found.scores.round(3).tolist()
    ([[1, 3], [2, 1]], [[-0.1, -0.1], [-1.0, -3.0]])
    """
    queries = _check_embeddings("queries", queries)
    own = gallery is None
    if own and len(queries) < 2:
        raise ValueError("`queries` must hold at least two embeddings where no `gallery` is given; got one")
    gallery = queries if own else check_gallery("queries", queries, gallery)
    none = np.zeros(len(queries), np.int32)  # of identities nothing is known
    inputs = Searches(queries, gallery, none, none[:0], none, own)
    k, how = check_rank("k", k, inputs), How(*check_workers(folder, n_jobs), progress)
    return Neighbours(*search(inputs, read_nearest, k, distance, how, every=True))


class Searches(NamedTuple):
    """Checked input: `queries (n, dim)`, `gallery (m, dim)`, codes of their identities, number of mates `(n,)`."""

    queries: Any
    gallery: Any
    query_codes: np.ndarray
    gallery_codes: np.ndarray
    mates: np.ndarray
    own: bool  # the gallery is the queries, each of which is not compared with itself

    @property
    def compared(self):
        return len(self.gallery) - self.own


class How(NamedTuple):
    """How searches are run: with checkpoints in `folder`, by `n_jobs` workers of joblib, with progress shown."""

    folder: StrPath | None = None
    n_jobs: int | None = None
    progress: bool = False

    def has_tasks(self, inputs):
        """Whether the work is divided into tasks."""
        in_files = isinstance(inputs.queries, Shards) or isinstance(inputs.gallery, Shards)
        return in_files or self.folder is not None or self.n_jobs is not None


def check_searches(embeddings, labels, gallery, gallery_labels, called=("embeddings", "labels")):
    """Checked `Searches`; `called` are those of the first two arguments in errors."""
    queries = _check_embeddings(called[0], embeddings)
    labels = check_labels(called[1], labels, length=len(queries))
    own = gallery is None and gallery_labels is None
    if own:
        names, codes = np.unique(labels, return_inverse=True)
        gallery, query_codes, gallery_codes, count = queries, codes, codes, len(names)
    else:
        if gallery is None or gallery_labels is None:
            missing, given = ("gallery", "gallery_labels") if gallery is None else ("gallery_labels", "gallery")
            raise ValueError(f"`{missing}` must be given if `{given}` is; got None")
        gallery = check_gallery(called[0], queries, gallery)
        gallery_labels = check_labels("gallery_labels", gallery_labels, length=len(gallery))
        query_codes, gallery_codes, count = encode_identities(called[1], labels, "gallery_labels", gallery_labels)
    mates = np.bincount(gallery_codes, minlength=count)[query_codes] - own
    if not mates.any():
        among = "each other" if own else f"the gallery's {len(gallery)} of {len(np.unique(gallery_codes))} identities"
        found = f"{len(queries)} queries of {len(np.unique(query_codes))} identities, none with a mate among {among}"
        mate = "a mate, another embedding of its identity to compare it with"
        raise ValueError(f"`{called[1]}` must give at least one query {mate}; got {found}")
    return Searches(queries, gallery, query_codes, gallery_codes, mates, own)


def check_gallery(called, queries, gallery):
    """The checked gallery `(m, dim)` of checked `queries (n, dim)`, which are `called` so in errors."""
    gallery = _check_embeddings("gallery", gallery)
    if gallery.shape[1] != queries.shape[1]:
        found = f"{gallery.shape} and {queries.shape}"
        raise ValueError(f"`gallery` must have the dimension of `{called}`; got shapes {found}")
    return gallery


def _check_embeddings(name, embeddings):
    """Returns finite float32 or float64 `(n, dim)`, without negative zeros, so that equal rows have equal bytes.

    `Shards` are returned as they are: whoever reads their rows checks them.
    """
    is_whole = not isinstance(embeddings, Shards)
    embeddings = check_finite(name, check_reals(name, embeddings)) if is_whole else embeddings
    if len(embeddings.shape) != 2 or 0 in embeddings.shape:
        raise ValueError(f"`{name}` must have shape (n, dim), n and dim at least 1; got shape {embeddings.shape}")
    if not is_whole:
        return embeddings
    if embeddings.dtype.name in ("float16", "bfloat16"):
        embeddings = embeddings.astype(np.float32)
    return np.add(embeddings, 0.0, dtype=np.float32 if embeddings.dtype == np.float32 else np.float64)


def check_rank(name, rank, inputs):
    rank = check_integer(name, rank)
    if not 1 <= rank <= inputs.compared:
        size = f"{inputs.compared}, the number of embeddings that a query is compared with"
        raise ValueError(f"`{name}` must be from 1 to {size}; got {rank}")
    return rank


class Task(NamedTuple):
    """What all tasks of a run have in common.

    `reading(task, found)` gives a tuple of arrays `(queries, …)` for some queries that were `Found`. The codes of the
    gallery are part of a tuple because Dask keeps an array that is an argument by itself on one worker, and loses it
    with that worker.
    """

    queries: Any
    gallery: Any
    gallery_codes: np.ndarray
    own: bool
    depth: int
    distance: distances.Distance
    part: int
    reading: Callable[..., tuple[np.ndarray, ...]]


class Found(NamedTuple):
    """The queries of a task: their embeddings, codes, numbers of mates, and nearest rows, each `(queries, …)`."""

    queries: np.ndarray
    codes: np.ndarray
    mates: np.ndarray
    nearest: np.ndarray


def search(inputs, reading, depth, distance, how, *, every=False):
    """The arrays that `reading` gives for all queries with a mate, or for `every` query, in the order of the queries.

    Args:
        inputs: checked `Searches`.
        reading: a function of a module, see `Task`.
        depth: how many neighbours each query gets.
        distance: see `distances.get`.
        how: `How`.
    """
    import joblib  # comes with scikit-learn; imported here because it is slow to import

    count = len(inputs.queries)
    rows = max(1, min(ROWS, max(1024, -(-count // 8)), CELLS // depth))
    ranges = [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
    codes, gallery_codes, mates = (
        array.astype(np.int32) for array in (inputs.query_codes, inputs.gallery_codes, inputs.mates)
    )
    distance, data = distances.get(distance), (inputs.queries, inputs.gallery, gallery_codes)
    task = Task(*data, inputs.own, depth, distance, PART, reading)
    wanted = np.ones(count, bool) if every else mates > 0
    sources = [inputs.queries] if inputs.own else [inputs.queries, inputs.gallery]
    key = key_of(sources, [codes, gallery_codes], rows, reading.__name__, depth, distance, inputs.own, every)
    ledger = Ledger(how.folder, key, Rows())

    def call(number):
        some = ranges[number]
        return joblib.delayed(searched)(task, some, (wanted[some], codes[some], mates[some]))

    if how.progress:
        workers = joblib.effective_n_jobs(how.n_jobs)
        say(str(plan_of(task, ranges[ledger.done :], workers)))
    ledger.fill(call, len(ranges), how.n_jobs, progress_bar(len(ranges), "task", how.progress))
    return ledger.total.arrays()


def searched(task, rows, known):
    """What `task.reading` gives for a range of rows; which are wanted, their codes and numbers of mates are `known`."""
    wanted, codes, mates = known
    queries = read(task.queries, rows)[wanted]
    size, step = task.gallery.shape[0], task.part
    parts = (read(task.gallery, slice(start, min(start + step, size))) for start in range(0, size, step))
    own = np.arange(rows.start, rows.stop)[wanted] if task.own else None
    nearest = nearest_in_parts(queries, parts, task.depth, task.distance, own=own)
    return task.reading(task, Found(queries, codes[wanted], mates[wanted], nearest))


def read(source, rows):
    """The embeddings of a slice of rows, checked."""
    return _check_embeddings("embeddings", source[rows]) if isinstance(source, Shards) else source[rows]


def scores_of_pairs(distance, left, right):
    """The scores `(n,)` of pairs of embeddings `(n, dim)`, finite."""
    found = ops.convert_to_numpy(distance.rowwise(*map(ops.convert_to_tensor, (left, right))))
    return -check_finite("distance", found).ravel()


def scores_of_rows(task, queries, left, rows):
    """The scores `(n,)`, float64, of pairs: numbers `(n,)` of the queries, and `rows (n,)` of the gallery.

    The gallery is read once, a part at a time, as far as rows of it are needed.
    """
    scores, order = np.empty(len(rows)), np.argsort(rows, kind="stable")
    most = max(1, VALUES // task.gallery.shape[1])
    for of_part in np.split(order, np.flatnonzero(np.diff(rows[order] // task.part)) + 1) if len(order) else ():
        low = int(rows[of_part[0]])
        part = read(task.gallery, slice(low, int(rows[of_part[-1]]) + 1))
        for start in range(0, len(of_part), most):
            some = of_part[start : start + most]
            scores[some] = scores_of_pairs(task.distance, queries[left[some]], part[rows[some] - low])
    return scores


def read_nearest(task, found):
    """The nearest rows of the queries of a task, and their scores, `(queries, depth)` each."""
    left = np.repeat(np.arange(len(found.queries)), task.depth)
    scores = scores_of_rows(task, found.queries, left, found.nearest.ravel())
    return found.nearest, scores.reshape(found.nearest.shape)


def plan_of(task, ranges, workers):
    """The `Plan` of the ranges of queries that are left, from the time of a small part of the work."""
    queries, size = sum(rows.stop - rows.start for rows in ranges), task.gallery.shape[0]
    width = task.gallery.shape[1] * np.asarray(task.gallery[0:1]).dtype.itemsize
    some, part = slice(0, min(512, task.queries.shape[0])), slice(0, min(8192, size))
    start = time.perf_counter()
    nearest_in_parts(read(task.queries, some), [read(task.gallery, part)], min(task.depth, part.stop), task.distance)
    each = (time.perf_counter() - start) / some.stop / part.stop
    pairs = queries * size
    return Plan(pairs, len(ranges), (queries + len(ranges) * size) * width, pairs * each / workers, workers)


class Rows:
    """Tuples of arrays `(some, …)`, one after the other, for a `Ledger`."""

    def __init__(self):
        self._parts = []

    def merge(self, found):
        self._parts.append(found)

    def arrays(self):
        """The tuple of arrays `(n, …)`."""
        if len(self._parts) > 1:
            self._parts = [tuple(np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))]
        return self._parts[0]

    def _state(self):
        return {f"array{number}": array for number, array in enumerate(self.arrays())} if self._parts else {}

    def _set_state(self, state):
        self._parts = [tuple(state[f"array{number}"] for number in range(len(state)))] if state else []
