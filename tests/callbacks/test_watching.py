"""Watching a fit: it is diagnosed, it computes what it does without, and an error of ours does not end it."""

import keras
import numpy as np
import pytest

from keras_siamese.callbacks import watching
from tests.support.monitored import clusters


@pytest.fixture
def program():
    x, labels = clusters(10, 6, seed=1)
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 60, (2, 80))
    right[::2] = left[::2] // 6 * 6
    same = (labels[left] == labels[right]).astype("float32")
    ends = [keras.Input(x.shape[1:]), keras.Input(x.shape[1:])]
    tower = keras.layers.Dense(4)
    merged = keras.layers.Lambda(lambda pair: keras.ops.abs(pair[0] - pair[1]))([tower(end) for end in ends])
    model = keras.Model(ends, keras.layers.Dense(1, "sigmoid")(merged))
    model.compile("adam", "binary_crossentropy")
    return model, [x[left], x[right]], same


def watched(tmp_path):
    said = []
    return watching.watch(keras.Model.fit, tmp_path / "r.html", said.append), said


def test_an_error_of_ours_is_one_line(program, tmp_path, monkeypatch):
    model, x, y = program
    fit, said = watched(tmp_path)
    monkeypatch.setattr(watching.SilentMonitor, "measure", lambda self: 1 / 0)
    history = fit(model, x, y, validation_data=(x, y), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert said == [f"the fit of {model.name!r} is no longer watched: ZeroDivisionError: division by zero"]


def test_generators_are_left_to_the_program(program, tmp_path):
    model, x, y = program
    fit, said = watched(tmp_path)
    drawn = []

    def batches():
        for start in range(0, 80, 20):
            drawn.append(start)
            yield tuple(side[start : start + 20] for side in x), y[start : start + 20]

    fit(model, x, y, validation_data=batches(), validation_steps=4, verbose=0)
    assert drawn == [0, 20, 40, 60] and "validation data cannot be read" in said[0]


def test_models_that_are_not_siamese_are_left_alone(tmp_path, rng):
    fit, said = watched(tmp_path)
    x, y = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    fit(model, x, y, validation_data=(x, y), verbose=0)
    assert said == [] and list(tmp_path.iterdir()) == []


@pytest.mark.each_backend
def test_what_happens_quietly_leaves_no_trace(program, capsys):
    import random

    from keras.src.backend.common import global_state

    model = program[0]
    keras.utils.set_random_seed(1)
    keras.random.normal((2,))  # makes Keras's generator
    generator = global_state.get_global_attribute("global_seed_generator")

    def states():
        keras_state = keras.ops.convert_to_numpy(generator.state).tolist()
        return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2], keras_state

    name = keras.layers.Dense(1).name  # a new layer draws a seed
    before, expected = model.get_weights(), states()
    with watching.quietly(model):
        print("unseen", random.random(), np.random.rand(), keras.random.normal((2,)), keras.layers.Dense(1).name)
        assert states() != expected
        model.set_weights([weight + 1 for weight in before])
    assert global_state.get_global_attribute("global_seed_generator") is generator
    assert states() == expected
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), before, strict=True))
    number = int(name.rsplit("_", 1)[1]) if "_" in name else 0
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"
    assert "unseen" not in capsys.readouterr().out


@pytest.mark.tensorflow
def test_data_sets_are_read_if_they_have_no_state():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(np.arange(10.0)).map(lambda x: x + 1).batch(2).prefetch(1)
    assert watching.is_readable(data)
    assert not watching.is_readable(data.shuffle(4).take(2))
    assert not watching.is_readable(data.map(lambda x: x + tf.cast(tf.random.uniform(()), x.dtype)))
