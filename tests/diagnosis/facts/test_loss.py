"""The margin of a loss, and its value for a constant encoder."""

import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.loss import at_constant
from tests.support.measured import encoder, facts_of


def test_loss_at_a_constant_is_the_share_of_each_kind():
    assert at_constant((1.0, 0.0), 0.25) == 0.75
    assert at_constant((4.0, 0.5), 0.5) == 2.25


@pytest.mark.parametrize(
    ("loss", "margin", "is_gap"),
    [
        (ks.losses.ContrastiveLoss(margin=0.7), 0.7, 0.0),
        (ks.losses.BatchTripletLoss(margin=0.3), 0.3, 1.0),
        (ks.losses.BatchContrastiveLoss(margin=0.9), 0.9, 0.0),
        (ks.losses.TupletMarginLoss(), None, None),  # degrees
        (ks.losses.CircleLoss(), None, None),  # of cosines
        (ks.losses.NTXentLoss(), None, None),
    ],
)
def test_only_a_margin_of_distances_is_one(loss, margin, is_gap):
    facts = facts_of(encoder(), loss=loss)
    assert (facts.get("margin"), facts.get("margin_is_gap")) == (margin, is_gap)
