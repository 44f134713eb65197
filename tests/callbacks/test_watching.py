"""Watching a fit: it is diagnosed, it computes what it does without, and an error of ours does not end it."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_siamese.callbacks import watching
from tests.support.facts_by_hand import answer
from tests.support.monitored import clusters

pytestmark = pytest.mark.usefixtures("unpainted")


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


def test_a_report_that_cannot_be_written_is_put_elsewhere(program, tmp_path, monkeypatch):
    model, x, y = program
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fit, said = watched(tmp_path / "out")

    class Removes(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            (tmp_path / "out").write_text("a file")

    fit(model, x, y, validation_data=(x, y), epochs=1, verbose=0, callbacks=[Removes()])
    assert [line.split(" failed at")[0] for line in said[:2]] == ["The report", "The report's JSON"]
    (folder,) = (tmp_path / "here").iterdir()
    assert len(said) == 3 and f"the report is {folder / 'r.html'}" in said[2] and (folder / "r.html").exists()


def test_the_terminal_shows_the_advice_of_the_cause_that_leads():
    finding = answer("unreachable_output")
    diagnosis = SimpleNamespace(verdict="It verifies badly.", leading=[finding, answer("margin")])
    first, cause, *code = watching.in_short(diagnosis).splitlines()
    assert first == "It verifies badly."
    assert cause == f"keras-siamese watch: unreachable output: {finding.summary}"
    assert [line[4:] for line in code] == finding.advice.splitlines() and "LogisticHead" in finding.advice
    assert watching.in_short(SimpleNamespace(verdict="It is well.", leading=[])) == "It is well."


def test_an_error_of_ours_is_one_line(program, tmp_path, monkeypatch):
    model, x, y = program
    fit, said = watched(tmp_path)
    monkeypatch.setattr(watching.SilentMonitor, "measure", lambda self: 1 / 0)
    history = fit(model, x, y, validation_data=(x, y), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert said == [f"the fit of {model.name!r} is no longer watched: ZeroDivisionError: division by zero"]


def drawn_from(x, y, drawn, seed):
    """Batches of 20 pairs for ever, in an order that NumPy's old generators give."""
    rng = np.random.RandomState(seed)
    while True:
        drawn.append(rng.permutation(len(y))[:20])
        yield tuple(side[drawn[-1]] for side in x), y[drawn[-1]]


@pytest.mark.each_backend
def test_generators_are_recorded_and_give_the_program_the_same(program, tmp_path):
    model, x, y = program
    given = [one[20:60] for one in x], y[20:60]
    begin, results, drawn = model.get_weights(), [], []
    fit, said = watched(tmp_path)
    for call in (keras.Model.fit, fit):
        keras.utils.set_random_seed(4)
        model.set_weights(begin)
        model.compile("adam", "binary_crossentropy")
        drawn.append(([], []))
        train, valid = drawn_from(x, y, drawn[-1][0], 1), drawn_from(*given, drawn[-1][1], 2)
        options = {"steps_per_epoch": 4, "validation_steps": 2, "epochs": 2, "shuffle": False, "verbose": 0}
        call(model, train, validation_data=valid, **options)
        results.append(model.get_weights())
    assert all(np.array_equal(*pair) for pair in zip(*results, strict=True))
    for alone, seen in zip(*drawn, strict=True):  # TensorFlow reads ahead, now one batch more, now one less
        assert min(len(alone), len(seen)) >= 2
        assert all(np.array_equal(*pair) for pair in zip(alone, seen, strict=False))
    assert len(said) == 1 and "the report is" in said[0]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["verification"]["genuine_pairs"] + report["verification"]["impostor_pairs"] == 40
    assert "train_eer" in report["signals"]


def test_data_that_can_neither_be_read_nor_recorded_are_named(program, tmp_path):
    class Once:
        def __iter__(self):
            raise AssertionError("not to be read")

    model, x, y = program
    watcher = watching.Watcher(tmp_path / "r.html", lambda text: said.append(text))
    said = []
    assert watcher.monitored(model, (x, y), {"validation_data": Once()})[0] is None
    assert "validation data cannot be read" in said[0]


def test_a_generator_for_a_model_that_is_not_siamese_leaves_no_trace(tmp_path, rng):
    fit, said = watched(tmp_path)
    x, y = rng.normal(size=(40, 4, 4)), rng.integers(0, 3, 40)
    model = keras.Sequential([keras.Input((4, 4)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    data = ((x, y) for _ in range(4))
    fit(model, x, y, validation_data=data, validation_steps=1, epochs=2, verbose=0)
    assert said == [] and list(tmp_path.iterdir()) == []


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
        print("unseen", keras.random.normal((2,)), keras.layers.Dense(1).name)
        assert states() != expected
        model.set_weights([weight + 1 for weight in before])
    assert global_state.get_global_attribute("global_seed_generator") is generator
    assert states() == expected
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), before, strict=True))
    number = int(name.rsplit("_", 1)[1]) if "_" in name else 0
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"
    assert "unseen" not in capsys.readouterr().out
