"""The report in a real browser: it says its verdict, fetches nothing, logs no error and fits a telephone.

The report is the file that the environment variable KERAS_SIAMESE_REPORT names, with the JSON beside it if there is
one, or one made here. Screenshots go to the folder in KERAS_SIAMESE_SCREENSHOTS, or to pytest's own. Without Chromium
the tests skip, but where CI=true they fail.
"""

import html
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.report.panels import PANELS
from keras_siamese.verification.evidence import in_words
from tests.support.diagnoses import HOSTILE, made

WIDTHS = {"desktop": 1280, "telephone": 390}

pytestmark = [pytest.mark.browser, pytest.mark.deep]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """`(path of the HTML file, its verdict or None)`."""
    given = os.environ.get("KERAS_SIAMESE_REPORT")
    if given:
        path = Path(given).resolve(strict=True)
        facts = path.with_suffix(".json")
        return path, json.loads(facts.read_text(encoding="utf-8"))["verdict"] if facts.exists() else None
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the report needs the extra `report`")
    diagnosis = small_diagnosis()
    return diagnosis.to_html(tmp_path_factory.mktemp("report") / "report.html"), diagnosis.verdict


def small_diagnosis():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(240, 6, 6, 1)).astype("float32"), np.repeat(np.arange(60), 4)
    train, valid = ks.data.split_identities(x, labels, (0.5, 0.5), seed=0)
    layers = [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(8), keras.layers.UnitNormalization()]
    siamese = ks.SiameseWrapper(keras.Sequential(layers))
    siamese.compile("adam", loss=ks.losses.ContrastiveLoss(margin=1.0))
    monitor = ks.callbacks.DivergenceMonitor(valid, on_divergence=lambda diagnosis: None)
    siamese.fit(ks.data.PairSequence(*train, seed=0), epochs=12, callbacks=[monitor], verbose=0)
    return monitor.diagnosis


def screenshot_folder(tmp_path):
    folder = Path(os.environ.get("KERAS_SIAMESE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("device", WIDTHS)
def test_report_opens(browser, report, device, tmp_path):
    path, verdict = report
    page = browser.open(path.as_uri(), WIDTHS[device])
    (screenshot_folder(tmp_path) / f"{path.stem}-{device}.png").write_bytes(page.screenshot)
    assert page.errors == []
    assert page.requests == []
    assert page.client_width <= WIDTHS[device]
    assert page.scroll_width <= page.client_width, f"{page.scroll_width} px wide in a window of {page.client_width}"
    assert page.images and [source for source, width in page.images if width == 0] == []
    assert len(page.text) > 200
    if verdict is not None:
        assert " ".join(verdict.split()) in " ".join(page.text.split())


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("case", ["hostile", "bare"])
def test_hostile_names_and_missing_pieces_do_no_harm(browser, tmp_path, case, device):
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the report needs the extra `report`")
    bare = {"kind": "numbers", "labelled": False, "dim": 1, "curves": {}}
    path = made(**{"hostile": {"kind": "lazy"}, "bare": bare}[case]).to_html(tmp_path / f"{case}.html")
    page = browser.open(path.as_uri(), WIDTHS[device])
    (screenshot_folder(tmp_path) / f"{case}-{device}.png").write_bytes(page.screenshot)
    assert page.errors == [] and page.requests == []
    assert page.scroll_width <= page.client_width, f"{page.scroll_width} px wide in a window of {page.client_width}"
    assert page.images and [source for source, width in page.images if width == 0] == []
    if case == "hostile":
        shown = " ".join(page.text.split())
        for name in HOSTILE[:4]:
            assert " ".join(name.split()) in shown, name


MOVE = """(() => {
  const find = (selector) => document.querySelector(selector);
  const seen = () => ({
    sentence: find(".sentence").textContent,
    counts: [...document.querySelectorAll(".counts")].map((row) => [...row.cells].map((cell) => cell.textContent)),
    wrong: document.querySelectorAll(".examples .wrong").length,
    shown: [...document.querySelectorAll(".examples figure")].filter((one) => !one.hidden).length,
  });
  const written = seen();
  const change = (selector, value, event) => {
    find(selector).value = value;
    find(selector).dispatchEvent(new Event(event));
    return seen();
  };
  const at = Math.floor(find(".threshold").max * 0.75);
  const data = JSON.parse(find('.explorer script').textContent);
  return { written, at, threshold: data.thresholds[at], moved: change(".threshold", at, "input"),
    wrong: change(".which", "wrong", "change"), who: change(".who", "no such name", "input"),
    note: !find(".none").hidden };
})()"""


def test_a_reader_moves_the_threshold(browser, tmp_path):
    """What the page then says is what Python counts at that threshold."""
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the report needs the extra `report`")
    diagnosis = made(kind="lazy")
    valid = diagnosis.observed.valid
    page = browser.open(diagnosis.to_html(tmp_path / "report.html").as_uri(), WIDTHS["desktop"], MOVE)
    (screenshot_folder(tmp_path) / "moved.png").write_bytes(page.screenshot)
    assert page.errors == [] and page.requests == []
    found = page.result
    written = ks.verification.eer_point(valid.same, valid.scores).threshold
    for state, threshold in (("written", written), ("moved", found["threshold"])):
        accepted = valid.scores >= threshold
        fmr, fnmr = accepted[~valid.same].mean(), 1 - accepted[valid.same].mean()
        assert found[state]["sentence"] == in_words(threshold, fmr, fnmr)
        numbers = [valid.same.sum(), (accepted & valid.same).sum(), (~accepted & valid.same).sum()]
        assert found[state]["counts"][0][1:4] == [f"{number:,}" for number in numbers]
        assert float(found[state]["counts"][1][4].removesuffix(" %")) == pytest.approx(100 * fmr, rel=5e-3)
        assert found[state]["shown"] == 24
    assert 0 < found["moved"]["wrong"] == found["wrong"]["shown"] < 24
    assert found["who"]["shown"] == 0 and found["note"]


GROUP = """(() => {
  const find = (selector) => document.querySelector(selector);
  const change = (selector, value, event) => {
    find(selector).value = value;
    find(selector).dispatchEvent(new Event(event));
  };
  const data = JSON.parse(find(".explorer script").textContent);
  const seen = () => ({
    threshold: data.thresholds[find(".threshold").value],
    sentence: find(".sentence").textContent,
    counts: [...document.querySelectorAll(".counts")].map((row) => [...row.cells].map((cell) => cell.textContent)),
    readout: find(".readout").textContent,
    paths: [...document.querySelectorAll(".explorer path")].map((path) => path.getAttribute("d")),
    examples: [...document.querySelectorAll(".examples figure")].filter((one) => !one.hidden)
      .map((one) => one.querySelector("figcaption").lastChild.textContent),
  });
  const point = () => {
    const frame = find(".explorer svg").getBoundingClientRect();
    const x = frame.left + (frame.width * Number(find(".cut").getAttribute("x1"))) / 640;
    find(".explorer svg").dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: frame.top + 20 }));
  };
  const choose = (option) => {
    change(".threshold", data.start, "input");
    change("select.group", option.value, "change");
    const first = seen();
    change(".threshold", Math.floor(find(".threshold").max * 0.6), "input");
    point();
    return [first, seen()];
  };
  const options = [...document.querySelectorAll("select.group option")];
  return { about: find(".explorer .controls .note").textContent, written: seen(),
    groups: [...options, options[0]].map((option) => [option.textContent, choose(option)]) };
})()"""


def percent(errors, pairs):
    return pytest.approx(100 * errors / pairs, rel=5e-3) if pairs else "–"


def test_a_reader_chooses_a_group(browser, tmp_path):
    """All that the page says about a group is what Python counts among its pairs, at each threshold."""
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the report needs the extra `report`")
    diagnosis = made(kind="numbers")
    valid = diagnosis.observed.valid
    device = np.where(np.arange(56) < 4, "<scan>", np.where(np.arange(56) % 2, "a  b", "camera"))
    page = browser.open(diagnosis.to_html(tmp_path / "report.html", groups=device).as_uri(), 1280, GROUP, whole=False)
    assert page.errors == [] and page.requests == []
    about, written, groups = page.result["about"], page.result["written"], page.result["groups"]
    assert about.startswith("A pair is in a group if both of its samples are. Pairs of samples of two groups are in")
    sides = np.sort(device[valid.trials.rows[np.stack([valid.trials.left, valid.trials.right])]], axis=0)
    names = [one if one == other else f"{one} and {other}" for one, other in sides.T.tolist()]
    wanted = sorted(set(names))
    assert "<scan>" in wanted and len(wanted) == 6
    assert [name for name, _ in groups] == ["all groups", *wanted, "all groups"]
    for name, states in groups:
        here = np.isin(names, wanted if name == "all groups" else [name])
        same, scores = valid.same[here], valid.scores[here]
        for state in states:
            accepted = scores >= state["threshold"]
            for row, kind in zip(state["counts"], (same, ~same), strict=True):
                right, errors = accepted[kind].sum(), (accepted != same)[kind].sum()
                assert row[1:4] == [f"{n:,}" for n in (kind.sum(), right, kind.sum() - right)]
                rate = row[4] if row[4] == "–" else float(row[4].removesuffix(" %"))
                assert rate == percent(errors, kind.sum())
            if name != "all groups" and same.any() and not same.all():
                words = in_words(state["threshold"], accepted[~same].mean(), 1 - accepted[same].mean())
                assert state["sentence"] == words.replace(":", f", in group {name}:", 1)
        rates = [row[4] for row in states[1]["counts"]]
        assert states[1]["readout"].endswith(f"FMR {rates[1]}, FNMR {rates[0]}.")
        if name == "all groups":
            assert all(state["paths"] == written["paths"] for state in states)
        else:
            assert states[0]["examples"] == [name] * len(states[0]["examples"])
            assert list(map(bool, states[0]["paths"])) == [same.any(), not same.all()] * 2
    counts = [len(states[0]["examples"]) for _, states in groups]
    assert groups[0][1][0]["sentence"] == written["sentence"] and counts[0] == sum(counts[1:-1]) == counts[-1]
    (only,) = [states[0] for name, states in groups if name == "<scan>"]  # one identity
    assert "; there are no impostor pairs." in only["sentence"] and only["counts"][1][1:] == ["0", "0", "0", "–"]
    assert only["paths"][1] == only["paths"][3] == "" != only["paths"][0]
    with pytest.raises(ValueError, match="validation row 55 is in a pair; got 3 groups"):
        diagnosis.to_html(tmp_path / "report.html", groups=device[:3])


def test_a_group_of_all_pairs_is_drawn_as_all_pairs_are(browser, rng, tmp_path):
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the report needs the extra `report`")
    same = np.arange(500) % 3 == 0
    report = ks.verification.evaluate(same, rng.normal(size=500) + 2 * same)
    report.to_html(tmp_path / "page.html", groups=np.zeros(500, int))
    page = browser.open((tmp_path / "page.html").as_uri(), 1280, GROUP, whole=False)
    assert page.result["about"] == "Each pair is in the group that was given for it."
    (name, (group, _)) = page.result["groups"][1]
    assert name == "0" and group["counts"] == page.result["written"]["counts"]
    for path, wanted in zip(group["paths"], page.result["written"]["paths"], strict=True):
        drawn, written = (np.array(one[1:].replace(",", " ").split(), float) for one in (path, wanted))
        np.testing.assert_allclose(drawn, written, atol=0.11)  # Python and JavaScript round halves differently


READ = """(() => {
  const shown = (one) => one.clientWidth && one.querySelector("input");
  return [...document.querySelectorAll(".curves")].filter(shown).map((one) => {
    const plot = one.querySelector(".plot"), frame = plot.getBoundingClientRect(), slider = plot.querySelector("input");
    const [{ box: [left, top, width, height], at, says }] = JSON.parse(plot.dataset.charts);
    const wanted = Math.floor(at.length / 3), seen = () => {
      const line = plot.querySelector(".at").getBoundingClientRect();
      return [one.querySelector(".reading").textContent, (line.left - frame.left) / frame.width];
    };
    const begin = one.querySelector(".reading").textContent;
    const [x, y] = [left + at[wanted] * width, top + height / 2];
    const place = { clientX: frame.left + x * frame.width, clientY: frame.top + y * frame.height };
    plot.dispatchEvent(new PointerEvent("pointermove", place));
    const pointed = [...seen(), says[wanted], x];
    slider.focus();
    slider.value = at.length - 1;
    slider.dispatchEvent(new Event("input"));
    const label = slider.getAttribute("aria-valuetext");
    return { begin, label, states: [pointed, [...seen(), says[at.length - 1], left + at[at.length - 1] * width]] };
  });
})()"""


@pytest.mark.parametrize("device", WIDTHS)
def test_a_reader_reads_the_curves(browser, tmp_path, device):
    """With the pointer and with the keyboard, at the place of the values and in their words."""
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the report needs the extra `report`")
    page = browser.open(made().to_html(tmp_path / "report.html").as_uri(), WIDTHS[device], READ, whole=False)
    assert page.errors == [] and len(page.result) == 4 + len(PANELS)  # the curves, scores, ROC, DET and health
    for found in page.result:
        assert found["begin"] == "Point at a curve to read it." and found["label"] == found["states"][1][0]
        for text, place, wanted, expected in found["states"]:
            assert text == wanted and place == pytest.approx(expected, abs=0.01)
    loss = page.result[0]["states"][1][0]
    assert loss == "epoch 20: training loss 0.05, held-out EER 0.4, held-out AUC 0.64"


def test_report_names_no_address_to_fetch(report):
    """What a browser would fetch only later, on a click or a scroll, counts as well."""
    text = html.unescape(report[0].read_text(encoding="utf-8"))
    for attribute in ("src", "href", "srcset", "action", "data"):
        for quote in "\"'":
            for part in text.split(f" {attribute}={quote}")[1:]:
                address = part.split(quote)[0]
                assert address.startswith(("data:", "#")), f"{attribute}={address[:80]}"
    assert "@import" not in text


GOOD = '<!DOCTYPE html><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><p>fine</p>'
BROKEN = {
    "scroll_width": '<div style="width: 500px">too wide for a telephone</div>',
    "errors": '<script>throw new Error("thrown")</script><script>console.error("logged")</script>',
    "requests": '<img src="http://localhost:9/beacon.png">',
    "images": '<img src="data:image/png;base64,AAAA">',
}


@pytest.mark.parametrize("fault", [None, *BROKEN])
def test_a_broken_page_is_seen_as_such(browser, tmp_path, fault):
    """The checks above reject a page with one fault, and only for that one."""
    path = tmp_path / "page.html"
    path.write_text(GOOD + BROKEN.get(fault, ""), encoding="utf-8")
    page = browser.open(path.as_uri(), WIDTHS["telephone"])
    assert page.client_width == WIDTHS["telephone"]
    assert (page.scroll_width > page.client_width) == (fault == "scroll_width")
    assert bool(page.requests) == (fault == "requests")
    assert bool([width for _, width in page.images if width == 0]) == (fault in ("images", "requests"))
    if fault != "requests":  # a refused connection is an error in the console, too
        expected = ["Error: thrown", "logged"] if fault == "errors" else []
        assert [line.split("\n")[0] for line in page.errors] == expected
