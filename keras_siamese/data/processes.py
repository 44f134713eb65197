"""Processes that decode image files for the threads of this one.

Contract: `decode_all(paths, options, workers)` is `pixels.decode_all` by a helper process, with the same result. If
several threads call it at once, each has a helper of its own, up to `workers` and the number of cores. Threads alone
are no faster than one thread for small images, which need Python's global lock most of the time. `decoding` uses this
module.

A helper is a Python process that imports only NumPy and Pillow. It starts when it is first needed, waits for more work
after that, and ends with this process. It gets paths through a pipe, and gives pixels through shared memory. Where no
process can be started, and for files that a helper cannot decode, the calling thread decodes, and raises the errors.

Processes of `multiprocessing` are no substitute: started by "spawn", they import the user's script, which must be
written for that, and this package with Keras, which takes seconds; and they send arrays through a pipe.
"""

import atexit
import contextlib
import functools
import json
import logging
import mmap
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import uuid

import numpy as np

from keras_siamese.data import pixels

BYTES = 1 << 25  # the shared memory of a helper; only what is used takes memory
_PROGRAM = (
    "import sys; file, memory, *sys.path[:] = sys.argv[1:]; import importlib.util as util; "
    "spec = util.spec_from_file_location('pixels', file); module = util.module_from_spec(spec); "
    "spec.loader.exec_module(module); module.main(memory)"
)
logger = logging.getLogger(__name__)


def decode_all(paths, options, workers=1):
    """`pixels.decode_all(paths, options)`, by a helper process if `workers` is above 1."""
    limit = min(workers, cores())
    # A worker process of Keras is one of several already.
    if limit < 2 or len(paths) < 2 or multiprocessing.parent_process() is not None:
        return pixels.decode_all(paths, options)
    # 4 bytes for each value: room for float32
    room = BYTES // (4 * len(options["mode"]) * options["size"][0] * options["size"][1])
    if not room:
        return pixels.decode_all(paths, options)
    parts = [paths[start : start + room] for start in range(0, len(paths), room)]
    helper = _processes.borrow(limit)
    try:
        images = [_decode_part(helper, part, options) for part in parts]
    finally:
        _processes.give_back(helper)
    dtype = np.result_type(*images)
    return np.concatenate(images, dtype=dtype) if len(images) > 1 else images[0]


def _decode_part(helper, paths, options):
    images = helper.decode_all(paths, options) if helper is not None else None
    return pixels.decode_all(paths, options) if images is None else images


@functools.cache
def cores():
    """The number of cores that this process may use."""
    import joblib  # comes with scikit-learn; it also knows the limits of a container

    return joblib.cpu_count()


class DecoderProcess:
    """A process that runs `pixels`, and the memory that it shares with this one.

    Attributes:
        is_alive: False once a request was not answered; the process is then not asked again.
        has_failed: whether the process ended before its first answer.
    """

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if os.name == "nt":
            memory = uuid.uuid4().hex
            self._memory = mmap.mmap(-1, BYTES, tagname=memory)
            self._process = subprocess.Popen(_command(memory), **pipes, env=environment)
        else:
            with _file_in_memory() as file:
                file.truncate(BYTES)
                number = file.fileno()
                self._memory = mmap.mmap(number, BYTES)
                self._process = subprocess.Popen(_command(number), **pipes, env=environment, pass_fds=(number,))
        self.is_alive, self.has_failed = True, False
        self._has_answered = False

    def decode_all(self, paths, options):
        """As `pixels.decode_all`, or None if the process cannot decode the files or has ended."""
        paths = [path if os.path.isabs(path) else os.path.abspath(path) for path in paths]
        request = {"paths": paths, "options": options, "settings": pixels.settings()}
        self.is_alive = False  # also if the thread is interrupted before it has read the answer
        try:
            self._process.stdin.write(f"{json.dumps(request)}\n".encode())
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:  # a broken pipe
            answer = b""
        self.is_alive = answer.endswith(b"\n")
        self._has_answered = self._has_answered or self.is_alive
        self.has_failed = not self._has_answered
        if not answer.strip():
            return None
        shape = (len(paths), *options["size"], len(options["mode"]))
        return np.frombuffer(self._memory, answer.strip().decode(), int(np.prod(shape))).reshape(shape).copy()

    def end(self):
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # a broken pipe
                pipe.close()
        self._process.terminate()
        self._process.wait()


def _command(memory):
    """The command of a process that uses `memory`, the number of an open file or on Windows a name."""
    return [sys.executable, "-c", _PROGRAM, pixels.__file__, f"{memory}:{BYTES}", *sys.path]


def _file_in_memory():
    """A file without a name, on Linux in memory and elsewhere in the folder for temporary files."""
    return open(os.memfd_create("pixels"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


class DecoderProcesses:
    """The helpers of this process, lent to one thread at a time."""

    def __init__(self):
        self._change = threading.Condition()
        self._idle = []
        self._count = 0  # idle or lent
        self._works = True

    def borrow(self, limit):
        """A helper, which is started if all are lent and there are less than `limit`; None if none can be started."""
        with self._change:
            while self._works:
                if self._idle:
                    return self._idle.pop()
                if self._count < limit:
                    self._count += 1
                    break
                self._change.wait()
            else:
                return None
        try:
            return DecoderProcess()
        except Exception as error:  # no `sys.executable`, no processes, no memory
            self._lose(error)
            return None

    def _lose(self, reason):
        """Counts a helper less, and starts no more of them if there is a `reason`."""
        with self._change:
            self._count -= 1
            self._works = self._works and reason is None
            self._change.notify_all()
        if reason is not None:
            logger.warning("Image files are decoded by threads alone: no process can do it (%s)", reason)

    def give_back(self, helper):
        """Ends the loan of `helper`. One that has ended is replaced, unless it has never answered."""
        if helper is None:
            return
        if not helper.is_alive:
            helper.end()
            self._lose("it ended before its first answer" if helper.has_failed else None)
            return
        with self._change:
            self._idle.append(helper)
            self._change.notify()

    def end(self):
        """Ends the helpers that are not lent."""
        with self._change:
            ended, self._idle = self._idle, []
            self._count -= len(ended)
        for helper in ended:
            helper.end()


_processes = DecoderProcesses()
_of_parents = []  # keeps the helpers of processes that forked, which must not be ended here
atexit.register(lambda: _processes.end())


def _forget():
    """Called in a forked process, which needs helpers of its own."""
    global _processes
    _of_parents.append(_processes)
    _processes = DecoderProcesses()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
