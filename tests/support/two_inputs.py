"""Small models of two inputs, for the tests of what a siamese model is made of.

model = two_towers(lambda left, right: DistanceLayer()([encoder(left), encoder(right)]))
model([left, right])                                        # (6, 4) twice → (6, 1)
"""

import keras
from keras import layers

FEATURES = 4


def encoder_model(name="encoder", dim=3):
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, layers.UnitNormalization()(layers.Dense(dim)(inputs)), name=name)


def two_towers(connect):
    """A functional model of two inputs; `connect(left, right)` gives its output."""
    left, right = keras.Input((FEATURES,), name="left"), keras.Input((FEATURES,), name="right")
    return keras.Model([left, right], connect(left, right), name="towers")
