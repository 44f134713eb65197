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


def test_a_template_escapes_what_it_is_given():
    page = pages.template("keras_siamese.tuning", "report.html.jinja")
    shown = page.render(title="<b>", failures=[("</script>", {}, "<i>")], rows=[], head=[])
    assert "&lt;b&gt;" in shown and "&lt;/script&gt;" in shown and "script-src 'none'" in shown
