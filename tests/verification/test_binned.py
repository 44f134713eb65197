"""Where bins begin: the smallest number of the scores' dtype that is counted in a bin, found by steps of one number."""

import numpy as np
import pytest

from keras_siamese.verification import ScoreHistogram


def filled(low, high, bins, dtype):
    histogram = ScoreHistogram(low, high, bins=bins)
    histogram.add([0, 1], (low + (high - low) * np.array([0.25, 0.75])).astype(dtype))
    return histogram


def bin_of(histogram, score):
    return float(histogram._positions(np.array(score)))


@pytest.mark.parametrize(("low", "high"), [(-2.0, 0.0), (-0.3, 0.7), (1e6, 1e6 + 3)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_edge_is_the_smallest_number_of_its_bin(low, high, dtype):
    if dtype == "float16" and low > 1e4:
        low, high = 100.0, 103.0
    histogram = filled(low, high, 7, dtype)
    for place, edge in enumerate(histogram._edges(np.arange(1, 7)), start=1):
        edge = np.dtype(dtype).type(edge)
        assert bin_of(histogram, edge) >= place > bin_of(histogram, np.nextafter(edge, edge.dtype.type(-np.inf)))


def test_a_bin_without_pairs_has_no_point():
    histogram = ScoreHistogram(0, 10, bins=10, tail=1)
    histogram.add([0, 0, 1, 1], [0.5, 2.5, 2.6, 9.5])
    histogram._kept = None  # as if there were too many genuine scores to keep them
    points, exact = histogram._points()
    assert exact == 1 and points.thresholds.tolist() == [np.nextafter(9.5, 10), 9.0, 2.0, 0.5]
    assert points.genuines.tolist() == [0, 1, 2, 2] and points.impostors.tolist() == [0, 0, 1, 2]
