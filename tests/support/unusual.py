"""Unusual arguments for public functions, and the verdict on what came of them.

A case is a function, one of its arguments, and a kind of value for it. Its outcome is right if it is an error of this
package that names the argument, or the answer for a plain array of the same values. The cases follow from signatures:
a room's test lists functions and one good value for each name of a parameter.

    calls = {"pair_class_weights": data.pair_class_weights}
    for case in cases(calls, {"same": SAME}):
        assert verdict(calls, GIVEN, *case) in RIGHT
"""

import dataclasses
import importlib.util
import inspect
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_siamese

PACKAGE = str(Path(keras_siamese.__file__).parent)
NAMED, ANSWER, NOT_A_NUMBER = "named error", "right answer", "NaN shown"
RIGHT = {NAMED, ANSWER, NOT_A_NUMBER}


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
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(array) if array.ndim == 2 else pandas.Series([*array], index=np.arange(len(array))[::-1])


def own_tensor(array):
    """A tensor of the backend; on PyTorch one that a model has just put out, with a gradient."""
    tensor = keras.ops.convert_to_tensor(array)
    if keras.backend.backend() == "torch" and tensor.is_floating_point():
        tensor = tensor.clone().requires_grad_() * 1.0
    return tensor


def other_tensor(array):
    """A tensor of another backend, of those that are installed the one that is quickest to import."""
    others = [name for name in ("jax", "torch") if name != keras.backend.backend()]
    name = next((one for one in others if importlib.util.find_spec(one)), None)
    if name is None:
        pytest.skip("only one backend is installed")
    module = importlib.import_module(name)
    return module.numpy.asarray(array) if name == "jax" else module.as_tensor(array)


# The same values: the answer must be the same.
EQUAL = {
    "non-contiguous": lambda array: np.repeat(array, 2, axis=0)[::2],
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
    "complex": lambda array: array.astype("complex64"),
    "nothing": lambda array: None,
}
KINDS = {**EQUAL, **FORMS, **OTHER}


def arguments(function):
    return [one.name for one in inspect.signature(function).parameters.values()]


def cases(calls, given):
    """`(function, argument, kind)` for each array that a function takes."""
    for name, function in calls.items():
        for argument in arguments(function):
            if isinstance(given[argument], np.ndarray):
                floats = given[argument].dtype.kind == "f"
                yield from ((name, argument, kind) for kind in KINDS if floats or kind != "huge")


def outcome(function, arguments):
    """What the function returns, or its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(**arguments)
        except pytest.skip.Exception:
            raise
        except Exception as error:
            return error


def plain(answer):
    """An answer as nested lists of NumPy arrays and strings, which can be compared."""
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return [plain(getattr(answer, one.name)) for one in dataclasses.fields(answer)]
    if isinstance(answer, dict):
        return [plain(value) for value in answer.values()]
    if isinstance(answer, (tuple, list)):
        return [plain(value) for value in answer]
    if answer is None or isinstance(answer, (str, type)):
        return str(answer)
    try:
        array = np.asarray(keras.ops.convert_to_numpy(answer))
        return array if array.dtype.kind in "biufSU" else str(answer)
    except Exception:
        return str(answer)


def leaves(answer):
    if isinstance(answer, list):
        return [leaf for one in answer for leaf in leaves(one)]
    return [answer]


def alike(one, other, rtol=2e-4):
    """Whether two answers are the same up to rounding."""
    one, other = leaves(plain(one)), leaves(plain(other))
    return len(one) == len(other) and all(map(lambda a, b: same_values(a, b, rtol), one, other))


def same_values(a, b, rtol):
    if isinstance(a, str) or isinstance(b, str):
        return str(a) == str(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "iufb" and b.dtype.kind in "iufb":
        return bool(np.allclose(a.astype(float), b.astype(float), rtol=rtol, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(a, b))


def has_nan(answer):
    """Whether a number in the answer is NaN."""
    numbers = [leaf for leaf in leaves(plain(answer)) if not isinstance(leaf, str) and leaf.dtype.kind == "f"]
    return any(bool(np.isnan(leaf).any()) for leaf in numbers)


def is_finite(answer):
    numbers = [leaf for leaf in leaves(plain(answer)) if not isinstance(leaf, str) and leaf.dtype.kind == "f"]
    return all(bool(np.isfinite(leaf).all()) for leaf in numbers)


def is_ours(error):
    """Whether the error, or one that Keras has replaced by a copy with more text, was raised by the package."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if frames and frames[-1].filename.startswith(PACKAGE):
            return True
        error = error.__context__
    return False


def fault_of(error, names):
    """What is wrong with an error: None if it is a ValueError or TypeError of the package that names an argument."""
    if not isinstance(error, (ValueError, TypeError)):
        return f"{type(error).__name__}: {error}"
    if not any(f"`{name}" in str(error) for name in names):
        return f"names no argument: {error}"
    return None if is_ours(error) else f"of another package: {error}"


def verdict(calls, given, name, argument, kind, tensors=False):
    """What came of a case: one of RIGHT, or a sentence that says what is wrong.

    Args:
        calls: functions by name, whose parameters are names in `given`.
        given: a good value for each argument by name.
        name, argument, kind: the case.
        tensors: whether the function takes tensors. A NaN must then show in its answer, because a compiled graph
            raises no errors. Other functions raise.
    """
    function = calls[name]
    good = {one: given[one] for one in arguments(function)}
    array = good[argument]
    found = outcome(function, {**good, argument: KINDS[kind](array)})
    if isinstance(found, Exception):
        fault = fault_of(found, [*good, name])
        if fault is None:
            return "refused, though its values are as before: " + str(found) if kind in EQUAL else NAMED
        return fault
    if kind in EQUAL or kind in FORMS:
        expected = outcome(function, good)
        assert not isinstance(expected, Exception), (name, expected)
        return ANSWER if alike(found, expected) else f"another answer: {plain(found)} and not {plain(expected)}"
    if kind == "NaN":
        return NOT_A_NUMBER if tensors and has_nan(found) else f"hides a NaN: {plain(found)}"
    if kind == "infinite":
        return ANSWER if tensors or is_finite(found) else f"neither refused nor finite: {plain(found)}"
    if kind == "huge":
        if tensors and not is_finite(found):
            return NOT_A_NUMBER
        wide = {
            key: value.astype(float) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
            for key, value in good.items()
        }
        expected = outcome(function, {**wide, argument: wide[argument] * 1e30})
        return ANSWER if alike(found, expected) else f"in float64 {plain(expected)}, here {plain(found)}"
    return ANSWER if not has_nan(found) else f"a NaN without a word: {plain(found)}"
