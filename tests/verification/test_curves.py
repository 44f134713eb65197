"""Curves and single figures against loops over pairs, against scikit-learn, and on cases that go wrong elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from keras_siamese import verification
from keras_siamese.verification import (
    OperatingPoint,
    accuracy_at,
    auc,
    best_accuracy,
    d_prime,
    det,
    eer,
    eer_point,
    operating_point,
    roc,
    tar_at_far,
    threshold_at_far,
)
from keras_siamese.verification.curves import figures_of_curve
from tests.oracles import curves as oracles

FARS = (0, 0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.99, 1)


def random_pairs(seed):
    """Unequal classes with scores on a coarse grid, so that ties occur within and across the classes."""
    rng = np.random.default_rng(seed)
    genuines, impostors = rng.integers(1, 30, 2)
    same = rng.permutation(np.repeat([1, 0], [genuines, impostors]))
    scores = np.round(rng.normal(size=len(same)) * rng.uniform(0.3, 3) + rng.uniform(-1, 2) * same, rng.integers(0, 3))
    return same, scores


any_random_pairs = pytest.mark.parametrize(
    ("same", "scores"),
    [random_pairs(seed) for seed in range(8)]
    + [pytest.param(*random_pairs(seed), marks=pytest.mark.deep) for seed in range(8, 25)],
)


@st.composite
def pairs(draw):
    size = draw(st.integers(2, 40))
    same = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda labels: 0 < sum(labels) < size))
    # Eighths are exact in binary, so that scaling and shifting below neither makes nor breaks a tie.
    scores = draw(st.lists(st.integers(-40, 40), min_size=size, max_size=size))
    return np.array(same), np.array(scores) / 8


# --- against the loops


@any_random_pairs
def test_every_point_of_both_curves(same, scores):
    expected = [oracles.error_rates(same, scores, threshold) for threshold in oracles.thresholds(scores)]
    fmr, tar, thresholds = roc(same, scores)
    np.testing.assert_array_equal(fmr, [float(fmr) for fmr, _ in expected])
    np.testing.assert_array_equal(tar, [float(1 - fnmr) for _, fnmr in expected])
    np.testing.assert_array_equal(thresholds[1:], oracles.thresholds(scores)[1:])
    assert thresholds[0] == np.nextafter(scores.max(), np.inf)
    fmr, fnmr, _ = det(same, scores)
    np.testing.assert_array_equal(fmr, [float(fmr) for fmr, _ in expected])
    np.testing.assert_array_equal(fnmr, [float(fnmr) for _, fnmr in expected])


@any_random_pairs
def test_single_figures(same, scores):
    assert auc(same, scores) == float(oracles.auc(same, scores))
    assert eer(same, scores) == pytest.approx(float(oracles.eer(same, scores)), abs=1e-15)
    assert d_prime(same, scores) == pytest.approx(oracles.d_prime(same, scores), rel=1e-12)


@any_random_pairs
def test_eer_point(same, scores):
    threshold, fmr, fnmr = oracles.eer_point(same, scores)
    point = eer_point(same, scores)
    assert point[1:] == (float(fmr), float(fnmr))
    assert point.threshold == (threshold if threshold <= max(scores) else np.nextafter(max(scores), np.inf))


@any_random_pairs
def test_tar_and_threshold_at_each_far(same, scores):
    for far in FARS:
        assert tar_at_far(same, scores, far) == float(oracles.tar_at_far(same, scores, far))
        expected = oracles.threshold_at_far(same, scores, far)
        threshold = threshold_at_far(same, scores, far)
        assert threshold == (expected if expected <= max(scores) else np.nextafter(max(scores), np.inf))
        assert operating_point(same, scores, threshold).fmr <= far


@any_random_pairs
def test_accuracies(same, scores):
    expected, threshold = oracles.best_accuracy(same, scores)
    accuracy, reached_at = best_accuracy(same, scores)
    assert accuracy == float(expected)
    assert reached_at == (threshold if threshold <= max(scores) else np.nextafter(max(scores), np.inf))
    assert accuracy_at(same, scores, reached_at) == accuracy


@any_random_pairs
def test_rates_at_a_given_threshold(same, scores):
    for threshold in (-10.0, -0.3, 0.0, scores[0], 0.7, math.inf):
        fmr, fnmr = oracles.error_rates(same, scores, threshold)
        assert operating_point(same, scores, threshold) == OperatingPoint(threshold, float(fmr), float(fnmr))
        assert accuracy_at(same, scores, threshold) == float(oracles.accuracy_at(same, scores, threshold))


# --- the loops themselves: each rejects a broken variant on the same random pairs


def auc_without_ties(same, scores):
    return np.greater.outer(scores[same == 1], scores[same == 0]).mean()


def eer_as_mean_of_the_nearest_point(same, scores):
    _, fmr, fnmr = min(zip(*det(same, scores)[::-1], strict=True), key=lambda point: abs(point[1] - point[2]))
    return (fmr + fnmr) / 2


def tar_of_the_nearest_far(same, scores, far):
    fmr, tar, _ = roc(same, scores)
    return tar[np.argmin(np.abs(fmr - far))]


def best_accuracy_without_reject_all(same, scores):
    return max(accuracy_at(same, scores, threshold) for threshold in scores)


def d_prime_of_samples(same, scores):
    genuines, impostors = scores[same == 1], scores[same == 0]
    return abs(genuines.mean() - impostors.mean()) / np.sqrt((genuines.var(ddof=1) + impostors.var(ddof=1)) / 2)


@pytest.mark.parametrize(
    "oracle, broken",
    [
        (oracles.auc, auc_without_ties),
        (oracles.eer, eer_as_mean_of_the_nearest_point),
        (lambda *pairs: oracles.tar_at_far(*pairs, 0.1), lambda *pairs: tar_of_the_nearest_far(*pairs, 0.1)),
        (lambda *pairs: oracles.best_accuracy(*pairs)[0], best_accuracy_without_reject_all),
        (oracles.d_prime, d_prime_of_samples),
        (
            lambda same, scores: oracles.accuracy_at(same, scores, scores[0]),
            lambda same, scores: ((scores > scores[0]) == same).mean(),
        ),
    ],
)
def test_an_oracle_rejects_a_broken_variant(oracle, broken):
    cases = [pairs for pairs in map(random_pairs, range(25)) if min(pairs[0].sum(), (1 - pairs[0]).sum()) > 1]
    assert any(abs(float(oracle(*pairs)) - broken(*pairs)) > 1e-6 for pairs in cases)


# --- against scikit-learn


@pytest.mark.parametrize("decimals", [1, 12])
def test_scikit_learn_agrees(rng, decimals):
    same = rng.random(5000) < 0.2
    scores = np.round(rng.normal(size=5000) + same, decimals)
    assert auc(same, scores) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    fmr, tar, thresholds = roc(same, scores)
    their_fmr, their_tar, their_thresholds = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(fmr, their_fmr, atol=1e-15)
    np.testing.assert_allclose(tar, their_tar, atol=1e-15)
    np.testing.assert_array_equal(thresholds[1:], their_thresholds[1:])


# --- invariants


def figures(same, scores):
    return [auc(same, scores), eer(same, scores), best_accuracy(same, scores)[0], *tar_at_far(same, scores, FARS)]


@settings(max_examples=40)
@given(pairs())
def test_a_rising_map_of_the_scores_changes_no_figure(pairs):
    same, scores = pairs
    assert figures(same, scores) == figures(same, np.exp(scores)) == figures(same, 3 * scores - 7)


@settings(max_examples=40)
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(pairs, random):
    same, scores = pairs
    order = random.sample(range(len(same)), len(same))
    assert figures(same, scores) == figures(same[order], scores[order])
    assert eer_point(same, scores) == eer_point(same[order], scores[order])
    assert d_prime(same, scores) == pytest.approx(d_prime(same[order], scores[order]), rel=1e-9)


@settings(max_examples=40)
@given(pairs())
def test_swapped_classes_with_negated_scores_are_the_same_task(pairs):
    same, scores = pairs
    assert auc(same, scores) == auc(1 - same, -scores)
    assert eer(same, scores) == pytest.approx(eer(1 - same, -scores), abs=1e-12)
    assert best_accuracy(same, scores)[0] == best_accuracy(1 - same, -scores)[0]
    assert d_prime(same, scores) == pytest.approx(d_prime(1 - same, -scores), rel=1e-12)


@settings(max_examples=40)
@given(pairs())
def test_negated_scores_mirror_the_figures(pairs):
    same, scores = pairs
    assert auc(same, -scores) == pytest.approx(1 - auc(same, scores), abs=1e-12)
    assert eer(same, -scores) == pytest.approx(1 - eer(same, scores), abs=1e-12)


@settings(max_examples=40)
@given(pairs(), st.integers(2, 5))
def test_repeating_every_pair_changes_no_figure(pairs, times):
    same, scores = pairs
    np.testing.assert_allclose(
        figures(np.repeat(same, times), np.repeat(scores, times)), figures(same, scores), atol=1e-12
    )


@settings(max_examples=40)
@given(pairs(), st.sampled_from([np.float16, np.float32, np.float64]))
def test_reject_all_rejects_in_the_dtype_of_the_scores(pairs, dtype):
    same, scores = pairs[0], pairs[1].astype(dtype)
    fmr, tar, thresholds = roc(same, scores)
    assert not np.any(scores >= dtype(thresholds[0]))
    assert (fmr[0], tar[0], fmr[-1], tar[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(thresholds) < 0)
    assert thresholds[-1] == scores.min()


@settings(max_examples=40)
@given(pairs(), st.floats(0, 1))
def test_tar_at_far_is_reached_at_its_threshold(pairs, far):
    same, scores = pairs
    point = operating_point(same, scores, threshold_at_far(same, scores, far))
    assert point.fmr <= far
    assert 1 - point.fnmr == pytest.approx(tar_at_far(same, scores, far), abs=1e-15)


@given(pairs(), st.integers(-900, 900))
@settings(max_examples=50)
def test_d_prime_has_no_unit(pairs, exponent):
    same, scores = pairs
    assert d_prime(same, np.ldexp(scores, exponent)) == d_prime(same, scores)


# --- degenerate cases, each by name


def test_constant_scores():
    same, scores = [1, 0, 0, 1, 0], [0.1] * 5
    assert eer(same, scores) == 0.5
    assert auc(same, scores) == 0.5
    assert d_prime(same, scores) == 0
    assert best_accuracy(same, scores) == (0.6, np.nextafter(0.1, 1))
    assert eer_point(same, scores) == OperatingPoint(np.nextafter(0.1, 1), 0.0, 1.0)
    fmr, tar, _ = roc(same, scores)
    assert (fmr.tolist(), tar.tolist()) == ([0, 1], [0, 1])


def test_perfect_scores():
    same, scores = [1, 1, 0, 0, 0], [0.9, 0.8, 0.3, 0.2, 0.2]
    assert eer(same, scores) == 0
    assert auc(same, scores) == 1
    assert best_accuracy(same, scores) == (1, 0.8)
    assert tar_at_far(same, scores, 0) == 1
    assert eer_point(same, scores) == OperatingPoint(0.8, 0.0, 0.0)


def test_reversed_perfect_scores():
    same, scores = [0, 0, 1, 1, 1], [0.9, 0.8, 0.3, 0.2, 0.2]
    assert eer(same, scores) == 1
    assert auc(same, scores) == 0
    assert tar_at_far(same, scores, 0.99) == 0
    assert eer_point(same, scores) == OperatingPoint(0.8, 1.0, 1.0)


def test_a_single_pair_of_each_class():
    assert (eer([1, 0], [2, 1]), auc([1, 0], [2, 1])) == (0, 1)
    assert (eer([1, 0], [1, 2]), auc([1, 0], [1, 2])) == (1, 0)
    assert (eer([1, 0], [1, 1]), auc([1, 0], [1, 1])) == (0.5, 0.5)


def test_all_ties_across_the_classes():
    assert eer([1, 0, 1, 0], [5, 5, 3, 3]) == 0.5
    assert auc([1, 0, 1, 0], [5, 5, 3, 3]) == 0.5


def test_accept_all_is_best_when_impostors_score_highest():
    assert best_accuracy([0, 1, 1, 1], [0.9, 0.5, 0.4, 0.3]) == (0.75, 0.3)


def test_reject_all_is_best_when_impostors_score_highest_and_prevail():
    assert best_accuracy([0, 0, 0, 1], [0.9, 0.5, 0.4, 0.3]) == (0.75, np.nextafter(0.9, 1))


def test_no_threshold_keeps_to_far_but_reject_all():
    same, scores = [0, 1, 1], [0.9, 0.8, 0.7]
    assert tar_at_far(same, scores, 0.5) == 0
    assert threshold_at_far(same, scores, 0.5) == np.nextafter(0.9, 1)


def test_a_far_of_29_in_100_counts_29_impostors():
    # .29 · 100 is 28.999… in binary: a count compared with a product would lose one impostor and the TAR behind it.
    same = np.repeat([0, 1, 0], [29, 1, 71])
    assert tar_at_far(same, -np.arange(101.0), 0.29) == 1


def test_classes_without_spread():
    assert d_prime([1, 1, 0, 0], [3, 3, 1, 1]) == math.inf
    assert d_prime([1, 1, 1, 0, 0, 0], [0.1] * 6) == 0


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e300, 1.7e308])
def test_extreme_scores(scale):
    same, scores = [1, 1, 0, 0], np.array([1.0, 0.0, 0.0, -1.0]) * scale
    assert auc(same, scores) == 0.875
    assert eer(same, scores) == 0.25
    assert d_prime(same, scores) == 2


def test_the_largest_number_is_rejected_by_infinity():
    largest = np.finfo(np.float32).max
    assert roc([1, 0], np.array([largest, 0], np.float32))[2][0] == np.inf


def test_negative_zero_ties_with_zero():
    assert auc([1, 0], [0.0, -0.0]) == 0.5


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float16, np.float32])
def test_scores_of_any_real_dtype(dtype):
    assert eer([1, 1, 0, 0, 0], np.array([1, 0, 1, 0, 0]).astype(dtype)) == pytest.approx(3 / 7)
    assert d_prime([1, 1, 0, 0], np.array([1, 0, 0, 0]).astype(dtype)) == pytest.approx(math.sqrt(2))


def test_bfloat16_scores():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert auc([1, 0, 0], np.array([0.5, 0.5, 0.25], ml_dtypes.bfloat16)) == 0.75
    with pytest.raises(ValueError, match="`scores` must be finite; 1 of its 3"):
        auc([1, 0, 0], np.array([0.5, np.nan, 0.25], ml_dtypes.bfloat16))


def test_the_shape_of_far_is_kept():
    same, scores = random_pairs(3)
    assert isinstance(tar_at_far(same, scores, np.float64(0.1)), float)
    assert tar_at_far(same, scores, np.array([[0.1, 0.2], [0.3, 1.0]])).shape == (2, 2)
    assert threshold_at_far(same, scores, [0.1]).shape == (1,)
    assert tar_at_far(same, scores, []).shape == (0,)


def test_columns_are_taken_as_they_come_out_of_a_model():
    same, scores = random_pairs(4)
    assert eer(same[:, None], scores[:, None]) == eer(same.astype(bool), scores.tolist())


# --- bad input, for each function that takes pairs

FUNCTIONS = {
    "roc": roc,
    "det": det,
    "auc": auc,
    "eer": eer,
    "eer_point": eer_point,
    "best_accuracy": best_accuracy,
    "d_prime": d_prime,
    "tar_at_far": lambda same, scores: tar_at_far(same, scores, 0.1),
    "threshold_at_far": lambda same, scores: threshold_at_far(same, scores, 0.1),
    "operating_point": lambda same, scores: operating_point(same, scores, 0.1),
    "accuracy_at": lambda same, scores: accuracy_at(same, scores, 0.1),
    "bootstrap": lambda same, scores: verification.bootstrap(["eer"], same, scores),
    "cross_fitted_accuracy": verification.cross_fitted_accuracy,
    "evaluate": verification.evaluate,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_bad_pairs_are_refused_by_each_function(function):
    """All functions call `check_pairs`; its own tests cover the other cases."""
    with pytest.raises(ValueError, match="`scores` must be finite; 2 of its 3 values"):
        function([1, 0, 1], [0.1, math.nan, math.nan])
    with pytest.raises(ValueError, match="`same` must hold pairs of both .* 3 genuine and 0 impostor"):
        function([1, 1, 1], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("function", [tar_at_far, threshold_at_far])
@pytest.mark.parametrize("far", [-0.1, 1.1, math.nan, [0.1, 2.0]])
def test_a_far_outside_0_and_1_is_refused(function, far):
    with pytest.raises(ValueError, match=r"`far` must be in \[0, 1\]"):
        function([1, 0], [0.2, 0.1], far)


@pytest.mark.parametrize("function", [operating_point, accuracy_at])
def test_a_threshold_that_is_no_number_is_refused(function):
    with pytest.raises(ValueError, match="`threshold`"):
        function([1, 0], [0.2, 0.1], math.nan)
    with pytest.raises(TypeError, match="`threshold`"):
        function([1, 0], [0.2, 0.1], "0.5")


# --- the room


def test_the_public_list_is_sorted_documented_and_complete():
    assert verification.__all__ == sorted(verification.__all__)
    for name in verification.__all__:
        assert getattr(verification, name).__doc__


@any_random_pairs
def test_figures_from_one_sort_are_those_of_each_function(same, scores):
    pairs = same, scores
    assert figures_of_curve(*pairs, FARS) == (eer(*pairs), auc(*pairs), tar_at_far(*pairs, FARS).tolist())
