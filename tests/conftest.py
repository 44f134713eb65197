"""Shared fixtures, the backend of the tests, and which tests run.

- A plain `pytest` runs the quick tests, on PyTorch unless KERAS_BACKEND says otherwise, on up to four cores.
- `pytest -m deep` runs the others: slow tests, and further cases of what the quick tests cover already.
- `pytest -m partner`, with the extra `partners`, runs those that need a large package; other runs skip what is missing.
- `--turn N` runs the part of the chosen tests that CI runs on a repository of N commits: of the deep tests one of
  fifteen slices, each test on one of the backends by turns, and of the quick tests one of six.
"""

import gc
import importlib.util
import os
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if importlib.util.find_spec("torch") is not None:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # the fastest of the three on small tests: it compiles nothing

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which share the cores
    for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(_name, "1")

import keras
import numpy as np
import pytest

collect_ignore = [
    "support",
    "mutants.py",
    "fuzz.py",
]  # they hold no doctests, and some import what is not installed everywhere
BACKENDS = ("tensorflow", "jax", "torch")
SLICES, QUICK_SLICES = 15, 6
# Packages of extras without which the example in a module's docstring does not run.
NEEDED = {"keras_siamese.stored": "lancedb"}


def pytest_addoption(parser):
    parser.addoption(
        "--turn",
        type=int,
        metavar="N",
        help=f"of the deep tests, run one slice of {SLICES}, and of that slice the tests whose turn it is on this "
        f"backend; of the quick tests, one slice of {QUICK_SLICES}. Thus {SLICES} consecutive numbers on each of the "
        "three backends run every deep test once",
    )


def pytest_report_header(config):
    return f"keras {keras.__version__} on {keras.backend.backend()}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Tests that were named one by one run in this process, where a debugger works; a whole suite on several cores."""
    named = [argument for argument in config.args if argument not in config.getini("testpaths")]
    chosen = named or config.option.keyword or config.option.collectonly
    return 0 if chosen else min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 4)


def pytest_collection_modifyitems(config, items):
    for item in items:
        slow = item.get_closest_marker("deep_on")
        if slow and keras.backend.backend() in slow.args and not item.get_closest_marker("deep"):
            item.add_marker(pytest.mark.deep(on=slow.args))
        needed = [name for name in BACKENDS if item.get_closest_marker(name)]
        if needed and keras.backend.backend() not in needed:
            item.add_marker(pytest.mark.skip(reason=f"needs the backend {' or '.join(needed)}"))
        missing = [mark.args[0] for mark in item.iter_markers("partner") if not importlib.util.find_spec(mark.args[0])]
        if missing and config.option.markexpr != "partner":
            item.add_marker(pytest.mark.skip(reason=f"needs {missing[0]}, of the extra `partners`"))
        extra = NEEDED.get(getattr(getattr(item, "dtest", None), "globs", {}).get("__name__"))
        if extra and importlib.util.find_spec(extra) is None:
            item.add_marker(pytest.mark.skip(reason=f"{extra} is not installed"))
    turn = config.getoption("turn")
    if turn is not None:
        others = {item for item in items if not is_due(item, turn)}
        config.hook.pytest_deselected(items=[item for item in items if item in others])
        items[:] = [item for item in items if item not in others]


def is_due(item, turn):
    """Whether a test runs at this turn, on this backend. A slice of deep tests has another backend in each round."""
    number = zlib.crc32(item.nodeid.encode())
    deep = item.get_closest_marker("deep")
    if not deep:
        return number % QUICK_SLICES == turn % QUICK_SLICES
    possible = deep.kwargs.get("on") or [name for name in BACKENDS if item.get_closest_marker(name)] or BACKENDS
    backend = possible[(number // SLICES + turn // SLICES) % len(possible)]
    return number % SLICES == turn % SLICES and backend == keras.backend.backend()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. Without it the tests skip, but where CI=true they fail."""
    from tests.support.chromium import Chromium  # needs a Unix system

    program = Chromium.find()
    if program is None:
        reason = "no Chromium on the PATH (Debian's package: chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Chromium(program) as running:
        yield running


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(7)
    yield
    # Not the memory: its garbage collection costs half a second a test, and drops what JAX has compiled.
    keras.utils.clear_session(free_memory=False)


@pytest.fixture(autouse=True, scope="module")
def compiled_for_one_module():
    """Clears JAX's compilation cache after each test module.

    A process may map 65,530 pieces of memory; when compiled code takes more, XLA crashes.
    """
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture
def uncollected(monkeypatch):
    """A grid search without the garbage collection before each trial, which takes half a second."""
    monkeypatch.setattr("keras_siamese.tuning.grid.gc.collect", lambda: None)
