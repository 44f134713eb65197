"""Embeddings of a frozen encoder: kept once, and never those of other weights, other code or other samples."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

import keras_siamese as ks
from keras_siamese import frozen


def backbone(units=3, activation=None, seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(21, 4)).astype("float32")


@pytest.fixture
def embedded(monkeypatch):
    """The number of samples that were embedded, call by call."""
    counts, embed = [], frozen.embed

    def counted(encoder, x, *options):
        counts.append(frozen.count_samples(x))
        return embed(encoder, x, *options)

    monkeypatch.setattr(frozen, "embed", counted)
    return counts


@pytest.mark.each_backend
def test_the_file_holds_what_predict_gives_and_is_used_again(x, tmp_path, embedded):
    z = ks.frozen_embeddings(backbone(), x, tmp_path / "new", batch_size=8, verbose=0)
    np.testing.assert_allclose(z, backbone().predict(x, verbose=0), rtol=1e-5)
    assert isinstance(z, np.memmap) and not z.flags.writeable and embedded == [8, 8, 5]
    again = backbone()  # Keras gives its layers other names
    again.compile("adam", loss="mse")
    assert again.name != backbone().name
    np.testing.assert_array_equal(ks.frozen_embeddings(again, x.copy(), tmp_path / "new", verbose=0), z)
    assert embedded[3:] == [8] and len(list((tmp_path / "new").iterdir())) == 1


def test_other_weights_code_or_samples_have_a_file_of_their_own(x, tmp_path):
    """One weight, one activation, one number, the order of the rows, or the type of the numbers."""

    class Doubled(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    one = backbone()
    one.layers[0].kernel.assign(one.layers[0].kernel + np.eye(4, 3) * [[1e-6]])
    changed = x.copy()
    changed[20, 3] = np.nextafter(changed[20, 3], np.float32(9))
    cases = [
        (backbone(), x),
        (one, x),
        (backbone(activation="tanh"), x),
        (keras.Sequential([backbone(), keras.layers.Activation("tanh", name="tanh")]), x),
        (keras.Sequential([backbone(), keras.layers.Activation("relu", name="relu")]), x),
        (keras.Sequential([backbone(), Doubled()]), x),
        (backbone(), changed),
        (backbone(), x[::-1]),
        (backbone(), x.astype("float64")),
        (backbone(), x[:20]),
    ]
    for count, (encoder, samples) in enumerate(cases, start=1):
        z = ks.frozen_embeddings(encoder, samples, tmp_path, verbose=0)
        np.testing.assert_allclose(z, encoder.predict(samples, verbose=0), rtol=1e-5)
        assert len(list(tmp_path.iterdir())) == count


def test_a_file_with_other_embeddings_is_written_anew(x, tmp_path, caplog):
    """As if the code behind a layer had changed, or the file had been exchanged."""
    right = np.array(ks.frozen_embeddings(backbone(), x, tmp_path, verbose=0))
    (file,) = tmp_path.iterdir()
    for wrong in (right + 0.1, right[:, :2], right[:5]):
        np.save(file, wrong)
        found = ks.frozen_embeddings(backbone(), x, tmp_path, verbose=0)
        np.testing.assert_array_equal(found, right)
    assert caplog.text.count("does not hold what the encoder gives now") == 3


def test_embeddings_that_are_not_finite_are_used_again(x, tmp_path, caplog):
    encoder = backbone()
    weights = encoder.get_weights()
    weights[-1][0], weights[-1][1] = np.nan, np.inf
    encoder.set_weights(weights)
    for _ in range(2):
        assert np.isnan(ks.frozen_embeddings(encoder, x, tmp_path, verbose=0)[:, 0]).all()
    assert not caplog.records


def test_image_files_are_told_apart_by_their_content(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("L", (8, 8), 40 * number).save(path)
    encoder = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])

    def embeddings(size=(4, 4)):
        files = ks.data.ImageFiles(paths, size, "grayscale")
        return ks.frozen_embeddings(encoder, files, tmp_path / "cache", verbose=0), files

    z, files = embeddings()
    np.testing.assert_allclose(z, encoder.predict(files[:], verbose=0), rtol=1e-4)
    embeddings()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    Image.new("L", (8, 8), 200).save(paths[1])
    z, files = embeddings()
    np.testing.assert_allclose(z, encoder.predict(files[:], verbose=0), rtol=1e-4)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_head_is_trained_on_the_embeddings(x, tmp_path):
    labels = np.repeat(np.arange(7), 3)
    z = ks.frozen_embeddings(backbone(), {"a": x}["a"], tmp_path, verbose=0)
    siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    siamese.compile("sgd", loss=ks.losses.ContrastiveLoss(), run_eagerly=keras.backend.backend() == "tensorflow")
    siamese.fit(ks.data.PairSequence(z, labels, batch_size=10), verbose=0)


def test_progress_is_shown_and_mistakes_are_named(x, tmp_path, capsys):
    ks.frozen_embeddings(backbone(), x, tmp_path, batch_size=4)
    assert re.search(r"21/21.*\n$", capsys.readouterr().out.replace("\r", ""))
    with pytest.raises(TypeError, match="`encoder` must be a Keras model or layer"):
        ks.frozen_embeddings("model", x, tmp_path)
    maps = keras.Sequential([keras.Input((4,)), keras.layers.Reshape((2, 2))])
    with pytest.raises(ValueError, match=r"`encoder` must return embeddings \(batch, dim\); got \(21, 2, 2\)"):
        ks.frozen_embeddings(maps, x, tmp_path / "maps", verbose=0)
    assert not list((tmp_path / "maps").iterdir())
