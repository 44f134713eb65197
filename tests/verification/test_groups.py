"""Error rates by group: counts of a loop, intervals of the bootstrap that exists, gaps that cover the truth."""

import json
import math

import numpy as np
import pytest

from keras_siamese.verification import bootstrap, compare_groups


@pytest.fixture
def pairs(rng):
    """2,400 pairs of 80 identities in three groups, of which "c" scores lower."""
    left = rng.integers(0, 80, 2400)
    right = np.where(rng.random(2400) < 0.4, left, rng.integers(0, 80, 2400))
    groups = np.array(["a", "b", "c"])[left % 3]
    same = left == right
    return same, rng.normal(size=2400) + 2.5 * same - (groups == "c"), groups, left, right


@pytest.mark.parametrize("known", [True, False])
def test_the_rates_are_those_of_a_loop(pairs, known):
    same, scores, groups, left, right = pairs
    sides = {"left": left, "right": right} if known else {}
    report = compare_groups(same, scores, groups, threshold=1.2, **sides)
    assert [one.name for one in report.groups] == ["a", "b", "c"] and report.threshold == 1.2
    for one in report.groups:
        here = [(bool(s), v) for s, v, g in zip(same, scores, groups, strict=True) if g == one.name]
        genuine, impostor = ([v for s, v in here if s == kind] for kind in (True, False))
        assert (one.genuines, one.impostors) == (len(genuine), len(impostor))
        assert one.fnmr.estimate == pytest.approx(sum(v < 1.2 for v in genuine) / len(genuine))
        assert one.fmr.estimate == pytest.approx(sum(v >= 1.2 for v in impostor) / len(impostor))
        assert one.fnmr.low < one.fnmr.estimate < one.fnmr.high


def test_one_group_has_the_intervals_of_the_bootstrap(pairs):
    same, scores, _, left, right = pairs
    sides = {"left": left, "right": right, "samples": 150, "seed": 7}
    (one,) = compare_groups(same, scores, np.zeros(2400, int), threshold=1.2, **sides).groups
    found = bootstrap([("fmr_at", 1.2), ("fnmr_at", 1.2)], same, scores, **sides)
    for rate, interval in ((one.fmr, found["fmr_at", 1.2]), (one.fnmr, found["fnmr_at", 1.2])):
        assert rate.estimate == interval.estimate
        np.testing.assert_allclose(rate.replicates, interval.replicates, rtol=1e-12)


def test_the_largest_gap_is_between_the_right_groups(pairs):
    same, scores, groups, left, right = pairs
    report = compare_groups(same, scores, groups, threshold=1.2, left=left, right=right)
    rates = {one.name: one.fnmr.estimate for one in report.groups}
    gap = report.gaps["fnmr"]
    assert gap.highest == "c" and gap.lowest == min(rates, key=rates.get)
    assert gap.difference == pytest.approx(max(rates.values()) - min(rates.values())) and gap.low > 0
    assert gap.ratio == pytest.approx(max(rates.values()) / min(rates.values()))
    said = f'FNMR is lowest in "{gap.lowest}" ({rates[gap.lowest]:.4f}) and highest in "c" ({rates["c"]:.4f}). '
    assert f"{said}The difference is {gap.difference:.4f} [" in str(report) and "the groups differ" in str(report)
    assert report.gaps["fmr"].lowest == "c"


@pytest.mark.deep
def test_equal_groups_are_said_to_differ_as_rarely_as_promised(rng):
    """With five equal groups and 95 %, the largest gap excludes zero in at most 5 % of the trials, but for chance."""
    wrong, trials = 0, 120
    for trial in range(trials):
        same, groups = np.arange(3000) % 2, rng.integers(0, 5, 3000)
        scores = rng.normal(size=3000) + 2 * same
        gap = compare_groups(same, scores, groups, threshold=1.0, samples=100, seed=trial).gaps["fnmr"]
        wrong += gap.low > 0
    assert wrong <= 0.05 * trials + 2.6 * math.sqrt(0.05 * 0.95 * trials)


def test_numbers_are_divided_at_edges(rng):
    same, days = np.arange(900) % 2, rng.integers(0, 800, 900)
    scores = rng.normal(size=900) + same * (4 - days / 400)
    report = compare_groups(same, scores, days, edges=[30, 365], threshold=1.5)
    assert [one.name for one in report.groups] == ["below 30", "30 to 365", "365 and more"]
    assert report.groups[1].genuines == np.sum(same[(days >= 30) & (days < 365)])
    assert report.gaps["fnmr"].highest == "365 and more"
    with pytest.raises(ValueError, match="`edges` must be rising numbers"):
        compare_groups(same, scores, days, edges=[365, 30], threshold=1.5)
    with pytest.raises(ValueError, match="`edges` must be finite"):
        compare_groups(same, scores, days, edges=[30, float("nan")], threshold=1.5)


def test_the_gap_is_as_wide_as_its_standard_error_and_the_number_of_comparisons_say(pairs):
    """2.3940 is the normal quantile at 1 − 0.05 / (2 · 3): the gap is the largest of three."""
    same, scores, groups, left, right = pairs
    report = compare_groups(same, scores, groups, threshold=1.2, left=left, right=right)
    gap, of = report.gaps["fnmr"], {one.name: one.fnmr.replicates for one in report.groups}
    error = np.std(of[gap.highest] - of[gap.lowest], ddof=1)
    assert gap.high - gap.difference == pytest.approx(2.3940 * error, rel=1e-4)
    assert gap.difference - gap.low == pytest.approx(2.3940 * error, rel=1e-4)


@pytest.mark.parametrize(("pairs_of_a", "is_given"), [(29, False), (30, True)])
def test_a_group_of_thirty_pairs_takes_part_in_the_gap(pairs_of_a, is_given):
    groups = np.array(["a"] * pairs_of_a + ["b"] * 60)
    same = np.ones(len(groups), int)
    same[-1] = 0
    report = compare_groups(same, np.arange(len(groups)), groups, threshold=20)
    assert (report.gaps["fnmr"] is not None) == is_given


def test_equal_rates_have_a_gap_of_zero_between_two_groups():
    same = np.arange(200) % 2
    gap = compare_groups(same, 1.0 * same, np.arange(200) // 100, threshold=0.5).gaps["fnmr"]
    assert gap == ("0", "1", 0, 0, 0, 1)


def test_small_and_empty_classes_are_shown_and_take_no_part():
    same = np.array([1] * 40 + [0] * 40 + [1] * 3 + [0] * 40)
    groups = np.array(["many"] * 80 + ["few"] * 3 + ["none"] * 40)
    report = compare_groups(same, np.linspace(1, 0, 123), groups, threshold=0.5)
    few, _, none = report.groups
    assert few.fmr is None and none.fnmr is None and none.genuines == 0 and few.fnmr is not None
    assert report.gaps["fnmr"] is None and "FNMR: fewer than two groups have 30 genuine pairs" in str(report)
    assert {report.gaps["fmr"].lowest, report.gaps["fmr"].highest} == {"many", "none"}
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["groups"][0]["fmr"] is None and plain["gaps"]["fmr"]["lowest"] in ("many", "none")


def test_it_draws_and_shows_names_as_they_are(pairs):
    figures = pytest.importorskip("matplotlib.figure")
    same, scores, groups, *_ = pairs
    report = compare_groups(same, scores, np.char.add(groups, "$x_"), threshold=1.2)
    axes = report.plot(figures.Figure().subplots(), "fmr")
    assert [label.get_text() for label in axes.get_yticklabels()] == [rf"{name}\$x_" for name in "abc"]
    assert "<td>a$x_</td>" in report._repr_html_()
