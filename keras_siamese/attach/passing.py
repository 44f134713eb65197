"""Data that can be read only once, recorded on their way into `fit`.

Reading a generator takes its batches from `fit`, and reading a shuffled `tf.data.Dataset` or a `DataLoader` changes
which ones it gives later. So their batches are copied as they pass.

Contract: `passing` wraps data so that `fit` gets exactly what it would get without; `is_readable` tells whether this is
needed. Imports `feed`.

    given, seen = passing(generator)
    model.fit(given, …)
    x, y = seen.read()               # the first batches that have passed; None before the first one
"""

import inspect

import keras
import numpy as np
from keras import tree

from keras_siamese.attach.feed import ROWS, is_batched, joined_batches

BYTES = 500_000_000  # of large samples, such as images, fewer than `ROWS` are kept
STATELESS = {  # data sets of TensorFlow that give the same elements whenever they are read
    *("TensorSlice", "Tensor", "Range", "Batch", "ParallelBatch", "PaddedBatch", "Prefetch", "Zip", "Take", "Skip"),
    *("Cache", "Options", "Concatenate", "Unbatch", "Repeat", "Map", "ParallelMap", "Filter"),
}


class Passing:
    """The first batches that have passed, of at least `rows` samples or `BYTES` together if there are so many; at most
    `steps` batches, if this is given.
    """

    def __init__(self, rows=ROWS, steps=None):
        self.rows, self.steps, self.count, self.bytes, self.batches = rows, steps, 0, 0, []

    def __deepcopy__(self, memo):  # what fit is given records into this one
        return self

    def see(self, batch):
        """Keep a copy of `batch`: `(x, y)`, `(x, y, sample_weight)` or `x`."""
        is_full = self.steps is not None and len(self.batches) >= self.steps
        if self.count < self.rows and self.bytes < BYTES and not is_full:
            batch = batch if isinstance(batch, (tuple, list)) else (batch,)
            kept = tree.map_structure(lambda one: None if one is None else np.array(one), tuple(batch[:2]))
            self.batches.append(kept)
            self.count += len(tree.flatten(kept[0])[0])
            self.bytes += sum(array.nbytes for array in tree.flatten(kept) if array is not None)

    def read(self):
        """`(x, y)` as arrays; None if no batch has passed."""
        return joined_batches(self.batches, self.rows) if self.batches else None


def passing(data, rows=ROWS, steps=None):
    """`(data as fit takes them, Passing)` of a generator, a `tf.data.Dataset` or a torch `DataLoader`.

    Both are None for any other kind of data.
    """
    seen = Passing(rows, steps)
    if inspect.isgenerator(data):
        return recorded(data, seen), seen
    if hasattr(data, "element_spec") and hasattr(data, "map"):
        return mapped(data, seen), seen
    if any(one.__name__ == "DataLoader" and one.__module__.startswith("torch.") for one in type(data).__mro__):
        return loader(data, seen), seen
    return None, None


def recorded(batches, seen):
    """A generator of the same batches."""
    for batch in batches:
        seen.see(batch)
        yield batch


def mapped(dataset, seen):
    """The same elements as those of a `tf.data.Dataset`."""
    import tensorflow as tf

    def keep(*tensors):
        arrays = iter([tensor.numpy() for tensor in tensors])
        seen.see(tf.nest.map_structure(lambda _: next(arrays), dataset.element_spec))

    def record(*elements):
        element = elements if isinstance(dataset.element_spec, tuple) else elements[0]
        kept = tf.py_function(keep, tf.nest.flatten(element), [])
        with tf.control_dependencies([kept] if isinstance(kept, tf.Operation) else kept):
            return tf.nest.map_structure(tf.identity, element)

    return dataset.map(record)


def loader(data, seen):
    """The same `DataLoader`, whose iterators record."""

    class Recorded(type(data)):
        def __iter__(self):
            return recorded(super().__iter__(), seen)

    Recorded.__name__ = Recorded.__qualname__ = type(data).__name__
    made = Recorded.__new__(Recorded)
    vars(made).update(vars(data))
    return made


def is_readable(data):
    """Whether `data` can be read without a change of what they give later."""
    if isinstance(data, (tuple, list)) and len(data) and is_batched(data[0]):
        data = data[0]
    if not is_batched(data) or isinstance(data, keras.utils.PyDataset):
        return True
    return is_stateless(data)


def is_stateless(data):
    """Whether `data` are a `tf.data.Dataset` without shuffling, generators, random functions or other state."""
    kind = type(data).__name__.removeprefix("_").removesuffix("Dataset").split("V")[0]
    if not hasattr(data, "_inputs") or not hasattr(data, "_functions") or kind not in STATELESS:
        return False
    graphs = [function.function.graph for function in data._functions()]
    if any(operation.op_def.is_stateful for graph in graphs for operation in graph.get_operations()):
        return False
    return all(map(is_stateless, data._inputs()))
