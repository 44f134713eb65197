"""Tests that the Python blocks of README and the guides run in order, and that the names and links in them exist."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import keras
import pytest

import keras_siamese as ks
from tests.support.batches import deep_elsewhere

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MIGRATION = ROOT / "docs" / "migration.md"
LOSS_FALLS = ROOT / "docs" / "loss_falls.md"
TUNING = ROOT / "docs" / "tuning.md"
GUIDE = ROOT / "docs" / "guide.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language, path=README):
    return [code for found, code in BLOCK.findall(path.read_text(encoding="utf-8")) if found == language]


def python_in(text):
    return [code for found, code in BLOCK.findall(text) if found == "python"]


def run(code, path, namespace=None):
    """Runs the blocks of `code` in order, in one namespace, and returns the namespace."""
    namespace = {} if namespace is None else namespace
    for block in code:
        exec(compile(block, str(path), "exec"), namespace)
    return namespace


@pytest.mark.deep
def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("keras_tuner", reason="the grid search needs the extra `tuner`")
    monkeypatch.chdir(tmp_path)
    code = blocks("python")
    assert len(code) == 6
    namespace = run(code, README)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "verifier.keras").exists()
    assert namespace["search"].best_params_["margin"] in namespace["grid"]["margin"]
    report = namespace["verifier"].evaluate(*namespace["test"])
    assert report.eer < 0.3
    assert "EER" in capsys.readouterr().out
    # The split must not put an identity into two parts.
    sides = [set(namespace[name][1]) for name in ("train", "valid", "test")]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert isinstance(namespace["siamese"], keras.Model)
    assert {"positive_distance", "val_eer"} <= set(namespace["fresh"].history.history)


@pytest.mark.deep
def test_the_blocks_of_the_guide_to_the_causes_run(capsys):
    namespace = run(blocks("python", LOSS_FALLS), LOSS_FALLS)
    assert namespace["monitor"].diagnosis is not None and len(namespace["cleaner"][0]) > 100
    assert "EER" in capsys.readouterr().out


def calls_addons(block):
    return "ks.addons" in block


def can_run(block):
    """Whether what a block needs is there: a gradient tape needs the TensorFlow backend, an import its package."""
    if "GradientTape" in block and keras.backend.backend() != "tensorflow":
        return False
    packages = re.findall(r"^(?:import|from) (tensorflow|torch|keras_tuner)\b", block, re.MULTILINE)
    return all(importlib.util.find_spec(name) for name in packages)


@pytest.fixture
def monitors(monkeypatch):
    """The monitors of all fits, each once, in the order in which the fits ended."""
    ended, end = [], ks.callbacks.DivergenceMonitor.on_train_end

    def on_train_end(self, logs=None):
        end(self, logs)
        ended.append(self)

    monkeypatch.setattr(ks.callbacks.DivergenceMonitor, "on_train_end", on_train_end)
    return ended


def meaning(monitor):
    """Whether the output goes up or down with similarity, and the label that means same (None for identities)."""
    anatomy = monitor.attach()
    kind = {"score": "up", "distance": "down"}[anatomy.output_kind]
    return kind, None if anatomy.direction is None else int(anatomy.direction.similar_label)


# What the guide says of the programs in its section "Your form", by heading.
FORMS = {
    "Two inputs and a learned head": [("up", 1)],
    "Distances and contrastive losses": [("down", 1), ("down", 0)],
    "keras.io's contrastive example": [("down", 0)],
    "Sequences with masks, several inputs per side": [("up", 1), ("down", 1)],
    "Two classes, cosine, several outputs": [("up", 1), ("up", 1), ("down", 1)],
    "Triplets": [("down", 1)] * 5,
    "A subclass": [("up", 1), ("down", 1)],
    "Pairs in one input, cross-encoders": [("down", 1), ("up", 1)],
    "One encoder: a batch loss, a proxy loss, a classifier": [("down", None)] * 3,
    "Data that are not arrays, and mixed precision": [("up", 1)] * 4 + [("down", 1), ("up", 1)],
}


@deep_elsewhere
def test_the_blocks_of_the_guide_to_attach_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = run(blocks("python", GUIDE)[:11], GUIDE)
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 4
    found, less = namespace["found"], namespace["less"]
    assert found.facts["train_eer"] == less.facts["train_eer"] and "threshold" in found.facts
    printed = capsys.readouterr().out
    assert "the same on each side" in printed and "learned after the comparison" in printed
    assert "The output grows with similarity; label 1 means same." in printed


def forms_text():
    return GUIDE.read_text(encoding="utf-8").split("## Your form\n")[1]


def test_each_form_in_the_guide_is_checked():
    assert re.findall(r"^### (.*)", forms_text(), re.MULTILINE) == list(FORMS)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras's, of batches
@pytest.mark.parametrize("heading", FORMS)
def test_a_form_in_the_guide_attaches(heading, monitors):
    samples, dissected, *_ = blocks("python", GUIDE)
    helpers, *others = re.split(r"^### ", forms_text(), flags=re.MULTILINE)
    (part,) = (part for part in others if part.startswith(f"{heading}\n"))
    (helper,), forms = python_in(helpers), python_in(part)
    namespace = run([samples, dissected, helper], GUIDE)
    assert len(forms) == len(FORMS[heading])
    for block, wanted in zip(forms, FORMS[heading], strict=True):
        assert block.count("# added") == 1
        if can_run(block):
            run([block], GUIDE, namespace)
            assert meaning(monitors[-1]) == wanted, block
            assert monitors[-1].diagnosis is not None
    assert len(monitors) == sum(map(can_run, forms))


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")  # Keras's, under KerasTuner
def test_tuning_blocks_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("keras_tuner", reason="needs the extra `tuner`")
    pytest.importorskip("pandas", reason="results as a DataFrame need pandas")
    monkeypatch.chdir(tmp_path)
    code = blocks("python", TUNING)
    assert len(code) == 6
    namespace = run(code, TUNING)
    assert namespace["search"].best_params_["margin"] in namespace["grid"]["margin"]
    assert len(namespace["oracle"].reasons) == 5
    assert len(namespace["results"].trials) == 3
    assert namespace["model"].optimizer.iterations > 0
    assert "data:image/svg+xml" in (tmp_path / "search.html").read_text()
    assert len(list((tmp_path / "logs").glob("trial_*/*tfevents*"))) == 3
    assert "rank  trial  val_eer" in capsys.readouterr().out


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")  # Keras's, under KerasTuner
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras's, of batches
def test_migration_blocks_run(tmp_path, monkeypatch, monitors):
    monkeypatch.chdir(tmp_path)
    code = blocks("python", MIGRATION)
    assert len(code) == 14
    own = [block for block in code if not calls_addons(block) and can_run(block)]
    namespace = run(own, MIGRATION)
    assert set(namespace["less"].facts.numbers) < set(namespace["found"].facts.numbers)
    # keras.io's example says 1 for different, all others say 1 for same; all put out distances.
    meanings = [meaning(monitor) for monitor in monitors]
    assert meanings[0] == ("down", 0) and set(meanings[1:]) == {("down", 1)} and len(meanings) > 4
    assert namespace["siamese"].optimizer.iterations > 0
    assert namespace["siamese"].loss.__class__.__module__.startswith("keras_siamese.losses")


@pytest.mark.deep
@pytest.mark.tensorflow
def test_the_migration_block_with_tensorflow_addons_runs():
    found = all(importlib.util.find_spec(module) for module in ("tf_keras", "tensorflow_addons"))
    if sys.version_info >= (3, 12) or not found:
        pytest.skip("needs the extra `addons` and Python < 3.12")
    first, *others = blocks("python", MIGRATION)
    (block,) = filter(calls_addons, others)
    assert run([first, block], MIGRATION)["encoder"].optimizer.iterations > 0


def tables(path):
    """Returns the rows of each table as lists of cells, in a dict whose keys are the first cells of the headers."""
    found, head = {}, None
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else None
        if cells is None:
            head = None
        elif head is None:
            head = found.setdefault(cells[0], [])
        elif not set(line) <= set("|- "):
            head.append(cells)
    return found


CODE = re.compile(r"`([^`]+)`")
CLASS = re.compile(r"[A-Z]\w*")


def public(name):
    rooms = (ks, ks.losses, ks.layers, ks.data, ks.callbacks, keras.layers)
    return next((getattr(room, name) for room in rooms if hasattr(room, name)), None)


def test_what_the_migration_guide_offers_exists_and_takes_these_options():
    rows = [row for table in tables(MIGRATION).values() for row in table]
    assert len(rows) > 60
    assert all(len(row) == 3 for row in rows)
    names, built, examples = set(), [], {"C": 5, "encoder": keras.Sequential([keras.layers.Dense(2)])}
    for span in [span for _, here, _ in rows for span in CODE.findall(here)]:
        if match := CLASS.match(span):
            names.add(match[0])
            if "=" in span and "…" not in span:
                built.append(eval(span, {**{name: public(name) for name in CLASS.findall(span)}, **examples}))
    assert len(built) > 8
    assert all(isinstance(item, (keras.losses.Loss, keras.layers.Layer)) for item in built)
    assert len(names) > 40
    assert sorted(name for name in names if public(name) is None) == []


@pytest.mark.parametrize(
    ("module", "losses"),
    [("pytorch_metric_learning", "pytorch_metric_learning.losses"), ("tensorflow_addons", "tfa.losses")],
)
def test_what_the_migration_guide_says_of_others_is_in_them(module, losses):
    """Checks that the guide has a row for each loss of the other library."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    source = Path(importlib.util.find_spec(module).origin).parent / "losses" / "__init__.py"
    exported = set(re.findall(r"\b[A-Z]\w+(?:Loss|Losses|Entropy|Memory)\b", source.read_text(encoding="utf-8")))
    rows = tables(MIGRATION)[f"`{losses}`"]
    named = {match[0] for row in rows for span in CODE.findall(row[0]) if (match := CLASS.match(span))}
    named -= {name for name in named if name.endswith("Miner")}
    abstract = {"BaseMetricLossFunction", "GenericPairLoss", "BaseLossWrapper"}
    assert named == exported - abstract


def test_links_lead_to_files():
    for path in (README, MIGRATION, LOSS_FALLS, TUNING, GUIDE):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert target.startswith("http") or (path.parent / target).exists(), target


def test_it_stays_short_and_opens_with_the_problem_and_two_commands():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 220
    first = " ".join(text.split("\n\n")[1].split())
    assert "the loss falls but the verification accuracy does not improve" in first
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert commands == ['pip install ".[demo]" && keras-siamese demo', 'pip install -e ".[test]" && pytest']


def test_named_causes_are_those_that_are_examined():
    from keras_siamese.diagnosis.causes import names

    readme = README.read_text(encoding="utf-8")
    assert [name for name in names() if f"`{name}`" not in readme] == []
    guide = LOSS_FALLS.read_text(encoding="utf-8")
    assert [name for name in names() if f"causes/{name}.png" not in guide] == []
    table = re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)
    assert sorted(table) == sorted(names())
