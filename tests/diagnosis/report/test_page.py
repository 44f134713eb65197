"""The report: strict JSON that its schema describes, and one HTML page that fetches nothing and escapes every name."""

import base64
import copy
import hashlib
import html
import importlib.resources
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from keras_siamese.diagnosis.causes import NotExamined, Signal
from keras_siamese.diagnosis.diagnosis import SCHEMA
from keras_siamese.diagnosis.report import page as report
from keras_siamese.diagnosis.report.panels import HEALTH
from keras_siamese.diagnosis.suspects import Suspect
from keras_siamese.verification.pages import Curves
from tests.support.diagnoses import EPOCHS, HOSTILE, history, made

MISSING = {
    "no history": {"curves": {}},
    "no health": {"curves": history(health=())},
    "one epoch": {"curves": history(epochs=1)},
    "lazily read": {"kind": "lazy"},
    "a dict with images": {"kind": "dict"},
    "no images": {"kind": "numbers"},
    "a dict without": {"kind": "words"},
    "no identities": {"labelled": False},
    "one dimension": {"dim": 1},
    "two identities": {"identities": 2, "kind": "numbers", "curves": {}},
    "no errors": {"noise": 1e-3},
    "all alike": {"noise": 0, "dim": 1, "curves": {}},
    "a threshold": {"threshold": -1.0, "target_eer": 0.05},
    "not finite": {"not_finite_since": 12},
}


@pytest.fixture(scope="module")
def diagnosis():
    return made(curves=history() | {"auc": [*history()["auc"][:-1], float("nan")]})


@pytest.fixture(scope="module")
def page(diagnosis, tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    return diagnosis.to_html(tmp_path_factory.mktemp("report") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    text = importlib.resources.files("keras_siamese.diagnosis.report").joinpath("report.schema.json").read_text("utf-8")
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def written(diagnosis, tmp_path):
    """The facts that `to_json` writes, read strictly."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    path = diagnosis.to_json(tmp_path / "deep" / "report.json")
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# --- JSON


def test_json_is_strict_and_carries_its_schema(diagnosis, tmp_path):
    facts = written(diagnosis, tmp_path)
    assert facts["schema"] == SCHEMA and facts["diverging"] and facts["history"]["auc"][-1] is None
    assert facts["flags"][0]["epoch"] == diagnosis.flags[0].epoch
    assert facts["verdict"] == diagnosis.verdict and facts["settings"][HOSTILE[0]] == HOSTILE[1]
    assert set(HEALTH) < set(facts["history"]) and len(facts["history"]["spread"]) == EPOCHS
    assert facts["errors"]["false_accepts"][0]["left"]["identity"] in diagnosis.observed.valid.trials.names


@pytest.mark.parametrize("case", [None, *MISSING])
def test_the_schema_describes_what_is_written(validator, tmp_path, case):
    made_up = made() if case is None else made(**MISSING[case])
    assert [error.message for error in validator.iter_errors(written(made_up, tmp_path))] == []


def test_errors_are_described_and_shown(validator, tmp_path):
    error = "ZeroDivisionError: <x> (loss.py, line 3)"
    answers = NotExamined("margin", "a loss", error), NotExamined("leakage", "training samples")
    broken = replace(made(), not_examined=answers)
    broken.facts.errors["of_loss"] = error
    facts = written(broken, tmp_path)
    assert [error.message for error in validator.iter_errors(facts)] == []
    assert facts["facts"]["errors"] == {"of_loss": error} and facts["not_examined"][0]["error"] == error
    assert "error" not in facts["not_examined"][1] and broken.needed == {"training samples": ["leakage"]}
    page = broken.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not examined: margin (error: ZeroDivisionError: &lt;x&gt; (loss.py, line 3))" in page
    assert "Not examined: leakage (needs training samples)" in page


def change(path, value):
    def changed(facts):
        *parents, last = path
        place = facts
        for key in parents:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return changed


SUSPECT = {"cause": "margin", "factor": 1.5, "limit": "SMALL_MARGIN", "reason": "", "evidence": {}}
BROKEN = {
    "another schema": change(["schema"], "keras_siamese.diagnosis/1"),
    "no verdict": change(["verdict"], None),
    "an unknown key": change(["mood"], "good"),
    "a curve of text": change(["history", "loss"], ["0.5"]),
    "no standard errors": change(["history", "eer_se"], None),
    "a rate above 1": change(["verification", "eer"], 1.5),
    "an unknown severity": change(["findings", 0, "severity"], "fatal"),
    "a signal without its threshold": change(["findings", 0, "evidence", "auc", "threshold"], None),
    "a suspect that is too far away": change(["suspects"], [{**SUSPECT, "factor": 5.0}]),
    "an epoch before the first": change(["flags", 0, "epoch"], -1),
    "half an interval": change(["verification", "auc_interval"], [0.5]),
    "a sample that is none": change(["errors", "false_accepts", 0, "left", "item"], "first"),
    "a count of text": change(["errors", "identities", 0, "samples"], "4"),
    "a version of numbers": change(["versions", "numpy"], 2.0),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_schema_refuses_what_is_broken(validator, diagnosis, fault):
    facts = copy.deepcopy(diagnosis.to_dict()) | {"suspects": [SUSPECT]}
    assert validator.is_valid(facts)
    BROKEN[fault](facts)
    assert not validator.is_valid(facts)


# --- HTML


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_html_is_one_escaped_page(page):
    parsed = Tags(page)
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    assert json.loads(data)["genuines"] > 0  # what is shown, and
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # the one script that may run
    assert f"script-src 'sha256-{digest}'\"" in page
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    addresses = [
        attributes[name] for _, attributes in parsed.tags for name in ("src", "srcset", "href") if name in attributes
    ]
    assert len(addresses) > 30 and all(address.startswith("data:") for address in addresses)
    assert {attributes.get("http-equiv"): attributes for tag, attributes in parsed.tags if tag == "meta"}[
        "Content-Security-Policy"
    ]["content"].startswith("default-src 'none';")
    readers = [attributes for tag, attributes in parsed.tags if tag == "input" and "style" in attributes]
    assert len(readers) == 5 + len(HEALTH) and all("hidden" in one for one in readers)  # without scripts, none is shown
    for name in HOSTILE[:5]:
        assert name in parsed.text
    shown, *titles = "longlong" * 5, *(attributes.get("title") for _, attributes in parsed.tags)
    assert HOSTILE[5] not in parsed.text and HOSTILE[5] in titles and f"{shown[:20]}…{shown[:20]}" in parsed.text
    assert "not text \\udcff" in parsed.text


def test_the_verdict_comes_first_and_all_is_there(page, diagnosis):
    sections = re.findall(r"<h2>(.*?)</h2>", page)
    assert sections == [
        "Loss and verification",
        "Findings",
        "Held-out verification",
        "Health",
        "Worst false accepts",
        "Worst false rejects",
        "Errors by identity",
        "Settings and versions",
    ]
    assert page.index(html.escape(diagnosis.verdict)) < page.index("<h2>")
    captions = re.findall(r"<figcaption>(?:<bdi[^>]*>)?([^<]+)", page)
    assert captions[:4] == ["Scores", "ROC", "DET", "Embeddings"] and len(captions[4:]) == len(HEALTH)
    assert page.count("<b>score") == 12 and page.count('class="outcome"') == 24
    assert page.count('alt="left"') == 36 and page.count('src="data:image/png') == 72
    worst = diagnosis.to_dict()["errors"]["false_accepts"][0]
    assert f"<b>score {worst['score']:.3g}</b>" in page and f"row {worst['left']['row']}<" in page


def test_what_is_also_possible_is_on_the_page_with_its_evidence(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    monkeypatch.setattr(report, "curves", lambda draw, size=None: Curves("data:image/svg+xml;base64,", []))
    diagnosis = made()
    near = Suspect("margin", 1.5, "SMALL_MARGIN", "it would be <found>", {"margin_over": Signal(0.123, 0.1, 1.0)})
    vars(diagnosis)["suspects"] = (near,)
    page = report.render(diagnosis)
    assert "Also possible: margin; it would be &lt;found&gt;" in page and "0.123" in page
    vars(diagnosis)["suspects"] = ()
    assert "Also possible" not in report.render(diagnosis)


@pytest.mark.deep
def test_the_same_diagnosis_gives_the_same_page(diagnosis, page, tmp_path):
    assert diagnosis.to_html(tmp_path / "again.html").read_text(encoding="utf-8") == page


LEFT_OUT = {
    "no history": ["Loss and verification", "Health"],
    "no health": ["Health"],
    "no identities": ["Errors by identity"],
    "two identities": ["Loss and verification", "Health"],
    "all alike": ["Loss and verification", "Health"],
}


RENDERED = ("one epoch", "all alike")  # for the other cases the figures are composed but not rendered: that is slow
QUICK = ("no history", "lazily read", "no images", "one dimension", "no identities")


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.deep) for case in MISSING]
)
def test_what_is_missing_is_left_out(case, tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    pytest.importorskip("jinja2")
    if case not in RENDERED:
        composed = Curves("data:image/svg+xml;base64,", [])
        monkeypatch.setattr(report, "curves", lambda draw, size=None: (draw(figures.Figure()), composed)[1])
    diagnosis = made(**MISSING[case])
    text = diagnosis.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r"<h2>(.*?)</h2>", text)
    expected = ["Loss and verification", "Health", "Errors by identity"]
    assert [name for name in expected if name not in sections] == LEFT_OUT.get(case, [])
    has_images = MISSING[case].get("kind", "images") in ("images", "lazy", "dict")
    assert ("data:image/png" in text) == has_images
    assert ("Embeddings" in text) == (MISSING[case].get("dim", 6) > 1)
    errors = diagnosis.to_dict()["errors"]
    lacking = [kind for kind in ("false_accepts", "false_rejects") if not errors[kind]]
    assert text.count("There are none at the EER") == len(lacking) and (
        case not in ("no errors", "all alike") or len(lacking) == 2
    )
    assert text.count("<script") == 2


def test_refuses_a_folder(diagnosis, tmp_path):
    for write in (diagnosis.to_html, diagnosis.to_json):
        with pytest.raises(ValueError, match="folder"):
            write(tmp_path)
