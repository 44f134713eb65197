"""Counts and moments that are merged, and the largest of many values."""

import numpy as np
import pytest

from keras_siamese.verification.points import moments
from keras_siamese.verification.tallies import Largest, Tally


def test_moments_of_pieces_are_those_of_the_whole(rng):
    tally, values = Tally(3), rng.normal(size=100) + 1000
    for piece in (values[:1], values[1:60], values[60:]):
        tally.add(np.array([1, 0, 2]), moments(piece.copy()))
    assert tally.counts.tolist() == [3, 0, 6]
    number, mean, squares = tally.moments
    assert number == 100 and mean == pytest.approx(values.mean()) and squares == pytest.approx(100 * values.var())


def test_the_tail_holds_only_as_much_as_it_needs():
    largest = Largest(3)
    assert largest.values().tolist() == []
    for start in range(0, 40, 4):
        largest.add(np.arange(start, start + 4.0))
        assert sum(map(len, largest._pieces)) <= 6 and largest.floor <= max(start + 1, 0)
    assert largest.values().tolist() == [39, 38, 37] and largest.floor == 37
