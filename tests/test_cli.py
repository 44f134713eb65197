"""The command line: `keras-siamese evaluate`, the help, the version, and files that cannot be used."""

import importlib.util
import io
import json
import re

import numpy as np
import pytest

from keras_siamese import __version__, verification
from keras_siamese.cli import main, parser
from keras_siamese.verification import counted


@pytest.fixture(autouse=True)
def seeded():
    """In place of conftest's: nothing here touches Keras."""


@pytest.fixture
def pairs(rng):
    left = rng.integers(0, 30, 2000)
    right = np.where(rng.random(2000) < 0.3, left, rng.integers(0, 30, 2000))
    same = left == right
    return same, np.round(rng.normal(size=2000) + 2 * same, 4), left, right


HEAD = "score,same,left,right"


def write(path, pairs, head=HEAD):
    same, scores, left, right = pairs
    lines = [f"{score},{int(one)},p{a},p{b}" for one, score, a, b in zip(same, scores, left, right, strict=True)]
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def test_prints_the_report_of_the_file(tmp_path, capsys, pairs):
    same, scores, left, right = pairs
    path = write(tmp_path / "scores.csv", pairs)
    options = ["--far", "0.1", "--threshold", "1", "--seed", "3", "--confidence", "0.9"]
    assert main(["evaluate", str(path), *options, "--json", str(tmp_path / "out" / "found.json")]) == 0
    names = [np.char.add("p", side.astype(str)) for side in (left, right)]
    report = verification.evaluate(
        same, scores, far=[0.1], threshold=1.0, left=names[0], right=names[1], confidence=0.9, seed=3
    )
    assert capsys.readouterr().out == f"{report}\n"
    assert json.loads((tmp_path / "out" / "found.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(report.to_dict())
    )


def test_distances_give_the_same_figures(tmp_path, capsys, pairs):
    same, scores, left, right = pairs
    main(["evaluate", str(write(tmp_path / "scores.csv", pairs)), "--threshold", "1"])
    expected = capsys.readouterr().out
    distances = write(tmp_path / "distances.csv", (same, -scores, left, right))
    main(["evaluate", str(distances), "--threshold", "-1", "--distance"])
    said = " The score is −distance: a pair is accepted if its distance is at most -1."
    found = capsys.readouterr().out
    assert said in found and found.replace(said, "") == expected


def test_writes_a_page_that_escapes_names(tmp_path, pairs):
    pytest.importorskip("matplotlib")
    path = write(tmp_path / "a<b>.csv", pairs)
    assert main(["evaluate", str(path), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a&lt;b&gt;.csv" in page and "a<b>" not in page
    assert "https:" not in page and "http:" not in page.replace("http://www.w3.org", "")
    for figure in ("EER", "minDCF", "TAR at FMR ≤ 0.01", "data:image/svg+xml"):
        assert figure in page


def test_the_page_has_the_groups_of_a_column(tmp_path, capsys, pairs):
    pytest.importorskip("matplotlib")
    device = np.array(["camera", "scan"])[np.arange(2000) % 2]
    path, page = tmp_path / "scores.csv", tmp_path / "page.html"
    write(path, (*pairs[:3], [f"{right},{one}" for right, one in zip(pairs[3], device, strict=True)]), HEAD + ",Device")
    assert main(["evaluate", str(path), "--html", str(page), "--groups", "device"]) == 0
    data = json.loads(page.read_text(encoding="utf-8").split('"application/json">')[1].split("</script>")[0])
    assert [one["genuines"] for one in data["groups"]] == [pairs[0][::2].sum(), pairs[0][1::2].sum()]
    capsys.readouterr()
    for column, why in (
        ("origin", "must have the columns 'origin'; it has 'score', 'same', 'left', 'right', 'device'"),
        ("Same", "`groups` must name a column other than score, same, left and right; got 'Same'"),
    ):
        assert main(["evaluate", str(path), "--html", str(page), "--groups", column]) == 2
        assert why in capsys.readouterr().err
    assert main(["evaluate", str(path), "--groups", "device"]) == 2
    assert "`--groups` is for the page. Pass `--html FILE` too" in capsys.readouterr().err


def test_reads_standard_input(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("score,same\n1,1\n0,0\n"))
    assert main(["evaluate", "-"]) == 0
    assert "Verification of 2 pairs" in capsys.readouterr().out


def test_a_long_file_is_counted_in_bins(tmp_path, capsys, pairs, monkeypatch):
    monkeypatch.setattr(counted, "LIMIT", 1000)
    path = write(tmp_path / "scores.csv", pairs)
    assert main(["evaluate", str(path), "--far", "0.1", "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr()
    assert "Histogram of 2,000 pairs" in printed.out and "TAR at FMR ≤ 0.1" in printed.out and printed.err == ""
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["threshold"] is None
    monkeypatch.setattr("sys.stdin", io.StringIO(path.read_text(encoding="utf-8")))
    assert main(["evaluate", "-", "--far", "0.1"]) == 0
    assert capsys.readouterr().out == printed.out
    assert main(["evaluate", str(path), "--html", str(tmp_path / "page.html")]) == 2
    assert "`--html` needs all pairs in memory, at most" in capsys.readouterr().err


def test_the_bar_is_shown_in_a_terminal_and_not_on_standard_output(tmp_path, capsys, pairs, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    path = write(tmp_path / "scores.csv", pairs)
    assert main(["evaluate", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Verification of 2,000 pairs") and "1/1" in printed.err


def test_what_is_wrong_with_a_file_is_said(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    path.write_text("score,same\n1,1\nx,0\n")
    assert main(["evaluate", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-siamese evaluate: ") and "  line 3: x,0" in error
    path.write_text("score,same\n1,1\n2,1\n")
    assert main(["evaluate", str(path)]) == 2
    assert "pairs of both classes; got 2 genuine and 0 impostor" in capsys.readouterr().err


def test_files_that_cannot_be_read_or_written_are_named(tmp_path, capsys, pairs):
    assert main(["evaluate", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
    (tmp_path / "binary.csv").write_bytes(b"score,same\n\xff\xfe\n")
    assert main(["evaluate", str(tmp_path / "binary.csv")]) == 2
    assert "must be a text file in UTF-8" in capsys.readouterr().err
    assert main(["evaluate", str(write(tmp_path / "s.csv", pairs)), "--json", str(tmp_path)]) == 2
    assert "`--json` must be the path of a file" in capsys.readouterr().err


def test_rates_out_of_range_are_refused(tmp_path, capsys, pairs):
    assert main(["evaluate", str(write(tmp_path / "s.csv", pairs)), "--far", "2"]) == 2
    assert "`far` must be in (0, 1]; got 2" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_and_version_are_printed(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "keras-siamese" in printed and (arguments != ["--version"] or __version__ in printed)


def test_every_command_prints_an_example_that_it_reads(capsys):
    """The example is read by the parser itself, so it cannot name an option that is not there."""
    (commands,) = (action.choices for action in parser()._actions if isinstance(action.choices, dict))
    assert len(commands) == 6
    for name, command in commands.items():
        example = command.format_help().rpartition("example:")[2].split()
        assert example[:2] == ["keras-siamese", name]
        assert parser().parse_args(example[1:]).command == name


def test_a_shell_can_complete_the_commands(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", "bash"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "compare" in printed and "--report" in printed
    paths = re.findall(r"^_shtab_keras_siamese_(\w+)_COMPGEN=_shtab_compgen_(\w+)$", printed, re.MULTILINE)
    assert {("watch_pos_0", "files"), ("watch___report", "files"), ("compare_pos_0", "files")} <= set(paths)
    assert {("demo___output", "dirs"), ("app___gallery", "dirs")} <= set(paths)
    assert not any("far" in name or "seed" in name for name, _ in paths)


def test_without_shtab_completion_names_its_extra(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "shtab" else find(name))
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", "bash"])
    assert stopped.value.code == 2
    assert 'pip install "keras-siamese[completion]"' in capsys.readouterr().err


def test_without_a_command_the_status_is_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2


def test_pages_end_with_html(tmp_path, capsys, pairs):
    path = write(tmp_path / "scores.csv", pairs)
    for name in ("page.txt", "page"):
        assert main(["evaluate", str(path), "--html", str(tmp_path / name)]) == 2
        assert f"`--html` must be the path of a page, which ends with .html; got '{tmp_path / name}'" in (
            capsys.readouterr().err
        )
    (tmp_path / "train.py").write_text("")
    assert main(["watch", "--report", str(tmp_path / "r.txt"), str(tmp_path / "train.py")]) == 2
    assert "`--report` must be the path of a page" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--report", "mine.html"], ["--report=mine.html"], ["--epochs", "3"]])
def test_a_report_after_the_script_is_told(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_siamese.cli.os.name", "other")
    monkeypatch.setattr("keras_siamese.cli.subprocess.call", lambda command: 0)
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "train.py", *given]) == 0
    told = "--report after train.py is given to the script; the report of this command is siamese-report.html"
    assert (told in capsys.readouterr().err) == ("mine.html" in given[-1])
