"""What the proxy losses read: class numbers in every form, eagerly and compiled; cosines; their options."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.layers import SiameseWrapper
from tests.losses.proxies.test_base import CLASSES, COSINES, EACH, LABELS, cosines, value

# Class labels


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
        (LABELS + 1, r"`y_true` must hold classes in 0 … 4, one for each of the 5 columns of y_pred; got 5, 1 such"),
        (-LABELS, r"`y_true` must hold classes in 0 … 4, .*; got -3, 6 such labels"),
        (LABELS + 2**32, r"`y_true` must hold classes in 0 … 4, .*; got 4294967296, 9 such labels"),
        (LABELS + 0.5, r"`y_true` must hold whole class numbers; got 0.5, 9 such labels"),
        (np.where(LABELS == 1, np.nan, LABELS), r"`y_true` must hold whole class numbers; got nan, 2 such labels"),
        (LABELS.astype(str), r"`y_true` must hold class numbers; got an array of dtype <U"),
        (np.eye(CLASSES)[LABELS], r"`y_true` must have shape \(batch,\) or \(batch, 1\); got \(9, 5\)"),
        (LABELS[:4], r"`y_true` and `y_pred` must have as many rows; got \(4,\) and \(9, 5"),
    ],
)
def test_labels_that_are_no_classes(cls, centers, y_true, message):
    with pytest.raises(ValueError, match=message):
        cls()(y_true, cosines(cls()))


def compiled(function, *inputs):
    """`function` of the `inputs` in a compiled graph, where no value is known while it is traced; None on PyTorch."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)(*map(tf.constant, inputs)).numpy()
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(function)(*inputs))
    return None


@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_compiled_values_are_the_eager_ones(cls, centers):
    loss = cls(reduction="none")
    got = compiled(loss, LABELS.astype("int32"), cosines(loss))
    if got is not None:
        np.testing.assert_allclose(got, value(loss, y_pred=cosines(loss)), rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("wrong", [5, -1, 2**31 - 1, 0.5, np.nan])
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_a_label_that_is_no_class_costs_nan_in_a_compiled_graph(cls, centers, wrong):
    labels = LABELS.astype("float32" if isinstance(wrong, float) else "int32")
    labels[6] = wrong
    loss = cls(reduction="none")
    rows = compiled(loss, labels, cosines(loss))
    if rows is not None:
        assert np.isnan(rows[6])
        assert np.isfinite(np.delete(rows, 6)).all()
        assert np.isnan(compiled(cls(), labels, cosines(loss)))


# Outputs that are no cosines, and refused options


def test_output_shapes():
    message = r"of ArcFaceLoss must hold cosines of shape \(batch, classes\); got \(9, 5, 2\).*one"
    with pytest.raises(ValueError, match=message):
        losses.ArcFaceLoss()(LABELS, cosines(losses.SoftTripleLoss()))
    message = r"of SubCenterArcFaceLoss must hold cosines of shape \(batch, classes, centers\); got \(9, 5\).*several"
    with pytest.raises(ValueError, match=message):
        losses.SubCenterArcFaceLoss()(LABELS, COSINES)


def test_logits_in_place_of_cosines():
    with pytest.raises(ValueError, match=r"`y_pred` of CosFaceLoss must hold cosines in \[-1, 1\].* magnitude is 9.9"):
        losses.CosFaceLoss()(LABELS, 10 * COSINES)


def test_a_siamese_model_is_refused():
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = SiameseWrapper(encoder)
    model.compile(loss=losses.ArcFaceLoss())
    with pytest.raises(ValueError, match="ArcFaceLoss expects y_pred to hold cosines, .* with a ProxyLogits layer"):
        model.fit((np.zeros((4, 4)), np.zeros((4, 4))), np.zeros(4), verbose=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: losses.NormalizedSoftmaxLoss(0.0), ValueError, r"`temperature` must be in \(0, inf\); got 0.0"),
        (lambda: losses.ArcFaceLoss(margin=28.6), ValueError, r"`margin` must be in \[0, 3.14159\); got 28.6"),
        (lambda: losses.ArcFaceLoss(scale=0), ValueError, r"`scale` must be in \(0, inf\)"),
        (lambda: losses.CosFaceLoss(margin=-0.1), ValueError, r"`margin` must be in \[0, 2\]; got -0.1"),
        (lambda: losses.SphereFaceLoss(margin=1.5), TypeError, "`margin` must be an integer; got 1.5"),
        (lambda: losses.SphereFaceLoss(margin=0), ValueError, "`margin` must be at least 1; got 0"),
        (lambda: losses.ProxyNCALoss(scale=-1), ValueError, r"`scale` must be in \(0, inf\)"),
        (lambda: losses.ProxyAnchorLoss(margin=-1), ValueError, r"`margin` must be in \[0, inf\)"),
        (lambda: losses.SoftTripleLoss(gamma=0), ValueError, r"`gamma` must be in \(0, inf\)"),
        (lambda: losses.ArcFaceLoss(alpha=2), TypeError, "ArcFaceLoss takes the options margin, scale, .*; got alpha"),
        (lambda: losses.ArcFaceLoss(reduction="avg"), ValueError, "reduction"),
    ],
)
def test_options_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()
