"""An example of every serialisable class, and the ways there and back that each must survive.

A new class needs a line in `EXAMPLES`; `test_public` fails until it has one. Run as a script on a folder of saved
models, this loads each of them as a stranger would, in safe mode and without `custom_objects`, and prints what came of
it.

    check_round_trips(EXAMPLES["ContrastiveLoss"]())
    save_examples(folder)                               # then, in a fresh process: python roundtrip.py FOLDER
"""

import copy
import inspect
import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import keras_siamese as ks
from keras_siamese import distances, losses
from keras_siamese.layers import DistanceLayer, LogisticHead, SiameseWrapper


@keras.saving.register_keras_serializable("roundtrip")
def city_block(a, b):
    return ops.sum(ops.abs(a - b), axis=-1)


def encoder():
    layers = [keras.Input((4,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3)]
    return keras.Sequential([*layers, keras.layers.UnitNormalization()], name="encoder")


# Each with options unlike its defaults, so that a forgotten one shows.
EXAMPLES = {
    "EuclideanDistance": distances.EuclideanDistance,
    "SquaredEuclideanDistance": distances.SquaredEuclideanDistance,
    "ManhattanDistance": distances.ManhattanDistance,
    "ChebyshevDistance": distances.ChebyshevDistance,
    "MinkowskiDistance": lambda: distances.MinkowskiDistance(p=3),
    "CosineDistance": distances.CosineDistance,
    "AngularDistance": distances.AngularDistance,
    "InnerProductDistance": distances.InnerProductDistance,
    "SNRDistance": distances.SNRDistance,
    "MahalanobisDistance": lambda: distances.MahalanobisDistance(rank=2, name="metric"),
    "WeightedManhattanDistance": lambda: distances.WeightedManhattanDistance(name="metric"),
    "FunctionDistance": lambda: distances.FunctionDistance(city_block),
    "DistanceLayer": lambda: DistanceLayer("snr", name="apart"),
    "LogisticHead": lambda: LogisticHead(low=-float("inf"), high=3.0, name="same"),
    "SiameseWrapper": lambda: SiameseWrapper(encoder(), "angular", head="logistic", joint=False, name="siamese"),
    "ContrastiveLoss": lambda: losses.ContrastiveLoss(
        0.75, 0.125, False, positive_weight=2, negative_weight=0.5, similar_label=0, reduction="sum", name="pairs"
    ),
    "WeightedBinaryCrossentropy": lambda: losses.WeightedBinaryCrossentropy({0: 0.25, 1: 2.0}, positive_weight=3.0),
    "TripletLoss": lambda: losses.TripletLoss(0.25, soft=True, name="triplets"),
    "Verifier": lambda: ks.Verifier(SiameseWrapper(encoder()), -0.5, slope=2.0, offset=0.5, evidence={"eer": 0.1}),
}


def plain(instance):
    """The instance as it is written into a file: the JSON of its class and options."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(instance), allow_nan=False))


def check_round_trips(instance):
    """Asserts that config, serialisation, copy and lookup by name give an equal instance."""
    cls, written = type(instance), plain(instance)
    assert written["registered_name"] == f"keras_siamese>{cls.__name__}"
    assert keras.saving.get_registered_object(written["registered_name"]) is cls
    ways = {
        "from_config(get_config())": cls.from_config(instance.get_config()),
        "from_config of JSON": cls.from_config(json.loads(json.dumps(instance.get_config()))),
        "deserialize_keras_object": keras.saving.deserialize_keras_object(written, safe_mode=True),
        "copy.deepcopy": copy.deepcopy(instance),
    }
    for way, again in ways.items():
        assert type(again) is cls, way
        assert again is not instance, way
        assert without_build(plain(again)) == without_build(written), way
        assert attributes(again) == attributes(instance), way


def options(instance):
    """Names of the constructor's options, those of the package's bases included."""
    classes = [
        cls for cls in type(instance).__mro__ if "__init__" in vars(cls) and cls.__module__.split(".")[0] != "keras"
    ]
    named = [option for cls in classes for option in inspect.signature(cls.__init__).parameters.values()]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {option.name for option in named if option.kind not in variable} - {"self"}


def attributes(instance):
    """The options that the instance holds under their own names, as it works with them: a config may say otherwise."""
    held = {name: getattr(instance, name) for name in options(instance) if hasattr(instance, name)}
    return {name: value for name, value in held.items() if isinstance(value, (bool, int, float, str, dict, type(None)))}


def without_build(written):
    """The serialised form less what says which input it was built for: a config does not carry it."""
    if isinstance(written, dict):
        return {key: without_build(value) for key, value in written.items() if key != "build_config"}
    return [without_build(value) for value in written] if isinstance(written, list) else written


def carrier(instance):
    """A compiled model that has the instance in it, built, and inputs for it."""
    rng = np.random.default_rng(3)
    towers = 3 if isinstance(instance, losses.TripletLoss) else 2
    inputs = tuple(rng.normal(size=(6, 4)).astype("float32") for _ in range(towers))
    loss = losses.ContrastiveLoss(margin=0.625, similar_label=0, name="carried")
    if isinstance(instance, keras.Model):
        model = instance
        loss = losses.WeightedBinaryCrossentropy("balanced") if isinstance(instance, SiameseWrapper) else None
    elif isinstance(instance, distances.Distance):
        model = SiameseWrapper(encoder(), instance)
    elif isinstance(instance, DistanceLayer):
        symbols = [keras.Input((4,)), keras.Input((4,))]
        shared = encoder()
        model = keras.Model(symbols, instance([shared(symbol) for symbol in symbols]))
        inputs = list(inputs)
    elif isinstance(instance, LogisticHead):
        model, loss = SiameseWrapper(encoder(), head=instance), losses.WeightedBinaryCrossentropy("balanced")
    elif isinstance(instance, losses.SiameseLoss):
        head = "logistic" if instance.expects == "score" else None
        model, loss = SiameseWrapper(encoder(), head=head), instance
    else:
        raise TypeError(f"say here how a model carries a {type(instance).__name__}")
    model(inputs)
    shift_weights(model)
    if loss is not None:
        model.compile(keras.optimizers.SGD(0.01), loss=loss)
        model.optimizer.build(model.trainable_variables)
    return model, inputs


def shift_weights(model):
    """No weight at its initial value, so that one that is not saved shows."""
    model.set_weights([0.9 * weight + 0.03 * (i + 1) for i, weight in enumerate(model.get_weights())])


def outputs(model, inputs):
    return [ops.convert_to_numpy(output).astype("float64") for output in keras.tree.flatten(model(inputs))]


def save_examples(folder):
    """Saves every example's carrier with inputs and outputs; returns what a loaded one must show, by name."""
    expected = {}
    for name, make in EXAMPLES.items():
        model, inputs = carrier(make())
        model.save(folder / f"{name}.keras")
        arrays = {f"in{i}": array for i, array in enumerate(inputs)}
        np.savez(folder / f"{name}.npz", **arrays, **{f"out{i}": out for i, out in enumerate(outputs(model, inputs))})
        expected[name] = shown(model)
    return expected


def shown(model):
    """What saving must preserve, outputs aside."""
    compiled = plain(model.loss) if model.compiled else None
    return {"class": type(model).__name__, "loss": compiled, "config": without_build(plain(model))["config"]}


def load_examples(folder):
    """What became of each saved model: its class, its loss, and how far its outputs are from the saved ones."""
    found = {}
    for path in sorted(folder.glob("*.keras")):
        model = keras.saving.load_model(path, safe_mode=True)
        saved = np.load(path.with_suffix(".npz"))
        inputs = [saved[key] for key in sorted(saved) if key.startswith("in")]
        before = [saved[key] for key in sorted(saved) if key.startswith("out")]
        after = outputs(model, inputs)
        apart = max(float(np.max(np.abs(a - b))) for a, b in zip(before, after, strict=True))
        found[path.stem] = {**shown(model), "apart": apart}
    return found


if __name__ == "__main__":
    print(json.dumps(load_examples(Path(sys.argv[1]))))
