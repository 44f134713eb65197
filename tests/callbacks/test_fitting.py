"""`fit`: Keras's own, with a monitor that knows training and validation data; and loops of the user's own."""

import inspect

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.callbacks.fitting import ORDER, held_out, replaced
from tests.callbacks.test_watching import program  # noqa: F401  (a fixture)


def test_options_of_the_monitor_are_no_arguments_of_keras():
    own = [name for name, one in inspect.signature(ks.fit).parameters.items() if one.kind is one.KEYWORD_ONLY]
    assert own and not set(own) & set(ORDER) and ORDER[:2] == ("x", "y")


def test_a_misspelt_argument_is_named_with_the_right_one():
    model = keras.Sequential([keras.Input((2,))])
    for wrong, right in (("on_divergance", "on_divergence"), ("batchsize", "batch_size")):
        with pytest.raises(TypeError, match=rf"ks.fit\(\) got .* '{wrong}'. Did you mean '{right}'\?"):
            ks.fit(model, **{wrong: 1})


def test_arguments_are_replaced_where_they_stand():
    assert replaced((1, 2, 3, 4, 5, None), {}, callbacks=[0]) == ([1, 2, 3, 4, 5, [0]], {})
    assert replaced((1,), {"y": 2}, callbacks=[0]) == ([1], {"y": 2, "callbacks": [0]})


def test_validation_split_is_the_last_part_as_in_keras():
    class Seen(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x):
            return self.layer(x)

        def evaluate(self, x=None, *args, **kwargs):
            self.seen = np.asarray(x)
            return super().evaluate(x, *args, **kwargs)

    x, y = np.arange(14.0).reshape(7, 2), np.arange(7.0)
    model = Seen()
    model.compile("sgd", "mse")
    model.fit(x, y, validation_split=0.3, verbose=0)
    found = held_out({"x": x, "y": y, "validation_split": 0.3})
    assert np.array_equal(found[0], model.seen) and np.array_equal(found[1], y[-len(found[0]) :])


@pytest.mark.each_backend
def test_fit_returns_the_history_with_its_diagnosis(program):  # noqa: F811
    model, x, y = program
    stop = keras.callbacks.EarlyStopping("val_eer", mode="min", patience=3)
    history = ks.fit(model, x, y, 20, 2, 0, [stop], validation_data=(x, y))
    assert len(history.history["val_eer"]) == 2 and history.monitor.diagnosis is history.diagnosis
    assert history.diagnosis.run.train is not None


def test_a_generator_of_training_data_is_recorded_as_keras_reads_it(program):  # noqa: F811
    model, x, y = program
    drawn = []

    def batches():
        for start in range(0, 80, 20):
            drawn.append(start)
            yield tuple(side[start : start + 20] for side in x), y[start : start + 20]

    history = ks.fit(model, batches(), validation_data=(x, y), steps_per_epoch=4, shuffle=False, verbose=0)
    assert drawn == [0, 20, 40, 60] and len(history.diagnosis.run.train.trials) == 80


def test_a_generator_of_validation_data_gives_fit_all_its_batches(program):  # noqa: F811
    model, x, y = program
    parts = ((tuple(side[start : start + 20] for side in x), y[start : start + 20]) for start in range(0, 80, 20))
    history = ks.fit(model, x, y, validation_data=parts, validation_steps=2, epochs=2, verbose=0)
    assert len(history.history["val_loss"]) == len(history.history["val_eer"]) == 2
    assert len(history.monitor.trials) == 40  # the batches of the first evaluation


def test_without_validation_data_it_says_so(program):  # noqa: F811
    with pytest.raises(ValueError, match="`validation_data` must be given"):
        ks.fit(*program)


@pytest.mark.each_backend
def test_a_loop_of_ones_own(program, tmp_path):  # noqa: F811
    model, x, y = program
    monitor = ks.callbacks.DivergenceMonitor((x, y))
    monitor.start(model, epochs=3)
    for epoch in range(3):
        loss = float(model.train_on_batch(x, y))
        values = monitor.record(epoch, loss=loss)
    diagnosis = monitor.finish()
    assert values["loss"] == loss and 0 <= values["val_eer"] <= 1
    assert len(monitor.history["eer"]) == 3 and monitor.history["update_size"][0] > 0
    assert diagnosis is monitor.diagnosis
    for history in (monitor, monitor.history):
        assert ks.diagnose(model, validation=(x, y), history=history).run.epoch == 2


@pytest.mark.torch
def test_a_loop_in_torch_of_a_model_that_is_not_compiled(program):  # noqa: F811
    import torch

    built, x, y = program
    model = keras.Model(built.inputs, built.outputs)
    steps = torch.optim.Adam(model.parameters(), 0.01)
    monitor = ks.callbacks.DivergenceMonitor((x, y))
    monitor.start(model)
    for epoch in range(2):
        loss = torch.nn.functional.binary_cross_entropy(model([torch.tensor(one) for one in x])[:, 0], torch.tensor(y))
        steps.zero_grad()
        loss.backward()
        steps.step()
        monitor.record(epoch, loss=loss.item())
    assert monitor.finish().run.epoch == 1


@pytest.mark.jax
def test_a_loop_in_jax_whose_variables_are_outside_of_the_model(program):  # noqa: F811
    """The loop of Keras's guide to custom training in JAX, with the lines that docs/guides/attach.md adds."""
    import jax

    model, x, y = program
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    def loss_of(trainable, fixed, x, y):
        output, fixed = model.stateless_call(trainable, fixed, x, training=True)
        return keras.ops.mean(keras.losses.binary_crossentropy(y[:, None], output)), fixed

    gradient = jax.value_and_grad(loss_of, has_aux=True)

    @jax.jit
    def step(state, x, y):
        trainable, fixed, slots = state
        (loss, fixed), gradients = gradient(trainable, fixed, x, y)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return loss, (trainable, fixed, slots)

    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = tuple([variable.value for variable in group] for group in groups)
    monitor = ks.callbacks.DivergenceMonitor((x, y), train=(x, y))
    monitor.start(model)
    begin = model.get_weights()
    for epoch in range(3):
        loss, state = step(state, x, y)
        for variable, value in zip(model.trainable_variables, state[0], strict=True):
            variable.assign(value)
        values = monitor.record(epoch, loss=float(loss))
    assert monitor.finish().run.epoch == 2 and 0 <= values["val_eer"] <= 1
    assert all(size > 0 for size in monitor.history["update_size"]) and not np.array_equal(
        begin[0], model.get_weights()[0]
    )


def test_a_loop_that_did_not_start_and_a_model_that_is_none_are_told(program):  # noqa: F811
    model, x, y = program
    with pytest.raises(RuntimeError, match=r"call `start\(model\)` before `record`"):
        ks.callbacks.DivergenceMonitor((x, y)).record(0, loss=1.0)
    with pytest.raises(TypeError, match=r"`model` must be a Keras model, the first argument of ks.fit\(.* got a list"):
        ks.fit([x], model, y, validation_data=(x, y))
