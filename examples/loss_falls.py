# %% [markdown]
# # The loss falls, and nothing else happens
#
# A plain Keras program compares two drawings. Its loss falls and its accuracy looks good, but it cannot tell whether
# two drawings are the same. We watch it, read the diagnosis, and repair it.
#
# You need the extra `report`. The data come with scikit-learn: scans of handwritten digits, six of each drawing.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_siamese as ks
from keras_siamese.demo import scan_digits

keras.utils.set_random_seed(0)
x, drawing = scan_digits(seed=0)
print(x.shape, len(np.unique(drawing)), "drawings")

# %% [markdown]
# ## The program
#
# There is nothing of this package in it. Two rows are drawn at random, and the label says whether they show the same
# drawing. The network has two inputs, one tower, the difference of the embeddings, and a sigmoid. The drawings of the
# validation pairs do not occur in training.

# %%
rng = np.random.default_rng(0)


def random_pairs(rows, count):
    i, j = rng.choice(rows, (2, count))
    i, j = i[i != j], j[i != j]
    return [x[i], x[j]], (drawing[i] == drawing[j]).astype("float32")


def build():
    tower = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32),
        ]
    )
    left, right = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    difference = keras.layers.Lambda(lambda pair: keras.ops.abs(pair[0] - pair[1]))([tower(left), tower(right)])
    model = keras.Model([left, right], keras.layers.Dense(1, "sigmoid")(difference))
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])
    return model


training, held_out = np.flatnonzero(drawing < 300), np.flatnonzero((drawing >= 300) & (drawing < 330))
pairs, same = random_pairs(training, 6000)
v_pairs, v_same = random_pairs(held_out, 4000)
model = build()

# %% [markdown]
# ## Watch it
#
# One callback is added: `DivergenceMonitor` gets the validation pairs. After each epoch, it measures the equal error
# rate (EER): the share of wrong decisions at the threshold where both kinds of errors are equally frequent. An EER of
# one half is guessing.

# %%
monitor = ks.callbacks.DivergenceMonitor((v_pairs, v_same), train=(pairs, same), on_divergence=lambda found: None)
model.fit(pairs, same, epochs=8, batch_size=128, verbose=0, callbacks=[monitor])


def print_curves(history):
    for name in ("loss", "accuracy", "val_eer"):
        print(f"{name:8}", *(f"{value:.3f}" for value in history[name]))


before = model.history.history
print_curves(before)

assert before["loss"][-1] < before["loss"][0] / 5
assert before["accuracy"][-1] > 0.99 and before["val_eer"][-1] > 0.25

# %% [markdown]
# The loss falls to a small part of its first value, and nearly all training pairs are right. But the EER on new
# drawings stays high: the network is not much better than guessing.
#
# ## Read the diagnosis

# %%
diagnosis = monitor.diagnosis
print(diagnosis.verdict)
for finding in diagnosis.leading:
    print(f"\n{finding.cause}: {finding.summary}\n{finding.advice}")

assert diagnosis.leading[0].cause == "pair_imbalance"

# %% [markdown]
# Two rows that are drawn at random almost never show the same drawing. A network that always answers "different" is
# right nearly every time, so the accuracy says nothing, and the loss falls without any knowledge of drawings.
# `print(diagnosis)` shows everything that was examined, and `DivergenceMonitor(…, report="report.html")` writes a page.
#
# ## Repair it
#
# We take the first part of the advice. `PairSequence` draws new pairs in each epoch, half of them of one drawing. The
# model is as it was, and so are the number of pairs and the validation pairs.

# %%
balanced = ks.data.PairSequence(x[training], drawing[training], batch_size=128, pairs_per_epoch=6000, seed=0)
repaired = build()
monitor = ks.callbacks.DivergenceMonitor((v_pairs, v_same), on_divergence=lambda found: None)
repaired.fit(balanced, epochs=8, verbose=0, callbacks=[ks.callbacks.SetEpoch(balanced), monitor])

after = repaired.history.history
print_curves(after)
print(f"Result: held-out EER {before['val_eer'][-1]:.3f} before the repair, {after['val_eer'][-1]:.3f} after it")

assert after["val_eer"][-1] < before["val_eer"][-1] - 0.05
assert after["accuracy"][-1] < before["accuracy"][-1]

# %% [markdown]
# The accuracy is lower than before, because it is no longer enough to say "different". The network is better:

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", num="The loss and the EER of both programs")
for axis, name, title in zip(axes, ("loss", "val_eer"), ("training loss", "EER on new drawings"), strict=True):
    for history, label in ((before, "random pairs"), (after, "half of the pairs genuine")):
        axis.plot(range(1, 9), history[name], marker="o", label=label)
    axis.set(title=title, xlabel="epoch", ylim=(0, None))
axes[1].legend()
plt.show()

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", num="The outputs for held-out pairs")
for axis, network, title in zip(axes, (model, repaired), ("before", "after the repair"), strict=True):
    scores = network.predict(v_pairs, verbose=0)[:, 0]
    for kind, label in ((0, "two drawings"), (1, "one drawing")):
        axis.hist(scores[v_same == kind], np.linspace(0, 1, 21), density=True, alpha=0.6, label=label)
    axis.set(title=title, xlabel="output for a held-out pair", yticks=[])
axes[0].legend()
plt.show()

# %% [markdown]
# Before the repair, all outputs are near zero, whatever the pair shows. After it, pairs of one drawing get larger ones.
#
# ## For your own data
#
# - Keep your model and your `fit`. Pass the validation pairs to `DivergenceMonitor` as you pass them to `evaluate`.
# - Pass the training pairs as `train=`: many causes can be seen only there.
# - If you have items and their identities, `ks.data.PairSequence(x, labels)` draws the pairs. If you have only pairs,
#   use the second part of the advice, and weight the genuine ones.
# - `ks.repair(model, train, validation)` tries the repairs by itself.
