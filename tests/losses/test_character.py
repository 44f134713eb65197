"""The properties that losses state, checked against their values; and the measurement of other losses."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese._export import exported
from keras_siamese.losses.character import LossCharacter, character_of
from tests.support.batches import REQUIRED

ALL = {
    name: cls(**REQUIRED.get(name, {}))
    for name, cls in exported(losses.SiameseLoss).items()
    if cls.__module__.startswith("keras_siamese.losses")
}


def contrastive(y_true, y_pred):
    return y_true * ops.square(y_pred) + (1 - y_true) * ops.square(ops.maximum(1.5 - y_pred, 0))


def reversed_contrastive(y_true, y_pred):
    return contrastive(1 - y_true, y_pred)


def mean_contrastive(y_true, y_pred):
    return ops.mean(contrastive(y_true, y_pred))


class Hinge(keras.losses.Loss):
    """A loss that falls to 0.5 at distance 30 and stays there; the genuine label is 0."""

    def call(self, y_true, y_pred):
        return ops.squeeze((1 - y_true) * y_pred + y_true * (ops.relu(30.0 - y_pred) + 0.5), axis=1)


def endless(y_true, y_pred):
    return y_true * y_pred - (1 - y_true) * y_pred


def exponential(y_true, y_pred):
    return y_true * y_pred + (1 - y_true) * ops.exp(-y_pred)


MEASURED = {
    "contrastive": (contrastive, "distance", 1, 1.5, 0.0, (2.25, 0.0)),
    "label 0 is genuine": (reversed_contrastive, "distance", 0, 1.5, 0.0, (2.25, 0.0)),
    "one number for the batch": (mean_contrastive, "distance", 1, 1.5, 0.0, (2.25, 0.0)),
    "a class with a hinge": (Hinge(), "distance", 0, 30.0, 0.0, (30.5, 0.0)),
    "no minimum": (endless, "distance", 1, None, -math.inf, (0.0, 0.0)),
    "an exponential tail is no margin": (exponential, "distance", 1, None, 0.0, (1.0, 0.0)),
    "Keras's hinge, for which 1 is far": ("hinge", "distance", 0, 1.0, 0.0, (1.0, 1.0)),
    "squared error, for which 1 is far": ("mse", "distance", 0, None, 0.0, (1.0, 0.0)),
    "cross-entropy of a score": ("binary_crossentropy", "score", 1, None, 0.0, None),
    "cross-entropy of a distance": (keras.losses.BinaryCrossentropy(), "distance", 0, 1.0, 0.0, (16.118, 0.0)),
}


def each_backend(name):
    few = ("contrastive", "a class with a hinge", "Keras's hinge, for which 1 is far", "cross-entropy of a score")
    return pytest.mark.each_backend if name in few else ()


@pytest.mark.parametrize("name", [pytest.param(n, marks=each_backend(n)) for n in MEASURED])
def test_a_strangers_loss_is_measured(name):
    loss, expects, similar_label, margin, minimum, at_zero = MEASURED[name]
    found = character_of(loss, expects)
    assert (found.kind, found.expects, found.similar_label, found.is_stated) == ("pair", expects, similar_label, False)
    assert found.margin == (None if margin is None else pytest.approx(margin, rel=1e-3))
    assert found.minimum == pytest.approx(minimum, abs=1e-6)
    assert not found.margin_is_gap
    assert found.expected_range == {"distance": (0.0, math.inf), "score": (0.0, 1.0)}[expects]
    assert found.at_zero == (None if at_zero is None else pytest.approx(at_zero, rel=2e-2, abs=1e-6))
    if at_zero is not None:
        expected = 0.75 * found.at_zero[0] + 0.25 * found.at_zero[1]
        assert found.value_at_collapse(0.25) == pytest.approx(expected)
    assert found.value_at_collapse() is None


def broken(y_true, y_pred):
    raise RuntimeError("not here")


@pytest.mark.parametrize("expects", ["distance", "score"])
@pytest.mark.parametrize(
    "loss",
    [
        broken,
        lambda y_true, y_pred: None,
        lambda y_true, y_pred: "much",
        lambda y_true, y_pred: y_pred * float("nan"),
        keras.losses.SparseCategoricalCrossentropy(),
        "no such loss",
        None,
        3,
    ],
)
def test_what_cannot_be_measured_is_unknown(loss, expects):
    found = character_of(loss, expects)
    assert (found.kind, found.similar_label, found.margin, found.minimum) == (None, None, None, None)
    assert found.value_at_collapse(0.5) is None


def test_a_loss_that_takes_no_notice_of_distances_has_no_genuine_label():
    found = character_of(lambda y_true, y_pred: y_true + 0 * y_pred)
    assert (found.kind, found.similar_label, found.margin) == (None, None, None)


def test_of_losses_on_embeddings_and_cosines_only_the_kind_is_known():
    assert character_of(contrastive, "embedding") == LossCharacter(
        kind="batch", expects="embedding", expected_range=None
    )
    assert character_of(contrastive, "cosine").kind == "proxy"


# What the losses of the package state

KINDS = {"ContrastiveLoss": "pair", "TripletLoss": "triplet", "NCALoss": "batch", "VICRegLoss": "batch"}
KINDS |= {"NpairsLoss": "batch", "ArcFaceLoss": "proxy", "WeightedBinaryCrossentropy": "pair"}


def test_kinds():
    assert {name: ALL[name].kind for name in KINDS} == KINDS
    assert {loss.kind for loss in ALL.values()} == {"pair", "triplet", "batch", "proxy"}
    assert {loss.minimum for loss in ALL.values()} == {0.0}


# Distance margin, and whether it is a gap; losses that are not in this table have none.
MARGINS = {
    "ContrastiveLoss": (1.0, False),
    "OnlineContrastiveLoss": (0.5, False),
    "MarginLoss": (0.2, True),
    "TripletLoss": (1.0, True),
    "BatchTripletLoss": (0.2, True),
    "TripletSemiHardLoss": (1.0, True),
    "TripletHardLoss": (1.0, True),
    "BatchMarginLoss": (0.2, True),
    "RankedListLoss": (0.4, True),
    "BatchContrastiveLoss": (1.0, False),
    "SNRContrastiveLoss": (1.0, False),
    "LiftedStructLoss": (1.0, False),
}


def test_margins():
    """The margin of ArcFace is an angle and that of Circle a difference of cosines, so they have none."""
    found = {name: character_of(loss) for name, loss in ALL.items()}
    assert {name: (c.margin, c.margin_is_gap) for name, c in found.items() if c.margin is not None} == MARGINS
    assert all(c.is_stated for c in found.values())
    assert losses.PNLoss(margin=0.5).distance_margin == 0.5
    assert losses.PNLoss(margin=0.5).margin_is_gap


@pytest.mark.parametrize("cls", [losses.TripletLoss, losses.TripletHardLoss])
def test_a_soft_hinge_that_does_not_use_the_margin_has_none(cls):
    assert character_of(cls(soft=True)).margin is None
    assert losses.BatchTripletLoss(0.3, soft=True).distance_margin == 0.3


def test_ranges_and_labels():
    assert losses.ContrastiveLoss().expected_range == (0.0, math.inf)
    assert losses.WeightedBinaryCrossentropy().expected_range == (0.0, 1.0)
    assert losses.WeightedBinaryCrossentropy(from_logits=True).expected_range == (-math.inf, math.inf)
    assert losses.ArcFaceLoss().expected_range == (-1.0, 1.0)
    assert losses.NCALoss().expected_range == (-math.inf, math.inf)
    assert character_of(losses.ContrastiveLoss(similar_label=0)).similar_label == 0
    assert character_of(losses.NCALoss()).similar_label is None


def test_mining():
    assert losses.BatchTripletLoss().mining is None
    assert character_of(losses.BatchTripletLoss(positives="easy", negatives="hard")).mining == ("easy", "hard")
    assert losses.PNLoss().mining == ("hard", "semi_hard")
    assert losses.OnlineContrastiveLoss().mining == ("hard", "hard")
    assert losses.TripletHardLoss().mining == ("hard", "hard")
    assert losses.TripletSemiHardLoss().mining == ("all", "semi_hard")


@pytest.mark.parametrize("similar_label", [0, 1])
@pytest.mark.parametrize(("cls", "margin"), [(losses.ContrastiveLoss, 1.0), (losses.MarginLoss, 1.4)])
def test_pair_losses_state_what_is_measured_of_them(cls, margin, similar_label):
    """The loss of impostor pairs in `MarginLoss` ends at β + m."""
    loss = cls(similar_label=similar_label, negative_weight=2.0, reduction="none")
    stated, measured = character_of(loss), character_of(lambda y_true, y_pred: loss(y_true[:, 0], y_pred))
    assert measured.similar_label == stated.similar_label == similar_label
    assert measured.at_zero == pytest.approx(stated.at_zero, rel=1e-5)
    assert measured.margin == pytest.approx(margin, rel=1e-3)
    assert not measured.is_stated


COLLAPSED = {
    "TripletLoss": [{}, {"soft": True}],
    "BatchTripletLoss": [
        {"margin": 0.3},
        {"margin": 0.3, "soft": True},
        {"positives": "hard", "negatives": "easy"},
        {"negatives": "semi_hard"},
        {"positives": "semi_hard", "negatives": "hard"},
    ],
    "TripletSemiHardLoss": [{"margin": 0.4}],
    "TripletHardLoss": [{"margin": 0.4}, {"soft": True}],
    "PNLoss": [{"distance": "euclidean"}, {"margin": 0.5, "distance": "euclidean"}],
    "BatchContrastiveLoss": [{"margin": 0.5}, {"margin": 0.5, "squared": True}],
    "SNRContrastiveLoss": [{"margin": 0.5}],
}


@pytest.mark.parametrize(("name", "options"), [(name, one) for name, each in COLLAPSED.items() for one in each])
def test_value_at_collapse_is_the_loss_of_equal_embeddings(name, options):
    loss = type(ALL[name])(**options)
    if loss.kind == "triplet":
        value = loss(np.zeros(3), np.zeros((3, 2), "float32"))
    else:
        value = loss(np.array([1, 1, 2, 2, 2]), np.tile(np.array([[0.5, -1.0, 0.25]], "float32"), (5, 1)))
    assert float(ops.convert_to_numpy(value)) == pytest.approx(loss.value_at_collapse(), rel=1e-5)
    assert character_of(loss).value_at_collapse(0.3) == pytest.approx(loss.value_at_collapse())


def test_value_at_collapse_of_pair_losses():
    loss = losses.ContrastiveLoss(margin=2.0, negative_weight=3.0)
    assert loss.value_at_collapse(0.25) == pytest.approx(0.75 * 3.0 * 4.0)
    assert character_of(loss).value_at_collapse(0.25) == pytest.approx(0.75 * 3.0 * 4.0)
    assert losses.MarginLoss(0.2, 0.1, positive_weight=3.0).value_at_collapse(0.5) == pytest.approx(0.5 * (0.3 + 0.3))
    assert loss.value_at_collapse() is None
    assert losses.WeightedBinaryCrossentropy().value_at_collapse(0.5) is None
    assert losses.NCALoss().value_at_collapse(0.5) is None


def test_asking_does_not_count_as_a_batch():
    loss = losses.ContrastiveLoss()
    (metric,) = loss.metrics("negative_distance")
    character_of(loss)
    assert float(ops.convert_to_numpy(metric.count)) == 0


def test_a_character_is_a_value():
    assert dataclasses.asdict(LossCharacter(kind="pair"))["kind"] == "pair"
    with pytest.raises(dataclasses.FrozenInstanceError):
        LossCharacter().kind = "pair"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.SupConLoss(0.2), 0.2),
        (losses.ArcFaceLoss(scale=20.0), 0.05),
        (losses.ProxyNCALoss(scale=1.0), 0.5),
        (losses.MultiSimilarityLoss(beta=40.0), 0.025),
        (losses.NCALoss(), None),
        (losses.VICRegLoss(), None),
    ],
)
def test_the_temperature_is_what_differences_of_cosines_are_divided_by(loss, expected):
    assert character_of(loss).cosine_temperature == expected
