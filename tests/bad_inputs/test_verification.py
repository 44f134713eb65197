"""Every function of `verification` with unusual arrays."""

import inspect

import numpy as np
import pytest

from keras_siamese import verification
from tests.support.unusual import Room, arguments, taking

N = 40
RNG = np.random.default_rng(0)
SAME = np.arange(N) % 2 == 0
GIVEN = {
    "same": SAME,
    "scores": (RNG.normal(size=N) + SAME).astype("float32"),
    "embeddings": RNG.normal(size=(N, 4)).astype("float32"),
    "labels": np.arange(N) // 4,
    "far": 0.1,
    "threshold": 0.3,
}


def calls():
    """The functions whose arguments are known here, with these arguments alone."""
    found = {}
    for name in verification.__all__:
        function = getattr(verification, name)
        if not inspect.isclass(function) and not name.startswith("plot"):
            wanted = arguments(function)
            if set(wanted) <= set(GIVEN) and any(isinstance(GIVEN[one], np.ndarray) for one in wanted):
                found[name] = taking(wanted, function)
    return found


def counted(same, scores):
    histogram = verification.ScoreHistogram(-10, 10)
    histogram.add(same, scores)
    return histogram.eer()


OTHERS = {
    "ScoreHistogram": counted,
    "bootstrap": lambda same, scores: verification.bootstrap(["eer"], same, scores, samples=20),
}
ROOMS = {"verification": Room(calls() | OTHERS, GIVEN)}


@pytest.mark.parametrize("name", ROOMS["verification"].calls)
def test_each_case_is_answered_or_refused_by_name(name):
    assert ROOMS["verification"].wrong(name) == {}


def test_there_are_many_cases():
    assert len(list(ROOMS["verification"].cases())) >= 300
