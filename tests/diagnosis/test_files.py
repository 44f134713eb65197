"""Models and samples from files: what is read, and errors that name the file."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.files import first_line, read_model, read_samples


def siamese():
    return ks.SiameseWrapper(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))


def test_a_model_and_a_verifier_are_read(tmp_path):
    model, x = siamese(), np.eye(3, dtype="float32")
    model([x, x])
    model.save(tmp_path / "model.keras")
    verifier = ks.Verifier(model, threshold=-0.25)
    verifier([x, x])
    verifier.save(tmp_path / "verifier.keras")
    for name, threshold in (("model", None), ("verifier", -0.25)):
        saved = read_model(tmp_path / f"{name}.keras")
        assert saved.threshold == threshold
        np.testing.assert_allclose(saved.model.predict([x, x], verbose=0), model.predict([x, x], verbose=0), atol=1e-6)


def test_files_that_hold_no_model_are_refused(tmp_path):
    (tmp_path / "text.keras").write_text("hello")
    np.savez(tmp_path / "arrays.npz", x=np.eye(2))
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.keras")
    with pytest.raises(ValueError, match="there is no file '.*none.keras'"):
        read_model(tmp_path / "none.keras")
    with pytest.raises(ValueError, match="must be a .keras file, as model.save writes it"):
        read_model(tmp_path / "text.keras")
    with pytest.raises(ValueError, match="reads in safe mode.*'.*arrays.keras' cannot be read"):
        read_model(tmp_path / "arrays.keras")


def test_samples_are_read_by_the_names_of_their_arrays(tmp_path):
    path, x = tmp_path / "samples.npz", np.eye(3)
    np.savez(path, x=x, labels=np.array(["a", "b", "a"]))
    found = read_samples(path)
    np.testing.assert_array_equal(found[0], x)
    assert found[1].tolist() == ["a", "b", "a"]
    np.savez(path, left=x, right=x[::-1], same=np.array([0, 1, 0]))
    left, right, same = read_samples(path)
    np.testing.assert_array_equal(right, left[::-1])
    assert same.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="holds the arrays 'x', 'labels'; it holds 'left', 'right', 'same'"):
        read_samples(path, pairs=False)
    np.savez(path, x=x, labels=np.array(["a", "b", None], object))
    with pytest.raises(ValueError, match="'labels' cannot be read"):
        read_samples(path)
    with pytest.raises(ValueError, match="there is no such file"):
        read_samples(tmp_path / "none.npz")


def test_errors_are_cut_to_one_line():
    assert first_line(ValueError("  first\nsecond")) == "first"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("x" * 400)) == "x" * 300
