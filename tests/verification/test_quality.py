"""Quality against error: the curve of a loop, the two extremes, and bad input."""

import numpy as np
import pytest

from keras_siamese.verification import error_versus_discard, plot_discard, threshold_at_far


@pytest.fixture
def pairs(rng):
    same = np.arange(800) % 2 == 0
    quality = rng.integers(0, 20, 800)
    return same, rng.normal(size=800) + same * (0.5 + quality / 8), quality


def test_the_curve_is_that_of_a_loop(pairs):
    same, scores, quality = pairs
    curve = error_versus_discard(same, scores, quality, far=0.05)
    assert curve.threshold == threshold_at_far(same, scores, 0.05)
    assert curve.quality.tolist() == sorted(set(quality[same].tolist()))
    for discarded, fnmr, level in zip(curve.discarded, curve.fnmr, curve.quality, strict=True):
        kept = [score for one, score, value in zip(same, scores, quality, strict=True) if one and value >= level]
        assert discarded == pytest.approx(1 - len(kept) / same.sum())
        assert fnmr == pytest.approx(sum(score < curve.threshold for score in kept) / len(kept))
    assert curve.fnmr[-1] < curve.fnmr[0] / 3


def test_the_score_itself_is_the_best_quality_and_a_constant_says_nothing(pairs):
    same, scores, _ = pairs
    best = error_versus_discard(same, scores, scores, threshold=1.0)
    expected = np.clip((best.fnmr[0] - best.discarded) / (1 - best.discarded), 0, 1)
    np.testing.assert_allclose(best.fnmr, expected, atol=1e-12)
    constant = error_versus_discard(same, scores, np.ones(800), threshold=1.0)
    assert constant.discarded.tolist() == [0.0] and constant.fnmr[0] == best.fnmr[0]


def test_it_is_drawn(pairs):
    figures = pytest.importorskip("matplotlib.figure")
    axes = plot_discard(figures.Figure().subplots(), error_versus_discard(*pairs, far=0.05))
    assert [line.get_label() for line in axes.lines] == ["this quality", "best possible", "says nothing"]


def test_it_is_drawn_if_all_genuine_pairs_are_rejected(pairs):
    figures = pytest.importorskip("matplotlib.figure")
    axes = plot_discard(figures.Figure().subplots(), error_versus_discard(*pairs, threshold=1e3))
    assert (axes.lines[1].get_ydata() == 1).all()


def test_mistakes_are_named(pairs):
    same, scores, quality = pairs
    for options in ({}, {"far": 0.1, "threshold": 1.0}):
        with pytest.raises(ValueError, match="Give `threshold` or `far`, one of them"):
            error_versus_discard(same, scores, quality, **options)
    with pytest.raises(ValueError, match="`quality`"):
        error_versus_discard(same, scores, quality[:3], far=0.1)
    with pytest.raises(ValueError, match="`quality`"):
        error_versus_discard(same, scores, np.full(800, np.nan), far=0.1)
