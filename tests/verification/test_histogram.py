"""The streamed histogram against the exact curves; its bounds, its tail, its refusals."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.verification import curves
from keras_siamese.verification.histogram import CHUNK, ScoreHistogram

FARS = (0, 1e-4, 0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 1)


def random_pairs(seed):
    """Unequal classes inside [−1, 2.5]: spread, in clusters narrower than a bin, or on a coarse grid; three dtypes."""
    rng = np.random.default_rng(seed)
    same = rng.permutation(np.repeat([1, 0], rng.integers(1, 400, 2)))
    scores = np.clip(rng.normal(size=len(same)) * rng.uniform(0.1, 0.8) + rng.uniform(-0.5, 1) * same, -1, 2.5)
    if seed % 3 == 1:
        scores = rng.choice([-0.5, 0.25, 0.3, 1.0], len(same)) + rng.uniform(0, 1e-4, len(same))
    if seed % 3 == 2:
        scores = np.round(scores, rng.integers(0, 3))
    return same, scores.astype((np.float64, np.float32, np.float16)[seed % 4 % 3])


# The first six have every kind of scores and every dtype.
any_random_pairs = pytest.mark.parametrize(
    ("same", "scores"),
    [random_pairs(seed) for seed in range(6)]
    + [pytest.param(*random_pairs(seed), marks=pytest.mark.deep) for seed in range(6, 24)],
)
# Few bins and a short tail; the genuines are kept if they are at most bins + tail, else not.
any_shape = pytest.mark.parametrize("bins, tail", [(2, 1), (7, 3), (64, 20), (500, 5), (4096, 1000)])


def histogram_of(same, scores, bins=64, tail=20, low=-1, high=2.5):
    histogram = ScoreHistogram(low, high, bins=bins, tail=tail)
    histogram.add(same, scores)
    return histogram


def state(histogram):
    """What all figures but d′ are computed from, and one threshold in the tail."""
    return [array.tolist() for array in histogram.operating_points()], histogram.threshold_at_far(0.01)


def accepted(same, scores, threshold):
    """The numbers of impostor and genuine pairs that a threshold accepts, compared in float64."""
    over = scores.astype(np.float64) >= threshold
    return int(np.sum(over & (same == 0))), int(np.sum(over & (same == 1)))


# --- against the exact curves


@any_shape
@any_random_pairs
def test_each_operating_point_is_a_true_one(same, scores, bins, tail):
    points = histogram_of(same, scores, bins, tail).operating_points()
    assert (np.diff(points.thresholds) < 0).all()
    for threshold, impostors, genuines in zip(*points, strict=True):
        assert accepted(same, scores, threshold) == (impostors, genuines)
        # In the scores' own dtype the threshold is no other number.
        assert scores.dtype.type(threshold) == threshold
    assert (points.impostors[0], points.genuines[0]) == (0, 0)
    assert points.thresholds[-1] == scores.min()


@any_shape
@any_random_pairs
def test_figures_are_within_their_bounds(same, scores, bins, tail):
    histogram = histogram_of(same, scores, bins, tail)
    rounding = 1e-12
    assert abs(histogram.auc() - curves.auc(same, scores)) <= histogram.auc_error_bound() + rounding
    assert abs(histogram.eer() - curves.eer(same, scores)) <= histogram.eer_error_bound() + rounding
    assert histogram.best_accuracy()[0] <= curves.best_accuracy(same, scores)[0]
    assert histogram.best_accuracy()[0] == curves.accuracy_at(same, scores, histogram.best_accuracy()[1])
    assert histogram.d_prime() == pytest.approx(curves.d_prime(same, scores), rel=1e-9)
    for far in FARS:
        exact, found = curves.tar_at_far(same, scores, far), histogram.tar_at_far(far)
        assert found <= exact <= found + histogram.tar_error_bound(far) + rounding
        reached = curves.operating_point(same, scores, histogram.threshold_at_far(far))
        assert reached.fmr <= far
        assert 1 - reached.fnmr >= found - rounding
    point = histogram.eer_point()
    assert point == curves.operating_point(same, scores, point.threshold)
    for curve, exact in ((histogram.roc, curves.roc), (histogram.det, curves.det)):
        known = set(zip(*(values.tolist() for values in exact(same, scores)[:2]), strict=True))
        assert set(zip(*(values.tolist() for values in curve()[:2]), strict=True)) <= known


@any_random_pairs
def test_everything_is_exact_while_everything_is_kept(same, scores):
    histogram = histogram_of(same, scores, bins=500, tail=500)
    for name in ("roc", "det"):
        for found, exact in zip(getattr(histogram, name)(), getattr(curves, name)(same, scores), strict=True):
            np.testing.assert_array_equal(found, exact)
    for name in ("auc", "eer", "eer_point", "best_accuracy"):
        assert getattr(histogram, name)() == getattr(curves, name)(same, scores)
    assert histogram.auc_error_bound() == histogram.eer_error_bound() == 0
    for far in FARS:
        assert histogram.threshold_at_far(far) == curves.threshold_at_far(same, scores, far)
        assert histogram.tar_error_bound(far) == 0


@pytest.mark.parametrize(
    ("genuines", "dtype"),
    [
        (300, np.float32),
        (3000, np.float64),
        pytest.param(300, np.float64, marks=pytest.mark.deep),
        pytest.param(3000, np.float32, marks=pytest.mark.deep),
    ],
)
def test_the_tail_is_exact(genuines, dtype):
    """300 genuine scores are kept, so the threshold is exact; with 3,000 only the accepted pairs are."""
    rng = np.random.default_rng(genuines)
    same = rng.permutation(np.repeat([1, 0], [genuines, 20_000]))
    scores = (rng.uniform(-0.9, 0.9, len(same)) + 0.5 * same).astype(dtype)
    histogram = histogram_of(same, scores, bins=1000, tail=200)
    for far in np.arange(200) / 20_000:
        exact, found = curves.threshold_at_far(same, scores, far), histogram.threshold_at_far(far)
        assert accepted(same, scores, found) == accepted(same, scores, exact)
        if genuines == 300:
            assert (found, histogram.tar_at_far(far)) == (exact, curves.tar_at_far(same, scores, far))
            assert histogram.tar_error_bound(far) == 0
        else:
            assert 0 <= curves.tar_at_far(same, scores, far) - histogram.tar_at_far(far) < 0.01


def test_equal_impostors_at_the_end_of_the_tail():
    same, scores = np.repeat([1, 0], [4, 100]), np.concatenate(([0.7, 0.5, 0.4, 0.1], [0.6] * 2, [0.5] * 98))
    histogram = histogram_of(same, scores, bins=8, tail=5)
    assert histogram.threshold_at_far(0.02) == curves.threshold_at_far(same, scores, 0.02) == 0.6
    assert histogram.tar_at_far(0.5) == 0.25
    assert histogram_of(same, scores, bins=8, tail=2).threshold_at_far(0.01) == 0.7


def test_a_tail_of_two_dtypes():
    """0.1 in float32 is above 0.1 in float64, but a comparison in float32 finds them equal."""
    histogram = histogram_of([1] + [0] * 8, [0.5] + [0.1] * 8, tail=3)
    histogram.add([0, 0], np.full(2, 0.1, np.float32))
    assert histogram.threshold_at_far(0.2) == np.float32(0.1)
    assert histogram.threshold_at_far(0.1) == 0.5


def test_threads_change_nothing(rng, monkeypatch):
    same, scores = rng.integers(0, 2, 20 * CHUNK), rng.random(20 * CHUNK)
    found = []
    for cores in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        histogram = ScoreHistogram(0, 1, tail=10)
        histogram.add(same, scores)
        found.append(histogram)
    for one, other in zip(*(histogram.operating_points() for histogram in found), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].to_dict() == found[1].to_dict()


def test_rates_are_those_that_are_asked_for():
    same, scores = random_pairs(0)
    histogram = histogram_of(same, scores)
    (figure,) = histogram.to_dict(far=[0.05])["tar"]
    assert figure["far"] == 0.05 and figure["tar"] == histogram.tar_at_far(0.05)
    assert "TAR at FMR ≤ 0.05" in histogram.table([0.05]) and "0.01" not in histogram.table([0.05]).split("TAR")[1]


def test_more_bins_tell_more():
    same, scores = random_pairs(0)
    bounds = [histogram_of(same, scores, bins, 1).auc_error_bound() for bins in (4, 64, 1024)]
    assert bounds[0] > 2 * bounds[1] > 4 * bounds[2]
    assert histogram_of(same, scores, bins=7).error_bound == 0.5


def test_a_score_that_rounding_put_outside():
    same, scores = np.array([1, 0, 1, 0]), np.array([1 + 5e-6, -1e-5, 1.0, 0.0])
    histogram = histogram_of(same, scores, bins=100, tail=1, low=0, high=1)
    points = histogram.operating_points()
    assert points.thresholds[-1] == -1e-5
    for threshold, *counts in zip(*points, strict=True):
        assert accepted(same, scores, threshold) == tuple(counts)
    with pytest.raises(ValueError, match=r"`scores` must give scores in \[0, 1\]; 1 of 2 are outside"):
        histogram.add([1, 0], [0.5, 1 + 2e-5])


def test_equal_scores():
    histogram = histogram_of([1, 0, 0], [0.1, 0.1, 0.1], bins=3)
    assert (histogram.eer(), histogram.auc(), histogram.d_prime()) == (0.5, 0.5, 0)
    histogram = histogram_of([1, 0, 0], [0.3, 0.1, 0.1])
    assert histogram.d_prime() == math.inf
    assert histogram.to_dict()["d_prime"] is None


# --- pieces, order, merging


@st.composite
def streams(draw):
    size = draw(st.integers(2, 60))
    same = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda labels: 0 < sum(labels) < size))
    scores = draw(st.lists(st.floats(-1, 2.5, width=32) | st.sampled_from([0.25, 0.5]), min_size=size, max_size=size))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=5)))
    order = draw(st.permutations(range(size)))
    return np.array(same), np.array(scores), cuts, np.array(order)


@settings(deadline=None, max_examples=50)
@given(streams(), st.integers(2, 40), st.integers(1, 8), st.booleans())
def test_order_pieces_and_merging_change_nothing(stream, bins, tail, single):
    same, scores, cuts, order = stream
    whole = histogram_of(same, scores, bins, tail)
    pieces = ScoreHistogram(-1, 2.5, bins, tail)
    merged = ScoreHistogram(-1, 2.5, bins, tail)
    for part in np.split(order, cuts):
        # The first pair stays in float64, the dtype of the whole.
        values = scores[part].astype(np.float32) if single and 0 not in part else scores[part]
        pieces.add(same[part], values)
        merged = merged + histogram_of(same[part], values, bins, tail)
    assert state(pieces) == state(whole) == state(merged)
    assert merged.d_prime() == pytest.approx(whole.d_prime(), rel=1e-9, abs=1e-9)
    assert (merged.genuines, merged.impostors) == (same.sum(), len(same) - same.sum())


def test_pieces_longer_than_what_is_counted_at_a_time(rng):
    same = rng.integers(0, 2, 5 * CHUNK)
    scores = rng.uniform(-1, 1, len(same)).astype(np.float32) + np.float32(0.2) * same.astype(np.float32)
    whole, pieces = histogram_of(same, scores), ScoreHistogram(-1, 2.5, 64, 20)
    for part in np.array_split(np.arange(len(same)), 7):
        pieces.add(same[part], scores[part])
    assert state(whole) == state(pieces)
    points = whole.operating_points()
    for place in (1, 10, -20, -1):
        expected = (points.impostors[place], points.genuines[place])
        assert accepted(same, scores, points.thresholds[place]) == expected
    assert whole.d_prime() == pytest.approx(curves.d_prime(same, scores), rel=1e-9)


def test_a_sum_leaves_its_parts_alone():
    pairs = ([1, 0], [0.5, 0.2]), ([1, 0, 0], [0.1, 0.7, 0.3])
    left, right = (histogram_of(*each) for each in pairs)
    total = left + right
    total.add([1], [0.9])
    # Read only now, so that no earlier reading is remembered.
    assert [state(left), state(right)] == [state(histogram_of(*each)) for each in pairs]
    assert (total.genuines, total.impostors) == (3, 3)


def test_a_single_pair_more_is_seen_after_a_reading():
    histogram = histogram_of([1, 0], [0.5, 0.2])
    assert histogram.auc() == 1
    histogram.add([0], [0.6])
    assert histogram.auc() == 0.5


# --- as text and as a dict


def test_to_dict_and_text(rng):
    same = rng.integers(0, 2, 9000)
    histogram = histogram_of(same, np.clip(rng.normal(size=9000) * 0.3 + same, -1, 2.5), bins=300)
    found = json.loads(json.dumps(histogram.to_dict()))
    assert found["genuines"] == same.sum()
    assert found["eer"] == histogram.eer()
    assert [figure["mark"] for figure in found["tar"]] == ["plain", "uncertain"]
    assert found["tar"][0]["tar"] == histogram.tar_at_far(0.01)
    lines = str(histogram).splitlines()
    assert lines[0].startswith("Histogram of 9,000 pairs:")
    assert f"{histogram.eer():.4f}" in lines[2]
    assert f"{histogram.auc_error_bound():.1e}" in lines[3]
    assert "uncertain" not in lines[5]
    assert "uncertain: reliable from 30,000 impostor pairs" in lines[6]
    assert "withheld" in str(histogram_of([1, 0], [0.5, 0.2]))
    assert str(ScoreHistogram(0, 1)) == "Histogram of 0 pairs: 0 genuine, 0 impostor, in bins of 1.53e-05"


# --- refusals


@pytest.mark.parametrize(
    "same, scores, error, message",
    [
        ([1, 0], [0.1, math.nan], ValueError, "`scores` must be finite; 1 of its 2 values are NaN or infinite"),
        ([1, 0], [0.1, -math.inf], ValueError, "`scores` must be finite; 1 of its 2"),
        ([1, 0, 0], [0.1, 3, -2], ValueError, r"`scores` must give scores in \[-1, 2.5\]; 2 of 3 are outside"),
        ([1, 2], [0.1, 0.2], ValueError, "`same` must hold only 1 .* and 0"),
        ([1], [0.1, 0.2], ValueError, "`same` must have one entry for each of the 2 pairs; got 1"),
        ([1, 0], [[0.1, 0.2], [0.1, 0.2]], ValueError, r"`scores` must have shape \(n,\)"),
        ([1, 0], ["a", "b"], TypeError, "`scores` must be real numbers"),
    ],
)
def test_scores_refused_leave_no_trace(same, scores, error, message):
    histogram = histogram_of([1, 0], [0.5, 0.2])
    before = state(histogram)
    with pytest.raises(error, match=message):
        histogram.add(same, scores)
    assert state(histogram) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1, 0), "`low` must be below `high`; got low=1, high=0"),
        ((1, 1), "`low` must be below `high`"),
        ((-1.7e308, 1.7e308), "bins of finite width"),
        ((0, math.nan), "`high` must be in"),
        ((0, 1, 1), "`bins` must be at least 2; got 1"),
        ((0, 1, 10, 0), "`tail` must be at least 1; got 0"),
    ],
)
def test_a_histogram_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScoreHistogram(*arguments)


@pytest.mark.parametrize("other", [(-1, 3, 64, 20), (-1, 2.5, 65, 20), (-1, 2.5, 64, 21)])
def test_unlike_histograms_do_not_merge(other):
    histogram = histogram_of([1, 0], [0.5, 0.2])
    with pytest.raises(ValueError, match=r"`other` must have \(low, high, bins, tail\) = \(-1.0, 2.5, 64, 20\)"):
        histogram.merge(ScoreHistogram(*other))
    with pytest.raises(TypeError, match="`other` must be a ScoreHistogram"):
        histogram.merge(3)


@pytest.mark.parametrize("read", ["roc", "auc", "eer", "d_prime", "best_accuracy", "auc_error_bound", "to_dict"])
@pytest.mark.parametrize("same", [[], [1, 1], [0, 0]])
def test_an_empty_class(read, same):
    histogram = histogram_of(same, [0.1] * len(same))
    with pytest.raises(ValueError, match=f"both classes; got {sum(same)} genuine and {same.count(0)} impostor pairs"):
        getattr(histogram, read)()
