"""Embeddings in several files, read some rows at a time, also by other processes.

Contract: `Shards` has a `shape` `(n, dim)` and gives the rows of a slice. It holds names of files and their numbers of
rows, so it can be sent to workers, which open the files themselves. Files with a URL are opened by fsspec.

    shards = Shards(["a.npy", "b.npy", "s3://bucket/c.parquet"])
    shards.shape, shards[1000:2000]                          # (n, dim), (1000, dim)
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_siamese._checks import check_installed
from keras_siamese._types import StrPath


class Shards:
    """Embeddings `(n, dim)` in `.npy`, Parquet or Zarr files, one after the other.

    A `.npy` file holds `(rows, dim)` numbers and is memory-mapped, or read in part if it has a URL. Of a Parquet file,
    the column holds a list of dim numbers in each row; whole row groups are read. A Zarr file is one array `(rows,
    dim)`, of which whole chunks are read. URLs need fsspec, Parquet files pyarrow, Zarr files zarr (extra
    `distributed`).

    Args:
        files: a path or URL, or a list of them; they end in .npy, .parquet or .zarr.
        column: the column of the embeddings in Parquet files.

    Attributes:
        files: list of str. shape: `(n, dim)`. bytes: the size of all embeddings.

    Raises:
        ValueError: if a file does not hold embeddings `(rows, dim)`, or the files have different dim.

    >>> import tempfile, numpy as np
    >>> paths = [f"{tempfile.mkdtemp()}/{number}.npy" for number in range(2)]
    >>> for path in paths:
    ...     np.save(path, np.ones((3, 8), "float32"))
    >>> Shards(paths).shape, Shards(paths)[2:5].shape
    ((6, 8), (3, 8))
    """

    def __init__(self, files: StrPath | list[Any] | tuple[StrPath, ...], column: str = "embedding") -> None:
        files = list(files) if isinstance(files, (list, tuple)) else [files]
        if not files:
            raise ValueError("`files` must hold at least one file; got none")
        if wrong := [file for file in files if not isinstance(file, (str, os.PathLike))]:
            raise TypeError(f"`files` must be paths or URLs, or an array (n, dim); got a {type(wrong[0]).__name__}")
        self.files, self.column = [os.fspath(file) for file in files], column
        shapes, self.bytes = [], 0
        for part in self._parts:
            if len(part.shape) != 2 or not part.shape[1]:
                raise ValueError(f"`files` must hold embeddings (rows, dim); {part.file!r} holds {part.shape}")
            shapes.append(part.shape)
            self.bytes += part.shape[0] * part.shape[1] * part.dtype.itemsize
        if len(dims := {dim for _, dim in shapes}) > 1:
            raise ValueError(f"`files` must hold embeddings of one dim; got {', '.join(map(str, sorted(dims)))}")
        self.starts = np.concatenate([[0], np.cumsum([rows for rows, _ in shapes])])
        self.shape = int(self.starts[-1]), shapes[0][1]

    @cached_property
    def _parts(self):
        return [opened(file, self.column) for file in self.files]

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_parts"}  # open files

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The embeddings `(m, dim)` of a slice of rows, with step 1."""
        if not isinstance(rows, slice):
            raise TypeError(f"`rows` must be a slice with step 1; got {rows!r}")
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"`rows` must be a slice with step 1; got {rows!r}")
        found = []
        for number in range(len(self.files)):
            begin = int(self.starts[number])
            first, last = max(start, begin), min(stop, int(self.starts[number + 1]))
            if first < last:
                found.append(self._parts[number].read(first - begin, last - begin))
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), self._parts[0].dtype)


def opened(file, column):
    """The reader of a file, by the end of its name."""
    kind = Path(file).suffix
    if kind not in (".npy", ".parquet", ".zarr"):
        raise ValueError(f"`files` must end in .npy, .parquet or .zarr; got {file!r}")
    try:
        return Npy(file) if kind == ".npy" else Parquet(file, column) if kind == ".parquet" else Zarr(file)
    except (ValueError, EOFError) as error:
        raise ValueError(f"`files` must hold embeddings; {file!r} cannot be read: {error}") from error


def is_remote(file):
    """Whether `file` is a URL."""
    return "://" in file


def open_url(file):
    """An open binary file of a URL."""
    return check_installed("fsspec", "distributed").open(file, "rb").open()


class Npy:
    """A `.npy` file: `shape`, `dtype`, and the rows from `start` to `stop`."""

    def __init__(self, file):
        self.file = file
        self._remote = open_url(file) if is_remote(file) else None
        if self._remote is None:
            self._array = np.lib.format.open_memmap(file, mode="r")
            self.shape, self.dtype = self._array.shape, self._array.dtype
            return
        version = np.lib.format.read_magic(self._remote)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, is_fortran, self.dtype = header(self._remote)
        if is_fortran or self.dtype.hasobject:
            raise ValueError(f"`files` must hold numbers row by row; {file!r} does not")
        self._offset = self._remote.tell()

    def read(self, start, stop):
        if self._remote is None:
            return np.asarray(self._array[start:stop])
        size = self.shape[1] * self.dtype.itemsize
        self._remote.seek(self._offset + start * size)
        content = self._remote.read((stop - start) * size)
        return np.frombuffer(content, self.dtype).reshape(stop - start, self.shape[1])


class Parquet:
    """A column of lists of numbers in a Parquet file: `shape`, `dtype`, and the rows from `start` to `stop`."""

    def __init__(self, file, column):
        self.file, self.column, self._dim = file, column, None
        source = open_url(file) if is_remote(file) else file
        self._table = check_installed("pyarrow.parquet", "distributed").ParquetFile(source)
        if column not in (names := self._table.schema_arrow.names):
            raise ValueError(f"`column` must be a column of {file!r}, {', '.join(names)}; got {column!r}")
        metadata = self._table.metadata
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        first = self._group(0) if counts else np.empty((0, 0), "float32")
        self.shape, self.dtype = (int(self._starts[-1]), first.shape[1]), first.dtype

    def _group(self, number):
        lists = self._table.read_row_group(number, [self.column]).column(0).combine_chunks()
        found = lists.value_lengths().unique() if hasattr(lists, "value_lengths") else ()
        if not len(lists) or len(found) != 1 or lists.null_count or self._dim not in (None, found[0].as_py()):
            raise ValueError(f"`column` must hold lists of one length; {self.column!r} in {self.file!r} does not")
        self._dim = found[0].as_py()
        return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), self._dim)

    def read(self, start, stop):
        first = np.searchsorted(self._starts, start, side="right") - 1
        last = np.searchsorted(self._starts, stop, side="left")
        rows = np.concatenate([self._group(number) for number in range(first, last)])
        return rows[start - self._starts[first] : stop - self._starts[first]]


class Zarr:
    """An array `(rows, dim)` in Zarr's format: `shape`, `dtype`, and the rows from `start` to `stop`."""

    def __init__(self, file):
        self.file = file
        self._array = check_installed("zarr", "distributed").open_array(file, mode="r")
        self.shape, self.dtype = self._array.shape, self._array.dtype

    def read(self, start, stop):
        return np.asarray(self._array[start:stop])
