# %% [markdown]
# # The triplet example of keras.io, shorter and measured
#
# The Keras example [siamese_network](https://keras.io/examples/vision/siamese_network/) trains with triplets: an
# anchor, a sample of the same identity, and one of another. It needs a layer for the two distances, a subclass of
# `keras.Model` with a `train_step` of its own, and file lists for the triplets, and ends with the similarities of one
# triplet. Here the same is a few lines, and it is measured on kinds of clothes that the network has not seen.
#
# The images are the first of Fashion-MNIST. Keras downloads them, unless the environment variable
# `KERAS_SIAMESE_DATA` names a folder with `fashion_mnist_small.npz`. You need matplotlib.

# %%
import os
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

import keras_siamese as ks


def load_images():
    file = Path(os.environ.get("KERAS_SIAMESE_DATA", ".")) / "fashion_mnist_small.npz"
    if file.is_file():
        held = np.load(file)
        return held["x_train"][..., None].astype("float32") / 255, held["y_train"].astype(int)
    (images, kinds), _ = keras.datasets.fashion_mnist.load_data()
    return images[:10000, ..., None].astype("float32") / 255, kinds[:10000].astype(int)


keras.utils.set_random_seed(0)
x, kind = load_images()
part = np.array([0, 1, 2, 0, 0, 0, 0, 2, 2, 1])[kind]  # five kinds for training, two for validation, three for the test
train, valid, test = [(x[part == k][:count], kind[part == k][:count]) for k, count in enumerate((5000, 1000, 1000))]
print(len(train[0]), "images for training,", len(valid[0]), "for validation,", len(test[0]), "for the test")

# %% [markdown]
# ## The program
#
# `SiameseWrapper` puts out both distances of a triplet, and `TripletLoss` asks that the second is larger by a margin.
# `TripletSequence` draws new triplets in each epoch. The monitor measures the equal error rate (EER) on the kinds for
# validation after each epoch, and Keras's `EarlyStopping` keeps the best weights: a network that is trained longer
# learns more about the training kinds, but not about others.

# %%
encoder = keras.Sequential(
    [
        keras.Input(x.shape[1:]),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(64),
        layers.UnitNormalization(),
    ]
)
untrained = keras.models.clone_model(encoder)
untrained.set_weights(encoder.get_weights())

siamese = ks.SiameseWrapper(encoder)
siamese.compile("adam", ks.losses.TripletLoss(margin=0.2))
triplets = ks.data.TripletSequence(*train, batch_size=64, triplets_per_epoch=6000, seed=0)
watchers = [
    ks.callbacks.VerificationMonitor(valid),
    keras.callbacks.EarlyStopping("val_eer", mode="min", patience=3, restore_best_weights=True),
]
history = siamese.fit(triplets, epochs=8, verbose=0, callbacks=watchers).history
for name in ("loss", "val_eer"):
    print(f"{name:8}", *(f"{value:.3f}" for value in history[name]))

# %% [markdown]
# ## The test
#
# All pairs of the test images are compared. Their kinds have been used for nothing else.

# %%
left, right = np.triu_indices(len(test[0]), 1)
same = test[1][left] == test[1][right]
embeddings = {"untrained": untrained.predict(test[0], verbose=0), "trained": encoder.predict(test[0], verbose=0)}
eer = {name: ks.verification.eer(same, (rows @ rows.T)[left, right]) for name, rows in embeddings.items()}
for name, value in eer.items():
    print(f"{name:9}  EER on new kinds {value:.3f}")
print(f"Result: EER {eer['trained']:.3f} on kinds of clothes that are new; untrained {eer['untrained']:.3f}")
assert eer["trained"] < eer["untrained"]

# %% [markdown]
# For some images, the nearest of all others, in the trained network:

# %%
probes = [np.flatnonzero(test[1] == one)[0] for one in np.unique(test[1])]
similarity = embeddings["trained"] @ embeddings["trained"].T
figure, axes = plt.subplots(3, 7, figsize=(5.6, 2.7), layout="constrained", num="Three images and their neighbours")
for row, probe in zip(axes, probes, strict=True):
    for axis, image in zip(row, np.argsort(-similarity[probe])[:7], strict=True):
        axis.imshow(test[0][image, ..., 0], cmap="gray_r")
        wrong = test[1][image] != test[1][probe]
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color="red" if wrong else "lightgrey", linewidth=2)
axes[0, 0].set_title("image", fontsize=10)
axes[0, 3].set_title("nearest others (red: of another kind)", fontsize=10)
plt.show()

# %% [markdown]
# ## For your own data
#
# - Replace `x` and `kind` by your samples and identities; `ks.data.split_identities` makes the three parts.
# - With hundreds of identities in place of five, the network learns much more about new ones.
# - If you have a program with triplets, keep it, and add `ks.callbacks.DivergenceMonitor(valid)` to its `fit`.
# - `ks.losses.BatchTripletLoss` compares all triplets of a batch. It is compiled into the encoder itself.
