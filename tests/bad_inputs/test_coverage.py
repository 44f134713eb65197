"""Every public function and class is called with unusual arguments, or stands on a short list with the reason.

`python -m tests.bad_inputs` prints all cases of arrays with their outcomes.
"""

import dataclasses
import inspect

import numpy as np
import pytest

from tests.bad_inputs import test_data, test_files, test_models, test_options, test_tensors, test_verification
from tests.support.unusual import RIGHT, Room
from tests.test_public import PUBLIC

ROOMS = test_data.ROOMS | test_tensors.ROOMS | test_models.ROOMS | test_verification.ROOMS
CALLED = {call.partition(".")[0] for room in ROOMS.values() for call in room.calls} | set(test_files.READERS)
CALLED |= {name.removesuffix(".calibrate").rpartition(".")[2] for name in test_options.FUNCTIONS}

BASE = "a base class, whose subclasses are called"
NOT_CALLED = {
    "Distance": BASE,
    "ProxyLoss": BASE,
    "SiameseLoss": BASE,
    "AddonsLoss": "needs tensorflow-addons, see tests/test_addons.py",
    "loss": "needs tensorflow-addons, see tests/test_addons.py",
    "load": "takes nothing",
    "names": "takes nothing",
    "Comparison": "made by `compare_runs`",
    "Anatomy": "made by `dissect`",
    "SideWorkWarning": "a warning",
    "PartialFC": "takes a sequence and numbers, see tests/callbacks/test_partial.py",
    "StoredGallery": "takes a folder and a verifier, see tests/test_stored.py",
    "LiveCurves": "takes a monitor, see tests/callbacks/test_live.py",
    "TrackRun": "takes a monitor and a tracker, see tests/callbacks/test_tracking.py",
    "Tracker": BASE,
    "AtomicBackup": "takes a path, see tests/callbacks/test_backup.py",
    "DivergenceError": "made by a monitor",
    "SearchResults": "made by a search; `of` is called in test_options.py",
    "from_pretrained": "takes a model and options, see tests/test_pretrained.py",
    "fit": "called in test_models.py",
    "repair": "called in test_models.py",
    "dissect": "the monitors and `diagnose` call it with their data",
    "difference": "takes intervals, which `bootstrap` made",
    "objective": "called in test_options.py",
    "__version__": "a text",
}


def is_plain(item):
    """Whether it is a plot or a dataclass of results, which the package makes itself."""
    is_result = dataclasses.is_dataclass(item) or (inspect.isclass(item) and issubclass(item, tuple))
    return is_result or getattr(item, "__name__", "").startswith("plot_")


def test_every_public_name_is_called_or_has_a_reason():
    names = {name.rpartition(".")[2]: item for name, item in PUBLIC.items() if not inspect.ismodule(item)}
    wanted = {name for name, item in names.items() if not is_plain(item)}
    assert wanted - CALLED - set(NOT_CALLED) == set()
    assert set(NOT_CALLED) <= set(names)
    assert set(NOT_CALLED) & CALLED == set()


def test_there_are_many_cases():
    assert sum(len(list(room.cases())) for room in ROOMS.values()) >= 2000


@pytest.mark.parametrize(
    ("function", "kind", "fault"),
    [
        (lambda x: x.sum(), "NaN", "NaN"),
        (lambda x: float(abs(x).max() > 9), "NaN", "hides a NaN"),
        (lambda x: x[3], "one row", "IndexError"),
        (lambda x: float(x[::-1].argmax()), "read-only", None),
        (lambda x: float(x.strides[0]), "non-contiguous", "another answer"),
        (lambda x: float("".join(x)), "text", "of another package"),
        (lambda x: x * 2, "complex", "takes complex numbers"),
        (lambda x: float((x * 1e-30).sum() > 1e9), "huge", None),
        (lambda x: float(np.square(x).sum() < np.inf), "huge", "another answer"),
    ],
)
def test_faults_are_noticed(function, kind, fault):
    room = Room({"function": function}, {"x": test_tensors.NUMBERS})
    found = room.verdict("function", "x", kind)
    assert found in RIGHT if fault is None else fault in found
