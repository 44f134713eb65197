"""Tests that the documentation builds strictly without a network, and that it has an entry for each public name."""

import html
import importlib.util
import json
import re
import shutil
from types import ModuleType

import pytest

import keras_siamese as ks
from tests.docs.conftest import build
from tests.support.pages import DOCS, ROOT

pytestmark = pytest.mark.deep

ROOMS = [name for name in ks.__all__ if isinstance(getattr(ks, name), ModuleType)]
ELSEWHERE = {"diagnose": "diagnosis"}  # described on the page of a room


def entries(page):
    """The names that a page of the reference describes."""
    return set(re.findall(r'id="keras_siamese[\w.]*?\.(\w+)"', page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_describes_each_name_of_a_room(site, room):
    assert set(getattr(ks, room).__all__) - entries(site / "api" / f"{room}.html") == set()


def test_the_reference_describes_each_name_of_the_package(site):
    names = [name for name in ks.__all__ if name not in (*ROOMS, "__version__", *ELSEWHERE)]
    assert set(names) - entries(site / "api" / "index.html") == set()
    for name, room in ELSEWHERE.items():
        assert name in entries(site / "api" / f"{room}.html")


def test_examples_and_arguments_of_docstrings_are_shown_as_such(site):
    text = (site / "api" / "losses.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt; " in text
    for page in (site / "api").glob("*.html"):  # Markdown reads a line that begins with > as a quotation
        assert "<blockquote>" not in page.read_text(encoding="utf-8"), page
    visible = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert "ContrastiveLoss(" in visible and "Parameters:" in visible and "Contract:" not in visible


def test_the_page_of_a_cause_has_its_limits(site):
    from keras_siamese.diagnosis import limits

    text = (site / "causes" / "margin.html").read_text(encoding="utf-8")
    assert all(name.lower() in text for name in ("SMALL_MARGIN", "LARGE_MARGIN"))
    assert f">{float(limits.TABLE['SMALL_MARGIN']):g}<" in text
    assert "strongest" not in text


def test_pages_from_outside_and_links_to_them_are_there(site):
    for name in ("changelog", "contributing", "security", "benchmarks"):
        assert (site / "project" / f"{name}.html").stat().st_size > 5_000
    assert "guides/attach.html" in (site / "index.html").read_text(encoding="utf-8")
    assert "../project/benchmarks.html" in (site / "causes" / "index.html").read_text(encoding="utf-8")
    assert "../guides/devices.html" in (site / "project" / "benchmarks.html").read_text(encoding="utf-8")
    assert (site / "parallel_search.py").exists() and not (site / "hooks.py").exists()


def test_search_has_the_pages_and_no_address_is_named_to_load_from(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert len({entry["location"].partition("#")[0] for entry in index["docs"]}) > 50
    assert (site / "search" / "search_index.js").exists()
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]* href="([^"]+)"', text)
        assert [one for pair in loaded for one in pair if "//" in one] == [], page


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("start.md", "[nowhere](guides/nowhere.md)"),
        ("faq.md", "[nothing](guides/data.md#nothing)"),
        ("new.md", "# New"),
    ],
)
def test_a_wrong_link_or_a_page_without_a_place_fails(tmp_path, name, text):
    if importlib.util.find_spec("material") is None:
        pytest.skip("the site needs the extra `docs`")
    for folder in ("docs", "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.gz", "results", "api"))
    (tmp_path / "keras_siamese").symlink_to(ROOT / "keras_siamese")
    for path in ROOT.glob("*.md"):
        shutil.copy(path, tmp_path)
    # Without the reference, whose pages take most of the time.
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = re.sub(r"^ +- (?:API:|api/).*\n", "", config, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(config, encoding="utf-8")
    for page in [*(tmp_path / "docs").rglob("*.md"), tmp_path / "README.md"]:
        page.write_text(re.sub(r"\]\([^)]*\bapi/[^)]*\)", "](https://keras.io)", page.read_text(encoding="utf-8")))
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 0
    with (tmp_path / "docs" / name).open("a", encoding="utf-8") as page:
        page.write(f"\n{text}\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and name in done.stderr + done.stdout


def test_examples_are_fenced():
    pytest.importorskip("griffe", reason="the site needs the extra `docs`")
    pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.fenced("Adds one.\n\n>>> 1 + 1\n2\n\nEnd.").splitlines() == [
        *("Adds one.", "", "```pycon", ">>> 1 + 1", "2", "```", "", "End.")
    ]
    assert hooks.fenced("A:\n    >>> 1\n    1").splitlines() == [
        "A:",
        "",
        "    ```pycon",
        "    >>> 1",
        "    1",
        "    ```",
    ]
    assert hooks.fenced("Args:\n    scale: > 0.") == "Args:\n    scale: \\> 0."
    assert hooks.fenced("Attributes:\n    low, high: The ends.") == "Attributes:\n    low,\u00a0high: The ends."
    assert hooks.where("../guides/data.md", "docs/causes/a.md", "causes/a.md") == "../guides/data.md"
    assert hooks.where("../../benchmarks/README.md", "docs/causes/a.md", "causes/a.md") == "../project/benchmarks.md"
    assert hooks.where("docs/start.md", "README.md", "index.md") == "start.md"
    assert hooks.where("../.ci/run", "docs/start.md", "start.md") is None
