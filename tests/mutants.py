"""Mutation testing: change the package in one place at a time, and see whether the tests notice.

Draws a sample of mutants over the rooms of the package, in proportion to their lines of code, with a fixed seed, and
runs the tests that are nearest to each mutant first: those of its module, of its room, then all others. A mutant that
no test notices is printed: it is either equivalent to the original or a hole in the tests.

    python tests/mutants.py --room losses --sample 50       # the quick tests
    python tests/mutants.py --sample 220 --tier all --json mutants.json

    python tests/mutants.py --again mutants.json            # the same mutants, after a change of code or tests

It works on copies of the checkout, on the PyTorch backend, which can be forked after its import. Keras is imported
once; each mutant runs in a fork of that process. Before the first mutant, the unchanged package must pass.

`--again` finds a mutant by the name of its function and its code without the texts in it, also in another file. One
that is not found counts as gone.
"""

import argparse
import ast
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "keras_siamese"
TIERS = {"quick": "not deep and not browser", "all": "not browser"}
# Each lets the tests of a mutant that nothing notices end: it is about three times what they take.
LIMITS = {"quick": 900, "all": 3600}

ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
ARITHMETIC |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARISONS |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}


class Mutant(NamedTuple):
    """One change of one file: the text between two places is replaced.

    Attributes:
        room: the folder of the package.
        path: the file, relative to the root.
        line: where the changed code begins.
        kind: what is changed, such as "comparison".
        start, end: the changed bytes of the file.
        old, new: the code before and after.
        key: names the mutant without its place: function, kind, code without texts, and which of several such it is.
    """

    room: str
    path: str
    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str
    key: str

    def __str__(self):
        return f"{self.path}:{self.line} {self.kind}: {' '.join(self.old.split())[:60]} → {self.new[:60]}"


def mutants_of(path):
    """Every `Mutant` of the file at `path`, relative to the root."""
    source = (ROOT / path).read_text(encoding="utf-8")
    data = source.encode()
    starts = [0]
    for text in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    parts = Path(path).parts
    room = parts[1] if len(parts) > 2 else "top level"

    def span(node):
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    found, seen = [], collections.Counter()
    for owner, node in owned(without_texts(ast.parse(source))):
        for kind, new in changes(node):
            start, end = span(node)
            key = f"{owner} | {kind} | {without_strings(node)}"
            seen[key] += 1
            old, key = data[start:end].decode(), f"{key} | {seen[key]}"
            found.append(Mutant(room, str(path), node.lineno, kind, start, end, old, new, key))
    return found


def owned(tree, owner=""):
    """Every node below `tree` with the dotted name of the class or function that it is in."""
    for node in ast.iter_child_nodes(tree):
        yield owner, node
        is_owner = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        yield from owned(node, f"{owner}.{node.name}" if is_owner else owner)


def without_strings(node):
    """The code of `node` with every string empty, so that another wording of an error is the same code."""
    try:
        return ast.unparse(Blank().visit(ast.parse(ast.unparse(node))))
    except SyntaxError:  # a part that is no code by itself
        return ast.unparse(node)


class Blank(ast.NodeTransformer):
    def visit_JoinedStr(self, node):
        return ast.Constant("")

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node


def without_texts(tree):
    """The tree less docstrings, annotations, decorators and imports, which no test is meant to notice."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.decorator_list = []
            if isinstance(node, ast.FunctionDef):
                node.returns = None
                rest = filter(None, [node.args.vararg, node.args.kwarg])
                for argument in [*node.args.args, *node.args.kwonlyargs, *rest]:
                    argument.annotation = None
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            node.body = [one for one in node.body if not is_text(one)]
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return tree


def is_text(node):
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, (ast.Import, ast.ImportFrom)) or ast.unparse(node).startswith("__all__")


def changes(node):
    """`(kind, new text)` of each way in which `node` is changed."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not is_string(node):
        yield "arithmetic", swapped(node, op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison", swapped(node, ops=[COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        yield "and/or", swapped(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield "sign or not", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value + 1 != node.value:
        yield "constant", repr(node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return", "return None"
    elif isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Continue, ast.Delete)):
        yield "statement", "pass"
    elif isinstance(node, ast.IfExp):
        yield "branch", swapped(node, body=node.orelse, orelse=node.body)


def is_string(node):
    return any(isinstance(one, (ast.JoinedStr, ast.Constant)) and is_str(one) for one in ast.walk(node))


def is_str(node):
    return isinstance(node, ast.JoinedStr) or isinstance(node.value, str)


def swapped(node, **fields):
    """The text of a copy of `node` with other fields, in parentheses."""
    known = {name: getattr(node, name) for name in node._fields}
    return f"({ast.unparse(ast.fix_missing_locations(type(node)(**{**known, **fields})))})"


def sample_of(count, seed, room=None):
    """`count` mutants, as many from each room as its share of the lines; the same ones for the same seed and files."""
    rng = random.Random(seed)
    found = (path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py"))
    files = sorted(path for path in found if path.name != "_types.py")  # no code, only annotations
    rooms = {}
    for path in files:
        name = path.parts[1] if len(path.parts) > 2 else "top level"
        if room in (None, name):
            rooms.setdefault(name, []).append(path)
    lines = {name: sum(len((ROOT / path).read_text().splitlines()) for path in paths) for name, paths in rooms.items()}
    drawn = []
    for name, paths in rooms.items():
        every = [one for path in paths for one in mutants_of(path) if compiles(one)]
        drawn += rng.sample(every, min(len(every), round(count * lines[name] / sum(lines.values()))))
    return drawn


def found_again(results):
    """The mutants of earlier `results` in the files as they are now, and those results whose mutant is gone."""
    now = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        for mutant in mutants_of(path.relative_to(ROOT)):
            now.setdefault(mutant.key, []).append(mutant)
    sample, gone = [], []
    for one in results:
        places = now.get(one["key"], [])
        same_file = [mutant for mutant in places if mutant.path == one["path"]]
        if found := same_file or (places if len(places) == 1 else []):
            sample.append(found[0]._replace(room=one["room"]))
        else:
            gone.append(one)
    return sample, gone


def compiles(mutant):
    try:
        ast.parse(mutated((ROOT / mutant.path).read_bytes(), mutant))
    except SyntaxError:
        return False
    return True


def mutated(data, mutant):
    return data[: mutant.start] + mutant.new.encode() + data[mutant.end :]


def stages_of(path):
    """Paths of tests for a module, nearest first: its own file and doctests, those of its room, all."""
    inside = Path(path).relative_to(PACKAGE)
    own = Path("tests") / inside.parent / f"test_{inside.stem.strip('_')}.py"
    room = Path("tests") / inside.parts[0] if len(inside.parts) > 1 else None
    stages = [[str(own), str(path)] if (ROOT / own).exists() else [str(path)]]
    if room is not None and (ROOT / room).exists():
        stages.append([str(room)])
    return [*stages, ["tests", PACKAGE]]


def preload():
    """Imports what takes long and is not mutated, so that each fork has it."""
    import importlib

    os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for name in ("keras", "scipy.stats", "scipy.optimize", "scipy.ndimage", "sklearn.metrics", "sklearn.datasets"):
        importlib.import_module(name)
    for name in ("pytest", "hypothesis", "pandas", "matplotlib.figure", "keras_tuner", "pytorch_metric_learning"):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def judge(mutant, folder, tier, limit):
    """`(killer, seconds)`: the test that noticed the mutant, or how else the tests ended; None if all passed."""
    path = folder / mutant.path
    original = path.read_bytes()
    path.write_bytes(mutated(original, mutant))
    # A time of its own, by which Python knows that compiled code is of another text.
    os.utime(path, (1_000_000_000 + mutant.start, 1_000_000_000 + mutant.start))
    began = time.monotonic()
    witness = folder / "witness"
    witness.unlink(missing_ok=True)
    try:
        for stage in stages_of(mutant.path):
            status = run_tests(folder, stage, tier, limit - (time.monotonic() - began))
            if status != "passed":
                killer = witness.read_text() if witness.exists() else f"{status} in {' '.join(stage)}"
                return killer, time.monotonic() - began
        return None, time.monotonic() - began
    finally:
        path.write_bytes(original)


def run_tests(folder, paths, tier, limit):
    """ "passed", "failed", or "time" of the tests in `paths`, run in a fork."""
    child = os.fork()
    if child == 0:
        os.setsid()
        in_fork(folder, paths, tier)
    end = time.monotonic() + max(limit, 1)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) in (0, 5) else "failed"  # 5: no tests
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "time"


def in_fork(folder, paths, tier):
    import pytest

    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)  # for tests that start a process
    sys.path.insert(0, str(folder))
    out = os.open(folder / "last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    status = 1
    try:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", TIERS[tier], "-o", "addopts="]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        status = pytest.main([*options, "--doctest-modules", *paths], plugins=[Witness(folder)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(status))


class Witness:
    """A pytest plugin that writes down which test failed."""

    def __init__(self, folder):
        self.path = folder / "witness"

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid)


def worker(number, jobs, sample, folder, tier, limit, out):
    """Judges every `jobs`-th mutant of the sample and writes a JSON line for each to `out`."""
    preload()
    for room in sorted({one.room for one in sample[number::jobs]}):
        stage = next(stages_of(one.path)[-2] for one in sample if one.room == room)
        if run_tests(folder, stage, tier, limit) != "passed":
            sys.exit(f"The tests of {room!r} fail on the unchanged package; see {folder / 'last.log'}")
    with open(out, "a", encoding="utf-8") as file:
        for mutant in sample[number::jobs]:
            killer, seconds = judge(mutant, folder, tier, limit)
            file.write(json.dumps({**mutant._asdict(), "killer": killer, "seconds": round(seconds, 1)}) + "\n")
            file.flush()
            print(f"{'survived' if killer is None else 'killed'} {seconds:6.1f} s  {mutant}", flush=True)


def table_of(results):
    rooms = sorted({one["room"] for one in results})
    rows = [(room, [one for one in results if one["room"] == room]) for room in rooms] + [("all", results)]
    lines = [f"{'room':<14}{'mutants':>8}{'killed':>8}{'share':>8}"]
    for room, ones in rows:
        killed = sum(one["killer"] is not None for one in ones)
        lines.append(f"{room:<14}{len(ones):>8}{killed:>8}{killed / max(len(ones), 1):>8.3f}")
    return "\n".join(lines)


def copy_of_checkout():
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sample", type=int, default=220, help="how many mutants (default: %(default)s)")
    parser.add_argument("--room", help="a folder of the package, or 'top level'; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tier", choices=TIERS, default="quick", help="which tests may notice (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: %(default)s)")
    parser.add_argument("--again", metavar="FILE", help="take the mutants of a file that --json wrote")
    parser.add_argument("--survivors", action="store_true", help="with --again: only those that survived")
    parser.add_argument("--json", metavar="FILE", help="write a JSON line for each mutant")
    options = parser.parse_args(arguments)
    if options.again:
        results = [json.loads(line) for line in Path(options.again).read_text(encoding="utf-8").splitlines()]
        results = [one for one in results if options.room in (None, one["room"])]
        sample, gone = found_again([one for one in results if not (options.survivors and one["killer"])])
        print(f"{len(sample)} mutants found again, {len(gone)} gone")
    else:
        sample = sample_of(options.sample, options.seed, options.room)
    out = Path(options.json or Path(tempfile.mkdtemp()) / "mutants.json").resolve()
    children = []
    for number in range(options.jobs):
        folder = copy_of_checkout()
        child = os.fork()
        if child == 0:
            worker(number, options.jobs, sample, folder, options.tier, LIMITS[options.tier], out)
            os.environ.get("KEEP") or shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    print(table_of([json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()
