"""Tests of all proxy losses: weights and reductions, degenerate batches, NaN, training, saving, refused outputs."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.layers import ProxyLogits, SiameseWrapper
from tests.support.batch_checks import QUICK_DTYPES
from tests.support.batches import FURTHER, deep_elsewhere
from tests.support.gradients import gradient
from tests.support.proxy_batches import (
    CLASSES,
    COSINES,
    LABELS,
    ROWS,
    arrays,
    cosines,
    through_layer,
    value,
)

# Each loss and its number of centers per class.
EACH = [
    (losses.NormalizedSoftmaxLoss, 1),
    (losses.ArcFaceLoss, 1),
    (losses.SubCenterArcFaceLoss, 2),
    (losses.CosFaceLoss, 1),
    (losses.SphereFaceLoss, 1),
    (losses.ProxyNCALoss, 1),
    (losses.ProxyAnchorLoss, 1),
    (losses.SoftTripleLoss, 2),
]
# One loss for the quick tests; the others are deep.
ONE = [case if case[0] is losses.ArcFaceLoss else pytest.param(*case, marks=pytest.mark.deep) for case in EACH]
ON_EACH_BACKEND = [case if case[0] is losses.ArcFaceLoss else pytest.param(*case, marks=FURTHER) for case in EACH]


@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_sample_weight_and_reduction_keep_their_meaning(cls, centers):
    y_pred = cosines(cls())
    rows, weight = value(cls(reduction="none"), y_pred=y_pred), np.linspace(0.0, 2.0, ROWS)
    assert rows.shape == (ROWS,)
    assert rows.min() >= 0
    assert value(cls(), y_pred=y_pred) == pytest.approx(rows.mean(), rel=1e-5)
    for shape in ((ROWS,), (ROWS, 1)):
        got = value(cls(reduction="sum"), y_pred=y_pred, sample_weight=weight.reshape(shape))
        assert got == pytest.approx(np.sum(weight * rows), rel=1e-5)


@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_order_of_the_batch_does_not_matter(cls, centers):
    order = np.random.default_rng(2).permutation(ROWS)
    loss, y_pred = cls(reduction="none"), cosines(cls())
    np.testing.assert_allclose(
        value(loss, LABELS[order], y_pred[order]), value(loss, y_pred=y_pred)[order], rtol=1e-4, atol=1e-5
    )


@pytest.mark.each_backend
@pytest.mark.parametrize("own", [1.0, -1.0])
@pytest.mark.parametrize(("cls", "centers"), ON_EACH_BACKEND)
def test_gradient_is_finite_where_the_embedding_is_a_proxy_or_its_opposite(cls, centers, own):
    """For the gradient by the cosines, and through the layer if the embedding equals its class weight."""
    y_pred = cosines(cls())
    y_pred[np.arange(ROWS), LABELS] = own
    (slope,) = gradient(lambda cosine: cls()(LABELS, cosine), y_pred)
    assert np.all(np.isfinite(slope))
    _, weights = arrays(centers)
    embeddings = own * 2.0 * weights[LABELS * centers]
    loss = cls()
    assert np.isfinite(ops.convert_to_numpy(through_layer(loss, centers)(embeddings, weights)))
    for slope in gradient(through_layer(loss, centers), embeddings, weights):
        assert np.all(np.isfinite(slope))
        assert np.max(np.abs(slope)) < 1e3


@deep_elsewhere
@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_degenerate_batches(cls, centers, dtype):
    """One row; only one class; a different class in each row; all rows at one point."""
    y_pred = cosines(cls())
    batches = {
        "one row": (np.array([2]), y_pred[:1]),
        "one class": (np.full(ROWS, 3), y_pred),
        "classes apart": (np.arange(CLASSES), y_pred[:CLASSES]),
        "one point": (LABELS, np.repeat(y_pred[:1], ROWS, axis=0)),
        "all opposite": (LABELS, np.full_like(y_pred, -1.0)),
        "all alike": (LABELS, np.full_like(y_pred, 1.0)),
    }
    for name, (labels, batch) in batches.items():
        loss = cls(dtype=dtype)
        batch = ops.convert_to_numpy(ops.cast(batch, dtype)).astype("float32")
        got, wide = value(loss, labels, ops.cast(batch, dtype)), value(cls(), labels, batch)
        assert np.isfinite(got), name
        assert got == pytest.approx(float(wide), rel=1e-2, abs=1e-2), name
        (slope,) = gradient(lambda cosine, y=labels: cls()(y, cosine), batch)
        assert np.all(np.isfinite(slope)), name
        # A softmax over equal logits has a gradient for the row's own class, even if it is small.
        assert np.max(np.abs(slope)) > 0 or name == "all opposite", name


@deep_elsewhere
@pytest.mark.parametrize("length", [0.0, 1e-20])
@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_vectors_without_a_direction(cls, centers, dtype, length):
    embeddings, weights = arrays(centers)
    embeddings[2] = length * embeddings[2]
    of = through_layer(cls(), centers)

    def narrow(x, w):
        return of(ops.cast(x, dtype), w)

    assert np.isfinite(ops.convert_to_numpy(narrow(embeddings, weights)))
    slopes = gradient(narrow, embeddings, weights)
    assert np.max(np.abs(slopes[0][2])) == 0.0
    assert all(np.all(np.isfinite(slope)) and np.max(np.abs(slope)) < 1e3 for slope in slopes)


@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_nan_is_not_hidden(cls, centers, dtype):
    embeddings, weights = arrays(centers)
    embeddings[4, 1] = np.nan
    loss = cls(reduction="none", dtype=dtype)
    rows = through_layer(loss, centers)(ops.cast(embeddings, dtype), weights)
    rows = ops.convert_to_numpy(ops.cast(rows, "float32"))
    assert np.isnan(rows[4])
    if cls is not losses.ProxyAnchorLoss:  # whose logarithms run over the rows
        assert np.isfinite(np.delete(rows, 4)).all()


def blobs(rng, classes=4, samples=24, spread=0.35):
    """Points around `classes` centers `(n, 6)`, and the center of each `(n,)`."""
    centers = rng.normal(size=(classes, 6))
    labels = rng.permutation(np.repeat(np.arange(classes), samples))
    return (centers[labels] + spread * rng.normal(size=(len(labels), 6))).astype("float32"), labels


def small_encoder():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(3)], name="encoder")


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow")
def test_training_saving_and_verifying_with_the_encoder(tmp_path, rng):
    x, labels = blobs(rng, classes=6)
    x, labels, held, held_labels = x[labels < 4], labels[labels < 4], x[labels >= 4], labels[labels >= 4]
    encoder = small_encoder()
    model = keras.Sequential([encoder, ProxyLogits(4)])
    model.compile(keras.optimizers.Adam(0.02), loss=losses.ArcFaceLoss(margin=0.3, scale=16))
    history = model.fit(x, labels, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (again.loss.margin, again.loss.scale) == (0.3, 16)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    assert np.mean(np.argmax(again.predict(x, verbose=0), axis=1) == labels) > 0.95
    # The encoder alone compares pairs, also of the two classes that were not in training.
    siamese = SiameseWrapper(again.layers[0], "cosine")
    for points, classes in ((x, labels), (held, held_labels)):
        i, j = np.triu_indices(len(points), 1)
        apart = siamese.predict((points[i], points[j]), verbose=0)[:, 0]
        genuine = classes[i] == classes[j]
        assert np.median(apart[genuine]) < 0.5 * np.median(apart[~genuine])


@pytest.mark.deep
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_training_in_half_precision(policy, rng):
    x, labels = blobs(rng)
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([small_encoder(), ProxyLogits(4)])
        assert keras.backend.standardize_dtype(model(x[:3]).dtype) == "float32"
        # Not Adam: in bfloat16 its 0.999 becomes 1, and the weights do not change.
        model.compile(keras.optimizers.SGD(0.1), loss=losses.ArcFaceLoss(margin=0.3, scale=16))
        history = model.fit(x, labels, batch_size=32, epochs=12, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert history[-1] < 0.5 * history[0]


@pytest.mark.each_backend
@pytest.mark.parametrize(("cls", "centers"), ONE)
@pytest.mark.deep_on("tensorflow")
def test_training_with_each_loss_compiled_lowers_it(cls, centers, rng):
    x, labels = blobs(rng)
    model = keras.Sequential([small_encoder(), ProxyLogits(4, centers, center_sparsity=0.1 if centers > 1 else 0.0)])
    jit = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.Adam(0.02), loss=cls(), jit_compile=jit)
    history = model.fit(x, labels, batch_size=32, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]


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
    with pytest.raises(ValueError, match="ArcFaceLoss expects y_pred to hold cosines, .* by a ProxyLogits layer"):
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
