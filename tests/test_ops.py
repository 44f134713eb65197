"""Stateless pieces: values, gradients where the plain function has none, shapes that are refused."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import ops as pieces
from tests.oracles import rows as oracles
from tests.support.gradients import gradient, numerical_gradient

X = np.array([-2.0, -0.0, 0.0, 1e-30, 1e-12, 0.25, 4.0, 1e30], "float32")

pytestmark = pytest.mark.each_backend


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(
    ("came", "becomes"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("int32", "float32"),
        ("bool", "float32"),
        ("float32", "float32"),
    ],
)
def test_at_least_float32(came, becomes):
    wide = pieces.at_least_float32(ops.cast(np.array([[0.0, 1.0]]), came))
    assert keras.backend.standardize_dtype(wide.dtype) == becomes
    np.testing.assert_array_equal(array(wide), [[0.0, 1.0]])


@pytest.mark.tensorflow  # JAX has no float64 unless it is configured so
@pytest.mark.torch
def test_float64_is_not_narrowed():
    wide = pieces.at_least_float32(ops.convert_to_tensor([1.0 + 1e-12], "float64"))
    assert array(wide)[0] == 1.0 + 1e-12


def test_absolute():
    np.testing.assert_allclose(array(pieces.absolute(ops.convert_to_tensor(X))), [abs(float(x)) for x in X])
    (grad,) = gradient(lambda x: ops.sum(pieces.absolute(x)), X)
    np.testing.assert_array_equal(grad, [-1, 0, 0, 1, 1, 1, 1, 1])
    assert math.isnan(array(pieces.absolute(ops.convert_to_tensor([math.nan], "float32")))[0])


def test_safe_sqrt():
    expected = [math.sqrt(max(float(x), 0.0)) for x in X]
    np.testing.assert_allclose(array(pieces.safe_sqrt(ops.convert_to_tensor(X))), expected, rtol=1e-6)
    (grad,) = gradient(lambda x: ops.sum(pieces.safe_sqrt(x)), X)
    np.testing.assert_allclose(grad, [0.0 if x <= 0 else 0.5 / math.sqrt(x) for x in X.tolist()], rtol=1e-5)


def test_safe_norm(rng):
    vectors = rng.normal(size=(3, 5)).astype("float32")
    vectors[1] = 0
    np.testing.assert_allclose(array(pieces.safe_norm(vectors)), [oracles.norm(v) for v in vectors], rtol=1e-6)
    (grad,) = gradient(lambda x: ops.sum(pieces.safe_norm(x)), vectors)
    np.testing.assert_array_equal(grad[1], np.zeros(5))
    np.testing.assert_allclose(grad[0], vectors[0] / oracles.norm(vectors[0]), rtol=1e-5)


def test_unit(rng):
    vectors = rng.normal(size=(4, 3)).astype("float32")
    vectors[1:] = [[0, 0, 0], [1e-20, 0, 1e-20], [2e-6, 0, 0]]
    unit = array(pieces.unit(ops.convert_to_tensor(vectors)))
    np.testing.assert_allclose(unit[0], vectors[0] / oracles.norm(vectors[0]), rtol=1e-6)
    np.testing.assert_array_equal(unit[1:3], np.zeros((2, 3)))
    np.testing.assert_allclose(unit[3], [1, 0, 0], rtol=1e-6)
    weights = rng.normal(size=(4, 3)).astype("float32")
    (grad,) = gradient(lambda x: ops.sum(ops.multiply(pieces.unit(x), weights)), vectors)
    np.testing.assert_array_equal(grad[1:3], np.zeros((2, 3)))
    assert np.abs(grad).max() <= 1e6

    def loop(x):
        return oracles.dot(x[0], weights[0]) / oracles.norm(x[0])

    np.testing.assert_allclose(grad[0], numerical_gradient(loop, vectors)[0][0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("function", [pieces.safe_sqrt, pieces.safe_norm, pieces.unit, pieces.absolute])
def test_nan_is_not_hidden(function):
    assert np.isnan(array(function(ops.convert_to_tensor([[math.nan, 1.0]], "float32")))).any()


def test_zero_diagonal(rng):
    matrix = rng.normal(size=(3, 3)).astype("float32")
    zeroed = array(pieces.zero_diagonal(ops.convert_to_tensor(matrix)))
    np.testing.assert_array_equal(zeroed, matrix - np.diag(np.diag(matrix)))
    (grad,) = gradient(lambda x: ops.sum(pieces.zero_diagonal(x)), matrix)
    np.testing.assert_array_equal(grad, 1 - np.eye(3))


def test_rows_are_aligned():
    column, row = np.array([[1.0], [2.0]], "float32"), np.array([1.0, 2.0], "float32")
    for y_true in (row, column):
        for y_pred in (row, column):
            pair = pieces.pair_rows(y_true, y_pred)
            assert [tuple(side.shape) for side in pair] == [(2,), (2,)]
            np.testing.assert_array_equal(array(pair[0]), row)


@pytest.mark.parametrize("shape", [(), (2, 2), (2, 3), (2, 1, 1), (1, 2)])
def test_other_shapes_are_refused(shape):
    for order in (1, -1):
        given = [np.zeros(shape, "float32"), np.zeros((2,), "float32")][::order]
        name = "y_true" if order == 1 else "y_pred"
        with pytest.raises(ValueError, match=rf"`{name}` must have shape \(batch,\) or \(batch, 1\); got") as error:
            pieces.pair_rows(*given)
        assert str(shape) in str(error.value)


def test_unlike_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one row for each pair; got \(2,\) and \(1,\)"):
        pieces.pair_rows(np.zeros(2, "float32"), np.zeros((1, 1), "float32"))


# Masked rows


def test_masked_rows_are_the_loops():
    """Values below −80 under the largest, a row without any entry, and a masked entry that is the largest."""
    matrix = np.array([[3.0, -1.0, 0.5], [-200.0, 100.0, 2.0], [4.0, 5.0, 6.0]], "float32")
    mask = np.array([[True, True, False], [True, False, True], [False, False, False]])
    kept = [[value for value, inside in zip(*row, strict=True) if inside] for row in zip(matrix, mask, strict=True)]
    matrix, mask = ops.convert_to_tensor(matrix), ops.convert_to_tensor(mask)
    assert array(pieces.count(mask)).tolist() == [2.0, 2.0, 0.0]
    assert array(pieces.masked_sum(matrix, mask)).tolist() == [float(sum(row)) for row in kept]
    assert array(pieces.masked_max(matrix, mask)).tolist()[:2] == [max(row) for row in kept[:2]] == [3.0, 2.0]
    assert array(pieces.masked_min(matrix, mask)).tolist()[:2] == [min(row) for row in kept[:2]] == [-1.0, -200.0]
    total = array(pieces.masked_logsumexp(matrix, mask))
    np.testing.assert_allclose(total[:2], [math.log(math.exp(3.0) + math.exp(-1.0)), 2.0], rtol=1e-6)
    for nothing, sign in ((pieces.masked_max, -1), (pieces.masked_min, 1), (pieces.masked_logsumexp, -1)):
        assert array(nothing(matrix, mask))[2] == pytest.approx(sign * 1e30)


def test_gradient_of_the_masked_logsumexp_is_the_softmax():
    matrix = np.array([[3.0, -1.0, 0.5], [4.0, 5.0, 6.0]], "float32")
    mask = np.array([[True, True, False], [False, False, False]])
    (slope,) = gradient(lambda x: ops.sum(pieces.masked_logsumexp(x, mask)), matrix)
    share = math.exp(3.0) / (math.exp(3.0) + math.exp(-1.0))
    np.testing.assert_allclose(slope, [[share, 1.0 - share, 0.0], [0.0, 0.0, 0.0]], rtol=1e-4, atol=1e-7)


def test_softmax_of_one_entry_is_one_without_a_warning():
    entries = np.array([[3.0], [np.nan], [-50.0]], "float32")
    np.testing.assert_array_equal(array(pieces.softmax(ops.convert_to_tensor(entries), 1)), [[1.0], [np.nan], [1.0]])
    assert array(gradient(lambda x: ops.sum(pieces.softmax(x, 1)), entries[:1])) == 0.0
    np.testing.assert_allclose(array(pieces.softmax(ops.zeros((2, 1)), 0)), [[0.5], [0.5]])


def test_a_column_meets_a_matrix_row_by_row():
    assert array(pieces.column(ops.convert_to_tensor([1.0, 2.0]))).tolist() == [[1.0], [2.0]]


def test_an_error_of_the_device_is_not_taken_for_values_that_are_no_numbers(monkeypatch):
    def full(values):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pieces.ops, "convert_to_tensor", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        pieces.named_tensor("y_pred", np.ones(3, "float32"))
    with pytest.raises(TypeError, match="`y_pred` must be a tensor of numbers"):
        pieces.named_tensor("y_pred", [object()])
