"""The recipe: the model, the batches and the callbacks of the values that hold in a trial."""

import itertools

import keras
import keras_tuner
import numpy as np
import pytest

from keras_siamese import distances, losses
from keras_siamese.tuning import SearchSpace
from keras_siamese.tuning.recipe import (
    augment_images,
    batches_of,
    compared_by,
    compiled_model,
    mining_callbacks,
    siamese_of,
)

LOSSES = ["ContrastiveLoss", "WeightedBinaryCrossentropy", "TripletLoss", "BatchTripletLoss", "NTXentLoss"]


def declared(space, **given):
    """The hyperparameters of a space with some of their values `given`, and the values that hold."""
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    hp.values |= given
    hp.ensure_active_values()
    return hp, space.declare(hp)


def encoder(dim=3, unit=True):
    layers = [keras.Input((4,)), keras.layers.Dense(dim)]
    return keras.Sequential([*layers, keras.layers.UnitNormalization()] if unit else layers)


@pytest.mark.parametrize(
    ("loss", "distance", "reach"),
    [
        ("ContrastiveLoss", "euclidean", 2.0),
        ("ContrastiveLoss", "squared_euclidean", 4.0),
        ("ContrastiveLoss", "cosine", 2.0),
        ("ContrastiveLoss", "angular", 1.0),
        ("ContrastiveLoss", "inner_product", 1.0),
        ("TripletLoss", "inner_product", 2.0),
        ("BatchTripletLoss", "angular", 1.0),
        (losses.MarginLoss(beta=0.75), "euclidean", 0.75),
        (losses.MarginLoss(beta=1.5), "euclidean", 0.5),
    ],
)
def test_a_relative_margin_is_a_share_of_what_the_distance_reaches(loss, distance, reach):
    space = SearchSpace(loss=loss, distance=distance, relative_margin=[0.5, 1.0])
    for share in (0.5, 1.0):
        model = compiled_model(space, declared(space, relative_margin=share)[1], encoder())
        assert model.loss.margin == pytest.approx(share * reach)
        if hasattr(model, "bounds"):
            model.loss.check_reach(*model.bounds)
    if hasattr(model, "bounds"):
        model.loss.margin *= 1.01
        with pytest.raises(ValueError, match="must be at most"):
            model.loss.check_reach(*model.bounds)


def test_without_bounds_a_relative_margin_says_what_to_do():
    space = SearchSpace(relative_margin=0.5)
    with pytest.raises(ValueError, match="needs distances with an upper bound.*End the encoder with UnitNormalization"):
        compiled_model(space, declared(space)[1], encoder(unit=False))


def test_the_model_of_each_kind_of_loss():
    space = SearchSpace(loss=LOSSES, margin=[0.3, 0.4], distance=["cosine", "angular"], optimizer=["sgd", "adam"])
    made = {}
    for loss in LOSSES:
        _, values = declared(space, loss=loss, distance="angular", margin=0.4, optimizer="adam")
        made[loss] = compiled_model(space, values, encoder())
    assert {loss: type(model).__name__ for loss, model in made.items()} == {
        **dict.fromkeys(LOSSES[:3], "SiameseWrapper"),
        **dict.fromkeys(LOSSES[3:], "Sequential"),
    }
    assert {loss: type(model.loss).__name__ for loss, model in made.items()} == {loss: loss for loss in LOSSES}
    assert [made[loss].distance.bounds for loss in LOSSES[:3]] == [(0.0, 1.0)] * 3
    assert made["BatchTripletLoss"].loss.get_config()["distance"] != losses.BatchTripletLoss().get_config()["distance"]
    assert [made[loss].loss.margin for loss in LOSSES if loss not in LOSSES[1::3]] == [0.4, 0.4, 0.4]
    assert [made[loss].output_kind for loss in LOSSES[:3]] == ["distance", "score", "distance"]
    assert all(type(model.optimizer).__name__ == "Adam" for model in made.values())
    rates = [float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) for model in made.values()]
    assert rates == pytest.approx([1e-3] * 5)


def test_an_instance_keeps_its_other_options():
    space = SearchSpace(loss=[losses.ContrastiveLoss(squared=False, margin=0.7), losses.NTXentLoss(temperature=0.2)])
    model = compiled_model(space, declared(space, loss="ContrastiveLoss")[1], encoder())
    assert (model.loss.squared, model.loss.margin) == (False, 0.7)
    assert compiled_model(space, declared(space, loss="NTXentLoss")[1], encoder()).loss.temperature == 0.2


def test_a_head_of_ones_own():
    def dense():
        return keras.layers.Dense(1, activation="sigmoid")

    space = SearchSpace(loss="WeightedBinaryCrossentropy", head=["logistic", dense])
    models = [compiled_model(space, declared(space, head=name)[1], encoder()) for name in ("logistic", "dense")]
    assert [type(model.head).__name__ for model in models] == ["LogisticHead", "Dense"]


def test_batches_follow_the_values():
    x, labels = np.arange(64.0).reshape(16, 4).astype("float32"), np.repeat(np.arange(4), 4)

    def batches(augment=None, **fields):
        space = SearchSpace(**fields)
        return batches_of(space, declared(space)[1], x, labels, 5, augment)

    pairs = batches(batch_size=3, positive_fraction=0.25)
    assert (type(pairs).__name__, pairs.batch_size, pairs.positive_fraction, pairs.seed) == ("PairSequence", 3, 0.25, 5)
    assert (type(batches(loss="TripletLoss", batch_size=7)).__name__) == "TripletSequence"
    batch = batches(loss="NTXentLoss", classes_per_batch=3, samples_per_class=2)
    assert (batch.classes_per_batch, batch.samples_per_class) == (3, 2)
    (left, _), _ = batches(lambda strength: lambda array, rng: array + strength, augmentation=1000.0)[0]
    assert left.min() >= 1000
    assert batches(lambda strength: None, augmentation=0).augment is None


def test_mining_is_a_callback_for_pairs_and_an_option_of_batch_losses():
    x, labels = np.arange(64.0).reshape(16, 4).astype("float32"), np.repeat(np.arange(4), 4)
    space = SearchSpace(loss=["ContrastiveLoss", "BatchTripletLoss"], mining=["none", "hard"], classes_per_batch=4)
    found = {}
    for loss, mining in itertools.product(space.losses, ["none", "hard"]):
        _, values = declared(space, loss=loss, mining=mining)
        batches = batches_of(space, values, x, labels, 0, None)
        model = compiled_model(space, values, encoder())
        found[loss, mining] = len(mining_callbacks(space, values, batches)), getattr(model.loss, "negatives", None)
    assert found == {
        ("ContrastiveLoss", "none"): (0, None),
        ("ContrastiveLoss", "hard"): (1, None),
        ("BatchTripletLoss", "none"): (0, "all"),
        ("BatchTripletLoss", "hard"): (0, "hard"),
    }
    semi_hard = SearchSpace(loss="BatchTripletLoss", mining="semi_hard")
    assert compiled_model(semi_hard, declared(semi_hard)[1], encoder()).loss.negatives == "semi_hard"


def test_a_siamese_network_stays_and_an_encoder_becomes_one():
    siamese = siamese_of(encoder())
    assert type(siamese).__name__ == "SiameseWrapper"
    assert type(siamese.distance) is type(distances.get("euclidean"))
    assert siamese_of(siamese) is siamese


def test_a_monitor_compares_a_bare_encoder_as_the_loss_does():
    space = SearchSpace(loss=["ContrastiveLoss", "BatchTripletLoss"], distance=["cosine", "angular"])
    compared = compared_by(space, declared(space, loss="BatchTripletLoss", distance="angular")[1])
    assert type(compared["distance"]) is type(distances.get("angular"))
    assert compared_by(space, declared(space, loss="ContrastiveLoss", distance="angular")[1]) == {}
    space = SearchSpace(loss="NTXentLoss")
    assert compared_by(space, declared(space)[1]) == {}


def test_the_default_augmentation_grows_with_its_strength(rng):
    images = np.zeros((4, 16, 16, 1), "float32")
    images[:, 4:12, 7:9] = 1
    weak, strong = (np.abs(augment_images(strength)(images, rng) - images).mean() for strength in (0.05, 1.0))
    assert 0 <= weak < strong
    assert augment_images(30.0)(images, rng).shape == images.shape  # shifts and zooms stop at 0.9
