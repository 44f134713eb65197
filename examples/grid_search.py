# %% [markdown]
# # A grid search over a siamese network
#
# Keras no longer has `KerasClassifier`, and scikit-learn's `GridSearchCV` divides pairs. So the same drawing can be
# in the training pairs and in the validation pairs, and the score is too good. `SiameseGridSearch` takes its place:
# its folds divide identities.
#
# You need the extra `tuner` and matplotlib. The data come with scikit-learn: scans of handwritten digits, six of each
# drawing.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers
from sklearn.model_selection import KFold

import keras_siamese as ks
from keras_siamese.demo import scan_digits

keras.utils.set_random_seed(0)
x, drawing = scan_digits(seed=0)
x, drawing = x[:900], drawing[:900]
print(len(np.unique(drawing)), "drawings")


def build(margin, embedding_dim, learning_rate=3e-3):
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(embedding_dim),
            layers.UnitNormalization(),
        ]
    )
    siamese = ks.SiameseWrapper(encoder)
    siamese.compile(keras.optimizers.Adam(learning_rate), ks.losses.ContrastiveLoss(margin))
    return siamese


# %% [markdown]
# ## What is wrong with folds of pairs
#
# Before, a search was written like this:
#
#     classifier = KerasClassifier(create_model, margin=1.0, epochs=20)
#     grid = GridSearchCV(classifier, {"margin": [0.5, 1.0]}, cv=3).fit(pairs, same)
#
# We train one model on two of three folds, once with folds of pairs and once with folds of drawings, and measure the
# EER on the third: the share of wrong decisions where both kinds of errors are equally frequent.

# %%
rng = np.random.default_rng(0)


def draw(rows, count=4000):
    left = rng.choice(rows, count)
    right = np.array([rng.choice(rows[(drawing[rows] == drawing[i]) == (k % 2)]) for k, i in enumerate(left)])
    return left, right


def eer_of(training, held_out):
    (left, right), (v_left, v_right) = training, held_out
    siamese = build(margin=1.0, embedding_dim=32)
    same = (drawing[left] == drawing[right]).astype("float32")
    siamese.fit([x[left], x[right]], same, epochs=15, batch_size=64, verbose=0)
    distance = siamese.predict([x[v_left], x[v_right]], batch_size=512, verbose=0)[:, 0]
    return ks.verification.eer(drawing[v_left] == drawing[v_right], -distance)


pairs = np.stack(draw(np.arange(len(x))), axis=1)
inner, outer = next(KFold(3, shuffle=True, random_state=0).split(pairs))
eer_pairs = eer_of(pairs[inner].T, pairs[outer].T)

inner, outer = next(ks.data.IdentityKFold(3, seed=0).split(x, drawing))
eer_drawings = eer_of(draw(inner, 2667), draw(outer, 1333))
print(f"EER with folds of pairs {eer_pairs:.3f}, with folds of drawings {eer_drawings:.3f}")
assert eer_pairs < eer_drawings - 0.02

# %% [markdown]
# The first figure is for drawings that the network knows. New ones get the second.
#
# ## The search
#
# `SiameseGridSearch` takes the function that builds the model, and items with their identities in place of pairs. It
# draws new pairs in each epoch.

# %%
grid = {"margin": [0.25, 0.75, 1.25], "embedding_dim": [4, 32]}
search = ks.SiameseGridSearch(build, grid, cv=3, epochs=25, batch_size=64, verbose=0)
search.fit(x, drawing)
print(search.best_params_)
settings = len(search.cv_results_["params"])
print(f"Result: EER {-search.best_score_:.3f} on new drawings, with the best of {settings} settings")

# %%
scores = -np.array(search.cv_results_["mean_test_score"])
table = np.full((3, 2), np.nan)
for score, params in zip(scores, search.cv_results_["params"], strict=True):
    table[grid["margin"].index(params["margin"]), grid["embedding_dim"].index(params["embedding_dim"])] = score

figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained", num="The EER of each combination")
axes.imshow(table, cmap="viridis_r", aspect="auto")
for (row, column), score in np.ndenumerate(table):
    color = "white" if score > table.mean() else "black"
    axes.text(column, row, f"{score:.3f}", ha="center", va="center", color=color)
axes.set(xticks=range(2), xticklabels=grid["embedding_dim"], xlabel="embedding_dim")
axes.set(yticks=range(3), yticklabels=grid["margin"], ylabel="margin", title="EER on held-out drawings")
plt.show()
assert scores.min() == -search.best_score_ and scores.max() > scores.min() + 0.01

# %% [markdown]
# ## For your own data
#
# - Change the two lines: `ks.SiameseGridSearch(build, grid, cv=3)`, and `fit(x, labels)` in place of `fit(pairs,
#   same)`. The names `best_params_`, `best_score_`, `cv_results_` are those of `GridSearchCV`.
# - `objective="val_auc"` or another figure of `VerificationMonitor` replaces the EER. A greater `best_score_` is
#   better, so an EER is negated.
# - `on_divergence="stop"` ends combinations whose loss falls without learning anything, and `search.causes_` says
#   why.
# - For larger spaces, `ks.tuning.SiameseHyperModel` goes into any tuner of KerasTuner.
