"""Public names have types: each argument and result is annotated, and mypy tells a right program from a wrong one."""

import functools
import importlib.util
import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType

import pytest

import keras_siamese
from keras_siamese import _types

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "support" / "typed"
DUNDERS = {"__init__", "__call__", "__len__", "__getitem__", "__add__", "__str__", "__repr__"}
MAY_BE_NONE = ("None", "Any", "Tensor", "Data")  # as words of an annotation; the last three are Any
ROOMS = [item for name in keras_siamese.__all__ if isinstance(item := getattr(keras_siamese, name), ModuleType)]


def public(module):
    return {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}


def functions(name, item):
    """The functions that a public `item` is or has, by name, with the names of the arguments that need no type."""
    if inspect.isfunction(item):
        yield name, item, 0
    if not inspect.isclass(item):
        return
    for cls in (one for one in item.__mro__ if one.__module__.startswith(("keras_siamese", __name__))):
        for key, member in vars(cls).items():
            if key.startswith("_") and key not in DUNDERS:
                continue
            bound = 0 if isinstance(member, staticmethod) else 1
            if isinstance(member, property):
                parts = [part for part in (member.fget, member.fset) if inspect.isfunction(part)]
            elif isinstance(member, functools.cached_property):
                parts = [member.func]
            else:
                parts = [inspect.unwrap(getattr(member, "__func__", member))]
            for part in parts:
                # What dataclass makes has the fields' types, and what Keras puts into a class has its own.
                if inspect.isfunction(part) and part.__code__.co_filename.startswith((str(ROOT), __file__)):
                    yield f"{name}.{key}", part, bound


def faults(names):
    """What lacks a type in the public `names`, a list of sentences."""
    found = []
    for name, item in names.items():
        for where, function, bound in functions(name, item):
            signature = inspect.signature(function)
            if signature.return_annotation is signature.empty:
                found.append(f"{where} does not say what it returns")
            for one in list(signature.parameters.values())[bound:]:
                if one.annotation is one.empty:
                    found.append(f"{where} takes {one.name} of no type")
                elif one.default is None and not any(word in str(one.annotation) for word in MAY_BE_NONE):
                    found.append(f"{where} takes {one.name}={one.default}, which its type {one.annotation} excludes")
    return found


@pytest.mark.parametrize("module", [keras_siamese, *ROOMS], ids=lambda module: module.__name__)
def test_public_names_have_types(module):
    assert faults(public(module)) == []


def unknown(names):
    """The types of the public `names` that `typing.get_type_hints` cannot resolve, a list of sentences."""
    found = []
    for name, item in names.items():
        parts = [(where, function) for where, function, _ in functions(name, item)]
        for where, part in [*parts, (name, item)] if inspect.isclass(item) else parts:
            try:
                typing.get_type_hints(part)
            except Exception as error:
                found.append(f"{where}: {error}")
    return found


@pytest.mark.parametrize("module", [keras_siamese, *ROOMS], ids=lambda module: module.__name__)
def test_types_can_be_resolved_at_run_time(module):
    """As programs do that check or document arguments; so no type may have a name for type checkers alone."""
    assert unknown(public(module)) == []


def test_a_type_that_cannot_be_resolved_is_found():
    class Some:
        field: "Missing"  # noqa: F821

        def known(self, a: "Path | None") -> "list[int]":
            pass

        @property
        def value(self) -> "list[Gone]":  # noqa: F821
            pass

    where = [sentence.partition(":")[0] for sentence in unknown({"Some": Some, "known": Some.known})]
    assert where == ["Some.value", "Some"]


def test_what_has_no_type_is_found():
    class Some:
        def __init__(self, a, b: int = None) -> None:  # noqa: RUF013
            pass

        @property
        def c(self):
            pass

        @staticmethod
        def d(a) -> int:
            pass

        @classmethod
        def e(cls, a: "int | None" = None) -> None:
            pass

    def some(*rows, **options: str) -> None:
        pass

    where = [sentence.split(" ", 1) for sentence in faults({"Some": Some, "some": some})]
    assert where == [
        ["Some.__init__", "takes a of no type"],
        ["Some.__init__", "takes b=None, which its type <class 'int'> excludes"],
        ["Some.c", "does not say what it returns"],
        ["Some.d", "takes a of no type"],
        ["some", "takes rows of no type"],
    ]


def test_the_package_says_that_it_has_types():
    assert (ROOT / "keras_siamese" / "py.typed").is_file()


def test_the_names_of_types_are_in_the_reference():
    own = set(_types.__all__) - {"Self", "Unpack"}
    page = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    assert {name for name in own if not name.endswith("Options")} == {name for name in own if f"`{name}`" in page}


@pytest.mark.deep
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_tells_a_right_program_from_a_wrong_one(tmp_path):
    """In strict mode; each line of wrong.py that ends with `# error: CODE` must be refused, and no other line."""
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nstrict = true\nignore_missing_imports = true\nshow_column_numbers = false\n"
        "[mypy-keras_siamese.*]\nfollow_imports = silent\n"  # as if it were installed, not the program's own
        "[mypy-jax.*,jaxlib.*,torch.*]\nfollow_imports = skip\nfollow_imports_for_stubs = true\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "cache"]
    run = subprocess.run(
        [*command, PROGRAMS / "right.py", PROGRAMS / "wrong.py"],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line.rsplit(":", 3) for line in run.stdout.splitlines() if ": error: " in line]
    found = {(Path(file).name, int(line), text.rsplit("[", 1)[1].rstrip("]")) for file, line, _, text in lines}
    wanted = {
        ("wrong.py", number, line.rsplit("# error: ", 1)[1])
        for number, line in enumerate((PROGRAMS / "wrong.py").read_text(encoding="utf-8").splitlines(), 1)
        if "# error: " in line
    }
    assert len(wanted) > 10
    assert found == wanted, run.stdout + run.stderr
