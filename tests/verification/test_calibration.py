"""Platt scaling against a slow minimiser and on Gaussian scores with known calibration; isotonic regression."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from keras_siamese.verification import ScoreHistogram, isotonic, platt
from tests.oracles import curves as oracles


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest: these tests do not use Keras."""


def gaussian(rng, genuine, impostor, gap=2.0, centre=0.0, scale=1.0):
    same = np.arange(genuine + impostor) < genuine
    scores = rng.normal(size=len(same)) + gap * (same - 0.5)
    return same, centre + scale * scores


def cross_entropy(parameters, same, scores, soft=True, balanced=True):
    """Mean over both classes of the mean cross-entropy to Platt's softened labels, pair by pair."""
    slope, offset = parameters
    counts = {True: sum(map(bool, same)), False: len(same) - sum(map(bool, same))}
    targets = {True: (counts[True] + 1) / (counts[True] + 2), False: 1 / (counts[False] + 2)}
    total = 0.0
    for is_same, score in zip(same, scores, strict=True):
        logit = slope * score + offset
        log_p, log_q = -math.log1p(math.exp(-logit)), -math.log1p(math.exp(logit))
        target = targets[bool(is_same)] if soft else float(is_same)
        weight = 1 / counts[bool(is_same)] if balanced else 2 / len(same)
        total -= weight * (target * log_p + (1 - target) * log_q)
    return total


def minimiser(same, scores, **options):
    found = minimize(cross_entropy, (1.0, 0.0), (same, scores, *options.values()), method="BFGS")
    return found.x


@pytest.mark.parametrize(("genuine", "impostor"), [(30, 30), (12, 60)])
def test_platt_finds_the_minimum(rng, genuine, impostor):
    same, scores = gaussian(rng, genuine, impostor)
    np.testing.assert_allclose(platt(same, scores), minimiser(same, scores), rtol=1e-4, atol=1e-4)
    # The oracle tells softened labels from hard ones, and balanced classes from plain counting.
    hard = minimiser(same, scores, soft=False, balanced=True)
    assert abs(hard[0] - platt(same, scores)[0]) > 0.01
    if genuine != impostor:
        plain = minimiser(same, scores, soft=True, balanced=False)
        assert abs(plain[1] - platt(same, scores)[1]) > 0.1


@pytest.mark.parametrize(
    ("centre", "scale", "impostor"),
    [
        (0.0, 1.0, 20_000),
        (-40.0, 3.0, 60_000),
        *(
            pytest.param(centre, scale, impostor, marks=pytest.mark.deep)
            for centre, scale in ((0.0, 1.0), (1e4, 1e-2), (0.0, 1e6))
            for impostor in (20_000, 200_000)
        ),
    ],
)
def test_gaussian_scores_have_their_log_likelihood_ratio(rng, centre, scale, impostor):
    # Of two normals of variance σ², `gap·σ` apart, log p/q is linear: slope gap/σ, zero halfway, whatever the counts.
    same, scores = gaussian(rng, 20_000, impostor, gap=1.5, centre=centre, scale=scale)
    slope, offset = platt(same, scores)
    assert slope * scale == pytest.approx(1.5, rel=0.03)
    assert (-offset / slope - centre) / scale == pytest.approx(0, abs=0.02)


def test_a_probability_is_the_share_of_genuine_pairs(rng):
    same, scores = gaussian(rng, 40_000, 40_000, gap=2.0)
    slope, offset = platt(same[::2], scores[::2])
    probability = 1 / (1 + np.exp(-(slope * scores[1::2] + offset)))
    for low in np.arange(0, 1, 0.1):
        inside = (probability >= low) & (probability < low + 0.1)
        assert same[1::2][inside].mean() == pytest.approx(probability[inside].mean(), abs=0.03)


def test_separable_scores_give_finite_parameters():
    slope, offset = platt([0, 0, 0, 1, 1, 1], [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    assert 0.5 < slope < 50 and offset == pytest.approx(0, abs=1e-3)


def test_scores_all_alike_say_nothing():
    slope, offset = platt([1, 1, 0, 0], np.full(4, 7.0))
    assert slope == pytest.approx(0, abs=1e-6)
    assert slope * 7 + offset == pytest.approx(0, abs=1e-3)


def test_reversed_scores_have_a_negative_slope(rng):
    same, scores = gaussian(rng, 200, 200)
    slope, offset = platt(same, scores)
    reversed_slope, reversed_offset = platt(same, -scores)
    assert slope > 0
    assert (reversed_slope, reversed_offset) == pytest.approx((-slope, offset), abs=1e-3)


def test_float32_scores_far_from_zero_lose_nothing(rng):
    same, scores = gaussian(rng, 5000, 5000, centre=-1000.0)
    scores = scores.astype("float32")
    np.testing.assert_allclose(platt(same, scores), platt(same, scores.astype(float)), rtol=1e-4)


@pytest.mark.parametrize("function", [platt, isotonic])
def test_degenerate_input_is_refused(function):
    for same in ([1, 1], [0, 0]):
        with pytest.raises(ValueError, match="pairs of both classes"):
            function(same, [0.1, 0.2])
    with pytest.raises(ValueError, match="must be finite; 1 of its 2 values"):
        function([1, 0], [np.nan, 0.0])


@pytest.mark.parametrize("decimals", [0, 9], ids=["tied", "distinct"])
def test_isotonic_is_pooled_blocks_of_equal_class_weight(rng, decimals):
    same = rng.random(300) < 0.3
    scores = np.round(rng.normal(size=300) + 1.2 * same, decimals)
    knots, probabilities = isotonic(same, scores)
    assert (np.diff(probabilities) >= 0).all() and (np.diff(knots) > 0).all()
    odds = same.sum() / (~same).sum()
    place = 0
    ordered = np.sort(scores)
    for genuines, number in oracles.pooled(same, scores):
        impostors = number - genuines
        expected = genuines / (genuines + odds * impostors)
        inside = ordered[place : place + number]
        np.testing.assert_allclose(np.interp(inside, knots, probabilities), expected, atol=1e-9)
        place += number


@pytest.mark.parametrize("function", [platt, isotonic])
def test_counts_stand_for_repeated_pairs(rng, function):
    same, scores = gaussian(rng, 30, 50)
    scores, counts = scores.round(1), rng.integers(0, 5, 80)
    once = function(same, scores, counts)
    repeated = function(np.repeat(same, counts), np.repeat(scores, counts))
    np.testing.assert_allclose(np.array(once), np.array(repeated), rtol=1e-6, atol=1e-9)
    for wrong in (-counts, counts * same, counts[:-1], counts * np.nan):
        with pytest.raises(ValueError, match="`counts` must"):
            function(same, scores, wrong)


def test_bins_of_a_histogram_give_the_map_of_rounded_scores(rng):
    same, scores = gaussian(rng, 400, 900)
    histogram = ScoreHistogram(-8, 8, bins=160)
    histogram.add(same, scores)
    middle = np.clip(np.floor((scores + 8) * 10) / 10 - 8 + 0.05, scores.min(), scores.max())
    for function in (platt, isotonic):
        of_bins = function(*histogram.counted_scores())
        np.testing.assert_allclose(np.array(of_bins), np.array(function(same, middle)), rtol=1e-6, atol=1e-9)
