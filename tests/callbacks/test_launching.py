"""`keras-siamese watch`: a program computes and prints what it does without it, and its fits are diagnosed."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_siamese.callbacks import launching, watching
from tests.support.pairs_program import PROGRAM

ROOT = Path(__file__).resolve().parents[2]
CLI = "import sys; from keras_siamese.cli import main; sys.exit(main())"


def python(*arguments, cwd):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.deep
def test_a_program_computes_the_same_with_and_without(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "train.py").write_text(PROGRAM)
    alone = python("train.py", "--epochs", "3", cwd=tmp_path)
    seen = python("-c", CLI, "watch", "--report", "r.html", "train.py", "--epochs", "3", cwd=tmp_path)
    assert alone.returncode == seen.returncode == 3, seen.stderr
    assert seen.stdout == alone.stdout and "val_eer" not in seen.stdout
    lines = [line for line in seen.stderr.splitlines() if line.startswith(watching.PREFIX)]
    assert "held-out EER" in lines[0]
    where = [Path(line.split("the report is ")[1]).name for line in lines if "the report is " in line]
    assert where == ["r.html", "r-2.html"]
    assert {path.name for path in tmp_path.glob("r*")} == {"r.html", "r.json", "r-2.html", "r-2.json"}


@pytest.mark.deep
def test_an_error_of_the_program_is_its_own(tmp_path):
    (tmp_path / "train.py").write_text("import keras\nprint(1)\nraise ValueError('mine')\n")
    seen = python("-c", CLI, "watch", "train.py", cwd=tmp_path)
    assert (seen.returncode, seen.stdout) == (1, "1\n")
    assert "ValueError: mine" in seen.stderr and "launching.py" not in seen.stderr
    assert "no fit of a siamese model" in seen.stderr and "start, record and finish" in seen.stderr


def test_a_script_that_does_not_exist_is_refused(tmp_path, capsys):
    from keras_siamese.cli import main

    assert main(["watch", str(tmp_path / "none.py")]) == 2
    assert "none.py does not exist" in capsys.readouterr().err
    assert main(["watch", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("is not a file\n")


def test_keras_is_seen_when_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "keras.py").write_text("NAME = 'stands for Keras'")
    seen = []
    finder = launching.AfterKeras(lambda module: seen.append(module.NAME))
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "keras")
    assert finder.find_spec("json") is None and finder in sys.meta_path
    importlib.import_module("keras")
    assert seen == ["stands for Keras"] and finder not in sys.meta_path


def test_a_traceback_begins_in_the_script():
    try:
        exec(compile("1 / 0", "mine.py", "exec"))
    except ZeroDivisionError as error:
        assert launching.own_frames(error.__traceback__, "mine.py").tb_frame.f_code.co_filename == "mine.py"
        assert launching.own_frames(error.__traceback__, "other.py") is error.__traceback__


def test_the_folders_of_the_program_keep_their_order(tmp_path, monkeypatch):
    before = [str(ROOT), *sys.path, str(tmp_path)]  # the package is installed in the first of several folders
    monkeypatch.setattr(sys, "path", list(before))
    assert launching.Launch(tmp_path / "report.html", str(ROOT)).watching() is not None
    assert sys.path == before
    monkeypatch.setattr(sys, "path", [path for path in before if path != str(ROOT)])
    assert launching.Launch(tmp_path / "report.html", str(ROOT)).watching() is not None
    assert str(ROOT) not in sys.path
