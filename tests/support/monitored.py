"""Runs that the tests of monitors share: clusters of identities, an encoder, and a fit of a few steps.

On TensorFlow everything is eager.

    fit(compiled(), VerificationMonitor(VALID), epochs=2)
    by_hand(model)                                          # the figures that the monitor writes
"""

import keras
import numpy as np
from keras import layers

import keras_siamese as ks
from keras_siamese import verification
from keras_siamese.data import PairSequence
from keras_siamese.layers import SiameseWrapper

FEATURES = 5
EAGERLY = keras.backend.backend() == "tensorflow"  # a graph takes longer to trace than these runs take


def clusters(identities, samples, seed, spread=0.7):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    x = rng.normal(size=(identities, FEATURES))[labels] + spread * rng.normal(size=(len(labels), FEATURES))
    return x.astype("float32"), labels


TRAIN, VALID = clusters(12, 5, seed=1), clusters(15, 4, seed=2)


def encoder_model(dim=4):
    encoder = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(dim), layers.UnitNormalization()])
    encoder.run_eagerly = EAGERLY
    return encoder


def compiled(model=None, loss=None, **options):
    model = SiameseWrapper(encoder_model()) if model is None else model
    model.compile(keras.optimizers.SGD(0.05), loss=loss or ks.losses.ContrastiveLoss(), run_eagerly=EAGERLY, **options)
    return model


def pairs(**options):
    return PairSequence(*TRAIN, **{"batch_size": 30, "seed": 0, **options})


def fit(model, callbacks, epochs=2, data=None, **options):
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    data = pairs() if data is None else data
    return model.fit(data, epochs=epochs, callbacks=callbacks, verbose=0, **options)


def by_hand(model, validation=VALID):
    """Figures of the weights as they are, from embeddings that `predict` gives."""
    x, labels = validation
    z = (model.encoder if hasattr(model, "encoder") else model).predict(x, verbose=0)
    left, right = np.triu_indices(len(labels), 1)
    same, scores = labels[left] == labels[right], -np.linalg.norm(z[left] - z[right], axis=1)
    return {
        "val_eer": verification.eer(same, scores),
        "val_auc": verification.auc(same, scores),
        "val_tar@far=0.01": verification.tar_at_far(same, scores, 0.01),
        "val_d_prime": verification.d_prime(same, scores),
    }
