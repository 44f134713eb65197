"""Signals: what a trained embedding looks like from outside, each a pure function of arrays.

Contract: embeddings `(n, dim)`, distances or scores `(n,)` and labels in; one number out, or a few by name. NumPy only,
for a few thousand rows, fast enough for every epoch. No signal decides anything: thresholds live with the causes.

    spread(embeddings)                              # 1 uniform on the sphere, 0 collapsed
    standard_errors(same, scores, left, right)      # {"auc": …, "eer": …}, over identities
    active_fraction(impostor_distances, margin)     # share of impostor pairs that the hinge still moves
"""

import numpy as np


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
    """The `k` nearest other rows of each of the unit vectors, nearest first: `(n, k)`."""
    z = normalised(embeddings).astype("float32")
    similarity = z @ z.T
    np.fill_diagonal(similarity, -np.inf)
    k = min(k, len(z) - 1)
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarity, nearest, 1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, 1)


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


def at_constant(losses_at_zero, positive_fraction):
    """The mean pair loss of an encoder that gives every input one embedding: all distances 0.

    Args:
        losses_at_zero: `(impostor, genuine)` loss of a pair at distance 0.
        positive_fraction: share of genuine pairs in training, in [0, 1].
    """
    impostor, genuine = losses_at_zero
    return float((1 - positive_fraction) * impostor + positive_fraction * genuine)


def accuracy_shortfall(same, scores, threshold, best):
    """Accuracy `best`, of a threshold chosen on other pairs, less the accuracy at `threshold` on these pairs `(n,)`."""
    return best - float(np.mean((np.asarray(scores) >= threshold) == np.asarray(same, bool)))


def noise_error(same):
    """Standard deviation of AUC on noise with independent pairs, √((n + 1) / 12gi): no resample's is truly below it."""
    genuine = np.count_nonzero(same)
    return float(np.sqrt((len(same) + 1) / (12 * genuine * (len(same) - genuine))))


def standard_errors(same, scores, left=None, right=None):
    """Standard errors of AUC and EER over identities, by the infinitesimal jackknife: one sort, no resampling.

    To first order a figure moves by Σ_k D_k·(w_k − 1) when identity k gets the weight w_k, where D_k sums what its
    pairs contribute; drawing identities makes the variance Σ D_k². A pair contributes, with F the distribution function
    of the other class's scores and t the EER's threshold,

        to AUC:  (F(s) − AUC) / g    genuine          (1 − F(s) − AUC) / i    impostor
        to EER:  b·(1[s < t] − FNMR) / g  genuine     (1 − b)·(1[s ≥ t] − FMR) / i  impostor,   b = f_i / (f_g + f_i)

    with the densities f at t of either class. It agrees with `verification.bootstrap` to about a tenth, worse for an
    EER of a handful of errors, in a hundredth of the time.

    Efron, *The Jackknife, the Bootstrap and Other Resampling Plans*, SIAM 1982, chapter 6.

    Args:
        same: `(n,)` bool, both classes present.
        scores: `(n,)` finite scores, larger = more similar.
        left, right: `(n,)` identity codes, integers ≥ 0; None takes the pairs for independent.

    Returns:
        `{"auc": …, "eer": …}`.
    """
    same = np.asarray(same, bool)
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    auc_part, eer_part = np.empty(len(same)), np.empty(len(same))
    auc_part[same] = below(impostor, scores[same])
    auc_part[~same] = 1 - below(genuine, scores[~same])
    auc_part -= auc_part[same].mean()

    threshold = crossing(genuine, impostor)
    within = np.sqrt((genuine.astype(float).var() + impostor.astype(float).var()) / 2) / 4
    density = [np.mean(np.abs(side - threshold) <= within) for side in (genuine, impostor)]
    share = density[1] / sum(density) if sum(density) else 0.5
    rejected = scores < threshold
    eer_part[same] = share * (rejected[same] - rejected[same].mean())
    eer_part[~same] = (1 - share) * (rejected[~same].mean() - rejected[~same])

    weight = np.where(same, 1 / len(genuine), 1 / len(impostor))
    parts = {"auc": auc_part * weight, "eer": eer_part * weight}
    return {name: float(np.sqrt(np.sum(summed(part, left, right) ** 2))) for name, part in parts.items()}


def below(ordered, values):
    """Share of the sorted `ordered` `(m,)` that lies below each of `values` `(n,)`, ties at ½: `(n,)`."""
    twice = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return twice / (2 * len(ordered))


def crossing(genuine, impostor):
    """The lowest genuine score from which on the FNMR of sorted `genuine` is at least the FMR of sorted `impostor`."""
    fnmr = np.searchsorted(genuine, genuine, "left") / len(genuine)
    fmr = 1 - np.searchsorted(impostor, genuine, "left") / len(impostor)
    return genuine[min(int(np.count_nonzero(fnmr < fmr)), len(genuine) - 1)]


def summed(parts, left, right):
    """What the pairs' `parts` `(n,)` come to for each identity, a pair counting under both of its own."""
    if left is None:
        return parts
    identities = int(max(left.max(), right.max())) + 1
    apart = left != right
    return np.bincount(left, parts, identities) + np.bincount(right[apart], parts[apart], identities)


def normalised(embeddings):
    z = np.asarray(embeddings, float)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
