"""CI's use of the installed wheel outside of the checkout, whose path is the argument: five lines that train."""

import sys

import keras
import numpy as np

import keras_siamese as ks

x, labels = np.random.default_rng(0).normal(size=(40, 4)).astype("float32"), np.repeat(np.arange(10), 4)
encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.UnitNormalization()])
siamese = ks.SiameseWrapper(encoder, distance="euclidean")
siamese.compile("adam", loss=ks.losses.ContrastiveLoss(margin=1.0))
history = siamese.fit(ks.data.PairSequence(x, labels, batch_size=8, seed=0), epochs=2, verbose=0).history

assert not ks.__file__.startswith(sys.argv[1]), f"{ks.__file__} is the checkout's"
assert np.isfinite(history["loss"]).all(), history
print(f"keras {keras.__version__} on {keras.backend.backend()}: loss {history['loss']}, from {ks.__file__}")  # noqa: T201
