"""Scores from a CSV file: its forms, and what is wrong with a file, line by line."""

import io

import pytest

from keras_siamese.verification import read_scores


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
    with pytest.raises(ValueError, match="binary.csv must be a text file in UTF-8"):
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
