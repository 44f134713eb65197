"""The rooms: imports run one way, modules stay short and named for what they hold, importing brings little."""

import ast
import graphlib
import importlib.util
from pathlib import Path

import pytest

from tests.support.fresh_python import fresh

PACKAGE = "keras_siamese"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

# A room may import the rooms before its own line; those of one line do not import each other.
ORDER = [
    {"_types", "_version"},
    {"_checks", "_differences", "_export", "_files", "_frames", "_reading", "_replicas", "_seeds", "_tables"},
    {"ops"},
    {"distances"},
    {"_rowwise", "neighbours"},
    {"losses", "layers", "data", "verification"},
    {"metrics"},
    {"attach"},
    {"scoring"},
    {"card", "frozen", "identification", "pretrained", "serving", "verifier_calibration", "verifier_files"},
    {"stored"},
    {"verifier"},
    {"diagnosis"},
    {"callbacks"},
    {"tuning"},
    {"app", "demo"},
    {"cli"},
]
LINE = {room: line for line, rooms in enumerate(ORDER) for room in rooms}
# Out of the order: sees these, is seen by none.
BESIDE = {"addons": {"_checks", "_export", "_types", "ops", "losses", "distances"}}
MAY_PRINT = {"cli", "demo"}
ROOT_IS_SEEN_BY = {"cli", "demo"}  # they use the package as its users do


def modules(root):
    """Dotted names of the package's modules and their files."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def imports(tree, module, is_package):
    """Dotted names that a module's tree imports, at its top or inside functions, relative ones resolved.

    Of ``from keras_siamese import data`` it gives ``keras_siamese.data``: the caller knows whether that is a module.
    """
    parents = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def faults(root):
    """What is wrong with the imports of the package at `root`: a list of sentences."""
    known, wrong = modules(root), []
    rooms = {name.split(".")[1] for name in known if "." in name}
    for room in sorted(rooms - set(LINE) - set(BESIDE)):
        wrong.append(f"{room} has no place in the order")
    for module, path in known.items():
        if module == root.name:
            continue  # the public list sees all
        room = module.split(".")[1]
        for name in imports(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py"):
            parts = name.split(".")
            if parts[0] != root.name:
                continue
            seen = parts[1] if len(parts) > 1 and parts[1] in rooms else None
            if seen is None and room not in ROOT_IS_SEEN_BY:
                wrong.append(f"{module} imports the package itself ({name})")
            elif seen not in (None, room) and not may_import(room, seen):
                wrong.append(f"{module} imports {seen}")
    return wrong


def circle(root):
    """The modules of a circle of imports, at the top of modules or inside functions; [] if there is none."""
    known, seen = modules(root), {}
    for module, path in known.items():
        names = imports(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py")
        seen[module] = {nearest(name, known) for name in names} - {module, None}
    try:
        graphlib.TopologicalSorter(seen).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def nearest(name, known):
    """The module that an imported dotted `name` is or is in, or None for another package's."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in known), None)


def may_import(room, seen):
    if room in BESIDE:
        return seen in BESIDE[room]
    return seen in LINE and room in LINE and LINE[seen] < LINE[room]


def test_imports_run_one_way():
    assert faults(ROOT) == []


def test_no_modules_import_each_other():
    assert circle(ROOT) == []


def test_a_circle_is_found_even_if_one_import_is_inside_a_function(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    from . import b")
    (tmp_path / "b.py").write_text(f"import {tmp_path.name}.c")
    (tmp_path / "c.py").write_text(f"from {tmp_path.name}.a import f")
    (tmp_path / "__init__.py").write_text("")
    assert {name.split(".")[1] for name in circle(tmp_path)} == {"a", "b", "c"}


def whole_writers(source):
    """The calls in a module's `source` that write a whole file under its own name, by the names of the functions."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        owner = getattr(getattr(node.func, "value", None), "id", None)
        modes = [
            one.value
            for one in [*node.args[1:2], *(key.value for key in node.keywords if key.arg == "mode")]
            if isinstance(one, ast.Constant)
        ]
        if name == "open" and any(mode in ("w", "wb", "wt", "w+", "w+b") for mode in modes):
            yield name
        if name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute):
            yield name
        if (owner, name) in (("json", "dump"), ("np", "save"), ("np", "savez"), ("pickle", "dump")):
            yield name


def test_files_are_written_whole_by_one_module():
    found = {path.name: list(whole_writers(path.read_text(encoding="utf-8"))) for path in modules(ROOT).values()}
    assert [name for name, calls in found.items() if calls] == ["_files.py"]


@pytest.mark.parametrize(
    "call",
    ["path.write_text('a')", "open(path, 'w')", "open(path, mode='wb')", "json.dump(a, file)", "np.save(path, a)"],
)
def test_writers_are_found(call):
    assert list(whole_writers(call)) and not list(
        whole_writers("open(path, 'ab'); write_text(path, 'a'); json.dumps(a)")
    )


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("layers/siamese.py", "from keras_siamese.losses import ContrastiveLoss", "layers.siamese imports losses"),
        ("data/pairs.py", "from keras_siamese import verification", "data.pairs imports verification"),
        ("ops.py", "import keras_siamese.distances as d", "ops imports distances"),
        ("_checks.py", "from keras_siamese import _export", "_checks imports _export"),
        ("losses/pairs.py", "from ..layers import siamese", "losses.pairs imports layers"),
        ("losses/__init__.py", "from ..metrics import x", "losses imports metrics"),
        ("losses/pairs.py", "from .. import callbacks", "losses.pairs imports callbacks"),
        ("verifier.py", "def f():\n    from keras_siamese import diagnosis", "verifier imports diagnosis"),
        ("verifier.py", "class A:\n    def f(self):\n        import keras_siamese.cli", "verifier imports cli"),
        ("metrics.py", "import importlib\nimportlib.import_module('keras_siamese.tuning')", "metrics imports tuning"),
        ("losses/pairs.py", "from keras_siamese import addons", "losses.pairs imports addons"),
        ("addons.py", "from keras_siamese import layers", "addons imports layers"),
        ("scoring.py", "import keras_siamese as ks", "scoring imports the package itself (keras_siamese)"),
        (
            "metrics.py",
            "from keras_siamese import diagnose",
            "metrics imports the package itself (keras_siamese.diagnose)",
        ),
        ("misc.py", "", "misc has no place in the order"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, source, fault):
    root = tmp_path / PACKAGE
    for room in [*LINE, *BESIDE]:
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").write_text("")
    target = root / path
    if path.count("/") == 0:
        (root / target.stem).exists() and (root / target.stem / "__init__.py").unlink()
    (root / "__init__.py").write_text("from keras_siamese import addons, cli\n")
    target.write_text(source)
    assert [sentence.removeprefix(f"{PACKAGE}.") for sentence in faults(root)] == [fault]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("layers/siamese.py", "from keras_siamese.layers.distance import DistanceLayer\nfrom . import distance"),
        ("losses/pairs.py", "from .base import SiameseLoss\nfrom .._checks import check_number\nimport keras, numpy"),
        ("cli.py", "import keras_siamese as ks\nfrom keras_siamese import demo"),
        ("addons.py", "from keras_siamese import losses\nfrom keras_siamese.distances import get"),
        ("callbacks.py", "from keras_siamese.diagnosis.trend import find_flags\nfrom keras_siamese.data import x"),
    ],
)
def test_a_right_import_passes(tmp_path, path, source):
    root = tmp_path / PACKAGE
    for room in ["layers", "losses"]:
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").write_text("")
    for room in ["cli", "addons", "callbacks", "_checks", "distances", "diagnosis", "data", "demo"]:
        (root / f"{room}.py").write_text("")
    (root / path).write_text(source)
    assert faults(root) == []


@pytest.mark.parametrize(("module", "path"), modules(ROOT).items())
def test_modules_are_short_and_named_for_what_they_hold(module, path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 500, f"{module} has {source.count(chr(10))} lines: split it"
    assert module.rsplit(".", 1)[-1] not in ("utils", "common", "helpers", "misc")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), f"{module} has no docstring"
    if module.split(".")[1:2] and module.split(".")[1] in MAY_PRINT:
        return
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    prints = [function.lineno for function in called if isinstance(function, ast.Name) and function.id == "print"]
    assert not prints, f"{module} prints in lines {prints}: use logging"


IMPORT = f"""
import json, sys
import keras
before = set(sys.modules)
import {PACKAGE}
brought = sorted({{name.split('.')[0] for name in set(sys.modules) - before}})
files = [module.__file__ for name, module in sys.modules.items() if name.split('.')[0] == '{PACKAGE}']
print(json.dumps([brought, 'tensorflow' in sys.modules, files]))
"""


def test_importing_brings_little():
    """On JAX, the lightest backend, or else on the one at hand. benchmarks/importing.py measures the time."""
    jax = importlib.util.find_spec("jax") is not None
    brought, tensorflow, files = fresh(IMPORT, **({"KERAS_BACKEND": "jax"} if jax else {}))
    heavy = {"sklearn", "scipy", "matplotlib", "jinja2", "keras_tuner", "pandas", "tensorflow", "torch", "jax"}
    assert heavy & set(brought) == set()
    assert PACKAGE in brought
    assert not (jax and tensorflow), "TensorFlow came without being the backend"
    for file in files:  # also what the backend itself has imported before, as JAX does with SciPy
        at_once = [
            node for node in ast.parse(Path(file).read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {name.split(".")[0] for node in at_once for name in imports(node, file, False)}
        assert heavy & names == set(), file
