"""The public list: each name exists, is documented, states shapes; serialisable classes survive their round trips."""

import copy
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import keras
import pytest

import keras_siamese
from keras_siamese._export import exported
from keras_siamese.distances import Distance
from tests.support import roundtrip

HERE = Path(__file__).resolve().parent
MODULES = [module.name for module in pkgutil.walk_packages(keras_siamese.__path__, "keras_siamese.")]
for module in MODULES:
    importlib.import_module(module)

ROOMS = {name: room for name in keras_siamese.__all__ if isinstance(room := getattr(keras_siamese, name), ModuleType)}
PUBLIC = {f"keras_siamese.{name}": getattr(keras_siamese, name, None) for name in keras_siamese.__all__}
PUBLIC.update({f"{name}.{item}": getattr(room, item, None) for name, room in ROOMS.items() for item in room.__all__})

# Parameters that hold arrays, and shapes as `(n,)`, `(batch, dim)`, `(n, …)`.
ARRAYS = {"a", "b", "x", "y", "y_true", "y_pred", "labels", "same", "scores", "left", "right", "embeddings", "inputs"}
SHAPE = re.compile(r"\((?:n|m|k|batch|rows|pairs|samples|identities|bins|thresholds|dim)\b[^()]*,[^()]*\)")
TENSOR_CLASSES = (keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric, keras.utils.PyDataset, Distance)


def parameters(function):
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


def takes_arrays(item):
    if inspect.isclass(item):
        return issubclass(item, TENSOR_CLASSES) or bool(parameters(item) & ARRAYS)
    return callable(item) and bool(parameters(item) & ARRAYS)


def documentation(item):
    """The docstring; of a class also those of its own package's public methods, its inherited ones included."""
    texts = [inspect.getdoc(item) or ""]
    if inspect.isclass(item):
        own = [cls for cls in item.__mro__ if cls.__module__.startswith("keras_siamese")]
        methods = {name: method for cls in reversed(own) for name, method in vars(cls).items() if name[0] != "_"}
        texts += [method.__doc__ or "" for method in methods.values() if callable(method)]
    return "\n".join(texts)


def test_the_public_list_names_rooms_and_things():
    assert len(set(keras_siamese.__all__)) == len(keras_siamese.__all__)
    assert {"distances", "layers", "losses", "data", "verification", "SiameseWrapper"} <= set(keras_siamese.__all__)
    for name, room in ROOMS.items():
        assert room.__all__, name
        assert len(set(room.__all__)) == len(room.__all__), name


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist_and_are_documented(name):
    item = PUBLIC[name]
    assert item is not None, f"{name} is listed and does not exist"
    if isinstance(item, (str, int, float, tuple, list, dict, frozenset)):
        return
    text = item.__doc__ or ""
    assert len(text.strip()) > 20, f"{name} has no docstring"
    assert not text.startswith(f"{item.__name__}("), f"{name} has only the docstring that dataclass makes"


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if takes_arrays(item)])
def test_what_takes_arrays_states_their_shapes(name):
    assert SHAPE.search(documentation(PUBLIC[name])), f"{name} takes arrays and states no shape, as `(n,)`"


def test_shapes_are_told_from_other_brackets():
    for text in ("scores `(n,)`", "embeddings (batch, dim)", "`(n, …)`", "the matrix (m, n)"):
        assert SHAPE.search(text), text
    for text in ("a tuple (left, right)", "f(x, y)", "the range (0, 1)", "(n)", "no shape (not one, at all)"):
        assert not SHAPE.search(text), text


# Round trips


def test_every_serialisable_class_has_an_example():
    missing = set(exported()) - set(roundtrip.EXAMPLES)
    assert not missing, f"no example of {sorted(missing)}: add one to EXAMPLES in tests/support/roundtrip.py"
    assert not set(roundtrip.EXAMPLES) - set(exported()), "an example of a class that is not exported"


@pytest.mark.each_backend
@pytest.mark.parametrize("name", roundtrip.EXAMPLES)
def test_round_trips(name):
    instance = roundtrip.EXAMPLES[name]()
    assert type(instance) is exported()[name]
    roundtrip.check_round_trips(instance)


def forgotten(instance):
    """Options of the constructor that the config does not hold; Keras's own losses do not keep their dtype either."""
    return roundtrip.options(instance) - set(instance.get_config()) - {"dtype"}


@pytest.mark.parametrize("name", roundtrip.EXAMPLES)
def test_options_are_all_in_the_config(name):
    assert forgotten(roundtrip.EXAMPLES[name]()) == set()


@pytest.fixture
def lossy():
    """A registered loss with one method replaced."""
    kept = dict(keras.saving.get_custom_objects())

    def make(method):
        name = getattr(method, "__func__", method).__name__
        loss = type("Lossy", (keras_siamese.losses.ContrastiveLoss,), {name: method})
        return keras.saving.register_keras_serializable("keras_siamese")(loss)(margin=3.0)

    yield make
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(kept)


def test_an_option_forgotten_in_the_config_is_noticed(lossy):
    def get_config(self):
        config = keras_siamese.losses.ContrastiveLoss.get_config(self)
        return {key: value for key, value in config.items() if key != "margin"}

    assert forgotten(lossy(get_config)) == {"margin"}


def test_an_option_changed_on_the_way_is_noticed(lossy):
    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "margin": 1.0})

    def get_config(self):
        return {**keras_siamese.losses.ContrastiveLoss.get_config(self), "margin": 1.0}

    for method in (from_config, get_config):
        with pytest.raises(AssertionError, match="from_config"):
            roundtrip.check_round_trips(lossy(method))


@pytest.mark.parametrize("name", ["SiameseWrapper", "MahalanobisDistance", "Verifier"])
def test_copies_of_built_models_give_the_same_outputs(name):
    model, inputs = roundtrip.carrier(roundtrip.EXAMPLES[name]())
    again = copy.deepcopy(model)
    for before, after in zip(roundtrip.outputs(model, inputs), roundtrip.outputs(again, inputs), strict=True):
        assert before == pytest.approx(after, abs=1e-6)
    assert again.compiled == model.compiled


@pytest.mark.deep
@pytest.mark.each_backend
def test_saved_models_load_in_a_fresh_process(tmp_path):
    expected = roundtrip.save_examples(tmp_path)
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.roundtrip", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    check_loaded(json.loads(run.stdout.splitlines()[-1]), expected)


def check_loaded(found, expected):
    assert set(found) == set(expected)
    for name, model in found.items():
        assert model.pop("apart") < 1e-6, name
        assert model == json.loads(json.dumps(expected[name])), name


@pytest.mark.each_backend
def test_saved_models_load(tmp_path):
    """One of each family; every class is loaded in a fresh process by the test above."""
    names = ["Verifier", "SiameseWrapper", "WeightedManhattanDistance", "DistanceLayer", "GeneralizedMeanPooling2D"]
    names += ["ProxyLogits", "BatchTripletLoss", "VerificationAccuracy"]
    expected = roundtrip.save_examples(tmp_path, names)
    check_loaded(roundtrip.load_examples(tmp_path), expected)


@pytest.mark.each_backend
def test_the_loss_of_a_saved_model_is_the_one_it_was_compiled_with(tmp_path):
    model, inputs = roundtrip.carrier(keras_siamese.losses.ContrastiveLoss(margin=0.375, similar_label=0))
    same = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.loss.margin == 0.375
    before, after = (keras.ops.convert_to_numpy(one.loss(same, one(inputs))) for one in (model, again))
    assert before == pytest.approx(after, rel=1e-5)
