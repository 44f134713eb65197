"""An example of every serialisable class, and the ways there and back that each must survive.

A new class needs a line in `EXAMPLES`; `test_public` fails until it has one. Run as a script on a folder of saved
models, this loads each of them as a stranger would, in safe mode and without `custom_objects`, and prints what came of
it.

    check_round_trips(EXAMPLES["ContrastiveLoss"]())
    save_examples(folder)      # then, in a fresh process: python -m tests.support.roundtrip FOLDER
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
from keras_siamese import distances, losses, metrics
from keras_siamese.attach.attached import AttachedModel
from keras_siamese.layers import (
    Chunked,
    CrossBatchMemory,
    DistanceLayer,
    GeneralizedMeanPooling1D,
    GeneralizedMeanPooling2D,
    LearnedScale,
    LogisticHead,
    ProxyLogits,
    SiameseWrapper,
    TokenPooling,
)
from keras_siamese.layers.around import AroundEncoder
from keras_siamese.losses.statistics import BatchStatistic
from keras_siamese.pretrained import Backbone


@keras.saving.register_keras_serializable("roundtrip")
def city_block(a, b):
    return ops.sum(ops.abs(a - b), axis=-1)


def encoder():
    layers = [keras.Input((4,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3)]
    return keras.Sequential([*layers, keras.layers.UnitNormalization()], name="encoder")


# Each with options unlike its defaults, so that a forgotten one shows.
def comparing_model():
    """A model of the user's own: nothing of the package compares its embeddings."""
    symbols, shared = [keras.Input((4,)), keras.Input((4,))], encoder()
    merged = keras.layers.Subtract()([shared(symbol) for symbol in symbols])
    return keras.Model(symbols, keras.layers.Dense(1, "sigmoid")(merged))


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
    "DistanceLayer": lambda: DistanceLayer("snr", swap=True, name="apart"),
    "ProxyLogits": lambda: ProxyLogits(5, 2, center_sparsity=0.25, dims=[2, 1], name="classes"),
    "GeneralizedMeanPooling1D": lambda: GeneralizedMeanPooling1D(2.5, False, 1e-4, "channels_first", True, name="pool"),
    "GeneralizedMeanPooling2D": lambda: GeneralizedMeanPooling2D(4.0, eps=0.001, data_format="channels_last"),
    "TokenPooling": lambda: TokenPooling("max", name="tokens"),
    "LogisticHead": lambda: LogisticHead(low=-float("inf"), high=3.0, name="same"),
    "SiameseWrapper": lambda: SiameseWrapper(
        encoder(), "angular", head="logistic", joint=False, swap=True, name="siamese"
    ),
    "Backbone": lambda: Backbone(encoder(), name="backbone"),
    "Chunked": lambda: Chunked(encoder(), rows=3, name="chunked"),
    "CrossBatchMemory": lambda: CrossBatchMemory(encoder(), 8, 0.75, name="remembering"),
    "LearnedScale": lambda: LearnedScale(encoder(), 8.0, -4.0, name="learning"),
    "AttachedModel": lambda: AttachedModel(comparing_model(), "score", name="attached"),
    "ContrastiveLoss": lambda: losses.ContrastiveLoss(
        0.75, 0.125, False, positive_weight=2, negative_weight=0.5, similar_label=0, reduction="sum", name="pairs"
    ),
    "MarginLoss": lambda: losses.MarginLoss(0.125, 0.75, positive_weight=2, similar_label=0),
    "OnlineContrastiveLoss": lambda: losses.OnlineContrastiveLoss(0.75, negative_weight=2, name="hard"),
    "WeightedBinaryCrossentropy": lambda: losses.WeightedBinaryCrossentropy({0: 0.25, 1: 2.0}, positive_weight=3.0),
    "TripletLoss": lambda: losses.TripletLoss(0.25, soft=True, swap=True, name="triplets"),
    "BatchTripletLoss": lambda: losses.BatchTripletLoss(
        0.25, "hard", "semi_hard", True, distance="cosine", block_size=4, reduction="sum", name="mined"
    ),
    "TripletSemiHardLoss": lambda: losses.TripletSemiHardLoss(0.25, "squared-L2", block_size=4),
    "TripletHardLoss": lambda: losses.TripletHardLoss(0.25, True, distances.MinkowskiDistance(p=3)),
    "PNLoss": lambda: losses.PNLoss(0.25, "easy", "hard", "euclidean"),
    "NTXentLoss": lambda: losses.NTXentLoss(0.25, block_size=4),
    "SupConLoss": lambda: losses.SupConLoss(0.25, name="supervised"),
    "MultiSimilarityLoss": lambda: losses.MultiSimilarityLoss(3, 25, 0.25, 0.125),
    "CircleLoss": lambda: losses.CircleLoss(0.25, 16),
    "TupletMarginLoss": lambda: losses.TupletMarginLoss(8, 16),
    "NCALoss": lambda: losses.NCALoss(2, "manhattan"),
    "SoftNearestNeighborLoss": lambda: losses.SoftNearestNeighborLoss(0.5, distances.MinkowskiDistance(p=3)),
    "GeneralizedLiftedLoss": lambda: losses.GeneralizedLiftedLoss(0.75, 0.25, distance="manhattan"),
    "LiftedStructLoss": lambda: losses.LiftedStructLoss(0.75, distance="chebyshev"),
    "BatchContrastiveLoss": lambda: losses.BatchContrastiveLoss(0.75, 0.25, True, distance="manhattan"),
    "SNRContrastiveLoss": lambda: losses.SNRContrastiveLoss(0.75, 0.25, True, block_size=4),
    "ThresholdConsistentMarginLoss": lambda: losses.ThresholdConsistentMarginLoss(2, 0.5, 0.75, 0.25),
    "IntraPairVarianceLoss": lambda: losses.IntraPairVarianceLoss(0.25, 0.125),
    "BatchMarginLoss": lambda: losses.BatchMarginLoss(0.125, 0.75, distance="manhattan"),
    "RankedListLoss": lambda: losses.RankedListLoss(0.25, 2, 1, 0.75, 1.5, distance="manhattan"),
    "FastAPLoss": lambda: losses.FastAPLoss(5, block_size=3),
    "SmoothAPLoss": lambda: losses.SmoothAPLoss(0.25),
    "HistogramLoss": lambda: losses.HistogramLoss(20),
    "AngularLoss": lambda: losses.AngularLoss(45, name="angle"),
    "MultipleNegativesRankingLoss": lambda: losses.MultipleNegativesRankingLoss(10),
    "SigLIPLoss": lambda: losses.SigLIPLoss(5, -3, block_size=4),
    "MatryoshkaLoss": lambda: losses.MatryoshkaLoss(
        losses.BatchTripletLoss(0.25, block_size=4), [3, 1], [1, 0.5], False, reduction="sum", name="nested"
    ),
    "VICRegLoss": lambda: losses.VICRegLoss(10, 5, 2, 0.01),
    "BarlowTwinsLoss": lambda: losses.BarlowTwinsLoss(0.25),
    "NpairsLoss": lambda: losses.NpairsLoss(reduction="sum"),
    "NpairsMultilabelLoss": lambda: losses.NpairsMultilabelLoss(name="shared"),
    "BatchStatistic": lambda: BatchStatistic(losses.BatchTripletLoss(0.25), "active_fraction", name="active"),
    "VerificationAccuracy": lambda: metrics.VerificationAccuracy(0.75, similar_label=0, name="right"),
    "EqualErrorRate": lambda: metrics.EqualErrorRate(100, "score", 0),
    "VerificationAUC": lambda: metrics.VerificationAUC(100, "score", name="area"),
    "TARAtFAR": lambda: metrics.TARAtFAR(0.25, bins=100),
    "BestVerificationAccuracy": lambda: metrics.BestVerificationAccuracy(100, similar_label=0),
    "NormalizedSoftmaxLoss": lambda: losses.NormalizedSoftmaxLoss(0.125, name="softmax"),
    "ArcFaceLoss": lambda: losses.ArcFaceLoss(0.25, 16, reduction="sum"),
    "SubCenterArcFaceLoss": lambda: losses.SubCenterArcFaceLoss(0.25, 16),
    "CosFaceLoss": lambda: losses.CosFaceLoss(0.25, 16),
    "SphereFaceLoss": lambda: losses.SphereFaceLoss(3, 16),
    "ProxyNCALoss": lambda: losses.ProxyNCALoss(2),
    "ProxyAnchorLoss": lambda: losses.ProxyAnchorLoss(0.25, 16),
    "SoftTripleLoss": lambda: losses.SoftTripleLoss(16, 0.25, 0.125),
    "AddonsLoss": lambda: ks.addons.AddonsLoss("TripletHardLoss", {"margin": 0.25, "soft": True}, "sum", "addons"),
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
        if isinstance(instance, AroundEncoder):
            inputs, loss = (
                inputs[:1],
                losses.SigLIPLoss() if isinstance(instance, LearnedScale) else losses.NTXentLoss(),
            )
    elif isinstance(instance, distances.Distance):
        model = SiameseWrapper(encoder(), instance)
    elif isinstance(instance, DistanceLayer):
        symbols = [keras.Input((4,)), keras.Input((4,))]
        shared = encoder()
        model = keras.Model(symbols, instance([shared(symbol) for symbol in symbols]))
        inputs = list(inputs)
    elif isinstance(instance, (GeneralizedMeanPooling1D, GeneralizedMeanPooling2D, TokenPooling)):
        grid = keras.layers.Reshape((2, 2, 1) if isinstance(instance, GeneralizedMeanPooling2D) else (2, 2))
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "softplus"), grid, instance])
        inputs, loss = inputs[:1], None
    elif isinstance(instance, Backbone):
        model, inputs, loss = keras.Sequential([keras.Input((4,)), instance]), inputs[:1], losses.NTXentLoss()
    elif isinstance(instance, LogisticHead):
        model, loss = SiameseWrapper(encoder(), head=instance), losses.WeightedBinaryCrossentropy("balanced")
    elif isinstance(instance, (ProxyLogits, losses.ProxyLoss)):
        several = isinstance(instance, ProxyLogits) or instance.several_centers
        loss = losses.SoftTripleLoss() if isinstance(instance, ProxyLogits) else instance
        layer = instance if isinstance(instance, ProxyLogits) else ProxyLogits(5, 2 if several else 1)
        model, inputs = keras.Sequential([*encoder().layers, layer]), inputs[:1]
    elif isinstance(instance, losses.SiameseLoss) and instance.expects in ("embedding", "similarity matrix"):
        model, loss, inputs = encoder(), instance, inputs[:1]
    elif isinstance(instance, BatchStatistic):
        model, loss, inputs = encoder(), instance.loss, inputs[:1]
    elif isinstance(instance, metrics.VerificationMetric):
        model = SiameseWrapper(encoder())
    elif isinstance(instance, losses.SiameseLoss):
        head = "logistic" if instance.expects == "score" else None
        model, loss = SiameseWrapper(encoder(), head=head, swap=getattr(instance, "swap", False)), instance
    else:
        raise TypeError(f"say here how a model carries a {type(instance).__name__}")
    outputs(model, inputs)
    shift_weights(model)
    if loss is not None:
        carried = [instance] if isinstance(instance, keras.metrics.Metric) else None
        model.compile(keras.optimizers.SGD(0.01), loss=loss, metrics=carried)
        model.optimizer.build(model.trainable_variables)
    return model, inputs


def shift_weights(model):
    """No weight at its initial value, so that a weight that is not saved shows."""
    model.set_weights([0.9 * weight + 0.03 * (i + 1) for i, weight in enumerate(model.get_weights())])


def outputs(model, inputs):
    found = model(inputs if len(inputs) > 1 else inputs[0])
    return [ops.convert_to_numpy(output).astype("float64") for output in keras.tree.flatten(found)]


def save_examples(folder, names=tuple(EXAMPLES)):
    """Saves a model of each named example with inputs and outputs; returns what a loaded one must show, by name."""
    expected = {}
    for name in names:
        model, inputs = carrier(EXAMPLES[name]())
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
