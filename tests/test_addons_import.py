"""The import of TensorFlow Addons: what is missing is named, and nothing of TensorFlow or Keras is changed by it."""

import importlib.metadata
import sys

import keras
import pytest

from keras_siamese import addons
from tests.support.addons_here import with_tfa
from tests.support.fresh_python import fresh


@pytest.fixture
def unloaded(monkeypatch):
    """As if TensorFlow Addons had not been imported yet."""
    monkeypatch.delitem(sys.modules, "tensorflow_addons", raising=False)
    return monkeypatch


def test_a_python_without_a_wheel_is_named(unloaded):
    unloaded.setattr(sys, "version_info", (3, 13, 1))
    with pytest.raises(
        ImportError, match=r"no wheel for Python 3\.12 or newer, and this is Python 3\.13.*migration\.md"
    ):
        addons.load()


@pytest.mark.parametrize(
    ("module", "extra"), [("tensorflow", "tensorflow"), ("tf_keras", "addons"), ("tensorflow_addons", "addons")]
)
def test_a_missing_module_names_the_extra(unloaded, module, extra):
    if module != "tensorflow":
        pytest.importorskip("tensorflow")
    if module == "tensorflow_addons":
        pytest.importorskip("tf_keras")
    unloaded.setattr(sys, "version_info", (3, 11, 0))
    unloaded.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module} is needed here .*pip install "keras-siamese\[{extra}\]"'):
        addons.load()


def test_a_tf_keras_of_another_version_is_named(unloaded):
    tensorflow = pytest.importorskip("tensorflow")
    unloaded.setattr(sys, "version_info", (3, 11, 0))
    unloaded.setattr(importlib.metadata, "version", lambda name: {"tf-keras": "2.3.1"}[name])
    wanted = ".".join(tensorflow.__version__.split(".")[:2])
    with pytest.raises(
        ImportError, match=rf'needs tf-keras {wanted}, and 2\.3\.1 .*pip install "tf-keras~={wanted}\.0"'
    ):
        addons.load()


def test_what_the_user_has_imported_is_taken(monkeypatch):
    own = type(sys)("tensorflow_addons")
    monkeypatch.setitem(sys.modules, "tensorflow_addons", own)
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert addons.load() is own


def test_the_modules_below_a_name():
    found = addons.modules_below("keras_siamese.losses")
    assert found["keras_siamese.losses"] is sys.modules["keras_siamese.losses"]
    assert "keras_siamese.losses.base" in found
    assert not {"keras_siamese", "keras_siamese.layers"} & set(found)
    assert addons.modules_below("keras_siam", "siamese") == {}


@with_tfa
def test_tf_keras_takes_the_place_of_keras_only_inside():
    """The import itself is tested in processes of its own, below."""
    import tensorflow
    import tf_keras

    before, modules = vars(tensorflow)["keras"], dict(sys.modules)
    with pytest.raises(ZeroDivisionError), addons.legacy_keras(tensorflow, tf_keras):
        assert tensorflow.keras is sys.modules["tensorflow.keras"] is tf_keras
        assert sys.modules["tensorflow.keras.layers"] is sys.modules["tf_keras.layers"]
        assert sys.modules["keras.src.engine.keras_tensor"].KerasTensor is not keras.KerasTensor
        raise ZeroDivisionError
    assert vars(tensorflow)["keras"] is before
    aliased = addons.modules_below("tensorflow.keras", "keras.src.engine")
    assert aliased == {name: modules[name] for name in aliased}
    assert not any(name.startswith("keras.src.engine") for name in aliased)


@with_tfa
def test_loading_leaves_keras_as_it_was():
    import tensorflow

    tfa = addons.load()
    assert addons.load() is tfa is sys.modules["tensorflow_addons"]
    assert tensorflow.keras.Model is keras.Model
    assert float(tfa.losses.contrastive_loss([1, 0], [0.5, 0.5])[0]) == 0.25


STATE = """
import json, sys, threading, warnings
warnings.simplefilter("error")
import keras, numpy as np
import keras_siamese as ks
import tensorflow as tf
import tf_keras

def state():
    ours = ("tensorflow_addons", "typeguard")
    kept = {name: module for name, module in sys.modules.items() if not name.startswith(ours)}
    return kept, vars(tf)["keras"], dict(vars(tf_keras)), dict(vars(sys.modules["keras.src"])), list(warnings.filters)

def changed(before, after):
    names = ["modules", "tf.keras", "tf_keras", "keras.src", "filters"]
    found = []
    for name, old, new in zip(names, before, after):
        if isinstance(old, dict):
            found += [f"{name}: {key}" for key in set(old) | set(new) if old.get(key) is not new.get(key)]
        elif old is not new and old != new:
            found.append(name)
    return found
"""

TWICE = (
    STATE
    + """
lazy = str(type(vars(tf)["keras"]).__name__)
if sys.argv[1] == "touched":
    import tensorflow.keras.layers
before = state()
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons
    plain = "imported"
except ImportError as error:
    plain = type(error).__name__
left = [name for name in sys.modules if name.startswith("tensorflow_addons")]
loaded = []
threads = [threading.Thread(target=lambda: loaded.append(ks.addons.load())) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import tensorflow_addons as tfa
after = state()
print(json.dumps({
    "lazy": lazy, "plain": plain, "left": len(left), "changed": changed(before, after),
    "same": [module is tfa for module in [*loaded, ks.addons.load()]],
    "model": tf.keras.Model is keras.Model, "layer": tf.keras.layers.Layer is keras.layers.Layer,
    "bases": issubclass(tfa.losses.ContrastiveLoss, tf_keras.losses.Loss),
    "value": float(np.mean(tfa.losses.contrastive_loss([1, 0], [0.5, 0.5]))),
}))
"""
)


@pytest.mark.deep
@with_tfa
@pytest.mark.parametrize(
    ("touched", "environment"),
    [
        ("touched", {"KERAS_BACKEND": "tensorflow"}),
        ("lazy", {"KERAS_BACKEND": "jax"}),
        ("lazy", {"KERAS_BACKEND": "torch"}),
        ("touched", {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "1"}),
    ],
)
def test_the_import_changes_nothing_else(touched, environment):
    """After a plain import that failed, from three threads, warnings as errors; `tf.keras` loaded before, or lazy."""
    pytest.importorskip(environment["KERAS_BACKEND"])
    found = fresh(TWICE, touched, **environment)
    legacy = "TF_USE_LEGACY_KERAS" in environment
    assert found["lazy"] == "KerasLazyLoader"
    assert (found["plain"], found["left"] > 0) == ("ModuleNotFoundError", True)
    assert found["changed"] == []
    assert found["same"] == [True] * 4
    assert (found["model"], found["layer"]) == (not legacy, not legacy)
    assert found["bases"]
    assert found["value"] == 0.25


HALFWAY = (
    STATE
    + """
class Breaks:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow_addons.seq2seq":
            seen.append((tf.keras is tf_keras, "tensorflow.keras" in sys.modules, "keras.src.engine" in sys.modules))
            raise RuntimeError("broken on purpose")

seen = []
before = state()
sys.meta_path.insert(0, Breaks())
try:
    ks.addons.load()
    error = None
except ImportError as raised:
    error = str(raised)
broken = changed(before, state())
half = sorted(name for name in sys.modules if name.startswith("tensorflow_addons"))
del sys.meta_path[0]
tfa = ks.addons.load()
print(json.dumps({
    "error": error, "seen": seen, "broken": broken, "half": half, "changed": changed(before, state()),
    "seq2seq": hasattr(tfa, "seq2seq"), "value": float(np.mean(tfa.losses.contrastive_loss([1, 0], [0.5, 0.5]))),
}))
"""
)


@pytest.mark.deep
@with_tfa
def test_an_import_that_fails_half_way_is_undone_and_can_be_repeated():
    found = fresh(HALFWAY, KERAS_BACKEND="tensorflow")
    assert "cannot be imported with TensorFlow" in found["error"]
    assert "RuntimeError: broken on purpose" in found["error"]
    assert found["seen"] == [[True, True, True]]  # the aliases were there when it broke
    assert found["broken"] == []
    # Past the modules that register gradients, which TensorFlow does not take twice.
    assert "tensorflow_addons" not in found["half"]
    assert "tensorflow_addons.image.resampler_ops" in found["half"]
    assert found["changed"] == []
    assert found["seq2seq"]
    assert found["value"] == 0.25


@pytest.mark.deep
@with_tfa
def test_warnings_other_than_its_own_are_not_hidden():
    code = """
import json, sys, warnings
import keras_siamese as ks
class Warns:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow_addons.seq2seq":
            warnings.warn("someone else's")
sys.meta_path.insert(0, Warns())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ks.addons.load()
print(json.dumps([str(warning.message) for warning in caught if warning.category is UserWarning]))
"""
    assert fresh(code, KERAS_BACKEND="tensorflow") == ["someone else's"]
