"""The plots: what they draw, and on whose axes."""

import itertools

import numpy as np
import pytest

from keras_siamese import verification
from keras_siamese.verification import plot_det, plot_errors, plot_reliability, plot_roc, plot_scores

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest: these tests do not use Keras."""


@pytest.fixture
def pairs(rng):
    same = np.arange(4000) < 1000
    return same, rng.normal(size=4000) + 2 * same


@pytest.fixture
def axes():
    return Figure().subplots()


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_histograms_have_area_one_and_hold_all_scores(axes, pairs):
    assert plot_scores(axes, *pairs, thresholds={"calibrated": 1.25, "old": 0.5}) is axes
    same, scores = pairs
    for container, kind in zip(axes.containers, (~same, same), strict=True):
        heights = np.array([bar.get_height() for bar in container])
        widths = np.array([bar.get_width() for bar in container])
        assert np.sum(heights * widths) == pytest.approx(1)
        left = np.array([bar.get_x() for bar in container])
        middle = np.sum(heights * widths * (left + widths / 2))
        assert middle == pytest.approx(scores[kind].mean(), abs=0.05)
    assert [line.get_xdata()[0] for line in axes.lines] == [1.25, 0.5]
    assert set(labels_of(axes)) == {"calibrated 1.25", "old 0.5", "impostor", "genuine"}
    assert axes.get_xlabel() == "score (larger = more similar)"


def test_any_number_of_thresholds_is_drawn(axes, pairs):
    plot_scores(axes, *pairs, thresholds={str(place): place / 10 for place in range(5)})
    assert len(axes.lines) == 5


def test_roc_never_shows_a_tar_of_a_higher_fmr(axes, pairs):
    assert plot_roc(axes, *pairs) is axes
    curve = axes.lines[0]
    for fmr, tar in zip(curve.get_xdata()[::10], curve.get_ydata()[::10], strict=True):
        assert tar == pytest.approx(verification.tar_at_far(*pairs, min(fmr * (1 + 1e-12), 1)))
    assert curve.get_xdata()[0] == pytest.approx(30 / 3000)  # from where the rule of 30 holds
    assert curve.get_ydata()[-1] == 1.0
    assert axes.get_xscale() == "log"
    rate = verification.eer(*pairs)
    point = axes.lines[2]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((rate, 1 - rate))
    assert labels_of(axes) == ["model", "chance", f"EER {rate:.3f}"]


def test_roc_of_few_impostors_is_still_drawn(axes):
    same = np.array([1, 1, 1, 0, 0])
    plot_roc(axes, same, [0.9, 0.8, 0.1, 0.5, 0.2])
    assert axes.lines[0].get_xdata()[0] == 0.5


def test_perfect_and_equal_scores_are_drawn(pairs):
    same, _ = pairs
    for scores in (same.astype(float), np.zeros(len(same))):
        for plot in (plot_roc, plot_scores, plot_det):
            figure = Figure()
            plot(figure.subplots(), same, scores)
            figure.canvas.draw()


@pytest.mark.parametrize("plot", [plot_roc, plot_scores, plot_det, plot_reliability])
def test_bad_scores_are_refused(axes, plot):
    with pytest.raises(ValueError, match="must be finite"):
        plot(axes, [1, 0], [np.nan, 0.0])
    with pytest.raises(ValueError, match="pairs of both classes"):
        plot(axes, [1, 1], [1.0, 0.0])


def test_roc_shows_the_band_of_the_identity_bootstrap(axes, pairs, rng):
    same, scores = pairs
    left = rng.integers(0, 60, 4000)
    right = np.where(same, left, (left + rng.integers(1, 60, 4000)) % 60)
    plot_roc(axes, same, scores, left, right)
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for far in (30 / 3000, 1.0):
        here = corners[np.isclose(corners[:, 0], far, rtol=1e-6), 1]
        expected = verification.bootstrap([("tar_at_far", far)], same, scores, left, right)["tar_at_far", far]
        assert (here.min(), here.max()) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_det_is_straight_for_normal_scores(axes, rng):
    same = np.arange(200_000) < 100_000
    assert plot_det(axes, same, rng.normal(size=200_000) + 2.0 * same) is axes
    x, y = axes.lines[0].get_data()
    inside = (x > -2.5) & (y > -2.5)
    slope, offset = np.polyfit(x[inside], y[inside], 1)
    # FNMR = Φ(t − 2), FMR = Φ(−t): the deviates add up to −2.
    assert (slope, offset) == pytest.approx((-1.0, -2.0), abs=0.05)
    assert "0.1" in [tick.get_text() for tick in axes.get_xticklabels()]


def test_a_det_without_a_point_says_why(axes, rng):
    same = np.arange(100) % 2
    plot_det(axes, same, rng.normal(size=100) + 4.0 * same)
    assert not len(axes.lines[0].get_xdata())
    assert [text.get_text() for text in axes.texts] == ["too few pairs: no threshold has\n30 errors of each kind"]


def test_det_is_cut_where_fewer_than_30_errors_remain(axes, pairs):
    from scipy.special import ndtr

    plot_det(axes, *pairs)
    x, y = axes.lines[0].get_data()
    assert ndtr(x.min()) >= 30 / 3000 - 1e-9 and ndtr(y.min()) >= 30 / 1000 - 1e-9


def test_reliability_is_the_weighted_share_of_each_bin(axes, rng):
    probabilities = rng.random(50_000)
    same = rng.random(50_000) < probabilities**2
    assert plot_reliability(axes, same, probabilities) is axes
    stated, share = axes.lines[1].get_data()
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    edges = np.quantile(probabilities, np.linspace(0, 1, 11))
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = (probabilities >= low) & ((probabilities < high) | (place == 9))
        assert share[place] == pytest.approx(np.average(same[inside], weights=weight[inside]))
        assert stated[place] == pytest.approx(np.average(probabilities[inside], weights=weight[inside]))


def test_reliability_of_equal_probabilities_is_one_mark(axes):
    plot_reliability(axes, [1, 0, 1, 0], [0.5] * 4)
    assert axes.lines[1].get_xydata().tolist() == [[0.5, 0.5]]


def test_scores_are_no_probabilities(axes):
    with pytest.raises(ValueError, match=r"`probabilities` must be in \[0, 1\]; got \[-1, 0.5\]"):
        plot_reliability(axes, [1, 0], [-1.0, 0.5])


@pytest.mark.parametrize("kind", ["accept", "reject"])
def test_the_worst_errors_are_shown_worst_first(axes, kind, rng):
    same, scores = np.array([1, 1, 1, 0, 0, 0]), np.array([0.9, 0.1, 0.4, 0.8, 0.2, 0.85])
    left, right = rng.integers(0, 256, (2, 6, 5, 4, 3)).astype("uint8")
    names = np.array(list("abcdef")), np.array(list("uvwxyz"))
    assert plot_errors(axes, same, scores, left, right, kind, names=names, count=2) is axes
    rows = [5, 3] if kind == "accept" else [1, 2]
    assert [text.get_text() for text in axes.texts] == [f"{scores[r]:.3g}\n{names[0][r]}\n{names[1][r]}" for r in rows]
    for row, pictures in zip(rows, zip(axes.images[::2], axes.images[1::2], strict=True), strict=True):
        for picture, side in zip(pictures, (left, right), strict=True):
            np.testing.assert_allclose(picture.get_array(), side[row] / 255)
    axes.figure.canvas.draw()


def test_pictures_may_be_grey_or_floats_and_nothing_else(axes):
    for batch in (np.ones((2, 3, 3)), np.ones((2, 3, 3, 1)), np.full((2, 3, 3, 4), 255.0)):
        plot_errors(axes, [1, 0], [0.0, 1.0], batch, batch)
        assert axes.images[-1].get_array().max() == 1
    with pytest.raises(ValueError, match=r"must be images .* got \('n', 8\)"):
        plot_errors(axes, [1, 0], [0.0, 1.0], np.ones((2, 8)), np.ones((2, 8)))
