# %% [markdown]
# # A pretrained encoder in two lines
#
# Fewer people are enough if the encoder has seen many images before. One line loads a network of `keras.applications`
# without its classifier, and one line adds a head that makes embeddings. Each image goes through the network once,
# and only the head is trained, on what came out.
#
# With `weights="imagenet"`, Keras downloads the weights. This page is made without downloads, so a small network is
# first pretrained here, to tell the ten digits apart. It is then used for another task: do two scans show the same
# drawing? The data come with scikit-learn. You need matplotlib.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import keras_siamese as ks
from keras_siamese.demo import scan_digits

keras.utils.set_random_seed(0)
x, drawing = scan_digits(seed=0)
x = 2 * np.kron(x, np.ones((1, 4, 4, 3), "float32")) - 1  # 32 × 32 pixels, three colours, from -1 to 1
print(x.shape)

# %% [markdown]
# ## What others have done: the pretraining
#
# The first 1200 drawings are "the images of the world". The network learns to tell which digit they show.

# %%
shape = {"input_shape": (32, 32, 3), "alpha": 0.25, "include_top": False, "pooling": "avg"}
network = keras.applications.MobileNet(**shape, weights=None)
classifier = keras.Sequential([network, layers.Dense(10)])
classifier.compile(
    keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
world = drawing < 1200
digit = load_digits().target[drawing]
history = classifier.fit(x[world], digit[world], epochs=5, batch_size=64, verbose=0).history
network.save_weights("digits.weights.h5")
print("accuracy in pretraining:", *(f"{value:.2f}" for value in history["accuracy"]))

# %% [markdown]
# ## The two lines
#
# The `weights` are a file here. `weights="imagenet"` is the same call. `preprocess_input` of the network's module,
# here `keras.applications.mobilenet`, scales photographs as the network needs them. KerasHub's line is
# `keras_hub.models.Backbone.from_preset("…")`.

# %%
backbone = keras.applications.MobileNet(**shape, weights="digits.weights.h5")  # or weights="imagenet"
head = keras.Sequential([layers.Dense(64), layers.UnitNormalization()])

# %% [markdown]
# ## Train the head
#
# `frozen_embeddings` computes the outputs of the network once, and keeps them in a file. An epoch of the head then
# takes a fraction of a second. The training data are a hundred new drawings.

# %%
own, names = x[~world], drawing[~world]
outputs = ks.frozen_embeddings(backbone, own, "cache", verbose=0)
parts = ks.data.split_identities(np.arange(len(own)), names, (1 / 6, 1 / 6, 2 / 3), seed=0)
train, valid, test = [(outputs[rows], who) for rows, who in parts]


def fit(encoder, x, who):
    encoder.compile("adam", ks.losses.MultiSimilarityLoss())
    batches = ks.data.BalancedBatchSequence(x, who, classes_per_batch=32, samples_per_class=6, seed=0)
    return encoder.fit(batches, epochs=30, verbose=0, callbacks=[ks.callbacks.SetEpoch(batches)])


def test_pairs(embeddings):
    """Whether two test scans show one drawing, and the cosine of their embeddings, for all pairs."""
    left, right = np.triu_indices(len(embeddings), 1)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return test[1][left] == test[1][right], (unit @ unit.T)[left, right]


fit(head, *train)
found = {"network alone": test_pairs(test[0]), "network and head": test_pairs(head.predict(test[0], verbose=0))}

# %% [markdown]
# For comparison, a small network is trained from the beginning on the same hundred drawings.

# %%
scratch = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        layers.AveragePooling2D(4),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64),
        layers.UnitNormalization(),
    ]
)
fit(scratch, own[parts[0][0]], parts[0][1])
found["from the beginning"] = test_pairs(scratch.predict(own[parts[2][0]], verbose=0))

eer = {name: ks.verification.eer(*pairs) for name, pairs in found.items()}
for name, pairs in found.items():
    strict = ks.verification.tar_at_far(*pairs, far=0.01)
    print(f"{name:18}  EER {eer[name]:.3f}, genuine pairs found at a false accept rate of .01: {strict:.3f}")
print(f"Result: EER {eer['network and head']:.3f}; without pretraining {eer['from the beginning']:.3f}")

assert eer["network and head"] < eer["network alone"] and eer["network and head"] < eer["from the beginning"]

# %%
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained", num="Errors on drawings that nobody was trained on")
for name, (same, score) in found.items():
    far, tar, _ = ks.verification.roc(same, score)
    axes.step(far, 1 - tar, label=name, where="post")
axes.set(xscale="log", xlim=(1e-4, 1), ylim=(0, 1))
axes.set(xlabel="share of impostor pairs that are accepted", ylabel="share of genuine pairs missed")
axes.legend(loc="lower left")
plt.show()

# %% [markdown]
# The pretrained network has the lower EER. It is not always better at strict thresholds, which are on the left of the
# picture: it was pretrained to ignore what distinguishes two drawings of one digit. Weights from a task that is more
# like yours may keep more of it. Compare the networks at the threshold that you will use.
#
# ## Use it
#
# Network and head together are the encoder of new images.

# %%
encoder = keras.Sequential([backbone, head])
verifier = ks.Verifier.calibrate(encoder, own[parts[1][0]], parts[1][1])
print(str(verifier.evaluate(own[parts[2][0]], parts[2][1])).splitlines()[1])

# %% [markdown]
# ## For your own data
#
# - Load any network of `keras.applications` or KerasHub with its weights, and give it images of the size and scale
#   that it was trained on.
# - `ks.data.ImageFolder(path, image_size)` reads one folder for each identity. `frozen_embeddings` reads its images
#   once.
# - If the head is not good enough and you have more data, train both: `encoder.compile(keras.optimizers.Adam(1e-5),
#   …)` and `fit` on images. `ks.callbacks.DivergenceMonitor` says if the rate is too large for the pretrained
#   weights.
