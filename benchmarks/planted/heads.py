"""Base programs of the family "head": plain Keras programs with two inputs, which use no part of the package.

One encoder is called on both inputs, and a *form* compares the two embeddings and has a loss of its own. The default
form is |u − v| → `Dense(1, "sigmoid")` → `binary_crossentropy`; the other ones are what people write instead, rightly
or wrongly. Training pairs are drawn once and given to `fit` as arrays. The outcome is measured on what
`model.predict` returns, read as the author of the form means it.

    found = run({**recipes.BASES["digits-head"], "form": "sigmoid of a distance"}, seed=3)
    found.outcome, found.monitor.diagnosis
"""

import time
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

import keras_siamese as ks
from planted.encoders import encoder_of, input_of, optimizer_of, pretrain
from planted.programs import Found, error_rates
from planted.samples import parts_of

BATCH, VALID_PAIRS, CHECK_PAIRS = 250, 1500, 4000
FORMS = {}


class Form(NamedTuple):
    """How two embeddings are compared.

    Attributes:
        build: function from a recipe and two embeddings to `(output, loss)`.
        up: whether the output is meant to grow with similarity.
        labels: the labels of an impostor and of a genuine pair.
    """

    build: object
    up: bool
    labels: tuple


def form(name, up=True, labels=(0, 1)):
    def add(build):
        FORMS[name] = Form(build, up, labels)
        return build

    return add


def run(recipe, seed):
    """Trains one model by `recipe` and returns a `Found`."""
    kind, parts, rng, model, (x, y), validation = program_of(recipe, seed)
    monitor = ks.callbacks.DivergenceMonitor(validation, on_divergence=lambda diagnosis: None, train=(x, y))
    callbacks = [monitor]
    if recipe["early_stopping"]:
        stop = keras.callbacks.EarlyStopping("val_eer", mode="min", patience=4, restore_best_weights=True)
        callbacks.append(stop)
    started = time.perf_counter()
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=recipe["epochs"],
        callbacks=callbacks,
        validation_data=validation,
        validation_batch_size=VALID_PAIRS,
        verbose=0,
    )
    seconds = time.perf_counter() - started
    left, right, same = held_out_pairs(recipe, *parts["check"], CHECK_PAIRS, rng)
    output = model.predict([left, right], batch_size=512, verbose=0)[:, -1]
    found, fitted = outcome(recipe, monitor, output if kind.up else -output, same)
    return Found(found, monitor, history.history, seconds, fitted)


def repaired(recipe, seed):
    """`(outcome, repair)`: the EER of the final check after `ks.repair` of the untrained program, and the `Repair`."""
    kind, parts, rng, model, (x, y), validation = program_of(recipe, seed)
    found = ks.repair(model, (x, y), validation, epochs=recipe["epochs"], batch_size=BATCH, progress=False)
    left, right, same = held_out_pairs(recipe, *parts["check"], CHECK_PAIRS, rng)
    anatomy, trials = ks.scoring.attach(found.model, ([left, right], labelled(kind, same)))
    scored = ks.scoring.score(anatomy, trials)
    return (ks.verification.eer(trials.same, scored.scores) if scored.is_finite else 0.5), found


def program_of(recipe, seed):
    """`(form, parts, rng, compiled model, training pairs, held-out pairs)`, before any training."""
    keras.utils.set_random_seed(1000 + seed)
    parts, rng = parts_of(recipe, seed), np.random.default_rng([seed, 1])
    kind = form_of(recipe)
    left, right, same = training_pairs(recipe, *parts["train"], rng)
    held_out = held_out_pairs(recipe, *parts["valid"], recipe["validation_pairs"] or VALID_PAIRS, rng)
    model = model_of(recipe, kind, left.shape[1:], seed)
    validation = list(held_out[:2]), labelled(kind, held_out[2])
    return kind, parts, rng, model, ([left, right], labelled(kind, same)), validation


def outcome(recipe, monitor, scores, same):
    """EER of the final check, and None; the `error_rates` at 0.5 if the recipe logs an accuracy."""
    if not np.isfinite(scores).all():
        return 0.5, None
    if recipe["threshold"] == "logged":
        return error_rates(0.5, monitor, same, scores)
    return ks.verification.eer(same, scores), None


def labelled(kind, same):
    return np.asarray(kind.labels, "float32")[same.astype(int)]


# --- pairs


def drawn(labels, count, share, rng):
    """Rows of both sides `(count,)`, and whether they are genuine: two samples of one identity, with chance `share`."""
    order = np.argsort(labels, kind="stable")
    _, code, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    same = rng.uniform(size=count) < share
    left = rng.choice(np.flatnonzero(sizes[code] > 1), count)
    step = 1 + rng.integers(0, sizes[code[left]] - 1)
    mate = starts[code[left]] + (left - starts[code[left]] + step) % sizes[code[left]]
    other = rng.integers(0, len(labels), count)
    while (wrong := code[other] == code[left]).any():
        other[wrong] = rng.integers(0, len(labels), np.count_nonzero(wrong))
    return order[left], order[np.where(same, mate, other)], same


def training_pairs(recipe, x, labels, rng):
    """`(left, right, same)`, with what the recipe does to pairs."""
    count, how = recipe["pairs_drawn"], recipe["pairs"]
    if recipe["blank"]:
        x = x.copy()
        x[rng.permutation(len(x))[: int(recipe["blank"] * len(x))]] = 0
    left, right, same = drawn(labels, count, recipe["positive_fraction"], rng)
    if how == "one item twice":
        right = np.where(same, left, right)
    elif how == "labels left behind":
        same = rng.permutation(same)
    elif how == "few, again and again":
        rows = np.arange(count) % 40
        left, right, same = left[rows], right[rows], same[rows]
    elif how == "one side constant":
        left = np.full(count, left[0])
        kinds = labels == labels[left[0]]
        right = np.where(same, *(rng.choice(np.flatnonzero(kind), count) for kind in (kinds, ~kinds)))
    elif how == "each twice":
        rows = np.arange(count) % (count // 2)
        left, right, same = left[rows], right[rows], same[rows]
    copied = rng.uniform(size=count) < recipe["copies"]
    return x[left], x[np.where(copied, left, right)], same | copied


def held_out_pairs(recipe, x, labels, count, rng):
    left, right, same = drawn(labels, count, 0.5, rng)
    how = recipe["preprocessing"]
    sides = x[left] if how == "one side not scaled" else prepared(x[left], how, rng), prepared(x[right], how, rng)
    return *sides, same


def prepared(x, how, rng):
    """Held-out samples `(n, …)` as they are prepared."""
    spread = x.std()
    if how in ("not scaled", "one side not scaled"):
        x = 40 * x + 128
    elif how == "inverted":
        x = 1 - x
    elif how == "turned":
        x = np.swapaxes(x, 1, 2)
    elif how == "brighter":
        x = 1.15 * x + 0.1 * spread
    elif how == "noisier":
        x = x + 0.2 * spread * rng.normal(size=x.shape)
    elif how == "lit from one side":  # of vectors: other means
        x = x + 0.3 * spread * np.linspace(-1, 1, x.shape[-2] if x.ndim == 4 else x.shape[-1]).reshape(
            (-1, 1) if x.ndim == 4 else (-1,)
        )
    return x.astype("float32")


# --- models


def form_of(recipe):
    """The `Form` of a recipe; `head` and `loss` are what a repair puts in its place."""
    if recipe["head"] == "logistic":
        return FORMS["logistic head"]
    return FORMS["distance" if recipe["loss"] == "contrastive" else recipe["form"]]


def model_of(recipe, kind, shape, seed):
    inputs = [input_of(recipe, shape) for _ in range(2)]
    first = tower_of(recipe, shape, seed)
    towers = first, first if recipe["shared"] else tower_of(recipe, shape, seed)
    output, loss = kind.build(recipe, *(tower(one) for tower, one in zip(towers, inputs, strict=True)))
    model = keras.Model(inputs, output)
    model.compile(optimizer_of(recipe), loss=loss, metrics=["accuracy"] if recipe["threshold"] == "logged" else None)
    return model


def tower_of(recipe, shape, seed):
    is_stopped = recipe["trainable"] == "stopped"
    encoder = encoder_of({**recipe, "trainable": True} if is_stopped else recipe, shape)
    if recipe["pretrained"]:
        norms = [layer for layer in encoder.layers if isinstance(layer, layers.BatchNormalization)]
        for norm in norms:
            norm.momentum = 0.9
        pretrain(recipe, encoder, seed, scale=recipe["pretrained_at"])
        for norm in norms:
            norm.momentum = recipe["momentum"]
    return keras.Sequential([encoder, layers.Lambda(ops.stop_gradient)]) if is_stopped else encoder


def euclidean(recipe, u, v):
    def distance(pair):
        squared = ops.sum(ops.square(pair[0] - pair[1]), axis=1, keepdims=True)
        return ops.sqrt(ops.maximum(squared, recipe["epsilon"]) if recipe["epsilon"] else squared)

    return layers.Lambda(distance, output_shape=(1,))([u, v])


def cosine(recipe, u, v):
    def similarity(pair):
        u, v = pair
        norms = [ops.sum(ops.square(one), axis=1, keepdims=True) for one in pair]
        norms = [ops.sqrt(ops.maximum(one, recipe["epsilon"]) if recipe["epsilon"] else one) for one in norms]
        return ops.sum(u * v, axis=1, keepdims=True) / (norms[0] * norms[1])

    return layers.Lambda(similarity, output_shape=(1,))([u, v])


def apart(u, v):
    return layers.Lambda(lambda pair: ops.abs(pair[0] - pair[1]))([u, v])


def contrastive(margin, similar_label=1):
    def loss(y_true, y_pred):
        same = y_true if similar_label else 1 - y_true
        return ops.mean(same * ops.square(y_pred) + (1 - same) * ops.square(ops.maximum(margin - y_pred, 0)))

    return loss


def weighted(start, middle=0.0):
    """A sigmoid of one number, ½ at `middle`."""
    kernel, bias = (keras.initializers.Constant(value) for value in (start, -start * middle))
    return layers.Dense(1, "sigmoid", kernel_initializer=kernel, bias_initializer=bias)


@form("absolute difference")
def _(recipe, u, v):
    return layers.Dense(1, "sigmoid")(apart(u, v)), "binary_crossentropy"


@form("logits")
def _(recipe, u, v):
    return layers.Dense(1)(apart(u, v)), keras.losses.BinaryCrossentropy(from_logits=True)


@form("distance", up=False)
def _(recipe, u, v):
    return euclidean(recipe, u, v), contrastive(recipe["margin"], recipe["similar_label"])


@form("cosine distance", up=False)
def _(recipe, u, v):
    distance = layers.Lambda(lambda similarity: 1 - similarity)(cosine(recipe, u, v))
    return distance, contrastive(recipe["margin"])


@form("normalised distance", up=False, labels=(1, 0))  # as in keras.io's example
def _(recipe, u, v):
    normalised = layers.BatchNormalization()(euclidean(recipe, u, v))
    return weighted(recipe["start"])(normalised), contrastive(1.0, similar_label=0)


@form("weighted distance")
def _(recipe, u, v):
    return weighted(recipe["start"], middle=1.0)(euclidean(recipe, u, v)), "binary_crossentropy"


@form("weighted cosine")
def _(recipe, u, v):
    return weighted(recipe["start"], middle=0.5)(cosine(recipe, u, v)), "binary_crossentropy"


@form("logistic head")
def _(recipe, u, v):
    distance = ks.layers.DistanceLayer("euclidean")([u, v])
    return ks.layers.LogisticHead()(distance), "binary_crossentropy"


@form("cosine, squared error", labels=(-1, 1))
def _(recipe, u, v):
    return cosine(recipe, u, v), "mean_squared_error"


@form("exponential of a distance")  # as of two LSTMs whose states are compared
def _(recipe, u, v):
    similarity = layers.Lambda(lambda one: ops.exp(-ops.mean(one, axis=1, keepdims=True)), output_shape=(1,))
    return similarity(apart(u, v)), "mean_squared_error"


@form("two classes")
def _(recipe, u, v):
    both = layers.Concatenate()([apart(u, v), layers.Multiply()([u, v])])
    return layers.Dense(2, "softmax")(both), "sparse_categorical_crossentropy"


@form("sigmoid of a distance")
def _(recipe, u, v):
    distance = layers.Lambda(lambda one: ops.sum(one, axis=1, keepdims=True), output_shape=(1,))(apart(u, v))
    return layers.Activation("sigmoid")(distance), "binary_crossentropy"


@form("softmax over one unit")
def _(recipe, u, v):
    return layers.Dense(1, "softmax")(apart(u, v)), "binary_crossentropy"


@form("cross-entropy of a distance", up=False, labels=(1, 0))
def _(recipe, u, v):
    return euclidean(recipe, u, v), "binary_crossentropy"


@form("cross-entropy of logits")
def _(recipe, u, v):
    return layers.Dense(1)(apart(u, v)), "binary_crossentropy"


@form("contrastive loss of a similarity")
def _(recipe, u, v):
    return cosine(recipe, u, v), contrastive(recipe["margin"])
