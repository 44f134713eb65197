"""Exports: the files, run by the runtimes they are for, decide as the verifier does."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese import serving
from keras_siamese.layers import SiameseWrapper
from keras_siamese.verifier import Verifier

BACKEND = keras.backend.backend()
CONVERTER = serving.PACKAGES["onnx", BACKEND][0]
SIDE = 6
# What the exporters of Keras, PyTorch and TensorFlow say of each other's and their own calls.
pytestmark = pytest.mark.filterwarnings("ignore")


def images(identities, samples, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    x = rng.normal(size=(identities, SIDE, SIDE, 1))[labels] + rng.normal(size=(len(labels), SIDE, SIDE, 1))
    return x.astype("float32"), labels


def dense():
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 1)), layers.Flatten(), layers.Dense(8), layers.UnitNormalization()]
    )


def convolutional():
    """With statistics of its own and what only training does, which an export must leave out."""
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    encoder = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    normalization = next(layer for layer in encoder.layers if isinstance(layer, layers.BatchNormalization))
    gamma, beta, mean, variance = normalization.get_weights()
    normalization.set_weights([gamma, beta, mean + 0.3, variance * 2.0])
    return encoder


MODELS = {
    "euclidean": lambda: SiameseWrapper(dense(), "euclidean"),
    "logistic": lambda: SiameseWrapper(convolutional(), "cosine", head="logistic"),
    "learned": lambda: SiameseWrapper(convolutional(), "mahalanobis", joint=False),
}


def calibrated(model="euclidean"):
    return Verifier.calibrate(MODELS[model](), *images(20, 5, seed=1))


def check_decides_alike(verifier, run, sizes=(37, 1)):
    """`run(left, right)` → arrays `(n, 1)` by name, on pairs that calibration did not see, however many at once."""
    x, _ = images(15, 5, seed=2)
    rng = np.random.default_rng(3)
    left = rng.integers(0, len(x), sizes[0])
    right = np.where(rng.random(sizes[0]) < 0.5, left // 5 * 5, rng.integers(0, len(x), sizes[0]))
    expected = verifier.decide(x[left], x[right])
    assert 0 < expected["accept"].mean() < 1
    for rows in [slice(0, size) for size in sizes]:
        found = run(x[left][rows], x[right][rows])
        assert set(found) == {"accept", "probability", "score"}
        assert {name: column.shape for name, column in found.items()} == dict.fromkeys(found, (rows.stop, 1))
        assert found["accept"].dtype == bool
        np.testing.assert_array_equal(found["accept"][:, 0], expected["accept"][rows])
        for name in ("probability", "score"):
            np.testing.assert_allclose(found[name][:, 0], expected[name][rows], atol=1e-5, rtol=1e-5)


# On JAX, what writes ONNX is not in the extra `test`.
converts = pytest.mark.partner(CONVERTER) if CONVERTER == "jax2onnx" else lambda test: test


def skip_without(format, *modules):
    if BACKEND not in serving.BACKENDS[format]:
        pytest.skip(f"Keras exports no {format} from {BACKEND}")
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def export(verifier, path, format):
    try:
        verifier.export(path, format=format, verbose=False)
    except ValueError as error:
        if "Unrecognized format" not in str(error) and "which writes no other" not in str(error):
            raise
        pytest.skip(f"Keras {keras.__version__} knows no {format}")


@pytest.mark.deep
@pytest.mark.tensorflow
@pytest.mark.jax
def test_a_saved_model_decides_as_the_verifier(tmp_path):
    skip_without("tf_saved_model", "tensorflow")
    import tensorflow as tf

    verifier = calibrated("logistic")
    export(verifier, str(tmp_path / "served"), "tf_saved_model")
    served = tf.saved_model.load(str(tmp_path / "served"))

    def run(left, right):
        return {name: column.numpy() for name, column in served.serve((tf.constant(left), tf.constant(right))).items()}

    check_decides_alike(verifier, run)


@pytest.mark.parametrize("model", ["euclidean", pytest.param("logistic", marks=pytest.mark.each_backend), "learned"])
@converts
def test_onnx_decides_as_the_verifier(model, tmp_path):
    skip_without("onnx", "onnx", "onnxruntime", CONVERTER)
    import onnxruntime

    verifier, path = calibrated(model), str(tmp_path / "verifier.onnx")
    export(verifier, path, "onnx")
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == ["left", "right"]
    names = [value.name for value in session.get_outputs()]

    def run(left, right):
        return dict(zip(names, session.run(None, {"left": left, "right": right}), strict=True))

    check_decides_alike(verifier, run)


@pytest.mark.deep
@pytest.mark.each_backend
def test_litert_decides_as_the_verifier(tmp_path):
    skip_without("litert", "tensorflow", *(["litert_torch"] if BACKEND == "torch" else []))
    import tensorflow as tf

    verifier, path = calibrated("logistic"), str(tmp_path / "verifier.tflite")
    export(verifier, path, "litert")
    interpreter = tf.lite.Interpreter(path)
    run = interpreter.get_signature_runner()
    if BACKEND == "tensorflow":
        check_decides_alike(verifier, lambda left, right: run(left=left, right=right))
    else:  # one pair at a time, and its inputs are numbered
        names = sorted(run.get_input_details())

        def one_by_one(left, right):
            rows = [run(**{names[0]: left[[row]], names[1]: right[[row]]}) for row in range(len(left))]
            return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

        check_decides_alike(verifier, one_by_one, sizes=(7, 1))


class TwoInputs(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def build(self, shapes):
        self.dense.build(shapes["pixels"])
        self.built = True

    def call(self, inputs):
        return self.dense(inputs["pixels"]) + inputs["age"]

    def compute_output_shape(self, shapes):
        return (shapes["pixels"][0], 4)


@converts
def test_onnx_of_an_encoder_with_several_inputs(tmp_path):
    skip_without("onnx", "onnx", "onnxruntime", CONVERTER)
    import onnxruntime

    x, labels = images(20, 5, seed=1)
    items = {"pixels": x.reshape(100, -1), "age": labels[:, None].astype("float32")}
    verifier, path = Verifier.calibrate(SiameseWrapper(TwoInputs()), items, labels), str(tmp_path / "two.onnx")
    export(verifier, path, "onnx")
    session = onnxruntime.InferenceSession(path)
    left, right = ({name: array[rows] for name, array in items.items()} for rows in (slice(0, 50), slice(3, 53)))
    feed = {f"left_{name}": array for name, array in left.items()}
    feed |= {f"right_{name}": array for name, array in right.items()}
    assert sorted(value.name for value in session.get_inputs()) == sorted(feed)
    accept = session.run(["accept"], feed)[0][:, 0]
    np.testing.assert_array_equal(accept, verifier.verify(left, right))
    assert 0 < accept.mean() < 1


def test_the_signature_has_the_names_shapes_and_dtypes_of_the_inputs():
    words = keras.Input((7,), dtype="int32", name="words")
    age = keras.Input((2,), name="age")
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(10, 3)(words))
    encoder = keras.Model({"words": words, "age": age}, layers.Concatenate()([embedded, age]))
    siamese = SiameseWrapper(encoder)
    sample = {"words": np.zeros((2, 7), "int32"), "age": np.zeros((2, 2), "float32")}
    siamese((sample, sample))
    ((left, right),) = serving.signature(siamese)
    assert {key: (spec.name, spec.shape, spec.dtype) for key, spec in left.items()} == {
        "words": ("left_words", (None, 7), "int32"),
        "age": ("left_age", (None, 2), "float32"),
    }
    assert right["words"].name == "right_words"
    one = SiameseWrapper(dense())
    one((np.zeros((2, SIDE, SIDE, 1)),) * 2)
    ((left, _),) = serving.signature(one, rows=1)
    assert (left.name, left.shape) == ("left", (1, SIDE, SIDE, 1))


def test_nested_inputs_are_named_by_their_place():
    shapes = [{"b": (None, 1), "a": [(None, 2), (None, 3)]}, (None, 4)]
    dtypes = ["int8", "int16", "int32", "int64"]
    specs = serving.named_specs("x", shapes, 5, iter(dtypes))
    assert list(specs[0]) == ["b", "a"]
    leaves = [*specs[0]["a"], specs[0]["b"], specs[1]]
    assert [leaf.name for leaf in leaves] == ["x_0_a_0", "x_0_a_1", "x_0_b", "x_1"]
    assert [leaf.shape for leaf in leaves] == [(5, 2), (5, 3), (5, 1), (5, 4)]
    assert [leaf.dtype for leaf in leaves] == dtypes


# --- refused


@pytest.mark.parametrize(
    ("backend", "format", "message"),
    [
        ("torch", "tf_saved_model", r"from the torch backend, 'onnx' or 'litert'; .*KERAS_BACKEND=tensorflow"),
        ("jax", "litert", r"from the jax backend, 'tf_saved_model' or 'onnx'; got 'litert'"),
    ],
)
def test_what_a_backend_cannot_write_is_refused(backend, format, message, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(ValueError, match=message):
        serving.check_format(format)


@pytest.mark.parametrize(
    ("backend", "format", "module", "message"),
    [
        ("tensorflow", "onnx", "tf2onnx", r'tf2onnx is needed .*"keras-siamese\[onnx\]"'),
        ("jax", "onnx", "jax2onnx", r'jax2onnx is needed .*"keras-siamese\[onnx-jax\]"'),
        ("torch", "onnx", "onnx", r'onnx is needed .*"keras-siamese\[onnx\]"'),
        ("jax", "tf_saved_model", "tensorflow", r'tensorflow is needed .*"keras-siamese\[tensorflow\]"'),
        ("torch", "litert", "litert_torch", "litert_torch is needed .* pip install litert-torch"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(backend, format, module, message, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else found(name, *rest))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        serving.check_format(format)


def test_an_unknown_format_is_keras_own_error(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        calibrated().export(str(tmp_path / "verifier"), format="pickle")


def test_an_export_that_fails_leaves_the_verifier_as_it_was():
    verifier = calibrated()
    with pytest.raises(ZeroDivisionError), serving.each_tower_apart(verifier.siamese):
        assert verifier.siamese.joint is False
        raise ZeroDivisionError
    assert verifier.siamese.joint is True


def test_options_given_are_kept():
    siamese = MODELS["euclidean"]()
    siamese((np.zeros((2, SIDE, SIDE, 1)),) * 2)
    given = {"input_signature": [1], "verbose": False}
    assert serving.options(siamese, "onnx", given) is given
