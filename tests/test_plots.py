"""The plots: what they draw, and on whose axes."""

import numpy as np
import pytest

from keras_siamese import verification
from keras_siamese.verification import plot_roc, plot_scores

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """In place of conftest's: nothing here touches Keras."""


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
        for plot in (plot_roc, plot_scores):
            figure = Figure()
            plot(figure.subplots(), same, scores)
            figure.canvas.draw()


@pytest.mark.parametrize("plot", [plot_roc, plot_scores])
def test_bad_scores_are_refused(axes, plot):
    with pytest.raises(ValueError, match="must be finite"):
        plot(axes, [1, 0], [np.nan, 0.0])
    with pytest.raises(ValueError, match="pairs of both classes"):
        plot(axes, [1, 1], [1.0, 0.0])
