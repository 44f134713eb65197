"""A search on a page and in TensorBoard: the axes of its plot, what is escaped, and what TensorBoard reads."""

import numpy as np
import pytest

from keras_siamese.tuning import SearchResults, objective, report
from keras_siamese.tuning.results import TrialResult
from tests.support.searches import made_up


def test_numbers_stand_where_they_belong():
    heights, ticks = report.axis_of([1.0, 2.0, 5.0])
    assert heights == [0.0, 0.25, 1.0]
    assert ticks == [(0.0, "1"), (0.25, "2"), (1.0, "5")]


@pytest.mark.parametrize(("largest", "middle"), [(19.0, 9 / 18), (20.0, np.log(10) / np.log(20))])
def test_numbers_that_span_much_are_on_a_logarithmic_axis(largest, middle):
    heights, _ = report.axis_of([1.0, 10.0, largest])
    assert heights == pytest.approx([0, middle, 1])


def test_of_many_numbers_the_ends_are_marked():
    _, ticks = report.axis_of([float(value) for value in range(1, 8)])
    assert ticks == [(0.0, "1"), (1.0, "7")]
    assert len(report.axis_of([float(value) for value in range(1, 7)])[1]) == 6


def test_equal_numbers_are_at_one_height():
    assert report.axis_of([3, 3]) == ([0.0, 0.0], [(0.0, "3")])


def test_names_are_spread_evenly_and_what_is_unset_has_a_place():
    assert report.axis_of(["b", "a", "c", "a"]) == ([0.5, 0, 1, 0], [(0, "a"), (0.5, "b"), (1, "c")])
    assert report.axis_of([2.0, None, 0.125]) == ([1, 0, 0.5], [(0, "–"), (0.5, "0.125"), (1, "2")])
    assert report.axis_of([True, False])[0] == [1, 0]


def test_of_many_ticks_ten_are_kept():
    ticks = [(at, str(at)) for at in range(25)]
    kept = report.thinned(ticks)
    assert len(kept) == 10 and kept[0] == ticks[0] and kept[-1] == ticks[-1]
    assert report.thinned(ticks[:10]) == ticks[:10]


def test_there_is_a_picture_if_two_trials_differ():
    aim = objective("val_eer")
    one, other, alike, failed = (
        TrialResult(str(at), {"margin": margin}, [], value)
        for at, (margin, value) in enumerate([(0.5, 0.1), (0.25, 0.2), (0.5, 0.3), (0.125, np.nan)])
    )
    assert report.can_draw(SearchResults([one, other], aim, 1))
    assert not report.can_draw(SearchResults([one, alike], aim, 1))
    assert not report.can_draw(SearchResults([one, failed], aim, 1))
    assert report.drawn_trials(SearchResults([one, failed], aim, 1)) == [one]


def test_a_page_holds_the_table_the_failures_and_the_picture(tmp_path):
    for needed in ("matplotlib", "jinja2"):
        pytest.importorskip(needed)
    results = made_up(error="Traceback ...\nOverflowError: no room for <b>")
    results.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "val_eer, smaller is better" in page and "&lt;b&gt;" in page and "<b>" not in page.replace("<b>4", "")
    assert results.summary() in page and "data:image/svg+xml" in page
    assert "val_auc, larger is better" in report.render(made_up(aim="val_auc"))


def test_lines_are_drawn_for_finished_trials_and_the_best_is_bold():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    report.draw_coordinates(figure, made_up())
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert sorted(line.get_linewidth() for line in lines) == [1.0, 1.0, 2.5]
    best = next(line for line in lines if line.get_linewidth() == 2.5)
    assert list(best.get_ydata()) == [0, 0.5, 0.0]  # ContrastiveLoss, margin .25 above none, the least EER
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["loss", "margin", "val_eer"]


def test_tensorboard_reads_the_trials(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    made_up().to_tensorboard(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["trial_0", "trial_1", "trial_2", "trial_3"]
    read = EventAccumulator(str(tmp_path / "trial_1")).Reload()
    assert read.Scalars("val_eer")[0].value == pytest.approx(0.2)
    (content,) = read.summary_metadata.values()
    start = plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content).session_start_info
    assert start.hparams["margin"].number_value == 0.25
    assert start.hparams["loss"].string_value == "ContrastiveLoss"
    failed = EventAccumulator(str(tmp_path / "trial_2")).Reload()
    assert failed.Tags()["scalars"] == []
