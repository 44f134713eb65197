"""Pages: one file that needs nothing else, with pictures in it, and with everything escaped that the user named."""

import base64

import numpy as np
import pytest

from keras_siamese.verification import evaluate, pages

for needed in ("matplotlib", "jinja2"):
    pytest.importorskip(needed)


@pytest.fixture
def report(rng):
    same = np.arange(200) % 2
    return evaluate(same, rng.normal(size=200) + 2 * same, threshold=1.0)


def test_a_page_holds_the_table_and_the_picture(report):
    page = pages.render(report, "Gate <3>")
    assert "Gate &lt;3&gt;" in page and "<3>" not in page
    heading, meaning, _, *lines = str(report).splitlines()
    assert heading in page and meaning in page
    for name, value, _, _ in list(report.rows())[1:]:
        assert name in page and value in page
    assert len(lines) == len(list(report.rows())) - 1
    assert page.count("data:image/svg+xml;base64,") == 1
    assert "http:" not in page and "https:" not in page


def test_a_report_writes_its_page(report, tmp_path):
    report.to_html(tmp_path / "deep" / "page.html")
    assert (tmp_path / "deep" / "page.html").read_text(encoding="utf-8").count("Verification") >= 2
    with pytest.raises(ValueError, match="`path` must be"):
        report.to_html(tmp_path)


def test_a_page_names_the_groups(report, tmp_path):
    groups = np.where(np.arange(200) < 150, "indoors", "<out>")
    report.to_html(tmp_path / "page.html", groups=groups)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ">indoors</option>" in page and ">&lt;out&gt;</option>" in page and "<out>" not in page
    assert page.count('data-group="0"') == page.count('data-group="1"') == 12
    assert '<select class="group"' not in pages.render(report)
    with pytest.raises(ValueError, match="`groups` must"):
        report.to_html(tmp_path / "page.html", groups=groups[1:])


def test_a_picture_is_the_same_each_time():
    def draw(figure):
        figure.subplots().plot([0, 1], [0, 1], label="line")

    first, second = pages.svg(draw), pages.svg(draw)
    assert first == second
    head, _, data = first.partition(",")
    picture = base64.b64decode(data).decode()
    assert head == "data:image/svg+xml;base64" and "<svg" in picture and "<dc:date>" not in picture


def test_curves_are_read_where_they_have_points():
    """Each reading has the values of the curves at its place, in the units of the axes, and no more."""

    def draw(figure):
        left, beside = figure.subplots(1, 2)
        left.plot([1, 2, 4], [0.5, np.nan, 0.25], label="loss, training")
        left.plot([1, 4], [0.3, 0.2], ":", label="a mark")
        left.axhline(0.4, label="a limit")
        left.set(xlabel="epoch", ylabel="loss (mean)", xlim=(0, 4))
        right = left.twinx()
        right.plot([1, 2], [0.123456, 0.2], label="EER")
        right.plot([2, 9], [0.8, 0.9], label="AUC")
        beside.plot(np.geomspace(1e-3, 1, 2000), np.linspace(0, 1, 2000))
        beside.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1), ylabel="rate, %")
        beside.fmt_ydata = "{:.0%}".format

    left, beside = pages.curves(draw, (6, 3)).charts
    assert left["at"] == [0.25, 0.5, 1.0]
    assert left["says"] == ["epoch 1: loss 0.5, EER 0.1235", "epoch 2: EER 0.2, AUC 0.8", "epoch 4: loss 0.25"]
    assert len(beside["at"]) == pages.PLACES and beside["at"] == sorted(beside["at"])
    assert beside["says"][0].endswith(": rate 0%") and beside["says"][-1].endswith("1: rate 100%")
    for chart in (left, beside):
        across, down, width, height = chart["box"]
        assert 0 < across < across + width < 1 and 0 < down < down + height < 1
    assert left["box"][0] + left["box"][2] < beside["box"][0]


def test_plots_are_read_in_the_words_of_their_axes(rng):
    same = np.arange(600) % 2
    scores, roc, det = pages.curves_of(evaluate(same, rng.normal(size=600) + same).plot()).charts
    assert all(text.startswith("score ") and ": impostor density " in text for text in scores["says"])
    assert len(scores["says"]) == 60 and roc["says"][-1] == "false match rate 1: true accept rate 1"
    assert all(text.startswith("false match rate ") and text.count(" %") == 2 for text in det["says"])


def test_a_template_escapes_what_it_is_given():
    page = pages.template("keras_siamese.tuning", "report.html.jinja")
    shown = page.render(title="<b>", failures=[("</script>", {}, "<i>")], rows=[], head=[])
    assert "&lt;b&gt;" in shown and "&lt;/script&gt;" in shown and "script-src 'none'" in shown
