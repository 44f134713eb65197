"""Search for what validation data should not share with training data: identities, samples and near-duplicates.

Contract: each side is `(x, labels)`, a source (see `sources`) with identities `(n,)` or None. Samples are read once, in
blocks; 16 bytes and one feature vector of each are held. Users and `diagnosis` import this module.

    report = check_leakage(train, valid)
    if report:
        print(report)
        valid_x, valid_labels = np.delete(valid[0], report.valid_rows, 0), np.delete(valid[1], report.valid_rows)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from keras_siamese._checks import check_labels, check_number
from keras_siamese._types import ArrayLike, Samples
from keras_siamese.data.hardness import check_embeddings
from keras_siamese.data.sources import check_source, count_samples, first_few, named_arrays, take

_BLOCK_BYTES = 1 << 24  # of samples read at once
_BLOCK = 1 << 22  # differences of features held at once
_CELLS = 8  # along each side of the grey thumbnail
_LEAST_SIDE = 4  # thumbnails of smaller images agree by chance
_PROJECTED = 8  # dimensions of the search tree
_LOOKED_AT = (4, 32, 256)  # candidates compared for each sample, more if the fewer do not settle it
_DIGEST = np.dtype("V16")  # 128 bits
_NO_PAIRS = np.empty((0, 2), dtype=np.intp)


@dataclass(frozen=True, eq=False)
class LeakageReport:
    """What `check_leakage` found; true if anything leaks. Without the samples in `valid_rows`, nothing leaks.

    Attributes:
        identities: labels that both sides have, `(k,)`, sorted.
        exact: `(k, 2)`, (train row, valid row) of each validation sample that is also in training, its first copy.
        near: `(k, 2)`, the same of each other validation sample with a near-duplicate in training, the nearest one.
        distances: `(k,)`, the cosine distance of each pair in `near`.
        valid_rows: `(k,)`, ascending, the rows of `valid` that are in a pair or have a shared identity.
        samples, labelled: the number of validation samples, and whether both sides have labels.
        compared: what `near` is based on: "embeddings", "pixels", or None if near-duplicates were not searched.
        constant: number of samples with the same value in all pixels (or an embedding of zeros). They are compared
            exactly, and have no near-duplicates.
        unsettled: number of validation samples that may have a near-duplicate among candidates that were not
            compared.

    >>> x, labels = np.arange(20.0).reshape(10, 2), np.repeat([3, 4, 5, 6, 7], 2)
    >>> print(check_leakage((x[:6], labels[:6]), (x[5:], labels[5:])))
    Leakage: 1 of 5 validation samples
      shared identities: 1 (5)
      exact duplicates: 1 (train row 5 = valid row 0)
      near-duplicates: not looked for (no images, and no embeddings given)
    """

    identities: np.ndarray
    exact: np.ndarray
    near: np.ndarray
    distances: np.ndarray
    valid_rows: np.ndarray
    samples: int
    labelled: bool
    compared: str | None
    constant: int = 0
    unsettled: int = 0

    def __bool__(self):
        return bool(len(self.identities) or len(self.exact) or len(self.near))

    def __str__(self) -> str:
        identities = f"{len(self.identities)}{_listed(self.identities.tolist())}" if self.labelled else "labels unknown"
        exact = [f"train row {a} = valid row {b}" for a, b in self.exact.tolist()]
        rows = zip(self.near.tolist(), self.distances.tolist(), strict=True)
        near = [f"train row {a} ~ valid row {b} at {distance:.2g}" for (a, b), distance in rows]
        found = f"{len(near)}{_listed(near)}, by {self.compared}"
        found += f"; {self.constant} constant samples left out" * (self.constant > 0)
        found += f"; {self.unsettled} validation samples unsettled" * (self.unsettled > 0)
        if self.compared is None:
            found = "not looked for (no images, and no embeddings given)"
        head = f"Leakage: {len(self.valid_rows)} of {self.samples} validation samples" if self else "No leakage found"
        copies = f"exact duplicates: {len(exact)}{_listed(exact)}"
        return f"{head}\n  shared identities: {identities}\n  {copies}\n  near-duplicates: {found}"


def _listed(items):
    return f" ({first_few(items)})" if items else ""


def check_leakage(
    train: tuple[Samples, ArrayLike | None],
    valid: tuple[Samples, ArrayLike | None],
    *,
    embeddings: tuple[ArrayLike, ArrayLike] | None = None,
    near: float | None = 0.002,
) -> LeakageReport:
    """Finds identities, samples and near-duplicates that `valid` shares with `train`; returns a `LeakageReport`.

    - Identities: labels that occur on both sides; both sides must use the same names.
    - Exact duplicates: samples with equal values in all arrays of the source, by a 128-bit hash of each.
    - Near-duplicates: samples whose features have a cosine distance 1 − cos of at most `near`. The features are the
      `embeddings`, or else grey thumbnails of at most 8 × 8 (means over channels and cells) minus their mean. The
      distance of thumbnails is 1 − correlation: it ignores brightness and contrast, and changes little with mild noise,
      but much with shifts and crops.

    For near-duplicates not all pairs are compared. A k-d tree finds candidates by their distance in 8 principal
    directions, which is at most the full distance, and only candidates are compared in full. No near-duplicate is
    missed, except for `unsettled` samples: they have over 256 candidates, and the nearest 256 are not near-duplicates.
    On two cores, 10⁵ against 10⁵ samples of 16 numbers took 1 s, 10⁶ against 10⁶ half a minute and 300 MB.

    Args:
        train: `(x, labels)`; x array `(n, …)`, dict of arrays or another source, labels `(n,)` or None.
        valid: `(x, labels)`, the same for validation, with samples of the same shapes.
        embeddings: `(train_embeddings, valid_embeddings)`, `(n, dim)` and `(m, dim)`, an encoder's output for each x.
        near: in (0, 2], or None to search no near-duplicates. Of MNIST's 10,000 test digits, 42 are within the default
            0.002 of a training digit (plain strokes that look alike) and 486 within 0.005. Noise of 5 % of the images'
            standard deviation moves most parts of photographs by less. For embeddings it depends on the encoder.

    Raises:
        ValueError: if the sides differ in structure, sample shape or kind of labels, if lengths differ, or if samples
            or embeddings are not finite.

    >>> images = np.random.default_rng(0).random((50, 16, 16))
    >>> report = check_leakage((images[:40], None), (0.5 * images[38:] + 0.1, None))
    >>> bool(report), report.near.tolist(), report.valid_rows.tolist()
    (True, [[38, 0], [39, 1]], [0, 1])
    """
    train_x, train_labels = _check_side("train", train)
    valid_x, valid_labels = _check_side("valid", valid)
    dtypes = _common_dtypes(train_x, valid_x)
    if near is not None:
        check_number("near", near, low=0, high=2, open_low=True)
    given = None if embeddings is None else _check_both_embeddings(embeddings, train_x, valid_x)

    shared, shared_rows, labelled = _shared_identities(train_labels, valid_labels)
    pixels = near is not None and given is None
    train_digests, train_features = _read(train_x, dtypes, pixels)
    valid_digests, valid_features = _read(valid_x, dtypes, pixels)
    n = len(train_digests)
    partner = _first_rows(np.concatenate([train_digests, valid_digests]))[n:]
    is_new = partner >= n
    exact = np.stack([partner[~is_new], np.flatnonzero(~is_new)], axis=1)
    if given is not None:
        train_features, valid_features = (_unit(features.copy()) for features in given)
    compared = None
    pairs, distances, constant, unsettled = _NO_PAIRS, np.empty(0), 0, 0
    if near is not None and train_features is not None:
        compared = "pixels" if given is None else "embeddings"
        pairs, distances, constant, unsettled = _near(train_features, valid_features, np.flatnonzero(is_new), near)
    valid_rows = np.unique(np.concatenate([shared_rows, exact[:, 1], pairs[:, 1]]).astype(np.intp))
    counts = count_samples(valid_x), labelled, compared, constant, unsettled
    return LeakageReport(shared, exact, pairs, distances, valid_rows, *counts)


def _check_side(name, side):
    if not isinstance(side, (tuple, list)) or len(side) != 2:
        what = f"a {type(side).__name__}" + (f" of {len(side)}" if isinstance(side, (tuple, list)) else "")
        raise ValueError(f"`{name}` must be (x, labels), where labels may be None; got {what}")
    x = check_source(f"{name} x", side[0])
    labels = side[1]
    return x, None if labels is None else check_labels(f"{name} labels", labels, length=count_samples(x))


def _common_dtypes(train_x, valid_x):
    """The dtype in which the values of each array are compared, `{path: dtype}`; refuses sides that differ."""
    sides = [dict(named_arrays("x", x)) for x in (train_x, valid_x)]
    shapes = [{path: tuple(array.shape[1:]) for path, array in side.items()} for side in sides]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`train` and `valid` must have samples of the same shapes; got {shapes[0]} and {shapes[1]}")
    for path, array in [*sides[0].items(), *sides[1].items()]:
        if array.dtype.hasobject:
            raise ValueError(f"`{path}` must have numbers or strings to be compared; got dtype {array.dtype}")
    return {path: np.result_type(array.dtype, sides[1][path].dtype) for path, array in sides[0].items()}


def _check_both_embeddings(embeddings, train_x, valid_x):
    if not isinstance(embeddings, (tuple, list)) or len(embeddings) != 2:
        found = f"a {type(embeddings).__name__}"
        raise ValueError(f"`embeddings` must be (train_embeddings, valid_embeddings); got {found}")
    train = check_embeddings("embeddings[0]", embeddings[0], count_samples(train_x))
    valid = check_embeddings("embeddings[1]", embeddings[1], count_samples(valid_x))
    if train.shape[1] != valid.shape[1]:
        raise ValueError(f"`embeddings` must have the same dimension; got shapes {train.shape} and {valid.shape}")
    return train, valid


def _shared_identities(train_labels, valid_labels):
    """Labels of both sides, the rows of `valid` that have them, and whether both sides have labels."""
    if train_labels is None or valid_labels is None:
        return np.empty(0, dtype=int), np.empty(0, dtype=np.intp), False
    if (train_labels.dtype.kind in "US") != (valid_labels.dtype.kind in "US"):
        found = f"{train_labels.dtype} and {valid_labels.dtype}"
        raise ValueError(f"`train` and `valid` must have labels of one kind to be compared; got {found}")
    shared = np.intersect1d(train_labels, valid_labels)
    return shared, np.flatnonzero(np.isin(valid_labels, shared)), True


def _read(x, dtypes, pixels):
    """Digests `(n,)` of all samples, and the thumbnails `(n, d)` of images; None without images or `pixels`."""
    images = [path for path, leaf in named_arrays("x", x) if pixels and _are_images(leaf)]
    values = sum(int(np.prod(leaf.shape[1:])) * dtypes[path].itemsize for path, leaf in named_arrays("x", x))
    n, in_turn = count_samples(x), max(1, _BLOCK_BYTES // max(1, values))
    digests, features = np.empty(n, dtype=_DIGEST), []
    for start in range(0, n, in_turn):
        block = np.arange(start, min(n, start + in_turn))
        arrays = dict(named_arrays("x", take(x, block)))
        digests[block] = _digests([array.astype(dtypes[path]) for path, array in arrays.items()])
        if images:
            features.append(np.concatenate([_thumbnails(arrays[path]) for path in images], axis=1))
    return digests, np.concatenate(features) / np.float32(np.sqrt(len(images))) if images else None


def _are_images(leaf):
    is_real = np.issubdtype(leaf.dtype, np.number) and not np.issubdtype(leaf.dtype, np.complexfloating)
    return is_real and len(leaf.shape) in (3, 4) and min(leaf.shape[1:3]) >= _LEAST_SIDE


def _digests(arrays):
    """A hash of each sample's values, `(m,)`."""
    # Equal numbers have equal bytes, except for −0: adding 0 makes it 0.
    arrays = [array + 0 if np.issubdtype(array.dtype, np.inexact) else array for array in arrays]
    flat = [np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8) for array in arrays]
    rows = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in rows), _DIGEST)


def _thumbnails(images):
    """Grey thumbnails of `(m, height, width[, channels])` minus their mean, of unit norm or 0: float32 `(m, d)`."""
    grey = images.astype("float32")
    grey = grey if grey.ndim == 3 else grey.mean(axis=3)
    for axis in (1, 2):
        side = grey.shape[axis]
        edges = np.arange(min(_CELLS, side)) * side // min(_CELLS, side)
        sizes = np.diff(np.append(edges, side)).astype("float32")
        grey = np.add.reduceat(grey, edges, axis=axis) / (sizes[:, None] if axis == 1 else sizes)
    flat = grey.reshape(len(grey), -1)
    spread = flat - flat.mean(axis=1, keepdims=True)
    # A constant image would leave rounding errors, which have a direction.
    spread[np.abs(spread).max(axis=1) <= 1e-5 * np.abs(flat).max(axis=1)] = 0
    return _unit(spread)


def _unit(vectors):
    """Divides the rows of `vectors` `(n, d)` by their norm, in place; rows of norm 0 do not change."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)  # first, so that squares neither overflow nor become 0
    vectors /= np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1)
    return vectors


def _first_rows(digests):
    """For each of the `digests` `(n,)` the first row that has it, `(n,)`."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse]


def _near(train, valid, valid_rows, near):
    """The nearest row of `train` to each of `valid[valid_rows]`, features `(·, d)` of unit norm or 0, within `near`.

    Returns pairs `(k, 2)` of rows, their distances, the number of features that are 0 and of unsettled valid rows.
    """
    from scipy.spatial import cKDTree  # slow to import, and needed here only

    has_direction = train.any(axis=1), valid.any(axis=1)
    constant = sum(int(np.count_nonzero(~rows)) for rows in has_direction)
    # Each feature once: a leaf of equal features cannot be divided, and a collapsed encoder makes all features equal.
    distinct = np.unique(_first_rows(_digests([train])))
    train_rows = distinct[has_direction[0][distinct]]
    valid_rows = valid_rows[has_direction[1][valid_rows]]
    if len(train_rows) == 0 or len(valid_rows) == 0:
        return _NO_PAIRS, np.empty(0), constant, 0
    directions = _principal(train[train_rows[:: max(1, len(train_rows) // 20_000)]])
    tree = cKDTree(train[train_rows] @ directions)
    projected = valid[valid_rows] @ directions
    radius = np.sqrt(2 * near) * (1 + 1e-4) + 1e-6  # of unit vectors, |a − b|² = 2 (1 − cos); float32 rounds both
    best, partner = np.full(len(valid_rows), np.inf), np.zeros(len(valid_rows), dtype=np.intp)
    is_open = np.ones(len(valid_rows), dtype=bool)
    for count in _LOOKED_AT:
        count = min(count, len(train_rows))
        asking = np.flatnonzero(is_open)
        if len(asking) == 0:
            break
        for start in range(0, len(asking), in_turn := max(1, _BLOCK // (count * train.shape[1]))):
            rows = asking[start : start + in_turn]
            reach, found = tree.query(projected[rows], np.arange(1, count + 1), distance_upper_bound=radius, workers=-1)
            distance, candidate = _verify(train, train_rows, valid[valid_rows[rows]], found)
            best[rows], partner[rows] = distance, candidate
            # The other candidates are at least as far as the last one in these directions, and so in full.
            is_open[rows] = (reach[:, -1] < np.sqrt(2 * distance)) & (count < len(train_rows))
    hits = best <= near
    unsettled = int(np.count_nonzero(is_open & ~hits))
    return np.stack([partner[hits], valid_rows[hits]], axis=1), best[hits], constant, unsettled


def _principal(features):
    """Orthonormal directions `(d, ≤ 8)` in which the variance of `features` `(n, d)` is largest."""
    spread = features - features.mean(axis=0)
    _, directions = np.linalg.eigh(spread.T.astype("float64") @ spread)
    return directions[:, ::-1][:, :_PROJECTED].astype("float32")


def _verify(train, train_rows, queries, found):
    """Cosine distance `(m,)` and train row `(m,)` of the nearest of each query's candidates `found` `(m, k)`.

    `len(train_rows)` in `found` stands for no candidate; the distance is infinite if a query has none.
    """
    is_there = found < len(train_rows)
    rows = train_rows[np.where(is_there, found, 0)]
    distance = np.full(found.shape, np.inf)
    query, _ = np.nonzero(is_there)
    difference = train[rows[is_there]] - queries[query]
    distance[is_there] = 0.5 * np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    nearest = distance.argmin(axis=1)[:, None]
    return np.take_along_axis(distance, nearest, 1)[:, 0], np.take_along_axis(rows, nearest, 1)[:, 0]
