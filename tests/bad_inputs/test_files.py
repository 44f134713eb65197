"""Every function that reads a file, with files that it cannot read: an error that names the file."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import data, diagnosis, verification
from keras_siamese.cli import main

X, LABELS = np.eye(6, 4, dtype="float32"), np.arange(6) // 2
MODEL = ks.SiameseWrapper(keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization()]))


def table(path):
    pandas = pytest.importorskip("pandas")
    return data.from_dataframe(
        pandas.DataFrame({"path": [str(path)], "name": ["a"]}), "path", "name", image_size=(4, 4)
    )


def shards(path):
    """Embeddings in a `.npy` file."""
    if path.exists():
        path.rename(path.with_name("given.bin.npy"))
    return verification.Shards(path.with_name("given.bin.npy"))


READERS = {
    "Shards": shards,
    "Verifier.load": ks.Verifier.load,
    "read_scores": verification.read_scores,
    "ImageFolder": lambda path: data.ImageFolder(path, (4, 4)),
    "ImageFiles": lambda path: data.ImageFiles([path], (4, 4)),
    "from_dataframe": table,
    "read_lfw_pairs": lambda path: data.read_lfw_pairs(path, path.parent, (4, 4)),
    "Diagnosis": diagnosis.Diagnosis.from_json,
    "compare_runs": lambda path: diagnosis.compare_runs(path, path),
    "keras-siamese compare": lambda path: main(["compare", str(path), str(path)]),
    "diagnose": lambda path: ks.diagnose(MODEL, validation=(X, LABELS), history=path),
    "keras-siamese evaluate": lambda path: main(["evaluate", str(path)]),
    "keras-siamese diagnose": lambda path: main(["diagnose", str(path), "--data", str(path)]),
}
CONTENTS = {
    "empty": b"",
    "one line": b"\n",
    "text": b"this is no such file\nat all\n",
    "bytes": bytes(range(256)) * 8,
    "a cut archive": b"PK\x03\x04" + bytes(60),
    "JSON": b'{"a": [1, 2',
    "a list": b"[1, 2]",
    "a header": b"score,same\n",
    "nothing": b"score,same\nnan,1\n,\n",
}


def made(folder, kind):
    path = folder / "given.bin"
    if kind == "a folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(CONTENTS[kind])
    return path


@pytest.mark.parametrize("kind", [*CONTENTS, "missing", "a folder"])
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_cannot_be_read_is_named(name, kind, tmp_path, capsys):
    path = made(tmp_path, kind)
    if name == "ImageFolder" and kind == "a folder":
        (path / "ada").mkdir()
        (path / "ada" / "1.png").write_bytes(CONTENTS["bytes"])
    try:
        status, message = READERS[name](path), capsys.readouterr().err
    except (ValueError, TypeError, OSError) as error:
        status, message = 2, str(error)
    except SystemExit as end:
        status, message = end.code, capsys.readouterr().err
    assert status == 2, status
    assert "given.bin" in message, message
    assert "Traceback" not in message
