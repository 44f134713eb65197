"""Data in every form that `fit` takes."""

import keras
import numpy as np
import pytest
from keras import tree

from keras_siamese.attach.feed import gather, is_batched, pair_labels

LEFT, RIGHT = np.arange(20.0).reshape(10, 2), np.arange(20.0, 40.0).reshape(10, 2)
SAME = np.arange(10) % 2
PARTS = [slice(0, 4), slice(4, 8), slice(8, 10)]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return len(PARTS)

    def __getitem__(self, number):
        return (LEFT[PARTS[number]], RIGHT[PARTS[number]]), SAME[PARTS[number]]


def generated():
    for part in PARTS:
        yield (LEFT[part], RIGHT[part]), SAME[part], np.ones(part.stop - part.start)


def forever():
    while True:
        yield (LEFT, RIGHT), SAME


def tensorflow_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(((LEFT, RIGHT), SAME)).batch(4)


def torch_loader():
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    rows = [((torch.tensor(a), torch.tensor(b)), int(c)) for a, b, c in zip(LEFT, RIGHT, SAME, strict=True)]
    return data.DataLoader(rows, batch_size=4)


def frames():
    pandas = pytest.importorskip("pandas")
    return (pandas.DataFrame(LEFT), pandas.DataFrame(RIGHT)), pandas.Series(SAME)


SOURCES = {
    "arrays": lambda: ([LEFT, RIGHT], SAME),
    "arrays and weights": lambda: ([LEFT, RIGHT], SAME, np.ones(10)),
    "dict": lambda: ({"a": LEFT, "b": RIGHT}, SAME),
    "list of labels": lambda: ((LEFT, RIGHT), SAME.tolist()),
    "tensors": lambda: ([keras.ops.convert_to_tensor(LEFT), keras.ops.convert_to_tensor(RIGHT)], SAME),
    "pandas": frames,
    "PyDataset": lambda: Batches(),
    "generator function": lambda: generated,
    "generator": generated,
    "tf.data": tensorflow_dataset,
    "DataLoader": torch_loader,
}


@pytest.mark.each_backend
@pytest.mark.parametrize("form", SOURCES)
def test_every_form_gives_the_same_arrays(form):
    x, y = gather(SOURCES[form]())
    assert all(isinstance(array, np.ndarray) for array in tree.flatten((x, y)))
    for found, expected in zip(tree.flatten((x, y)), [LEFT, RIGHT, SAME], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_infinite_generator_is_read_as_far_as_wanted():
    x, y = gather(forever(), rows=25)
    assert len(y) == 30
    np.testing.assert_array_equal(x[0], np.tile(LEFT, (3, 1)))


def test_without_targets():
    x, y = gather(batch for batch in [(LEFT,), (RIGHT,)])
    np.testing.assert_array_equal(x, np.concatenate([LEFT, RIGHT]))
    assert y is None


@pytest.mark.parametrize("data", [Batches(), generated, generated(), lambda: generated()])
def test_what_comes_in_batches(data):
    assert is_batched(data)


@pytest.mark.parametrize("data", [[LEFT, RIGHT], (LEFT, SAME), {"a": LEFT}, LEFT, "valid.csv"])
def test_what_does_not_come_in_batches(data):
    assert not is_batched(data)


def test_lengths_that_differ_and_no_data_are_errors():
    with pytest.raises(ValueError, match="same number of samples, at least one; got {9, 10}"):
        gather(([LEFT, RIGHT], SAME[:9]))
    with pytest.raises(ValueError, match="at least one batch; got none. A generator can be used only once"):
        gather(iter([]))


def test_labels_of_pairs():
    for targets in (SAME, SAME[:, None], np.eye(2)[SAME], [np.zeros((10, 5)), SAME], {"aux": np.arange(10), "z": SAME}):
        np.testing.assert_array_equal(pair_labels(targets, 10), SAME)
    np.testing.assert_array_equal(pair_labels(2 * SAME - 1, 10), 2 * SAME - 1)
    with pytest.raises(ValueError, match=r"two labels.*each of the 10 pairs; got 10 labels: 0, 1, 2, 3, …"):
        pair_labels(np.arange(10), 10)


WRONG_LABELS = {
    "one kind": (np.zeros((4, 1)), "all of them have the label 0.0"),
    "three kinds": (np.array([0, 1, 2, 1]), "got 3 labels: 0, 1, 2"),
    "many kinds": (np.array([5, 6, 7, 8]), "got 4 labels: 5, 6, 7, 8$"),
    "strings": (np.array(["diff", "same", "same", "diff"]), r"the strings 'diff', 'same'. Give \(y == 'diff'\)"),
    "objects": (np.array(["n", "y", "y", "n"], object), "be numbers, .* the strings 'n', 'y'"),
    "another length": (np.array([0, 1, 1]), r"for each of the 4 pairs; got shapes \[\(3,\)\]"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_are_not_two_numbers_are_told(name):
    y, told = WRONG_LABELS[name]
    with pytest.raises(ValueError, match=f"^The targets `y` must .*{told}"):
        pair_labels(y, 4)
    assert pair_labels([np.array([0, 1, 1, 0])], 4).tolist() == [0, 1, 1, 0]
