"""`fit`: Keras's own `fit` with a `DivergenceMonitor` that knows the training and the validation data.

Contract: `named` tells which argument of `fit` is which, `seen_data` finds the validation and the training data;
`watching` asks them too. What the user gives reaches the model's `fit` as it is. Imports `attach` and `divergence`.

    history = keras_siamese.fit(model, [left, right], y, validation_data=([v_left, v_right], v_y), epochs=20)
    print(history.diagnosis)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import tree

from keras_siamese._checks import check_keywords
from keras_siamese._replicas import refuse_workers
from keras_siamese._types import StrPath
from keras_siamese.attach.feed import gather, is_batched
from keras_siamese.attach.passing import is_readable, passing
from keras_siamese.callbacks.divergence import DivergenceMonitor
from keras_siamese.diagnosis.diagnosis import Diagnosis

ORDER = tuple(inspect.signature(keras.Model.fit).parameters)[1:]  # names of fit's arguments, as they may be given


def fit(
    model: keras.Model,
    *args: Any,
    on_divergence: Literal["warn", "stop", "raise"] | Callable[[Diagnosis], Any] = "warn",
    report: StrPath | None = None,
    target_eer: float | None = None,
    similar_label: int | None = None,
    score: Callable[[Any, Any], Any] | None = None,
    **kwargs: Any,
) -> keras.callbacks.History:
    """Train a siamese model with its own `fit`, measure verification after each epoch, and diagnose the run.

    A `DivergenceMonitor` stands first among the callbacks, so that the others (EarlyStopping, ModelCheckpoint, …) can
    read `val_eer` and its other values. It takes the validation pairs from `validation_data` or `validation_split`.
    Data that can be read only once, such as generators, are recorded while `fit` reads them, up to 20,000 samples.

    Args:
        model: any siamese model, compiled; see `dissect`.
        *args: positional arguments of `model.fit`.
        on_divergence, report, target_eer, similar_label, score: as in `DivergenceMonitor`.
        **kwargs: the other arguments of `model.fit`.

    Returns:
        Keras's `History`, with two more attributes: `diagnosis`, a `Diagnosis`, and `monitor`, the `DivergenceMonitor`
        of this fit. `monitor.errors` lists what failed without ending the training, such as writing a report.

    Raises:
        TypeError: if `model` is no model.
        ValueError: if there are no validation data, or for what `DivergenceMonitor` refuses.
    """
    if not hasattr(model, "fit"):
        order = "ks.fit(model, x, y, validation_data=(x_valid, y_valid))"
        raise TypeError(f"`model` must be a Keras model, the first argument of {order}; got a {type(model).__name__}")
    refuse_workers("ks.fit", model)
    taken = inspect.signature(model.fit).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        check_keywords("ks.fit", kwargs, [*taken, *inspect.signature(fit).parameters])
    given = named(args, kwargs)
    validation, train, recorded = seen_data(given)
    if validation is None:
        raise ValueError(
            "`validation_data` must be given, pairs as the model's `evaluate` takes them, because verification is "
            "measured on them; or `validation_split`, if the training data are arrays"
        )
    options: dict[str, Any] = {
        "report": report,
        "target_eer": target_eer,
        "similar_label": similar_label,
        "score": score,
    }
    monitor = DivergenceMonitor(validation, on_divergence, **options)
    monitor.know(train)
    args, kwargs = replaced(args, kwargs, callbacks=[monitor, *callbacks_of(given)], **recorded)
    history = model.fit(*args, **kwargs)
    history.monitor, history.diagnosis = monitor, monitor.diagnosis
    return history


def named(args, kwargs):
    """The arguments of a call of Keras's `fit` by name."""
    return dict(zip(ORDER, args, strict=False)) | kwargs


def replaced(args, kwargs, **values):
    """`(args, kwargs)` of a call of Keras's `fit` with other `values` of some arguments."""
    args, kwargs = list(args), dict(kwargs)
    for name, value in values.items():
        if ORDER.index(name) < len(args):
            args[ORDER.index(name)] = value
        else:
            kwargs[name] = value
    return args, kwargs


def callbacks_of(given):
    """The callbacks of a call of `fit`, a list."""
    callbacks = given.get("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise ValueError("`callbacks` must be a list of callbacks; got a CallbackList, to which none can be added")
    return tree.flatten(callbacks) if callbacks else []


def held_out(given):
    """The validation data of a call of `fit`: `validation_data`, or the last part of the training data; else None."""
    if given.get("validation_data") is not None:
        return given["validation_data"]
    x, y, share = given.get("x"), given.get("y"), given.get("validation_split")
    if not share or y is None or is_batched(x):
        return None
    first = tree.flatten(x)[0]
    begin = math.floor(len(first) * (1.0 - share))  # as Keras splits, before it shuffles
    return tuple(tree.map_structure(lambda rows: rows[begin:], part) for part in gather((x, y)))


def training_data(given):
    """The training data of a call of `fit`, `(x, y)`; None without any."""
    x, share = given.get("x"), given.get("validation_split")
    if x is None:
        return None
    if share and given.get("validation_data") is None and not is_batched(x) and given.get("y") is not None:
        begin = math.floor(len(tree.flatten(x)[0]) * (1.0 - share))
        return tuple(tree.map_structure(lambda rows: rows[:begin], part) for part in gather((x, given["y"])))
    return x, given.get("y")


def seen_data(given):
    """`(validation, train, recorded)` of a call of `fit`: what a monitor reads, data or `Passing`; and those arguments,
    by name, that are replaced by data which record what passes.
    """
    validation, train, recorded = held_out(given), training_data(given), {}
    if validation is not None and not is_readable(validation):
        wrapped, seen = passing(validation, steps=given.get("validation_steps"))  # a backend may read more ahead
        if seen is not None:
            validation, recorded["validation_data"] = seen, wrapped
    if train is not None and not is_readable(train):
        wrapped, seen = passing(train[0])
        if seen is not None:
            train, recorded["x"] = seen, wrapped
    return validation, train, recorded
