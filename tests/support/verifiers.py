"""Labelled samples and siamese models for the tests of the verifier.

x, labels = clusters(30, 6, seed=1)                    # (180, 6) around 30 centres
verifier = Verifier.calibrate(wrapper(), x, labels)
accepted, same = decisions_of(verifier, x, labels)     # of all pairs
"""

import keras
import numpy as np
from keras import layers

from keras_siamese.layers import SiameseWrapper

FEATURES = 6


def clusters(identities, samples, seed, spread=0.6):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    x = rng.normal(size=(identities, FEATURES))[labels] + spread * rng.normal(size=(len(labels), FEATURES))
    return x.astype("float32"), labels


def encoder_model():
    return keras.Sequential([keras.Input((FEATURES,)), layers.Dense(8), layers.UnitNormalization()])


def decisions_of(verifier, x, labels):
    """Decisions on all pairs by `verify`, and which pairs are genuine."""
    left, right = np.triu_indices(len(labels), 1)
    return verifier.verify(x[left], x[right]), labels[left] == labels[right]


def wrapper():
    return SiameseWrapper(encoder_model(), "manhattan")
