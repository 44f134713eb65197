"""`Chunked`: the result of the whole batch, the memory of one chunk; what cannot be computed in chunks is refused."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.attach import dissect
from keras_siamese.callbacks import DivergenceMonitor
from keras_siamese.diagnosis import diagnose
from keras_siamese.layers import Chunked, SiameseWrapper
from keras_siamese.layers.siamese import ends_in_unit_norm
from keras_siamese.losses import ContrastiveLoss, NTXentLoss
from keras_siamese.verifier import Verifier
from tests.support.encoders import leaky_encoder, masked_encoder, two_input_encoder

ROWS, LABELS = 23, np.arange(23) // 4
ON = keras.backend.backend()


@keras.saving.register_keras_serializable("chunked tests")
class Sums(keras.losses.Loss):
    """The sum of each row of the output."""

    def call(self, y_true, y_pred):
        return ops.sum(y_pred, axis=1)


@keras.saving.register_keras_serializable("chunked tests")
class Dropping(keras.layers.Layer):
    """Dropout in a layer whose call has no `training`, and then a product with the unit matrix."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = keras.layers.Dropout(0.5)
        self.dense = keras.layers.Dense(5, use_bias=False, kernel_initializer="identity")

    def call(self, x):
        return self.dense(self.dropout(x))


@keras.saving.register_keras_serializable("chunked tests")
class Unseeded(keras.layers.Layer):
    """Random numbers of Keras's global generator."""

    def call(self, x):
        return x + keras.random.normal((5,))


def images(rng, rows=ROWS):
    return rng.normal(size=(rows, 6, 6, 1)).astype("float32")


def conv_encoder(*first):
    layers = keras.layers
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            *first,
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4),
            layers.UnitNormalization(),
        ]
    )


def trained(model, x, y, loss, batch_size=ROWS, epochs=2, rate=0.5, **options):
    """The loss of each epoch, and the weights after training."""
    model.compile(keras.optimizers.SGD(rate), loss, **options)
    history = model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0).history["loss"]
    return history, model.trainable_variables


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)
    assert len(one[1]) == len(other[1])
    for own, theirs in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(own), ops.convert_to_numpy(theirs), atol=1e-5)


@pytest.mark.each_backend
@pytest.mark.parametrize(
    ("batch_size", "eager"), [(ROWS, False), (10, False), pytest.param(ROWS, True, marks=pytest.mark.deep)]
)
def test_training_is_that_of_the_encoder(rng, batch_size, eager):
    """Batches that `rows` does not divide; with 10, the last batch is smaller and TensorFlow's batch size unknown."""
    x = images(rng)
    plain = trained(conv_encoder(), x, LABELS, NTXentLoss(), batch_size, run_eagerly=eager)
    chunked = Chunked(conv_encoder(), rows=4)
    assert_same(trained(chunked, x, LABELS, NTXentLoss(), batch_size, run_eagerly=eager), plain)
    np.testing.assert_allclose(chunked.predict(x, verbose=0), ops.convert_to_numpy(chunked.encoder(x)), atol=1e-6)


@pytest.mark.each_backend
def test_pairs_and_what_comes_before_and_after_are_trained_the_same(rng):
    pairs, same = (images(rng), images(rng)), (LABELS % 2).astype("float32")

    def siamese(encoder):
        inputs = keras.Input((6, 6, 1))
        scaled = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="before")(inputs)
        after = keras.layers.Dense(3, kernel_initializer="identity", name="after")
        return SiameseWrapper(keras.Model(inputs, after(encoder(scaled))))

    plain = trained(siamese(conv_encoder()), pairs, same, ContrastiveLoss(1.5))
    assert_same(trained(siamese(Chunked(conv_encoder(), 7)), pairs, same, ContrastiveLoss(1.5)), plain)
    whole = trained(SiameseWrapper(Chunked(conv_encoder(), 100)), pairs, same, ContrastiveLoss(1.5))
    assert_same(trained(SiameseWrapper(Chunked(conv_encoder(), 1)), pairs, same, ContrastiveLoss(1.5)), whole)


@pytest.mark.each_backend
@pytest.mark.parametrize("layer", [Dropping, lambda: keras.Sequential([Dropping()])])
def test_dropout_draws_the_same_mask_in_both_passes(rng, layer):
    """The gradient of the sums by column 0 of the unit matrix is the sum of the inputs that forward has kept."""
    x = rng.normal(size=(ROWS, 5)).astype("float32")
    chunked = Chunked(layer(), rows=4)
    chunked(x)
    history, (kernel,) = trained(chunked, x, LABELS, Sums(), epochs=1, rate=1.0)
    gradient = np.eye(5) - ops.convert_to_numpy(kernel)
    np.testing.assert_allclose(gradient[:, 0].sum(), history[0], rtol=1e-5)
    assert abs(history[0] - x.sum() / ROWS) > 1e-3  # something was dropped


@pytest.mark.each_backend
def test_each_chunk_and_each_step_draws_another_mask():
    chunked, x = Chunked(Dropping(), rows=5), np.ones((20, 5), "float32")
    steps = [ops.convert_to_numpy(chunked(x, training=True)) for _ in range(2)]
    masks = {chunk.tobytes() for step in steps for chunk in np.split(step > 0, 4)}
    assert len(masks) == 8
    assert np.isclose(np.mean(steps), 1, atol=0.35)
    keras.utils.set_random_seed(3)
    first = Chunked(Dropping(), rows=5)(x, training=True)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(one) for one in (first, Chunked(Dropping(), rows=5)(x, training=True)))
    )


@pytest.mark.each_backend
def test_batch_normalization_is_refused_until_it_is_frozen(rng):
    x, norm = images(rng), keras.layers.BatchNormalization
    with pytest.raises(ValueError, match=r"(?s)changes '[^']*norm/moving_mean' .* freeze it with `layer.trainable = F"):
        trained(Chunked(conv_encoder(norm(name="norm")), rows=4), x, LABELS, NTXentLoss())
    frozen = [conv_encoder(norm(trainable=False)) for _ in range(2)]
    plain = trained(frozen[0], x, LABELS, NTXentLoss())
    assert_same(trained(Chunked(frozen[1], rows=4), x, LABELS, NTXentLoss()), plain)


def test_losses_of_a_chunk_are_refused(rng):
    layer = keras.layers.Dense(3, activity_regularizer="l2")
    with pytest.raises(ValueError, match="adds a loss in its call, such as an activity regularizer"):
        Chunked(layer, rows=4)(rng.normal(size=(9, 5)), training=True)


@pytest.mark.skipif(ON == "jax", reason="Keras refuses them itself")
def test_random_numbers_without_a_generator_are_refused(rng):
    with pytest.raises(ValueError, match=r"random functions of Keras without `seed=`"):
        Chunked(Unseeded(), rows=4)(rng.normal(size=(9, 5)), training=True)


@pytest.mark.each_backend
@pytest.mark.parametrize("container", [dict, list])
def test_encoders_with_several_inputs(rng, container):
    sides = [rng.normal(size=(ROWS, 6)).astype("float32"), rng.normal(size=(ROWS, 5, 2)).astype("float32")]
    x = dict(zip(("image", "sound"), sides, strict=True)) if container is dict else sides
    encoder = two_input_encoder(container)
    chunked = Chunked(encoder, rows=6)
    np.testing.assert_allclose(*(ops.convert_to_numpy(one(x, training=True)) for one in (chunked, encoder)), atol=1e-6)


@pytest.mark.parametrize("make", [masked_encoder, leaky_encoder])
def test_masks_and_integers_reach_the_encoder(rng, make):
    x, encoder = rng.integers(0, 3, (ROWS, 7)), make()
    chunked = Chunked(encoder, rows=6)
    np.testing.assert_allclose(*(ops.convert_to_numpy(one(x, training=True)) for one in (chunked, encoder)), atol=1e-6)
    assert getattr(chunked(x), "_keras_mask", None) is None or make is leaky_encoder


@pytest.mark.each_backend
def test_a_mask_from_before_is_divided_too(rng):
    x = rng.integers(0, 3, (ROWS, 7))
    embedding, lstm = keras.layers.Embedding(9, 4, mask_zero=True), keras.layers.LSTM(3)
    chunked = keras.Sequential([keras.Input((7,), dtype="int32"), embedding, Chunked(lstm, rows=6)])
    plain = keras.Sequential([keras.Input((7,), dtype="int32"), embedding, lstm])
    np.testing.assert_allclose(*(ops.convert_to_numpy(one(x, training=True)) for one in (chunked, plain)), atol=1e-6)


def test_half_precision_is_that_of_the_encoder(rng):
    x, policy = rng.normal(size=(ROWS, 5)).astype("float32"), "mixed_float16"
    encoder = keras.Sequential([keras.layers.Dense(8, dtype=policy), keras.layers.Dense(3, dtype="float32")])
    found, wanted = Chunked(encoder, rows=6, dtype=policy)(x, training=True), encoder(x, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == keras.backend.standardize_dtype(wanted.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(wanted), atol=1e-6)


@pytest.mark.torch
def test_forward_keeps_the_activations_of_no_chunk(rng):
    import torch

    x, kept = images(rng, 64), {}
    for name, model in {"plain": conv_encoder(), "chunked": Chunked(conv_encoder(), rows=8)}.items():
        sizes = []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(x, training=True)
        kept[name] = sum(sizes)
    assert kept["plain"] > 64 * 48 * 3
    assert kept["chunked"] < 64 * 4 * 3  # the embeddings, and what joins them


@pytest.mark.tensorflow
def test_a_graph_with_a_batch_of_unknown_size(rng):
    import tensorflow as tf

    chunked = Chunked(conv_encoder(), rows=4)
    run = tf.function(lambda x: chunked(x, training=True), input_signature=[tf.TensorSpec((None, 6, 6, 1))])
    for rows in (1, 4, 9, 23):
        x = images(rng, rows)
        np.testing.assert_allclose(run(x), chunked.encoder(x), atol=1e-6)


@pytest.mark.each_backend
def test_saved_in_the_middle_it_goes_on_the_same(rng, tmp_path):
    x = images(rng)
    model = Chunked(conv_encoder(), rows=5)
    trained(model, x, LABELS, NTXentLoss())
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.rows == 5 and again.built
    states = []
    for one in (model, again):
        history = one.fit(x, LABELS, batch_size=ROWS, epochs=2, shuffle=False, verbose=0).history["loss"]
        states.append((history, one.trainable_variables))
    assert_same(*states)


def test_examined_it_is_its_encoder(rng):
    encoder = conv_encoder()
    chunked = Chunked(encoder, rows=4)
    assert ends_in_unit_norm(chunked) and not ends_in_unit_norm(Chunked(keras.layers.Dense(3)))
    wrapper = SiameseWrapper(chunked)
    assert wrapper.bounds == SiameseWrapper(encoder).bounds == (0.0, 2.0)
    left, right = keras.Input((6, 6, 1)), keras.Input((6, 6, 1))
    functional = keras.Model([left, right], keras.layers.Dot(1)([chunked(left), chunked(right)]))
    for model in (wrapper, chunked, functional, keras.Sequential([keras.Input((6, 6, 1)), chunked])):
        anatomy = dissect(model)
        inner = anatomy.encoder
        assert inner is encoder or inner.layers[-1] is chunked, model
        x = images(rng)
        np.testing.assert_allclose(ops.convert_to_numpy(anatomy.encode(x)), ops.convert_to_numpy(encoder(x)), atol=1e-6)
    assert dissect(functional).encoder is encoder


@pytest.mark.deep
def test_monitored_diagnosed_and_verified_it_is_its_encoder(rng, tmp_path):
    x = rng.normal(size=(12, 6, 6, 1)).astype("float32")[np.arange(72) // 6] + 0.3 * images(rng, 72)
    train, valid = (x[:36], np.arange(36) // 6), (x[36:], np.arange(36) // 6)
    found = []
    for wrap in (lambda encoder: encoder, lambda encoder: Chunked(encoder, rows=5)):
        model, monitor = wrap(conv_encoder()), DivergenceMonitor(valid)
        model.compile(keras.optimizers.SGD(0.1), NTXentLoss())
        history = model.fit(*train, batch_size=18, epochs=3, shuffle=False, verbose=0, callbacks=[monitor]).history
        said = diagnose(model, train=train, validation=valid, history=history)
        verifier = Verifier.calibrate(model, *valid, far=0.1)
        verifier.save(tmp_path / "verifier.keras")
        scores = Verifier.load(tmp_path / "verifier.keras").score(valid[0][:9], valid[0][9:18])
        found.append((history["val_auc"], [one.cause for one in said.findings], scores, verifier.threshold))
    (auc, causes, scores, threshold), chunked = found
    np.testing.assert_allclose(chunked[0], auc, atol=1e-4)
    assert chunked[1] == causes
    np.testing.assert_allclose(chunked[2], scores, atol=1e-4)
    assert chunked[3] == pytest.approx(threshold, abs=1e-4)


def test_without_rematerialization_it_warns(monkeypatch, rng):
    monkeypatch.delattr(keras, "remat", raising=False)
    with pytest.warns(UserWarning, match=r"`Chunked` saves memory only with Keras 3.9 or later"):
        chunked = Chunked(keras.layers.Dense(3), rows=4)
    assert tuple(chunked(rng.normal(size=(9, 5)), training=True).shape) == (9, 3)


@pytest.mark.parametrize("rows", [0, -1, 2.5, None])
def test_rows_must_be_a_positive_integer(rows):
    with pytest.raises((ValueError, TypeError), match="`rows` must be"):
        Chunked(keras.layers.Dense(3), rows)


def test_the_encoder_must_return_embeddings(rng):
    with pytest.raises(TypeError, match=r"`encoder` must be a Keras model or layer; got 3"):
        Chunked(3)
    with pytest.raises(ValueError, match=r"embeddings of shape \(batch, dim\)"):
        Chunked(keras.layers.Conv2D(3, 3))(images(rng))
