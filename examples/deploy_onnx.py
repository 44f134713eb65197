# %% [markdown]
# # Deployment with ONNX
#
# A network is trained and given its threshold, and then runs where there is no Keras: in a phone app, in a service in
# C++, in a browser. The exported file takes the two raw samples and puts out the decision.
#
# You need the extra `onnx`; on JAX, `onnx-jax`. The data come with scikit-learn: scans of handwritten digits.

# %%
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from keras import layers

import keras_siamese as ks
from keras_siamese.demo import scan_digits

keras.utils.set_random_seed(0)
x, drawing = scan_digits(seed=0)
train, valid, test = ks.data.split_identities(x, drawing, (0.5, 0.1, 0.4), seed=0)

# %% [markdown]
# ## Train, and choose the threshold
#
# What the samples need before the network, such as scaling, belongs into the encoder. So it is in the file too, and
# nobody has to write it again in another language.

# %%
encoder = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Rescaling(2.0, offset=-1.0),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64),
        layers.UnitNormalization(),
    ]
)
encoder.compile("adam", ks.losses.MultiSimilarityLoss())
batches = ks.data.BalancedBatchSequence(*train, classes_per_batch=32, samples_per_class=6, seed=0)
encoder.fit(batches, epochs=15, verbose=0, callbacks=[ks.callbacks.SetEpoch(batches)])

verifier = ks.Verifier.calibrate(encoder, *valid)
print(str(verifier.evaluate(*test)).splitlines()[1])

# %% [markdown]
# ## Export it
#
# The file has three outputs, each with a row for each pair: whether it is accepted, the probability that it shows the
# same identity, and the score.

# %%
verifier.export("verifier.onnx", format="onnx", verbose=False)
session = onnxruntime.InferenceSession("verifier.onnx")
print("inputs: ", *(f"{side.name} {side.shape[1:]} {side.type}" for side in session.get_inputs()), sep="\n  ")
print("outputs:", *(f"{side.name} {side.type}" for side in session.get_outputs()), sep="\n  ")

# %% [markdown]
# ## The same decisions
#
# We compare 2000 pairs of new drawings.

# %%
pairs = ks.data.PairSequence(*test, batch_size=2000, pairs_per_epoch=2000, frozen=True, seed=0)
(left, right), same = pairs[0]
accept, probability, score = (output[:, 0] for output in session.run(None, {"left": left, "right": right}))

print("equal decisions:", np.mean(accept == verifier.verify(left, right)))
print(f"largest difference of the scores: {np.abs(score - verifier.score(left, right)).max():.1g}")
assert np.array_equal(accept, verifier.verify(left, right))

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained", num="The scores of ONNX and of Keras")
axes.plot(verifier.score(left, right), score, ".", markersize=3)
axes.axvline(verifier.threshold, color="grey", linestyle="--", label="threshold")
axes.axhline(verifier.threshold, color="grey", linestyle="--")
axes.set(xlabel="score in Keras", ylabel="score in ONNX")
axes.legend()
plt.show()

# %% [markdown]
# ## The time for one pair
#
# A service often has one pair at a time. Keras then spends most of the time around the network, not in it. The file
# has only the network.

# %%


def milliseconds(decide, rounds=50):
    times = []
    for k in range(rounds):
        start = time.perf_counter()
        decide(left[k : k + 1], right[k : k + 1])
        times.append(1000 * (time.perf_counter() - start))
    return np.median(times)


in_keras = milliseconds(verifier.verify)
in_onnx = milliseconds(lambda a, b: session.run(None, {"left": a, "right": b}))
print(f"Result: equal decisions, in {in_keras:.1f} ms with Keras and in {in_onnx:.2f} ms with ONNX")
assert in_onnx < in_keras

# %% [markdown]
# ## For your own data
#
# - Export the verifier of any siamese model or encoder: `ks.Verifier.calibrate(model, *valid).export(…)`. Put
#   resizing and scaling of the inputs into the encoder first.
# - If an error costs more on one side, choose the threshold with `far=0.001` or with `criterion="cost"`.
# - To compare one sample with thousands that are enrolled, keep the embeddings, and export the encoder alone.
# - On TensorFlow and JAX, `format="tf_saved_model"` writes a SavedModel, and on TensorFlow `format="litert"` a file
#   for phones.
