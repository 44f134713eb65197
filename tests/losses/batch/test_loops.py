"""Batch losses against loops: values, each row's share, gradients; the sorted and the walked sums of triplets."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese._export import exported
from keras_siamese.losses.batch import mining
from keras_siamese.losses.batch.base import Rows, as_batch
from tests.oracles import batch as oracles
from tests.oracles.batch import Batch, shares, total
from tests.support.batches import array, evaluate, uneven
from tests.support.gradients import gradient, numerical_gradient

EUCLIDEAN, SQUARED, COSINE = oracles.euclidean, oracles.squared, oracles.cosine
STRATEGIES = ("all", "hard", "semi_hard", "easy")
MINED = [
    (p, n)
    for p in STRATEGIES
    for n in STRATEGIES
    if (p, n) not in (("semi_hard", "semi_hard"), ("semi_hard", "all"), ("all", "semi_hard"), ("all", "all"))
]


class Case:
    """A loss, the loop it should equal on distances or similarities `measure`, and the mistake the loop must reject.

    `held`: the loop takes what the gradient does not move as `fixed`. `unit`: embeddings of norm 1.
    """

    def __init__(self, loss, loop, wrong, measure=EUCLIDEAN, held=False, unit=False):
        self.loss, self.loop, self.wrong, self.measure, self.held, self.unit = loss, loop, wrong, measure, held, unit

    def sides(self, labels, embeddings, fixed=None):
        options = {"fixed": Batch(labels, embeddings if fixed is None else fixed, self.measure)} if self.held else {}
        return self.loop(Batch(labels, embeddings, self.measure), **options)


def itself(loop):
    """The loop with a row as its own positive; `batch` is made again."""
    return lambda batch, **options: loop(Batch(batch.labels, batch.x, batch.measure, itself=True), **options)


def option(loop, **options):
    return lambda batch, **others: loop(batch, **options, **others)


def over_all(batch, *arguments, **options):
    return oracles.contrastive(batch, *arguments, count=oracles.each, **options)


CASES = {
    "triplets": lambda: Case(losses.BatchTripletLoss(), oracles.triplets, oracles.wrong_triplets),
    "triplets, soft": lambda: Case(
        losses.BatchTripletLoss(0.5, soft=True), option(oracles.triplets, margin=0.5, soft=True), oracles.triplets
    ),
    "triplets, cosine": lambda: Case(
        losses.BatchTripletLoss(distance="cosine"), oracles.triplets, oracles.wrong_triplets, oracles.cosine_distance
    ),
    "triplets, SNR, which is not symmetric": lambda: Case(
        losses.BatchTripletLoss(1.0, distance="snr"),
        option(oracles.triplets, margin=1.0),
        itself(oracles.triplets),
        oracles.snr,
    ),
    "all positives, semi-hard negatives": lambda: Case(
        losses.BatchTripletLoss(0.4, negatives="semi_hard"),
        option(oracles.semi_hard_window, margin=0.4),
        option(oracles.wrong_semi_hard_window, margin=0.4),
    ),
    "all positives, semi-hard negatives, soft": lambda: Case(
        losses.BatchTripletLoss(0.4, negatives="semi_hard", soft=True),
        option(oracles.semi_hard_window, margin=0.4, soft=True),
        option(oracles.wrong_semi_hard_window, margin=0.4, soft=True),
    ),
    **{
        f"{p} positives, {n} negatives": lambda p=p, n=n: Case(
            losses.BatchTripletLoss(1.0, p, n),
            option(oracles.mined, positives=p, negatives=n, margin=1.0),
            option(oracles.wrong_mined, positives=p, negatives=n, margin=1.0),
        )
        for p, n in MINED
    },
    **{
        f"{p} positives, distance-weighted{', soft' * soft}": lambda p=p, soft=soft: Case(
            losses.BatchTripletLoss(0.5, p, "distance_weighted", soft),
            option(oracles.distance_weighted, positives=p, margin=0.5, soft=soft),
            option(oracles.wrong_distance_weighted, positives=p, margin=0.5, soft=soft),
            held=True,
            unit=True,
        )
        for p, soft in (("all", False), ("hard", False), ("easy", False), ("all", True))
    },
    "semi-hard": lambda: Case(losses.TripletSemiHardLoss(), oracles.semi_hard, oracles.wrong_semi_hard),
    "semi-hard, squared": lambda: Case(
        losses.TripletSemiHardLoss(0.5, "squared-L2"),
        option(oracles.semi_hard, margin=0.5),
        itself(oracles.semi_hard),
        SQUARED,
    ),
    "hard": lambda: Case(losses.TripletHardLoss(), oracles.hard, option(oracles.hard, whole=True)),
    "hard, soft": lambda: Case(
        losses.TripletHardLoss(soft=True), option(oracles.hard, soft=True), option(oracles.hard, soft=True, whole=True)
    ),
    **{
        f"PN, {p} positives, {n} negatives, margin {m}": lambda p=p, n=n, m=m: Case(
            losses.PNLoss(m, p, n),
            option(oracles.pn, margin=m, positives=p, negatives=n),
            option(oracles.pn, margin=m, positives=p, negatives=n, swapped=False),
            oracles.cosine_distance,
        )
        for p in ("hard", "easy")
        for n in ("semi_hard", "hard", "easy")
        for m in (None, 0.75)
    },
    "NT-Xent": lambda: Case(
        losses.NTXentLoss(0.3),
        option(oracles.ntxent, temperature=0.3),
        option(oracles.ntxent, temperature=0.3, among_positives=True),
        COSINE,
    ),
    "SupCon": lambda: Case(
        losses.SupConLoss(0.3),
        option(oracles.supcon, temperature=0.3),
        option(oracles.supcon, temperature=0.3, inside=True),
        COSINE,
    ),
    "multi-similarity": lambda: Case(
        losses.MultiSimilarityLoss(), oracles.multi_similarity, itself(oracles.multi_similarity), COSINE
    ),
    "multi-similarity, mined": lambda: Case(
        losses.MultiSimilarityLoss(epsilon=0.1),
        option(oracles.multi_similarity, epsilon=0.1),
        oracles.multi_similarity,
        COSINE,
    ),
    "circle": lambda: Case(
        losses.CircleLoss(0.25, 16.0),
        option(oracles.circle, margin=0.25, scale=16.0),
        itself(option(oracles.circle, margin=0.25, scale=16.0)),
        COSINE,
        held=True,
    ),
    "tuplet margin": lambda: Case(
        losses.TupletMarginLoss(20.0, 8.0),
        option(oracles.tuplet, margin=20.0, scale=8.0),
        option(oracles.tuplet, margin=-20.0, scale=8.0),
        COSINE,
    ),
    "NCA": lambda: Case(
        losses.NCALoss(2.0), option(oracles.nca, scale=2.0), itself(option(oracles.nca, scale=2.0)), SQUARED
    ),
    "soft nearest neighbour": lambda: Case(
        losses.SoftNearestNeighborLoss(0.5),
        option(oracles.soft_nearest_neighbor, temperature=0.5),
        option(oracles.soft_nearest_neighbor, temperature=0.5, whole=True),
        SQUARED,
    ),
    "generalized lifted": lambda: Case(
        losses.GeneralizedLiftedLoss(1.25, 0.25),
        option(oracles.generalized_lifted, negative_margin=1.25, positive_margin=0.25),
        option(oracles.generalized_lifted, negative_margin=1.25, positive_margin=0.25, one_sided=True),
    ),
    "lifted structure": lambda: Case(losses.LiftedStructLoss(), oracles.lifted, option(oracles.lifted, both=False)),
    "lifted structure, SNR": lambda: Case(
        losses.LiftedStructLoss(distance="snr"), oracles.lifted, option(oracles.lifted, both=False), oracles.snr
    ),
    "contrastive": lambda: Case(
        losses.BatchContrastiveLoss(1.5, 0.25),
        option(oracles.contrastive, margin=1.5, positive_margin=0.25),
        option(over_all, margin=1.5, positive_margin=0.25),
    ),
    "contrastive, squared": lambda: Case(
        losses.BatchContrastiveLoss(1.5, squared=True),
        option(oracles.contrastive, margin=1.5, squared=True),
        option(oracles.contrastive, margin=1.5),
    ),
    "SNR contrastive": lambda: Case(
        losses.SNRContrastiveLoss(1.5),
        option(oracles.contrastive, margin=1.5),
        option(over_all, margin=1.5),
        oracles.snr,
    ),
    "threshold-consistent margin": lambda: Case(
        losses.ThresholdConsistentMarginLoss(2.0, 0.5, 0.75, 0.1),
        option(oracles.threshold_consistent, weights=(2.0, 0.5), margins=(0.75, 0.1)),
        option(oracles.threshold_consistent, weights=(2.0, 0.5), margins=(0.75, 0.1), count_all=True),
        COSINE,
    ),
    "intra-pair variance": lambda: Case(
        losses.IntraPairVarianceLoss(0.25, 0.5),
        option(oracles.intra_pair_variance, epsilons=(0.25, 0.5)),
        option(oracles.intra_pair_variance, shifted=False),
        COSINE,
    ),
    "margin": lambda: Case(losses.BatchMarginLoss(), oracles.margin, option(oracles.margin, per_pair=True)),
    "ranked list": lambda: Case(
        losses.RankedListLoss(0.5, 2.0, 1.5, 0.25, 1.75),
        option(
            oracles.ranked_list,
            margin=0.5,
            negative_temperature=2.0,
            positive_temperature=1.5,
            imbalance=0.25,
            alpha=1.75,
        ),
        option(
            oracles.ranked_list,
            margin=0.5,
            negative_temperature=1.5,
            positive_temperature=2.0,
            imbalance=0.25,
            alpha=1.75,
        ),
    ),
}

# Rows an identity in batches of 11, singletons among them; rows of an identity overlap with others'.
SIZES = ((4, 1, 3, 2, 1), (7, 1, 2, 1))


def draw(case, rng, sizes, dim=4):
    labels, embeddings = uneven(rng, sizes, dim)
    return labels, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) if case.unit else embeddings


def per_row(loss):
    return type(loss).from_config({**loss.get_config(), "reduction": "none"})


@pytest.mark.parametrize("name", CASES)
def test_rows_and_gradients_are_the_loops(name, rng):
    case = CASES[name]()
    loss = per_row(case.loss)
    for sizes in SIZES:
        labels, embeddings = draw(case, rng, sizes)
        values, grad = evaluate(loss, labels, embeddings)
        sides = case.sides(labels, embeddings)
        expected = shares(sides, len(labels))
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * max(1e-2, *map(abs, expected)))
        assert np.mean(values) == pytest.approx(total(sides), rel=1e-4)
        slopes = numerical_gradient(lambda x: total(case.sides(labels, x, embeddings)), embeddings)[0]  # noqa: B023
        np.testing.assert_allclose(grad, slopes, rtol=0, atol=1e-3 * max(1e-2, np.abs(slopes).max()))


@pytest.mark.parametrize("name", CASES)
def test_the_loops_reject_a_mistake(name, rng):
    case = CASES[name]()
    right, wrong = [], []
    for sizes in SIZES:
        labels, embeddings = draw(case, rng, sizes)
        right.append(total(case.sides(labels, embeddings)))
        wrong.append(total(case.wrong(Batch(labels, embeddings, case.measure))))
    assert not np.allclose(right, wrong, rtol=1e-2), (right, wrong)


def test_every_loss_of_the_batch_has_a_loop():
    ours = ("triplets", "softmaxes", "hinges")
    written = {n for n, cls in exported(losses.BatchLoss).items() if cls.__module__.rsplit(".")[-1] in ours}
    assert written == {type(make().loss).__name__ for make in CASES.values()}


# Definitions that differ from the peers'


def test_ranked_list_counts_a_negative_at_distance_zero():
    labels, embeddings = [1, 1, 2], np.array([[0.5, 0.0], [0.0, 0.5], [0.5, 0.0]], "float32")
    batch = Batch(labels, embeddings)
    counted = total(oracles.ranked_list(batch, 0.4, 4.0))
    assert counted > 1.2 * total(oracles.ranked_list(batch, 0.4, 4.0, touching=False))
    value, grad = evaluate(losses.RankedListLoss(0.4, 4.0), labels, embeddings)
    assert value == pytest.approx(counted, rel=1e-5)
    assert np.isfinite(grad).all()


def test_hard_anchors_that_lack_a_side_are_left_out():
    """Two of one identity and a singleton: of three anchors, two count."""
    labels, embeddings = [1, 1, 2], np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]], "float32")
    values, _ = evaluate(per_row(losses.TripletHardLoss(margin=4.0)), labels, embeddings)
    assert values.tolist() == pytest.approx([3 / 2 * (1 - 3 + 4), 3 / 2 * (1 - 2 + 4), 0.0])


def test_semi_hard_ends_are_beyond_the_positive_and_within_the_margin():
    """Negatives at the positive's distance, just inside the margin, at its end, and past it: exact in float32."""
    labels = [1, 1, 2, 3, 4, 5]
    embeddings = np.array([[0.0], [1.0], [-1.0], [-1.25], [-1.5], [-1.75]], "float32")
    loss = losses.BatchTripletLoss(0.5, "all", "semi_hard", distance="manhattan")
    values, _ = evaluate(per_row(loss), labels, embeddings)
    expected = shares(oracles.semi_hard_window(Batch(labels, embeddings), 0.5), 6)
    assert values == pytest.approx(expected)
    assert values[0] == pytest.approx(6 * 0.25)
    # A negative as far as the positive is not beyond it.
    values, _ = evaluate(per_row(losses.TripletSemiHardLoss(0.5, "manhattan")), labels, embeddings)
    assert values == pytest.approx(shares(oracles.semi_hard(Batch(labels, embeddings), 0.5), 6))


# All triplets: the walk and the sort


def rows_of(labels, embeddings):
    """With distances between numbers `(batch, 1)` that are exact, so that equal ones are equal."""
    batch = as_batch(ops.convert_to_tensor(np.asarray(labels, "int32")), ops.convert_to_tensor(embeddings))
    return Rows(batch, None, losses.BatchTripletLoss(distance="manhattan").measure)


def hinge(gap, margin):
    value = ops.relu(gap + margin)
    return value, ops.cast(value > 0, value.dtype)


def walked(rows, margin):
    negative = ops.cast(rows.negative, "float32")
    return mining.walk_triplets(rows, lambda gap: hinge(gap, margin), lambda gap: gap == gap, negative)


def grid(rng, sizes):
    """Embeddings on a coarse grid along one axis: many equal distances, all exact in float32."""
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return labels, rng.integers(0, 5, size=(len(labels), 1)).astype("float32") * 0.25


def triplet_sums(labels, embeddings, margin):
    """By anchor: Σ [gap + m]₊, how many are above zero, and the derivative by each distance."""
    batch, size = Batch(labels, embeddings), len(labels)
    sums, active, slopes = np.zeros(size), np.zeros(size), np.zeros((size, size))
    for a, p, n in batch.triplets():
        value = batch.d[a][p] - batch.d[a][n] + margin
        if value > 0:
            sums[a] += value
            active[a] += 1
            slopes[a, p] += 1
            slopes[a, n] -= 1
    return sums, active, slopes


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.3])
@pytest.mark.parametrize("sizes", [(4, 1, 3, 2), (36, 1, 4, 2), (2, 2), (5,), (1, 1, 1)])
@pytest.mark.parametrize("way", [walked, mining.sorted_triplets], ids=["walk", "sort"])
def test_both_ways_to_all_triplets_are_the_loop_ties_included(way, sizes, margin, rng):
    labels, embeddings = grid(rng, sizes)
    found = [array(part) for part in way(rows_of(labels, embeddings), margin)]
    for part, expected in zip(found, triplet_sums(labels, embeddings, margin), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("largest", [33, 34])
def test_identities_on_both_sides_of_the_switch_from_walk_to_sort(largest, rng):
    """32 positives are walked over, 33 are sorted."""
    labels, embeddings = uneven(rng, (largest, 1, 3, 2), dim=3)
    values, grad = evaluate(per_row(losses.BatchTripletLoss(0.3)), labels, embeddings)
    sides = oracles.triplets(Batch(labels, embeddings), 0.3)
    np.testing.assert_allclose(values, shares(sides, len(labels)), rtol=1e-4, atol=1e-5)
    _, _, slopes = triplet_sums(labels, embeddings, 0.3)
    counted = sum(c for _, _, c in sides[0])

    def linear(x):
        weights = ops.convert_to_tensor((slopes / counted).astype("float32"))
        return ops.sum(losses.BatchTripletLoss().measure(x, x) * weights)

    np.testing.assert_allclose(grad, gradient(linear, embeddings)[0], rtol=0, atol=1e-4 * np.abs(grad).max())


def test_the_switch_is_where_the_loss_says(rng, monkeypatch):
    ways = []
    for name in ("walk_triplets", "sorted_triplets"):
        kept = getattr(mining, name)
        monkeypatch.setattr(mining, name, lambda *a, kept=kept, name=name: ways.append(name) or kept(*a))
    for largest in (mining.WALK_UP_TO + 1, mining.WALK_UP_TO + 2):
        labels, embeddings = grid(rng, (largest, 2))
        rows, expected = rows_of(labels, embeddings), triplet_sums(labels, embeddings, 0.25)[0]
        np.testing.assert_allclose(array(mining.all_triplets(rows, 0.25)[0]), expected, rtol=1e-5)
    assert {"walk_triplets", "sorted_triplets"} <= set(ways)
