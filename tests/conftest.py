"""Shared fixtures: a seeded NumPy generator, Keras's own seed reset for each test, and `--share`."""

import gc
import os
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

HALF_PRECISION = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def pytest_addoption(parser):
    parser.addoption(
        "--share",
        metavar="K/N",
        help="run the K-th of N shares of the tests for which one backend is enough (marked any_backend, or in half "
        "precision), and all others; N suites, each on a backend of its own, together run all but what skips there",
    )


def pytest_collection_modifyitems(config, items):
    if not (option := config.getoption("share")):
        return
    try:
        mine, shares = map(int, option.split("/"))
    except ValueError:
        mine, shares = 0, 0
    if not 1 <= mine <= shares:
        raise pytest.UsageError(f"--share must be K/N with 1 ≤ K ≤ N, as in 1/3; got {option}")
    others = {item for item in items if is_shared(item) and zlib.crc32(item.nodeid.encode()) % shares != mine - 1}
    config.hook.pytest_deselected(items=[item for item in items if item in others])
    items[:] = [item for item in items if item not in others]


def is_shared(item):
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return item.get_closest_marker("any_backend") is not None or any(str(value) in HALF_PRECISION for value in params)


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
    """Lets go of what XLA compiled for a module: a process may map 65,530 pieces of memory, and beyond XLA crashes."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture
def uncollected(monkeypatch):
    """A grid search without the garbage collection before each trial: half a second, where most train nothing."""
    monkeypatch.setattr("keras_siamese.tuning.grid.gc.collect", lambda: None)
