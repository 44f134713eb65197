"""Watch the fits of a program that does not know of it: measure and diagnose, and change nothing.

Contract: `watch(fit, report)` wraps Keras's `fit` for `launching`, which runs the program. What the program computes,
prints and returns is the same with and without: a monitor of this module writes nothing into `logs`, and after each of
its steps the model's variables, all random states and Keras's counters of names are as before. Data that cannot be read
without changing them (generators, shuffled data sets) are recorded as they pass. An error of ours becomes a line on
standard error. Imports `fitting` and `divergence`.
"""

import contextlib
import functools
import io
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_siamese._files import reason_of
from keras_siamese._seeds import own_seeds, same_generators, same_names
from keras_siamese.attach.feed import is_batched
from keras_siamese.attach.graph import shows_parts
from keras_siamese.attach.orient import are_pairs
from keras_siamese.attach.passing import Passing, is_readable
from keras_siamese.callbacks.divergence import DivergenceMonitor
from keras_siamese.callbacks.fitting import named, replaced, seen_data
from keras_siamese.diagnosis.experiments.untouched import variables_of
from keras_siamese.scoring import readable

PREFIX = "keras-siamese watch: "


def say(text):
    """Write one line, or several, to standard error."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{PREFIX}{text}\n")
        sys.stderr.flush()


class Watcher:
    """Attaches to the fits of a program, one after the other.

    Args:
        report: path of the HTML report of the first fit; report-2.html is that of the second, and so on.
        say: a function that is called with each message.

    Attributes:
        fits: number of fits that were watched.
    """

    def __init__(self, report, say=say):
        self.report, self.say, self.fits = Path(report).absolute(), say, 0

    def fit(self, fit, model, args, kwargs):
        """Return `fit(model, *args, **kwargs)`, watched if the model is siamese."""
        monitor, watched = None, (args, kwargs)
        try:
            with quietly(model):
                monitor, watched = self.monitored(model, args, kwargs)
        except Exception as error:
            self.say(f"{name_of(model)} is not watched: {reason_of(error)}")
        try:
            return fit(model, *watched[0], **watched[1])
        finally:
            if monitor is not None:
                monitor.conclude()

    def monitored(self, model, args, kwargs):
        """`(monitor, (args, kwargs))`, the arguments with the monitor among the callbacks; `(None, …)` for no fit of a
        siamese model.
        """
        if not may_be_siamese(model):
            return None, (args, kwargs)
        given = named(args, kwargs)
        validation, train, recorded = seen_data(given)
        if validation is None:
            if is_pair_model(model, given.get("x")):
                self.say(f"{name_of(model)} is not watched: `fit` has no validation data")
            return None, (args, kwargs)
        if not isinstance(validation, Passing):
            if not is_readable(validation):
                self.say(f"{name_of(model)} is not watched: its validation data cannot be read without a change")
                return None, (args, kwargs)
            validation = readable(validation)
            if not is_siamese(model, validation[0]):
                return None, (args, kwargs)
        callbacks = given.get("callbacks")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            raise ValueError("its callbacks are a CallbackList, to which none can be added")
        if callbacks is not None and not isinstance(callbacks, (list, tuple)):
            callbacks = [callbacks]
        monitor = SilentMonitor(validation, self)
        monitor.know(train if isinstance(train, Passing) or is_readable(train) else None)
        return monitor, replaced(args, kwargs, callbacks=[*(callbacks or []), monitor], **recorded)

    def next_path(self):
        """The path of the next report."""
        self.fits += 1
        return self.report if self.fits == 1 else numbered(self.report, self.fits)


def watch(fit, report, say=say):
    """A function that does what Keras's `fit` does, and watches it; see `Watcher`."""
    watcher = Watcher(report, say)

    @functools.wraps(fit)
    def watched(self, *args, **kwargs):
        return watcher.fit(fit, self, args, kwargs)

    return watched


class NotSiamese(Exception):
    """The first validation data show that the model compares nothing."""


class SilentMonitor(DivergenceMonitor):
    """A `DivergenceMonitor` that leaves the run as it is. An error of its own ends it, and not the run."""

    def __init__(self, validation, watcher):
        super().__init__(validation, lambda diagnosis: None)
        self.watcher, self.say, self.state, self.path = watcher, watcher.say, "new", None

    def guarded(self, step, *args):
        if self.state in ("failed", "concluded"):
            return
        try:
            with quietly(self.model):
                step(*args)
        except NotSiamese:
            self.state = "failed"
        except Exception as error:
            self.state = "failed"
            self.say(f"{name_of(self.model)} is no longer watched: {reason_of(error)}")

    def attach(self):
        """As in `DivergenceMonitor`; the report gets its path when the model is known to be siamese."""
        if isinstance(self.validation, Passing) and not is_siamese(self.model, self.validation.read()[0]):
            raise NotSiamese
        anatomy = super().attach()
        self.path = self.path or self.watcher.next_path()
        return anatomy

    def on_train_begin(self, logs=None):
        self.guarded(super().on_train_begin, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.guarded(super().on_epoch_begin, epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.guarded(super().on_epoch_end, epoch, dict(logs or {}))

    def on_train_end(self, logs=None):
        self.conclude()

    def conclude(self):
        """Diagnose the run and write the report, also of a run that was interrupted; once."""
        if self.state == "new" and self.params is not None:
            self.guarded(self._conclude)
            self.state = "concluded"

    def _conclude(self):
        if not self._measured and self.recorder.scored is None:
            self.say(f"{name_of(self.model)}: no epoch ended, so nothing was measured")
            return
        diagnosis = self.diagnose()
        page = self.side.write("The report", self.path, diagnosis.to_html)
        data = self.side.write("The report's JSON", self.path.with_suffix(".json"), diagnosis.to_json)
        for error in self.errors:
            self.say(str(error))
        self.say(f"{name_of(self.model)}: {in_short(diagnosis)}\n{PREFIX}the report is {page or data}")


def in_short(diagnosis):
    """The verdict and, of the cause that leads, what was seen and the advice, as lines for a terminal."""
    lines = [diagnosis.verdict]
    for finding in diagnosis.leading[:1]:
        lines += [f"{PREFIX}{finding.cause.replace('_', ' ')}: {finding.summary}"]
        lines += [f"    {line}" for line in finding.advice.splitlines()]
    return "\n".join(lines)


def may_be_siamese(model):
    """Whether `model` could be siamese: a plain classifier or regression of one input is not."""
    single = len(getattr(model, "inputs", None) or [0, 0]) == 1
    return shows_parts(model) or not single or not has_loss_of_keras(model) or len(model.inputs[0].shape) > 2


def is_siamese(model, x):
    """Whether `model` compares the items in `x`, or is an encoder with a loss that is none of Keras's."""
    return shows_parts(model) or are_pairs(model, x) or not has_loss_of_keras(model)


def is_pair_model(model, x):
    try:
        return x is not None and not is_batched(x) and is_siamese(model, x)
    except Exception:  # what a model of another kind raises is not known
        return False


def has_loss_of_keras(model):
    """Whether `model` is compiled with a loss of Keras, which sees each sample by itself."""
    loss = getattr(model, "loss", None)
    module = getattr(loss, "__module__", None) or type(loss).__module__
    return loss is None or isinstance(loss, (str, dict, list)) or module.split(".")[0] == "keras"


@contextlib.contextmanager
def quietly(model):
    """Print and warn nothing, and leave random states, names and the variables of `model` as they are.

    Nothing here draws from the generators of Python and NumPy. Their states are not put back, because a thread of the
    program may draw from them meanwhile: TensorFlow reads generators ahead.
    """
    restore = restore_variables(model)
    try:
        with own_seeds(), same_generators(), same_names(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                yield
    finally:
        restore()


def restore_variables(model):
    """A function that gives the variables of `model` their present values."""
    kept = [(one, np.array(keras.ops.convert_to_numpy(one))) for one in variables_of(model)]

    def restore():
        for variable, value in kept:
            if np.asarray(keras.ops.convert_to_numpy(variable)).tobytes() != value.tobytes():
                variable.assign(value)

    return restore


def numbered(path, number):
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def name_of(model):
    return f"the fit of {getattr(model, 'name', model)!r}"
