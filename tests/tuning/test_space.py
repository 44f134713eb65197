"""The search space: what becomes a hyperparameter, on which condition, of which kind; what is refused."""

import itertools

import keras
import keras_tuner
import pytest

from keras_siamese import losses
from keras_siamese.tuning import Range, SearchSpace

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
    ("fields", "error", "message"),
    [
        ({"loss": "ContrastivLoss"}, ValueError, "`loss` must be one of .*'ContrastiveLoss'.*got 'ContrastivLoss'"),
        ({"loss": "ArcFaceLoss"}, ValueError, "`loss` must be one of .*got 'ArcFaceLoss'"),
        ({"loss": []}, ValueError, "`loss` must hold at least one loss; got an empty list"),
        ({"loss": ["NTXentLoss", losses.NTXentLoss()]}, ValueError, "`loss` must hold each class once.*NTXentLoss"),
        ({"loss": "RankedListLoss"}, ValueError, "`loss` must be an instance.*RankedListLoss.* missing 2"),
        ({"loss": losses.ArcFaceLoss()}, TypeError, "`loss` must be a loss .* on pairs, triplets or batches"),
        ({"loss": keras.losses.MeanSquaredError()}, TypeError, "`loss` must be a loss of keras_siamese.losses"),
        ({"margin": 1.0, "relative_margin": 0.5}, ValueError, "`relative_margin` must be None if `margin` is given"),
        ({"margin": []}, ValueError, r"`margin` must hold one value or several distinct ones.*got \[\]"),
        ({"margin": [1.0, 1]}, ValueError, "`margin` must hold one value or several distinct ones"),
        ({"margin": -1.0}, ValueError, r"`margin` must be in \(0, inf\); got -1"),
        ({"margin": (0.1, 1.0)}, TypeError, r"`margin` must be a value, a list, or Range\(low, high\); got the tuple"),
        ({"relative_margin": Range(0.1, 1.5)}, ValueError, r"`relative_margin` must be in \(0, 1\]; got 1.5"),
        ({"distance": "cosin"}, ValueError, "`distance` must be one of .*got 'cosin'"),
        ({"distance": Range(1, 2)}, TypeError, "`distance` must be a name or a list of names; got Range"),
        ({"embedding_dim": 0}, ValueError, "`embedding_dim` must be at least 1; got 0"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1; got 0"),
        ({"loss": "NTXentLoss", "samples_per_class": 1}, ValueError, "`samples_per_class` must be at least 2; got 1"),
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


@pytest.mark.parametrize(("options", "what"), [({"step": 5}, "difference"), ({"step": 20, "log": True}, "ratio")])
def test_a_range_of_one_value_is_refused(options, what):
    with pytest.raises(ValueError, match=f"`step` must be at most the {what} of `high` and `low`; got"):
        Range(1, 4, **options)
    assert Range(1, 4, step=3).step == 3
