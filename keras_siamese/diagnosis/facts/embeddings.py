"""Facts of the held-out embeddings: how they are spread, which dimensions they use, who is near whom.

Contract: embeddings `(n, dim)`, distances and labels in; one number out, or a few by name. NumPy only, fast enough for
a few thousand rows in every epoch. No fact decides anything: limits are in `limits.py`.

    spread(embeddings)                              # 1 uniform on the sphere, 0 collapsed
    active_fraction(impostor_distances, margin)     # share of impostor pairs that the hinge still moves
"""

import numpy as np

from keras_siamese import verification
from keras_siamese.diagnosis import limits
from keras_siamese.neighbours import nearest_blocks


def of_embeddings(run):
    """The shape of the held-out embeddings."""
    z, trials = run.valid.embeddings, run.valid.trials
    impostors, genuine = ~trials.same, trials.same
    compared = normalised(z) if run.scale_free else z
    found = {
        "spread": spread(z),
        "spacing": spacing(compared, trials.left[impostors], trials.right[impostors]),
        "effective_rank": effective_rank(z),
        "uniformity": uniformity(z),
        "alignment": alignment(z, trials.left[genuine], trials.right[genuine]),
        "embedding_dim": z.shape[1],
        "norm_variation": norm_variation(z),
    }
    if run.output_kind == "distance" and np.max(run.valid.scores) <= 0:
        found["intra_inter_ratio"] = intra_inter_ratio(trials.same, -run.valid.scores)
    if len(z) > 12:
        found["hub_skew"], found["anti_hubs"] = hubness(z)
        if trials.identities is not None:
            found["purity"], found["purity_null"], found["purity_se"] = purity(z, trials.identities)
    return found


def of_swaps(run):
    """The held-out EER under other comparisons of the same embeddings, by the names `eer_cosine`, `eer_euclidean`; the
    gain of the better one, and its lower bound over identities.
    """
    trials = run.valid.trials
    if run.is_unshared:
        return {}
    found, used = {"swap_gain": 0.0, "swap_gain_low": 0.0}, None
    for name, scores in scores_by(run.valid.embeddings, trials.left, trials.right).items():
        found[f"eer_{name}"] = verification.eer(trials.same, scores)
        gain = run.eer.estimate - found[f"eer_{name}"]
        if gain > max(limits.LEAST_GAIN, found["swap_gain"]):  # an interval takes a hundred sorts
            used = used or replicates(run, run.valid.scores)
            low = np.quantile(used.replicates - replicates(run, scores).replicates, 0.025)
            found["swap_gain"], found["swap_gain_low"] = gain, float(low)
    return found


def replicates(run, scores):
    """`Interval` of the EER of `scores` on the held-out pairs; one seed, so that two of them differ by their scores."""
    trials = run.valid.trials
    return verification.bootstrap(["eer"], trials.same, scores, *trials.pair_identities, samples=100)["eer"]


def norm_variation(embeddings):
    """Standard deviation of the rows' norms over their mean."""
    norms = np.linalg.norm(np.asarray(embeddings, float), axis=1)
    return norms.std() / norms.mean() if norms.mean() else 0.0


def spread(embeddings):
    """Mean over dimensions of std(z / ‖z‖) · √dim: 1 for a uniform sphere, 0 when every input gives one embedding.

    It falls with the number of dimensions in use as well: k of them give about √(k / dim); see `spacing`.

    Chen, He, *Exploring Simple Siamese Representation Learning*, CVPR 2021, https://arxiv.org/abs/2011.10566

    >>> round(spread(np.random.default_rng(0).normal(size=(2000, 32))), 2)
    1.0
    """
    z = normalised(embeddings)
    return float(z.std(axis=0).mean() * np.sqrt(z.shape[1]))


def spacing(embeddings, left, right):
    """Median distance of the rows `left`, `right` `(n,)` of `embeddings` over √2 times their root mean square norm.

    1 for pairs about a sphere, in any dimension and for any number of clusters, 0 where at least half of the pairs are
    one point; few outliers do not move it. Only zeros give 0.

    >>> spacing(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), [0, 0], [1, 2])
    1.0
    """
    z = np.asarray(embeddings, float)
    scale = np.sqrt(2 * np.mean(np.sum(z**2, axis=1)))
    return float(np.median(np.linalg.norm(z[left] - z[right], axis=1)) / scale) if scale else 0.0


def effective_rank(embeddings):
    """exp(−Σ p log p) of the singular values' shares p of the centred embeddings: dimensions in use, 1 … dim.

    0 for a single point.

    Roy, Vetterli, *The effective rank: a measure of effective dimensionality*, EUSIPCO 2007,
    https://ieeexplore.ieee.org/document/7098875

    >>> round(effective_rank(np.eye(4)), 1)
    3.0
    """
    centred = np.asarray(embeddings, float) - np.mean(embeddings, axis=0, dtype=float)
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular.sum() == 0:
        return 0.0
    p = singular[singular > singular[0] * 1e-9] / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def uniformity(embeddings):
    """log of the mean of exp(−2‖z_i − z_j‖²) over all pairs of unit vectors: −3.88 for a uniform sphere of 64
    dimensions, near −4 in more, 0 where all are one point.

    Wang, Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere*, ICML 2020, https://arxiv.org/abs/2005.10242

    >>> round(uniformity(np.eye(4)), 2)
    -4.0
    """
    z = normalised(embeddings)
    kernel = np.exp(4 * (z @ z.T) - 4)  # ‖a − b‖² = 2 − 2ab
    n = len(z)
    return float(np.log((kernel.sum() - np.trace(kernel)) / (n * (n - 1))))


def alignment(embeddings, left, right):
    """Mean of ‖z − z⁺‖² over genuine pairs of rows `left`, `right` `(n,)`, of unit vectors: 0 for one point an
    identity, about 2 at chance.

    Wang, Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere*, ICML 2020, https://arxiv.org/abs/2005.10242

    >>> alignment(np.eye(2), [0], [1])
    2.0
    """
    z = normalised(embeddings)
    return float(np.mean(np.sum((z[left] - z[right]) ** 2, axis=1)))


def neighbours(embeddings, k):
    """The `k` nearest other rows of each row by the cosine distance, nearest first: `(n, k)`."""
    z = normalised(embeddings)
    return np.concatenate([rows for _, rows in nearest_blocks(z, z, min(k, len(z) - 1), own=True)])


def purity(embeddings, identities, k=10, permutations=20):
    """`(purity, null, standard error)`: the share of the `k` nearest neighbours that are of a row's own identity, and
    the mean and the standard deviation of the same under permuted `identities` `(n,)`.

    >>> z = np.repeat(np.eye(3), 4, axis=0)
    >>> purity(z, np.repeat([0, 1, 2], 4), k=3)[0]
    1.0
    """
    identities = np.asarray(identities)
    nearest = neighbours(embeddings, k)
    rng = np.random.default_rng(0)

    def share(codes):
        return float(np.mean(codes[nearest] == codes[:, None]))

    null = [share(rng.permutation(identities)) for _ in range(permutations)]
    return share(identities), float(np.mean(null)), float(np.std(null, ddof=1))


def hubness(embeddings, k=10):
    """`(skew, anti_hubs)` of how often a row is among the `k` nearest of another: the third standardised moment of
    these counts, and the share of rows that are nobody's neighbour.

    Radovanović, Nanopoulos, Ivanović, *Hubs in Space*, JMLR 11, 2010,
    https://jmlr.org/papers/v11/radovanovic10a.html

    >>> hubness(np.repeat(np.eye(3), 4, axis=0), k=3)
    (0.0, 0.0)
    """
    nearest = neighbours(embeddings, k)
    count = np.bincount(nearest.ravel(), minlength=len(nearest)).astype(float)
    deviation = count - count.mean()
    scale = float(np.sqrt(np.mean(deviation**2)))
    skew = float(np.mean(deviation**3) / scale**3) if scale else 0.0
    return skew, float(np.mean(count == 0))


def scores_by(embeddings, left, right):
    """Scores `(n,)` of the pairs of rows under other comparisons of the same embeddings: "cosine" and "euclidean"."""
    z = np.asarray(embeddings, float)
    unit = normalised(embeddings)
    return {
        "cosine": np.sum(unit[left] * unit[right], axis=1),
        "euclidean": -np.linalg.norm(z[left] - z[right], axis=1),
    }


def intra_inter_ratio(same, distances):
    """Mean distance of genuine over that of impostor pairs `(n,)`: 1 at chance, 0 for perfect clusters."""
    same, distances = np.asarray(same, bool), np.asarray(distances, float)
    between = float(np.mean(distances[~same]))
    return float(np.mean(distances[same])) / between if between else 1.0


def active_fraction(distances, margin):
    """Share of impostor `distances` `(n,)` inside the margin, on which a contrastive hinge still has a gradient."""
    return float(np.mean(np.asarray(distances) < margin))


def normalised(embeddings):
    z = np.asarray(embeddings, float)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
