"""Softmax losses of a batch against loops: values, each row's share, gradients."""

import pytest

from keras_siamese import losses
from keras_siamese.losses.batch import softmaxes
from tests.oracles import batch as oracles
from tests.support.batch_checks import (
    SIZES,
    Case,
    assert_case,
    assert_has_a_case_for_each_loss,
    assert_loop_rejects_the_mistake,
    for_each_case,
    itself,
    option,
)

CASES = {
    "NT-Xent": lambda: Case(
        losses.NTXentLoss(0.3),
        option(oracles.ntxent, temperature=0.3),
        option(oracles.ntxent, temperature=0.3, among_positives=True),
        oracles.cosine,
    ),
    "SupCon": lambda: Case(
        losses.SupConLoss(0.3),
        option(oracles.supcon, temperature=0.3),
        option(oracles.supcon, temperature=0.3, inside=True),
        oracles.cosine,
    ),
    "multi-similarity": lambda: Case(
        losses.MultiSimilarityLoss(), oracles.multi_similarity, itself(oracles.multi_similarity), oracles.cosine
    ),
    "multi-similarity, mined": lambda: Case(
        losses.MultiSimilarityLoss(epsilon=0.1),
        option(oracles.multi_similarity, epsilon=0.1),
        oracles.multi_similarity,
        oracles.cosine,
    ),
    "circle": lambda: Case(
        losses.CircleLoss(0.25, 16.0),
        option(oracles.circle, margin=0.25, scale=16.0),
        itself(option(oracles.circle, margin=0.25, scale=16.0)),
        oracles.cosine,
        held=True,
    ),
    "tuplet margin": lambda: Case(
        losses.TupletMarginLoss(20.0, 8.0),
        option(oracles.tuplet, margin=20.0, scale=8.0),
        option(oracles.tuplet, margin=-20.0, scale=8.0),
        oracles.cosine,
    ),
    "NCA": lambda: Case(
        losses.NCALoss(2.0), option(oracles.nca, scale=2.0), itself(option(oracles.nca, scale=2.0)), oracles.squared
    ),
    "soft nearest neighbour": lambda: Case(
        losses.SoftNearestNeighborLoss(0.5),
        option(oracles.soft_nearest_neighbor, temperature=0.5),
        option(oracles.soft_nearest_neighbor, temperature=0.5, whole=True),
        oracles.squared,
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
    assert_has_a_case_for_each_loss(CASES, softmaxes)
