"""`from_pretrained`: which features are pooled and how, what trains, inference mode while frozen, saved encoders."""

import copy

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.layers import TokenPooling
from keras_siamese.layers.siamese import ends_in_unit_norm
from keras_siamese.pretrained import without_top

IMAGES = (8, 8, 1)
STEPS, CHANNELS = 6, 4


def of_images(*last):
    keras.utils.set_random_seed(2)
    parts = [layers.Conv2D(4, 3, name="first"), layers.BatchNormalization(name="mean"), layers.ReLU()]
    parts += [layers.Dropout(0.5)]
    parts += [layers.Conv2D(5, 3, name="second"), layers.BatchNormalization(name="other_mean")]
    parts += [layers.ReLU()]
    return keras.Sequential([keras.Input(IMAGES), *parts, *last], name="images")


def of_text():
    """A model with the dicts of keras_hub's backbones."""
    keras.utils.set_random_seed(2)
    ids, mask = (keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask"))
    tokens = layers.Dense(CHANNELS, name="block")(layers.Embedding(20, 3, name="tokens")(ids))
    pooled = layers.Dense(CHANNELS, activation="tanh", name="pooler")(tokens[:, 0])
    inputs = {"token_ids": ids, "padding_mask": mask}
    return keras.Model(inputs, {"sequence_output": tokens, "pooled_output": pooled}, name="text")


def images(rng, rows=5):
    return rng.normal(size=(rows, *IMAGES)).astype("float32")


def texts(rng, rows=5, steps=STEPS):
    lengths = rng.integers(1, steps + 1, (rows, 1))
    mask = (np.arange(steps) < lengths).astype("int32")
    return {"token_ids": (rng.integers(1, 20, (rows, steps)) * mask).astype("int32"), "padding_mask": mask}


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def pooled_by_hand(tokens, mask, pooling):
    found = []
    for row, valid in zip(tokens, mask, strict=True):
        kept = row[valid > 0]
        if pooling == "gem":
            found.append(np.mean(np.maximum(kept, 1e-6) ** 3, axis=0) ** (1 / 3))
        else:
            found.append({"avg": kept.mean(axis=0), "max": kept.max(axis=0), "cls": row[0]}[pooling])
    return np.array(found)


# Features


@pytest.mark.each_backend
@pytest.mark.parametrize("pooling", ["avg", "max", "gem", "cls"])
def test_tokens_are_pooled_without_padding(rng, pooling):
    model, x = of_text(), texts(rng)
    encoder = ks.from_pretrained(model, pooling, normalize=False)
    wanted = pooled_by_hand(array(model(x)["sequence_output"]), x["padding_mask"], pooling)
    np.testing.assert_allclose(array(encoder(x)), wanted, atol=1e-5)
    longer = {name: np.pad(values, ((0, 0), (0, 4))) for name, values in x.items()}
    np.testing.assert_allclose(array(encoder(longer)), wanted, atol=1e-5)


def test_without_pooling_the_pooled_output_is_taken(rng):
    model, x = of_text(), texts(rng)
    encoder = ks.from_pretrained(model, None, normalize=False)
    np.testing.assert_allclose(array(encoder(x)), array(model(x)["pooled_output"]), atol=1e-6)
    # What the other output needs is not in the encoder, so it does not count as a layer that trains.
    assert "pooler" in {layer.name for layer in encoder._flatten_layers()}
    assert "pooler" not in {layer.name for layer in ks.from_pretrained(of_text())._flatten_layers()}


@pytest.mark.parametrize("pooling", ["avg", "max", "gem"])
def test_images_are_pooled(rng, pooling):
    model, x = of_images(), images(rng)
    encoder = ks.from_pretrained(model, pooling, normalize=False)
    features = array(model(x)).reshape(5, 16, 5)
    np.testing.assert_allclose(array(encoder(x)), pooled_by_hand(features, np.ones((5, 16)), pooling), atol=1e-5)


def test_a_mask_of_keras_is_used(rng):
    ids = np.array([[3, 4, 0, 0], [5, 6, 7, 0]])
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 3, mask_zero=True)])
    encoder = ks.from_pretrained(model, "avg", normalize=False)
    np.testing.assert_allclose(array(encoder(ids)), pooled_by_hand(array(model(ids)), ids, "avg"), atol=1e-6)


def test_flat_features_need_no_pooling(rng):
    model, x = of_images(layers.GlobalMaxPooling2D()), images(rng)
    np.testing.assert_allclose(array(ks.from_pretrained(model, normalize=False)(x)), array(model(x)), atol=1e-6)


@pytest.mark.parametrize("top", [[layers.Dense, {"activation": "softmax"}], [layers.Dense, {}, layers.Softmax]])
def test_a_classifier_is_left_out(rng, top):
    dense, options, *more = top
    model, x = of_images(layers.GlobalAveragePooling2D(), dense(7, **options), *[one() for one in more]), images(rng)
    encoder = ks.from_pretrained(model, normalize=False)
    assert encoder.output_shape == (None, 5)
    features = array(keras.Sequential(model.layers[: -1 - len(more)])(x))
    np.testing.assert_allclose(array(encoder(x)), features, atol=1e-6)
    assert without_top(of_images()).outputs[0].shape == (None, 4, 4, 5)


@pytest.mark.parametrize("include_top", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_a_model_of_keras_applications(rng, include_top):
    options = {"classes": 7} if include_top else {}
    shape = (32, 32, 3)
    backbone = keras.applications.MobileNetV2(
        weights=None, include_top=include_top, input_shape=shape, alpha=0.35, **options
    )
    encoder = ks.from_pretrained(backbone, "gem", dim=6)
    x = rng.normal(size=(3, *shape)).astype("float32")
    np.testing.assert_allclose(np.linalg.norm(array(encoder(x)), axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(array(encoder(x, training=True)), array(encoder(x)), atol=1e-6)
    assert len(encoder.trainable_weights) == (2 if include_top else 3)  # with a top, the features are flat


# What trains


def names(encoder):
    return {weight.path.split("/")[-2] for weight in encoder.trainable_weights}


def test_what_trains():
    assert names(ks.from_pretrained(of_images(), dim=3)) == {"embedding"}
    assert names(ks.from_pretrained(of_images(), dim=3, trainable=1)) == {"embedding", "second"}
    assert names(ks.from_pretrained(of_images(), dim=3, trainable=2)) == {"embedding", "first", "second"}
    assert len(ks.from_pretrained(of_images(), dim=3, trainable=True).trainable_weights) == 10
    assert ks.from_pretrained(of_images()).trainable_weights == []
    assert names(ks.from_pretrained(of_text(), trainable=1)) == {"block"}
    block = keras.Sequential([layers.Conv2D(3, 1, name="within"), layers.BatchNormalization()])
    assert names(ks.from_pretrained(of_images(block), trainable=1)) == {"within"}


@pytest.mark.each_backend
@pytest.mark.parametrize(
    ("trainable", "wanted"), [(False, set()), (1, {"second"}), (True, {"first", "second", "mean", "other_mean"})]
)
def test_a_frozen_model_runs_in_inference_mode_and_batch_normalization_with_it(rng, trainable, wanted):
    model = of_images()
    encoder = ks.from_pretrained(model, dim=3, trainable=trainable)
    x, labels = images(rng, 8), np.arange(8) // 2
    before = {weight.path: array(weight) for weight in model.weights}
    apart = np.abs(array(encoder(x, training=True)) - array(encoder(x))).max()
    assert (apart == 0) == (trainable is False)  # there is dropout
    encoder.compile(keras.optimizers.SGD(0.5), loss=ks.losses.SupConLoss())
    encoder.fit(x, labels, epochs=2, batch_size=8, verbose=0)
    moved = {path.split("/")[-2] for path, old in before.items() if not np.array_equal(old, array_of(model, path))}
    assert moved == wanted


def array_of(model, path):
    return array(next(weight for weight in model.weights if weight.path == path))


def test_a_model_that_is_unfrozen_later_runs_in_training_mode(rng):
    model = of_images()
    encoder, x = ks.from_pretrained(model, dim=3), images(rng)
    model.trainable = True
    assert np.abs(array(encoder(x, training=True)) - array(encoder(x))).max() > 1e-3


# What it is good for


@pytest.mark.each_backend
@pytest.mark.parametrize("make", [of_images, of_text])
def test_it_trains_in_a_siamese_model_and_is_saved(rng, make, tmp_path):
    encoder = ks.from_pretrained(make(), dim=3, trainable=1)
    x = images(rng, 12) if make is of_images else texts(rng, 12)
    siamese = ks.SiameseWrapper(encoder, "cosine")
    siamese.compile("adam", ks.losses.ContrastiveLoss(margin=0.5))
    siamese.fit(ks.data.PairSequence(x, np.arange(12) // 3, batch_size=6), verbose=0)
    assert ends_in_unit_norm(encoder)
    assert ks.dissect(siamese).encoder is encoder
    siamese.save(tmp_path / "siamese.keras")
    again = keras.saving.load_model(tmp_path / "siamese.keras", safe_mode=True).encoder
    np.testing.assert_allclose(array(again(x)), array(encoder(x)), atol=1e-5)
    for one in (again, copy.deepcopy(encoder)):
        assert names(one) == names(encoder)


def test_a_frozen_encoder_stays_frozen_when_it_is_loaded(rng, tmp_path):
    encoder, x = ks.from_pretrained(of_images(), dim=3), images(rng)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    assert names(again) == {"embedding"}
    np.testing.assert_array_equal(array(again(x, training=True)), array(again(x)))


def test_a_model_in_full_precision_gets_its_inputs_in_full_precision(rng):
    model, x = of_images(), images(rng)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = ks.from_pretrained(model)
    finally:
        keras.config.set_dtype_policy("float32")
    found = encoder.get_layer("backbone")(x)
    np.testing.assert_array_equal(array(found), array(model(x)))


# Pooling of tokens, bad input


@pytest.mark.each_backend
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_sequence_of_padding_alone_is_zero(mode):
    tokens = ops.convert_to_tensor(-np.ones((1, 3, 2), "float32"))
    assert array(TokenPooling(mode)(tokens, mask=np.zeros((1, 3)))).tolist() == [[0, 0]]
    assert array(TokenPooling(mode)(tokens)).tolist() == [[-1, -1]]


def test_half_precision_is_pooled_in_full():
    tokens = ops.convert_to_tensor(np.full((1, 4, 1), 4e4), "float16")  # their sum overflows
    pooled = TokenPooling("avg", dtype="float16")(tokens, mask=np.ones((1, 4)))
    assert float(array(pooled)[0, 0]) == pytest.approx(4e4, rel=1e-3)


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ks.from_pretrained("resnet"), TypeError, "`model` must be a keras.Model; got 'resnet'"),
        (lambda: ks.from_pretrained(Subclassed()), ValueError, "`model` must be functional or a Sequential with an In"),
        (lambda: ks.from_pretrained(of_images(), "mean"), ValueError, "`pooling` must be one of 'avg', 'max', 'gem'"),
        (lambda: ks.from_pretrained(of_images(), "cls"), ValueError, "`pooling` must be one of 'avg', 'max', 'gem' fo"),
        (lambda: ks.from_pretrained(of_images(), None), ValueError, r"of shape \(None, 4, 4, 5\); got None"),
        (lambda: ks.from_pretrained(of_images(), dim=0), ValueError, "`dim` must be at least 1; got 0"),
        (lambda: ks.from_pretrained(of_images(), trainable=0), ValueError, "`trainable` must be at least 1; got 0"),
        (lambda: ks.from_pretrained(of_images(), trainable=3), ValueError, "`trainable` must be at most 2; got 3"),
        (lambda: ks.from_pretrained(of_images(), trainable="all"), TypeError, "`trainable` must be an integer"),
        (lambda: TokenPooling("mean"), ValueError, "`mode` must be one of 'avg', 'max', 'cls'; got 'mean'"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_several_outputs_of_other_names_are_refused():
    x = keras.Input((4,))
    model = keras.Model(x, {"a": layers.Dense(2)(x), "b": layers.Dense(3)(x)})
    with pytest.raises(ValueError, match="or 'sequence_output' with pooling='avg'; it has the outputs 'a', 'b'"):
        ks.from_pretrained(model)
