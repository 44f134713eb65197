"""Facts of the held-out embeddings: how they are spread, how many dimensions they use, which are near each other.

Contract: embeddings `(n, dim)`, distances and labels in; one number out, or a few by name. NumPy, but for the
distances of a loss; fast enough for a few thousand rows in every epoch. Facts are not judged here: limits are in
`limits.py`.

    spread(embeddings)              # 1 for a uniform sphere, 0 after a collapse
    purity(embeddings, labels)      # share of nearest neighbours with the same identity, and its null
"""

import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese.diagnosis import limits
from keras_siamese.neighbours import nearest_blocks

HEALTH = ("spread", "uniformity", "alignment", "effective_rank", "d_prime", "purity")  # measured every epoch
ROWS = 64  # embeddings that are compared with all others at a time
FEWEST = 12  # only for more embeddings are neighbours searched


def of_embeddings(observed):
    """The shape of the held-out embeddings, and their EER under other comparisons; without any, `has_embeddings` 0."""
    z, trials = observed.valid.embeddings, observed.valid.trials
    if not z.shape[1]:
        return {"has_embeddings": 0}
    impostors = ~trials.same
    compared = normalised(z) if observed.scale_free else z
    norms = np.linalg.norm(np.asarray(z, float), axis=1)
    found = shape_of(z, trials) | {
        "spacing": spacing(compared, trials.left[impostors], trials.right[impostors]),
        "embedding_dim": z.shape[1],
        "norm_variation": norms.std() / norms.mean() if norms.mean() else 0.0,
    }
    if observed.output_kind == "distance" and np.max(observed.valid.scores) <= 0:
        found["intra_inter_ratio"] = intra_inter_ratio(trials.same, -observed.valid.scores)
    if len(z) > FEWEST:
        found["hub_skew"], found["anti_hubs"] = hubness(z)
        if trials.identities is not None:
            found["purity"], found["purity_null"], found["purity_se"] = purity(z, trials.identities)
    return found if observed.is_unshared else found | of_swaps(observed)


def health_of(scored):
    """`HEALTH` of `scored` trials by name, for every epoch; NaN where it is not known."""
    z, trials = scored.embeddings, scored.trials
    found = dict.fromkeys(HEALTH, float("nan"))
    found["d_prime"] = verification.d_prime(scored.same, scored.scores)
    if not z.shape[1]:
        return found
    found |= shape_of(z, trials)
    if trials.identities is not None and len(z) > FEWEST:
        found["purity"] = purity(z, trials.identities, permutations=2)[0]
    return found


def shape_of(z, trials):
    """The facts that are measured every epoch and at the end."""
    genuine = trials.left[trials.same], trials.right[trials.same]
    whole = {"spread": spread(z), "uniformity": uniformity(z), "effective_rank": effective_rank(z)}
    return whole | {"alignment": alignment(z, *genuine)}


def of_swaps(observed):
    """The held-out EER under other comparisons of the same embeddings, by the names `eer_cosine`, `eer_euclidean`; the
    gain of the better one, and the lower end of its 95 % interval over identities.
    """
    trials, used = observed.valid.trials, observed.eer.replicates  # a bootstrap draws the same resamples each time
    if not compares_plainly(observed):
        return {}
    found = {"swap_gain": 0.0, "swap_gain_low": 0.0, "trained_by_it": float(is_trained_by_it(observed))}

    def lowest_gain(scores):
        """Lower end of the interval of what `scores` gain in EER."""
        sides = trials.pair_identities
        swapped = verification.bootstrap(["eer"], trials.same, scores, *sides, samples=len(used))["eer"]
        return np.quantile(used - swapped.replicates, 0.025)

    for name, scores in scores_by(observed.valid.embeddings, trials.left, trials.right).items():
        found[f"eer_{name}"] = verification.eer(trials.same, scores)
        gain = observed.eer.estimate - found[f"eer_{name}"]
        if gain > max(limits.LEAST_GAIN, found["swap_gain"]):  # because an interval takes a hundred sorts
            found["swap_gain"], found["swap_gain_low"] = gain, lowest_gain(scores)
    scores = scores_of_loss(observed)
    if scores is not None:
        found["eer_of_loss"] = verification.eer(trials.same, scores)
        found["loss_gain"] = observed.eer.estimate - found["eer_of_loss"]
        found["loss_gain_low"] = lowest_gain(scores) if found["loss_gain"] > limits.LEAST_GAIN else 0.0
    return found


def scores_of_loss(observed):
    """Scores `(n,)` of the held-out pairs by the distances that a loss of batches trains; None if it has none, or if
    they rank the pairs as verification does.
    """
    loss, trials = observed.loss, observed.valid.trials
    if not hasattr(loss, "measure") or not hasattr(loss, "as_distances"):
        return None
    z = ops.convert_to_tensor(observed.valid.embeddings)
    rows = range(0, len(z), ROWS)
    matrix = [ops.convert_to_numpy(loss.as_distances(loss.measure(z[at : at + ROWS], z))) for at in rows]
    scores = -np.concatenate(matrix)[trials.left, trials.right].astype("float64")
    if not np.isfinite(scores).all() or ranks_alike(scores, observed.valid.scores):
        return None
    return scores


def ranks_alike(scores, others):
    """Whether two scores `(n,)` of the same pairs rank them alike."""
    from scipy.stats import spearmanr  # takes a while to import

    if min(np.ptp(scores), np.ptp(others)) == 0:
        return False
    return spearmanr(scores, others).statistic >= float(limits.SAME_RANKING)


def compares_plainly(observed):
    """Whether the score of a pair is a distance or an inner product of its embeddings, as far as its ranking goes, so
    that it can be exchanged for another.
    """
    anatomy, trials = observed.siamese, observed.valid.trials
    if anatomy is None or getattr(anatomy, "distance", None) is not None:
        return True
    if not anatomy.has_embeddings or anatomy.learned:
        return False
    return resembles_distance(observed.valid.scores, observed.valid.embeddings, trials.left, trials.right)


def is_trained_by_it(observed):
    """Whether the loss trains the comparison itself, and equal embeddings are at the end that it wants."""
    direction = getattr(observed.siamese, "direction", None)
    if direction is None or not observed.siamese.compares_itself:
        return False
    return direction.end * direction.wanted > 0


def resembles_distance(scores, embeddings, left, right):
    """Whether `scores` `(n,)` rank the pairs as an inner product, the cosine or a distance of the embeddings does."""
    z = np.asarray(embeddings, float)
    known = [np.sum(z[left] * z[right], axis=1), -np.abs(z[left] - z[right]).sum(axis=1)]
    known += scores_by(embeddings, left, right).values()
    if np.ptp(scores) == 0:
        return False
    return any(ranks_alike(scores, of) for of in known)


def spread(embeddings):
    """Mean over dimensions of std(z / ‖z‖) · √dim: 1 for a uniform sphere, 0 if all inputs have one embedding.

    It is also lower if fewer dimensions are in use: about √(k / dim) for k of them; see `spacing`.

    Chen, He, *Exploring Simple Siamese Representation Learning*, CVPR 2021, https://arxiv.org/abs/2011.10566

    >>> round(spread(np.random.default_rng(0).normal(size=(2000, 32))), 2)
    1.0
    """
    z = normalised(embeddings)
    return float(z.std(axis=0).mean() * np.sqrt(z.shape[1]))


def spacing(embeddings, left, right):
    """Median distance of the rows `left`, `right` `(n,)` of `embeddings` over √2 times their root mean square norm.

    About 1 for pairs on a sphere, in any dimension and for any number of clusters. 0 if at least half of the pairs
    coincide, or if all embeddings are zero. A few outliers do not change it.

    >>> spacing(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), [0, 0], [1, 2])
    1.0
    """
    z = np.asarray(embeddings, float)
    scale = np.sqrt(2 * np.mean(np.sum(z**2, axis=1)))
    return float(np.median(np.linalg.norm(z[left] - z[right], axis=1)) / scale) if scale else 0.0


def effective_rank(embeddings):
    """exp(−Σ p log p) of the singular values' shares p of the centred embeddings: the number of dimensions in use, from
    1 to dim; 0 if all embeddings are equal.

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
    dimensions, near −4 in more, 0 if all are equal.

    Wang, Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere*, ICML 2020, https://arxiv.org/abs/2005.10242
    """
    z = normalised(embeddings)
    kernel = np.exp(4 * (z @ z.T) - 4)  # ‖a − b‖² = 2 − 2ab
    n = len(z)
    return float(np.log((kernel.sum() - np.trace(kernel)) / (n * (n - 1))))


def alignment(embeddings, left, right):
    """Mean of ‖z − z⁺‖² over genuine pairs of rows `left`, `right` `(n,)`, of unit vectors: 0 if each identity is one
    point, about 2 at chance. The paper is that of `uniformity`.
    """
    z = normalised(embeddings)
    return float(np.mean(np.sum((z[left] - z[right]) ** 2, axis=1)))


def neighbours(embeddings, k):
    """The `k` nearest other rows of each row by the cosine distance, nearest first: `(n, k)`."""
    z = normalised(embeddings)
    return np.concatenate([rows for _, rows in nearest_blocks(z, z, min(k, len(z) - 1), own=True)])


def purity(embeddings, identities, k=10, permutations=20):
    """`(purity, null, standard error)`: the share of the `k` nearest neighbours that have a row's own identity, and
    the mean and the standard deviation of this share for permuted `identities` `(n,)`.
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
    these counts, and the share of rows that are among no other row's nearest.

    Radovanović, Nanopoulos, Ivanović, *Hubs in Space*, JMLR 11, 2010,
    https://jmlr.org/papers/v11/radovanovic10a.html
    """
    nearest = neighbours(embeddings, k)
    count = np.bincount(nearest.ravel(), minlength=len(nearest)).astype(float)
    deviation = count - count.mean()
    scale = np.sqrt(np.mean(deviation**2))
    return float(np.mean(deviation**3) / scale**3) if scale else 0.0, float(np.mean(count == 0))


def scores_by(embeddings, left, right):
    """Scores `(n,)` of the pairs of rows under other comparisons of the same embeddings: "cosine" and "euclidean"."""
    z, unit = np.asarray(embeddings, float), normalised(embeddings)
    cosine = np.sum(unit[left] * unit[right], axis=1)
    return {"cosine": cosine, "euclidean": -np.linalg.norm(z[left] - z[right], axis=1)}


def intra_inter_ratio(same, distances):
    """Mean distance of genuine pairs over that of impostor pairs `(n,)`: 1 at chance, 0 if identities are points."""
    same, distances = np.asarray(same, bool), np.asarray(distances, float)
    between = float(np.mean(distances[~same]))
    return float(np.mean(distances[same])) / between if between else 1.0


def normalised(embeddings):
    z = np.asarray(embeddings, float)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
