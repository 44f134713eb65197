"""Costs against loops over every threshold and every rising map."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.verification import cllr, min_cllr, min_dcf, operating_point, platt, threshold_at_cost
from tests.oracles import curves as oracles


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest: these tests do not use Keras."""


@pytest.fixture(params=["distinct", "tied"])
def pairs(request, rng):
    same = rng.random(300) < 0.3
    scores = rng.normal(size=300) + 1.2 * same
    return same, scores if request.param == "distinct" else np.round(scores)


def dcf_loop(same, scores, p, c_miss, c_fa):
    """The lowest cost, by trying every threshold, including accept-all and reject-all."""
    genuine, impostor = scores[same], scores[~same]
    costs = []
    for threshold in [*scores, math.inf]:
        fnmr = sum(score < threshold for score in genuine) / len(genuine)
        fmr = sum(score >= threshold for score in impostor) / len(impostor)
        costs.append(c_miss * p * fnmr + c_fa * (1 - p) * fmr)
    return min(costs) / min(c_miss * p, c_fa * (1 - p))


def min_cllr_loop(same, scores):
    prior = same.sum() / (~same).sum()
    cost = 0.0
    for genuines, number in oracles.pooled(same, scores):
        impostors = number - genuines
        ratio = math.inf if impostors == 0 else genuines / impostors / prior
        if genuines:
            cost += genuines * (0.0 if ratio == math.inf else math.log2(1 + 1 / ratio)) / same.sum()
        if impostors:
            cost += impostors * math.log2(1 + ratio) / (~same).sum()
    return cost / 2


@pytest.mark.parametrize("options", [(0.01, 1, 1), (0.5, 1, 1), (0.2, 10, 1), (0.05, 1, 7)])
def test_min_dcf_is_the_least_of_all_thresholds(pairs, options):
    p_target, c_miss, c_fa = options
    assert min_dcf(*pairs, p_target, c_miss, c_fa) == pytest.approx(dcf_loop(*pairs, *options), abs=1e-12)
    assert min_dcf(*pairs, p_target) == min_dcf(*pairs, p_target, 1.0, 1.0)


@pytest.mark.parametrize("options", [(0.01, 1, 1), (0.5, 1, 1), (0.2, 10, 1)])
def test_the_threshold_at_cost_reaches_it(pairs, options):
    p_target, c_miss, c_fa = options
    threshold = threshold_at_cost(*pairs, *options)
    point = operating_point(*pairs, threshold)
    cost = c_miss * p_target * point.fnmr + c_fa * (1 - p_target) * point.fmr
    assert cost / min(c_miss * p_target, c_fa * (1 - p_target)) == pytest.approx(min_dcf(*pairs, *options), abs=1e-12)
    stricter = operating_point(*pairs, np.nextafter(threshold, np.inf))
    assert c_miss * p_target * stricter.fnmr + c_fa * (1 - p_target) * stricter.fmr > cost - 1e-15


def test_the_loop_tells_a_missing_reject_all():
    """The impostors score highest, so without the reject-all threshold the cost would exceed 1."""
    same, scores = np.array([True, False]), np.array([0.0, 1.0])
    assert dcf_loop(same, scores, 0.01, 1, 1) == min_dcf(same, scores) == 1.0


def test_min_dcf_of_perfect_scores_is_zero_and_of_equal_ones_one():
    assert min_dcf([1, 1, 0], [3.0, 2.0, 1.0]) == 0.0
    assert min_dcf([1, 1, 0], [1.0, 1.0, 1.0]) == 1.0


def test_cllr_is_its_formula(pairs):
    same, scores = pairs
    genuine = sum(math.log2(1 + math.exp(-score)) for score in scores[same]) / same.sum()
    impostor = sum(math.log2(1 + math.exp(score)) for score in scores[~same]) / (~same).sum()
    assert cllr(same, scores) == pytest.approx((genuine + impostor) / 2)


def test_cllr_of_huge_ratios_is_finite_and_linear():
    assert cllr([1, 0], [-1e4, -1e4]) == pytest.approx(0.5e4 / math.log(2))
    assert cllr([1, 0], [1e4, -1e4]) == 0.0


def test_min_cllr_is_that_of_pooled_blocks(pairs):
    assert min_cllr(*pairs) == pytest.approx(min_cllr_loop(*pairs), abs=1e-9)
    same, scores = pairs
    # A loop that does not pool is found out: every distinct score would then be its own, perfect block.
    assert len(oracles.pooled(same, scores)) < len(set(scores.tolist()))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40))
def test_min_cllr_is_the_least_of_rising_maps(drawn):
    same, scores = np.array([s for s, _ in drawn]), np.array([float(v) for _, v in drawn])
    if same.all() or not same.any():
        return
    least = min_cllr(same, scores)
    assert -1e-12 <= least <= 1 + 1e-12
    assert least == pytest.approx(min_cllr(same, np.exp(scores)), abs=1e-9)  # a rising map changes nothing
    for slope, offset in ((0.0, 0.0), (0.3, 0.1), (1.0, -0.5), (3.0, 2.0)):
        assert least <= cllr(same, slope * scores + offset) + 1e-9


def test_calibration_brings_cllr_close_to_its_least(rng):
    same = np.arange(20_000) % 4 == 0
    scores = -np.abs(rng.normal(size=20_000) + 2.0 * ~same)
    slope, offset = platt(same, scores)
    assert min_cllr(same, scores) < cllr(same, slope * scores + offset) < min_cllr(same, scores) + 0.05
    assert cllr(same, scores) > cllr(same, slope * scores + offset) + 0.05


@pytest.mark.parametrize("function", [cllr, min_cllr, min_dcf, threshold_at_cost])
def test_degenerate_input_is_refused(function):
    with pytest.raises(ValueError, match="must be finite; 1 of its 2 values"):
        function([1, 0], [np.nan, 0.0])
    with pytest.raises(ValueError, match="2 genuine and 0 impostor"):
        function([1, 1], [1.0, 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_target": 0.0}, r"`p_target` must be in \(0, 1\)"),
        ({"p_target": 1.0}, r"`p_target` must be in \(0, 1\)"),
        ({"c_miss": -1.0}, "`c_miss` must be in"),
        ({"c_fa": 0.0}, "`c_fa` must be in"),
        ({"c_fa": math.inf}, "`c_fa` must be in"),
    ],
)
def test_costs_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        min_dcf([1, 0], [1.0, 0.0], **options)
