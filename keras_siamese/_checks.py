"""Argument checks: each raises an error or returns the cleaned value.

Contract: a `check_…` function takes the argument's name and its value. It returns the value in the form that the caller
needs, or raises `ValueError` (`TypeError` for a wrong type) that names the argument, the expectation and the value. Any
module may import this one; it imports no other module of the package.

    margin = check_number("margin", margin, low=0, open_low=True)
    labels = check_labels("labels", labels, length=len(x))
"""

import difflib
import importlib
import numbers
import os
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np


def check_number(name, value, *, low=-np.inf, high=np.inf, open_low=False, open_high=False):
    """Return `value` as a float inside [low, high]; `open_low` and `open_high` exclude the ends."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number; got {value!r} of type {type(value).__name__}")
    number = float(value)
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if below or above or number != number:
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise ValueError(f"`{name}` must be in {left}{low:g}, {high:g}{right}; got {value!r}")
    return number


def check_integer(name, value, *, low=None, high=None):
    """Return `value` as an int inside [low, high]."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer; got {value!r} of type {type(value).__name__}")
    number = int(value)
    if low is not None and number < low:
        raise ValueError(f"`{name}` must be at least {low}; got {value!r}")
    if high is not None and number > high:
        raise ValueError(f"`{name}` must be at most {high}; got {value!r}")
    return number


def check_dims(name, dims):
    """Return `dims`, to which embeddings are cut, as a list of different whole numbers ≥ 1."""
    if not isinstance(dims, (list, tuple)) or not dims:
        raise ValueError(f"`{name}` must be a list of dimensions, such as [64, 32, 16]; got {dims!r}")
    dims = [check_integer(name, one, low=1) for one in dims]
    if len(set(dims)) < len(dims):
        raise ValueError(f"`{name}` must be different from each other; got {dims}")
    return dims


def check_choice(name, value, choices):
    """Return `value` if it is one of `choices`."""
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value


def as_array(name, values):
    """Return `values` as a NumPy array, without a copy if they are one.

    Also a tensor of PyTorch on another device, or with a gradient, as a model puts it out.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    with warnings.catch_warnings():
        # NumPy 1 warns, and makes an array of objects, where NumPy 2 raises.
        ragged = getattr(np, "exceptions", np).VisibleDeprecationWarning
        warnings.simplefilter("error", ragged)
        try:
            return np.asarray(values)
        except (ValueError, ragged) as error:
            raise ValueError(f"`{name}` has samples of inhomogeneous shapes: {error}") from error


def check_reals(name, values):
    """Return an array of real numbers or booleans; objects that are numbers become floats."""
    array = as_array(name, values)
    if array.dtype == object and all(isinstance(value, numbers.Real) for value in array.ravel().tolist()):
        array = array.astype(float)
    # By name, because NumPy does not count bfloat16 as a floating type.
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"`{name}` must be real numbers; got dtype {array.dtype}")
    return array


def check_finite(name, array):
    """Return `array` as a NumPy array, if it has no NaN or infinity."""
    array = as_array(name, array)
    # By name, because NumPy does not count bfloat16 as a floating type.
    if "float" in array.dtype.name:
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise ValueError(f"`{name}` must be finite; {bad} of its {array.size} values are NaN or infinite")
    return array


def check_model_input(name, x, called=False):
    """Raise if a NumPy array in the nested structure `x` holds strings or objects that no model can be given.

    Keras makes no tensors of arrays of strings. TensorFlow alone has such tensors. There, `fit` and `predict` read
    strings that are objects, and a model that is `called` reads arrays of strings too.
    """
    backend = keras.backend.backend()
    for array in keras.tree.flatten(x) if isinstance(x, (tuple, list, dict)) else [x]:
        kind = getattr(getattr(array, "dtype", None), "kind", None)
        if kind not in ("U", "S", "O"):
            continue
        is_text = kind != "O" or all(isinstance(one, (str, bytes)) for one in np.ravel(np.asarray(array))[:1])
        if is_text and backend == "tensorflow" and (called or kind == "O"):
            continue
        what, hint = "objects", "Give an array of numbers, for example by x.astype('float32')"
        if is_text:
            what, hint = "strings", "Turn them into numbers first, for example by keras.layers.TextVectorization"
            hint = f"{hint} outside of the model" if backend != "tensorflow" else "Give x.astype(object), or a tensor"
        raise TypeError(f"`{name}` holds {what}, which the backend {backend} cannot read as they are. {hint}")


def check_column(name, values, value, row, length=None):
    """Return an array `(n,)` with one `value` for each `row`; `(n, 1)` is flattened."""
    values = as_array(name, values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"`{name}` must have shape (n,), one {value} for each {row}; got shape {values.shape}")
    if length is not None and len(values) != length:
        raise ValueError(f"`{name}` must have one entry for each of the {length} {row}s; got {len(values)}")
    return values


def check_labels(name, labels, *, length=None):
    """Return identity labels as a 1-D array of integers or strings, `(n,)`; `(n, 1)` is flattened.

    Floating-point labels are accepted if each is a whole number. Objects that are all numbers become integers; if
    some are not, all become strings.
    """
    labels = check_column(name, labels, "identity", "sample", length)
    if labels.dtype == object:
        missing = [label for label in labels if is_missing(label)]
        if missing:
            found = f"{len(missing)} missing, such as {missing[0]!r}"
            raise ValueError(f"`{name}` must be whole numbers or strings; got {found}")
        are_numbers = len(labels) and all(isinstance(label, numbers.Real) for label in labels)
        labels = np.array(labels.tolist()) if are_numbers else labels.astype(str)
        labels = labels.astype(str) if labels.dtype == object else labels  # whole numbers of more than 64 bits
    if np.issubdtype(labels.dtype, np.complexfloating):
        raise ValueError(f"`{name}` must be whole numbers or strings; got an array of {labels.dtype}")
    if np.issubdtype(labels.dtype, np.floating):
        check_finite(name, labels)
        other = labels[(labels != np.floor(labels)) | (np.abs(labels) >= 2.0**63)]
        if other.size:
            raise ValueError(f"`{name}` must be whole numbers or strings; got {other[0]!r}")
        labels = labels.astype(np.int64)
    return labels


def is_missing(label):
    """Whether `label` is None, NaN or pandas' NA. The last two are not equal to themselves."""
    equal = label is not None and label == label
    return not (isinstance(equal, (bool, np.bool_)) and equal)


def check_same(name, same, *, length=None):
    """Return pair labels `(n,)` as booleans, True = genuine; accepts bool, 0/1 numbers and `(n, 1)`."""
    same = check_column(name, same, "label", "pair", length)
    if same.dtype != bool:
        values, counts = np.unique(same, return_counts=True)
        other = np.array([value not in (0, 1) for value in values.tolist()])
        if other.any():
            found = f"{values[other][:5].tolist()}, {counts[other].sum()} of {same.size} labels"
            raise ValueError(f"`{name}` must hold only 1 (genuine) and 0 (impostor); got also {found}")
    return same.astype(bool)


def check_path(name, path):
    """Return `path` as a `Path`."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be a path; got {path!r} of type {type(path).__name__}")
    return Path(path)


def check_keywords(function, given, known):
    """Check that each name in `given` is in `known`, the options of a `function`; `TypeError` names a similar one."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")


def check_writable(name, path):
    """Return `path` as a `Path` to a file that can be written; make its folder if it does not exist."""
    path = check_path(name, path)
    if path.is_dir():
        raise ValueError(f"`{name}` must be the path of a file; {str(path)!r} is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") if path.exists() else tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"`{name}` must be a path that can be written; {str(path)!r} cannot be: {error}") from error
    return path


def check_installed(module, extra):
    """Import and return the optional `module`; if it is missing, `ImportError` names the extra that installs it.

    A module that is there, but cannot be imported, is not called missing: the error says why.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        problem = "is not installed" if is_missing else f"cannot be imported ({error})"
        message = f'{module} is needed here and {problem}: pip install "keras-siamese[{extra}]"'
        raise ImportError(message) from error
