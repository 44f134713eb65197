"""Base programs of the fault benchmark: three data sets × three recipes, small enough for a thousand runs.

Each program learns whether two scans show the same thing. See `samples` for the data. A *recipe* is a plain dict with
the argument names of the package; `Finding.apply` changes it. `run` trains a model by a recipe with a
`DivergenceMonitor` and returns the outcome. The recipes of the family "head" are plain Keras programs; see `heads`.

    found = run({**BASES["digits-contrastive"], "margin": 100.0}, seed=3)
    found.outcome, found.monitor.diagnosis
"""

import time
from typing import NamedTuple

import keras
import numpy as np

import keras_siamese as ks
from planted.samples import IDENTITIES, SAMPLES, parts_of, prepared, samples_of, scanner

COMMON = {
    "identities": IDENTITIES,
    "samples": SAMPLES,
    "epochs": 10,
    "batches": 18,
    "learning_rate": 3e-3,
    "schedule": None,
    "normalize": True,
    "embedding_dim": 32,
    "width": 128,
    "depth": 1,
    "activation": "relu",
    "dropout": 0.0,
    "online": False,
    "trainable": True,
    "batch_normalization": False,
    "momentum": 0.99,
    "joint": True,
    "distance": "euclidean",
    "verify_distance": None,
    "similar_label": 1,
    "validation_similar_label": 1,
    "positive_fraction": 0.5,
    "positives": "all",
    "negatives": "all",
    "easy_pairs": False,
    "label_noise": 0.0,
    "share_of_two": 0.0,
    "weighting": "natural",
    "one_identity": False,
    "leak": None,
    "threshold": None,
    "input_scale": 1.0,
    "rescale": 1.0,
    "tower_scale": 1.0,
    "shared": True,
    "blur": 0.0,
    "augment": False,
    "early_stopping": False,
    "noise": 1.0,
    "validation_pairs": None,
    "pretrained": False,
}
HEAD = {
    "form": "absolute difference",
    "head": None,
    "loss": None,
    "start": 1.0,
    "epsilon": 1e-7,
    "dropout": 0.2,
    "noise": 0.8,
    "normalize": False,
    "pairs": "drawn",
    "pairs_drawn": 3000,
    "learning_rate": 5e-3,
    "copies": 0.0,
    "blank": 0.0,
    "preprocessing": "same",
    "pretrained_at": 1.0,
}
BASES = {
    f"{data}-{family}": {**COMMON, "data": data, "family": family, "margin": margin, **more}
    for data in ("digits", "garments", "blobs")
    for family, margin, more in (("contrastive", 1.0, {}), ("triplet", 0.2, {}), ("head", 1.0, HEAD))
}
# Thresholds are chosen on the first four and frozen before anyone looks at the others. Each half has all data sets and
# all recipes. Most faults of pairs need the contrastive recipe; the test half has two of these.
TUNING = ("digits-contrastive", "garments-triplet", "blobs-triplet", "digits-head")
TEST = ("digits-triplet", "garments-contrastive", "blobs-contrastive", "garments-head", "blobs-head")


class Found(NamedTuple):
    """The result of a run.

    Attributes:
        outcome: EER (for a threshold: error rate) on identities that neither training nor validation used.
        monitor: the `DivergenceMonitor` after the run.
        logs: curves that Keras kept.
        seconds: of the fit, including its callbacks.
    """

    outcome: float
    monitor: object
    logs: dict
    seconds: float


def run(recipe, seed):
    """Trains one model by `recipe` and returns a `Found`."""
    keras.utils.set_random_seed(1000 + seed)
    parts = parts_of(recipe, seed)
    source, model, monitored = training(recipe, parts, seed)
    monitor = ks.callbacks.DivergenceMonitor(
        validation_of(recipe, parts, seed),
        on_divergence=lambda diagnosis: None,
        train=None if isinstance(model, ks.SiameseWrapper) and source is monitored else monitored,
        distance=verify_distance(recipe, model),
        similar_label=recipe["validation_similar_label"],
        threshold=recipe["threshold"] if isinstance(recipe["threshold"], float) else None,
    )
    callbacks = [monitor]
    if hasattr(source, "set_epoch"):
        callbacks.insert(0, ks.callbacks.SetEpoch(source))
    if recipe["early_stopping"]:
        stop = keras.callbacks.EarlyStopping("val_eer", mode="min", patience=4, restore_best_weights=True)
        callbacks.append(stop)
    started = time.perf_counter()
    held_out = checked_by_loss(recipe, parts, seed)
    if isinstance(source, tuple):
        options = {"x": source[0], "y": source[1], "batch_size": 64, "steps_per_epoch": None}
    else:
        options = {"x": source}
    if recipe["threshold"] == "train":
        monitor.threshold = 0.0  # replaced below by a threshold from the training pairs
        callbacks.insert(0, ThresholdOfTraining(monitor, parts["train"]))
    history = model.fit(
        **options, epochs=recipe["epochs"], callbacks=callbacks, validation_data=held_out, shuffle=True, verbose=0
    )
    return Found(outcome(recipe, model, monitor, parts), monitor, history.history, time.perf_counter() - started)


class ThresholdOfTraining(keras.callbacks.Callback):
    """Gives the monitor the threshold that is best on the training pairs, as if a project had tuned it there."""

    def __init__(self, monitor, train):
        super().__init__()
        self.monitor, self.trials = monitor, ks.scoring.Trials.from_labels(*train, max_items=600, max_pairs=20_000)

    def on_train_end(self, logs=None):
        scored = ks.scoring.score(self.monitor.attach(), self.trials)
        self.monitor.threshold = ks.verification.best_accuracy(
            scored.same[scored.trials.balanced()], scored.scores[scored.trials.balanced()]
        )[1]


# --- models


def encoder_of(recipe, shape):
    layers = [keras.Input(shape)]
    if recipe["rescale"] != 1.0:
        layers.append(keras.layers.Rescaling(1 / recipe["rescale"]))
    layers += [keras.layers.Flatten()] if len(shape) > 1 else []
    for name in ("features", "more", "most")[: recipe["depth"]]:
        dense = keras.layers.Dense(recipe["width"], use_bias=not recipe["batch_normalization"], name=name)
        layers.append(dense)
        if recipe["batch_normalization"]:
            layers.append(keras.layers.BatchNormalization(momentum=recipe["momentum"]))
        layers += [keras.layers.Activation(recipe["activation"])]
    layers += [keras.layers.Dropout(recipe["dropout"])] if recipe["dropout"] else []
    layers += [keras.layers.Dense(recipe["embedding_dim"], name="embedding")]
    layers += [keras.layers.UnitNormalization()] if recipe["normalize"] else []
    encoder = keras.Sequential(layers)
    if recipe["trainable"] is not True:
        encoder.trainable = False
        if recipe["trainable"] == "head":
            for layer in encoder.layers:
                layer.trainable = layer.name == "embedding"
    return encoder


def optimizer_of(recipe):
    rate, steps = recipe["learning_rate"], recipe["batches"]
    if recipe["schedule"] == "restarts":
        rate = keras.optimizers.schedules.CosineDecayRestarts(rate, 4 * steps, t_mul=1.0)
    elif recipe["schedule"] == "warm-up":
        bounds = [4 * steps, 6 * steps]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(bounds, [rate / 50, rate / 5, rate])
    return keras.optimizers.Adam(rate)


def training(recipe, parts, seed):
    """`(training data for fit, compiled model, training data for the monitor)`."""
    x, labels = parts["train"]
    augment = scanner() if recipe["augment"] and x.ndim == 4 else None
    if recipe["family"] == "contrastive":
        return contrastive(recipe, x, labels, augment, seed)
    encoder = encoder_of(recipe, x.shape[1:])
    if recipe["pretrained"]:
        pretrain(recipe, encoder, seed)
    loss = ks.losses.BatchTripletLoss(
        margin=recipe["margin"],
        positives=recipe["positives"],
        negatives=recipe["negatives"],
        distance=recipe["distance"],
    )
    encoder.compile(optimizer_of(recipe), loss=loss)
    if recipe["share_of_two"] and recipe["weighting"] == "natural":
        return (x, labels), encoder, (x, labels)  # without balanced batches
    classes = min(16, len(np.unique(labels)))
    source = ks.data.BalancedBatchSequence(
        x,
        labels,
        classes_per_batch=classes,
        samples_per_class=4,
        batches_per_epoch=recipe["batches"],
        augment=augment,
        seed=seed,
    )
    return source, encoder, source


def contrastive(recipe, x, labels, augment, seed):
    options = {
        "batch_size": 100,
        "pairs_per_epoch": 100 * recipe["batches"],
        "positive_fraction": recipe["positive_fraction"],
        "weighting": recipe["weighting"],
        "augment": augment,
        "seed": seed,
    }
    kinds = {"one_identity": OneIdentity, "easy_pairs": EasyPairs}
    kind = next((cls for name, cls in kinds.items() if recipe[name]), ks.data.PairSequence)
    if recipe["tower_scale"] != 1.0:
        kind, options["factor"] = OneTower, recipe["tower_scale"]
    source = kind(x, labels, **options)
    if recipe["shared"]:
        encoder = encoder_of(recipe, x.shape[1:])
        if recipe["pretrained"]:
            pretrain(recipe, encoder, seed)
        model = ks.SiameseWrapper(encoder, distance=recipe["distance"], joint=recipe["joint"])
    else:
        inputs = [keras.Input(x.shape[1:]) for _ in range(2)]
        towers = [encoder_of(recipe, x.shape[1:])(tower) for tower in inputs]
        model = keras.Model(inputs, ks.layers.DistanceLayer(recipe["distance"])(towers))
    kind = ks.losses.OnlineContrastiveLoss if recipe["online"] else ks.losses.ContrastiveLoss
    loss = kind(margin=recipe["margin"], similar_label=recipe["similar_label"])
    model.compile(optimizer_of(recipe), loss=loss)
    return source, model, source


class OneIdentity(ks.data.PairSequence):
    """Pairs whose left samples all have the same identity within a batch."""

    def _draw(self, epoch):
        left, right, same = super()._draw(epoch)
        rng = self.rng(epoch, 1)
        anchors = rng.integers(0, len(self.identities), len(self))
        left = self._blocks.draw_from(rng, np.repeat(anchors, self.batch_size)[: len(left)])
        right = np.where(same, self._blocks.draw_same(rng, left), self._blocks.draw_other(rng, left))
        return left, right, same


class OneTower(ks.data.PairSequence):
    """Pairs whose left samples are `factor` times as large, as if one branch preprocessed its input."""

    def __init__(self, x, labels, factor, **options):
        super().__init__(x, labels, **options)
        self.factor = np.float32(factor)

    def _batch(self, table, epoch, index):
        (left, right), same = super()._batch(table, epoch, index)
        return (left * self.factor, right), same


class EasyPairs(ks.data.PairSequence):
    """Pairs of each anchor with its nearest positive or one of its twenty farthest negatives, by pixel distance."""

    def __init__(self, x, labels, **options):
        super().__init__(x, labels, **options)
        flat = self.x[:].reshape(len(labels), -1)
        distance = np.sum(flat**2, axis=1) - 2 * flat @ flat.T
        same = self.labels[:, None] == self.labels
        self.far = np.argsort(np.where(same, -np.inf, distance), axis=1)[:, -20:]
        np.fill_diagonal(same, False)
        self.near = np.argmin(np.where(same, distance, np.inf), axis=1)

    def _draw(self, epoch):
        left, _, same = super()._draw(epoch)
        drawn = self.far[left, self.rng(epoch, 1).integers(0, 20, len(left))]
        return left, np.where(same, self.near[left], drawn), same


def pretrain(recipe, encoder, seed, scale=1.0):
    """Trains the whole `encoder` on other draws of the data, like a backbone that is then frozen.

    If `scale` is not 1, the inputs are so many times as large, and shifted by as many of their spreads.
    """
    trainable = {layer.name: layer.trainable for layer in encoder.layers}
    encoder.trainable = True
    x, labels = samples_of(recipe["data"], seed + 500, recipe["noise"])
    x = prepared(x, recipe)
    x = x if scale == 1.0 else (scale * (x + x.std())).astype("float32")
    encoder.compile(keras.optimizers.Adam(2e-3), loss=ks.losses.BatchTripletLoss())
    encoder.fit(ks.data.BalancedBatchSequence(x, labels, batches_per_epoch=60, frozen=True), verbose=0)
    for layer in encoder.layers:
        layer.trainable = trainable[layer.name]


# --- verification


def validation_of(recipe, parts, seed):
    """The held-out data of the monitor."""
    x, labels = parts["valid"]
    pairs = recipe["validation_pairs"]
    if recipe["validation_similar_label"] == 1 and recipe["tower_scale"] == 1.0 and pairs is None:
        return x, labels
    sequence = ks.data.PairSequence(x, labels, pairs_per_epoch=pairs or 3000, frozen=True, seed=seed)
    left, right, same = sequence.pairs()
    return x[left] * np.float32(recipe["tower_scale"]), x[right], same.astype(int)


def checked_by_loss(recipe, parts, seed):
    """`validation_data` of Keras; the baselines read its `val_loss`."""
    x, labels = parts["valid"]
    if recipe["family"] == "triplet":
        return ks.data.BalancedBatchSequence(
            x, labels, classes_per_batch=16, samples_per_class=4, batches_per_epoch=4, frozen=True, seed=seed
        )
    return ks.data.PairSequence(x, labels, batch_size=400, pairs_per_epoch=800, frozen=True, seed=seed)


def verify_distance(recipe, model):
    """The argument `distance` of the monitor: for an encoder, the distance that the recipe verifies with."""
    if isinstance(model, ks.SiameseWrapper) or not recipe["shared"]:
        return None
    return recipe["verify_distance"] or recipe["distance"]


def outcome(recipe, model, monitor, parts):
    """EER on the identities of the final check, or the error rate there at the threshold in use."""
    if not np.isfinite(monitor.history["eer"][-1]):
        return 0.5
    x, labels = parts["check"]
    trials = ks.scoring.Trials.from_labels(x, labels, max_pairs=20_000)
    if recipe["tower_scale"] != 1.0:
        left, right = x[trials.left] * np.float32(recipe["tower_scale"]), x[trials.right]
        trials = ks.scoring.Trials.from_pairs(left, right, trials.same.astype(int))
    scored = ks.scoring.score(monitor.attach(), trials)
    if not scored.is_finite:
        return 0.5
    same = scored.same
    if monitor.threshold is not None:
        rows = scored.trials.balanced()
        return float(np.mean((scored.scores[rows] >= monitor.threshold) != same[rows]))
    eer = ks.verification.eer(same, scored.scores)
    return float(1 - eer if recipe["validation_similar_label"] == 0 else eer)
