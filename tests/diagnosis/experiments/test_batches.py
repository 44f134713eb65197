"""Tests of `Batches` and `Sequence`: the same step gives the same batch, and an epoch shows each sample once."""

from types import SimpleNamespace

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.experiments.batches import BATCH, Batches, Sequence, batches_of

X = [np.arange(10.0), np.arange(10.0) + 100]
Y = np.array([0, 1] * 5)


def test_an_epoch_of_arrays_shows_each_sample_once_in_another_order_each_time():
    batches = Batches(X, Y, size=5)
    epochs = [np.concatenate([batches.at(step)[0][0] for step in range(first, first + 2)]) for first in (0, 2)]
    assert batches.steps == 2
    assert all(sorted(epoch) == X[0].tolist() for epoch in epochs) and epochs[0].tolist() != epochs[1].tolist()


def test_inputs_and_targets_stay_together_and_repeat():
    batches = Batches(X, Y, size=4)
    for step in (0, 1, 5):
        (left, right), y = batches.at(step)
        assert np.array_equal(right, left + 100) and np.array_equal(y, left % 2)
        assert np.array_equal(left, batches.at(step)[0][0])


def test_without_targets_a_batch_has_inputs_alone():
    assert len(Batches(X[0], None, size=2).at(0)) == 1


def test_resampled_rows_are_shown_as_often_as_they_are_listed():
    shown = Batches(X, Y, size=6).resampled([1, 1, 1, 1, 3, 3]).at(0)[1]
    assert shown.tolist() == [1] * 6
    assert Batches(X, Y, size=6).resampled([1, 1, 1, 1, 3, 3]).at(0)[0][0].tolist() == [1, 1, 1, 1, 3, 3]


@pytest.mark.parametrize("kind", ["arrays", "sequence"])
def test_changed_applies_functions_to_inputs_and_targets(kind):
    source = ks.data.PairSequence(np.arange(12.0), np.repeat(range(4), 3), batch_size=4)
    batches = Batches(X, Y, size=4) if kind == "arrays" else Sequence(source)
    changed = batches.changed(x=lambda a: 2 * a).changed(y=lambda a: 1 - a)
    (left, right), y = batches.at(1)
    (new_left, new_right), new_y = changed.at(1)
    assert np.array_equal(new_left, 2 * left) and np.array_equal(new_right, 2 * right) and np.array_equal(new_y, 1 - y)


def test_a_sequence_of_the_package_gives_its_later_epochs_without_being_moved_on():
    source = ks.data.PairSequence(np.arange(12.0), np.repeat(range(4), 3), batch_size=4, seed=3)
    batches = Sequence(source)
    (left, _), _ = batches.at(batches.steps + 1)
    assert np.array_equal(left, source.batch(1, 1)[0][0]) and source.epoch == 0


def test_batches_of_a_run_are_those_that_fit_was_given():
    observed = SimpleNamespace(fed=(X, Y), source=None, steps=5)
    assert batches_of(observed).size == 2
    observed.steps = None
    assert batches_of(observed).size == BATCH
    source = ks.data.PairSequence(np.arange(12.0), np.repeat(range(4), 3))
    assert batches_of(SimpleNamespace(fed=source, source=source)).source is source
    assert batches_of(SimpleNamespace(fed=None, source=None)) is None
    generator = iter([(X, Y)])
    assert len(batches_of(SimpleNamespace(fed=generator, source=None)).x[0]) == 10
