"""The table of limits: the modules that an entry names use it, and the causes have no limits of their own."""

import ast
import copy
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
    assert (limits.POINT.unit, limits.POINT.used_by) == ("spread, spacing", ("causes.collapse", "report.panels"))


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


def test_derived_limits_follow_their_origin():
    assert limits.COMMON_KIND == 1 - limits.RARE_KIND and limits.VERY_RARE_KIND == limits.RARE_KIND / 2
    assert pytest.approx(1 - limits.ALL_ACTIVE) == limits.NONE_ACTIVE
    assert pytest.approx(3 * limits.SWAP_GAIN) == limits.LARGE_SWAP_GAIN
    assert pytest.approx(limits.SMALL_UPDATE / 10) == limits.NO_UPDATE


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("causes.")))
def test_a_cause_holds_no_numbers_of_its_own(module):
    """Numbers other than 0, ½ and 1 must be in `limits`, except those that a repair sets."""
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
