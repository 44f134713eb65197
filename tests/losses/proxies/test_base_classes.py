"""How the proxy losses read class numbers: all forms, eager and compiled; labels that are not classes."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from tests.losses.proxies.test_base import EACH, ONE
from tests.support.batches import deep_elsewhere
from tests.support.proxy_batches import (
    CLASSES,
    LABELS,
    cosines,
    value,
)


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_large_class_numbers_do_not_collide(dtype):
    """2049 is 2048 in float16, 257 is 256 in bfloat16."""
    classes = np.array([256, 257, 258, 259, 2047, 2048, 2049, 2050, 2051])
    y_pred = np.full((9, 2100), -0.5, "float32")
    y_pred[np.arange(9), classes] = 0.75
    near = value(losses.NormalizedSoftmaxLoss(0.0625, dtype=dtype), classes, y_pred)
    assert near < 1e-3
    one_off = value(losses.NormalizedSoftmaxLoss(0.0625, dtype=dtype, reduction="none"), classes + 1, y_pred)
    assert np.min(one_off) > 10


FORMS = [LABELS.astype(dtype) for dtype in ("int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32")]


@deep_elsewhere
@pytest.mark.parametrize("y_true", [*FORMS, LABELS[:, None], LABELS.tolist()], ids=lambda y: getattr(y, "dtype", None))
def test_label_forms(y_true):
    assert value(losses.ArcFaceLoss(), y_true) == value(losses.ArcFaceLoss())
    assert value(losses.ArcFaceLoss(), ops.convert_to_tensor(y_true)) == value(losses.ArcFaceLoss())


def test_bytes_among_more_classes_than_they_hold():
    y_pred = np.full((2, 300), 0.0, "float32")
    y_pred[[0, 1], [255, 3]] = 1.0
    got = value(losses.CosFaceLoss(0.0, 64), np.array([255, 3], "uint8"), y_pred)
    assert got < 1e-6


@pytest.mark.parametrize(("cls", "centers"), EACH)
@pytest.mark.parametrize(
    ("y_true", "message"),
    [
        (
            LABELS + 1,
            r"`y_true` must hold classes in 0 … 4, one for each of the 5 columns of y_pred; got 5 \(wrong labels: 1\)",
        ),
        (-LABELS, r"`y_true` must hold classes in 0 … 4, .*; got -3 \(wrong labels: 6\)"),
        (LABELS + 2**32, r"`y_true` must hold classes in 0 … 4, .*; got 4294967296 \(wrong labels: 9\)"),
        (LABELS + 0.5, r"`y_true` must hold whole class numbers; got 0.5 \(wrong labels: 9\)"),
        (np.where(LABELS == 1, np.nan, LABELS), r"`y_true` must hold whole class numbers; got nan \(wrong labels: 2\)"),
        (LABELS.astype(str), r"`y_true` must hold class numbers; got an array of dtype <U"),
        (np.eye(CLASSES)[LABELS], r"`y_true` must have shape \(batch,\) or \(batch, 1\); got \(9, 5\)"),
        (LABELS[:4], r"`y_true` must have one class for each row of `y_pred`; got \(4,\) and \(9, 5"),
    ],
)
def test_labels_that_are_no_classes(cls, centers, y_true, message):
    with pytest.raises(ValueError, match=message):
        cls()(y_true, cosines(cls()))


def compiled(function, *inputs):
    """`function` of the `inputs` in a compiled graph, where values are unknown during tracing; None on PyTorch."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)(*map(tf.constant, inputs)).numpy()
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(function)(*inputs))
    return None


@pytest.mark.each_backend
@pytest.mark.parametrize(("cls", "centers"), ONE)
def test_compiled_values_are_the_eager_ones(cls, centers):
    loss = cls(reduction="none")
    got = compiled(loss, LABELS.astype("int32"), cosines(loss))
    if got is not None:
        np.testing.assert_allclose(got, value(loss, y_pred=cosines(loss)), rtol=1e-4, atol=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize(
    "wrong", [5, 0.5, *(pytest.param(label, marks=pytest.mark.deep) for label in (-1, 2**31 - 1, np.nan))]
)
@pytest.mark.parametrize(("cls", "centers"), ONE)
def test_a_label_that_is_no_class_costs_nan_in_a_compiled_graph(cls, centers, wrong):
    labels = LABELS.astype("float32" if isinstance(wrong, float) else "int32")
    labels[6] = wrong
    loss = cls(reduction="none")
    rows = compiled(loss, labels, cosines(loss))
    if rows is not None:
        assert np.isnan(rows[6])
        assert np.isfinite(np.delete(rows, 6)).all()
        assert np.isnan(compiled(cls(), labels, cosines(loss)))
