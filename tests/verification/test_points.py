"""Operating points: counts at each threshold, under weights too, and every reading of them on one small example."""

import numpy as np
import pytest

from keras_siamese.verification import points as at
from keras_siamese.verification.points import OperatingPoint, OperatingPoints, just_above, operating_points

SAME = np.array([True, True, False, True, False, False, True])
SCORES = np.array([0.9, 0.7, 0.7, 0.5, 0.4, 0.2, 0.2])


@pytest.fixture
def points():
    return operating_points(SAME, SCORES)


def test_one_point_for_each_distinct_score(points):
    assert points.thresholds.tolist() == [np.nextafter(0.9, 1), 0.9, 0.7, 0.5, 0.4, 0.2]
    assert points.genuines.tolist() == [0, 1, 2, 3, 3, 4]
    assert points.impostors.tolist() == [0, 0, 1, 1, 2, 3]


def test_either_class_may_be_the_smaller(points):
    flipped = operating_points(~SAME, SCORES)
    assert (flipped.genuines.tolist(), flipped.impostors.tolist()) == (
        points.impostors.tolist(),
        points.genuines.tolist(),
    )


def test_rates_are_counts_over_totals(points):
    np.testing.assert_array_equal(points.fmr, np.array([0, 0, 1, 1, 2, 3]) / 3)
    np.testing.assert_array_equal(points.tar, np.array([0, 1, 2, 3, 3, 4]) / 4)
    np.testing.assert_array_equal(points.fnmr, np.array([4, 3, 2, 1, 1, 0]) / 4)


def test_the_readings(points):
    # Of 12 pairs of a genuine and an impostor score: 0.9 wins 3, 0.7 2 and a half, 0.5 2, 0.2 a half.
    assert at.auc(points) == 8 / 12
    # From (0.333, 0.25) back to (0.333, 0.5): FMR = FNMR at 1/3.
    assert at.eer(points) == pytest.approx(1 / 3)
    assert at.nearest_to_eer(points) == OperatingPoint(0.5, 1 / 3, 1 / 4)
    np.testing.assert_array_equal(at.accuracies(points), np.array([3, 4, 4, 5, 4, 4]) / 7)
    assert at.best_accuracy(points) == 5 / 7
    assert at.best_point(points) == (5 / 7, 0.5)
    assert [at.within(points, far) for far in (0, 0.33, 1 / 3, 0.99, 1)] == [1, 1, 3, 4, 5]
    assert [at.tar_at_far(points, far) for far in (0, 0.5, 1)] == [0.25, 0.75, 1]
    assert [at.accuracy_at(points, threshold) for threshold in (1, 0.9, 0.45, 0.2, 0)] == [
        number / 7 for number in (3, 4, 5, 4, 4)
    ]
    assert [at.fmr_at(points, threshold) for threshold in (1, 0.7, 0.41, 0.4)] == [0, 1 / 3, 1 / 3, 2 / 3]
    assert [at.fnmr_at(points, threshold) for threshold in (1, 0.7, 0.41, 0.1)] == [1, 1 / 2, 1 / 4, 0]


def test_the_cheapest_point_weighs_both_errors(points):
    assert at.cheapest_point(points, 1, 1) == (1 / 4 + 1 / 3, 0.5)
    assert at.cheapest_point(points, 1, 10) == (3 / 4, 0.9)
    assert at.cheapest_point(points, 10, 1) == (1, 0.2)


def test_the_stricter_of_two_points_is_nearest():
    # |FMR − FNMR| is ½ before and after the crossing.
    points = operating_points(np.array([True, True, False, False]), np.array([2.0, 1.0, 1.0, 1.0]))
    assert at.nearest_to_eer(points) == OperatingPoint(2.0, 0.0, 0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_just_above_is_the_next_number_of_the_dtype(dtype):
    score = dtype(0.5)
    assert just_above(score) == score + np.finfo(dtype).eps / 2
    assert just_above(np.finfo(dtype).max) == np.inf


def test_at_takes_along_the_last_axis():
    assert at.at(np.array([[1, 2], [3, 4]]), np.array([1, 0])).tolist() == [2, 3]
    assert isinstance(operating_points(SAME, SCORES), OperatingPoints)
