"""Small runs with a planted fault: Gaussian identities in a few directions, noise in many, a two-layer encoder.

`run(**recipe)` trains once per recipe and process. Recipes are those that `Finding.apply` works on; `CONTROL` is
healthy.
"""

from functools import cache

import keras
import numpy as np

import keras_siamese as ks

CONTROL = {
    "identities": None,
    "margin": 1.0,
    "similar_label": 1,
    "positive_fraction": 0.5,
    "normalize": True,
    "learning_rate": 0.02,
    "epochs": 10,
}
FAULTS = {
    "inverted_labels": {"similar_label": 0},
    "margin": {"margin": 0.01},
    "pair_imbalance": {"positive_fraction": 0.01},
    "memorising": {"identities": 4, "epochs": 12},
    "collapse": {"positive_fraction": 1.0},
}
SIGNAL, NUISANCE = 6, 18
TARGET_EER = 0.2
EAGERLY = keras.backend.backend() == "tensorflow"  # a graph takes longer to trace than these runs take


def identities(count, samples, seed):
    """`(x, labels)`: `count` identities of `samples` each, `(n, 24)`; the nuisance is as large as what differs."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(np.random.default_rng(99).normal(size=(SIGNAL + NUISANCE,) * 2))[0]
    labels = np.repeat(np.arange(count), samples)
    own = rng.normal(0, 2, (count, SIGNAL))[labels] + rng.normal(0, 0.7, (len(labels), SIGNAL))
    x = np.concatenate([own, rng.normal(0, 2, (len(labels), NUISANCE))], axis=1) @ mix
    return x.astype("float32"), labels


def train_part():
    return identities(60, 10, seed=1)


def held_out_part():
    return identities(30, 6, seed=2)


def build_encoder(normalize=True, dim=16, hidden=64, features=SIGNAL + NUISANCE):
    layers = [keras.Input((features,)), keras.layers.Dense(hidden, activation="relu")]
    layers += [keras.layers.Dense(dim), keras.layers.UnitNormalization()] if normalize else []
    layers += [] if normalize else [keras.layers.Dense(dim, activation="relu")]
    encoder = keras.Sequential(layers)
    encoder.run_eagerly = EAGERLY
    return encoder


def run(**changes):
    """The `DivergenceMonitor` of the control's recipe with `changes`, after its run."""
    recipe = {**CONTROL, **{name: value for name, value in changes.items() if name in CONTROL}}
    return _run(tuple(sorted(recipe.items())))


@cache
def _run(items):
    recipe = dict(items)
    keras.utils.set_random_seed(5)
    x, labels = train_part()
    if recipe["identities"] is not None:
        kept = labels < recipe["identities"]
        x, labels = x[kept], labels[kept]
    siamese = ks.SiameseWrapper(build_encoder(recipe["normalize"]))
    loss = ks.losses.ContrastiveLoss(margin=recipe["margin"], similar_label=recipe["similar_label"])
    siamese.compile(keras.optimizers.Adam(recipe["learning_rate"]), loss=loss, run_eagerly=EAGERLY)
    sequence = ks.data.PairSequence(
        x, labels, batch_size=200, pairs_per_epoch=600, positive_fraction=recipe["positive_fraction"], seed=3
    )
    monitor = ks.callbacks.DivergenceMonitor(held_out_part(), lambda diagnosis: None, target_eer=TARGET_EER)
    siamese.fit(sequence, epochs=recipe["epochs"], callbacks=[monitor], verbose=0)
    return monitor
