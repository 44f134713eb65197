"""Trains the base programs of the fault benchmark, small enough for a thousand runs, with the layers of the package.

Each program learns whether two samples show the same thing. See `recipes` for the programs and `samples` for the data.
`run` trains a model by a recipe with a `DivergenceMonitor` and returns the outcome. The recipes of the family "head"
are plain Keras programs; see `heads`.

    found = run({**recipes.BASES["digits-contrastive"], "margin": 100.0}, seed=3)
    found.outcome, found.monitor.diagnosis
"""

import time
from typing import NamedTuple

import keras
import numpy as np

import keras_siamese as ks
from planted.encoders import encoder_of, input_of, optimizer_of, pretrained
from planted.recipes import PAIRS, PROXIES
from planted.samples import parts_of, scanner


class Found(NamedTuple):
    """The result of a run.

    Attributes:
        outcome: EER (for a threshold: error rate) on identities that neither training nor validation used.
        monitor: the `DivergenceMonitor` after the run.
        logs: curves that Keras kept.
        seconds: of the fit, including its callbacks.
        fitted: of a threshold, the error rate that the one which is best on the validation pairs has instead; of a
            distance with which only the figures are made, the EER by the one that was trained.
    """

    outcome: float
    monitor: object
    logs: dict
    seconds: float
    fitted: float | None = None


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
    seconds = time.perf_counter() - started
    found, fitted = outcome(recipe, monitor, parts)
    return Found(found, monitor, history.history, seconds, fitted)


def repaired(recipe, seed):
    """`(outcome, repair)`: the EER of the final check after `ks.repair` of the untrained program, and the `Repair`."""
    keras.utils.set_random_seed(1000 + seed)
    parts = parts_of(recipe, seed)
    source, model, _ = training(recipe, parts, seed)
    options = {"epochs": recipe["epochs"], "batch_size": 64, "distance": verify_distance(recipe, model)}
    found = ks.repair(model, source, validation_of(recipe, parts, seed), **options, progress=False)
    anatomy, trials = ks.scoring.attach(found.model, check_of(recipe, parts), distance=found.distance)
    scored = ks.scoring.score(anatomy, trials)
    return (ks.verification.eer(scored.same, scored.scores) if scored.is_finite else 0.5), found


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


# --- training


def triplet_loss(recipe):
    names = ("margin", "positives", "negatives", "distance")
    return ks.losses.BatchTripletLoss(**{name: recipe[name] for name in names})


LOSSES = {  # of batches of identities
    "BatchTriplet": triplet_loss,
    "SupCon": lambda recipe: ks.losses.SupConLoss(recipe["temperature"]),
    "NTXent": lambda recipe: ks.losses.NTXentLoss(recipe["temperature"]),
    "SmoothAP": lambda recipe: ks.losses.SmoothAPLoss(recipe["temperature"]),
    "MultiSimilarity": lambda recipe: ks.losses.MultiSimilarityLoss(
        0.04 / recipe["temperature"], 1 / recipe["temperature"]
    ),
    "ArcFace": lambda recipe: ks.losses.ArcFaceLoss(recipe["margin"], scale=1 / recipe["temperature"]),
    "ProxyAnchor": lambda recipe: ks.losses.ProxyAnchorLoss(recipe["margin"], scale=1 / recipe["temperature"]),
}


def training(recipe, parts, seed):
    """`(training data for fit, compiled model, training data for the monitor)`."""
    x, labels = parts["train"]
    augment = scanner() if recipe["augment"] and x.ndim == 4 else None
    if recipe["family"] == PAIRS:
        return contrastive(recipe, x, labels, augment, seed)
    model = pretrained(recipe, encoder_of(recipe, x.shape[1:]), seed)
    if recipe["family"] == PROXIES:
        classes = 1 + max(int(known.max()) for known in (labels, parts["seen"][1]))
        model = keras.Sequential([model, ks.layers.ProxyLogits(classes)])
    model.compile(optimizer_of(recipe), loss=LOSSES[recipe["loss"]](recipe))
    if recipe["share_of_two"] and recipe["weighting"] == "natural":
        return (x, labels), model, (x, labels)  # without balanced batches
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
    return source, model, source


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
        encoder = pretrained(recipe, encoder_of(recipe, x.shape[1:]), seed)
        model = ks.SiameseWrapper(encoder, distance=recipe["distance"], joint=recipe["joint"])
    else:
        inputs = [input_of(recipe, x.shape[1:]) for _ in range(2)]
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
    x, labels = parts["seen" if recipe["family"] == PROXIES else "valid"]  # a proxy loss knows only its classes
    if recipe["family"] != PAIRS:
        return ks.data.BalancedBatchSequence(
            x,
            labels,
            classes_per_batch=min(16, len(np.unique(labels))),
            samples_per_class=4,
            batches_per_epoch=4,
            frozen=True,
            seed=seed,
        )
    return ks.data.PairSequence(x, labels, batch_size=400, pairs_per_epoch=800, frozen=True, seed=seed)


def verify_distance(recipe, model):
    """The argument `distance` of the monitor: for an encoder, the distance that the recipe verifies with."""
    if isinstance(model, ks.SiameseWrapper) or not recipe["shared"]:
        return None
    return recipe["verify_distance"] or recipe["distance"]


def outcome(recipe, monitor, parts):
    """EER on the identities of the final check, and what it would be if the figures were made rightly; see `Found`."""
    if not np.isfinite(monitor.history["eer"][-1]):
        return 0.5, None
    scored = ks.scoring.score(monitor.attach(), check_of(recipe, parts))
    if not scored.is_finite:
        return 0.5, None
    if monitor.threshold is not None:
        rows = scored.trials.balanced()
        return error_rates(monitor.threshold, monitor, scored.same[rows], scored.scores[rows])
    eer = ks.verification.eer(scored.same, scored.scores)
    if recipe["verify_distance"]:
        anatomy, trials = ks.scoring.attach(monitor.model, scored.trials, distance=recipe["distance"])
        return float(eer), float(ks.verification.eer(trials.same, ks.scoring.score(anatomy, trials).scores))
    return float(1 - eer if recipe["validation_similar_label"] == 0 else eer), None


def error_rates(threshold, monitor, same, scores):
    """The error rate on pairs `(n,)` at the `threshold` in use, and at the one that is best on the validation pairs."""
    best = monitor.diagnosis.observed.valid.accuracy[1]
    return tuple(float(np.mean((scores >= one) != same)) for one in (threshold, best))


def check_of(recipe, parts):
    """The `Trials` of the final check."""
    x, labels = parts["check"]
    trials = ks.scoring.Trials.from_labels(x, labels, max_pairs=20_000)
    if recipe["tower_scale"] == 1.0:
        return trials
    left, right = x[trials.left] * np.float32(recipe["tower_scale"]), x[trials.right]
    return ks.scoring.Trials.from_pairs(left, right, trials.same.astype(int))
