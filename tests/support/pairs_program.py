"""A siamese program in plain Keras, as a text: it prints a digest of what it computed and exits with 3."""

PROGRAM = """
import hashlib, os, random, sys
import keras, numpy as np
from keras import layers, ops

keras.utils.set_random_seed(3)
print(sys.argv[1:], __name__, os.path.basename(sys.path[0]))
rng = np.random.default_rng(0)
who = np.repeat(np.arange(30), 6)
items = (rng.normal(size=(30, 8))[who] + 0.3 * rng.normal(size=(180, 8))).astype("float32")

def pairs(people, count):
    rows = np.flatnonzero(np.isin(who, people))
    left, right = rng.choice(rows, count), rng.choice(rows, count)
    for k in range(0, count, 2):
        right[k] = rng.choice(rows[who[rows] == who[left[k]]])
    return [items[left], items[right]], (who[left] == who[right]).astype("float32")

x, y = pairs(range(20), 120)
held = pairs(range(20, 30), 120)

def made():
    tower = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.3)])
    a, b = keras.Input((8,)), keras.Input((8,))
    merged = layers.Lambda(lambda pair: ops.abs(pair[0] - pair[1]))([tower(a), tower(b)])
    model = keras.Model([a, b], layers.Dense(1, "sigmoid")(merged))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model

first, second = made(), made()
history = first.fit(x, y, validation_data=held, epochs=3, verbose=0)
print(sorted(history.history), [float(value).hex() for value in history.history["loss"]])
plain = keras.Sequential([keras.Input((8,)), layers.Dense(1, "sigmoid")])
plain.compile("adam", "binary_crossentropy")
plain.fit(x[0], y, validation_data=(held[0][0], held[1]), verbose=0)
second.fit(x, y, validation_split=0.25, verbose=0)
digests = [hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in one.get_weights())) for one in (first, second)]
print([one.hexdigest() for one in digests], random.random(), np.random.rand())
print(ops.convert_to_numpy(keras.random.normal((2,))), layers.Dense(2).name)
sys.exit(3)
"""
