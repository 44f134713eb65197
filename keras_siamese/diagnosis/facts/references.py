"""References: how well the held-out pairs are told apart by something else than the trained network.

Four encoders embed the same items: the raw inputs themselves, compared by the cosine; a linear model of them, fitted on
the training data, by the Euclidean distance; the network with new weights, as it compares its own embeddings; and an
encoder that the user passes, by the cosine. The EER of each is compared with that of the trained network on the same
pairs and identities.

Contract: pure functions of arrays; `of_references` asks the run for its samples. A reference that cannot be made is
missing: samples are dicts or no numbers, or no identity and no genuine pair of the training data is known. At most
64 dimensions, 4,096 numbers of a sample and as many samples as the diagnosis scores: about a second.

    project = linear_encoder(x, deviations(x, identities=labels))
    distances(project(held_out), left, right)        # (n,), smaller for more similar pairs
"""

import numpy as np

from keras_siamese import verification
from keras_siamese.data.sources import count_samples, take
from keras_siamese.diagnosis.facts.training import copied_embeddings
from keras_siamese.diagnosis.facts.verification import gain_error, widening
from keras_siamese.scoring import embed, score_embeddings

MOST_DIMENSIONS = 64
MOST_NUMBERS = 4096  # of a sample; of larger samples as many, evenly spaced
BLOCK = 256  # samples that are read at a time
TITLES = {
    "cosine": "raw inputs by cosine",
    "linear": "linear model on raw inputs",
    "untrained": "untrained network",
    "given": "your reference",
}


def of_references(observed):
    """The held-out EER of each reference, `reference_NAME`; the EER of the network less that, `behind_NAME`; and the
    standard error of this difference over identities, `behind_NAME_se`.
    """
    valid, found = observed.valid, {}
    same, sides = valid.same, valid.trials.pair_identities
    for name, scores in reference_scores(observed).items():
        if not np.isfinite(scores).all():
            continue
        found[f"reference_{name}"] = verification.eer(same, scores)
        found[f"behind_{name}"] = observed.eer.estimate - found[f"reference_{name}"]
        error = gain_error(same, valid.scores, scores, *sides)
        found[f"behind_{name}_se"] = error * widening(valid.trials)
    return found


def reference_scores(observed):
    """Scores `(n,)` of the held-out pairs by each reference that can be made, by name."""
    trials, anatomy, found = observed.valid.trials, observed.siamese, {}
    left, right = trials.left, trials.right
    if has_numbers(trials.items):
        found["cosine"] = cosines(flat(trials.items), left, right)
        if observed.linear is not None:
            found["linear"] = linear_scores(observed.linear, trials)
    embeddings = copied_embeddings(observed.untrained, trials.items)
    if embeddings is not None:
        found["untrained"] = score_embeddings(anatomy, embeddings, left, right)
    if observed.reference is not None:
        found["given"] = cosines(embedded(observed.reference, trials.items), left, right)
    return found


def linear_scores(linear, trials):
    """Scores `(n,)` of `trials` by a `linear_encoder`: minus the Euclidean distance of its features."""
    return -distances(linear(flat(trials.items)), trials.left, trials.right)


def embedded(reference, items):
    """Embeddings `(n, dim)` of the `items` by the user's `reference`, an encoder or a function of a batch of items."""
    embeddings = np.asarray(embed(reference, items), float)
    if embeddings.ndim < 2 or len(embeddings) != count_samples(items):
        wanted = f"an embedding for each of {count_samples(items)} items, as an array (items, dim)"
        raise ValueError(f"`reference` must give {wanted}; got the shape {embeddings.shape}")
    return embeddings.reshape(len(embeddings), -1)


def check_reference(reference, items):
    """Raise what is wrong with the user's `reference`, None or as `embedded` takes it, on a few of the `items`."""
    if reference is not None:
        embedded(reference, take(items, slice(0, 4)))


def check_callable(reference):
    """Raise if `reference`, None or the user's encoder, cannot be called."""
    if reference is not None and not callable(reference):
        raise TypeError(f"`reference` must be a Keras model or a function of a batch of items; got {reference!r}")


def has_numbers(items):
    """Whether samples are arrays of numbers, so that they can be compared themselves."""
    return hasattr(items, "dtype") and items.dtype.kind in "fiub" and len(items.shape) > 1


def flat(items):
    """Samples `(n, …)` as rows `(n, numbers)`, float32; of large samples `MOST_NUMBERS`, evenly spaced."""
    size = int(np.prod(items.shape[1:]))
    places = np.unique(np.linspace(0, size - 1, min(size, MOST_NUMBERS)).astype(int))
    blocks = (take(items, slice(start, start + BLOCK)) for start in range(0, count_samples(items), BLOCK))
    return np.concatenate([np.asarray(block).reshape(len(block), -1)[:, places] for block in blocks]).astype("float32")


def cosines(embeddings, left, right):
    """Cosine `(n,)` of the rows `left` and `right` of `embeddings` `(items, dim)`."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return np.einsum("ij,ij->i", unit[left], unit[right])


def distances(embeddings, left, right):
    """Euclidean distance `(n,)` of the rows `left` and `right` of `embeddings` `(items, dim)`."""
    return np.sqrt(np.sum((embeddings[left] - embeddings[right]) ** 2, axis=1))


def fitted(trials, shape):
    """`linear_encoder` of the training `trials`; None if their samples are no numbers, or not of the `shape`."""
    if not has_numbers(trials.items) or trials.items.shape[1:] != shape:
        return None
    x = flat(trials.items)
    if not np.isfinite(x).all() or not x.std() > 0:
        return None
    apart = deviations(x, trials.identities, trials.left[trials.same], trials.right[trials.same])
    return linear_encoder(x, apart) if len(apart) > 1 else None


def deviations(x, identities=None, left=(), right=()):
    """How samples `x` `(n, d)` of one identity differ, as rows whose mean square is the variance within identities.

    These are differences from the mean of the identity; of genuine pairs `left`, `right` without known identities, half
    of their differences.

    >>> x = np.array([[1.0], [3.0], [10.0], [10.0]])
    >>> deviations(x, np.array([0, 0, 1, 1])).ravel().round(2).tolist()
    [-1.41, 1.41, 0.0, 0.0]
    >>> deviations(x, None, np.array([0]), np.array([1])).ravel().round(2).tolist()
    [-1.41]
    """
    if identities is None:
        return (x[left] - x[right]) / np.sqrt(2)
    _, codes, counts = np.unique(identities, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), x.shape[1]), x.dtype)
    np.add.at(means, codes, x)
    means /= counts[:, None]
    rows = counts[codes] > 1
    factor = np.sqrt(counts[codes] / np.maximum(counts[codes] - 1, 1))
    return ((x - means[codes]) * factor[:, None])[rows]


def linear_encoder(x, apart, dimensions=MOST_DIMENSIONS):
    """A function from samples `(m, d)` to linear features `(m, k)`, k ≤ `dimensions`, that suit the Euclidean distance.

    Principal components of `x` `(n, d)` are turned and scaled so that the variance within identities, estimated from
    `apart` `(rows, d)` with shrinkage, is 1 in each direction (linear discriminant analysis). A direction with the
    variance 1 + λ over all samples then has the weight √(λ / (1 + λ)): one that holds no identity counts nothing.

    Fisher, *The use of multiple measurements in taxonomic problems*, 1936,
    https://doi.org/10.1111/j.1469-1809.1936.tb02137.x. Ledoit, Wolf, *A well-conditioned estimator for
    large-dimensional covariance matrices*, 2004, https://doi.org/10.1016/S0047-259X(03)00096-4
    """
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf
    from sklearn.decomposition import PCA

    pca = PCA(min(dimensions, len(x) - 1, x.shape[1]), random_state=0).fit(x)
    components = pca.components_.T.astype(float)
    all_over = np.diag(pca.explained_variance_.astype(float))
    within, _ = ledoit_wolf(apart @ components, assume_centered=True)
    floor = 1e-9 * np.trace(all_over) * np.eye(len(all_over))  # keeps it invertible if no identity varies
    total, turned = eigh(all_over, within + floor)
    between = np.maximum(total - 1, 0)
    matrix = components @ turned * np.sqrt(between / (1 + between))
    return lambda samples: (samples - pca.mean_) @ matrix


def references_of(facts):
    """`(name, title, EER)` of each reference among the `facts`, the best first."""
    known = [
        (name, title, facts[f"reference_{name}"]) for name, title in TITLES.items() if f"reference_{name}" in facts
    ]
    return sorted(known, key=lambda one: one[2])
