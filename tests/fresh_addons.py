"""Which tests of `addons` can run here, and a fresh Python for what an import changes.

@once
@with_tfa
def test_(): assert fresh("print(1)") == 1
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).resolve().parent
BACKEND = keras.backend.backend()
INSTALLED = sys.version_info < (3, 12) and all(
    importlib.util.find_spec(module) for module in ("tensorflow", "tf_keras", "tensorflow_addons")
)
with_tfa = pytest.mark.skipif(not INSTALLED, reason="needs the extra `addons`, on Python < 3.12")
# Its gradients do not pass through TensorFlow on the others; that they say so is tested there.
with_training = pytest.mark.skipif(BACKEND != "tensorflow", reason=f"TFA's losses do not compute on {BACKEND}")
once = pytest.mark.skipif(BACKEND != "tensorflow", reason="runs in processes of its own, with the TensorFlow suite")


def fresh(code, *arguments, **environment):
    """What a fresh Python prints last, read as JSON; warnings are errors in it."""
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
