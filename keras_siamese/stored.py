"""A gallery on disk: enrolled samples in LanceDB, which outlive the process, grow, shrink and are filtered.

Contract: a folder (or another address that LanceDB takes) and a `Verifier` in. `enroll` returns when the samples are
stored: a process that is killed afterwards loses none of them, and one that is killed before leaves none or all of a
call. Several processes may read and enroll at once. The gallery keeps a digest of the encoder's layers and weights, so
embeddings of another model are never compared. Needs the extra `gallery`.

    gallery = StoredGallery("gallery", verifier)
    gallery.enroll(x, names, site=sites)
    verifier.identify(probes, gallery, k=3, where="site = 'north'").labels
    gallery.remove(where="label = 'ada'")
"""

from __future__ import annotations

import datetime
import hashlib
import uuid
from typing import Any, Literal

import keras
import numpy as np

from keras_siamese._checks import check_choice, check_column, check_finite, check_installed, check_integer, check_labels
from keras_siamese._replicas import is_in_memory
from keras_siamese._types import ArrayLike, Samples, StrPath
from keras_siamese.data.sources import check_source, count_samples
from keras_siamese.frozen import add_weights
from keras_siamese.identification import BY_DIRECTIONS, BY_SQUARES, SPARE, best_of, falls_with_distance
from keras_siamese.scoring import embed

DIGEST = b"keras_siamese.encoder"  # key in the table's metadata
PROBES = 64  # searched at once
ATTEMPTS = 5  # of a search, while other processes remove samples
OWN = ("id", "label", "vector")  # columns; the others are those that the user gives
GLIMPSE = 8  # about so many values of each weight
INDEXES = ("HnswSq", "HnswPq", "IvfFlat", "IvfPq", "IvfSq")


class Removed(RuntimeError):
    """Another process has removed samples since they were counted."""


class StoredGallery:
    """Enrolled samples in a LanceDB table on disk, for `Verifier.identify`.

    Without an index, `identify` compares a probe with every enrolled sample, as it does with a `Gallery`, and finds the
    same ones. `build_index` makes searches of more than some hundred thousand samples faster, but approximate. `recall`
    measures the share of the exact answers that are still found.

    Args:
        address: a folder, which is made if it is missing, or another address that `lancedb.connect` takes, such as an
            object store.
        verifier: the `Verifier` whose encoder embeds the samples, with the distance "euclidean", "squared_euclidean",
            "cosine" or "angular", and no head or the logistic one.
        name: name of the table; an address can hold several galleries.

    Raises:
        ImportError: if the extra `gallery` is not installed.
        ValueError: if the distance cannot be searched for, or if the gallery was made with another encoder.
        ConnectionError: if the address is on a server and cannot be reached.

    >>> import tempfile, keras, numpy as np, keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.UnitNormalization()])
    >>> x, names = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), ["ada", "ada", "bo", "bo"]
    >>> verifier = ks.Verifier.calibrate(encoder, x, names)
    >>> gallery = ks.StoredGallery(tempfile.mkdtemp(), verifier)
    >>> ids = gallery.enroll(x, names, year=[2020, 2024, 2020, 2024])
    >>> verifier.identify(np.array([[3.0, 0.1]]), gallery, where="year > 2022").labels.tolist()
    [['ada']]
    """

    table: Any  # of LanceDB; None before the first sample

    def __init__(self, address: StrPath, verifier: keras.Model, name: str = "gallery") -> None:
        self.siamese, kind = verifier.parts, type(verifier.parts.distance)
        if kind not in (*BY_SQUARES, *BY_DIRECTIONS) or not falls_with_distance(self.siamese):
            need = (
                "A StoredGallery needs the distance euclidean, squared_euclidean, cosine or angular, and no custom head"
            )
            raise ValueError(f"{need}; got {self.siamese.distance!r}")
        self.metric = "cosine" if kind in BY_DIRECTIONS else "l2"
        lancedb = check_installed("lancedb", "gallery")
        self.digest, self._glimpse = digest_of(self.siamese.encoder), glimpse_of(self.siamese.encoder)
        # Each read sees what other processes have written before it.
        try:
            self.base = lancedb.connect(str(address), read_consistency_interval=datetime.timedelta(0))
        except (ValueError, RuntimeError) as error:  # LanceDB's, if a server does not answer or has no such place
            check = "Check the address, and for a server the environment variables that LanceDB reads, as AWS_ENDPOINT"
            raise ConnectionError(f"The gallery at {str(address)!r} cannot be reached. {check}: {error}") from error
        self.address, self.name, self.table = str(address), name, None
        self._open()

    def _open(self):
        """Open the table if it exists."""
        try:
            self.table = self.base.open_table(self.name)
        except (ValueError, FileNotFoundError) as error:  # LanceDB's, if there is no such table
            if "not found" not in str(error):
                raise
            return
        if (self.table.schema.metadata or {}).get(DIGEST) != self.digest:
            raise ValueError(
                f"The gallery {self.name!r} in {self.address!r} was made with another encoder, or with other weights. "
                "Enroll its samples again, under another `name`"
            )

    def __len__(self) -> int:
        return 0 if self.table is None else self.table.count_rows()

    def __repr__(self) -> str:
        return f"StoredGallery({self.address!r}, {len(self)} samples)"

    def enroll(self, x: Samples, labels: ArrayLike, **columns: ArrayLike) -> np.ndarray:
        """Embed and store samples; they are on disk when this returns.

        Args:
            x: samples `(m, …)`, a source as for `PairSequence`.
            labels: `(m,)` identities, integers or strings, of the same kind in each call.
            **columns: further columns `(m,)` of numbers or strings, to filter by; the same ones in each call.

        Returns:
            `(m,)` int64, the ids of the samples.
        """
        pa = check_installed("pyarrow", "gallery")
        self._check_weights()
        x = check_source("x", x)
        count = count_samples(x)
        labels = check_labels("labels", labels, length=count)
        taken = set(columns) & set(OWN)
        if taken:
            raise ValueError(f"`columns` may not be named {', '.join(OWN)}; got {sorted(taken)[0]!r}")
        columns = {name: wide(check_column(name, column, "value", "sample", count)) for name, column in columns.items()}
        vectors = check_finite("embeddings", embed(self.siamese.encoder, x, name="x")).astype("float32")
        self._check_directions("x", vectors)
        ids = np.array([uuid.uuid4().int >> 65 for _ in range(count)], np.int64)
        arrow = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = pa.table({"id": ids, "label": wide(labels), "vector": arrow, **columns})
        if self.table is None:
            self._create(rows)
        expected, given = self.table.schema.names, rows.schema.names
        if sorted(expected) != sorted(given):
            raise ValueError(f"`columns` must be those of the gallery, {expected[len(OWN) :]}; got {given[len(OWN) :]}")
        try:
            rows = rows.select(expected).cast(self.table.schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
            raise ValueError(f"`labels` and columns must be of the kinds that the gallery holds: {error}") from error
        self.table.add(rows)
        return ids

    def _create(self, rows):
        schema = rows.schema.with_metadata({DIGEST: self.digest})
        try:
            self.table = self.base.create_table(self.name, schema=schema)
        except (ValueError, OSError):  # another process was first
            self._open()
            if self.table is None:
                raise

    def _check_weights(self):
        """Raise if the encoder, which the gallery shares with the program, was trained since the gallery was opened."""
        if glimpse_of(self.siamese.encoder) != self._glimpse:
            name = self.siamese.encoder.name
            raise ValueError(
                f"The encoder's weights have changed since this gallery was opened: those of {name!r}. Embeddings of "
                "other weights cannot be compared: calibrate again, and enroll the samples again, under another `name`"
            )

    def _check_directions(self, name, vectors):
        """A vector of zeros has no direction, so LanceDB leaves it out of searches by cosine."""
        zeros = np.flatnonzero(~vectors.any(axis=1)) if self.metric == "cosine" else []
        if len(zeros):
            raise ValueError(f"`{name}` must not have embeddings of zeros; that of row {zeros[0]} is")

    def remove(self, ids: ArrayLike | None = None, *, where: str | None = None) -> int:
        """Remove samples by their ids, or all for which a condition holds; returns how many.

        Args:
            ids: ids that `enroll` returned, or `Identification.rows`.
            where: condition in SQL on "id", "label" and the columns of `enroll`, such as "label = 'ada'".
        """
        if (ids is None) == (where is None):
            raise ValueError(f"Give `ids` or `where`, one of them; got ids={ids!r} and where={where!r}")
        if ids is not None:
            ids = np.ravel(ids).astype(np.int64) if np.size(ids) == 0 else np.ravel(ids)
            if not np.issubdtype(ids.dtype, np.integer):
                raise TypeError(f"`ids` must be whole numbers; got an array of {ids.dtype}")
            where = f"id IN ({', '.join(map(str, ids.tolist()))})" if len(ids) else "false"
        if self.table is None:
            return 0
        before = len(self)
        self.table.delete(self._checked(where))
        return before - len(self)

    def _checked(self, where):
        """The condition `where`; raises if the table cannot answer it."""
        if not isinstance(where, str):
            raise TypeError(f"`where` must be a condition in SQL; got {where!r}")
        try:
            self.table.count_rows(where)
        except (ValueError, RuntimeError) as error:  # LanceDB's for a wrong condition, or for files that it cannot read
            if any(sign in str(error) for sign in ("(IO)", "Not found: ")):  # of its files
                raise OSError(f"The gallery {self.name!r} in {self.address!r} cannot be read: {error}") from error
            names = ", ".join(name for name in self.table.schema.names if name != "vector")
            raise ValueError(f"`where` must be a condition in SQL on {names}; got {where!r}: {error}") from error
        return where

    def find(self, siamese: Any, probes: np.ndarray, k: int, where: str | None = None) -> tuple[np.ndarray, ...]:
        """Rows (ids), scores and labels, `(n, k)` each, of the best `k` for the embeddings `probes` `(n, dim)`.

        `Verifier.identify` calls it.
        """
        if siamese is self.siamese:
            self._check_weights()
        elif digest_of(siamese.encoder) != self.digest:
            raise ValueError("`gallery` must be made with this verifier's encoder; it was made with another one")
        self._check_directions("probe", probes)
        where = None if where is None or self.table is None else self._checked(where)
        k = check_integer("k", k, low=1)
        for attempt in range(ATTEMPTS):
            enrolled = 0 if self.table is None else self.table.count_rows(where)
            if k > enrolled:
                raise ValueError(f"`k` must be at most the number of samples that can be found, {enrolled}; got {k}")
            blocks = [probes[start : start + PROBES] for start in range(0, len(probes), PROBES)]
            try:
                found = [self._find_block(siamese, block, k, where, enrolled) for block in blocks]
                break
            except Removed:
                if attempt + 1 == ATTEMPTS:
                    raise
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def _find_block(self, siamese, probes, k, where, enrolled):
        """As `find`, of a few probes: candidates from LanceDB, their scores from the model, pair by pair."""
        count = min(enrolled, k + SPARE)
        while True:
            ids, labels, vectors, values = self._search(probes, count, where)
            # A sum of squares is that much off, relative to its size; a cosine, absolutely.
            size = values[:, -1] if self.metric == "l2" else 1.0
            error = 4 * (probes.shape[1] + 16) * 2.0**-23 * size
            if count == enrolled or self.indexed or (values[:, -1] - values[:, k - 1] > error).all():
                break
            count = min(enrolled, 4 * count)  # so many are equally near that any of them could be among the best
        shortlist = np.arange(vectors.size // vectors.shape[-1]).reshape(len(probes), count)
        rows, scores = best_of(siamese, probes, vectors.reshape(-1, vectors.shape[-1]), shortlist, k)
        return ids.ravel()[rows], scores, labels.ravel()[rows]

    def _search(self, probes, count, where=None, exact=False):
        """Ids, labels, vectors and LanceDB's distances of `count` candidates for each probe, nearest first.

        Raises:
            Removed: if there are fewer.
        """
        query = self.table.search(probes.astype("float32"), vector_column_name="vector").distance_type(self.metric)
        query = query.limit(count) if where is None else query.where(where).limit(count)
        found = (query.bypass_vector_index() if exact else query).to_arrow()
        columns = {name: found[name].combine_chunks() for name in ("id", "label", "vector", "_distance")}
        values = columns.pop("_distance").to_numpy()
        if "query_index" in found.column_names:
            order = np.lexsort((values, found["query_index"].to_numpy()))
        else:
            order = np.argsort(values, kind="stable")
        if len(order) != len(probes) * count:  # an approximate index can lose some
            if exact:
                raise Removed("Samples were removed from the gallery while it was searched: search again")
            return self._search(probes, count, where, exact=True)
        ids, labels = (columns[name].to_numpy(zero_copy_only=False)[order] for name in ("id", "label"))
        labels = labels.astype(str) if labels.dtype == object else labels
        vectors = columns["vector"].flatten().to_numpy().reshape(len(order), -1)[order]
        shape = len(probes), count
        return ids.reshape(shape), labels.reshape(shape), vectors.reshape(*shape, -1), values[order].reshape(shape)

    @property
    def indexed(self) -> bool:
        """Whether searches go through an approximate index."""
        return self.table is not None and any("vector" in index.columns for index in self.table.list_indices())

    def build_index(self, kind: Literal["HnswSq", "IvfSq", "IvfFlat", "IvfPq"] = "HnswSq", **options: Any) -> None:
        """Make searches faster and approximate. Samples that are enrolled later are compared exactly, until `optimize`.

        Args:
            kind: a class of `lancedb.index`: "HnswSq" (a graph, 8 bits per number; it takes long to build for more than
                some hundred thousand samples), "IvfSq" (cells, 8 bits; for millions), "IvfFlat" (cells, without loss
                of digits) or "IvfPq" (smallest).
            **options: arguments of that class, such as `num_partitions`.
        """
        if not len(self):
            raise ValueError("The gallery is empty: enroll samples before `build_index`")
        config = getattr(check_installed("lancedb.index", "gallery"), check_choice("kind", kind, INDEXES))
        self.table.create_index("vector", config=config(distance_type=self.metric, **options))

    def recall(self, probe: Samples, k: int = 10) -> float:
        """The share, in [0, 1], of the exact `k` nearest samples that searches find, over samples `probe` `(n, …)`."""
        if not len(self):
            raise ValueError("The gallery is empty: enroll samples before `recall`")
        probes = embed(self.siamese.encoder, check_source("probe", probe), name="probe")
        k = check_integer("k", k, low=1, high=len(self))
        found, exact = (self._search(probes, k, exact=exact)[0] for exact in (False, True))
        return float(np.mean([len(np.intersect1d(*ids)) / k for ids in zip(found, exact, strict=True)]))

    def optimize(self) -> None:
        """Compact the files after many small calls of `enroll` and `remove`, and add new samples to the index."""
        if self.table is not None:
            self.table.optimize()


def wide(column):
    """A column with its numbers in 64 bits, because the first call decides what a gallery can hold later."""
    kind = {"i": "int64", "u": "int64", "f": "float64"}.get(column.dtype.kind)
    return column if kind is None or column.dtype == "uint64" else column.astype(kind)


def glimpse_of(encoder):
    """A few values of each weight, bytes: training changes some of them, and they are read much faster than all."""
    parts = []
    for weight in encoder.weights:
        step = max(1, int(np.prod(weight.shape)) // GLIMPSE)
        if is_in_memory():
            few = keras.ops.convert_to_numpy(weight).reshape(-1)[::step]
        else:
            few = keras.ops.convert_to_numpy(keras.ops.ravel(weight)[::step])
        parts.append(few.tobytes())
    return b"".join(parts)


def digest_of(encoder):
    """A digest of the kinds of layers and the weights, which no other version of Keras or backend changes; bytes."""
    digest = hashlib.sha256(" ".join(type(layer).__name__ for layer in encoder._flatten_layers()).encode())
    add_weights(digest, encoder)
    return digest.hexdigest().encode()
