"""Each example is a script, a notebook and a page of one source; the pages are of the present sources.

An example asserts what its text says, so it ends with status 0 only if that holds.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "examples"
EXPORTERS = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnx"}
# What an example needs beside the extras `report` and `images`, and its files in the folder KERAS_SIAMESE_DATA.
NEEDS = {"deploy_onnx": ["onnxruntime", EXPORTERS[keras.backend.backend()]], "grid_search": ["keras_tuner"]}
FILES = {"handwriting": ["omniglot_35.npz"], "keras_io_triplet": ["fashion_mnist_small.npz"]}


def load_build():
    spec = importlib.util.spec_from_file_location("examples_build", ROOT / "examples" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
PARTNERS = {"customers": "recordlinkage"}
if keras.backend.backend() == "jax":
    PARTNERS["deploy_onnx"] = "jax2onnx"
EACH = pytest.mark.parametrize("name", build.NAMES)


def source_of(name):
    return (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")


def page_of(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@EACH
def test_an_example_is_a_story_in_cells(name):
    cells = build.cells(source_of(name))
    (first, title), (last, end) = cells[0], cells[-1]
    assert first == last == "markdown" and title.startswith("# ") and "## For your own data" in end
    assert sum(kind == "python" for kind, _ in cells) >= 3
    for number, (kind, text) in enumerate(cells):
        assert text, f"cell {number} is empty"
        if kind == "python":
            compile(text, f"{name}, cell {number}", "exec")
    assert any(re.search(r"^assert ", text, re.MULTILINE) for kind, text in cells if kind == "python")


@EACH
def test_the_page_is_made_from_the_present_source(name):
    page = page_of(name)
    assert f"from the source {build.digest(source_of(name))} -->" in page, f"python examples/build.py {name}"
    for kind, text in build.cells(source_of(name)):
        assert text in page, kind


@EACH
def test_the_page_and_the_table_have_the_result_and_the_seconds_of_the_run(name):
    """The result is the last one that the run printed. The table is made from the pages."""
    page = page_of(name)
    result, seconds = build.results(page)
    assert build.RESULT.findall(page)[-1] == result and 0 < seconds < 360  # three minutes on two cores
    index = build.INDEX.read_text(encoding="utf-8")
    assert build.with_results(index) == index, "python examples/build.py"
    assert re.search(rf"^\| \[.+\]\(examples/{name}\.md\) \| .+ \| {re.escape(result)} \| {seconds} \|$", index, re.M)


def test_results_are_read_from_a_page_and_written_into_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "PAGES", tmp_path)
    head = "# Title\n\n*Result: EER 0.1. It took 12 s of processor time on JAX.*\n\n"
    (tmp_path / "one.md").write_text(head + "```\nResult: EER 0.1\n```\n", encoding="utf-8")
    table = "| example | what |\n| [One](examples/one.md) | this | old | 3 |\n| [Two](two.md) | that |\n"
    expected = table.replace("old | 3", "EER 0.1 | 12")
    assert build.with_results(table) == build.with_results(table.replace(" old | 3 |", "")) == expected


def test_each_page_and_picture_is_of_an_example():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == build.NAMES
    shown = {picture for name in build.NAMES for picture in re.findall(r"!\[[^\]]+\]\(pictures/(.+?)\)", page_of(name))}
    kept = list((PAGES / "pictures").iterdir())
    assert {path.name for path in kept} == shown
    sizes = [path.stat().st_size for path in kept]
    assert max(sizes) < 60_000 and sum(sizes) < 1_500_000


def test_cells_of_a_source():
    source = "# %% [markdown]\n# # Title\n#\n# - text\n\n# %%\na = 1\n\n# not a cell\nb = 2\n\n# %%\nc = 3\n"
    expected = [("markdown", "# Title\n\n- text"), ("python", "a = 1\n\n# not a cell\nb = 2"), ("python", "c = 3")]
    assert build.cells(source) == expected
    with pytest.raises(ValueError, match="begins with a line '# %%', but this one begins with 'import"):
        build.cells("import keras\n# %%\n")
    with pytest.raises(ValueError, match="begins with '# ', but not this one: 'text'"):
        build.cells("# %% [markdown]\n# # Title\ntext\n")


@pytest.mark.deep
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.partner(PARTNERS[name])] if name in PARTNERS else [])
        for name in build.NAMES
    ],
)
def test_an_example_runs_and_what_it_says_holds(name, tmp_path):
    for package in ("matplotlib", *NEEDS.get(name, ())):
        pytest.importorskip(package, reason=f"the example {name} needs {package}")
    folder = os.environ.get("KERAS_SIAMESE_DATA", "")
    if missing := [file for file in FILES.get(name, ()) if not (Path(folder) / file).is_file()]:
        pytest.skip(f"the example {name} needs {missing[0]} in the folder KERAS_SIAMESE_DATA")
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "MPLBACKEND": "agg"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "UserWarning" not in done.stderr, done.stderr[-4000:]
