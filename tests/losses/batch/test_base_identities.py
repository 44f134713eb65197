"""Identities of a batch: integers of any size, strings, in tensors and arrays; and refused values."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese._export import exported
from tests.support.batches import array, for_each_loss, make

NAMES = list(exported(losses.BatchLoss))


DTYPES = ("float32", "float16", "bfloat16")


every_loss = for_each_loss(NAMES)


# Batches of six embeddings with three coordinates, exact in 16 bits.
A, B, C, D = (1.0, 0.5, 0.0), (-0.5, 1.0, 0.25), (0.25, -0.75, 1.0), (0.5, 0.25, -1.0)


def opposite(a, factor=-1.0):
    return tuple(factor * x for x in a)


BATCH = np.array([A, opposite(A), B, opposite(B), C, D], "float32")


LARGE = {
    "above 2¹¹": np.array([2049, 2049, 2048, 2048, 2050, 2050]),
    "above 2²⁴": np.array([16_777_217, 16_777_217, 16_777_216, 16_777_216, 16_777_218, 16_777_218]),
    "near 2³¹": np.array([2**31 - 1, 2**31 - 1, 2**31 - 2, 2**31 - 2, -(2**31), -(2**31)]),
    "beyond 2³²": np.array([7, 7, 7 + 2**32, 7 + 2**32, 7 + 2**33, 7 + 2**33]),
    "beyond 2⁶²": np.array([7, 7, 7 + 2**62, 7 + 2**62, -(2**63), -(2**63)]),
    "negative": np.array([-1, -1, -2, -2, 1, 1]),
    "unsigned": np.array([2**32 - 1, 2**32 - 1, 2**31, 2**31, 0, 0], "uint32"),
    "strings": np.array(["ada", "ada", "bo", "bo", "cy", "cy"]),
    "objects": np.array(["ada", "ada", "bo", "bo", "cy", "cy"], dtype=object),
    "whole floats": np.array([3.0, 3.0, -2.0, -2.0, 2049.0, 2049.0], "float32"),
    "a column": np.array([[3], [3], [4], [4], [5], [5]]),
    "a list": [3, 3, 4, 4, 5, 5],
    "booleans": None,
}


@pytest.mark.each_backend
@pytest.mark.parametrize(
    "dtype",
    [
        None,
        "float16",
        *(pytest.param(name, marks=pytest.mark.deep) for name in ("float32", "bfloat16", "mixed_float16")),
    ],
)
@pytest.mark.parametrize("kind", LARGE)
def test_identities_are_compared_as_they_are(kind, dtype):
    embeddings = BATCH
    plain, labels = np.array([1, 1, 2, 2, 3, 3]), LARGE[kind]
    if labels is None:
        plain, labels = np.array([1, 1, 0, 0, 0, 1]), np.array([True, True, False, False, False, True])
    loss, reference = losses.NCALoss(dtype=dtype), losses.NCALoss()
    value, expected = float(array(loss(labels, embeddings))), float(array(reference(plain, embeddings)))
    assert value == pytest.approx(expected, rel=1e-5 if dtype in (None, "float32") else 1e-2)
    assert expected > 0.1


TENSORS = {
    "int32": np.array([16_777_217, 16_777_217, 16_777_216, 16_777_216, -16_777_216, -16_777_216], "int32"),
    "int32, high bits": np.array([300, 300, 301, 301, 0, 0], "int32") << 16,
    "int32, neighbouring digits": np.array([255, 255, 256, 256, 65_280, 65_280], "int32"),
    "int64, high bits": np.array([300, 300, 301, 301, 0, 0], "int64") << 48,
    "uint8": np.array([255, 255, 0, 0, 127, 127], "uint8"),
    "uint32": np.array([2**32 - 1, 2**32 - 1, 2**31, 2**31, 0, 0], "uint32"),
    "float32": np.array([3.0, 3.0, -2.0, -2.0, 2049.0, 2049.0], "float32"),
    "int64": np.array([7, 7, 7 + 2**32, 7 + 2**32, -(2**62), -(2**62)], "int64"),
}


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", [None, "float16", pytest.param("bfloat16", marks=pytest.mark.deep)])
@pytest.mark.parametrize("kind", TENSORS)
def test_identities_in_tensors_are_compared_as_they_are(kind, dtype):
    if keras.backend.backend() == "jax" and kind.startswith("int64"):
        pytest.skip("JAX has 32 bits unless told otherwise before it starts")
    embeddings = BATCH
    tensor = ops.convert_to_tensor(TENSORS[kind], TENSORS[kind].dtype.name)
    value = float(array(losses.NCALoss(dtype=dtype)(tensor, embeddings)))
    expected = float(array(losses.NCALoss()(np.array([1, 1, 2, 2, 3, 3]), embeddings)))
    assert value == pytest.approx(expected, rel=1e-5 if dtype is None else 1e-2)


@every_loss
def test_large_identities_under_a_loss_in_16_bits(name):
    embeddings = BATCH
    for dtype in ("float16", "bfloat16"):
        loss = make(name, dtype=dtype)
        values = [array(loss(labels, embeddings)) for labels in (LARGE["above 2²⁴"], np.array([1, 1, 2, 2, 3, 3]))]
        np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("bad", [[1.0, 1.5, 2.0], [1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0]])
@every_loss
def test_identities_that_are_no_whole_numbers_are_an_error(name, bad):
    embeddings = np.array([A, B, C], "float32")
    for labels in (np.array(bad), ops.convert_to_tensor(bad, "float32")):
        with pytest.raises(ValueError, match="`y_true` must be (whole numbers|finite)"):
            make(name)(labels, embeddings)


@pytest.mark.each_backend
def test_identities_that_are_no_whole_numbers_make_a_compiled_loss_nan():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    compiled = keras.backend.backend() != "torch"
    model.compile("sgd", loss=losses.NCALoss(), jit_compile=compiled)
    if not compiled:
        with pytest.raises(ValueError, match="whole numbers"):
            model.evaluate(np.array([A, B, C, D]), np.array([1.0, 1.0, 2.5, 2.0]), verbose=0)
        return
    x = np.array([A, B, C, D], "float32")
    assert np.isfinite(model.evaluate(x, np.array([1.0, 1.0, 3.0, 2.0]), verbose=0))
    for wrong in (2.5, np.inf, np.nan):
        assert np.isnan(model.evaluate(x, np.array([1.0, 1.0, wrong, 2.0]), verbose=0)), wrong
