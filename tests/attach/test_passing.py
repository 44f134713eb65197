"""Data recorded as they pass: `fit` gets the same, and the first batches are known afterwards."""

import copy

import numpy as np
import pytest

from keras_siamese.attach.passing import is_readable, passing


def batches(count=5, size=4):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield (rng.normal(size=(size, 3)), rng.normal(size=(size, 3))), rng.integers(0, 2, size)


def assert_equal(one, other):
    assert len(one) == len(other)
    for (pair, y), (again, y_again) in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.array(pair), np.array(again))
        np.testing.assert_array_equal(np.array(y), np.array(y_again))


def test_a_generator_gives_all_batches_and_the_first_are_kept():
    given, seen = passing(batches(), rows=6)
    assert seen.read() is None and copy.deepcopy(seen) is seen
    assert_equal(list(given), list(batches()))
    (left, right), y = seen.read()
    assert left.shape == right.shape == (8, 3) and y.shape == (8,)
    expected = list(batches())[:2]
    np.testing.assert_array_equal(left, np.concatenate([pair[0] for pair, _ in expected]))
    np.testing.assert_array_equal(y, np.concatenate([y for _, y in expected]))


def test_large_samples_are_kept_up_to_their_bytes(monkeypatch):
    monkeypatch.setattr("keras_siamese.attach.passing.BYTES", 300)
    given, seen = passing(batches())
    assert len(list(given)) == 5 and len(seen.read()[1]) == 8  # 224 bytes a batch


def test_what_was_kept_is_a_copy():
    buffer = np.zeros((4, 2))

    def reused():
        for number in range(2):
            buffer[:] = number
            yield buffer, buffer[:, 0]

    given, seen = passing(reused())
    list(given)
    assert seen.read()[1].tolist() == [0] * 4 + [1] * 4


def test_inputs_alone_and_targets_of_none():
    for made in (({"a": np.ones((3, 2))} for _ in range(2)), ((np.ones((3, 2)), None) for _ in range(2))):
        given, seen = passing(made)
        assert len(list(given)) == 2
        x, y = seen.read()
        assert y is None and (x["a"] if isinstance(x, dict) else x).shape == (6, 2)


def test_other_data_are_not_wrapped():
    assert passing(np.ones(3)) == passing((np.ones(3), np.ones(3))) == passing([1]) == (None, None)


@pytest.mark.torch
def test_a_loader_draws_the_same_batches():
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20))

    def drawn(wrap):
        torch.manual_seed(3)
        loader = DataLoader(data, batch_size=4, shuffle=True)
        given, seen = passing(loader) if wrap else (loader, None)
        assert isinstance(given, DataLoader) and len(given) == 5
        return [[y.tolist() for _, y in given] for _ in range(2)], torch.random.get_rng_state(), seen

    alone, state, _ = drawn(False)
    wrapped, state_after, seen = drawn(True)
    assert alone == wrapped and torch.equal(state, state_after)
    assert seen.read()[1].tolist()[:20] == [y for batch in alone[0] for y in batch]


@pytest.mark.tensorflow
def test_a_data_set_gives_the_same_elements():
    import tensorflow as tf

    def drawn(wrap):
        tf.random.set_seed(5)
        x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
        data = tf.data.Dataset.from_tensor_slices(((x, {"b": x}), y)).shuffle(20).batch(3, drop_remainder=True)
        given, seen = passing(data, rows=18) if wrap else (data, None)
        assert given.element_spec == data.element_spec
        return [[y.numpy().tolist() for _, y in given] for _ in range(2)], seen

    alone, _ = drawn(False)
    wrapped, seen = drawn(True)
    assert alone == wrapped and alone[0] != alone[1]
    (x, named), y = seen.read()
    assert y.tolist() == [one for batch in alone[0] for one in batch]
    np.testing.assert_array_equal(x[:, 0], 2 * y)
    np.testing.assert_array_equal(named["b"], x)


@pytest.mark.tensorflow
def test_data_sets_are_read_if_they_have_no_state():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(np.arange(10.0)).map(lambda x: x + 1).batch(2).prefetch(1)
    assert is_readable(data)
    assert not is_readable(data.shuffle(4).take(2))
    assert not is_readable(data.map(lambda x: x + tf.cast(tf.random.uniform(()), x.dtype)))
