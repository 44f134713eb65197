"""The samples of the base programs, split by identity, with the faults of a recipe planted into them.

Blobs are Gaussian identities in six directions with noise in eighteen other directions. Digits are scikit-learn's 1,797
drawings; each drawing is an identity, and its scans are turned, shifted and noisy. Garments are images of Fashion-MNIST
at 14 × 14, scanned in the same way. Texts are pieces of source code, as counts or as token ids; see `texts`.

    parts = parts_of(recipe, seed=3)
    x, labels = parts["train"]                   # also "valid", and "check", which no training run uses
    x, labels = parts["seen"]                    # other samples of the training identities
"""

import os
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

import keras_siamese as ks
from planted import texts

IDENTITIES, SAMPLES = 150, 8  # in training
VALID_IDENTITIES, VALID_SAMPLES = 60, 6  # held out; as many again for the final check
SIGNAL, NUISANCE = 6, 18
PIECES = 64  # of a sample of text


def parts_of(recipe, seed):
    """Training, validation and final check, each `(x, labels)`, with the faults of the recipe."""
    x, labels = samples_of(recipe["data"], seed, recipe["noise"])
    per, rng = recipe["samples"], np.random.default_rng(seed)
    train = np.flatnonzero(labels < recipe["identities"] if recipe["identities"] else labels < IDENTITIES)
    train, seen = (train[rows] for rows in split(place_in_identity(labels[train]) < per))
    first = IDENTITIES
    valid, check = (
        np.flatnonzero((labels >= start) & (labels < start + VALID_IDENTITIES))
        for start in (first, first + VALID_IDENTITIES)
    )
    valid, check = (rows[place_in_identity(labels[rows]) < VALID_SAMPLES] for rows in (valid, check))
    if recipe["share_of_two"]:
        train = two_hold(train, labels, recipe["share_of_two"], rng)
    if recipe["leak"] == "images":
        valid = np.concatenate([valid, spread(train, labels, rng)])
    elif recipe["leak"] == "identities":
        others = np.flatnonzero(labels < IDENTITIES)
        valid = np.concatenate([valid, spread(np.setdiff1d(others, train), labels, rng)])
    parts = {
        name: (prepared(x[rows], recipe), labels[rows])
        for name, rows in (("train", train), ("seen", seen), ("valid", valid), ("check", check))
    }
    if recipe["label_noise"]:
        parts["train"] = parts["train"][0], flipped(parts["train"][1], recipe["label_noise"], rng)
    return parts


def split(chosen):
    """The places where `chosen` `(n,)` is true, and the others."""
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def place_in_identity(labels):
    """The position of each sample among the samples of its identity, for sorted `labels` `(n,)`."""
    starts = np.searchsorted(labels, labels, "left")
    return np.arange(len(labels)) - starts


def spread(rows, labels, rng):
    """Half a validation set of samples from `rows`, of few identities, so that there are genuine pairs."""
    chosen = rng.permutation(np.unique(labels[rows]))[: VALID_IDENTITIES // 2]
    rows = rows[np.isin(labels[rows], chosen)]
    return rows[place_in_identity(labels[rows]) < VALID_SAMPLES]


def two_hold(rows, labels, share, rng):
    """As many rows as in `rows`, of which two identities have the share `share`, by repeating their samples."""
    two = np.isin(labels[rows], [0, 1])
    count = int(share * len(rows))
    others = rng.choice(rows[~two], len(rows) - count, replace=False)
    return np.sort(np.concatenate([rng.choice(rows[two], count), others]))


def flipped(labels, share, rng):
    """`labels` with the share `share` of them replaced by labels of other samples."""
    wrong = rng.permutation(len(labels))[: int(share * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = rng.permutation(labels)[wrong]
    return noisy


def prepared(x, recipe):
    if x.dtype.kind == "i":  # token ids
        return x
    if recipe["blur"] and x.ndim == 4:
        from scipy.ndimage import gaussian_filter

        x = gaussian_filter(x, (0, recipe["blur"], recipe["blur"], 0))
    elif recipe["blur"]:  # vectors are averaged over neighbouring entries
        from scipy.ndimage import gaussian_filter1d

        x = gaussian_filter1d(x, 2 * recipe["blur"], axis=1)
    return (x * recipe["input_scale"] * recipe["rescale"]).astype("float32")


@lru_cache(maxsize=8)
def samples_of(data, seed, noise):
    """`(x, labels)` of all identities, sorted by identity."""
    rng = np.random.default_rng([seed, len(data)])
    count = IDENTITIES + 2 * VALID_IDENTITIES
    per = SAMPLES + VALID_SAMPLES  # some of each are used only for the leak of identities
    labels = np.repeat(np.arange(count), per)
    if data == "blobs":
        mix = np.linalg.qr(np.random.default_rng(99).normal(size=(SIGNAL + NUISANCE,) * 2))[0]
        own = rng.normal(0, 2, (count, SIGNAL))[labels] + rng.normal(0, 0.7 * noise, (len(labels), SIGNAL))
        return (np.concatenate([own, rng.normal(0, 2, (len(labels), NUISANCE))], axis=1) @ mix).astype(
            "float32"
        ), labels
    if data in ("text", "tokens"):  # more noise means shorter texts
        pieces, labels = texts.pieces_of(count, per, round(PIECES / noise**0.7), rng)
        is_counted = data == "text"
        return texts.counts(texts.trigrams(pieces)) if is_counted else texts.trigrams(pieces, step=4), labels
    chosen = rng.permutation(len(drawings(data)))[:count]
    scans = scanner(noise)(drawings(data)[chosen][labels], rng)
    scans = np.clip(scans + rng.normal(0, 0.08 * noise, scans.shape), 0, 1)
    return scans.astype("float32"), labels


@lru_cache(maxsize=2)
def drawings(data):
    """Images `(n, height, width, 1)` in [0, 1]."""
    if data == "digits":
        from sklearn.datasets import load_digits

        return load_digits().images[..., None] / 16.0
    folder = os.environ.get("KERAS_SIAMESE_DATA")
    if not folder:
        sys.exit("KERAS_SIAMESE_DATA must name the folder with fashion_mnist_small.npz (or leave out the garments)")
    held = np.load(Path(folder) / "fashion_mnist_small.npz")
    images = held["x_train" if "x_train" in held else held.files[0]][:3000] / 255.0
    return images.reshape(len(images), 14, 2, 14, 2).mean(axis=(2, 4))[..., None]


def scanner(strength=1.0):
    return ks.data.image_augmenter(
        rotation_range=20 * strength,
        width_shift_range=0.1 * strength,
        height_shift_range=0.1 * strength,
        zoom_range=min(0.15 * strength, 0.5),
        fill_mode="constant",
    )
