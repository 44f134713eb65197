"""Scores from a file: its forms, what is wrong with it line by line, and that blocks and pyarrow change nothing."""

import io
import sys

import numpy as np
import pytest

from keras_siamese.verification import arrow, read_scores, tables


def test_all_columns(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("score,same,left,right\n0.9,1,ada,ada\n0.2,false,ada,bo\n", encoding="utf-8")
    table = read_scores(path)
    assert table.scores.tolist() == [0.9, 0.2] and table.same.tolist() == [True, False]
    assert table.left.tolist() == ["ada", "ada"] and table.right.tolist() == ["ada", "bo"]


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("score,same\n1,1\n0,0\n"))
    assert read_scores("-").scores.tolist() == [1, 0]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ValueError, match="standard input must begin with a header"):
        read_scores("-")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"score,same\n\xff\xfe\n")
    with pytest.raises(ValueError, match="binary.csv must be a text file in UTF-8; line 2: invalid"):
        read_scores(tmp_path / "binary.csv")
    with pytest.raises(FileNotFoundError):
        read_scores(tmp_path / "none.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_stand_in_any_order_and_with_any_delimiter(tmp_path, delimiter):
    path = tmp_path / "scores.csv"
    lines = ["Same, note ,score", "TRUE,a,0.5", "", "0,b,-1e-3", "1.0,c,7"]
    path.write_text("\ufeff" + "\r\n".join(line.replace(",", delimiter) for line in lines), encoding="utf-8")
    table = read_scores(path)
    assert table.same.tolist() == [True, False, True] and table.scores.tolist() == [0.5, -0.001, 7.0]
    assert table.left is None and table.right is None


def test_quoted_names_may_hold_the_delimiter(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text('score,same,left,right\n1,1,"Lovelace, Ada","Lovelace, Ada"\n0,0,bo,cy\n')
    assert read_scores(path).left.tolist() == ["Lovelace, Ada", "bo"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a header"),
        ("score,same\n", "must have one pair per line below its header; it has no pairs"),
        ("skore,same\n1,1\n", "must have the columns 'score'; it has 'skore', 'same'"),
        ("0.5,1\n0.2,0\n", "must have the columns 'score', 'same'; it has '0.5', '1'"),
        ("score,same,left\n1,1,a\n", "must have the columns 'right'"),
        ("score,same\n1,1\nx,0\n", "1 of its lines do not:\n  line 3: x,0"),
        ("score,same\n1,1\n\n1,2\n", "line 4: 1,2"),
        ("score,same\nnan,1\n", "line 2: nan,1"),
        ("score,same\n1\n", "line 2: 1"),
        ("score,same,left,right\n1,1,a,\n", "line 2: 1,1,a,"),
        ("score,same\n" + "x,1\n" * 8, "8 of its lines do not:.*line 6: x,1\n  and 3 more"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s)scores.csv .*{message}"):
        read_scores(path)


# --- read by pyarrow, in blocks of any size: the same pairs, the same errors

PLAIN = "score,same,left,right\n0.5,1,ada,ada\n-1e-3,0,ada,bo\n9007199254740993,1,bo,bo\n"
ODD_ROWS = {
    "blank lines": "\n\n0.25,1,a,a\n\n",
    "spaces": " 0.25 ,  1 , a ,\ta\n",
    "quotes": '0.25,1,"a,b","a ""b"""\n',
    "a quoted line end": '0.25,1,"a\nb","a\r\nb"\n',
    "a quote that does not end": '0.25,1,"a,b\n',
    "a quote inside a name": '0.25,1,a"b,a"b\n',
    "a comment": "# 0.25,1,a,a\n",
    "too large": "1e400,1,a,a\n",
    "infinite": "-Infinity,1,a,a\n",
    "nan": "NaN,0,a,b\n",
    "too small": "1e-400,1,a,a\n",
    "underscores": "1_000,1,a,a\n",
    "other digits": "\u0661.5,1,a,a\n",
    "a plus": "+.5,1,a,a\n5.,0,a,a\n",
    "hexadecimal": "0x10,1,a,a\n",
    "missing cells": "0.25,1,a\n0.25\n",
    "empty cells": ",1,a,a\n0.5,,a,a\n0.5,1,,a\n0.5,1,a, \n",
    "further cells": "0.25,1,a,a,b,c\n",
    "words": "0.25,TRUE,a,a\n0.5,False,a,a\n0.5,1.0,a,b\n",
    "other labels": "0.25,2,a,a\n0.25,yes,a,a\n0.25,-1,a,a\n",
    "missing words": "0.25,1,NA,null\n0.5,0,nan,None\n",
    "numbers": "0.25,1,007,7\n0.5,0,1e3,1000\n",
    "a zero byte": "0.25,1,a\0,a\n",
    "a carriage return": "0.25,1,a,a\r0.5,0,a,b\r",
    "mixed line ends": "0.25,1,a,a\r\n0.5,0,a,b\n\r\n",
    "no line end": "0.25,1,a,a",
    "no ASCII": "0.25,1,Åsa,\u2028b\n",
    "a long name": f"0.25,1,{'a' * 3000},b\n",
    "a name that is too long": f"0.25,1,{'a' * 132_000},b\n",
    "no UTF-8": b"0.25,1,a,\xff\n",
}


def outcome(path, **options):
    """The pairs of a file, or the error."""
    try:
        return [None if column is None else column.tolist() for column in read_scores(path, **options)]
    except ValueError as error:
        return str(error)


def by_python(path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(arrow, "csv_table", lambda *arguments: None)
        return outcome(path)


@pytest.mark.parametrize("row", ODD_ROWS)
@pytest.mark.parametrize("block", [64, tables.BLOCK])
def test_pyarrow_reads_what_python_reads(tmp_path, monkeypatch, row, block):
    pytest.importorskip("pyarrow", reason="without pyarrow, Python's csv reads all files")
    path, odd = tmp_path / "scores.csv", ODD_ROWS[row]
    path.write_bytes(PLAIN.encode() + (odd if isinstance(odd, bytes) else odd.encode()) + PLAIN[22:].encode())
    expected = by_python(path, monkeypatch)
    monkeypatch.setattr(tables, "BLOCK", max(block, len(odd)))
    assert outcome(path) == expected


@pytest.mark.parametrize("text", [PLAIN, PLAIN.replace(",", ";"), "\ufeff" + PLAIN.replace("\n", "\r\n"), PLAIN * 9])
def test_pyarrow_reads_plain_files_itself(tmp_path, monkeypatch, text):
    pytest.importorskip("pyarrow", reason="without pyarrow, Python's csv reads all files")
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8", newline="")
    expected = by_python(tmp_path / "scores.csv", monkeypatch)
    if text.count("score") == 1:
        monkeypatch.setattr(tables, "checked", None)  # what reads the rows for Python's csv
    assert outcome(tmp_path / "scores.csv") == expected


@pytest.mark.parametrize("reads_itself", [True, False])
@pytest.mark.parametrize("sides", [True, False])
def test_groups_are_read_from_a_column(tmp_path, monkeypatch, sides, reads_itself):
    if not reads_itself:
        monkeypatch.setattr(arrow, "csv_table", lambda *arguments: None)
    rows = [("0.5", "1", "ada", " camera", "ada"), ("0.25", "0", "ada", "scan", "bo"), ("1", "0", "bo", "ada ", "ada")]
    kept = range(5) if sides else (0, 1, 3)
    lines = [",".join(row[place] for place in kept) for row in [("score", "same", "left", "Device", "right"), *rows]]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines))
    found = outcome(path, groups="device")
    assert found[:2] == [[True, False, False], [0.5, 0.25, 1.0]] and found[4] == ["camera", "scan", "ada"]
    assert found[2:4] == ([["ada", "ada", "bo"], ["ada", "bo", "ada"]] if sides else [None, None])
    assert outcome(path)[4] is None
    path.write_text("\n".join([*lines, ",".join(("1", "1", "x", "", "x")[place] for place in kept)]))
    assert "no empty identity or group on each line; 1 of its lines do not:\n  line 5: 1,1" in outcome(
        path, groups="device"
    )


@pytest.mark.parametrize("row", ODD_ROWS)
def test_blocks_do_not_matter(tmp_path, monkeypatch, row):
    monkeypatch.setattr(arrow, "csv_table", lambda *arguments: None)
    path, odd = tmp_path / "scores.csv", ODD_ROWS[row]
    path.write_bytes(PLAIN.encode() + (odd if isinstance(odd, bytes) else odd.encode()) + PLAIN[22:].encode())
    expected = outcome(path)
    for block, rows in ((1, 1), (50, 2), (1000, 3)):
        monkeypatch.setattr(tables, "BLOCK", max(block, len(odd), 30))
        monkeypatch.setattr(tables, "ROWS", rows)
        assert outcome(path) == expected


def test_a_line_longer_than_a_block_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 100)
    (tmp_path / "scores.csv").write_text("score,same\n1,1\n" + "1," * 200 + "\n")
    with pytest.raises(ValueError, match="scores.csv must be a CSV file; line 3 is longer than 100 bytes"):
        read_scores(tmp_path / "scores.csv")


# --- Parquet


def write_parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("same", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], ["1", "false", " True"]])
@pytest.mark.parametrize("batch", [1, arrow.BATCH])
def test_a_parquet_file(tmp_path, monkeypatch, same, batch):
    monkeypatch.setattr(arrow, "BATCH", batch)
    columns = {"right": [1, 3, 2], "Score": np.float32([0.5, 1, -2]), "note": ["x", "y", "z"], "left": [1, 2, 2]}
    table = read_scores(write_parquet(tmp_path / "scores.parquet", same=same, **columns))
    assert table.scores.tolist() == [0.5, 1, -2] and table.same.tolist() == [True, False, True]
    assert table.left.tolist() == ["1", "2", "2"] and table.right.tolist() == ["1", "3", "2"]
    assert table.groups is None
    assert read_scores(tmp_path / "scores.parquet", groups="note").groups.tolist() == ["x", "y", "z"]


def test_what_is_wrong_with_a_parquet_file_is_said_with_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "BATCH", 2)
    path = tmp_path / "scores.parquet"
    write_parquet(path, score=[1.0, None, 2.0, np.inf], same=[1, 0, 3, 1], left=["a"] * 4, right=["a"] * 4)
    with pytest.raises(
        ValueError, match="3 of its lines do not:\n  row 2: nan,0,a,a\n  row 3: 2.0,3,a,a\n  row 4: inf"
    ):
        read_scores(path)
    with pytest.raises(ValueError, match="must have the columns 'same'; it has 'score'"):
        read_scores(write_parquet(path, score=[1.0]))
    with pytest.raises(ValueError, match="must have one pair per line"):
        read_scores(write_parquet(path, score=np.zeros(0), same=np.zeros(0, bool)))
    with pytest.raises(ValueError, match="must be a Parquet file whose scores are numbers"):
        read_scores(write_parquet(path, score=["x"], same=[1]))
    path.write_text(PLAIN)
    with pytest.raises(ValueError, match="scores.parquet must be a Parquet file; "):
        read_scores(path)


def test_without_pyarrow_a_parquet_file_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"pip install \"keras-siamese\[tables\]\""):
        read_scores(tmp_path / "scores.parquet")
