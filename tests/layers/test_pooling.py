"""Generalized-mean pooling against a loop: values, gradients, masks, formats, precision, its two limits."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.layers import GeneralizedMeanPooling1D, GeneralizedMeanPooling2D
from keras_siamese.layers.pooling import generalized_mean
from tests.oracles import proxies as oracles
from tests.support.gradients import gradient, numerical_gradient

FEATURES = np.random.default_rng(4).gamma(1.0, 2.0, (3, 5, 4, 2)).astype("float32")
SEQUENCES = FEATURES[:, :, :, 0]  # (3, 5 steps, 4 channels)
POWERS = [0.5, 1.0, 2.0, 3.0, 7.5]


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def loop(features, p, pool=oracles.generalized_mean, **options):
    """Channels last, whatever the number of positions."""
    flat = np.reshape(features, (len(features), -1, features.shape[-1]))
    return [[pool(row[:, channel], p, **options) for channel in range(flat.shape[2])] for row in flat]


@pytest.mark.each_backend
@pytest.mark.parametrize("p", POWERS)
def test_is_the_loop(p):
    two = array(GeneralizedMeanPooling2D(p, data_format="channels_last")(FEATURES))
    np.testing.assert_allclose(two, loop(FEATURES, p), rtol=1e-5)
    one = array(GeneralizedMeanPooling1D(p, data_format="channels_last")(SEQUENCES))
    np.testing.assert_allclose(one, loop(SEQUENCES, p), rtol=1e-5)
    assert not np.allclose(loop(FEATURES, p), loop(FEATURES, p, oracles.wrong_generalized_mean), rtol=0.1)


@pytest.mark.each_backend
@pytest.mark.parametrize("p", POWERS)
def test_gradients_are_the_loops_by_the_features_and_by_p(p):
    upstream = np.random.default_rng(8).normal(size=(3, 2)).astype("float32")

    def ours(features, exponent):
        return ops.sum(ops.multiply(generalized_mean(features, exponent, (1, 2))[:, 0, 0], upstream))

    def looped(features, exponent):
        return float(np.sum(upstream * np.array(loop(features, float(exponent)))))

    start = np.array(p, "float32")
    for got, right in zip(gradient(ours, FEATURES, start), numerical_gradient(looped, FEATURES, start), strict=True):
        np.testing.assert_allclose(got, right, rtol=2e-3, atol=1e-4)


def test_limits_are_the_mean_and_the_maximum():
    mean = array(GeneralizedMeanPooling2D(1.0, data_format="channels_last")(FEATURES))
    np.testing.assert_allclose(mean, FEATURES.mean(axis=(1, 2)), rtol=1e-5)
    largest = array(GeneralizedMeanPooling2D(1e4, data_format="channels_last")(FEATURES))
    np.testing.assert_allclose(largest, FEATURES.max(axis=(1, 2)), rtol=1e-3)


@pytest.mark.each_backend
@pytest.mark.parametrize(
    "p", [pytest.param(1.0, marks=pytest.mark.deep), 3.0, pytest.param(40.0, marks=pytest.mark.deep)]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_degenerate_features(p, dtype):
    """All zero, one position alone above zero, negative ones: finite, values below ε count as ε."""
    features = np.zeros((4, 6, 2), "float32")
    features[1, 2], features[2], features[3] = 4.0, -3.0, 2.0
    policy = dtype if dtype == "float32" else f"mixed_{dtype}"
    layer = GeneralizedMeanPooling1D(p, data_format="channels_last", dtype=policy)
    got = array(layer(ops.cast(features, dtype)))
    np.testing.assert_allclose(got, loop(features, p), rtol=2e-2)
    (slope,) = gradient(lambda x: ops.sum(ops.cast(layer(ops.cast(x, dtype)), "float32")), features)
    assert np.all(np.isfinite(slope))
    assert np.max(np.abs(slope)) <= 1.01
    assert np.all(slope[2] == 0)

    def by_p(log_p):
        out = layer.stateless_call([log_p], [], ops.cast(features, dtype))[0]
        return ops.sum(ops.cast(out, "float32"))

    assert np.isfinite(gradient(by_p, np.array(np.log(p), "float32"))[0])


@pytest.mark.each_backend
@pytest.mark.parametrize("value", [300.0, 60000.0])
@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_large_float16_features_do_not_overflow(policy, value):
    layer = GeneralizedMeanPooling2D(3.0, data_format="channels_last", dtype=policy)
    got = layer(np.full((2, 3, 3, 4), value, "float32"))
    assert keras.backend.standardize_dtype(got.dtype) == "float16"
    np.testing.assert_allclose(array(got), value, rtol=1e-2)
    assert keras.backend.standardize_dtype(layer.log_p.dtype) == "float32"


@pytest.mark.each_backend
def test_nan_is_not_hidden():
    features = SEQUENCES.copy()
    features[1, 3, 2] = np.nan
    got = array(GeneralizedMeanPooling1D(data_format="channels_last")(features))
    assert np.argwhere(np.isnan(got)).tolist() == [[1, 2]]


# Masks


@pytest.mark.each_backend
def test_masked_steps_take_no_part():
    """Not even NaN: padding may hold anything. A sequence of nothing but padding is ε."""
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    features = np.where(mask[:, :, None], SEQUENCES, np.nan).astype("float32")
    layer = GeneralizedMeanPooling1D(2.0, eps=1e-3, data_format="channels_last")
    got = array(layer(features, mask=mask))
    np.testing.assert_allclose(got[0], loop(SEQUENCES[:1, [0, 1, 3]], 2.0)[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], 1e-3, rtol=1e-5)
    np.testing.assert_allclose(got[2], loop(SEQUENCES[2:], 2.0)[0], rtol=1e-5)
    first = GeneralizedMeanPooling1D(2.0, eps=1e-3, data_format="channels_first", keepdims=True)
    turned = array(first(np.swapaxes(features, 1, 2), mask=mask))
    np.testing.assert_allclose(turned[:, :, 0], got, rtol=1e-6)
    (slope,) = gradient(lambda x: ops.sum(layer(x, mask=mask)), SEQUENCES)
    assert np.all(np.isfinite(slope))
    assert np.all(slope[~mask] == 0)
    assert np.all(slope[[0, 2]][mask[[0, 2]]] > 0)


@pytest.mark.each_backend
def test_masks_arrive_as_at_keras_own_pooling():
    """Through the model, where p = 1 has to equal GlobalAveragePooling1D; the mask ends there."""
    padded = np.array([[3, 5, 0, 0], [1, 0, 0, 0], [2, 4, 6, 8]])
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    ours = GeneralizedMeanPooling1D(1.0, data_format="channels_last")
    theirs = keras.layers.GlobalAveragePooling1D(data_format="channels_last")
    tokens = keras.Input((4,), dtype="int32")
    features = embedding(tokens)
    embedding.set_weights([np.random.default_rng(1).uniform(0.1, 1.0, (9, 3))])
    model = keras.Model(tokens, [ours(features), theirs(features)])
    pooled, averaged = model(padded)
    np.testing.assert_allclose(array(pooled), array(averaged), rtol=1e-5)
    assert getattr(pooled, "_keras_mask", None) is None


# Formats


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first", None])
def test_shapes_are_those_of_keras_own_pooling(data_format, keepdims):
    for ours, theirs, features in (
        (GeneralizedMeanPooling1D, keras.layers.GlobalAveragePooling1D, SEQUENCES),
        (GeneralizedMeanPooling2D, keras.layers.GlobalAveragePooling2D, FEATURES),
    ):
        layer, other = (cls(data_format=data_format, keepdims=keepdims) for cls in (ours, theirs))
        assert layer.data_format == other.data_format
        assert layer.compute_output_shape(features.shape) == tuple(other.compute_output_shape(features.shape))
        assert tuple(layer(features).shape) == tuple(other(features).shape)


@pytest.mark.each_backend
def test_channels_first_is_the_same_turned_round():
    last = array(GeneralizedMeanPooling2D(data_format="channels_last")(FEATURES))
    first = array(GeneralizedMeanPooling2D(data_format="channels_first")(np.moveaxis(FEATURES, 3, 1)))
    np.testing.assert_allclose(first, last, rtol=1e-6)


def test_images_of_any_size():
    model = keras.Sequential([keras.Input((None, None, 2)), GeneralizedMeanPooling2D(data_format="channels_last")])
    for size in (4, 2):
        np.testing.assert_allclose(array(model(FEATURES[:, :size])), loop(FEATURES[:, :size], 3.0), rtol=1e-5)


# The exponent


@pytest.mark.each_backend
@pytest.mark.parametrize("learned", [True, False])
def test_the_exponent_is_learned_and_stays_positive(learned):
    """A target near the maximum asks for a larger p, one below the mean for a smaller one; a huge step is survived."""
    for target, sign in ((FEATURES.max(axis=(1, 2)), 1), (0.3 * FEATURES.mean(axis=(1, 2)), -1)):
        layer = GeneralizedMeanPooling2D(3.0, learned=learned, data_format="channels_last")
        model = keras.Sequential([keras.Input((5, 4, 2)), keras.layers.Rescaling(1.0), layer])
        model.compile(keras.optimizers.Adam(0.5), loss="mse")
        if not learned:
            assert layer.trainable_variables == []
            assert len(layer.weights) == 1
            continue
        model.fit(FEATURES, target, epochs=4, verbose=0)
        p = float(np.exp(array(layer.log_p)))
        assert p > 0
        assert sign * (p - 3.0) > 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"p": 0}, ValueError, r"`p` must be in \(0, inf\); got 0"),
        ({"p": -1.0}, ValueError, r"`p` must be in \(0, inf\); got -1.0"),
        ({"p": float("inf")}, ValueError, r"`p` must be in \(0, inf\); got inf"),
        ({"p": "3"}, TypeError, "`p` must be a number; got '3'"),
        ({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\); got 0.0"),
        ({"data_format": "NCHW"}, ValueError, "`data_format` must be one of 'channels_last', 'channels_first'; got"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        GeneralizedMeanPooling2D(**options)


def test_other_ranks_are_refused():
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
        GeneralizedMeanPooling2D()(SEQUENCES)
