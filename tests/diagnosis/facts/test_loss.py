"""Facts of the loss: its margin, the pairs that it still moves, and its value for a constant encoder."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese.diagnosis.facts.loss import has_scale, implied_fraction, lowest_label, same_label
from keras_siamese.losses.character import character_of
from tests.support import plantings
from tests.support.measured import encoder, facts_of


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
    assert facts["loss_of_package"] == 1


def test_a_loss_from_elsewhere_is_not_of_this_package():
    assert facts_of(encoder(), loss=keras.losses.MeanSquaredError())["loss_of_package"] == 0


def test_pairs_that_the_loss_still_moves_equal_a_loop():
    x, labels = plantings.held_out_part()
    x, labels = x[:30], labels[:30]
    model = ks.SiameseWrapper(encoder())
    loss = ks.losses.ContrastiveLoss(margin=0.9, positive_weight=3.0)
    facts = facts_of(model, (x, labels), loss=loss, bounds=model.bounds)
    z = ops.convert_to_numpy(model.encoder(x)).astype(float)
    pairs = [(i, j) for i in range(30) for j in range(i)]
    genuine = [np.linalg.norm(z[i] - z[j]) for i, j in pairs if labels[i] == labels[j]]
    impostor = [np.linalg.norm(z[i] - z[j]) for i, j in pairs if labels[i] != labels[j]]
    assert facts["median_impostor_distance"] == pytest.approx(np.median(impostor), rel=1e-4)
    assert facts["impostor_distance_reached"] == pytest.approx(np.quantile(impostor, 0.99), rel=1e-4)
    assert facts["active_impostors"] == pytest.approx(np.mean([one < 0.9 for one in impostor]))
    assert facts["impostor_loss"] == pytest.approx(np.mean([max(0.9 - one, 0) ** 2 for one in impostor]), rel=1e-3)
    assert facts["genuine_loss"] == pytest.approx(np.mean(np.square(genuine)), rel=1e-3)  # without its weight


def collapsed(loss, losses, **options):
    """How far the last `losses` are from the loss of a constant encoder, as the facts say, or None."""
    history = {name: [0.5] * 4 for name in ("auc", "eer", "auc_se", "eer_se")} | {"loss": losses}
    return facts_of(encoder(), loss=loss, history=history, **options).get("loss_from_collapsed_value")


def test_the_loss_of_a_constant_encoder_is_asked_of_the_loss():
    pairs = {"positive_fraction": 0.25, "bounds": (0.0, 2.0)}
    assert collapsed(ks.losses.ContrastiveLoss(margin=2.0), [9.0, 3.0, 3.0, 3.3], **pairs) == pytest.approx(0.1)
    assert collapsed(ks.losses.ContrastiveLoss(margin=2.0), [9.0, 3.0, 3.0, float("nan")], **pairs) is None
    assert collapsed(ks.losses.ContrastiveLoss(margin=2.0), [3.0, 3.0, 3.0, 3.3]) is None, "unknown share"
    assert collapsed(ks.losses.BatchTripletLoss(margin=0.5), [9.0, 0.5, 0.5, 0.4]) == pytest.approx(0.2)
    assert collapsed(ks.losses.BatchTripletLoss(negatives="semi_hard"), [9.0, 0.2, 0.2, 0.2]) is None


def test_the_loss_of_another_project_is_measured():
    def halved(y_true, y_pred):
        """Half of the contrastive loss with margin 0.8, where 0 means the same."""
        return 0.5 * (y_true * ops.relu(0.8 - y_pred) ** 2 + (1 - y_true) * y_pred**2)

    facts = facts_of(encoder(), loss=halved, positive_fraction=0.5, bounds=(0.0, 2.0))
    assert facts["margin"] == pytest.approx(0.8, rel=1e-3) and facts["margin_is_gap"] == 0.0
    assert facts["loss_similar_label"] == 0.0 and facts.words["loss"] == "ContrastiveLoss"
    assert "margin" not in facts_of(encoder(), loss=halved), "it is not known what the loss is given"


@pytest.mark.parametrize(
    ("of_pairs", "similar_label", "wanted", "label"),
    [
        (0, 1, 1, 0),  # a sequence of pairs knows it
        (None, 0, -1, 0),
        (None, -1, 1, 0),  # labels of -1 and 1
        (None, 1, 1, 1),
        (None, 1, 0, None),  # the loss was asked of no pairs of the user's
    ],
)
def test_the_label_that_means_the_same_in_what_is_trained_on(of_pairs, similar_label, wanted, label):
    siamese = SimpleNamespace(direction=SimpleNamespace(similar_label=similar_label, wanted=wanted))
    assert same_label(SimpleNamespace(data_similar_label=of_pairs, siamese=siamese)) == label
    assert same_label(SimpleNamespace(data_similar_label=of_pairs, siamese=None)) == of_pairs


@pytest.mark.parametrize(
    ("loss", "expects", "scale"),
    [
        (ks.losses.ContrastiveLoss(), "distance", 1.0),
        (ks.losses.NTXentLoss(), "embedding", 1.0),
        (ks.losses.WeightedBinaryCrossentropy(), "score", 0.0),
        (ks.losses.PNLoss(), "embedding", None),  # its margin is no distance
        (ks.losses.VICRegLoss(), "embedding", 0.0),
        ("binary_crossentropy", "embedding", 0.0),  # as it is asked without training data
        (keras.losses.CosineSimilarity(), "embedding", 0.0),
        (keras.losses.hinge, "embedding", 1.0),
        (keras.losses.MeanSquaredError(), "distance", 0.0),
        (lambda y, d: ops.square(d - y), "embedding", None),
        (lambda y, d: y * ops.square(d) + (1 - y) * ops.square(ops.maximum(2.0 - d, 0.0)), "distance", 1.0),
        (None, "embedding", None),
        ({"a": "mse", "b": "mse"}, "embedding", None),
    ],
)
def test_a_loss_has_a_scale_if_it_has_a_margin_or_a_temperature(loss, expects, scale):
    assert has_scale(loss, character_of(loss, expects)) == scale


@pytest.mark.parametrize(("labels", "lowest"), [((0, 1), 0.0), ((-1, 1), -1.0), (None, None)])
def test_the_lowest_label_is_that_of_the_pairs(labels, lowest):
    assert lowest_label(SimpleNamespace(siamese=SimpleNamespace(labels=labels))) == lowest


def test_the_share_of_genuine_pairs_that_a_mean_loss_implies():
    for share in (0.0, 0.01, 0.5, 1.0):
        assert implied_fraction(share * 0.9 + (1 - share) * 0.2, 0.9, 0.2) == pytest.approx(share)
    assert implied_fraction(0.5, 0.1, 0.2) == 0.0 and implied_fraction(0.05, 0.1, 0.2) == 1.0  # out of reach
    assert implied_fraction(0.2, 0.2, 0.2) is None
