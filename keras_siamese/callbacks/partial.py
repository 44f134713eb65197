"""`PartialFC`: proxy losses over millions of identities, of which each step trains a sample.

Contract: the proxies of all classes, and what the optimizer keeps of each, lie in arrays in memory or in files. The
layer in the model has room for a sample. Before each step the rows of the step's classes are put into the layer and the
optimizer, and after it they are taken back. So the cost of a step depends on the sample, not on the number of classes.

    classes = PartialFC(batches, num_classes=1_000_000, sample=0.1)
    model = keras.Sequential([encoder, ks.layers.ProxyLogits(classes.sample)])
    model.compile("adam", loss=ks.losses.ArcFaceLoss())
    model.fit(classes.batches(), steps_per_epoch=len(batches), epochs=20, shuffle=False, callbacks=[classes])
"""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_siamese._checks import check_integer, check_number
from keras_siamese._replicas import refuse_parts
from keras_siamese._types import StrPath

__all__ = ["PartialFC"]

PEEKED = 2  # batches that Keras may draw before the callbacks know that training begins


class PartialFC(keras.callbacks.Callback):
    """Train a proxy loss over many classes, on a sample of them in each step.

    A step has the classes of its batch and, at random, as many others as fill the sample. The negatives of a row are
    the classes of the sample. Only their proxies are updated. If all classes are in the sample, training is that of a
    `ProxyLogits` layer with all classes.

    The labels in `batches` are class numbers; `batches()` changes them to places in the sample. Give `fit` this
    generator and the callback. The generator is endless, so `steps_per_epoch` is needed; `shuffle=False` keeps Keras
    from warning that a generator is not shuffled.

    With `gradient_accumulation_steps` of the optimizer, each class keeps its own sum of gradients. Proxies move only in
    the steps in which the optimizer updates, and then only those of the sample. A class that is not in it keeps its sum
    until a later update. What is left when training ends is not applied.

    An, Zhu, Gao, Xiao, Zhao, Feng, Wu, Qin, Zhang, Zhang, Fu, *Partial FC: Training 10 Million Identities on a Single
    Machine*, ICCV Workshops 2021, https://arxiv.org/abs/2010.05222. There, as here, the optimizer's state of a class
    rests while the class is not in the sample.

    Args:
        batches: a sequence such as `BalancedBatchSequence` or a `keras.utils.PyDataset`, whose items are `(x, labels)`
            or `(x, labels, sample_weight)`; labels are whole numbers `(batch,)` or `(batch, 1)`.
        num_classes: number of classes C; labels are 0 … C − 1.
        sample: number of classes in a step, from 1 to `num_classes`, or their share, a float in (0, 1].
        folder: folder for the arrays, which are then memory-mapped `.npy` files; made if it is missing. If it holds the
            arrays of an earlier run, training goes on with them. None (default) keeps them in memory.
        seed: integer ≥ 0 for the first proxies and for the samples. The sample is a function of the seed, the epoch and
            the batch.

    Attributes:
        sample: number of classes in a step, the `num_classes` of the layer.

    Raises:
        ValueError: in training, if a batch has more classes than the sample, if a label is not a class, or if the model
            is not built or does not have exactly one layer with `sample` proxies. Also if the optimizer keeps a state
            that has no row for each class, as Adafactor does, with several replicas of a TensorFlow strategy, and in
            several processes of JAX.

    >>> import numpy as np, keras_siamese as ks
    >>> x, labels = np.random.rand(40, 8).astype("float32"), np.repeat(np.arange(10) * 99, 4)
    >>> batches = ks.data.BalancedBatchSequence(x, labels, classes_per_batch=5, samples_per_class=2)
    >>> classes = PartialFC(batches, num_classes=1000, sample=50)
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), ks.layers.ProxyLogits(classes.sample)])
    >>> model.compile("adam", loss=ks.losses.ArcFaceLoss())
    >>> _ = model.fit(classes.batches(), steps_per_epoch=4, shuffle=False, verbose=0, callbacks=[classes])
    >>> classes.proxies.shape
    (1000, 4)
    """

    _drawn: Drawn | None

    def __init__(
        self, batches: Any, num_classes: int, sample: float = 0.1, *, folder: StrPath | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if not (hasattr(batches, "__getitem__") and hasattr(batches, "__len__")):
            raise TypeError(f"`batches` must be a sequence of batches; got a {type(batches).__name__}")
        self.sequence = batches
        self.num_classes = check_integer("num_classes", num_classes, low=1)
        if isinstance(sample, float):
            check_number("sample", sample, low=0, high=1, open_low=True)
            sample = max(1, round(sample * self.num_classes))
        self.sample = check_integer("sample", sample, low=1, high=self.num_classes)
        self.folder = None if folder is None else Path(folder)
        self.seed = check_integer("seed", seed, low=0)
        self.store = {}  # arrays (classes, …) by name: "proxies", and those of the optimizer
        self._held, self._layer = None, None  # the classes in the layer
        self._drawn = None

    def batches(self, initial_epoch: int = 0) -> Iterator[tuple[Any, ...]]:
        """An endless generator of the batches, with labels that are places in the step's sample, for one `fit`.

        Args:
            initial_epoch: the epoch that comes first, as in `keras.Model.fit`.
        """
        self._drawn = drawn = Drawn(self._batches(check_integer("initial_epoch", initial_epoch, low=0)))
        return (drawn.batch() for _ in itertools.count())

    def _batches(self, initial_epoch):
        for epoch in itertools.count(initial_epoch):
            if hasattr(self.sequence, "set_epoch"):
                self.sequence.set_epoch(epoch)
            for index in range(len(self.sequence)):
                x, labels, *weights = self.sequence[index]
                labels = self._checked(labels)
                rng = np.random.default_rng([self.seed, epoch, index])
                classes = sampled(labels, self.num_classes, self.sample, rng)
                yield (x, np.searchsorted(classes, labels).astype("int32"), *weights), classes
            if hasattr(self.sequence, "on_epoch_end"):
                self.sequence.on_epoch_end()

    def _checked(self, labels):
        labels = np.asarray(ops.convert_to_numpy(labels))
        rows = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ValueError(f"`labels` must be whole numbers (batch,); got {labels.dtype} {labels.shape}")
        if rows.size and not 0 <= rows.min() <= rows.max() < self.num_classes:
            found = f"{rows.min()} to {rows.max()}"
            raise ValueError(f"`labels` must be classes in 0 … {self.num_classes - 1} (`num_classes`); got {found}")
        return rows.astype("int64")

    @property
    def proxies(self) -> np.ndarray:
        """The proxies of all classes `(num_classes, dim)`, or `(num_classes, centers, dim)`; empty before training."""
        self._take_back()
        found = self.store.get("proxies", np.zeros((self.num_classes, 0), "float32"))
        return found[:, 0] if found.ndim == 3 and found.shape[1] == 1 else found

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.model.steps_per_execution != 1:
            raise ValueError(f"`steps_per_execution` must be 1; got {self.model.steps_per_execution}")
        refuse_parts("PartialFC", self.model)
        if self._drawn is None or self._drawn.is_used:
            how = "fit(classes.batches(), steps_per_epoch=…, shuffle=False, callbacks=[classes])"
            raise ValueError(f"`fit` must be given `batches()` of this callback, made anew for each fit: {how}")
        if not self.model.built:
            raise ValueError("`model` must be built before `fit`: let it begin with keras.Input(shape)")
        self._drawn.is_used = True  # from now on, each batch has its classes in the model
        self._layer = layer_with(self.model, self.sample)
        self._held = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        classes = self._drawn.classes()
        if self._held is not None and np.array_equal(classes, self._held):
            return
        self._take_back()
        self._held = classes
        for name, variable in self._variables().items():
            rows = self._array(name, variable)[classes]
            variable.assign(rows.reshape(variable.shape))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._take_back()
        # Between epochs, other callbacks may put the weights of an earlier step into the layer, of other classes.
        self._held = None
        for array in self.store.values():
            if isinstance(array, np.memmap):
                array.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.on_epoch_end(None)

    def _take_back(self):
        """Puts the rows that are in the layer and the optimizer back into the arrays."""
        if self._held is None:
            return
        for name, variable in self._variables().items():
            array = self._array(name, variable)
            array[self._held] = ops.convert_to_numpy(variable.value).reshape(self.sample, *array.shape[1:])

    def _variables(self):
        """The variables that have rows for each class of the sample, by name: the proxies and the optimizer's."""
        sync = getattr(self.model, "jax_state_sync", None)
        if sync is not None:  # within an epoch, JAX's trainer keeps the values elsewhere
            sync()
        proxies, optimizer = self._layer.proxies, self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        found, mark = {"proxies": proxies}, proxies.path.replace("/", "_")
        for variable in optimizer.variables:
            if len(variable.shape) and proxies.name in variable.path:
                if variable.shape != proxies.shape or mark not in variable.path:
                    must = "`optimizer` must keep a row of its state for each proxy, as Adam and SGD do"
                    what = f"{type(optimizer).__name__} keeps {tuple(variable.shape)} for {tuple(proxies.shape)}"
                    raise ValueError(f"{must}; {what}")
                found[variable.path.rsplit(mark, 1)[1].strip("_") or "state"] = variable
        return found

    def _array(self, name, variable):
        """The array `(num_classes, centers, dim)` of all rows: at first random proxies, or as the optimizer starts."""
        if name not in self.store:
            shape = (self.num_classes, variable.shape[0] // self.sample, variable.shape[1])
            array, is_new = made(self.folder and self.folder / f"{name}.npy", shape)
            if is_new and name == "proxies":
                fill(array, np.random.default_rng(self.seed))
            elif is_new and name == "average":  # with `use_ema`, weights are averaged from their first values on
                array[:] = self.store["proxies"]
            elif is_new:
                rows = ops.convert_to_numpy(variable.value)
                array[:] = rows[0] if (rows == rows[0]).all() else 0.0  # alike, unless the model was trained before
            self.store[name] = array
        return self.store[name]


class Drawn:
    """The batches that were drawn from an iterator of `(batch, classes)`, for two readers who take turns in any order.

    Keras draws batches ahead of the steps on TensorFlow, and after a step has begun on JAX.
    """

    def __init__(self, source):
        self._source, self._lock, self._waiting = source, threading.Lock(), (collections.deque(), collections.deque())
        self.is_used, self._given = False, 0

    def batch(self):
        self._given += 1
        if self._given > PEEKED and not self.is_used:
            raise ValueError("`callbacks` of `fit` must hold the PartialFC whose `batches()` it is given")
        return self._next(0)

    def classes(self):
        return self._next(1)

    def _next(self, reader):
        with self._lock:
            if not self._waiting[reader]:
                for queue, item in zip(self._waiting, next(self._source), strict=True):
                    queue.append(item)
            return self._waiting[reader].popleft()


def sampled(labels, classes, count, rng):
    """The classes of `labels` and random others, `count` in all, sorted `(count,)`."""
    own = np.unique(labels)
    if len(own) > count:
        raise ValueError(f"`sample` must be at least the number of classes in a batch, {len(own)}; got {count}")
    if count == classes:
        return np.arange(classes)
    others = rng.choice(classes - len(own), count - len(own), replace=False, shuffle=False)
    # The place of a class among those that are not in the batch, to its number: own classes below it are added.
    others += np.searchsorted(own - np.arange(len(own)), others, side="right")
    return np.sort(np.concatenate([own, others]))


def made(file, shape):
    """`(array, is_new)`: a float32 array in memory, or one that is mapped to `file`, with what it holds already."""
    if file is None:
        return np.zeros(shape, "float32"), True
    if file.exists():
        array = np.load(file, mmap_mode="r+")
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{str(file)!r} must hold float32 {shape}; it holds {array.dtype} {array.shape}")
        return array, False
    file.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(file, "w+", "float32", shape), True


def fill(array, rng, rows=65_536):
    """Random directions of a length near 1, as `ProxyLogits` starts, a part of the rows at a time."""
    for first in range(0, len(array), rows):
        part = array[first : first + rows]
        part[:] = rng.standard_normal(part.shape, "float32") * np.float32(part.shape[-1] ** -0.5)


def layer_with(model, count):
    """The layer of `model` that has `proxies` of `count` classes."""
    found = [
        one
        for one in model._flatten_layers()
        if getattr(one, "proxies", None) is not None and getattr(one, "num_classes", None) == count
    ]
    if len(found) != 1:
        why = f"one layer with proxies of {count} classes, ProxyLogits({count})"
        raise ValueError(f"`model` must have {why}; {len(found)} were found")
    return found[0]
