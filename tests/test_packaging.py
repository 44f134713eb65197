"""What a package index and pip see: metadata, extras, bounds, the version in one place, and the wheel's files."""

import configparser
import importlib.metadata
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import keras_siamese

ROOT = Path(__file__).parent.parent
EXTRAS = {"tensorflow", "jax", "torch", "tuner", "report", "addons", "images", "demo", "test", "examples", "benchmarks"}
EXTRAS |= {"tensorboard", "faiss", "onnx", "onnx-jax", "distributed", "tables", "completion", "gallery", "app", "docs"}
EXTRAS |= {"mlflow", "wandb", "ray", "partners"}
LOWER_BOUND = re.compile(r"([\w-]+)(?:>=|==)([\w.]+)$")


@pytest.fixture(scope="module")
def metadata():
    try:
        return importlib.metadata.metadata("keras-siamese")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("keras-siamese is not installed; pip install -e .")


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(section, name):
    return [line for line in section[name].splitlines() if line and not line.startswith("#")]


def lower_bounds(setup):
    """Names and the lowest versions that setup.cfg admits, of the core and of the extras."""
    required = lines(setup["options"], "install_requires")
    for extra in setup["options.extras_require"]:
        required += lines(setup["options.extras_require"], extra)
    return dict(match.groups() for line in required if (match := LOWER_BOUND.match(line)))


def test_metadata(metadata):
    assert metadata["Name"].replace("_", "-") == "keras-siamese"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache-2.0" in (metadata["License-Expression"], metadata["License"])
    assert metadata.get_all("License-File") == ["LICENSE"]
    # An index refuses a licence classifier beside a licence expression.
    assert not [line for line in metadata.get_all("Classifier") if line.startswith("License ::")]
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_licence_file_is_the_licence():
    opening = [line.strip() for line in (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert opening[:2] == ["Apache License", "Version 2.0, January 2004"]


def test_extras(metadata):
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS


def test_the_core_brings_no_backend(metadata):
    core = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(re.match(r"[\w-]+", line)[0] for line in core) == ["keras", "numpy", "scikit-learn", "scipy"]
    # An upper bound would one day change what a project has.
    assert not [line for line in core if "<" in line or "==" in line]


def test_composed_extras_name_extras(setup):
    for extra in setup["options.extras_require"]:
        for line in lines(setup["options.extras_require"], extra):
            if match := re.match(r"keras-siamese\[(.*)\]$", line):
                assert set(match[1].split(",")) <= EXTRAS, f"{extra}: {line}"


def test_entry_point():
    found = importlib.metadata.entry_points(group="console_scripts", name="keras-siamese")
    if not found:
        pytest.skip("keras-siamese is not installed; pip install -e .")
    (main,) = {entry.value for entry in found}
    assert main == "keras_siamese.cli:main"
    assert callable(next(iter(found)).load())


def test_the_version_is_stated_once(metadata):
    version = keras_siamese.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert metadata["Version"] == version
    stating = [path for path in (ROOT / "keras_siamese").rglob("*.py") if version in path.read_text(encoding="utf-8")]
    assert [path.name for path in stating] == ["_version.py"]
    for name in ("setup.cfg", "pyproject.toml"):
        assert f"version = {version}" not in (ROOT / name).read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_floor_that_ci_installs_is_the_floor_that_setup_states(setup):
    """On Python 3.10 and 3.11; where a newer Python has no such old wheel, floor.txt names the oldest that it has."""
    floor = {}
    for line in (ROOT / ".ci" / "floor.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and "python_version >=" not in line:
            name, version = line.split(";")[0].strip().split("==")
            floor[name] = version
    bounds = lower_bounds(setup)
    for name in (
        "keras",
        "numpy",
        "scipy",
        "scikit-learn",
        "tensorflow",
        "keras-tuner",
        "matplotlib",
        "jinja2",
        "pillow",
    ):
        assert floor[name] == bounds[name], name


@pytest.mark.deep
def test_the_files_of_a_project_are_valid_and_name_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == keras_siamese.__version__ and citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "license"} <= set(citation)
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "config", "diagnosis", "wish"]
    for form in forms:
        found = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.stem != "config":
            assert {"name", "description", "body"} <= set(found)
            assert all(part["attributes"]["label"] for part in found["body"])
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    workflows = {name: yaml.load(text, yaml.BaseLoader) for name, text in texts.items()}  # "on" stays text
    assert set(workflows) == {"release", "links"}
    assert any("bash .ci/run" in step.get("run", "") for step in workflows["release"]["jobs"]["release"]["steps"])
    assert set(workflows["links"]["on"]) == {"schedule", "workflow_dispatch"}  # never for a change of somebody's
    *_, checker = workflows["links"]["jobs"]["links"]["steps"]
    checked = [one for one in shlex.split(checker["with"]["args"]) if one.endswith(".md")]
    assert "README.md" in checked and "docs/**/*.md" in checked
    assert all(list(ROOT.glob(one)) for one in checked)


def test_wheel_and_sdist_hold_what_they_should(tmp_path):
    pytest.importorskip("build", reason="building needs the extra `test`")
    pytest.importorskip("setuptools", reason="building without isolation needs setuptools")
    # setuptools leaves its folders beside what it builds, so it builds a copy.
    for path in [*ROOT.glob("*.*"), ROOT / "LICENSE"]:
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for folder in ("keras_siamese", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "keras_siamese").rglob("*") if path.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    diagnosis = {f"keras_siamese/diagnosis/report/report.{kind}" for kind in ("html.jinja", "schema.json")}
    assert {"keras_siamese/py.typed", *diagnosis} < ours
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert any(name.endswith("LICENSE") for name in names)
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert ours < sources
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "tests/conftest.py"} < sources
