"""Slow, obvious loops over anchors, positives and negatives, to compare the batch losses with.

Contract: lists and floats, nothing of the package and no broadcasting. An oracle takes a `Batch` and returns sides,
each a list of `(anchor, value, counted)`: the value of a batch is, added over the sides, Σ value / Σ counted, and a
row's share is batch size · (the anchor's own values) / Σ counted. A `wrong_…`, or an option that says so, is a mistake
that is easily made: the tests show that the oracle tells the two apart.

    sides = triplets(Batch(labels, embeddings, euclidean), margin=0.2)
    total(sides), shares(sides, len(labels))
"""

import math


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def euclidean(a, b):
    return math.sqrt(squared(a, b))


def cosine(a, b):
    """Similarity; 0 to a vector shorter than 1e-6, which has no direction."""
    norms = [math.sqrt(dot(a, a)), math.sqrt(dot(b, b))]
    return max(-1.0, min(1.0, dot(a, b) / (norms[0] * norms[1]))) if min(norms) > 1e-6 else 0.0


def cosine_distance(a, b):
    return 1.0 - cosine(a, b)


def variance(a):
    mean = sum(a) / len(a)
    return sum((x - mean) ** 2 for x in a) / len(a)


def snr(a, b):
    return variance([x - y for x, y in zip(a, b, strict=True)]) / max(variance(a), 1e-12)


class Batch:
    """Labels and embeddings, `measure` between every two of them in `d[i][j]`.

    `itself`, the mistake: a row is its own positive.
    """

    def __init__(self, labels, embeddings, measure=euclidean, itself=False):
        self.labels, self.x = list(labels), [list(map(float, row)) for row in embeddings]
        self.rows, self.measure, self.itself = range(len(self.labels)), measure, itself
        self.d = [[measure(a, b) for b in self.x] for a in self.x]

    def positives(self, a):
        return [p for p in self.rows if self.labels[p] == self.labels[a] and (p != a or self.itself)]

    def negatives(self, a):
        return [n for n in self.rows if self.labels[n] != self.labels[a]]

    def positive_pairs(self):
        return [(a, p) for a in self.rows for p in self.positives(a)]

    def negative_pairs(self):
        return [(a, n) for a in self.rows for n in self.negatives(a)]

    def triplets(self):
        return [(a, p, n) for a in self.rows for p in self.positives(a) for n in self.negatives(a)]


def total(sides):
    return sum(sum(v for _, v, _ in side) / (sum(c for _, _, c in side) or 1.0) for side in sides)


def shares(sides, size):
    values = [0.0] * size
    for side in sides:
        counted = sum(c for _, _, c in side) or 1.0
        for a, value, _ in side:
            values[a] += size * value / counted
    return values


def hinge(x):
    return max(x, 0.0)


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def logsumexp(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def above_zero(terms):
    """Averaged over those above zero."""
    return [(a, value, float(value > 0)) for a, value in terms]


def each(terms):
    """Averaged over all."""
    return [(a, value, 1.0) for a, value in terms]


# Triplets


def triplets(batch, margin=0.2, soft=False):
    cost = softplus if soft else hinge
    return [above_zero((a, cost(batch.d[a][p] - batch.d[a][n] + margin)) for a, p, n in batch.triplets())]


def wrong_triplets(batch, margin=0.2, soft=False):
    """Over all triplets in place of those above zero."""
    return [each((a, value) for a, value, _ in triplets(batch, margin, soft)[0])]


def semi_hard_window(batch, margin=0.2, soft=False):
    """Every negative beyond the positive and within its margin."""
    cost, d = (softplus if soft else hinge), batch.d
    taken = [(a, p, n) for a, p, n in batch.triplets() if d[a][p] < d[a][n] <= d[a][p] + margin]
    return [above_zero((a, cost(d[a][p] - d[a][n] + margin)) for a, p, n in taken)]


def wrong_semi_hard_window(batch, margin=0.2, soft=False):
    """The margin as the window's end is forgotten, and with it the far negatives kept out."""
    cost, d = (softplus if soft else hinge), batch.d
    return [above_zero((a, cost(d[a][p] - d[a][n] + margin)) for a, p, n in batch.triplets() if d[a][n] <= d[a][p])]


def chosen(batch, a, strategy, positive, other=None):
    """The rows that a strategy keeps of an anchor's positives or negatives; `other` is the distance it looks at."""
    among = batch.positives(a) if positive else batch.negatives(a)
    if strategy == "semi_hard":
        among = [i for i in among if (batch.d[a][i] < other if positive else batch.d[a][i] > other)]
    if strategy == "all" or not among:
        return among
    farthest = (strategy == "easy") != positive if strategy != "semi_hard" else positive
    return [(max if farthest else min)(among, key=lambda i: batch.d[a][i])]


def mined(batch, positives, negatives, margin=0.2, soft=False):
    cost, terms = (softplus if soft else hinge), []
    for a in batch.rows:
        if positives == "semi_hard":
            far = chosen(batch, a, negatives, positive=False)
            near = chosen(batch, a, positives, True, batch.d[a][far[0]]) if far else []
        else:
            near = chosen(batch, a, positives, positive=True)
            if negatives == "semi_hard":
                far = chosen(batch, a, negatives, False, batch.d[a][near[0]]) if near else []
            else:
                far = chosen(batch, a, negatives, positive=False)
        terms += [(a, cost(batch.d[a][p] - batch.d[a][n] + margin)) for p in near for n in far]
    return [above_zero(terms)]


def wrong_mined(batch, positives, negatives, margin=0.2, soft=False):
    """Hard and easy the other way round."""
    turned = {"hard": "easy", "easy": "hard"}
    return mined(batch, turned.get(positives, positives), turned.get(negatives, negatives), margin, soft)


def draw_chances(batch, a, nearest=0.5, farthest=1.4):
    """The chance of each of an anchor's negatives to be drawn, by column: one over the density of distances."""
    dim, weights = len(batch.x[a]), {}
    for n in batch.negatives(a):
        d = max(batch.d[a][n], nearest)
        if d < farthest:
            weights[n] = 1.0 / (d ** (dim - 2) * (1.0 - d * d / 4.0) ** ((dim - 3) / 2.0))
    return {n: weight / sum(weights.values()) for n, weight in weights.items()}


def distance_weighted(batch, margin=0.2, positives="all", soft=False, fixed=None):
    """The mean over draws: expected sum of the costs over the expected number above zero; chances as of `fixed`."""
    cost, terms = (softplus if soft else hinge), []
    for a in batch.rows:
        for n, chance in draw_chances(batch if fixed is None else fixed, a).items():
            for p in chosen(batch, a, positives, positive=True):
                value = cost(batch.d[a][p] - batch.d[a][n] + margin)
                terms.append((a, chance * value, chance * float(value > 0)))
    return [terms]


def wrong_distance_weighted(batch, margin=0.2, positives="all", soft=False, fixed=None):
    """Every negative as likely as the next."""
    return mined(batch, positives, "all", margin, soft)


def semi_hard(batch, margin=1.0):
    terms = []
    for a, p in batch.positive_pairs():
        distances = [batch.d[a][n] for n in batch.negatives(a)]
        beyond = [d for d in distances if d > batch.d[a][p]]
        if distances:
            terms.append((a, hinge(batch.d[a][p] - (min(beyond) if beyond else max(distances)) + margin)))
    return [each(terms)]


def wrong_semi_hard(batch, margin=1.0):
    """The nearest negative where none is beyond the positive."""
    terms = []
    for a, p in batch.positive_pairs():
        distances = [batch.d[a][n] for n in batch.negatives(a)]
        beyond = [d for d in distances if d > batch.d[a][p]]
        terms += [(a, hinge(batch.d[a][p] - min(beyond or distances) + margin))] if distances else []
    return [each(terms)]


def hard(batch, margin=1.0, soft=False, whole=False):
    """Anchors that lack a side are left out; `whole`, the mistake: counted as 0."""
    terms = []
    for a in batch.rows:
        near, far = chosen(batch, a, "hard", True), chosen(batch, a, "hard", False)
        if near and far:
            gap = batch.d[a][near[0]] - batch.d[a][far[0]]
            terms.append((a, softplus(gap) if soft else hinge(gap + margin)))
        elif whole:
            terms.append((a, 0.0))
    return [each(terms)]


def pn(batch, margin=None, positives="hard", negatives="semi_hard", swapped=True):
    """The negative's distance is the smaller of those from the anchor and from the positive (`swapped`)."""
    terms = []
    for a in batch.rows:
        near = chosen(batch, a, positives, positive=True)
        if not near or not batch.negatives(a):
            continue
        p = near[0]
        if negatives == "semi_hard":
            farthest_positive = max(batch.d[a][i] for i in batch.positives(a))
            far = chosen(batch, a, "semi_hard", False, farthest_positive) or chosen(batch, a, "easy", False)
        else:
            far = chosen(batch, a, negatives, positive=False)
        n = far[0]
        gap = batch.d[a][p] - (min(batch.d[a][n], batch.d[p][n]) if swapped else batch.d[a][n])
        terms.append((a, softplus(gap) if margin is None else hinge(gap + margin)))
    return [each(terms)]


# Softmaxes: `batch.d` holds cosine similarities, unless the name says distance


def ntxent(batch, temperature=0.07, among_positives=False):
    """`among_positives`, the mistake: the anchor's other positives are in the denominator."""
    terms = []
    for a, p in batch.positive_pairs():
        others = batch.negatives(a) + ([q for q in batch.positives(a) if q != p] if among_positives else [])
        logits = [batch.d[a][i] / temperature for i in [p, *others]]
        terms.append((a, logsumexp(logits) - logits[0]))
    return [each(terms)]


def supcon(batch, temperature=0.1, inside=False):
    """`inside`, the mistake: the mean over positives inside the logarithm."""
    terms = []
    for a in batch.rows:
        near, far = batch.positives(a), batch.negatives(a)
        if near and far:
            below = logsumexp([batch.d[a][i] / temperature for i in near + far])
            logs = [batch.d[a][p] / temperature - below for p in near]
            terms.append((a, -logsumexp(logs) + math.log(len(near)) if inside else -sum(logs) / len(logs)))
    return [each(terms)]


def multi_similarity(batch, alpha=2.0, beta=50.0, base=0.5, epsilon=None):
    terms = []
    for a in batch.rows:
        near = {p: batch.d[a][p] for p in batch.positives(a)}
        far = {n: batch.d[a][n] for n in batch.negatives(a)}
        if epsilon is not None:
            near, far = (
                {p: s for p, s in near.items() if far and s - epsilon < max(far.values())},
                {n: s for n, s in far.items() if near and s + epsilon > min(near.values())},
            )
        value = math.log1p(sum(math.exp(-alpha * (s - base)) for s in near.values())) / alpha
        terms.append((a, value + math.log1p(sum(math.exp(beta * (s - base)) for s in far.values())) / beta))
    return [each(terms)]


def circle(batch, margin=0.4, scale=80.0, fixed=None):
    """The weights as of `fixed`, which a gradient does not move."""
    terms, held = [], (batch if fixed is None else fixed).d
    for a in batch.rows:
        near, far = batch.positives(a), batch.negatives(a)
        if near and far:
            pulled = [-scale * hinge(1 + margin - held[a][p]) * (batch.d[a][p] - (1 - margin)) for p in near]
            pushed = [scale * hinge(held[a][n] + margin) * (batch.d[a][n] - margin) for n in far]
            terms.append((a, softplus(logsumexp(pulled) + logsumexp(pushed))))
    return [above_zero(terms)]


def tuplet(batch, margin=5.73, scale=64.0):
    terms = []
    for a, p in batch.positive_pairs():
        eased = math.cos(math.acos(batch.d[a][p]) - math.radians(margin))
        logits = [0.0] + [scale * (batch.d[a][n] - eased) for n in batch.negatives(a)]
        terms.append((a, logsumexp(logits)))
    return [each(terms)]


def nca(batch, scale=1.0, whole=False):
    """Distances; mean over anchors with a positive, or (`whole`, TensorFlow Similarity's) over all rows."""
    terms = []
    for a in batch.rows:
        near, far = batch.positives(a), batch.negatives(a)
        if near:
            logits = [-scale * batch.d[a][i] for i in near + far]
            terms.append((a, logsumexp(logits) - logsumexp(logits[: len(near)])))
        elif whole:
            terms.append((a, 0.0))
    return [each(terms)]


def soft_nearest_neighbor(batch, temperature=1.0, whole=False):
    return nca(batch, 1.0 / temperature, whole)


def generalized_lifted(batch, negative_margin=1.0, positive_margin=0.0, one_sided=False):
    """Distances; a row that lacks a side is 0, or (`one_sided`, the peer's) the side that is there."""
    terms = []
    for a in batch.rows:
        pulled = [batch.d[a][p] - positive_margin for p in batch.positives(a)]
        pushed = [negative_margin - batch.d[a][n] for n in batch.negatives(a)]
        if pulled and pushed:
            terms.append((a, hinge(logsumexp(pulled) + logsumexp(pushed))))
        else:
            terms.append((a, hinge(logsumexp(pulled or pushed)) if one_sided else 0.0))
    return [each(terms)]


def lifted(batch, margin=1.0, both=True):
    """Distances; the negatives of both ends of a pair, or (`both` False, a mistake) of the anchor."""
    terms = []
    for a, p in batch.positive_pairs():
        pushed = [margin - batch.d[a][n] for n in batch.negatives(a)]
        pushed += [margin - batch.d[p][n] for n in batch.negatives(p)] if both else []
        if pushed:
            terms.append((a, 0.5 * hinge(logsumexp(pushed) + batch.d[a][p]) ** 2))
    return [each(terms)]


# Pairs, each kind on its side


def contrastive(batch, margin=1.0, positive_margin=0.0, squared=False, count=above_zero):
    power = 2 if squared else 1
    pulled = [(a, hinge(batch.d[a][p] - positive_margin) ** power) for a, p in batch.positive_pairs()]
    pushed = [(a, hinge(margin - batch.d[a][n]) ** power) for a, n in batch.negative_pairs()]
    return [count(pulled), count(pushed)]


def threshold_consistent(batch, weights=(1.0, 1.0), margins=(0.9, 0.5), count_all=False):
    near = [(a, batch.d[a][p]) for a, p in batch.positive_pairs()]
    far = [(a, batch.d[a][n]) for a, n in batch.negative_pairs()]
    kept = [(a, weights[0] * (margins[0] - s), 1.0) for a, s in near if s <= margins[0] or count_all]
    return [kept, [(a, weights[1] * (s - margins[1]), 1.0) for a, s in far if s >= margins[1] or count_all]]


def intra_pair_variance(batch, epsilons=(0.01, 0.01), shifted=True):
    """`shifted` False, a mistake: the plain means."""
    near = [(a, batch.d[a][p]) for a, p in batch.positive_pairs()]
    far = [(a, batch.d[a][n]) for a, n in batch.negative_pairs()]
    means = [sum(s for _, s in side) / max(len(side), 1) for side in (near, far)]
    low, high = (1.0 - epsilons[0]) * means[0], (1.0 + epsilons[1]) * means[1]
    low, high = (low, high) if shifted else means
    return [each((a, hinge(low - s) ** 2) for a, s in near), each((a, hinge(s - high) ** 2) for a, s in far)]


def margin(batch, margin=0.2, beta=1.2, per_pair=False):
    """Over triplets; `per_pair`, a mistake: every pair once."""
    if per_pair:
        terms = [(a, hinge(batch.d[a][p] - beta + margin)) for a, p in batch.positive_pairs() if batch.negatives(a)]
        terms += [(a, hinge(beta - batch.d[a][n] + margin)) for a, n in batch.negative_pairs() if batch.positives(a)]
        return [above_zero(terms)]
    terms = [(a, hinge(batch.d[a][p] - beta + margin)) for a, p, _ in batch.triplets()]
    return [above_zero(terms + [(a, hinge(beta - batch.d[a][n] + margin)) for a, _, n in batch.triplets()])]


def ranked_list(
    batch, margin, negative_temperature, positive_temperature=0.0, imbalance=0.5, alpha=None, touching=True
):
    """`touching` False, the peer's: a negative at distance 0 is left out, and so costs nothing."""
    alpha = 1.0 + margin / 2.0 if alpha is None else alpha
    floor, terms = 1e-5 * len(batch.rows), []
    for a in batch.rows:
        beyond = [batch.d[a][p] - (alpha - margin) for p in batch.positives(a) if batch.d[a][p] > alpha - margin]
        inside = [alpha - batch.d[a][n] for n in batch.negatives(a) if batch.d[a][n] < alpha]
        inside = [gap for gap in inside if touching or gap < alpha]
        value = 0.0
        for gaps, temperature, share in (
            (beyond, positive_temperature, 1 - imbalance),
            (inside, negative_temperature, imbalance),
        ):
            weights = [math.exp(temperature * gap) for gap in gaps]
            value += share * dot(weights, gaps) / (sum(weights) + floor)
        terms.append((a, value))
    return [each(terms)]


# Each class of losses with its defaults: the loop and what it measures. Those without are compared with nothing here.
DEFAULTS = {
    "BatchTripletLoss": (triplets, euclidean),
    "TripletSemiHardLoss": (semi_hard, euclidean),
    "TripletHardLoss": (hard, euclidean),
    "PNLoss": (pn, cosine_distance),
    "NTXentLoss": (ntxent, cosine),
    "SupConLoss": (supcon, cosine),
    "MultiSimilarityLoss": (multi_similarity, cosine),
    "CircleLoss": (circle, cosine),
    "TupletMarginLoss": (tuplet, cosine),
    "NCALoss": (nca, squared),
    "SoftNearestNeighborLoss": (soft_nearest_neighbor, squared),
    "GeneralizedLiftedLoss": (generalized_lifted, euclidean),
    "LiftedStructLoss": (lifted, euclidean),
    "BatchContrastiveLoss": (contrastive, euclidean),
    "SNRContrastiveLoss": (contrastive, snr),
    "ThresholdConsistentMarginLoss": (threshold_consistent, cosine),
    "IntraPairVarianceLoss": (intra_pair_variance, cosine),
    "BatchMarginLoss": (margin, euclidean),
    "RankedListLoss": (ranked_list, euclidean),
}
