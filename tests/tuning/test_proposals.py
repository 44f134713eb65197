"""The proposal step, on findings written by hand: what is repaired, what is rounded, and what is explored."""

import keras_tuner
import numpy as np
import pytest

from keras_siamese.tuning import SearchSpace
from keras_siamese.tuning.proposals import Tried, changed, complete, is_new, nearest, place, propose, step
from keras_siamese.tuning.space import Range


def space_of(**fields):
    hp = keras_tuner.HyperParameters()
    SearchSpace(**fields).declare(hp)
    return hp


def found(cause, severity="error", **changes):
    return {"cause": cause, "severity": severity, "changes": changes}


PAIRS = {
    "learning_rate": Range(1e-6, 1.0, log=True),
    "margin": [0.01, 0.1, 0.5, 1.0, 10.0],
    "positive_fraction": [0.01, 0.1, 0.5, 0.9],
}


def values_of(space, **values):
    return complete(space, {"learning_rate": 1e-5, "margin": 0.1, "positive_fraction": 0.1, **values}, rng())


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_first_trial_is_random_and_has_every_active_value():
    space = space_of(**PAIRS)
    first = [propose(space, [], rng(seed)) for seed in range(3)]
    assert len({one.values["learning_rate"] for one in first}) == 3
    for one in first:
        assert one.values.keys() == {hp.name for hp in space.space}
        assert (one.parent, one.causes) == (None, ())


def test_the_repair_of_the_best_trial_is_proposed_and_rounded_to_the_space():
    space = space_of(**PAIRS)
    worse = Tried("0", values_of(space), 0.5, [found("margin", margin=10.0)])
    best = Tried("1", values_of(space, learning_rate=1e-4), 0.4, [found("margin", margin=0.83)])
    proposal = propose(space, [worse, best], rng())
    assert proposal.values == {**best.values, "margin": 1.0}
    assert (proposal.parent, proposal.causes) == ("1", ("margin",))


def test_several_repairs_are_tried_together_and_then_each_alone_worst_first():
    space = space_of(**PAIRS)
    findings = [found("pair_imbalance", positive_fraction=0.5), found("collapse", positive_fraction=0.9, margin=0.5)]
    trials = [Tried("0", values_of(space), 0.5, findings)]
    seen = []
    for _ in range(3):
        proposal = propose(space, trials, rng())
        seen.append(({name: proposal.values[name] for name in ("positive_fraction", "margin")}, proposal.causes))
        trials.append(Tried(str(len(trials)), proposal.values, 0.6))
    assert seen == [
        ({"positive_fraction": 0.5, "margin": 0.5}, ("pair_imbalance", "collapse")),
        ({"positive_fraction": 0.5, "margin": 0.1}, ("pair_imbalance",)),
        ({"positive_fraction": 0.9, "margin": 0.5}, ("collapse",)),
    ]
    fourth = propose(space, trials, rng())
    assert fourth.causes == () and is_new(space, fourth.values, [one.values for one in trials])


def test_faults_of_trials_behind_a_sound_one_are_left_alone():
    space = space_of(**PAIRS)
    faulty = Tried("0", values_of(space), 0.5, [found("margin", margin=1.0)])
    sound = Tried("1", values_of(space, margin=0.5), 0.2)
    assert propose(space, [faulty, sound], rng(1)).causes == ()
    better = Tried(
        "2", values_of(space, learning_rate=0.1), 0.1, [found("learning_rate", "warning", learning_rate=0.01)]
    )
    assert propose(space, [faulty, sound, better], rng(1)).causes == ("learning_rate",)
    told = Tried("2", values_of(space, learning_rate=0.1), 0.1, [found("learning_rate", "info", learning_rate=0.01)])
    assert propose(space, [faulty, sound, told], rng(1)).causes == ()


def test_a_cause_whose_repair_did_not_help_is_not_repaired_again():
    space = space_of(**PAIRS)
    first = Tried("0", values_of(space), 0.5, [found("margin", margin=1.0)])
    worse = Tried("1", values_of(space, margin=1.0), 0.6, parent="0", causes=("margin",))
    other = Tried("2", values_of(space, learning_rate=0.1), 0.4, [found("margin", margin=0.5)])
    assert propose(space, [first, worse, other], rng(1)).causes == ()
    better = Tried("1", values_of(space, margin=1.0), 0.45, parent="0", causes=("margin",))
    assert propose(space, [first, better, other], rng(1)).causes == ("margin",)
    several = Tried("1", values_of(space, margin=1.0), 0.6, parent="0", causes=("margin", "mining"))
    assert propose(space, [first, several, other], rng(1)).causes == ("margin",), "the other one may be to blame"


def test_a_hint_is_followed_where_nothing_is_to_be_repaired():
    space = space_of(**PAIRS)
    hinted = Tried("0", values_of(space), 0.3, [found("unfinished", "hint", learning_rate=3e-5)])
    proposal = propose(space, [hinted], rng())
    assert (proposal.causes, proposal.values["learning_rate"]) == (("unfinished",), pytest.approx(3e-5))
    both = Tried("0", values_of(space), 0.3, [*hinted.findings, found("margin", margin=1.0)])
    assert propose(space, [both], rng()).causes == ("margin",)
    behind = Tried("1", values_of(space, margin=1.0), 0.2)
    assert propose(space, [hinted, behind], rng()).causes == ()


def test_a_step_that_helped_is_made_once_more():
    space = space_of(**PAIRS, encoder={"kind": ["a", "b", "c"]})
    start = values_of(space, kind="a")
    now = {**start, "learning_rate": 1e-4, "margin": 0.5, "kind": "b"}
    trials = [Tried("0", start, 0.3), Tried("1", now, 0.2, parent="0")]
    proposal = propose(space, trials, rng())
    assert proposal.parent == "1" and proposal.values["kind"] == "b"
    assert proposal.values["learning_rate"] == pytest.approx(1e-3) and proposal.values["margin"] == 1.0
    trials.append(Tried("2", proposal.values, 0.25, parent="1"))
    assert propose(space, trials, rng()).values != proposal.values
    repaired = [trials[0], Tried("1", now, 0.2, parent="0", causes=("learning_rate",))]
    assert propose(space, repaired, rng()).values["learning_rate"] != pytest.approx(1e-3), "a repair is no step"


def test_a_failed_trial_is_repaired_and_a_running_one_is_not_started_from():
    space = space_of(**PAIRS)
    failed = Tried("0", values_of(space, learning_rate=1.0), None, [found("undetermined", learning_rate=0.1)])
    assert propose(space, [failed], rng()).values["learning_rate"] == pytest.approx(0.1)
    running = Tried("0", values_of(space), is_ended=False)
    assert propose(space, [running], rng()).parent is None
    repaired = Tried("1", {**failed.values, "learning_rate": 0.1}, is_ended=False)
    assert propose(space, [failed, repaired], rng()).causes == (), "a running trial counts as tried"


def test_a_repair_that_the_space_does_not_have_is_no_repair():
    space = space_of(**PAIRS, distance=["euclidean", "manhattan"])
    values = complete(space, {"distance": "manhattan"}, rng())
    assert changed(space, values, {"distance": "cosine", "head": "logistic", "width": 128}, rng()) is None
    assert changed(space, values, {"distance": "euclidean"}, rng()) == {**values, "distance": "euclidean"}
    assert changed(space, values, {"margin": values["margin"] * 1.01}, rng()) is None, "it rounds to the same"
    assert changed(space_of(margin=0.5), {"margin": 0.5}, {"margin": 1.0}, rng()) is None, "it is fixed"


def test_a_value_is_rounded_in_ratio_and_clipped():
    def field(*args, **options):
        hp = keras_tuner.HyperParameters()
        Range(*args, **options).register(hp, "one")
        return hp.space[0]

    choice = keras_tuner.HyperParameters()
    choice.Choice("one", [0.01, 1.0])
    assert nearest(choice.space[0], 0.2) == 1.0 and nearest(choice.space[0], 0.09) == 0.01
    assert nearest(field(1e-4, 1e-2, log=True), 3.0) == 1e-2
    assert nearest(field(0.0, 1.0, step=0.25), 0.6) == 0.5
    assert nearest(field(2, 8), 5.4) == 5 and nearest(field(2, 64, step=2, log=True), 20.0) == 16
    boolean = keras_tuner.HyperParameters()
    boolean.Boolean("one")
    assert nearest(boolean.space[0], True) is True and nearest(boolean.space[0], "yes") is None
    single = float(np.float32(0.01))
    assert single != 0.01 and place(choice.space[0], single) == place(choice.space[0], 0.01)


def test_a_value_that_a_change_activates_is_drawn_and_one_that_it_ends_is_left_out():
    space = space_of(loss=["NTXentLoss", "ContrastiveLoss"], margin=Range(0.5, 1.0), batch_size=8)
    values = complete(space, {"loss": "NTXentLoss"}, rng())
    assert "margin" not in values
    turned = changed(space, values, {"loss": "ContrastiveLoss"}, rng())
    assert 0.5 <= turned["margin"] <= 1.0
    assert "margin" not in changed(space, turned, {"loss": "NTXentLoss"}, rng())


def test_steps_stay_in_the_space_and_change_one_or_two_hyperparameters():
    space = space_of(**PAIRS, encoder={"depth": [1, 2, 3], "kind": ["a", "b"]})
    start = complete(space, {}, rng())
    generator, counts, moved = rng(), [], set()
    for _ in range(300):
        new = step(space, start, 0.2, generator)
        assert 1e-6 <= new["learning_rate"] <= 1.0
        names = {name for name in new if new[name] != start[name]}
        counts.append(len(names))
        moved |= names
    assert max(counts) == 2 and counts.count(0) < 100
    assert moved == {"learning_rate", "margin", "positive_fraction", "depth", "kind"}


def test_an_exhausted_space_ends_the_search():
    space = space_of(margin=[0.5, 1.0], batch_size=8)
    trials = []
    while (proposal := propose(space, trials, rng(len(trials)))) is not None:
        trials.append(Tried(str(len(trials)), proposal.values, 0.3))
    assert sorted(one.values["margin"] for one in trials) == [0.5, 1.0]


def test_points_are_new_if_they_differ_by_more_than_the_last_digits():
    space = space_of(**PAIRS)
    one = values_of(space)
    single = {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in one.items()}
    assert single != one and not is_new(space, one, [single]), "as a worker sends it back"
    assert is_new(space, {**one, "learning_rate": 2e-5}, [one])
    assert is_new(space, {**one, "margin": 0.5}, [one])
