"""The search space: what becomes a hyperparameter, on which condition, of which kind; what is refused."""

import itertools

import keras
import keras_tuner
import numpy as np
import pytest

from keras_siamese import losses
from keras_siamese.tuning import Range, SearchSpace
from keras_siamese.tuning.recipe import batches_of, compiled_model, mining_callbacks

pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]


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


def test_values_lists_and_ranges_become_hyperparameters_of_their_kind():
    space = SearchSpace(
        margin=Range(0.25, 0.75, step=0.25),
        distance=["euclidean", "cosine"],
        embedding_dim=Range(8, 64, step=2, log=True),
        learning_rate=Range(1e-4, 1e-2, log=True),
        batch_size=[16, 32],
        encoder={"depth": Range(1, 3), "norm": [True, False], "rate": [0, 0.5], "name": "a"},
    )
    hp, values = declared(space)
    kinds = {one.name: type(one).__name__ for one in hp.space}
    assert kinds == {
        **dict.fromkeys(["loss", "optimizer", "mining", "positive_fraction", "name"], "Fixed"),
        **dict.fromkeys(["margin", "learning_rate"], "Float"),
        **dict.fromkeys(["embedding_dim", "depth"], "Int"),
        **dict.fromkeys(["distance", "batch_size", "norm", "rate"], "Choice"),
    }
    by_name = {one.name: one for one in hp.space}
    assert list(by_name["margin"].values) == [0.25, 0.5, 0.75]
    assert list(by_name["embedding_dim"].values) == [8, 16, 32, 64]
    assert list(by_name["depth"].values) == [1, 2, 3]
    assert by_name["rate"].values == [0.0, 0.5], "a Choice takes one type"
    assert (by_name["learning_rate"].sampling, by_name["margin"].sampling) == ("log", "linear")
    assert values == {name: hp.values[name] for name in kinds}
    assert all(name == name.lower() and name.isidentifier() for name in kinds)


LOSSES = ["ContrastiveLoss", "WeightedBinaryCrossentropy", "TripletLoss", "BatchTripletLoss", "NTXentLoss"]


@pytest.mark.parametrize(
    ("field", "choices", "users"),
    [
        ({"margin": [0.2, 0.4]}, "margin", {"ContrastiveLoss", "TripletLoss", "BatchTripletLoss"}),
        ({"relative_margin": [0.2, 0.4]}, "relative_margin", {"ContrastiveLoss", "TripletLoss", "BatchTripletLoss"}),
        ({"distance": ["cosine", "euclidean"]}, "distance", set(LOSSES) - {"NTXentLoss"}),
        ({"mining": ["none", "hard"]}, "mining", set(LOSSES) - {"NTXentLoss"}),
        ({"positive_fraction": [0.3, 0.5]}, "positive_fraction", {"ContrastiveLoss", "WeightedBinaryCrossentropy"}),
        ({"batch_size": [8, 16]}, "batch_size", {"ContrastiveLoss", "WeightedBinaryCrossentropy", "TripletLoss"}),
        ({"classes_per_batch": [2, 4]}, "classes_per_batch", {"BatchTripletLoss", "NTXentLoss"}),
        ({"samples_per_class": [2, 4]}, "samples_per_class", {"BatchTripletLoss", "NTXentLoss"}),
        ({"head": ["logistic", encoder]}, "head", {"WeightedBinaryCrossentropy"}),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate", set(LOSSES)),
        ({"augmentation": [0.0, 1.0]}, "augmentation", set(LOSSES)),
    ],
)
def test_what_a_loss_does_not_use_is_no_hyperparameter_of_its_trials(field, choices, users):
    space = SearchSpace(loss=LOSSES, **field)
    for loss in LOSSES:
        hp, values = declared(space, loss=loss)
        assert (choices in values) == (choices in hp.values) == (loss in users), loss
    conditions = next(one.conditions for one in hp.space if one.name == choices)
    assert (conditions == []) == (users == set(LOSSES))


def test_a_grid_of_the_space_has_each_combination_once_and_no_other():
    space = SearchSpace(loss=["ContrastiveLoss", "NTXentLoss"], margin=[0.5, 1.0], embedding_dim=[2, 4])
    oracle = keras_tuner.oracles.GridSearchOracle(objective=keras_tuner.Objective("val_eer", "min"))
    hp = oracle.get_space()
    space.declare(hp)
    oracle.update_space(hp)
    oracle._set_project_dir(".", "unused")
    oracle._save_trial = oracle.save = lambda *trial: None
    oracle.verbose = 0
    seen = []
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        values = trial.hyperparameters.values
        seen.append((values["loss"], values.get("margin"), values["embedding_dim"]))
        oracle.update_trial(trial.trial_id, {"val_eer": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    expected = [("ContrastiveLoss", margin, dim) for margin, dim in itertools.product([0.5, 1.0], [2, 4])]
    assert sorted(seen, key=str) == sorted([*expected, ("NTXentLoss", None, 2), ("NTXentLoss", None, 4)], key=str)


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


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"loss": "ContrastivLoss"}, ValueError, "`loss` must be one of .*'ContrastiveLoss'.*got 'ContrastivLoss'"),
        ({"loss": "ArcFaceLoss"}, ValueError, "`loss` must be one of .*got 'ArcFaceLoss'"),
        ({"loss": []}, ValueError, "`loss` must hold a loss; got an empty list"),
        ({"loss": ["NTXentLoss", losses.NTXentLoss()]}, ValueError, "`loss` must hold each class once.*NTXentLoss"),
        ({"loss": "RankedListLoss"}, ValueError, "`loss` must be an instance.*RankedListLoss"),
        ({"loss": losses.ArcFaceLoss()}, TypeError, "`loss` must be a loss .* on pairs, triplets or batches"),
        ({"loss": keras.losses.MeanSquaredError()}, TypeError, "`loss` must be a loss of keras_siamese.losses"),
        ({"margin": 1.0, "relative_margin": 0.5}, ValueError, "`relative_margin` must be None where `margin` is given"),
        ({"margin": []}, ValueError, r"`margin` must hold one value or several distinct ones.*got \[\]"),
        ({"margin": [1.0, 1]}, ValueError, "`margin` must hold one value or several distinct ones"),
        ({"margin": -1.0}, ValueError, r"`margin` must be in \(0, inf\); got -1"),
        ({"margin": (0.1, 1.0)}, TypeError, r"`margin` must be a value, a list, or Range\(low, high\); got the tuple"),
        ({"relative_margin": Range(0.1, 1.5)}, ValueError, r"`relative_margin` must be in \(0, 1\]; got 1.5"),
        ({"distance": "cosin"}, ValueError, "`distance` must be one of .*got 'cosin'"),
        ({"distance": Range(1, 2)}, TypeError, "`distance` must be a name or a list of names; got Range"),
        ({"embedding_dim": 8.5}, TypeError, "`embedding_dim` must be an integer; got 8.5"),
        ({"embedding_dim": Range(8.0, 16.5)}, TypeError, "`embedding_dim` must be a range of whole numbers"),
        ({"optimizer": "adm"}, ValueError, "`optimizer` must be a name that keras.optimizers.get knows; got 'adm'"),
        ({"mining": "semi_hard"}, ValueError, "`mining` must be one of 'none', 'hard'; got 'semi_hard'"),
        ({"positive_fraction": 0}, ValueError, r"`positive_fraction` must be in \(0, 1\]; got 0"),
        ({"head": "dense"}, ValueError, "`head` must be one of 'logistic'; got 'dense'"),
        ({"head": keras.layers.Dense(1)}, ValueError, "`head` must hold distinct functions, each of which returns"),
        (
            {"encoder": {"margin": 1}},
            ValueError,
            "`encoder` must hold no field that the space has itself; got 'margin'",
        ),
        ({"encoder": {"depth": [1, "a"]}}, ValueError, r"`encoder\['depth'\]` must hold .* of one type"),
        ({"encoder": {"depth": [None]}}, TypeError, r"`encoder\['depth'\]` must be strings, booleans or numbers"),
        ({"encoder": [1]}, TypeError, "`encoder` must be a dict of fields"),
        ({"loss": "NTXentLoss", "positive_fraction": 0.3}, ValueError, "`positive_fraction` is used by no `loss`"),
        ({"loss": "NTXentLoss", "relative_margin": 0.3}, ValueError, "`relative_margin` is used by no `loss`"),
        (
            {"samples_per_class": 2},
            ValueError,
            "`samples_per_class` is used by no `loss` of the space; got 2 with Contr",
        ),
        ({"margn": 2}, TypeError, "margn"),
    ],
)
def test_a_bad_space_is_refused(fields, error, message):
    with pytest.raises(error, match=message):
        SearchSpace(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 2, "high": 1}, r"`high` must be in \(2, inf\); got 1"),
        ({"low": 0, "high": 1, "log": True}, r"`low` must be in \(0, inf\]; got 0"),
        ({"low": 1, "high": 8, "step": 1, "log": True}, r"`step` must be in \(1, inf\); got 1"),
        ({"low": 1, "high": 8, "step": -1}, r"`step` must be in \(0, inf\); got -1"),
    ],
)
def test_a_bad_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Range(**options)
