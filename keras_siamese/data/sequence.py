"""The base of all sequences, whose batches are a pure function of `(seed, epoch, index)` under Keras's `fit`.

Contract: a subclass defines `_draw(epoch)`, which returns everything random about an epoch as a table of indices,
`_batch(table, epoch, index)`, and `__len__`, or `batch_size` and `_count`, the number of rows that an epoch's table
has. `_draw` and `_batch` use no other state. The epoch is set from outside with
`set_epoch`, as in PyTorch's DistributedSampler. Keras's own hooks cannot set it: they do not count epochs reliably, and
`on_epoch_begin` is called after the workers have started. All sequences in `data` import this module.

    class Rows(EpochSequence):
        def __len__(self): return 10
        def _draw(self, epoch): return self.rng(epoch).permutation(320)
        def _batch(self, table, epoch, index): return x[table[32 * index : 32 * (index + 1)]]
"""

from __future__ import annotations

import contextlib
import inspect
import multiprocessing
import operator
import queue
import threading
import traceback
import warnings
import weakref
from typing import Any

import keras
import numpy as np

from keras_siamese._checks import check_integer, check_labels
from keras_siamese._frames import callers
from keras_siamese._replicas import device_count, method_of_keras, refuse_workers, rows_of_share, share_of_process
from keras_siamese._types import Augment, DatasetOptions, Unpack
from keras_siamese.data.augment import Augmentation
from keras_siamese.data.sources import check_source, count_samples, encode, fed, named_arrays, take

_LOADER_OPTIONS = ("workers", "use_multiprocessing", "max_queue_size")


class EpochSequence(keras.utils.PyDataset):
    """Base class of the sequences in `keras_siamese.data`.

    Args:
        augment: changes the batches; see `keras_siamese.data.augment` for what it may be.
        frozen: whether all epochs have the batches of epoch 0, for validation; not possible with `augment`.
        seed: integer ≥ 0.
        **options: `workers`, `use_multiprocessing` and `max_queue_size` of `keras.utils.PyDataset`.
    """

    def __init__(
        self, *, augment: Augment | None = None, frozen: bool = False, seed: int = 0, **options: Unpack[DatasetOptions]
    ) -> None:
        self._check_options(options)
        super().__init__(**options)
        if augment is not None and frozen:
            why = "because then all epochs are the same"
            raise ValueError(f"`augment` must be None when frozen=True, {why}; got {augment!r}")
        self.augment = None if augment is None else Augmentation(augment)
        self.seed = check_integer("seed", seed, low=0)
        self.frozen = bool(frozen)
        self._epoch = 0
        self._epoch_was_set = False
        self._share = None
        self._forget()

    @classmethod
    def _check_options(cls, options):
        unknown = sorted(set(options) - set(_LOADER_OPTIONS))
        if unknown:
            own = [p.name for p in inspect.signature(cls).parameters.values() if p.kind != p.VAR_KEYWORD]
            known = ", ".join([*own, *_LOADER_OPTIONS])
            raise TypeError(f"{cls.__name__} knows no option {', '.join(map(repr, unknown))}; it knows {known}")

    def _set_samples(self, x, labels):
        """Checks the source `x` and its labels; sets `x`, `identities` and `labels` (codes)."""
        self.x = check_source("x", x)
        self.identities, self.labels = encode(check_labels("labels", labels, length=count_samples(self.x)))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-self._count // self.batch_size)

    @property
    def num_batches(self) -> int:
        """Keras's name for `len`. Raises if the devices on which a model is about to work do not divide the batches."""
        model = next((one for one in callers() if isinstance(one, keras.Model)), None)
        if (method := method_of_keras()) is not None:
            refuse_workers(f"`{method}`", model)
        devices = device_count(model)
        if devices > 1:
            self._check_divides(devices)
        self._share = share_of_process()  # here, because the threads that make the batches do not know it
        if self._share is not None and self.use_multiprocessing:
            why = "where several processes of JAX train together, because they must not be forked"
            raise ValueError(f"`use_multiprocessing` must be False {why}; `workers` are threads then")
        return len(self)

    def _check_divides(self, devices):
        first, last = self._rows_of_batches()
        if first % devices:
            raise ValueError(f"{self._sized_by} must give batches that {devices} devices divide; got {first} rows")
        # TensorFlow's strategies take a smaller last batch.
        if last % devices and keras.backend.backend() == "jax":
            count, sized_by = self._count, self._counted_by
            fewer, more = count // devices * devices, -(-count // devices) * devices
            must = f"{sized_by} must be a multiple of {devices}, such as {fewer} or {more}"
            why = f"its last batch of {last} rows cannot be divided among {devices} devices"
            raise ValueError(f"{must}; got {count}: {why}")

    # What gives the number of rows in a batch, and in an epoch, in errors
    _sized_by, _counted_by = "`batch_size`", "the number of rows in an epoch"

    def _rows_of_batches(self):
        """The numbers of rows in the first and in the last batch of an epoch."""
        return min(self.batch_size, self._count), self._count - (len(self) - 1) * self.batch_size

    def _rows_of_batch(self, table, index):
        """The rows of batch `index` in each column of `table`, if an epoch is cut into batches of `batch_size`."""
        first = index * self.batch_size
        return [column[first : first + self.batch_size] for column in table]

    def _describe(self, rows):
        """The `repr` of a sequence whose epoch has these `rows`, cut into batches of `batch_size`."""
        return f"{type(self).__name__}({rows} in {len(self)} batches of {self.batch_size}; {self._state()})"

    def _state(self):
        """The end of every sequence's `repr`: its epoch and its augmentation."""
        augment = f"; augment={self.augment!r}" if self.augment else ""
        return f"{'frozen' if self.frozen else f'epoch {self.epoch}'}{augment}"

    def _forget(self):
        """Resets what belongs to this process and is not part of a pickle or a copy."""
        self._lock = threading.Lock()
        self._drawn = None
        self._ends = weakref.WeakKeyDictionary()

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_drawn", "_ends")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._forget()

    @property
    def workers(self) -> int:
        """How many batches Keras makes at a time; at most one for each core if all of that is to decode image files."""
        return min([self._workers, *self._most_workers()])

    @workers.setter
    def workers(self, value: int) -> None:
        self._workers = value

    def _most_workers(self):
        """Above which numbers of workers the sources get slower, where nothing else is done for a batch."""
        sources = [leaf.source for leaf in self._files()] if self.augment is None else []
        return [source.most_workers for source in sources if hasattr(source, "most_workers")]

    @property
    def use_multiprocessing(self) -> bool:
        """Whether Keras makes the batches in processes of its own.

        If all samples are image files and no `augment` follows, several `workers` decode in processes that stay from
        epoch to epoch. Then Keras uses threads, which ask them. It would start processes in each epoch, and send whole
        batches of floats.
        """
        return self._use_multiprocessing and not (self._workers > 1 and self.augment is None and self._files())

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        self._use_multiprocessing = value

    def _files(self):
        """All samples, if all of them are files that are read by `read_rows`; otherwise none."""
        leaves = [leaf for _, leaf in named_arrays("x", getattr(self, "x", {}))]
        return leaves if all(hasattr(getattr(leaf, "source", None), "read_rows") for leaf in leaves) else []

    @property
    def epoch(self) -> int:
        """The epoch whose batches are served, an integer ≥ 0."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose batches are served; call it before the first batch of the epoch is drawn.

        `callbacks.SetEpoch` calls it at the beginning of each epoch; this package's own models do so by themselves.
        """
        self._epoch = check_integer("epoch", epoch, low=0)
        self._epoch_was_set = True

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends on the seed and the integers of `key` alone.

        The key is a `spawn_key`, because `default_rng([seed, epoch])` equals `default_rng([seed, epoch, 0])`.
        """
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Batch `index` of the current epoch; while several processes of JAX train with it, the rows of this one."""
        batch = self.batch(self._epoch, index)
        return batch if self._share is None else rows_of_share(self._share, batch)

    def batch(self, epoch: int, index: int) -> tuple[Any, ...]:
        """Returns batch `index` of `epoch`, whatever `set_epoch` was given; if frozen, all epochs are the same."""
        index = range(len(self))[operator.index(index)]
        epoch = 0 if self.frozen else epoch
        try:
            return self._batch(self._table(epoch), epoch, index)
        except BaseException as error:
            if multiprocessing.parent_process() is None or isinstance(error, KeyboardInterrupt):
                is_lost = threading.current_thread() is not threading.main_thread() and not isinstance(error, Exception)
                if is_lost or isinstance(error, (IndexError, StopIteration)):
                    # These would end a loop over the sequence as if all its batches had come. Errors that are no
                    # `Exception`, such as SystemExit, end a pool's thread without a word.
                    raised = f"{type(error).__name__}: {error}"
                    raise RuntimeError(f"Batch {index} of epoch {epoch} raised {raised}") from error
                raise
            failure = traceback.format_exc()
        # A worker process sends the text of an error and never the error itself: one that cannot be unpickled breaks
        # the pool, and one that ends the process, such as SystemExit, loses the batch: `fit` then waits for ever. It
        # raises outside of the `except` block, because where `tblib` is installed a pickled error takes its `__cause__`
        # and `__context__` with it.
        raise RuntimeError(f"Batch {index} of epoch {epoch} failed:\n\n{failure}")

    def _table(self, epoch):
        """The table of `epoch`, drawn once for all threads; the latest one is kept."""
        drawn = self._drawn  # a tuple that is only ever replaced whole, so reading it needs no lock
        if drawn is None or drawn[0] != epoch:
            with self._lock:
                drawn = self._drawn
                if drawn is None or drawn[0] != epoch:
                    drawn = self._drawn = (epoch, _read_only(self._draw(epoch)))
        return drawn[1]

    def _table_of(self, epoch):
        """The table of `epoch`, by default of the current one."""
        epoch = self.epoch if epoch is None else check_integer("epoch", epoch, low=0)
        return self._table(0 if self.frozen else epoch)

    def _towers(self, columns, epoch, index):
        """The samples `self.x` at each of the rows in `columns`, gathered once and augmented by themselves: a tuple."""
        towers = [take(self.x, rows, self.workers) for rows in columns]
        if self.augment is not None:
            towers = [self.augment(batch, self.rng(epoch, index, tower)) for tower, batch in enumerate(towers)]
        return tuple(map(fed, towers))

    def on_epoch_begin(self) -> None:
        """Keras's hook; warns, once, when `fit` begins a second epoch and nobody has ever set one."""
        if self.frozen or self._epoch_was_set:
            return
        # `fit` ends an epoch once before its first and once after each, so its second begins after two ends. An
        # evaluation ends epochs twice, also if `fit` keeps its adapter, so it begins after 0, 1, 3, 5, … ends.
        caller = _caller_serving(self)
        if caller is not None and self._ends.get(caller) == 2:
            self._epoch_was_set = True  # warn only once
            problem = f"`fit` begins another epoch of this {type(self).__name__}, and its set_epoch was never called"
            set_it = "callbacks=[ks.callbacks.SetEpoch(sequence)] to fit (SiameseWrapper.fit does it itself)"
            hint = f"Pass {set_it}, or frozen=True to the sequence if you want the same batches"
            warnings.warn(f"{problem}, so every epoch shows the same batches. {hint}", stacklevel=2)

    def on_epoch_end(self) -> None:
        """Keras's hook; throws away what Keras drew ahead, which it would otherwise serve as the next epoch's."""
        caller = _caller_serving(self)
        if caller is not None:
            self._ends[caller] = self._ends.get(caller, 0) + 1
            _discard_drawn_ahead(caller)


def _read_only(table):
    for column in table if isinstance(table, tuple) else (table,):
        column.flags.writeable = False
    return table


def _caller_serving(sequence):
    """The Keras object (an adapter) that is calling a hook of `sequence`, or None; hooks get no argument that says."""
    found = callers(6)  # the hook, a subclass's hook around it, the adapter
    return next((one for one in found if getattr(one, "__dict__", {}).get("py_dataset") is sequence), None)


def _discard_drawn_ahead(adapter):
    """Empties the queues of the adapter's stopped enqueuer.

    An enqueuer that is stopped midway keeps the batches that its workers have drawn, and serves them first after its
    next start (since Keras's pull request 20123). On JAX and PyTorch, `fit` and `evaluate` stop it after the batch that
    builds the model. With workers, each epoch would begin with up to `max_queue_size + workers` batches of the epoch
    before, and an evaluation would count some pairs twice and others never. Each start draws all indices again, so
    nothing is lost.
    """
    enqueuer = getattr(adapter, "enqueuer", None)
    for name in ("ready_queue", "future_queue"):
        waiting = getattr(enqueuer, name, None)
        if isinstance(waiting, queue.Queue):
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.get_nowait()
