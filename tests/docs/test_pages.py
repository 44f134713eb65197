"""Tests that the links and names in README and the pages of docs/ exist, and that each cause has its page."""

import importlib.util
import re
import sys

import pytest

from keras_siamese.callbacks import DivergenceMonitor
from keras_siamese.diagnosis.causes import CAUSES, names
from tests.support.pages import BLOCK, DOCS, PAGES, ROOT, name_of

LINK = re.compile(r"\]\(([^)\s]+)\)")
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=map(name_of, PAGES))


def slug(heading):
    """The anchor of a heading, as GitHub and Python-Markdown make it for the headings of these pages."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors(path):
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@EACH_PAGE
def test_links_lead_to_files_and_headings(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.is_file() and path.is_relative_to(ROOT), link
        if anchor and "api" not in path.parts:
            assert anchor in anchors(path), link


@EACH_PAGE
def test_pages_open_with_their_name(page):
    assert page.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("where", ["README.md", "docs/guides/attach.md", "docs/guides/forms.md", "docstring"])
def test_the_callback_is_shown_with_the_training_pairs(where):
    is_docstring = where == "docstring"
    text = DivergenceMonitor.__doc__ if is_docstring else (ROOT / where).read_text(encoding="utf-8")
    pairs = r"\(\[\w+, \w+\], \w+\)"
    assert re.search(rf"DivergenceMonitor\({pairs}, train={pairs}", text)


def test_the_navigation_has_each_page_once():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    listed = re.findall(r"([\w/]+\.md)$", config, re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert {path for path in listed if not path.startswith("project/")} == pages | {"index.md"}


def test_each_cause_has_a_page_in_the_group_of_its_stage():
    folder = DOCS / "causes"
    assert {path.stem for path in folder.glob("*.md")} - {"index"} == set(names())
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    group = {}
    for line in config.split("causes/index.md\n")[1].split("\n  - ")[0].splitlines():
        heading, page = re.match(r" +- (\w+):$", line), re.match(r" +- causes/(\w+)\.md$", line)
        stage = heading[1].lower() if heading else stage  # noqa: F821
        if page:
            group[page[1]] = stage
    assert group == {cause.name: cause.stage for cause in CAUSES}


@pytest.mark.parametrize("cause", names())
def test_the_page_of_a_cause_has_sign_picture_and_repair(cause):
    text = (DOCS / "causes" / f"{cause}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {cause}\n") and f"]({cause}.png)" in text
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == ["Sign", "Repair"]
    assert BLOCK.search(text.split("## Repair")[1])


def test_the_table_of_the_causes_has_each_of_them():
    text = (DOCS / "causes" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", text, re.MULTILINE)) == sorted(names())
    assert f"There are [{len(names())} known causes]" in (DOCS / "faq.md").read_text(encoding="utf-8")


def test_anchors_are_made_as_the_site_makes_them():
    assert slug("In your own `fit`: one callback") == "in-your-own-fit-one-callback"
    assert slug("A list, and *another*") == "a-list-and-another"


@pytest.mark.deep
def test_the_picture_of_the_guide_to_thresholds_has_a_curve_in_each_panel(monkeypatch):
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("docs_judging", DOCS / "judging.py")
    judging = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(judging)
    groups, age, discarded, searches = judging.figure_of().axes
    rates = [[line.get_xdata()[0] for line in axes.lines[1::2]] for axes in (groups, age)]
    assert len(rates[0]) == 3 and rates[1] == sorted(rates[1]) and len(rates[1]) == 5  # the rate rises with the years
    assert all(len(axes.lines[0].get_xdata()) > 50 for axes in (discarded, searches))
