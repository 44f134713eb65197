"""Tests that the blocks of docs/migration.md run, and that its tables name what exists here and in other libraries."""

import importlib.util
import re
import sys
from pathlib import Path

import keras
import pytest

import keras_siamese as ks
from tests.docs.test_forms import meaning
from tests.support.pages import DOCS, blocks, can_run, run

MIGRATION = DOCS / "migration.md"


def calls_addons(block):
    return "ks.addons" in block


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
