"""The table of limits: the modules that an entry names use it, and the causes have no limits of their own."""

import ast
import copy
import json
import re
import threading
from pathlib import Path

import pytest

import keras_siamese
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes import Finding, RuledOut
from tests.support.facts_by_hand import BAD, answer

ROOM = Path(keras_siamese.__file__).parent / "diagnosis"
MODULES = {
    ".".join(path.relative_to(ROOM).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in ROOM.rglob("*.py")
    if path.name != "limits.py"
}


@pytest.mark.parametrize("name", limits.TABLE)
def test_a_limit_says_what_it_is_and_names_its_users(name):
    limit = limits.TABLE[name]
    assert limit.origin and isinstance(limit.unit, str)
    users = {module for module, text in MODULES.items() if re.search(rf"\blimits\.{name}\b", text)}
    assert users == set(limit.used_by) != set()


def test_a_limit_is_a_number():
    assert limits.POINT == 0.25 and limits.POINT / 2 == 0.125 and f"{limits.POINT:.3f}" == "0.250"
    assert repr(limits.POINT) == "0.25" and copy.deepcopy(limits.POINT) == 0.25
    assert (limits.POINT.unit, limits.POINT.used_by) == (
        "spread, spacing",
        ("causes.collapse", "report.panels", "causes.mining", "causes.inverted_labels"),
    )


def test_a_limit_is_changed_in_a_block_and_in_its_thread_alone():
    elsewhere = []
    with pytest.raises(ZeroDivisionError), limits.changed(POINT=0.5):
        with limits.changed(GAP=0.2):
            assert (limits.POINT, limits.GAP, limits.COLLAPSED) == (0.5, 0.2, 0.1)
        assert (limits.POINT, limits.GAP) == (0.5, 0.1)
        thread = threading.Thread(target=lambda: elsewhere.append(limits.POINT))
        thread.start()
        thread.join()
        1 / 0  # noqa: B018
    assert elsewhere == [0.25] and limits.TABLE["POINT"] is limits.POINT == 0.25


def test_causes_judge_by_the_limits_of_the_moment():
    bad = {**BAD, "spread": 0.3, "spacing": 0.3}
    assert isinstance(answer("collapse", **bad), RuledOut)
    with limits.changed(POINT=0.4):
        assert isinstance(answer("collapse", **bad), Finding)
    well = {"eer": 0.03, "train_eer": 0.02}
    assert isinstance(answer("mining", **well), Finding)
    with limits.changed(GOOD_EER=0.04):
        assert isinstance(answer("mining", **well), RuledOut)


def test_an_unknown_limit_is_refused():
    with pytest.raises(ValueError, match=r"there is none named \['PIONT'\]"), limits.changed(PIONT=1.0):
        pass
    with pytest.raises(AttributeError, match="'PIONT'"):
        _ = limits.PIONT


def test_a_share_near_1_stays_a_share():
    assert limits.TABLE["POINT"].times(2) == 0.5 and limits.TABLE["STRONGEST"].times(0.5) == 5
    assert pytest.approx(0.995) == limits.TABLE["ALL_ACTIVE"].times(2)
    assert pytest.approx(0.98) == limits.TABLE["ALL_ACTIVE"].times(0.5)


# They keep a ratio finite, or say what is usual, for advice and for evidence.
SHOWN = {"STRONGEST", "SMALLEST_SHARE", "TINY", "ALL_ACTIVE", "USUAL_UPDATE", "USUAL_RATE"}
UNWATCHED = dict.fromkeys(("update_size_first", "update_size_largest", "update_size_last"))
# Facts of a run that lies between a limit and half or double of it, so that the limit decides. Every run that the
# benchmark has recorded is far from these limits (benchmarks/sensitivity.py).
DECIDES = {
    "GOOD_EER": ("identity_imbalance", {"eer": 0.03}),
    "RARE_KIND": ("pair_imbalance", {"weighted_positive_fraction": 0.04}),
    "LOSS_RATIO": ("pair_imbalance", {"genuine_loss": 0.15}),
    "FEW_DRAWN": ("identity_imbalance", {"drawn_identities": 12}),
    "DUPLICATES": ("leakage", {"duplicates": 0.015}),
    "NEAR_DUPLICATES": ("leakage", {"duplicates": 0.0, "near_duplicates": 0.06}),
    "SHARED_AUC": ("leakage", {"duplicates": 0.0, "shared_names": 90, "shared_auc": 0.8}),
    "CLEARLY": ("wrong_distance", {"swap_gain": 0.07}),
    "SHARED_GAIN": ("memorising", {"eer": 0.15, "train_eer": 0.01, "gap": 0.14, "untrained_eer": 0.28}),
    "SIGMAS": ("leakage", {"duplicates": 0.0, "shared_names": 12, "shared_auc": 0.8}),
    "LARGE_INPUT": ("input_scale", {"input_scale": 30.0}),
    "SMALL_INPUT": ("input_scale", {"input_scale": 0.004}),
    "DEPENDS": ("batch_norm", {"mode_gap": 0.0, "batch_dependence": 0.08}),
    "FEW_IN_BATCH": ("batch_norm", {"mode_gap": 0.0, "batch_identities": 3}),
    "CONTRADICTED": ("pair_construction", {"identical_genuine": 0.0, "contradictory_pairs": 0.15}),
    "TIMES_SHOWN": ("pair_construction", {"identical_genuine": 0.0, "times_shown": 15.0, "pairs_of_items": 90.0}),
    "LABELS_CLEAR": ("inverted_labels", {"train_below_chance": -9.0, "input_auc": 0.7, "train_input_auc": 0.35}),
    "LOOSE_SPACING": ("collapse", {"weighted_positive_fraction": 1.0, "spread": 0.9, "spacing": 0.4}),
    "USUAL_GAP": ("margin", {"margin_is_gap": 1.0, "margin": 0.015}),
    "FEW_IDENTITIES": ("memorising", {"identities": 8}),
    "LEAST_RANK": ("weak_features", {"verifies_badly": 0, "train_identities": 10, "effective_rank": 1.5}),
    "FROZEN": ("frozen_part", {"trainable_share": 0.2}),
    "BLURRED": ("weak_features", {"verifies_badly": 0, "detail": 0.07}),
    "OUT_OF_REACH": ("unreachable_output", {"out_of_reach": 0.7}),
    "NEGATIVE_LOSS": ("loss_mismatch", {"cut_off_share": 0.0, "least_loss": -0.015}),
    "ACCURACY_LOST": ("threshold", {"default_threshold": 1, "accuracy_lost": 0.04, "accuracy_se": 0.001}),
    "CHOSEN_LOST": ("threshold", {"accuracy_lost": 0.015, "accuracy_se": 0.001}),
    "AT_COLLAPSE": ("collapse", {"spread": 0.15, "loss_from_collapsed_value": 0.015}),
    "CLEAR_RATIO": (
        "pair_imbalance",
        {"weighted_positive_fraction": None, "implied_fraction": 0.01, "genuine_loss": 0.9, "impostor_loss": 0.06},
    ),
    "CONFIRMED_GAIN": (
        "weak_features",
        {"verifies_badly": 0, "unaugmented_gain": 0.03, "unaugmented_gain_low": 0.01},
    ),
    "LARGE_GROWTH": ("learning_rate", {**UNWATCHED, "weights_grown": 7.0}),
    "LARGE_TEMPERATURE": ("margin", {"margin": None, "temperature": 0.8, "usual_temperature": 0.1}),
    "SMALL_TEMPERATURE": ("margin", {"margin": None, "temperature": 0.0015, "usual_temperature": 0.1}),
    "LITTLE_GAINED": ("learning_rate", {"untrained_eer": 0.4}),
    "RATE_LEFT": ("learning_rate", {**dict.fromkeys(UNWATCHED, 0.15), "rate_left": 0.007}),
    "UNSEEN_SHARE": (
        "weak_features",
        {"train_eer": 0.1, "behind_linear": 0.05, "behind_linear_se": 0.001, "reference_linear": 0.3}
        | {"unseen_share": 0.3},
    ),
    "SCALES_APART": ("input_scale", {"input_scale": 0.5, "drawn_towers": 0.4}),
    "INPUTS_SHIFTED": (
        "preprocessing_mismatch",
        {"held_out_spread": 0.0, "held_out_shift": 1.5, "held_out_difference": 0.0},
    ),
}


@pytest.mark.parametrize("name", DECIDES)
def test_a_limit_that_no_recorded_run_is_near_decides_a_case_by_hand(name):
    cause, changes = DECIDES[name]
    answers = []
    for factor in (0.5, 1, 2):
        with limits.changed(**{name: limits.TABLE[name].times(factor)}):
            answers.append(getattr(answer(cause, **changes), "severity", None))
    assert answers[1] is not None and len(set(answers)) > 1


def test_every_limit_of_a_cause_moves_a_recorded_run_or_decides_a_case_by_hand():
    path = ROOM.parents[1] / "benchmarks" / "results" / "sensitivity.json"
    if not path.exists():
        pytest.skip("the benchmarks are not installed")
    halves = json.loads(path.read_text(encoding="utf-8"))["halves"].values()
    unmoved = set(limits.TABLE)
    for half in halves:
        rows = {name: rows for name, rows in half["varied"].items() if rows is not None}
        unmoved &= {name for name, row in rows.items() if not any(one["judged_otherwise"] for one in row.values())}
    left = {name for name in unmoved if any(user.startswith("causes.") for user in limits.TABLE[name].used_by)}
    assert left - set(DECIDES) <= SHOWN


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("causes.")))
def test_a_cause_holds_no_numbers_of_its_own(module):
    """Numbers other than 0, ½ and 1 must be in `limits`, except what a repair sets; so must a factor on a limit."""
    allowed = {0.0, 0.5, 1.0}
    tree = ast.parse(MODULES[module])
    repairs = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "change"
    ]
    own = {id(inner) for node in repairs for inner in ast.walk(node)}
    found = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and id(node) not in own
    ]
    assert [one for one in found if one[1] not in allowed] == []
    multiplied = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
        for one in (node.left, node.right)
        if isinstance(one, ast.Constant) and "limits." in ast.unparse(node)
    ]
    assert multiplied == []
