"""`@with_tfa` skips a test where TensorFlow Addons is not installed. TFA's losses compute on TensorFlow only, so a test
that calls one is marked `tensorflow` as well.
"""

import importlib.util
import sys

import pytest

INSTALLED = sys.version_info < (3, 12) and all(
    importlib.util.find_spec(module) for module in ("tensorflow", "tf_keras", "tensorflow_addons")
)
with_tfa = pytest.mark.skipif(not INSTALLED, reason="needs the extra `addons`, on Python < 3.12")
