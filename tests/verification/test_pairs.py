"""What comes into the room: labels, scores and identities, and how each mistake in them is refused."""

import math

import numpy as np
import pytest

from keras_siamese.verification.groups import compare_groups
from keras_siamese.verification.pairs import check_identities, check_pairs
from keras_siamese.verification.report import evaluate


def test_labels_become_booleans_and_columns_become_rows():
    same, scores = check_pairs([[1], [0], [1]], [[0.5], [0.25], [1.0]])
    assert same.tolist() == [True, False, True] and same.dtype == bool
    assert scores.tolist() == [0.5, 0.25, 1.0] and scores.shape == (3,)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_dtype(dtype):
    assert check_pairs([1, 0], np.array([0.5, 0.25], dtype))[1].dtype == dtype


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.longdouble])
def test_other_numbers_become_float64(dtype):
    scores = check_pairs([1, 0], np.array([1, 0], dtype))[1]
    assert scores.dtype == np.float64 and scores.tolist() == [1, 0]


def test_bfloat16_becomes_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert check_pairs([1, 0], np.array([0.5, 0.25], ml_dtypes.bfloat16))[1].dtype == np.float32


@pytest.mark.parametrize(
    ("same", "scores", "error", "message"),
    [
        ([1, 0, 1], [0.1, math.nan, math.nan], ValueError, "`scores` must be finite; 2 of its 3 values"),
        ([1, 0, 1], [0.1, math.inf, 0.3], ValueError, "`scores` must be finite; 1 of its 3 values"),
        ([1, 0, 1], [0.1, -math.inf, 0.3], ValueError, "`scores` must be finite; 1 of its 3 values"),
        ([1, -1, -1], [0.1, 0.2, 0.3], ValueError, r"`same` must hold only 1 .* 0 .* got also \[-1\], 2 of 3 labels"),
        ([1, 0, math.nan], [0.1, 0.2, 0.3], ValueError, r"`same` must hold .* got also \[nan\], 1 of 3 labels"),
        ([1, 1, 1], [0.1, 0.2, 0.3], ValueError, "`same` must hold pairs of both .* 3 genuine and 0 impostor"),
        ([0, 0, 0], [0.1, 0.2, 0.3], ValueError, "`same` must hold pairs of both .* 0 genuine and 3 impostor"),
        ([], [], ValueError, "`same` must hold pairs of both .* 0 genuine and 0 impostor"),
        ([1, 0], [0.1, 0.2, 0.3], ValueError, "`same` must have one entry for each of the 3 pairs; got 2"),
        ([[1, 0], [0, 1]], [0.1, 0.2], ValueError, r"`same` must have shape \(n,\).*\(2, 2\)"),
        ([1, 0], [[0.1, 0.2], [0.3, 0.4]], ValueError, r"`scores` must have shape \(n,\).*\(2, 2\)"),
        ([1, 0], ["a", "b"], TypeError, "`scores` must be real numbers"),
        ([1, 0], [1j, 2j], TypeError, "`scores` must be real numbers; got dtype complex"),
        ([1, 0], [None, 2.0], TypeError, "`scores` must be real numbers; got dtype object"),
    ],
)
def test_bad_pairs_are_refused_by_name(same, scores, error, message):
    with pytest.raises(error, match=message):
        check_pairs(same, scores)


@pytest.mark.parametrize("far", [1, 10**15, -1])
def test_numbers_become_codes_in_their_order(far):
    left, right, count = check_identities(np.array([2, 7, 7]) * far, np.array([7, 7, 4]) * far, 3)
    found = np.array([left, right])
    assert (found if far > 0 else 2 - found).tolist() == [[0, 2, 2], [2, 2, 1]] and count == 3


def test_identities_become_codes_that_both_sides_share():
    left, right, count = check_identities(["bo", "ada", "ada"], ["ada", "ada", "cy"], 3)
    assert (left.tolist(), right.tolist(), count) == ([1, 0, 0], [0, 0, 2], 3)
    assert check_identities(None, None, 3) is None


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (None, [1, 2], "`left` must be given if `right` is"),
        ([1, 2], None, "`right` must be given if `left` is"),
        ([1, 2], [1], "`right` must have one entry for each of the 2"),
        ([1], [1, 2], "`left` must have one entry for each of the 2"),
        ([1, 2], ["1", "2"], "`left` and `right` must both be strings or both be integers; got dtypes int64 and <U1"),
    ],
)
def test_identities_that_do_not_fit_are_refused(left, right, message):
    with pytest.raises(ValueError, match=message):
        check_identities(left, right, 2)


@pytest.mark.parametrize(
    "ask", [evaluate, lambda *pairs, **sides: compare_groups(*pairs, ["a"] * 4, threshold=0.5, **sides)]
)
def test_identities_that_contradict_the_labels_are_refused(ask):
    scores, left = [0.9, 0.1, 0.8, 0.2], ["ada", "bo", "cy", "dan"]
    told = "they differ in 1 of 2 genuine pairs, first at index 2"
    with pytest.raises(ValueError, match=f"^`left` and `right` must be equal identities where `same` is 1; {told}$"):
        ask([1, 0, 1, 0], scores, left=left, right=["ada", "cy", "dan", "ada"])
    ask([1, 0, 1, 0], scores, left=left, right=["ada", "bo", "cy", "ada"])  # a skilled forgery of bo's signature
