"""A fit that ends anywhere while a backup is written continues from a whole backup."""

import os
import shutil

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.callbacks import AtomicBackup
from keras_siamese.callbacks import backup as module

EPOCHS = 3


class Killed(BaseException):
    """Ends the program where a process would be killed."""


def fitted(folder):
    """The weights after a fit, or after one that is resumed from `folder`; and the epoch at which it began."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    begun = []
    first = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    model.fit(x, x[:, :2], epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[first, AtomicBackup(folder)])
    return np.concatenate([one.ravel() for one in model.get_weights()]), min(begun, default=EPOCHS)


@pytest.fixture
def dies(monkeypatch):
    """`dies(number)`: the call with this number to one of the functions that change files ends the program."""

    def after(number):
        left = [number]

        def dying(function, half=None):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    if half is not None:
                        half(*args, **kwargs)
                    raise Killed
                return function(*args, **kwargs)

            return call

        def torn(model, filepath, **kwargs):
            with open(filepath, "wb") as file:
                file.write(b"half of a file")

        def some(folder):
            os.remove(os.path.join(folder, "latest.weights.h5"))

        monkeypatch.setattr(module.os, "rename", dying(os.rename))
        monkeypatch.setattr(module.shutil, "rmtree", dying(shutil.rmtree, half=some))
        monkeypatch.setattr(keras.Model, "save_weights", dying(keras.Model.save_weights, half=torn))

    return after


@pytest.mark.parametrize("number", range(1, 13))
def test_wherever_it_ends_it_continues_from_a_whole_backup(number, tmp_path, dies, monkeypatch):
    expected, _ = fitted(tmp_path / "other")
    dies(number)
    try:
        fitted(tmp_path / "backup")
    except Killed:
        pass
    else:
        pytest.fail(f"a fit makes fewer than {number} changes to files")
    monkeypatch.undo()
    weights, first = fitted(tmp_path / "backup")
    assert np.array_equal(weights, expected) and (first == 0) == (number < 3 or number == 12), first
    assert not any(tmp_path.glob("backup*"))


def test_a_folder_with_a_slash_and_a_backup_that_is_kept(tmp_path):
    backup = AtomicBackup(f"{tmp_path}/backup/", delete_checkpoint=False)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", loss="mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), epochs=2, verbose=0, callbacks=[backup])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["backup"]
    assert {"latest.weights.h5", "training_metadata.json"} <= set(os.listdir(tmp_path / "backup"))


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("form", "kind"), [("sequence", keras.callbacks.BackupAndRestore), ("callback list", AtomicBackup)]
)
def test_a_siamese_network_that_is_not_built_resumes(form, kind, rng, tmp_path):
    """Keras builds it before the callbacks begin, but not on TensorFlow."""
    x, same = rng.normal(size=(2, 24, 4)).astype("float32"), np.arange(24) % 2
    pairs = ks.data.PairSequence(x[0], np.arange(24) // 2, batch_size=12, seed=0)
    data = (pairs,) if form == "sequence" else ((x[0], x[1]), same)

    def fitted(*more, seed=0):
        keras.utils.set_random_seed(seed)
        model = ks.SiameseWrapper(keras.Sequential([keras.layers.Dense(3), keras.layers.UnitNormalization()]))
        model.compile(keras.optimizers.Adam(0.1), loss=ks.losses.ContrastiveLoss(margin=1.0), run_eagerly=True)
        given = (
            keras.callbacks.CallbackList(list(more), add_history=True, model=model)
            if form == "callback list"
            else list(more)
        )
        model.fit(*data, epochs=2, shuffle=False, verbose=0, callbacks=given)
        return model.get_weights(), given

    expected, _ = fitted()
    with pytest.raises(KeyboardInterrupt):
        fitted(kind(str(tmp_path / "backup")), Stop())
    backup = kind(str(tmp_path / "backup"))
    weights, given = fitted(backup, seed=9)
    for found, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    if form == "callback list":
        assert [type(one) for one in given.callbacks] == [AtomicBackup, keras.callbacks.History]


@pytest.mark.tensorflow
def test_shapes_that_are_known_only_when_data_are_read_are_asked_for(rng, tmp_path):
    import tensorflow as tf

    x, same = rng.normal(size=(24, 4)).astype("float32"), np.arange(24) % 2
    known = tf.data.Dataset.from_tensor_slices(((x, x), same)).batch(12)
    unknown = tf.data.Dataset.from_generator(lambda: iter(known), ((tf.float32, tf.float32), tf.int64))
    for data, error in ((known, None), (unknown, ValueError), ((batch for batch in known), ValueError)):
        model = ks.SiameseWrapper(keras.Sequential([keras.layers.Dense(3)]))
        model.compile("sgd", loss=ks.losses.ContrastiveLoss(margin=1.0), run_eagerly=True)
        given = {"verbose": 0, "shuffle": False, "callbacks": [AtomicBackup(tmp_path / "backup")]}
        if error is None:
            model.fit(data, **given)
            assert model.built
        else:
            with pytest.raises(error, match="must be built before you call `fit"):
                model.fit(data, **given)
