"""Triplet losses of a batch against loops: values, each row's share, gradients, mining and refused options."""

import numpy as np
import pytest

from keras_siamese import distances, losses
from keras_siamese.losses.batch import triplets
from tests.oracles import batch as oracles
from tests.oracles.batch import Batch, shares
from tests.support.batch_checks import (
    SIZES,
    Case,
    assert_case,
    assert_has_a_case_for_each_loss,
    assert_loop_rejects_the_mistake,
    for_each_case,
    itself,
    option,
    per_row,
)
from tests.support.batches import evaluate

STRATEGIES = ("all", "hard", "semi_hard", "easy")


MINED = [
    (p, n)
    for p in STRATEGIES
    for n in STRATEGIES
    if (p, n) not in (("semi_hard", "semi_hard"), ("semi_hard", "all"), ("all", "semi_hard"), ("all", "all"))
]


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
        oracles.squared,
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
}


@for_each_case(CASES)
def test_rows_and_gradients_are_the_loops(name, rng):
    assert_case(CASES[name](), rng, SIZES[0])


@pytest.mark.deep
@pytest.mark.parametrize("name", CASES)
def test_rows_and_gradients_are_the_loops_where_one_identity_is_most_of_the_batch(name, rng):
    assert_case(CASES[name](), rng, SIZES[1])


@pytest.mark.parametrize("name", CASES)
def test_the_loops_reject_a_mistake(name, rng):
    assert_loop_rejects_the_mistake(CASES[name](), rng)


def test_every_loss_of_the_module_has_a_loop():
    assert_has_a_case_for_each_loss(CASES, triplets)


def test_hard_anchors_that_lack_a_side_are_left_out():
    """Two rows of one identity and a single row of another: two of the three anchors count."""
    labels, embeddings = [1, 1, 2], np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]], "float32")
    values, _ = evaluate(per_row(losses.TripletHardLoss(margin=4.0)), labels, embeddings)
    assert values.tolist() == pytest.approx([3 / 2 * (1 - 3 + 4), 3 / 2 * (1 - 2 + 4), 0.0])


def test_semi_hard_ends_are_beyond_the_positive_and_within_the_margin():
    """Negatives at the positive's distance, just inside the margin, at its end and beyond; all exact in float32."""
    labels = [1, 1, 2, 3, 4, 5]
    embeddings = np.array([[0.0], [1.0], [-1.0], [-1.25], [-1.5], [-1.75]], "float32")
    loss = losses.BatchTripletLoss(0.5, "all", "semi_hard", distance="manhattan")
    values, _ = evaluate(per_row(loss), labels, embeddings)
    expected = shares(oracles.semi_hard_window(Batch(labels, embeddings), 0.5), 6)
    assert values == pytest.approx(expected)
    assert values[0] == pytest.approx(6 * 0.25)
    # A negative at the same distance as the positive is not beyond it.
    values, _ = evaluate(per_row(losses.TripletSemiHardLoss(0.5, "manhattan")), labels, embeddings)
    assert values == pytest.approx(shares(oracles.semi_hard(Batch(labels, embeddings), 0.5), 6))


# Options that are refused


def test_margins_beyond_a_distance_without_scale_are_refused():
    for cls in (losses.BatchTripletLoss, losses.BatchContrastiveLoss, losses.PNLoss, losses.BatchMarginLoss):
        for distance, bound in (("cosine", 2), ("angular", 1)):
            with pytest.raises(ValueError, match=rf"`(margin|beta)` must be at most {bound}, as .*; got "):
                cls(margin=bound + 0.25, distance=distance)
    for cls in (losses.TripletSemiHardLoss, losses.TripletHardLoss):
        with pytest.raises(ValueError, match="`margin` must be at most 2, as CosineDistance"):
            cls(margin=2.5, distance_metric="angular")
        assert cls(margin=2.5).margin == 2.5
    with pytest.raises(ValueError, match="`beta` must be at most 1"):
        losses.BatchMarginLoss(distance="angular")


def test_learned_and_unknown_distances_are_refused():
    for learned in ("mahalanobis", distances.WeightedManhattanDistance()):
        with pytest.raises(ValueError, match="`distance` must be a distance without weights"):
            losses.BatchTripletLoss(distance=learned)
    with pytest.raises(ValueError, match="`distance_metric` must be a distance without weights"):
        losses.TripletSemiHardLoss(distance_metric="mahalanobis")
    with pytest.raises(
        TypeError, match="TripletHardLoss takes the options margin, soft, distance_metric, .*; got distance"
    ):
        losses.TripletHardLoss(distance="cosine")
    with pytest.raises(ValueError, match="`distance` must be one of 'euclidean'"):
        losses.NCALoss(distance="euclid")
    with pytest.raises(ValueError, match="must be one of"):
        losses.TripletHardLoss(distance_metric="L3")


def test_mining_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match="`positives` must be one of 'all', 'hard', 'semi_hard', 'easy'; got 'semihard'"
    ):
        losses.BatchTripletLoss(positives="semihard")
    with pytest.raises(ValueError, match="`negatives` must be one of .*'distance_weighted'; got 'random'"):
        losses.BatchTripletLoss(negatives="random")
    with pytest.raises(ValueError, match="`positives` must be one of 'hard', 'easy'; got 'all'"):
        losses.PNLoss(positives="all")
    with pytest.raises(ValueError, match="`negatives` must be one of 'semi_hard', 'hard', 'easy'; got 'all'"):
        losses.PNLoss(negatives="all")
    for negatives in ("all", "semi_hard", "distance_weighted"):
        with pytest.raises(ValueError, match='`positives="semi_hard"` needs one negative for each anchor'):
            losses.BatchTripletLoss(positives="semi_hard", negatives=negatives)
    with pytest.raises(ValueError, match='`negatives="distance_weighted"` needs the Euclidean distance'):
        losses.BatchTripletLoss(negatives="distance_weighted", distance="cosine")
