"""JAX compiles a model of the same shapes once; the weights are the same."""

import keras
import numpy as np
import pytest

from keras_siamese.tuning import compiled
from keras_siamese.tuning.compiled import kept_compiled


@pytest.fixture
def jax():
    """JAX with its own default: it keeps nothing on disk, whatever the environment says."""
    jax = pytest.importorskip("jax")
    before = getattr(jax.config, compiled.FOLDER)
    compiled.change({compiled.FOLDER: None})
    yield jax
    compiled.change({compiled.FOLDER: before})


def trained():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.eye(3), np.arange(3.0), verbose=0)
    return model.get_weights()


@pytest.mark.jax
def test_a_second_model_adds_no_function_and_has_equal_weights(jax, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "folder", lambda: type("Folder", (), {"name": str(tmp_path)}))
    before = {name: getattr(jax.config, name) for name in (*compiled.SETTINGS, compiled.FOLDER)}
    alone = trained()
    assert not list(tmp_path.iterdir())
    with kept_compiled():
        first, kept = trained(), {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")}
        second = trained()
    assert kept and kept == {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")}
    assert all(np.array_equal(*pair) for weights in (first, second) for pair in zip(alone, weights, strict=True))
    assert before == {name: getattr(jax.config, name) for name in before}


@pytest.mark.jax
def test_a_folder_of_the_program_is_left_alone(jax, tmp_path):
    jax.config.update(compiled.FOLDER, str(tmp_path))
    with kept_compiled():
        assert getattr(jax.config, compiled.FOLDER) == str(tmp_path)


@pytest.mark.jax
def test_a_full_disk_does_not_end_the_trial(jax, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled, "folder", full)
    with kept_compiled():
        trained()


@pytest.mark.torch
def test_nothing_is_kept_on_other_backends(monkeypatch):
    monkeypatch.setattr(compiled, "folder", lambda: pytest.fail("a folder was made"))
    with kept_compiled():
        trained()
