"""The README's Python blocks run as they stand, one after the other, and its commands exist."""

import re
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language):
    return [code for found, code in BLOCK.findall(README.read_text(encoding="utf-8")) if found == language]


@pytest.mark.slow
def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("keras_tuner", reason="the grid search needs the extra `tuner`")
    monkeypatch.chdir(tmp_path)
    code = blocks("python")
    assert len(code) == 4
    namespace = {}
    for block in code:
        exec(compile(block, str(README), "exec"), namespace)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "verifier.keras").exists()
    assert namespace["search"].best_params_["margin"] in namespace["grid"]["margin"]
    report = namespace["verifier"].evaluate(*namespace["test"])
    assert report.eer < 0.3
    assert "EER" in capsys.readouterr().out
    # The promise of the split: no identity on two sides.
    sides = [set(namespace[name][1]) for name in ("train", "valid", "test")]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert isinstance(namespace["siamese"], keras.Model)


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_it_stays_short_and_opens_with_the_problem_and_two_commands():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    assert "The loss falls; the verification accuracy does not." in lines[2]
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert commands == ['pip install ".[demo]" && keras-siamese demo', 'pip install -e ".[test]" && pytest']


def test_named_causes_are_those_that_are_examined():
    from keras_siamese.diagnosis.causes import names

    table = re.findall(r"^\| `(\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name in table if name in names()} == set(names())
