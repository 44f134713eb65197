"""The readers of files give a value or their own errors: on inputs that once broke them, and on some new ones."""

import re
import time
from pathlib import Path

import pytest

from tests import fuzz

pytest.importorskip("PIL.Image")
BROKE = sorted((Path(__file__).parent / "fuzzed").glob("*/*"))
READERS = fuzz.readers()
SLOW = ("verifier", "model")


@pytest.mark.filterwarnings("ignore:The last line of")  # that a line is incomplete
@pytest.mark.parametrize("path", BROKE, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_that_broke_a_reader(path, tmp_path):
    reader = READERS[path.parent.name]
    copy = tmp_path / f"input{reader.suffix}"
    copy.write_bytes(path.read_bytes())
    assert fuzz.outcome_of(reader, copy) in ("value", "error")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.deep] * (name in SLOW)) for name in READERS])
def test_new_inputs(name):
    counts, findings = fuzz.fuzz(name, READERS[name], range(40), seed=1)
    assert not findings
    assert counts["value"] + counts["error"] == 40 and counts["error"] > 0


def test_what_a_reader_may_not_do_is_a_finding(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)

    def read(path):
        content = path.read_bytes()
        if content.startswith(b"valid") or len(content) < 10:
            return content
        if b"0" in content:
            raise ValueError("documented")
        if len(content) < 100:
            raise AttributeError("not documented")
        time.sleep(1)

    broken = fuzz.Reader(lambda folder: [b"valid 1234 file"], read)
    counts, findings = fuzz.fuzz("broken", broken, range(300), seed=0)
    assert {what.split()[0] for what in findings} == {"AttributeError", "TooSlow"}
    assert min(counts["value"], counts["error"], counts["finding"]) > 0


def test_an_input_depends_on_seed_reader_and_number():
    seeds = [b'{"epoch": 0, "loss": 0.5}', b"other"]
    first = fuzz.input_of("scores", seeds, 0, 3)
    assert first == fuzz.input_of("scores", seeds, 0, 3)
    others = [fuzz.input_of(*changes) for changes in (("run", seeds, 0, 3), ("scores", seeds, 1, 3))]
    assert len({first, *others}) > 1


def test_the_numbers_of_inputs_are_those_that_are_stated():
    page = (Path(__file__).parent.parent / "SECURITY.md").read_text(encoding="utf-8")
    stated = [int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+) \|$", page, re.MULTILINE)]
    assert sorted(stated) == sorted(fuzz.COUNTS.get(name, fuzz.MANY) for name in READERS)
