"""Tests of `Program` and `run`: the same start gives the same losses, and only what was changed differs."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.experiments.program import at_rate, fewer, new_values, program_of, run, values_of
from keras_siamese.scoring import Trials
from tests.support import small_programs


@pytest.fixture(scope="module")
def observed():
    return small_programs.fitted(epochs=2)[1].diagnosis.observed


@pytest.fixture(scope="module")
def program(observed):
    return program_of(observed)


def test_a_program_repeats_and_trains(program):
    first, again = run(program, 24), run(program, 24)
    assert first.losses == again.losses and len(first.losses) == 24
    assert np.mean(first.losses[-6:]) < 0.8 * np.mean(first.losses[:6])
    assert np.array_equal(first.scored.scores, again.scored.scores)


def test_from_the_initial_weights_the_losses_are_those_of_the_fit():
    """A plain loop over the same model, optimizer and batches."""
    _, monitor, train, _ = small_programs.fitted(epochs=1, confirm=True)
    other = small_programs.fitted(epochs=0)[0]  # the same seeds: the initial weights
    losses = []
    other.reset_metrics()
    for step in range(3):
        losses.append(float(other.train_on_batch(*train.batch(0, step), return_dict=True)["loss"]))
        other.reset_metrics()
    assert np.allclose(losses, run(program_of(monitor.diagnosis.observed), 3).losses, rtol=1e-5)


def test_without_steps_the_present_weights_are_scored(program, observed):
    found = run(replace(program, start=None), 0)
    assert found.losses == [] and np.isin(found.scored.scores, observed.valid.scores).mean() > 0.99


def test_a_sign_turns_the_scores(program):
    plain, turned = (run(replace(program, start=None, sign=sign), 0).scored.scores for sign in (1.0, -1.0))
    assert np.array_equal(plain, -turned)


def test_on_step_is_called_after_each_step(program):
    calls = []
    run(program, 3, lambda: calls.append(1))
    assert len(calls) == 3


def test_a_loss_that_is_not_finite_ends_the_training(program):
    class Weighted:
        steps = program.batches.steps

        def at(self, step):
            x, y = program.batches.at(step)[:2]
            return x, y, np.full(len(y), np.inf, "float32")

    assert len(run(replace(program, batches=Weighted()), 5).losses) == 1


@pytest.mark.parametrize("schedule", [False, True])
def test_the_rate_is_changed_within_the_block_with_a_schedule_too(schedule):
    model = small_programs.fitted(epochs=1, schedule=schedule)[0]
    before = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert "train_step" not in vars(model)
    with at_rate(model, 10.0):
        inside = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    after = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert np.isclose(inside, 10 * before) and after == before


@pytest.mark.each_backend
@pytest.mark.parametrize("schedule", [False, True])
@pytest.mark.deep_on("tensorflow")
def test_no_rate_moves_no_weights(schedule):
    program = program_of(small_programs.fitted(epochs=1, schedule=schedule)[1].diagnosis.observed)
    first = run(replace(program, rate=1e-9), 12).scored.scores
    assert np.allclose(first, run(program, 0).scored.scores, atol=1e-5)
    assert not np.allclose(first, run(program, 12).scored.scores, atol=1e-2)


def test_new_values_are_those_of_the_layers_initializers_and_frozen_layers_have_none():
    model = small_programs.fitted(epochs=1)[0]
    frozen = next(layer for layer in model.encoder.layers if isinstance(layer, keras.layers.Dense))
    frozen.trainable = False
    found = new_values(model)
    frozen.trainable = True
    last = [layer for layer in model.encoder.layers if isinstance(layer, keras.layers.Dense)][-1]
    assert id(frozen.kernel) not in found
    fresh = keras.initializers.GlorotUniform(seed=3)(last.kernel.shape)
    assert np.allclose(found[id(last.kernel)], keras.ops.convert_to_numpy(fresh))
    assert not np.allclose(values_of(model)[id(last.kernel)], found[id(last.kernel)])


def test_fewer_trials_are_balanced_and_keep_their_items():
    x, labels = small_programs.identities(40)
    trials = Trials.from_labels(x, labels)
    few = fewer(trials, most=200)
    assert len(few) == 200 and 60 < np.count_nonzero(few.same) < 140
    assert np.array_equal(few.same, few.identities[few.left] == few.identities[few.right])
    names = {tuple(item): label for item, label in zip(x, labels, strict=True)}
    assert all(names[tuple(item)] == one for item, one in zip(few.items, few.identities, strict=True))


def test_a_model_without_optimizer_or_data_makes_no_program(observed):
    assert program_of(replace(observed, fed=None, source=None)) is None


class TwoPartsOnly(keras.Model):
    """A functional model whose own step takes the inputs and the targets, as in Keras's guide, and nothing more."""

    def train_step(self, *arguments):
        *state, data = arguments  # on JAX the variables are the first argument
        x, y = data
        return super().train_step(*state, (x, y))


@pytest.mark.each_backend
def test_a_step_that_takes_two_parts_gets_two_as_by_fit():
    x, labels = small_programs.identities()
    inputs = keras.Input((12,)), keras.Input((12,))
    u, v = map(small_programs.encoder(), inputs)
    model = TwoPartsOnly(inputs, keras.layers.Dense(1, "sigmoid")(keras.ops.abs(u - v)))
    model.compile("adam", "binary_crossentropy")
    y = (labels == labels[::-1]).astype("float32")
    pairs = ks.data.PairSequence(x, labels, batch_size=30, pairs_per_epoch=60, seed=0)
    monitor = ks.callbacks.DivergenceMonitor(small_programs.identities(20, seed=1), train=pairs)
    model.fit(pairs, epochs=1, verbose=0, callbacks=[monitor])
    found = run(program_of(monitor.diagnosis.observed), 3)
    assert len(found.losses) == 3 and np.isfinite(found.losses).all()
    model.fit((x, x[::-1]), y, epochs=1, verbose=0)  # and the model trains as before
