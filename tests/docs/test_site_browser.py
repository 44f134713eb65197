"""The documentation in a real browser, opened from its folder: no error, no request, no overflow, search with results.

Each kind of page is opened at the width of a desktop and of a telephone, in light and in dark colours, and every page
at one of these. Screenshots go to the folder in KERAS_SIAMESE_SCREENSHOTS, or to pytest's own. Without Chromium the
tests skip, but where CI=true they fail.
"""

import itertools
import os
from pathlib import Path

import pytest

from tests.support.accessibility import axe

WIDTHS = {"desktop": 1280, "telephone": 390}
FORMS = list(itertools.product(WIDTHS, ("light", "dark")))
KINDS = ["index", "guides/report", "causes/margin", "api/distances", "migration", "faq"]

# Elements beyond the right edge of the window that are in nothing that scrolls; the page itself never scrolls there.
BEYOND = """Array.from(document.querySelectorAll("body *")).filter(element => {
  const place = element.getBoundingClientRect()
  if (place.width === 0 || place.right <= document.documentElement.clientWidth + 1) return false
  let around = element.parentElement
  while (around !== document.body && getComputedStyle(around).overflowX === "visible") around = around.parentElement
  return around === document.body && element.closest(".md-search, .md-sidebar, .md-top, .md-dialog") === null
}).map(element => `${element.tagName} ${element.className}`)"""
RESULTS = """new Promise(async done => {
  let links = []
  for (const until = Date.now() + 30000; links.length === 0 && Date.now() < until; ) {
    await new Promise(next => setTimeout(next, 50))
    links = Array.from(document.querySelectorAll(".md-search-result__item > a"), link => link.pathname)
  }
  done(links)
})"""

pytestmark = [pytest.mark.browser, pytest.mark.deep]


def check(page, width, scheme):
    assert page.errors == []
    assert [address for address in page.requests if not address.startswith("file:")] == []
    assert page.client_width <= width
    assert page.result == [], "beyond the right edge"
    assert [source for source, pixels in page.images if pixels == 0] == []
    assert len(page.text) > 200
    red, green, blue = map(int, page.background.removeprefix("rgb(").removesuffix(")").split(", "))
    assert (red + green + blue > 3 * 128) == (scheme == "light"), page.background


@pytest.mark.parametrize(("device", "scheme"), FORMS)
@pytest.mark.parametrize("name", KINDS)
def test_pages_open(browser, site, name, device, scheme, tmp_path):
    page = browser.open((site / f"{name}.html").as_uri(), WIDTHS[device], BEYOND, dark=scheme == "dark", whole=False)
    folder = Path(os.environ.get("KERAS_SIAMESE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name.replace('/', '-')}-{device}-{scheme}.png").write_bytes(page.screenshot)
    check(page, WIDTHS[device], scheme)


@pytest.mark.parametrize(("device", "scheme"), [FORMS[0], FORMS[3]])
@pytest.mark.parametrize("name", [*KINDS, "api/tuning"])
def test_axe_has_nothing_to_object_to(browser, site, name, device, scheme):
    url = (site / f"{name}.html").as_uri()
    passes, violations = browser.open(url, WIDTHS[device], axe(), dark=scheme == "dark", whole=False).result
    assert passes > 30 and violations == []


def test_every_page_opens(browser, site):
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) > 50
    for path, (device, scheme) in zip(pages, itertools.cycle(FORMS), strict=False):
        page = browser.open(path.as_uri(), WIDTHS[device], BEYOND, dark=scheme == "dark", whole=False)
        check(page, WIDTHS[device], scheme)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("nan_gradient", "causes/nan_gradient.html"),
        ("threshold", "guides/thresholds.html"),
        ("ArcFaceLoss", "api/losses.html"),
    ],
)
def test_search_finds_pages_without_a_server(browser, site, words, found):
    page = browser.open(f"{(site / 'index.html').as_uri()}?q={words}", 1280, RESULTS, whole=False)
    assert page.errors == []
    assert any(link.endswith(found) for link in page.result), page.result


def test_a_page_that_is_too_wide_is_noticed(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text('<style>html { overflow-x: hidden }</style><p style="width: 500px">wide</p>', encoding="utf-8")
    assert browser.open(path.as_uri(), 390, BEYOND).result == ["P "]
    path.write_text('<div style="overflow: auto"><p style="width: 500px">wide</p></div>', encoding="utf-8")
    assert browser.open(path.as_uri(), 390, BEYOND).result == []
