"""Training on the losses of TensorFlow Addons: the loss falls, compiled or not, and a saved model goes on training."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import addons
from keras_siamese.layers import SiameseWrapper
from tests.support.addons_here import with_tfa
from tests.support.fresh_python import fresh


def clusters():
    """40 samples of 5 identities around points that overlap."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(5) + 2**24, 8)[rng.permutation(40)]
    return (rng.normal(size=(5, 6))[labels - 2**24] + 0.7 * rng.normal(size=(40, 6))).astype("float32"), labels


def encoder(dtype=None):
    layers = [keras.layers.Dense(16, activation="tanh", dtype=dtype), keras.layers.Dense(4, dtype=dtype)]
    # Its epsilon is below what float16 can hold, and warns.
    return keras.Sequential([keras.Input((6,)), *layers, *([] if dtype else [keras.layers.UnitNormalization()])])


def similarities_of(model):
    inputs = keras.Input((6,))
    z = model(inputs)
    return keras.Model(inputs, ops.matmul(z, ops.transpose(z)))


def falls(model, x, y, loss, **options):
    """Whether thirty epochs lower the loss by a fifth."""
    model.compile(keras.optimizers.Adam(0.01), loss=loss, **options)
    before = model.evaluate(x, y, batch_size=40, verbose=0)
    model.fit(x, y, batch_size=40, epochs=30, verbose=0)
    return model.evaluate(x, y, batch_size=40, verbose=0) < 0.8 * before


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "name",
    [
        "TripletSemiHardLoss",
        pytest.param("TripletHardLoss", marks=pytest.mark.deep),
        pytest.param("LiftedStructLoss", marks=pytest.mark.deep),
    ],
)
def test_an_encoder_trains(name):
    x, labels = clusters()
    assert falls(encoder(), x, labels, addons.loss(name), jit_compile=False)  # which takes long to compile


@pytest.mark.deep
@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["TripletSemiHardLoss", "TripletHardLoss", "LiftedStructLoss"])
def test_a_compiled_step_is_the_plain_one(name):
    """On six samples: XLA takes long over TFA's batch³ tensors."""
    x, model = clusters()[0][:6], encoder()
    labels, start = np.array([3, 5, 3, 5, 5, 2**24]), model.get_weights()
    found = []
    for jit_compile in (False, True):
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.1), loss=addons.loss(name), jit_compile=jit_compile)
        loss = model.train_on_batch(x, labels)
        found.append([np.asarray(loss), *model.get_weights()])
    for plain, compiled in zip(*found, strict=True):
        np.testing.assert_allclose(plain, compiled, rtol=1e-4, atol=1e-5)
    assert not np.allclose(start[0], found[0][1], atol=1e-5)


@pytest.mark.deep
@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["NpairsLoss", "NpairsMultilabelLoss"])
def test_a_model_of_similarities_trains(name):
    x, labels = clusters()
    y = labels if name == "NpairsLoss" else np.eye(5)[labels - 2**24]
    # Unit vectors' similarities reach no further than e, so the entropy falls less than by a fifth.
    scaled = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    assert falls(similarities_of(scaled), x, y, addons.loss(name))


@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.deep)])
@pytest.mark.parametrize(
    ("name", "head"),
    [("ContrastiveLoss", None), pytest.param("SigmoidFocalCrossEntropy", "logistic", marks=pytest.mark.deep)],
)
def test_a_siamese_model_trains(name, head, jit_compile):
    x, labels = clusters()
    left, right = np.arange(0, 40, 2), np.arange(1, 40, 2)
    left, right = np.concatenate([left, left]), np.concatenate([right, np.roll(right, 3)])
    same = (labels[left] == labels[right]).astype("float32")
    assert 0 < same.sum() < 40
    siamese = SiameseWrapper(encoder(), head=head)
    assert falls(siamese, (x[left], x[right]), same, addons.loss(name), jit_compile=jit_compile)


@pytest.mark.deep
@with_tfa
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["TripletSemiHardLoss", "LiftedStructLoss"])
def test_mixed_precision_trains(name):
    x, labels = clusters()
    model = encoder("mixed_float16")
    assert keras.backend.standardize_dtype(model(x).dtype) == "float16"
    assert falls(model, x, labels, addons.loss(name))


@with_tfa
@pytest.mark.tensorflow
def test_class_weights_are_refused_inside_fit():
    x, labels = clusters()
    model = encoder()
    model.compile("sgd", loss=addons.loss("TripletSemiHardLoss"))
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(x, labels - 2**24, class_weight=dict.fromkeys(range(5), 1.0), verbose=0)


LOAD_MODEL = """
import json, sys
import keras, numpy as np
import keras_siamese
arrays = np.load(sys.argv[2])
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
early = "tensorflow_addons" in sys.modules
loss = model.evaluate(arrays["x"], arrays["y"], batch_size=40, verbose=0)
model.fit(arrays["x"], arrays["y"], batch_size=40, epochs=2, verbose=0)
print(json.dumps([loss, model.loss.get_config(), early]))
"""


@pytest.mark.deep
@with_tfa
@pytest.mark.tensorflow
def test_a_saved_model_evaluates_and_trains_in_a_fresh_process(tmp_path):
    x, labels = clusters()
    model = encoder()
    model.compile("adam", loss=addons.loss(addons.load().losses.TripletHardLoss(margin=0.4, soft=True)))
    model.fit(x, labels, batch_size=40, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "arrays.npz", x=x, y=labels)
    files = tmp_path / "model.keras", tmp_path / "arrays.npz"
    loss, config, early = fresh(LOAD_MODEL, *files, KERAS_BACKEND="tensorflow")
    assert loss == pytest.approx(model.evaluate(x, labels, batch_size=40, verbose=0), rel=1e-5)
    assert config == model.loss.get_config()
    assert not early, "loading a model needs no TensorFlow Addons"


@with_tfa
@pytest.mark.tensorflow
def test_embeddings_where_similarities_belong_are_refused_inside_fit():
    x, labels = clusters()
    model = encoder()
    model.compile("sgd", loss=addons.loss("NpairsLoss"))
    with pytest.raises(ValueError, match=r"must hold the similarities \(batch, batch\) of all rows; got \(None, 4\)"):
        model.fit(x, labels, verbose=0)


@with_tfa
@pytest.mark.tensorflow
def test_a_matrix_that_is_not_square_is_refused_when_its_shape_is_known():
    import tensorflow as tf

    x, labels = clusters()
    square = similarities_of(encoder())
    model = keras.Model(square.input, ops.concatenate([square.output] * 2, axis=1))
    assert model.output_shape == (None, None)
    model.compile("sgd", loss=addons.loss("NpairsLoss"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must hold the similarities"):
        model.fit(x, labels, verbose=0)


@with_tfa
@pytest.mark.tensorflow
def test_a_siamese_model_refuses_the_losses_that_it_cannot_feed():
    x, labels = clusters()
    data = (x[:20], x[20:]), (labels[:20] == labels[20:]).astype("float32")
    for name, message in (
        ("TripletHardLoss", "expects y_pred to hold embeddings, .* use the encoder itself"),
        ("NpairsLoss", "expects y_pred to hold a matrix of similarities"),
        ("SigmoidFocalCrossEntropy", 'head="logistic"'),
    ):
        siamese = SiameseWrapper(encoder())
        siamese.compile("sgd", loss=addons.loss(name))
        with pytest.raises(ValueError, match=message):
            siamese.fit(*data, verbose=0)
    siamese = SiameseWrapper(encoder())
    siamese.compile("sgd", loss=addons.loss("ContrastiveLoss", margin=5.0))
    with pytest.raises(ValueError, match="`margin` of AddonsLoss must be at most 2"):
        siamese.fit(*data, verbose=0)
