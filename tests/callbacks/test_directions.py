"""Callbacks without `mode` that read a monitor's keys look into the right direction."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese.callbacks import VerificationMonitor
from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss

BETTER = {"val_eer": 0, "val_auc": 1, "val_d_prime": 1, "val_verification_accuracy": 1, "val_tar@far=0.1": 1}


def fit(*callbacks):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 24, 3)).astype("float32")
    same = np.arange(24) % 2
    siamese = SiameseWrapper(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    siamese.compile("sgd", loss=ContrastiveLoss())
    monitor = VerificationMonitor((np.concatenate([left, right]), np.arange(48) // 4), far=0.1)
    siamese.fit((left, right), same.astype("float32"), verbose=0, callbacks=[monitor, *callbacks])


@pytest.mark.parametrize("key", BETTER)
def test_callbacks_without_mode_get_the_direction(key, tmp_path):
    readers = [
        keras.callbacks.EarlyStopping(key),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", key, save_best_only=True),
        keras.callbacks.ReduceLROnPlateau(key),
    ]
    fit(*readers)
    for reader in readers:
        assert bool(reader.monitor_op(2.0, 1.0)) == bool(BETTER[key]), type(reader)


def test_a_given_mode_is_kept():
    reader = keras.callbacks.EarlyStopping("val_eer", mode="max")
    fit(reader)
    assert reader.monitor_op(2.0, 1.0)


def test_a_key_without_a_direction_is_refused():
    with pytest.raises(ValueError, match="EarlyStopping monitors 'val_threshold', which has no"):
        fit(keras.callbacks.EarlyStopping("val_threshold"))
