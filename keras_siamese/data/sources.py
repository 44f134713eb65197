"""Sources of samples and their identities, for splits and sequences.

Contract: a *source* holds samples along its first axis. It is one leaf, or a dict of leaves, which may be nested. A
leaf is one of these:

- an array `(n, …)`, also an `np.memmap`: it is not copied, and is checked for NaN once;
- an h5py Dataset `(n, …)`, read lazily (see `Hdf5Rows`); other mappings, such as an h5py Group or an open `.npz`, are
  treated as dicts;
- any other object with `__len__` and `__getitem__(rows)` that returns an array `(m, …)` for integers `(m,)` in any
  order, also repeated, as `ImageFolder` does. It is never read whole; `Rows` wraps it and checks each batch.

Identity labels `(n,)` are integers or strings. Inside `data` they are *codes*, integers 0 … K − 1 in the sorted order
of the K distinct labels. The other modules of `data` import this one.

    x = check_source("x", {"image": images, "height": heights})
    identities, codes = encode(check_labels("labels", labels, length=count_samples(x)))
    batch, part = take(x, rows), subset(x, rows)                        # of a lazy source, `part` is an unread view
"""

import copy
import numbers
import os
from collections.abc import Mapping

import keras
import numpy as np

from keras_siamese._checks import as_array, check_model_input

_BLOCK = 1 << 22  # values checked together, because the check of a whole memory-mapped array would copy it
_NAMED = 10  # rows or files that an error lists; the others are counted
# These have a length and items but are not lazy sources: NumPy converts them.
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


def take(x, rows, workers=1):
    """The samples at `rows`, integers `(m,)` or a slice; arrays are copied; a source may use `workers` processes."""
    return map_arrays(lambda array: _take(array, rows, workers), x)


def _take(array, rows, workers):
    if isinstance(array, Rows):
        return array.read(rows, workers)
    # For small batches, NumPy's `take` needs half the time of indexing.
    return array.take(rows, axis=0) if isinstance(rows, np.ndarray) and type(array) is np.ndarray else array[rows]


def subset(x, rows):
    """A source of the samples at `rows` `(m,)`: arrays are copied, lazy sources give a view."""
    return map_arrays(lambda array: array.view(rows) if isinstance(array, Rows) else array[rows], x)


def check_source(name, x):
    """Returns the source with NumPy arrays and `Rows` as leaves, of equal lengths ≥ 1.

    Arrays must not have NaN or infinite values. Of lazy leaves, only the first and the last sample are read.
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
        if not isinstance(array, Rows) and np.issubdtype(array.dtype, np.inexact):
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
    array = as_array(name, x)
    return _plain(name, array) if array.dtype.kind in "OS" else array


def _plain(name, array):
    """An array of objects or bytes as one of strings or numbers, if it holds nothing else."""
    kinds = {type(value) for value in array.ravel().tolist()}
    if kinds == {bytes}:
        try:
            return np.char.decode(array.astype(bytes), "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"`{name}` must hold bytes that are UTF-8 text; {error}") from error
    if kinds == {str}:
        return array.astype(str)
    if kinds and kinds <= {int, float, bool}:
        return array.astype(float if float in kinds else int)
    found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none"
    raise TypeError(f"`{name}` must be an array of numbers or of strings; got an array of objects of type {found}")


def fed(x, name="x"):
    """A batch as a model takes it: strings as tensors of TensorFlow, because Keras takes no NumPy array of strings.

    Args:
        x: a batch `(m, …)`, an array or a dict of arrays.
        name: what errors call it.

    Raises:
        TypeError: if it holds strings and the backend is not TensorFlow. The other backends have no tensors of strings.
    """
    return map_arrays(lambda array: _fed_array(name, array), x)


def _fed_array(name, array):
    if not isinstance(array, np.ndarray) or array.dtype.kind != "U":
        return array
    if keras.backend.backend() != "tensorflow":
        check_model_input(name, array)
    import tensorflow as tf

    return tf.constant(array.astype(object), dtype=tf.string)


def is_hdf5(x):
    """Whether `x` is an h5py Dataset, by the name of its class, because importing h5py is slow."""
    return any(cls.__module__.partition(".")[0] == "h5py" and cls.__name__ == "Dataset" for cls in type(x).__mro__)


def is_lazy(x):
    """Whether `x` is read by rows: it has a length and items, and is not an array or convertible to one."""
    readable = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    return readable and not isinstance(x, _IN_MEMORY) and not hasattr(x, "__array__")


def _check_finite_samples(name, array):
    rows = max(1, _BLOCK // max(1, array[0].size))
    bad = sum(len(_not_finite(array[start : start + rows])) for start in range(0, len(array), rows))
    if bad:
        raise ValueError(f"`{name}` must be finite; {bad} of its {len(array)} samples hold NaN or infinite values")


def _not_finite(samples):
    """Positions of the samples with NaN or infinite values."""
    if not np.issubdtype(samples.dtype, np.inexact):
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(~np.isfinite(samples).reshape(len(samples), -1).all(axis=1))


def encode(labels):
    """Returns the K distinct `labels` `(K,)`, sorted, and the position of each sample's label among them `(n,)`.

    >>> identities, codes = encode(np.array(["wren", "lark", "wren"]))
    >>> identities.tolist(), codes.tolist()
    (['lark', 'wren'], [1, 0, 1])
    """
    return np.unique(labels, return_inverse=True)


def row_numbers(key, n):
    """The rows `(m,)` of n that `key` selects: a slice, a mask `(n,)` or integers, negative ones from the end."""
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
    """The first few of `items` as text, and the number of others."""
    listed = ", ".join(str(item) for item in items[:_NAMED])
    return listed if len(items) <= _NAMED else f"{listed} and {len(items) - _NAMED} more"


class Rows:
    """A lazily read leaf, or some rows of it, with `shape`, `dtype` and items like an array; checks all that it reads.

    It holds row numbers and no samples, and can be pickled and shared by threads if its source can.

    Args:
        source: object with `__len__` and `__getitem__(rows)` → `(m, …)`, for integers `(m,)` in any order and repeated.
        rows: the rows of `source` that it has, integers `(n,)`; by default all.
        name: its name in errors.

    Attributes:
        source, rows: as given; sample i is `source[rows[i]]`.
        shape, dtype, ndim: like those of an array `(n, …)`; found from the first and the last sample.

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
        """The last sample and the first twice, which tests rows in any order and repeated."""
        try:
            return self[np.array([n - 1, 0, 0])]
        except Exception as error:
            wanted = "samples (m, …) for integers (m,) in any order, repeated"
            asked = f"this {type(self.source).__name__} of {n}, asked for {n - 1}, 0, 0, raised {type(error).__name__}"
            raise ValueError(f"`{self.name}` must give {wanted}; {asked}: {error}") from error

    @property
    def ndim(self):
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def view(self, rows):
        """`Rows` of the samples at `rows` `(m,)` of these; nothing is read."""
        rows = row_numbers(rows, len(self))
        part = copy.copy(self)
        part.rows = rows if self.rows is None else self.rows[rows]
        part.shape = (len(rows), *self.shape[1:])
        return part

    def __getitem__(self, key):
        return self.read(key)

    def read(self, key, workers=1):
        """The samples at `key`, integers `(m,)` or a slice, or the one at an integer.

        A source with a method `read_rows(rows, workers)` may read them with that many processes; its values are finite.
        """
        if isinstance(key, numbers.Integral):
            return self[np.array([key])][0]
        rows = row_numbers(key, len(self))
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        if self.rows is not None:
            rows = self.rows[rows]
        reads = hasattr(self.source, "read_rows")
        samples = np.asarray(self.source.read_rows(rows, workers) if reads else self.source[rows])
        if samples.ndim == 0 or len(samples) != len(rows):
            wanted = f"one sample for each of the {len(rows)} rows asked for, (m, …)"
            raise ValueError(f"`{self.name}` must give {wanted}; got shape {samples.shape}")
        bad = () if reads else _not_finite(samples)
        if len(bad):
            where = first_few(sorted(set(rows[bad].tolist())))
            raise ValueError(f"`{self.name}` must be finite; NaN or infinite values in its rows {where}")
        return samples

    def __repr__(self):
        return f"Rows({len(self)} of {len(self.source)} samples of {self.source!r})"


class Hdf5Rows:
    """Reads rows of an h5py `dataset` `(n, …)` in any order and repeated; HDF5 itself reads only increasing rows.

    It uses the given dataset in the same process while that is open. In a worker process, or later, it opens the file
    again by its name, for reading. This fails while another process has the file open for writing.
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
        process, dataset = self._opened  # a tuple that is only replaced whole, so threads need no lock
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
        # HDF5 reads consecutive rows much faster than a list of rows.
        samples = dataset[first : last + 1] if last - first + 1 == len(increasing) else dataset[increasing]
        return samples if len(increasing) == len(rows) and np.all(np.diff(rows) > 0) else samples[place]

    def __repr__(self):
        return f"{self.dataset!r} in {self.file!r}"
