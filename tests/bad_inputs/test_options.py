"""Options of the public functions and classes with values that must be refused: things, NaN, texts and numbers."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import callbacks, data, diagnosis, distances, layers, losses, metrics, tuning, verification
from tests.support import roundtrip
from tests.support.diagnoses import made
from tests.support.unusual import arguments, option_cases, wrong_options

N = 24
LABELS = np.arange(N) // 4
X = np.random.default_rng(0).normal(size=(N, 4)).astype("float32") + 4 * np.eye(6, dtype="float32")[LABELS, :4]
ENCODER = keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization()])
SIAMESE = ks.SiameseWrapper(ENCODER)
SEQUENCE = data.PairSequence(X, LABELS)
CURVE = [0.5] * 9
GIVEN = {
    **dict.fromkeys(("x", "embeddings"), X),
    "labels": LABELS,
    **dict.fromkeys(("train", "valid", "validation"), (X, LABELS)),
    "left": np.arange(N),
    "right": (np.arange(N) + 1) % N,
    "same": np.arange(N) % 2,
    "sequence": SEQUENCE,
    "encoder": ENCODER,
    **dict.fromkeys(("model", "siamese"), SIAMESE),
    **dict.fromkeys(("loss", "auc", "eer"), np.array(CURVE)),
    "scores": X[:, 0],
    **dict.fromkeys(("low", "far", "margin", "threshold", "negative_temperature"), 0.2),
    "high": 0.5,
    **dict.fromkeys(("n", "genuines", "impostors", "pairs_of_each", "trials"), 100),
    "epochs": 2,
    "num_classes": 5,
    "pairs": 500,
    "objective": "val_eer",
    "function": lambda a, b: a,
    "build_fn": roundtrip.encoder,
    "param_grid": {},
    "identifier": "euclidean",
}


def calibrate(x, labels, *, far=None, criterion=None, costs=None, encoder=None, seed=0):
    options = {"far": far, "criterion": criterion, "costs": costs, "encoder": encoder, "seed": seed}
    return ks.Verifier.calibrate(SIAMESE, x, labels, **options)


def balanced(x, labels, *, classes_per_batch=3, samples_per_class=4, weighting="balanced", short="repeat", seed=0):
    return data.BalancedBatchSequence(
        x,
        labels,
        classes_per_batch=classes_per_batch,
        samples_per_class=samples_per_class,
        weighting=weighting,
        short=short,
        seed=seed,
    )


def hyper_model(build_fn, space=None, *, augment=None, seed=0):
    return tuning.SiameseHyperModel(build_fn, space, augment=augment, seed=seed)


def compare_runs(*, names=None):
    run = made(kind="numbers")
    return diagnosis.compare_runs(run, run, names=names)


ROOMS = {room.__name__.rpartition(".")[2]: room for room in (data, losses, metrics, distances, layers, callbacks)}
ROOMS |= {"diagnosis": diagnosis, "tuning": tuning, "verification": verification}


def functions():
    """Every public function and class whose arguments without default are known here, by room and name."""
    found = {"Verifier": ks.Verifier, "Verifier.calibrate": calibrate, "data.BalancedBatchSequence": balanced}
    found |= {"tuning.SiameseHyperModel": hyper_model, "diagnosis.compare_runs": compare_runs}
    for room, module in ROOMS.items():
        for name in module.__all__:
            item = getattr(module, name)
            if f"{room}.{name}" not in found and callable(item) and knows(item):
                found[f"{room}.{name}"] = item
    return {name: item for name, item in found.items() if any(True for _ in option_cases(item, GIVEN))}


def knows(item):
    try:
        wanted = arguments(item)
    except ValueError:  # a class of Python's own has no signature
        return False
    return set(wanted) <= set(GIVEN)


FUNCTIONS = functions()
ALSO = {"TripletHardLoss": ("distance",), "TripletSemiHardLoss": ("distance",), "get": ("distance",)}
ALSO["SiameseHyperModel"] = ("encoder",)
FREE = {
    "DiagnosisOracle": ("objective",),  # KerasTuner checks it
    "SiameseGridSearch": ("project_name",),  # any text
    "SearchSpace": ("head", "loss"),
    "ScoreTable": ("left", "right", "groups"),  # what was read and checked
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_options_are_refused_by_name(name):
    short = name.rpartition(".")[2]
    if name.startswith("tuning"):
        pytest.importorskip("keras_tuner")
    assert wrong_options(FUNCTIONS[name], GIVEN, ALSO.get(short, ()), FREE.get(short, ())) == {}


def test_there_are_many_cases():
    assert sum(len(list(option_cases(function, GIVEN))) for function in FUNCTIONS.values()) >= 300


@pytest.mark.parametrize("encoder", ["encoder", None, np.ones(3), keras.Sequential])
def test_an_encoder_is_a_model(encoder):
    with pytest.raises(TypeError, match="`encoder` must be a Keras model or layer; got"):
        ks.SiameseWrapper(encoder)
    with pytest.raises(TypeError, match="`model` must be a Keras model or layer; got"):
        ks.diagnose(encoder, validation=(X, LABELS))


def test_steps_and_searches_are_checked():
    with pytest.raises(
        ValueError, match="`step` must be at most the difference of `high` and `low`; got 3 with 1 and 2"
    ):
        tuning.Range(1, 2, step=3)
    for wrong in (None, 3, "val_nothing"):
        with pytest.raises((TypeError, ValueError), match="`objective` must be"):
            tuning.objective(wrong)
    for wrong in (None, "tuner", tuning.SearchSpace()):
        with pytest.raises(TypeError, match="`tuner` must be a KerasTuner tuner; got"):
            tuning.SearchResults.of(wrong)
