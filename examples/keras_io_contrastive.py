# %% [markdown]
# # The contrastive example of keras.io, shorter and better
#
# The Keras example [siamese_contrastive](https://keras.io/examples/vision/siamese_contrastive/) decides whether two
# images show the same digit. Here are its program, shortened, and the same task with this package: the same encoder,
# the same images, the same number of epochs. Both see only a part of MNIST, and few epochs, so that it takes a
# minute.
#
# The images are MNIST's, if the environment variable `KERAS_SIAMESE_DATA` names a folder with `mnist.npz`, the file
# of `keras.datasets.mnist`. Otherwise, they are the smaller ones that come with scikit-learn. You need matplotlib.

# %%
import os
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops

import keras_siamese as ks


def load_images():
    file = Path(os.environ.get("KERAS_SIAMESE_DATA", ".")) / "mnist.npz"
    if file.is_file():
        held = np.load(file)
        return held["x_train"][:5600, ..., None].astype("float32"), held["y_train"][:5600].astype(int)
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return np.kron(x.reshape(-1, 8, 8, 1), np.ones((1, 3, 3, 1))).astype("float32") * 16, y


keras.utils.set_random_seed(0)
x, y = load_images()
n = len(x) // 7
test, valid, train = (x[:n], y[:n]), (x[n : 2 * n], y[n : 2 * n]), (x[2 * n :], y[2 * n :])
epochs = 3


def build_encoder():
    return keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.BatchNormalization(),
            layers.Conv2D(4, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(10, activation="tanh"),
        ]
    )


# %% [markdown]
# ## The program of keras.io
#
# Each image is paired once with its own digit and once with another. Two towers share the encoder, a `Lambda` layer
# computes the distance, and the contrastive loss is written out. Label 1 means *different*. Two images are "the same"
# if their distance is at most .5.

# %%
rng = np.random.default_rng(0)


def make_pairs(x, y):
    left, right, different = np.repeat(np.arange(len(y)), 2), [], np.tile([0.0, 1.0], len(y))
    for digit in y:
        right += [rng.choice(np.flatnonzero(y == digit)), rng.choice(np.flatnonzero(y != digit))]
    return x[left], x[right], different


def euclidean_distance(towers):
    return ops.sqrt(ops.maximum(ops.sum(ops.square(towers[0] - towers[1]), axis=1, keepdims=True), 1e-7))


def contrastive_loss(different, distance):
    near, far = ops.square(distance), ops.square(ops.maximum(1 - distance, 0))
    return ops.mean((1 - different) * near + different * far)


tower, left, right = build_encoder(), keras.Input(x.shape[1:]), keras.Input(x.shape[1:])
siamese = keras.Model([left, right], layers.Lambda(euclidean_distance)([tower(left), tower(right)]))
siamese.compile("rmsprop", contrastive_loss)
*pairs, different = make_pairs(*train)
siamese.fit(pairs, different, batch_size=16, epochs=epochs, verbose=0)

*test_pairs, different = make_pairs(*test)
same = different == 0
accuracy_before = np.mean((siamese.predict(test_pairs, verbose=0)[:, 0] <= 0.5) == same)
print(f"keras.io: {accuracy_before:.4f} of {len(same)} test pairs are decided correctly")

# %% [markdown]
# ## The same with this package
#
# `PairSequence` draws as many pairs, but new ones in each epoch. `SiameseWrapper` is the model of two towers and a
# distance. `Verifier.calibrate` chooses the threshold on images that are used for nothing else.

# %%
keras.utils.set_random_seed(0)
siamese = ks.SiameseWrapper(build_encoder())
siamese.compile("rmsprop", ks.losses.ContrastiveLoss(margin=1.0))
pairs = ks.data.PairSequence(*train, batch_size=16, pairs_per_epoch=2 * len(train[0]), seed=0)
siamese.fit(pairs, epochs=epochs, verbose=0)

verifier = ks.Verifier.calibrate(siamese, *valid, criterion="accuracy")
accuracy = np.mean(verifier.verify(*test_pairs) == same)
print(f"SiameseWrapper: {accuracy:.4f}, with the distance {-verifier.threshold:.2f} as threshold")

# %% [markdown]
# ## All pairs of a batch
#
# A batch of eight images of each digit has thousands of pairs, and each image is encoded once. A batch loss compares
# all of them. It is compiled into the encoder itself, so no siamese model is needed.

# %%
keras.utils.set_random_seed(0)
encoder = build_encoder()
encoder.compile("rmsprop", ks.losses.MultiSimilarityLoss())
batches = ks.data.BalancedBatchSequence(
    *train, classes_per_batch=10, samples_per_class=8, batches_per_epoch=len(train[0]) // 40, seed=0
)
encoder.fit(batches, epochs=epochs, verbose=0, callbacks=[ks.callbacks.SetEpoch(batches)])

best = ks.Verifier.calibrate(encoder, *valid, criterion="accuracy")
accuracy_batch = np.mean(best.verify(*test_pairs) == same)
print(f"MultiSimilarityLoss: {accuracy_batch:.4f}")
before = f"the program of keras.io decides {accuracy_before:.1%} correctly"
print(f"Result: {accuracy_batch:.1%} of the test pairs are decided correctly; {before}")
assert accuracy_batch > accuracy_before

# %%
names = ("program of keras.io", "PairSequence,\ncalibrated threshold", "all pairs\nof a batch")
values = 1 - np.array([accuracy_before, accuracy, accuracy_batch])
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained", num="The share of wrong decisions")
bars = axes.barh(names, values, color=["grey", "tab:blue", "tab:blue"])
axes.bar_label(bars, fmt="{:.3f}", padding=3)
axes.set(title="wrong decisions on test pairs", xlim=(0, 1.15 * max(values)))
axes.invert_yaxis()
plt.show()

# %% [markdown]
# These are the pairs that the last verifier gets most wrong:

# %%
score = best.score(*test_pairs)
wrong = [np.flatnonzero(same)[np.argsort(score[same])[:5]], np.flatnonzero(~same)[np.argsort(-score[~same])[:5]]]
figure, axes = plt.subplots(2, 5, figsize=(8, 2.6), layout="constrained", num="The worst pairs")
for row, chosen, title in zip(axes, wrong, ("one digit, lowest scores", "two digits, highest scores"), strict=True):
    for axis, pair in zip(row, chosen, strict=True):
        axis.imshow(np.hstack([test_pairs[0][pair, ..., 0], test_pairs[1][pair, ..., 0]]), cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    row[2].set_title(title, fontsize=10)
plt.show()

# %% [markdown]
# ## For your own data
#
# - Replace `x` and `y` by your samples and their identities. `ks.data.ImageFolder` reads one folder for each
#   identity.
# - Here, as in the example of keras.io, the test images show the digits of the training images. If your network must
#   recognise new identities, split by identity: `ks.data.split_identities(x, y, (0.7, 0.15, 0.15))`.
# - Add `ks.callbacks.DivergenceMonitor(valid)` to `fit`, and it says why, if the accuracy does not follow the loss.
