"""Read a model and samples from files, for the command line. Errors name the file and what is wrong with it.

Contract: no code from a file is executed: models are read in safe mode, arrays without pickle, and neither
names other files or needs more memory than its size allows. Imports `verifier`.

    model, threshold, note = read_model("siamese.keras")
    validation = read_samples("valid.npz")           # (x, labels) or (left, right, same), as `diagnose` takes it
"""

import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import keras

from keras_siamese._reading import check_model_file, checked_arrays
from keras_siamese.verifier import Verifier

LABELLED, PAIRED = ("x", "labels"), ("left", "right", "same")


class SavedModel(NamedTuple):
    """What a `.keras` file holds."""

    model: keras.Model  # if the file holds a `Verifier`, its siamese network
    threshold: float | None  # the score from which the `Verifier` accepts, None for another model
    note: str | None  # a sentence that says what could not be read


def read_model(path):
    """Read the `SavedModel` at `path`. If its loss and optimizer cannot be read, they are left out and `note` says so.

    Raises:
        ValueError: if the file does not exist, is not a `.keras` file, or cannot be read in safe mode.
    """
    path, note = Path(path), None
    if not path.is_file():
        raise ValueError(f"The model must be a .keras file; there is no file {str(path)!r}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"The model must be a .keras file, as model.save writes it; {str(path)!r} is not one")
    unknown = f"The loss is not known, as what {path} was compiled with cannot be read"
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = load(path, compile=True)
        if not getattr(model, "compiled", False) and said:  # Keras 3.7 warns here and does not raise
            note = f"{unknown}: {first_line(said[-1].message)}"
    except MemoryError:
        raise
    except Exception as error:  # Keras raises errors of all types for an unknown class, a lambda or a damaged part
        note = f"{unknown}: {first_line(error)}"
        try:
            model = load(path, compile=False)
        except MemoryError:
            raise
        except Exception as deeper:
            must = "must be one that Keras reads in safe mode, of Keras's layers and those of keras_siamese"
            raise ValueError(f"The model {must}; {str(path)!r} cannot be read: {first_line(deeper)}") from deeper
    if isinstance(model, Verifier):
        return SavedModel(model.siamese, model.threshold, note)
    return SavedModel(model, None, note)


def load(path, compile):
    check_model_file(path, compile=compile)
    return keras.saving.load_model(path, compile=compile, safe_mode=True)


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def read_samples(path, *, pairs=True):
    """Read `(x, labels)` or, with `pairs`, also `(left, right, same)` from the `.npz` file at `path`.

    Raises:
        ValueError: if the file does not exist or holds other arrays; the message names them.
    """
    accepted = (LABELLED, PAIRED) if pairs else (LABELLED,)
    must = f"must be an .npz file that holds the arrays {' or '.join(map(listed, accepted))}"
    if not Path(path).is_file():
        raise ValueError(f"{path} {must}; there is no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} {must}, as numpy.savez writes it; it is not a zip archive")
    with checked_arrays(path) as archive:
        names = next((names for names in accepted if set(names) <= set(archive)), None)
        if names is None:
            raise ValueError(f"{path} {must}; it holds {listed(archive.files) or 'nothing'}")
        return tuple(read_array(archive, name, path) for name in names)


def read_array(archive, name, path):
    try:
        return archive[name]
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        found = f"{name!r} cannot be read: {error} (save strings as labels.astype(str))"
        raise ValueError(f"{path} must hold arrays of numbers or text, which need no pickle; {found}") from error


def listed(names):
    return ", ".join(repr(name) for name in names)
