"""Work as tasks for the workers of joblib: their results in order, checkpoints, and what they cost.

Contract: calls of joblib in, each a pure function of its number. A `Ledger` merges their results in the order of the
numbers and keeps what is merged in a folder, so that a run that was ended goes on from there. `spread` and `searches`
use it.

    ledger = Ledger(folder, key, total)             # `total` has `merge`, `_state` and `_set_state`
    ledger.fill(call, count, n_jobs, move_on)       # merges the results of call(0) … call(count − 1)
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_siamese._checks import check_integer, check_path
from keras_siamese._files import write_arrays

logger = logging.getLogger(__name__)
SECONDS = 20  # between two checkpoints
FAILURES = 3  # workers that may die one after the other without any result


@dataclass(frozen=True)
class Plan:
    """What a comparison of pairs costs."""

    pairs: int
    tasks: int
    bytes: int  # that the workers read
    seconds: float  # on the workers that there are, from the time of a small part
    workers: int

    def __str__(self):
        minutes = f"{self.seconds / 60:.1f} minutes" if self.seconds > 90 else f"{self.seconds:.0f} seconds"
        tasks = "1 task, which reads" if self.tasks == 1 else f"{self.tasks:,} tasks, which read"
        work = f"{self.pairs:.3g} pairs in {tasks} {self.bytes / 1e9:.3g} GB"
        return f"{work}: about {minutes} with {self.workers} worker{'s' if self.workers > 1 else ''}"


def check_workers(folder: Any, n_jobs: Any) -> tuple[Any, Any]:
    """Return both if `folder` is a path or None, and `n_jobs` a number of workers for joblib or None."""
    if folder is not None:
        check_path("folder", folder)
    if n_jobs is not None and not check_integer("n_jobs", n_jobs):
        raise ValueError("`n_jobs` must not be 0; -1 takes all processors, None what joblib is set to")
    return folder, n_jobs


def results_of(call, numbers, n_jobs=None):
    """The results of ``call(number)``, calls of joblib, in the order of the `numbers`, as they come.

    If a worker process dies, the calls without a result are made again. Dask does this itself.
    """
    failures = 0
    while numbers:
        before = len(numbers)
        try:
            for found in results_in_turn(call, numbers, n_jobs):
                numbers = numbers[1:]
                yield found
        except errors_of_dead_workers():
            failures = 1 if len(numbers) < before else failures + 1
            if failures >= FAILURES:
                raise
            logger.warning("A worker process ended by itself, perhaps for lack of memory; its tasks are done again")


def errors_of_dead_workers():
    """The errors that say that a worker has died: of joblib's processes, and of Ray, if it is in use."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    ray = sys.modules.get("ray")
    return (TerminatedWorkerError,) if ray is None else (TerminatedWorkerError, ray.exceptions.RayActorError)


def results_in_turn(call, numbers, n_jobs):
    """The results of joblib's calls, one after the other; backends that cannot do this give them in rounds."""
    import joblib

    backend = joblib.parallel.get_active_backend()[0]
    if getattr(backend, "supports_return_generator", False):  # not before joblib 1.3
        yield from joblib.Parallel(n_jobs=n_jobs, return_as="generator")(map(call, numbers))
        return
    each = 4 * joblib.effective_n_jobs(n_jobs)
    for start in range(0, len(numbers), each):
        yield from joblib.Parallel(n_jobs=n_jobs)(map(call, numbers[start : start + each]))


def key_of(sources, codes, rows, *options):
    """A digest of all that a result follows from; of the embeddings, the first, the last and those between ranges.

    Args:
        sources: embeddings `(n, dim)` that are read by slices.
        codes: arrays of identities.
        rows: number of rows between two that are read.
        options: everything else, whose `repr` says what it is.
    """
    digest = hashlib.sha256(repr((rows, *options)).encode())
    for array in codes:
        digest.update(array.tobytes())
    for source in sources:
        digest.update(repr((tuple(source.shape), getattr(source, "files", None))).encode())
        for row in sorted({*range(0, source.shape[0], rows), source.shape[0] - 1}):
            digest.update(np.ascontiguousarray(source[row : row + 1]).tobytes())
    return digest.hexdigest()


class Ledger:
    """The total of the tasks that are done, in their order, and its checkpoints in `folder`, if there is one."""

    def __init__(self, folder, key, total):
        self.file = None if folder is None else Path(folder) / "comparison.npz"
        self.key, self.total, self.done, self._kept = key, total, 0, time.monotonic()
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            with np.load(self.file, allow_pickle=False) as held:
                if str(held["key"]) != key:
                    why = "with other files, labels or options"
                    raise ValueError(f"`folder` holds another comparison, {why}: {str(self.file)!r}")
                self.total._set_state({name: held[name] for name in held.files if name not in ("key", "done")})
                self.done = int(held["done"])

    def fill(self, call, count, n_jobs, move_on):
        """Adds the results of `call(number)`, calls of joblib, for all numbers below `count` that are not yet done."""
        move_on(self.done)
        for found in results_of(call, range(self.done, count), n_jobs):
            self.add(found)
            move_on(1)
        self.keep()

    def add(self, found):
        self.total.merge(found)
        self.done += 1
        if time.monotonic() - self._kept > SECONDS:
            self.keep()

    def keep(self):
        if self.file is not None:
            state = {"key": np.array(self.key), "done": np.array(self.done), **self.total._state()}
            write_arrays(self.file, state)
            self._kept = time.monotonic()
