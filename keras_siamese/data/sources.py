"""Samples and their identities: what splits and sequences read from.

Contract: a *source* is a leaf, or a dict (nested at will) of leaves that share their first axis, the samples. A leaf is

- an array `(n, …)`, `np.memmap` included: used as it is, not copied, and checked for NaN once;
- an h5py Dataset `(n, …)`, read as it is used (see `Hdf5Rows`); a mapping, as an h5py Group or an open `.npz` is one,
  counts as a dict;
- any other object with `__len__` and `__getitem__(rows)`, which for integers `(m,)` in any order, also repeated, gives
  an array `(m, …)`, as `ImageFolder` does. It is never read whole: `Rows` around it checks each batch.

Identity labels `(n,)` are integers or strings; inside the room they are *codes*, integers 0 … K-1 in the sorted order
of the K distinct labels. The rest of `data` imports this module; it imports NumPy alone.

    x = check_source("x", {"image": images, "height": heights})
    identities, codes = encode(check_labels("labels", labels, length=count_samples(x)))
    batch, part = take(x, rows), subset(x, rows)      # what is read lazily: an array, and a view that has read nothing
"""

import numbers
import os
import warnings
from collections.abc import Mapping

import numpy as np

_BLOCK = 1 << 22  # values looked at together, so that the check of a memory-mapped array needs no copy of it
_NAMED = 10  # rows or files that an error lists; it counts the rest
# These have a length and items and are no lazy sources: NumPy says what becomes of them.
_IN_MEMORY = (list, tuple, range, str, bytes, bytearray, memoryview)


def map_arrays(function, x):
    """Applies `function` to the array, or to each array of the dict; returns the same structure."""
    if isinstance(x, dict):
        return {key: map_arrays(function, value) for key, value in x.items()}
    return function(x)


def named_arrays(name, x):
    """Lists `(path, array)` for each array of the source, as in ``("x['image']", images)``."""
    if isinstance(x, dict):
        return [pair for key, value in x.items() for pair in named_arrays(f"{name}[{key!r}]", value)]
    return [(name, x)]


def count_samples(x):
    """The number of samples n of a checked source."""
    return len(named_arrays("x", x)[0][1])


def take(x, rows):
    """The samples at `rows`, whole numbers `(m,)` or a slice, copied out by one gather an array."""
    numbers = isinstance(rows, np.ndarray)
    # Of small batches NumPy's `take` needs half the time that indexing does.
    return map_arrays(lambda a: a.take(rows, axis=0) if numbers and type(a) is np.ndarray else a[rows], x)


def subset(x, rows):
    """A source of the samples at `rows` `(m,)` alone: arrays are gathered, what is read lazily gives a view."""
    return map_arrays(lambda array: array.view(rows) if isinstance(array, Rows) else array[rows], x)


def check_source(name, x):
    """Returns the source with NumPy arrays and `Rows` for leaves: at least one sample, equal lengths.

    Arrays have no NaN and no infinity; what is read lazily is asked for its first and last sample only.
    """
    x = _clean(name, x)
    arrays = named_arrays(name, x)
    if not arrays:
        raise ValueError(f"`{name}` must hold at least one array; got {x!r}")
    for path, array in arrays:
        if array.ndim == 0:
            raise ValueError(f"`{path}` must be an array with samples along its first axis; got {array!r}")
    if len({len(array) for _, array in arrays}) > 1:
        lengths = ", ".join(f"{path} {len(array)}" for path, array in arrays)
        raise ValueError(f"`{name}` must hold arrays of one length; got {lengths}")
    if len(arrays[0][1]) == 0:
        raise ValueError(f"`{name}` must hold at least one sample; got shape {arrays[0][1].shape}")
    for path, array in arrays:
        if not isinstance(array, Rows):
            _check_finite_samples(path, array)
    return x


def _clean(name, x):
    if isinstance(x, Mapping):
        return {key: _clean(f"{name}[{key!r}]", value) for key, value in x.items()}
    if isinstance(x, Rows):
        return x
    if is_hdf5(x) and x.ndim:
        return Rows(Hdf5Rows(x), name=name)
    return Rows(x, name=name) if is_lazy(x) else _as_array(name, x)


def _as_array(name, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what NumPy 2 refuses, NumPy 1 makes an array of objects of, with a warning
        try:
            return np.asarray(x)
        except (ValueError, Warning) as error:
            raise ValueError(f"`{name}` has samples of inhomogeneous shapes: {error}") from error


def is_hdf5(x):
    """Whether `x` is an h5py Dataset; told by its class's name, as importing h5py to ask takes a while."""
    return any(cls.__module__.partition(".")[0] == "h5py" and cls.__name__ == "Dataset" for cls in type(x).__mro__)


def is_lazy(x):
    """Whether `x` is to be read by rows: it has a length and items, and neither is nor turns into an array."""
    readable = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    return readable and not isinstance(x, _IN_MEMORY) and not hasattr(x, "__array__")


def _check_finite_samples(name, array):
    if not np.issubdtype(array.dtype, np.inexact):
        return
    rows = max(1, _BLOCK // max(1, array[0].size))
    bad = sum(len(_not_finite(array[start : start + rows])) for start in range(0, len(array), rows))
    if bad:
        raise ValueError(f"`{name}` must be finite; {bad} of its {len(array)} samples hold NaN or infinite values")


def _not_finite(samples):
    """Positions of the samples that hold NaN or infinite values."""
    if not np.issubdtype(samples.dtype, np.inexact):
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(~np.isfinite(samples).reshape(len(samples), -1).all(axis=1))


def encode(labels):
    """Returns the K distinct `labels`, sorted, `(K,)`, and for each sample the position of its label there, `(n,)`.

    >>> identities, codes = encode(np.array(["wren", "lark", "wren"]))
    >>> identities.tolist(), codes.tolist()
    (['lark', 'wren'], [1, 0, 1])
    """
    return np.unique(labels, return_inverse=True)


def row_numbers(key, n):
    """The rows `(m,)` of n that `key` means: a slice, a mask `(n,)`, or integers, counted from the end if negative."""
    if isinstance(key, slice):
        return np.arange(*key.indices(n))
    rows = np.asarray(key)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.size == 0:
        return np.empty(0, dtype=np.intp)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"Rows must be integers of shape (m,) or a slice; got {rows.dtype} of shape {rows.shape}")
    wrong = rows[(rows < -n) | (rows >= n)]
    if wrong.size:
        raise IndexError(f"Rows must be below {n}; got {wrong[0]}")
    return np.where(rows < 0, rows + n, rows)


def first_few(items):
    """The first few of `items` as text, and how many more there are."""
    listed = ", ".join(str(item) for item in items[:_NAMED])
    return listed if len(items) <= _NAMED else f"{listed} and {len(items) - _NAMED} more"


class Rows:
    """A lazily read leaf, or some rows of it, with an array's `shape`, `dtype` and items; every reading is checked.

    It holds the row numbers and no sample, and is as picklable and as safe among threads as its source.

    Args:
        source: object with `__len__` and `__getitem__(rows)` → `(m, …)`, for integers `(m,)` in any order and repeated.
        rows: which of its samples, integers `(n,)`; None stands for all.
        name: what errors call it.

    Attributes:
        source, rows: as given; `rows[i]` is where sample i is in `source`.
        shape, dtype, ndim: as of an array `(n, …)`; by the first and the last sample.

    >>> class Squares:
    ...     def __len__(self):
    ...         return 1000
    ...
    ...     def __getitem__(self, rows):
    ...         return rows**2
    >>> part = Rows(Squares()).view([9, 3, 900])
    >>> part.shape, part[[2, 0, 0]].tolist(), part[1].item()
    ((3,), [810000, 81, 81], 9)
    """

    def __init__(self, source, rows=None, *, name="x"):
        self.source, self.rows, self.name = source, rows, name
        n = len(source) if rows is None else len(rows)
        self.shape, self.dtype = (n,), np.dtype(float)
        if n:
            sample = self._probe(n)
            self.shape, self.dtype = (n, *sample.shape[1:]), sample.dtype

    def _probe(self, n):
        """The last sample and the first twice: what rows in any order and repeated come to."""
        try:
            return self[np.array([n - 1, 0, 0])]
        except Exception as error:
            raise ValueError(
                f"`{self.name}` must give samples (m, …) for integers (m,) in any order, repeated; this "
                f"{type(self.source).__name__} of {n}, asked for {n - 1}, 0, 0, raised {type(error).__name__}: {error}"
            ) from error

    @property
    def ndim(self):
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def view(self, rows):
        """`Rows` of the samples at `rows` `(m,)` of these; nothing is read but what tells the shape."""
        rows = row_numbers(rows, len(self))
        part = object.__new__(type(self))
        vars(part).update(vars(self))
        part.rows = rows if self.rows is None else self.rows[rows]
        part.shape = (len(rows), *self.shape[1:])
        return part

    def __getitem__(self, key):
        if isinstance(key, numbers.Integral):
            return self[np.array([key])][0]
        rows = row_numbers(key, len(self))
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        if self.rows is not None:
            rows = self.rows[rows]
        samples = np.asarray(self.source[rows])
        if samples.ndim == 0 or len(samples) != len(rows):
            raise ValueError(
                f"`{self.name}` must give one sample for each of the {len(rows)} rows asked for, (m, …); "
                f"got shape {samples.shape}"
            )
        bad = _not_finite(samples)
        if len(bad):
            where = first_few(sorted(set(rows[bad].tolist())))
            raise ValueError(f"`{self.name}` must be finite; NaN or infinite values in its rows {where}")
        return samples

    def __repr__(self):
        return f"Rows({len(self)} of {len(self.source)} samples of {self.source!r})"


class Hdf5Rows:
    """An h5py Dataset `(n, …)` by rows in any order and repeated, of which HDF5 itself takes increasing ones only.

    In its own process it uses the dataset as long as that is open. Elsewhere (a worker process), or later, it opens
    the file again, for reading, by its name; that fails while another process has it open for writing.

    Args:
        dataset: the h5py Dataset.
    """

    def __init__(self, dataset):
        self.file, self.dataset = os.path.abspath(dataset.file.filename), dataset.name
        self._length = len(dataset)
        self._opened = (os.getpid(), dataset)

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key != "_opened"}

    def __setstate__(self, state):
        vars(self).update(state, _opened=(None, None))

    def _open(self):
        process, dataset = self._opened  # replaced whole, so threads need no lock
        if process != os.getpid() or not dataset:
            import h5py  # comes with Keras

            dataset = h5py.File(self.file, "r")[self.dataset]
            self._opened = (os.getpid(), dataset)
        return dataset

    def __len__(self):
        return self._length

    def __getitem__(self, rows):
        dataset = self._open()
        increasing, place = np.unique(rows, return_inverse=True)
        first, last = increasing[0], increasing[-1]
        is_stretch = last - first + 1 == len(increasing)  # which HDF5 reads much faster than a list of rows
        samples = dataset[first : last + 1] if is_stretch else dataset[increasing]
        return samples if len(increasing) == len(rows) and np.all(np.diff(rows) > 0) else samples[place]

    def __repr__(self):
        return f"{self.dataset!r} in {self.file!r}"
