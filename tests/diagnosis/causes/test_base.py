"""Tests of what the causes share: signals and their text, the strength of a finding, repairs, missing facts."""

import pytest

from keras_siamese._files import SideWork, SideWorkWarning
from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.causes.base import (
    ARRAYS,
    TRAINING_DATA,
    Cause,
    NotExamined,
    RuledOut,
    Signal,
    answer_of,
    change,
    is_imperfect,
    signals_of,
)
from keras_siamese.diagnosis.facts.table import Facts
from tests.support.facts_by_hand import answer


def slow():
    """A cause that is no subclass, because a subclass would be among those that every diagnosis examines."""
    cause = Cause()
    cause.name, cause.stage, cause.reads, cause.needs = "slow", "optimisation", ("speed",), "the speed of the run"

    def judge(facts):
        if facts["speed"] > 1:
            return RuledOut("slow")
        return cause.found(facts, "warning", "It is slow.", {}, 2 / facts["speed"], None)

    cause.judge, cause.advice = judge, "pass"
    return cause


@pytest.mark.parametrize(
    ("signal", "line"),
    [
        (Signal(0.5), "top speed 0.5"),
        (Signal(0.12345, 0.3), "top speed 0.1235  (threshold 0.3)"),
        (Signal(0.5, 0.3, 1.0, 0.25, 0.75), "top speed 0.5 [0.25, 0.75]  (threshold 0.3, null 1)"),
        (Signal(2.0, null=0.0), "top speed 2  (null 0)"),
    ],
)
def test_a_signal_as_text(signal, line):
    assert signal.line("top_speed") == line


def test_a_cause_answers_by_the_facts_at_hand():
    assert slow().examine(Facts({"epochs": 3.0})) == NotExamined("slow", "the speed of the run")
    assert slow().examine(Facts({"speed": 2.0})) == RuledOut("slow")
    finding = slow().examine(Facts({"speed": 1.0, "epochs": 3.0}))
    assert (finding.cause, finding.stage, finding.epoch, finding.strength) == ("slow", "optimisation", 2, 2.0)
    assert finding.explains_flag and finding.explained_by is None
    assert slow().examine(Facts({"speed": 1.0})).epoch is None


@pytest.mark.parametrize(("speed", "strength"), [(0.01, 10.0), (0.5, 4.0), (1.0, 2.0), (-1.0, 1.0)])
def test_a_strength_is_between_one_and_ten(speed, strength):
    assert slow().examine(Facts({"speed": speed})).strength == strength


def test_a_finding_may_have_another_stage_and_advice_than_usual():
    usual = slow().found(Facts({}), "error", "", {}, 1.0, None)
    assert (usual.stage, usual.advice) == ("optimisation", "pass")
    other = slow().found(Facts({}), "error", "", {}, 1.0, None, "hurry()", stage="data")
    assert (other.stage, other.advice) == ("data", "hurry()")


def test_a_change_leaves_the_recipe_as_it_was():
    recipe = {"margin": 1.0, "width": 8}
    assert change(width=16, depth=2)(recipe) == {"margin": 1.0, "width": 16, "depth": 2}
    assert recipe == {"margin": 1.0, "width": 8}


def test_signals_only_of_what_was_measured():
    found = signals_of(Facts({"a": 1.0, "b": 2.0}), a=0.5, b=(0.25, 0.75), c=None)
    assert found == {"a": Signal(1.0, 0.5, None), "b": Signal(2.0, 0.25, 0.75)}


def test_what_counts_as_imperfect():
    assert is_imperfect(Facts({"eer": 0.02})) and not is_imperfect(Facts({"eer": 0.0199}))
    assert is_imperfect(Facts({"eer": 0.1}), 0.1) and not is_imperfect(Facts({"eer": 0.0999}), 0.1)


def broken(error):
    """A cause that raises `error` when it judges."""
    cause = slow()

    def judge(facts):
        raise error

    cause.judge = judge
    return cause


def test_a_cause_that_raises_is_not_examined_and_says_why():
    side = SideWork()
    with pytest.warns(SideWorkWarning, match="The cause slow failed .*ZeroDivisionError: x; it is not examined"):
        answer = answer_of(broken(ZeroDivisionError("x")), Facts({"speed": 0.5}), side)
    assert (answer.cause, answer.needs) == ("slow", "the speed of the run")
    assert answer.error.startswith("ZeroDivisionError: x (") and answer.reason == f"error: {answer.error}"
    with pytest.raises(ZeroDivisionError):
        answer_of(broken(ZeroDivisionError("x")), Facts({"speed": 0.5}), SideWork(strict=True))


def test_a_cause_that_lacks_what_raised_says_so_and_asks_for_nothing():
    cause, side, lost = slow(), SideWork(), {"of_loss": "ZeroDivisionError: x"}
    assert answer_of(cause, Facts({"speed": 2.0}, errors=lost), side) == RuledOut("slow")
    assert answer_of(cause, Facts(errors=lost), side) == NotExamined("slow", "the speed of the run")  # not of `of_loss`
    cause.reads = ("margin",)
    asks_within = slow()
    asks_within.judge = lambda facts: RuledOut("slow") if "margin" in facts else NotExamined("slow", "a margin")
    raises = slow()
    raises.judge = lambda facts: facts["margin"]
    for one in (cause, asks_within, raises):
        answer = answer_of(one, Facts({"speed": 2.0}, errors=lost), side)
        assert (answer.error, answer.reason) == ("ZeroDivisionError: x", "error: ZeroDivisionError: x")
    assert answer_of(cause, Facts({"speed": 2.0}), side).reason == "needs the speed of the run"
    assert side.errors == []


NO_TRAINING = {"train_auc": None, "train_eer": None, "train_identities": None, "gap": None}
WITHOUT = {  # facts that are missing, and what the causes then lack
    TRAINING_DATA: (
        {"memorising": {}, "weak_features": {}, "mining": {}, "leakage": {"duplicates": None, "shared_names": None},
         "label_noise": {"impostor_like": None}, "preprocessing_mismatch": {"held_out_spread": None},
         "margin": {"margin": None, "loss_of_package": 0}},
        NO_TRAINING,
    ),
    ARRAYS: (
        {"leakage": {"duplicates": None, "shared_names": None}, "preprocessing_mismatch": {"held_out_spread": None}},
        {},
    ),
    "a model of two inputs": (
        {"head_sign": {}, "loss_mismatch": {}, "unreachable_output": {"out_of_reach": None}},
        {"compares_itself": 0.0, "equal_end": None},
    ),
    "held-out pairs as the model takes them: ([left, right], y)": (
        {"head_sign": {}, "loss_mismatch": {}, "unreachable_output": {"out_of_reach": None}},
        {"equal_end": None},
    ),
    "a loss that can be computed of one pair": (
        {"loss_mismatch": {"loss_falls_for_ever": None}, "unreachable_output": {"out_of_reach": None}},
        {},
    ),
    "an epoch after which the weights were finite": (
        {"learning_rate": {"update_size_first": None, "update_size_largest": None, "not_finite": 1.0}},
        {},
    ),
    "one encoder for both inputs": ({"wrong_distance": {"swap_gain": None}, "margin": {"untrained_distance": None}},
                                    {"unshared": 1.0}),
    "an encoder that Keras can copy": ({"margin": {"untrained_distance": None}}, {}),
    "a loss with a known margin of distances or temperature of cosines": ({"margin": {"margin": None}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("needs", WITHOUT)
def test_what_was_not_examined_lacks_what_is_missing_and_nothing_else(needs):
    each, of_all = WITHOUT[needs]
    for name, changes in each.items():
        assert answer(name, **of_all, **changes) == NotExamined(name, needs)


def test_identities_are_asked_for_only_where_pairs_do_not_tell():
    asked = [cause.name for cause in causes.CAUSES if "identities" in cause.needs]
    assert asked == ["identity_imbalance"]
    assert "([left, right], y)" in TRAINING_DATA
