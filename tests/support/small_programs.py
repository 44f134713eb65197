"""Small training programs, with and without a fault, that experiments can repeat."""

import keras
import numpy as np
from keras import layers

import keras_siamese as ks


def identities(count=30, samples=6, seed=0, dim=12):
    """`(x, labels)`: identities in four of the `dim` directions, noise in the others."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), samples)
    x = rng.normal(0, 1.5, (len(labels), dim))
    x[:, :4] = 2 * rng.normal(size=(count, 4))[labels] + 0.25 * x[:, :4]
    return x.astype("float32"), labels


def encoder(dropout=0.0, norm=False, dim=12):
    """A small encoder of unit norm, with its layers' seeds fixed."""
    start = keras.initializers.GlorotUniform(seed=1)
    parts = [keras.Input((dim,)), layers.Dense(24, "relu", kernel_initializer=start)]
    parts += [layers.BatchNormalization()] * norm + [layers.Dropout(dropout, seed=2)] * bool(dropout)
    last = keras.initializers.GlorotUniform(seed=3)
    return keras.Sequential([*parts, layers.Dense(8, kernel_initializer=last), layers.UnitNormalization()])


def fitted(
    margin=1.0, rate=3e-3, epochs=4, positive_fraction=0.5, similar_label=1, confirm=False, schedule=False, **options
):
    """`(model, monitor, train, valid)` after a fit of a siamese model on pairs."""
    keras.utils.set_random_seed(7)  # `fit` shuffles batches by global generators
    x, labels = identities()
    train = ks.data.PairSequence(
        x, labels, batch_size=30, pairs_per_epoch=360, positive_fraction=positive_fraction, seed=0
    )
    valid = identities(20, seed=1)
    model = ks.SiameseWrapper(encoder(**options))
    if schedule:
        rate = keras.optimizers.schedules.ExponentialDecay(rate, 100, 0.9)
    model.compile(
        keras.optimizers.Adam(rate), loss=ks.losses.ContrastiveLoss(margin=margin, similar_label=similar_label)
    )
    model((x[:2], x[:2]))
    monitor = ks.callbacks.DivergenceMonitor(valid, on_divergence=lambda diagnosis: None, confirm=confirm)
    model.fit(train, epochs=epochs, callbacks=[monitor], verbose=0)
    return model, monitor, train, valid


def pairs_of(rng, items, labels, count):
    """`([left, right], y)`: as many genuine as impostor pairs of `identities`, about; label 1 means the same."""
    left, right = rng.integers(0, len(labels), (2, count))
    right[::2] = left[::2] // 6 * 6 + rng.integers(0, 6, count // 2)
    return [items[left], items[right]], (labels[left] == labels[right]).astype("float32")


def plain(epochs=4, rate=3e-3):
    """`(model, monitor, (x, y), valid)` of a plain Keras program: |u − v| and a sigmoid."""
    rng = np.random.default_rng(3)
    (pairs, y), valid = pairs_of(rng, *identities(), 600), pairs_of(rng, *identities(20, seed=1), 400)
    body, inputs = encoder(), [keras.Input((12,)) for _ in range(2)]
    u, v = map(body, inputs)
    output = layers.Dense(1, "sigmoid")(layers.Lambda(lambda two: abs(two[0] - two[1]))([u, v]))
    model = keras.Model(inputs, output)
    model.compile(keras.optimizers.Adam(rate), loss="binary_crossentropy")
    monitor = ks.callbacks.DivergenceMonitor(valid, on_divergence=lambda diagnosis: None, train=(pairs, y))
    model.fit(pairs, y, batch_size=50, epochs=epochs, callbacks=[monitor], verbose=0)
    return model, monitor, (pairs, y), valid


def batchwise(epochs=4, **options):
    """`(model, monitor, train, valid)` of an encoder that is trained on batches of identities by a triplet loss."""
    keras.utils.set_random_seed(7)
    train, valid = ks.data.BalancedBatchSequence(*identities(), classes_per_batch=10, seed=0), identities(20, seed=1)
    model = encoder()
    model.compile(keras.optimizers.Adam(3e-3), loss=ks.losses.BatchTripletLoss(**{"margin": 0.2, **options}))
    monitor = ks.callbacks.DivergenceMonitor(valid, on_divergence=lambda diagnosis: None, train=train)
    callbacks = [ks.callbacks.SetEpoch(train), monitor]
    model.fit(train, epochs=epochs, callbacks=callbacks, verbose=0)
    return model, monitor, train, valid
