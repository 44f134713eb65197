"""Shared fixtures: a seeded NumPy generator, and Keras's own seed reset for each test."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest


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
