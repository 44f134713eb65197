"""Unusual arguments for public functions, and what may come of them: a right answer, or an error that names them.

A case is a function, one of its arguments and a kind of value. The cases of a `Room` follow from the signatures of its
functions and from one good value for each name of an argument. Options are covered by `option_cases`.

    room = Room({"pair_class_weights": data.pair_class_weights}, {"same": SAME})
    assert room.wrong("pair_class_weights") == {}
"""

import dataclasses
import importlib.util
import inspect
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_siamese

PACKAGE = str(Path(keras_siamese.__file__).parent)
NAMED, ANSWER, NOT_A_NUMBER, OF_KERAS = "named error", "right answer", "shows NaN", "refused by Keras"
RIGHT = {NAMED, ANSWER, NOT_A_NUMBER, OF_KERAS}


def with_first(array, value):
    array = array.astype("float32" if array.dtype == "float32" else float)
    array[0] = value
    return array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def in_pandas(array):
    """With an index that runs backwards: rows count by position."""
    import pandas

    return pandas.DataFrame(array) if array.ndim == 2 else pandas.Series(array, index=np.arange(len(array))[::-1])


def own_tensor(array):
    """A tensor of the backend; on PyTorch one that a model has just put out, with a gradient."""
    tensor = keras.ops.convert_to_tensor(array)
    if keras.backend.backend() == "torch" and tensor.is_floating_point():
        tensor = tensor.clone().requires_grad_() * 1.0
    return tensor


OTHERS = [name for name in ("jax", "torch") if name != keras.backend.backend() and importlib.util.find_spec(name)]


def other_tensor(array):
    """A tensor of another backend."""
    module = importlib.import_module(OTHERS[0])
    return module.numpy.asarray(array) if OTHERS[0] == "jax" else module.as_tensor(array)


# The same values: the answer must be the same.
EQUAL = {
    "non-contiguous": lambda array: np.repeat(array[::-1], 2, axis=0)[::-2],
    "read-only": read_only,
    "pandas": in_pandas,
    "own tensor": own_tensor,
}
# The same values in a form that may be refused.
FORMS = {
    "other tensor": other_tensor,
    "objects": lambda array: array.astype(object),
    "a list": lambda array: array.tolist(),
}
OTHER = {
    "empty": lambda array: array[:0],
    "one row": lambda array: array[:1],
    "NaN": lambda array: with_first(array, np.nan),
    "infinite": lambda array: with_first(array, np.inf),
    "huge": lambda array: array * np.float32(1e30),
    "wrong rank": lambda array: np.broadcast_to(array, (2, 2, *array.shape)),
    "text": lambda array: np.full(array.shape, "a"),
    "complex": lambda array: array + np.complex64(1j),
    "nothing": lambda array: None,
}
KINDS = {**EQUAL, **FORMS, **OTHER}


def exists(kind, array):
    """Whether there are such values for an array, here."""
    if kind == "pandas":
        return array.ndim <= 2 and importlib.util.find_spec("pandas") is not None
    if kind == "other tensor":
        return bool(OTHERS)
    return kind != "huge" or array.dtype.kind == "f"


@dataclasses.dataclass
class Room:
    """Some functions that are called with unusual arrays.

    Args:
        calls: functions by the name of what they call. Their arguments are names in `given`.
        given: a good value for each argument by name.
        tensors: whether they take tensors: a NaN then shows in the answer, as a compiled graph raises no errors.
        also: other names that an error may give, such as those of options.
        is_layer: whether they are layers. Some values are refused by Keras before a layer is called.
        without: kinds that are left out.
    """

    calls: dict
    given: dict
    tensors: bool = False
    also: tuple = ()
    is_layer: bool = False
    without: tuple = ()

    def cases(self, names=None):
        """`(function, argument, kind)` for each array that a function takes."""
        for name in self.calls if names is None else names:
            for argument in arguments(self.calls[name]):
                array = self.given[argument]
                if isinstance(array, np.ndarray):
                    kinds = [kind for kind in KINDS if kind not in self.without and exists(kind, array)]
                    yield from ((name, argument, kind) for kind in kinds)

    def wrong(self, name):
        """The verdicts on the cases of a function that are not right, by argument and kind."""
        found = {case[1:]: self.verdict(*case) for case in self.cases([name])}
        return {case: verdict for case, verdict in found.items() if verdict not in RIGHT}

    def verdict(self, name, argument, kind):
        """What came of a case: one of RIGHT, or what is wrong."""
        function = self.calls[name]
        good = {one: self.given[one] for one in arguments(function)}
        found = outcome(function, {**good, argument: KINDS[kind](good[argument])})
        if isinstance(found, Exception):
            fault = fault_of(found, [*good, *self.also], self.is_layer)
            return f"refused, with the same values: {found}" if fault in RIGHT and kind in EQUAL else fault
        if kind in EQUAL or kind in FORMS:
            return same_as(found, outcome(function, good))
        if kind == "complex":
            return f"takes complex numbers: {plain(found)}"
        if kind == "NaN":
            return NOT_A_NUMBER if self.tensors and has_nan(found) else f"hides a NaN: {plain(found)}"
        if kind == "huge" and not (self.tensors and not is_finite(found)):
            wide = {one: value.astype(float) if is_floats(value) else value for one, value in good.items()}
            return same_as(found, outcome(function, {**wide, argument: wide[argument] * 1e30}))
        if kind in ("infinite", "huge"):
            return ANSWER if self.tensors or is_finite(found) else f"neither refused nor finite: {plain(found)}"
        return ANSWER if not has_nan(found) else f"a NaN without a word: {plain(found)}"


def arguments(function):
    """The names of the arguments without a default."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind not in several]


def taking(names, function):
    """`function` with a signature of these arguments alone."""

    def call(**given):
        return function(**given)

    call.__signature__ = inspect.Signature([inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY) for one in names])
    return call


def outcome(function, given):
    """What the function returns, or its error."""
    keras.config.disable_traceback_filtering()  # it hides who raised an error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(**given)
        except Exception as error:
            return error
        finally:
            keras.config.enable_traceback_filtering()


def fault_of(error, names, is_layer=False):
    """NAMED if an error is a ValueError or TypeError of the package that names an argument; else what is wrong."""
    if not isinstance(error, (ValueError, TypeError)):
        return f"{type(error).__name__}: {error}"
    if not is_ours(error):
        return OF_KERAS if is_layer else f"of another package: {error}"
    return NAMED if any(f"`{name}" in str(error) for name in names) else f"names no argument: {error}"


def is_ours(error):
    """Whether the error, or the one that Keras has replaced by a copy with more text, was raised by the package."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if frames and frames[-1].filename.startswith(PACKAGE):
            return True
        error = error.__context__
    return False


def plain(answer):
    """An answer as a flat list of NumPy arrays and strings."""
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        answer = [getattr(answer, one.name) for one in dataclasses.fields(answer)]
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (tuple, list)):
        return [leaf for one in answer for leaf in plain(one)]
    if hasattr(answer, "detach"):
        answer = answer.detach()
    array = np.asarray(answer)
    return [array if array.dtype.kind in "biufSU" else str(answer)]


def same_as(found, expected):
    """ANSWER if two answers are the same up to rounding; else what they are."""
    assert not isinstance(expected, Exception), expected
    one, other = plain(found), plain(expected)
    if len(one) == len(other) and all(map(are_alike, one, other)):
        return ANSWER
    return f"another answer: {one}, not {other}"


def are_alike(a, b):
    if isinstance(a, str) or isinstance(b, str) or a.dtype.kind in "SU" or b.dtype.kind in "SU":
        return str(a) == str(b)
    close = {"rtol": 2e-4, "atol": 1e-5, "equal_nan": True}
    return a.shape == b.shape and bool(np.allclose(a.astype(float), b.astype(float), **close))


def is_floats(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def has_nan(answer):
    return any(bool(np.isnan(leaf).any()) for leaf in plain(answer) if is_floats(leaf))


def is_finite(answer):
    return all(bool(np.isfinite(leaf).all()) for leaf in plain(answer) if is_floats(leaf))


OF_KERAS_ITSELF = {"name", "dtype", "reduction"}  # Keras checks these options
NUMBERS = {"a thing": object(), "NaN": float("nan"), "text": "no number"}
TEXTS = {"a thing": object(), "a number": 3, "another text": "no such name"}


def option_cases(function, given):
    """`(option, kind, value)` that a function must refuse, for each argument that is no array and no boolean."""
    for one in inspect.signature(function).parameters.values():
        known = given.get(one.name) if one.default is one.empty else one.default
        is_several = one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        if one.name in OF_KERAS_ITSELF or is_several or isinstance(known, (bool, np.ndarray)):
            continue
        if isinstance(known, (int, float)):
            yield from ((one.name, kind, value) for kind, value in NUMBERS.items())
        elif isinstance(known, str):
            yield from ((one.name, kind, value) for kind, value in TEXTS.items())
        elif known is not None or one.default is None:
            yield one.name, "a thing", object()


def wrong_options(function, given, also=(), free=()):
    """What is wrong with how a function takes wrong options, by option and kind.

    Args:
        given: values of the arguments without default, by name.
        also: other names that an error may give.
        free: options that take anything.
    """
    good = {one: given[one] for one in arguments(function)}
    fine = outcome(function, good)
    assert not isinstance(fine, Exception), fine
    found = {}
    for option, kind, value in option_cases(function, good):
        if option not in free:
            error = outcome(function, {**good, option: value})
            found[option, kind] = fault_of(error, [option, *also]) if isinstance(error, Exception) else "accepted"
    return {case: verdict for case, verdict in found.items() if verdict != NAMED}
