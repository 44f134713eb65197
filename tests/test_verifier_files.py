"""The verifier in files: it is saved and loaded in safe mode, and files that hold no verifier are told apart."""

import errno
import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.verifier import Verifier
from keras_siamese.verifier_files import global_names, lambda_problem
from tests.support.verifiers import FEATURES, clusters, decisions_of, encoder_model, wrapper


@pytest.fixture(scope="module")
def valid():
    return clusters(30, 6, seed=1)


@pytest.fixture(scope="module")
def test():
    return clusters(25, 6, seed=2)


def with_head():
    return SiameseWrapper(encoder_model(), head="logistic")


def learned_distance():
    return SiameseWrapper(encoder_model(), "mahalanobis")


def functional():
    encoder = encoder_model()
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    return keras.Model([left, right], DistanceLayer("cosine")([encoder(left), encoder(right)]))


def functional_with_head():
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    encoder = encoder_model()
    head = layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.Constant(-2.0))
    return keras.Model([left, right], head(DistanceLayer()([encoder(left), encoder(right)])))


KINDS = [
    wrapper,
    with_head,
    learned_distance,
    functional,
    pytest.param(functional_with_head, marks=pytest.mark.each_backend),
    encoder_model,
]


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_model_is_saved_and_loaded_in_safe_mode(make, valid, test, tmp_path):
    model = make()
    verifier = Verifier.calibrate(model, *valid, far=0.05)
    verifier.save(tmp_path / "verifier.keras")
    loaded = Verifier.load(tmp_path / "verifier.keras")
    left, right = test[0][::2], test[0][1::2]
    np.testing.assert_array_equal(loaded.verify(left, right), verifier.verify(left, right))
    np.testing.assert_allclose(loaded.score(left, right), verifier.score(left, right), atol=1e-6)
    np.testing.assert_allclose(loaded.probability(left, right), verifier.probability(left, right), atol=1e-6)
    assert loaded.evidence == verifier.evidence and loaded.threshold == verifier.threshold
    if not isinstance(model, keras.Sequential):
        output = np.asarray(model.predict_on_batch([left, right]))[:, 0]
        is_score = verifier.siamese.output_kind == "score"
        np.testing.assert_allclose(verifier.score(left, right), output if is_score else -output, atol=1e-5)


@keras.saving.register_keras_serializable("test_verifier")
class TwoInputs(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def build(self, shapes):
        self.dense.build(shapes["a"])
        self.built = True

    def call(self, inputs):
        return self.dense(inputs["a"]) + inputs["b"]

    def compute_output_shape(self, shapes):
        return (shapes["a"][0], 4)


def test_samples_may_be_dicts(valid, tmp_path):
    x, labels = valid
    items = {"a": x, "b": x[:, :4]}
    verifier = Verifier.calibrate(SiameseWrapper(TwoInputs()), items, labels)
    verifier.save(tmp_path / "verifier.keras")
    loaded = Verifier.load(tmp_path / "verifier.keras")
    half = [{name: array[rows] for name, array in items.items()} for rows in (slice(0, 90), slice(90, 180))]
    np.testing.assert_array_equal(loaded.verify(*half), verifier.verify(*half))
    assert verifier.verify(half[0], half[0]).all()
    assert loaded.evaluate(items, labels).genuines == 30 * 15


@pytest.mark.deep
@pytest.mark.each_backend
def test_a_fresh_process_decides_alike(valid, test, tmp_path):
    verifier = Verifier.calibrate(wrapper(), *valid, far=0.05)
    verifier.save(tmp_path / "verifier.keras")
    left, right = test[0][::2], test[0][1::2]
    np.savez(tmp_path / "pairs.npz", left=left, right=right)
    code = (
        "import sys, json, numpy as np, keras_siamese as ks\n"
        "pairs = np.load(sys.argv[1] + '/pairs.npz')\n"
        "verifier = ks.Verifier.load(sys.argv[1] + '/verifier.keras')\n"
        "decided = verifier.decide(pairs['left'], pairs['right'])\n"
        "told = {name: column.tolist() for name, column in decided.items()}\n"
        "print(json.dumps([told, verifier.evidence, verifier.threshold]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    told, evidence, threshold = json.loads(answer.stdout.strip().splitlines()[-1])
    assert told["accept"] == verifier.verify(left, right).tolist()
    np.testing.assert_allclose(told["score"], verifier.score(left, right), atol=1e-6)
    np.testing.assert_allclose(told["probability"], verifier.probability(left, right), atol=1e-6)
    assert evidence == verifier.evidence and threshold == verifier.threshold


@pytest.mark.parametrize("is_fitted", [True, pytest.param(False, marks=pytest.mark.deep)])
@pytest.mark.parametrize("compiled", ["wrapper", "encoder", "functional"])
def test_the_loss_of_training_is_not_needed_to_load(compiled, is_fitted, valid, tmp_path):
    def a_loss_of_ones_own(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred), axis=-1)

    model = {"wrapper": SiameseWrapper(encoder_model()), "encoder": encoder_model(), "functional": functional()}[
        compiled
    ]
    model.compile("adam", loss=a_loss_of_ones_own)
    if is_fitted:
        x, labels = valid
        inputs = x[:20] if compiled == "encoder" else [x[:20], x[20:40]]
        model.fit(inputs, labels[:20, None], verbose=0)
    verifier = Verifier.calibrate(model, *valid, criterion="eer")
    path = tmp_path / "verifier.keras"
    verifier.save(path)
    loaded = Verifier.load(path)  # any warning would be an error here
    np.testing.assert_array_equal(decisions_of(loaded, *valid)[0], decisions_of(verifier, *valid)[0])
    assert loaded.threshold == verifier.threshold


def test_another_model_is_not_loaded_as_a_verifier(tmp_path):
    encoder_model().save(tmp_path / "encoder.keras")
    with pytest.raises(ValueError, match=r"must be a saved Verifier; .*encoder.keras' holds a Sequential"):
        Verifier.load(tmp_path / "encoder.keras")


def test_files_that_hold_no_whole_verifier_are_told_apart(valid, tmp_path):
    path = tmp_path / "verifier.keras"
    Verifier.calibrate(SiameseWrapper(encoder_model()), *valid).save(path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="there is no file '.*none.keras'"):
        Verifier.load(tmp_path / "none.keras")
    for name, content in (("half", whole[: len(whole) // 2]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / f"{name}.keras").write_bytes(content)
        with pytest.raises(ValueError, match=rf"'.*{name}.keras' is cut short or is not a .keras file"):
            Verifier.load(tmp_path / f"{name}.keras")
    place = whole.index(b"PK\x03\x04", 4) - 40  # inside the first part, whose checksum then fails
    (tmp_path / "hit.keras").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(ValueError, match=r"'.*hit.keras' is (damaged|cut short)"):
        Verifier.load(tmp_path / "hit.keras")


def test_a_save_that_fails_leaves_the_file_as_it_was(valid, tmp_path, monkeypatch):
    path = tmp_path / "verifier.keras"
    verifier = Verifier.calibrate(SiameseWrapper(encoder_model()), *valid)
    verifier.save(path)
    whole = path.read_bytes()

    def fails(self, filepath, overwrite=True, **kwargs):
        filepath.write_bytes(whole[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        verifier.save(path)
    assert path.read_bytes() == whole and [one.name for one in tmp_path.iterdir()] == ["verifier.keras"]


def test_a_file_of_a_newer_version_says_which(valid, tmp_path):
    path, newer = tmp_path / "verifier.keras", tmp_path / "newer.keras"
    verifier = Verifier.calibrate(SiameseWrapper(encoder_model()), *valid)
    verifier.evidence["keras_siamese"] = "99.0"
    verifier.save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(newer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["invented_later"] = 1
                content = json.dumps(config)
            new.writestr(name, content)
    with pytest.raises(ValueError, match=r"was made with keras_siamese 99.0 and Keras .*, this is keras_siamese"):
        Verifier.load(newer)


def test_other_endings_than_keras_are_refused(valid, tmp_path):
    verifier = Verifier(wrapper(), 0.0)
    for name in ("verifier.h5", "verifier", "verifier.keras.zip"):
        with pytest.raises(ValueError, match=rf"`filepath` must end with '.keras', .*{name}'. Use `export`"):
            verifier.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


class Unregistered(layers.Layer):
    def __init__(self):
        super().__init__()

    def call(self, inputs):
        return inputs


def doubled(x):
    return 2 * x


def test_classes_that_are_not_registered_are_named(valid, tmp_path):
    path = tmp_path / "verifier.keras"
    activated = layers.Dense(4, activation=doubled)
    encoder = keras.Sequential([keras.Input((FEATURES,)), Unregistered(), activated, layers.UnitNormalization()])
    verifier = Verifier.calibrate(SiameseWrapper(encoder), *valid)
    with pytest.warns(UserWarning) as said:
        verifier.save(path)
    told = str(said[0].message)
    assert f"doubled, {__name__}.Unregistered in " in told and "@keras.saving.register_keras_serializable()" in told
    assert "Unregistered cannot be made from its config (got an unexpected keyword argument" in told
    for safe_mode in (True, False):
        with pytest.raises(ValueError, match=r"doubled, .*Unregistered in it is not registered with Keras.*_scope"):
            Verifier.load(path, safe_mode=safe_mode)
    scope = keras.saving.custom_object_scope({"Unregistered": Unregistered, "doubled": doubled})
    with scope, pytest.raises(ValueError, match="unexpected keyword"):  # its __init__ takes no arguments
        Verifier.load(path)


def test_a_lambda_that_uses_names_is_not_promised_to_load():
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: sum(np.abs(y) for y in [x]), name="gap")])
    assert "The names np inside them are not defined when the file is loaded" in lambda_problem(model)
    assert global_names((lambda x: max(x, keras.ops.abs(x))).__code__) == {"keras"}
    assert lambda_problem(keras.Sequential([keras.Input((2,)), layers.Lambda(doubled)])) is None  # has a name
