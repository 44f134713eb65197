"""Every function of `verification` with unusual arrays: a right answer, or an error that names the argument.

The cases follow from the signatures. Run as a script, it prints them: `python -m tests.test_bad_inputs`.
"""

import inspect
import warnings

import numpy as np
import pytest

from keras_siamese import verification

N = 40
RNG = np.random.default_rng(0)
SAME = np.arange(N) % 2 == 0
SCORES = (RNG.normal(size=N) + SAME).astype("float32")
GIVEN = {
    "same": SAME,
    "scores": SCORES,
    "embeddings": RNG.normal(size=(N, 4)).astype("float32"),
    "labels": np.arange(N) // 4,
    "far": 0.1,
    "threshold": 0.3,
}


def with_first(array, value):
    array = array.astype(float)
    array[0] = value
    return array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def in_pandas(array):
    """With an index that runs backwards: rows count by position."""
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(array) if array.ndim > 1 else pandas.Series(array, index=np.arange(len(array))[::-1])


EQUAL = {
    "non-contiguous": lambda array: np.repeat(array, 2, axis=0)[::2],
    "read-only": read_only,
    "pandas": in_pandas,
}
OTHER = {
    "objects": lambda array: array.astype(object),
    "a list": lambda array: array.tolist(),  # of float64, so its last digits differ
    "empty": lambda array: array[:0],
    "one row": lambda array: array[:1],
    "NaN": lambda array: with_first(array, np.nan),
    "infinite": lambda array: with_first(array, np.inf),
    "wrong rank": lambda array: np.broadcast_to(array, (2, 2, *array.shape)),
    "text": lambda array: np.full(array.shape, "a"),
    "nothing": lambda array: None,
    "huge": lambda array: array.astype(float) * 1e30,
}


def cases():
    """`(function, argument, kind)` for each function whose required arguments are known here."""
    for name in verification.__all__:
        function = getattr(verification, name)
        if inspect.isclass(function) or name.startswith("plot"):
            continue
        wanted = [one.name for one in inspect.signature(function).parameters.values() if one.default is one.empty]
        if set(wanted) <= set(GIVEN):
            arrays = [one for one in wanted if isinstance(GIVEN[one], np.ndarray)]
            yield from ((name, argument, kind) for argument in arrays for kind in (*EQUAL, *OTHER))


CASES = list(cases())


def outcome(name, argument, kind):
    """What the function returns, or its error."""
    function = getattr(verification, name)
    given = {key: GIVEN[key] for key in inspect.signature(function).parameters if key in GIVEN}
    given[argument] = {**EQUAL, **OTHER, "plain": lambda array: array}[kind](given[argument])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(**given)
        except Exception as error:
            return error


def test_there_are_many_cases():
    assert len(CASES) >= 300


@pytest.mark.parametrize("kind", [*EQUAL, *OTHER])
def test_each_case_is_answered_or_refused_by_name(kind):
    for name, argument, _ in [case for case in CASES if case[2] == kind]:
        found, plain = outcome(name, argument, kind), outcome(name, argument, "plain")
        assert not isinstance(plain, Exception), (name, plain)
        if isinstance(found, Exception):
            assert isinstance(found, (ValueError, TypeError)), (name, argument, found)
            assert "`" in str(found), (name, argument, found)
        if kind in EQUAL:
            assert str(found) == str(plain), (name, argument)


if __name__ == "__main__":
    for case in CASES:
        print(*case, str(outcome(*case)).split("\n")[0][:90], sep=" | ")
