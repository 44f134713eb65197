"""Which tests of `addons` can run here: `@with_tfa` with it installed, `@with_training` where its losses compute."""

import importlib.util
import sys

import keras
import pytest

BACKEND = keras.backend.backend()
INSTALLED = sys.version_info < (3, 12) and all(
    importlib.util.find_spec(module) for module in ("tensorflow", "tf_keras", "tensorflow_addons")
)
with_tfa = pytest.mark.skipif(not INSTALLED, reason="needs the extra `addons`, on Python < 3.12")
# Its gradients do not pass through TensorFlow on the others; that they say so is tested there.
with_training = pytest.mark.skipif(BACKEND != "tensorflow", reason=f"TFA's losses do not compute on {BACKEND}")
