"""Files that somebody else has made: each attack on a reader is refused, and what the package writes is read."""

import io
import json
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import _reading
from keras_siamese._reading import bytes_of, check_archive, check_config, check_model_file, checked_arrays, json_of
from tests.support.verifiers import FEATURES, wrapper


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def changed(path, members):
    """The archive at `path` with other `members`, by name; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    return archive_of(path, {name: one for name, one in {**held, **members}.items() if one is not None})


def test_a_file_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(b"x" * 100)
    assert bytes_of(path, 100) == b"x" * 100
    with pytest.raises(ValueError, match=r"report.json must have at most 99 bytes; it has more"):
        bytes_of(path, 99)
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        bytes_of("/dev/zero", 1000)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", "NaN1", b"\xff\xfe"])
def test_json_that_cannot_be_parsed_is_a_value_error(text):
    with pytest.raises(ValueError, match="report.json is not JSON: "):
        json_of(text, "report.json")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = archive_of(tmp_path / "bomb.zip", {"a": bytes(10**6), "b": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    check_archive(path)
    monkeypatch.setattr(_reading, "MAX_UNPACKED", 10**6)
    with pytest.raises(ValueError, match=r"bomb.zip must unpack to at most 1,000,000 bytes; it unpacks to 2,000,000"):
        check_archive(path)
    monkeypatch.setattr(_reading, "MAX_EXPANSION", 2000)  # a large file may hold more
    check_archive(path)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "\\\\host\\a", "C:\\a", "..\\a"])
def test_a_member_outside_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="must hold files below one folder"):
        check_archive(archive_of(tmp_path / "a.zip", {name: b""}))


def test_members_that_are_links_or_encrypted_or_compressed_in_another_way_are_refused(tmp_path):
    link = zipfile.ZipInfo("model.weights.h5")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link or encrypted"):
        check_archive(tmp_path / "link.zip")
    content = archive_of(tmp_path / "a.zip", {"a": b"1"}).read_bytes()
    place = content.index(b"PK\x01\x02") + 8  # the flags in the directory
    (tmp_path / "a.zip").write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(ValueError, match="is a link or encrypted"):
        check_archive(tmp_path / "a.zip")
    archive_of(tmp_path / "a.zip", {"a": b"1"}, zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="is compressed in another way"):
        check_archive(tmp_path / "a.zip")


def test_what_a_damaged_archive_raises_is_a_value_error(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="a.zip must be a whole zip archive; BadZipFile"):
        check_archive(tmp_path / "a.zip")


def npy(shape, descr="<f8", content=b""):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize(
    "content",
    [npy((10**12,)), npy((10**18,), "<U0"), npy((-1,)), npy((2**33, 2**31)), b"not an array", npy((3,))],
    ids=["huge", "many empty texts", "negative", "overflows", "no header", "cut"],
)
def test_an_array_larger_than_its_file_is_refused(tmp_path, content):
    path = archive_of(tmp_path / "x.npz", {"x.npy": content})
    expected = r"x.npz must hold arrays; 'x.npy' (is not an array|has .* claims the shape)"
    with pytest.raises(ValueError, match=expected), checked_arrays(path):
        pass


def test_arrays_are_read_without_pickle(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((100, 100)), labels=np.array(["ada", "bo"]), one=np.float32(1))
    with checked_arrays(tmp_path / "x.npz") as archive:
        assert archive["x"].shape == (100, 100) and archive["labels"].tolist() == ["ada", "bo"] and archive["one"] == 1
    np.savez(tmp_path / "x.npz", x=np.array([{}], object))
    with checked_arrays(tmp_path / "x.npz") as archive, pytest.raises(ValueError, match="pickle"):
        archive["x"]


@pytest.fixture
def saved(tmp_path):
    """A verifier's file."""
    verifier = ks.Verifier(wrapper(), threshold=-1.0)
    verifier([np.zeros((1, FEATURES), "float32")] * 2)
    verifier.save(tmp_path / "verifier.keras")
    return tmp_path / "verifier.keras"


def test_a_saved_model_passes(saved):
    check_model_file(saved)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"model.weights.npz": b""}, "must hold once each"),  # Keras 3.7 unpickles it
        ({"model.weights.h5": None}, "must hold once each"),
        ({"config.json": b"[" * 100_000}, "nested too deeply"),
        ({"config.json": b"[]"}, "must have an object in config.json"),
        ({"metadata.json": b"[]"}, "must have an object in metadata.json"),
        ({"model.weights.h5": b"text"}, "must be a whole zip archive"),
    ],
)
def test_other_parts_are_refused(saved, members, message):
    with pytest.raises(ValueError, match=message):
        check_model_file(changed(saved, members))


def named(class_name, module, config=None, registered_name=None):
    return {"class_name": class_name, "module": module, "config": config or {}, "registered_name": registered_name}


@pytest.mark.parametrize(
    "part",
    [
        named("system", "os"),
        named("Popen", "subprocess"),
        named("function", "os", "system"),
        named("function", "keras.utils", "get_file"),
        named("function", "keras.src.activations", "relu"),
        named("get_file", "keras.src.utils.file_utils"),
        named("Layer", "keras_siamese_of_another"),
        named("TFSMLayer", "keras.layers"),
        named("TorchModuleWrapper", "keras.layers"),
        named("Own", None, registered_name="TFSMLayer") | {"class_name": "TFSMLayer"},
        named("Own", ["os"]),
        {"class_name": ["os"], "module": "keras"},
    ],
)
def test_code_and_classes_of_others_are_refused(part):
    with pytest.raises(ValueError, match="must be of classes of Keras and registered ones only"):
        check_config("a.keras", {"config": {"layers": [1, [{"deep": part}]]}})


def test_a_registered_class_passes():
    class Registered(keras.layers.Layer):
        pass

    config = {"config": named("Registered", "of.another", registered_name="reading>Registered")}
    with pytest.raises(ValueError, match="it names of.another.Registered"):
        check_config("a.keras", config)
    keras.saving.register_keras_serializable("reading")(Registered)
    check_config("a.keras", config)


def test_a_vocabulary_in_another_file_is_refused():
    layer = named("StringLookup", "keras.layers", {"vocabulary": "/etc/passwd"})
    with pytest.raises(ValueError, match="must hold its vocabulary; it names the file '/etc/passwd'"):
        check_config("a.keras", {"config": layer})
    check_config("a.keras", {"config": named("StringLookup", "keras.layers", {"vocabulary": ["a", "b"]})})


def external_link(file, secret):
    file["stolen"] = h5py.ExternalLink(str(secret), "/secret")


def soft_link(file, secret):
    file["loop"] = h5py.SoftLink("/loop")


def external_data(file, secret):
    file.create_dataset("stolen", (4,), "uint8", external=[(str(secret), 0, 4)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((4,), "uint8")
    layout[:] = h5py.VirtualSource(str(secret), "secret", (4,))
    file.create_virtual_dataset("stolen", layout)


def huge(file, secret):
    file.create_dataset("huge", (10**6, 10**6), "float32", chunks=(10, 10))


@pytest.mark.parametrize("attack", [external_link, soft_link, external_data, virtual, huge])
def test_weights_that_are_not_in_the_file_are_refused(saved, tmp_path, attack):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.arange(4, dtype="uint8")
    with zipfile.ZipFile(saved) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        attack(file, secret)
    changed(saved, {"model.weights.h5": weights.getvalue()})
    expected = "must have at most .* bytes of weights" if attack is huge else "must hold all its weights"
    with pytest.raises(ValueError, match=expected):
        check_model_file(saved)
    with pytest.raises(ValueError, match=expected):
        ks.Verifier.load(saved)


def test_a_verifier_whose_config_names_code_is_not_loaded(saved, tmp_path):
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["siamese"] = named("function", "os", "getcwd")
    changed(saved, {"config.json": json.dumps(config)})
    with pytest.raises(ValueError, match="os.function in it is not registered"):
        ks.Verifier.load(saved)


def test_what_a_model_was_compiled_with_is_checked_only_if_it_is_read(saved):
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    config["compile_config"] = {"loss": named("function", "of.another", "loss")}
    changed(saved, {"config.json": json.dumps(config)})
    with pytest.raises(ValueError, match="it names of.another.function"):
        check_model_file(saved)
    check_model_file(saved, compile=False)


@pytest.mark.each_backend
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "RMSprop", "Nadam", "Adagrad", "Lion"])
def test_a_model_of_any_optimizer_is_read(optimizer, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="relu")])
    model.compile(getattr(keras.optimizers, optimizer)(0.1), loss="mse", metrics=["mae"])
    model.save(tmp_path / "model.keras")
    check_model_file(tmp_path / "model.keras")
