"""All pairs of embeddings in files, as tasks for the workers of joblib: threads, processes, Dask or Ray.

Contract: as `all_pairs`, but the embeddings are read by the workers, a range of rows at a time. A task compares two
ranges and returns a `ScoreHistogram`. The histograms are merged in the order of the tasks, so the result does not
depend on the workers. With a `folder`, what is merged is kept there, and a run that was ended goes on from it.

    with joblib.parallel_backend("loky", n_jobs=8):          # or "dask", "ray"
        histogram = compare_shards(["a.npy", "b.npy"], labels, folder="run")
"""

from __future__ import annotations

import itertools
import math
import time
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_siamese import distances
from keras_siamese._checks import check_finite, check_integer, check_labels, check_number, check_reals
from keras_siamese._types import ArrayLike, DistanceLike, Sliced, StrPath
from keras_siamese.verification.all_pairs import compared_block, scorer
from keras_siamese.verification.grouped import GroupedHistogram
from keras_siamese.verification.pairs import progress_bar, say
from keras_siamese.verification.shards import Shards
from keras_siamese.verification.tasks import Ledger, Plan, check_workers, key_of, results_of

ROWS = 32_768  # most rows of a range
TAIL = 1_000_000  # most impostor scores that are kept
BY_NORM = {distances.EuclideanDistance: 1, distances.SquaredEuclideanDistance: 2}  # power of twice the largest norm


def compare_shards(
    files: StrPath | list[Any] | tuple[StrPath, ...] | Sliced,
    labels: ArrayLike,
    distance: DistanceLike = "cosine",
    *,
    far: float = 1e-5,
    bins: int = 65_536,
    rows: int | None = None,
    groups: int | None = None,
    folder: StrPath | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> GroupedHistogram:
    """Scores all pairs of embeddings that lie in files, on the workers of joblib: score = −distance.

    The figures are those of `compare_embeddings`. The work is divided into tasks of two ranges of rows. joblib runs
    them on threads, processes, Dask or Ray, whichever backend is active. If a worker dies, its tasks are done again; if
    three die without any result between them, the comparison ends with an error. Started again, it goes on from its
    checkpoint in `folder`. Each worker opens the files itself, so they must be in reach of all. Memory of a worker is
    O(rows · dim + bins), traffic of a task 2 · rows · dim numbers in and the histogram out.

    Args:
        files: `.npy`, Parquet or Zarr files, paths or URLs, see `Shards`; or an object with a `shape` `(n, dim)` whose
            slices are arrays, which can be sent to workers, such as a `Shards`, a Zarr array or a memory-mapped array.
        labels: `(n,)` identities, integers or strings, at least two, one of them at least twice.
        distance: a distance whose bounds are known: "cosine", "euclidean", "squared_euclidean", or one that does not
            depend on norms. For the second and the third, the files are read once more to find the largest norm.
        far: the smallest false match rate of interest, in (0, 1]. The largest max(1000, 10 · far · impostors) impostor
            scores, at most a million, are kept: TAR is exact up to that FMR, and bounded beyond.
        bins: number of bins, ≥ 2.
        rows: number of rows in a range, ≥ 1. By default an eighth of all, but from 1,024 to 32,768.
        groups: number of groups of identities, from 2 to their number, for intervals by leaving out one group after the
            other: `histogram.intervals(["eer", ("tar_at_far", 1e-4)])`. 20 are enough. A histogram, also that of each
            task, then has 2 · groups · bins more numbers. None, the default, for no intervals.
        folder: where checkpoints are written, three times a minute. If it holds those of the same comparison, it goes
            on from there; no pair is counted twice.
        n_jobs: number of workers, as in `joblib.Parallel`; None takes that of the active backend, and otherwise 1.
        progress: whether to print the estimated work and to show a Keras progress bar.

    Returns:
        `GroupedHistogram` of all n(n − 1)/2 pairs, a `ScoreHistogram`.

    Raises:
        ValueError: if the distance has no bounds, the labels do not suit, or `folder` holds another comparison.

    >>> import tempfile, numpy as np
    >>> path = f"{tempfile.mkdtemp()}/z.npy"
    >>> labels = np.arange(600) % 150
    >>> rng = np.random.default_rng(0)
    >>> np.save(path, rng.normal(size=(150, 32))[labels] + rng.normal(size=(600, 32)))
    >>> histogram = compare_shards([path], labels, progress=False)
    >>> histogram.genuines, histogram.impostors, round(histogram.tar_at_far(0.01), 3)
    (900, 178800, 0.789)
    """
    files = check_reals("files", files) if keras.ops.is_tensor(files) else files
    source = files if hasattr(files, "shape") else Shards(files)
    if len(source.shape) != 2 or not source.shape[1]:
        raise ValueError(f"`files` must hold embeddings (n, dim); got shape {tuple(source.shape)}")
    count = source.shape[0]
    codes = np.unique(check_labels("labels", labels, length=count), return_inverse=True)[1].ravel().astype("int32")
    members = np.bincount(codes).astype(object)  # Python's integers have no limit
    genuines = int((members * (members - 1) // 2).sum())
    impostors = count * (count - 1) // 2 - genuines
    if not (genuines and impostors):
        found = f"{len(members)} identities of {count} embeddings"
        raise ValueError(f"`labels` must name at least two identities, and one of them at least twice; got {found}")
    groups = 0 if groups is None else check_integer("groups", groups, low=2, high=len(members))
    if groups:  # each group is a stretch of the codes
        codes = np.random.default_rng(0).permutation(len(members)).astype("int32")[codes]
    far = check_number("far", far, low=0, high=1, open_low=True)
    rows = min(ROWS, max(1024, -(-count // 8))) if rows is None else check_integer("rows", rows, low=1)
    ranges = [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
    tasks = [(place, other) for place in range(len(ranges)) for other in range(place, len(ranges))]
    distance = distances.get(distance)
    folder, n_jobs = check_workers(folder, n_jobs)

    import joblib  # comes with scikit-learn; imported here because it is slow to import

    workers = joblib.effective_n_jobs(n_jobs)
    low, high = bounds_of(source, ranges, distance, n_jobs)
    tail = min(max(1000, math.ceil(10 * far * impostors)), TAIL, impostors)
    options = low, high, check_integer("bins", bins, low=2), tail, groups
    histogram, people = GroupedHistogram(*options, distance=distance), len(members)
    key = key_of([source], [codes], rows, distance, *options)
    ledger = Ledger(folder, key, histogram)
    if progress:
        say(str(plan_of(source, codes, ranges, tasks[ledger.done :], distance, options, workers)))

    def call(number):
        sides = tuple((ranges[place], codes[ranges[place]]) for place in tasks[number])
        return joblib.delayed(compared)(source, sides, distance, options, people)

    ledger.fill(call, len(tasks), n_jobs, progress_bar(len(tasks), "task", progress))
    return histogram


def compared(source, sides, distance, options, people):
    """The `GroupedHistogram` of all pairs of two ranges of rows, or of the pairs within one.

    The two `sides` are the ranges with the codes of their rows. They are a tuple because Dask keeps an array that is an
    argument by itself on one worker, and loses it with that worker.
    """
    histogram = GroupedHistogram(*options)
    parts, codes = [], []
    for rows, of_rows in sides[: 1 if sides[0][0] == sides[1][0] else 2]:
        order = np.argsort(of_rows, kind="stable")  # then only few blocks have genuine pairs
        parts.append(read(source, rows)[order])
        codes.append(of_rows[order])
    embeddings, codes = np.concatenate(parts), np.concatenate(codes)
    score, _, block = scorer(embeddings, distance)
    split = len(parts[0])
    group = codes.astype(np.int64) * histogram.groups // people  # which of `people` identities are together
    first = slices_of(group, 0, split, block)
    second = slices_of(group, split, len(embeddings), block)

    def jobs():
        for place, here in enumerate(first):
            for there in second if len(parts) > 1 else first[place:]:
                histogram._pair = int(group[here.start]), int(group[there.start])
                yield partial(compared_block, score, codes, here, there)

    histogram._count(jobs(), name="distance", threads=False)
    return histogram


def slices_of(group, start, stop, block):
    """Slices of the rows from `start` to `stop`, of at most `block` rows of one `group` each."""
    cuts = [start, *(start + 1 + np.flatnonzero(np.diff(group[start:stop]))).tolist(), stop]
    pairs = itertools.pairwise(cuts)
    return [slice(low, min(low + block, end)) for begin, end in pairs for low in range(begin, end, block)]


def read(source, rows):
    """The embeddings of a slice of rows, checked."""
    embeddings = check_finite("files", check_reals("files", source[rows]))
    return embeddings if embeddings.dtype in (np.float32, np.float64) else embeddings.astype(np.float32)


def bounds_of(source, ranges, distance, n_jobs):
    """The bounds of the scores of all embeddings, `(low, 0)` for a distance that grows with the norms."""
    low, high = distance.bounds
    if type(distance) in BY_NORM:
        import joblib

        norms = results_of(
            lambda place: joblib.delayed(largest_norm)(source, ranges[place]), range(len(ranges)), n_jobs
        )
        radius = max(norms)
        radius = 1.0 if abs(radius - 1) <= 1e-5 else radius or 1.0
        return -((2 * radius) ** BY_NORM[type(distance)]), 0.0
    if not (distance.scale_free and math.isfinite(high - low)):
        must = '"cosine", "euclidean", "squared_euclidean" or one that does not depend on norms'
        raise ValueError(f"`distance` must be {must}, so that the bounds of the scores are known; got {distance!r}")
    return -high, -low


def largest_norm(source, rows):
    """The largest norm among some rows."""
    embeddings = read(source, rows)
    return float(np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64).max(initial=0.0)))


def plan_of(source, codes, ranges, tasks, distance, options, workers):
    """The `Plan` of the tasks that are left, from the time of a small part of one."""
    counts = [rows.stop - rows.start for rows in ranges]
    pairs = sum(counts[a] * counts[b] if a != b else counts[a] * (counts[a] - 1) // 2 for a, b in tasks)
    width = source.shape[1] * np.asarray(source[0:1]).dtype.itemsize
    size = sum((counts[a] + (counts[b] if a != b else 0)) * width for a, b in tasks)
    part = slice(0, min(2048, source.shape[0]))
    start = time.perf_counter()
    compared(source, ((part, codes[part]),) * 2, distance, options[:-1], int(codes.max()) + 1)
    each = (time.perf_counter() - start) / max(1, part.stop * (part.stop - 1) // 2)
    return Plan(pairs, len(tasks), size, pairs * each / workers, workers)
