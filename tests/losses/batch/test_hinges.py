"""Losses on pairs of a batch against loops: values, each row's share, gradients."""

import numpy as np
import pytest

from keras_siamese import losses
from keras_siamese.losses.batch import hinges
from tests.oracles import batch as oracles
from tests.oracles.batch import Batch, total
from tests.support.batch_checks import (
    SIZES,
    Case,
    assert_case,
    assert_has_a_case_for_each_loss,
    assert_loop_rejects_the_mistake,
    for_each_case,
    option,
)
from tests.support.batches import evaluate


def over_all(batch, *arguments, **options):
    return oracles.contrastive(batch, *arguments, count=oracles.each, **options)


CASES = {
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
        oracles.cosine,
    ),
    "intra-pair variance": lambda: Case(
        losses.IntraPairVarianceLoss(0.25, 0.5),
        option(oracles.intra_pair_variance, epsilons=(0.25, 0.5)),
        option(oracles.intra_pair_variance, shifted=False),
        oracles.cosine,
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
    assert_has_a_case_for_each_loss(CASES, hinges)


def test_ranked_list_counts_a_negative_at_distance_zero():
    labels, embeddings = [1, 1, 2], np.array([[0.5, 0.0], [0.0, 0.5], [0.5, 0.0]], "float32")
    batch = Batch(labels, embeddings)
    counted = total(oracles.ranked_list(batch, 0.4, 4.0))
    assert counted > 1.2 * total(oracles.ranked_list(batch, 0.4, 4.0, touching=False))
    value, grad = evaluate(losses.RankedListLoss(0.4, 4.0), labels, embeddings)
    assert value == pytest.approx(counted, rel=1e-5)
    assert np.isfinite(grad).all()


def test_ranked_lists_weights_do_not_overflow_near_zero():
    a, b = (1.0, 0.5, 0.0), (-0.5, 1.0, 0.25)
    labels, embeddings = np.array([1, 1, 2]), np.array([a, b, a], "float32")
    value, grad = evaluate(losses.RankedListLoss(0.4, 500.0), labels, embeddings)
    # The negative at distance 0 has almost all the weight: 1.2 inside α, in two rows, times λ = ½.
    near = [0.5 * (oracles.euclidean(a, b) - 0.8), 0.5 * (oracles.euclidean(a, b) - 0.8), 0.0]
    far = [0.5 * 1.2, max(0.0, 0.5 * (1.2 - oracles.euclidean(a, b))), 0.5 * 1.2]
    assert value == pytest.approx((sum(near) + sum(far)) / 3, rel=1e-4)
    assert np.isfinite(grad).all()
