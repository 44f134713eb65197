"""Data as `fit` takes them, read once into arrays.

Contract: `gather` reads arrays, tensors and pandas objects, and lists, tuples and dicts of these. It also reads batches
from a `tf.data.Dataset`, a `PyDataset`, a torch `DataLoader`, a generator, or a function that returns a generator.
`pair_labels` returns one label for each pair. A sequence of this package is recognised by its class, because a user's
generator may have attributes of any name.

    x, y = gather(([left, right], labels))
    x, y = gather(dataset, rows=5000)          # the first batches of a data set that may be infinite
"""

import inspect

import keras
import numpy as np
from keras import tree

from keras_siamese.data.sequence import EpochSequence

ROWS = 20_000  # samples that are read of data that come in batches


def gather(data, rows=ROWS, name="validation"):
    """The inputs and targets of `data` as nested structures of arrays `(n, …)`; without targets they are None.

    Args:
        data: `(x, y)`, `(x, y, sample_weight)`, or an object that gives such batches.
        rows: number of samples to read of data that come in batches.
        name: what errors call the data.

    Raises:
        ValueError: if there are no samples, or the arrays differ in length.
    """
    if isinstance(data, (tuple, list)):
        x, y = (*data, None)[:2]
    else:
        x, y = joined_batches(batches_of(data), rows)
    x, y = to_arrays(x), None if y is None else to_arrays(y)
    arrays = [array for array in tree.flatten((x, y)) if array is not None]
    check_lengths({len(array) if array.ndim else None for array in arrays}, name)
    return x, y


def check_lengths(lengths, name):
    """Raises if the set of `lengths` of the arrays in data is not one number of samples, at least one."""
    if len(lengths) != 1 or lengths in ({0}, {None}):
        wanted = "inputs and targets with the same number of samples, at least one"
        raise ValueError(f"`{name}` must have {wanted}; got {lengths}")


def known_lengths(data):
    """The numbers of samples, as a set, that the arrays of `(x, y)` tell by their shapes; nothing is read."""
    shapes = [tuple(shape) for one in tree.flatten(list(data[:2])) if (shape := getattr(one, "shape", None))]
    return {shape[0] for shape in shapes if shape[0] is not None}


def is_batched(data):
    """Whether `data` comes in batches: it is neither arrays nor tuples, lists or dicts of arrays."""
    if isinstance(data, (tuple, list, dict, str, bytes)) or hasattr(data, "shape") or hasattr(data, "to_numpy"):
        return False
    return inspect.isroutine(data) or hasattr(data, "__iter__") or hasattr(data, "__getitem__")


def batches_of(data):
    """An iterator over the batches of `data`."""
    if callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        return iter(data())
    if isinstance(data, EpochSequence):  # all rows, in each process
        return (data.batch(data.epoch, number) for number in range(len(data)))
    if isinstance(data, keras.utils.PyDataset) or not hasattr(data, "__iter__"):
        return (data[number] for number in range(len(data)))
    return iter(data)


def joined_batches(batches, rows):
    """The inputs and targets of the first batches, of at least `rows` samples together if there are so many."""
    parts, count = [], 0
    for batch in batches:
        batch = batch if isinstance(batch, (tuple, list)) else (batch,)
        x, y = (*batch, None)[:2]
        parts.append((to_arrays(x), None if y is None else to_arrays(y)))
        if any(array.ndim == 0 for array in tree.flatten(parts[-1]) if array is not None):
            must = "Data that are read in parts must come in batches, (x, y), with the samples along the first axis"
            how = "Call batch(32) on a tf.data.Dataset, or give batch_size to a DataLoader"
            raise ValueError(f"{must}; got single samples or numbers. {how}")
        count += len(tree.flatten(parts[-1][0])[0])
        if count >= rows:
            break
    if not parts:
        raise ValueError("The data must hold at least one batch; got none. A generator can be used only once")
    return tree.map_structure(lambda *arrays: None if arrays[0] is None else np.concatenate(arrays), *parts)


def to_arrays(x):
    """The same structure with NumPy arrays as leaves."""
    if isinstance(x, dict):
        return {key: to_arrays(value) for key, value in x.items()}
    if isinstance(x, (tuple, list)) and len(x) and not np.isscalar(x[0]):
        return type(x)(to_arrays(value) for value in x) if type(x) in (tuple, list) else [*map(to_arrays, x)]
    if hasattr(x, "to_numpy"):
        return x.to_numpy()
    return np.asarray(x) if isinstance(x, (np.ndarray, list, tuple)) else keras.ops.convert_to_numpy(x)


def pair_labels(y, pairs):
    """One label for each of `pairs` pairs, from targets `(n,)`, `(n, 1)` or one-hot `(n, 2)`, or several outputs'.

    Raises:
        ValueError: if there are not two labels, or if they are strings.
    """
    columns = []
    for array in tree.flatten(y):
        if array is None or len(array) != pairs:
            continue
        if array.ndim == 2 and array.shape[1] == 2 and np.all(array.sum(axis=1) == 1):
            return np.argmax(array, axis=1)
        labels = array.reshape(pairs, -1)
        if labels.shape[1] == 1:
            columns.append(labels[:, 0])
            if len(np.unique(labels)) == 2:
                return refuse_strings(columns[-1])
    must = (
        f"The targets `y` must hold two labels, 1 for genuine and 0 for impostor pairs, for each of the {pairs} pairs"
    )
    if not columns:
        found = [tuple(array.shape) for array in tree.flatten(y) if array is not None]
        raise ValueError(f"{must}; got shapes {found}")
    values = list(dict.fromkeys(columns[0].tolist()))
    if len(values) == 1:
        raise ValueError(f"{must}; all of them have the label {values[0]!r}")
    few = ", ".join(map(repr, values[:4])) + (", …" if len(values) > 4 else "")
    raise ValueError(f"{must}; got {len(values)} labels: {few}")


def refuse_strings(labels):
    """The `labels` `(n,)` of pairs; raises if they are strings."""
    texts = [value for value in dict.fromkeys(labels.tolist()) if isinstance(value, (str, bytes))]
    if texts:
        give = f"Give (y == {texts[0]!r}).astype(int), if {texts[0]!r} means genuine"
        must = "The targets `y` must be numbers, 1 for genuine and 0 for impostor pairs"
        raise ValueError(f"{must}; got the strings {', '.join(map(repr, texts))}. {give}")
    return labels
