"""Tests that README says what it should on one screen, that its blocks run, and that its names exist."""

import re

import keras
import pytest

from tests.support.pages import README, ROOT, blocks, run
from tests.test_packaging import EXTRAS


@pytest.mark.deep
def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("jinja2", reason="the report needs the extra `report`")
    monkeypatch.chdir(tmp_path)
    code = blocks("python", README)
    assert len(code) == 1
    namespace = run(code, README)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "verifier.keras").exists()
    report = namespace["verifier"].evaluate(*namespace["test"])
    assert report.eer < 0.3
    assert "EER" in capsys.readouterr().out
    # The split must not put an identity into two parts.
    sides = [set(namespace[name][1]) for name in ("train", "valid", "test")]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert isinstance(namespace["siamese"], keras.Model)


def test_it_stays_short_and_opens_with_the_problem_the_report_and_two_commands():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    paragraphs = text.split("\n\n")
    assert "the loss falls but the verification accuracy does not improve" in " ".join(paragraphs[1].split())
    picture = re.fullmatch(r"!\[.+\]\((docs/\S+\.png)\)", paragraphs[2])
    assert picture and (ROOT / picture[1]).stat().st_size > 10_000
    commands = [line for block in blocks("sh", README) for line in block.splitlines()]
    assert commands == ['pip install ".[demo]" && keras-siamese demo', 'pip install -e ".[test]" && pytest']


def test_it_lists_the_extras():
    text = README.read_text(encoding="utf-8")
    (sentence,) = re.findall(r"The extras are (.*?)\.\n", text, re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", sentence)) == EXTRAS


def test_the_quick_start_has_fifteen_lines_of_the_package():
    (code,) = blocks("python", README)
    assert len([line for line in code.splitlines() if re.search(r"\bks\.|keras_siamese", line)]) <= 15
