"""What pyarrow may read, and how its columns become arrays. That it reads what Python reads is in `test_tables.py`."""

import csv

import numpy as np
import pytest

from keras_siamese.verification import arrow


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (b"", True),
        (b"0.5,1\n0.2,0\n", True),
        (b"0.5,1\r\n0.2,0\r\n", True),
        ("0.5,1,Åsa\n".encode(), True),
        (b'0.5,"1"\n', False),
        (b"0.5,1\r0.2,0\n", False),
        (b"0.5,1\0\n", False),
        (b"0.5,\xff\n", False),
        (b"a" * csv.field_size_limit() + b"\n" + b"a" * csv.field_size_limit() + b"\n", True),
        (b"a\n" * 100_000 + b"a" * (csv.field_size_limit() + 1) + b"\n", False),
        (b"a" * (csv.field_size_limit() + 1) + b"\n" + b"a\n" * 100_000, False),
    ],
)
def test_lines_are_plain_if_python_and_pyarrow_split_them_alike(data, plain):
    assert arrow.is_plain(data) is plain


def test_without_pyarrow_there_is_no_table(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert arrow.csv_table(b"0.5,1\n", 2, [0, 1], ",") is None


def test_columns_become_arrays():
    pyarrow = pytest.importorskip("pyarrow", reason="the columns are those of pyarrow")
    table = arrow.csv_table(b"1,a,0.5\n0,b,-2\n1,a,7\n", 3, [2, 0], ",")
    np.testing.assert_array_equal(arrow.numbers(table.column(0)), [0.5, -2, 7])
    codes, texts = arrow.texts(table.column(1))
    assert [texts[code] for code in codes] == ["1", "0", "1"]
    codes, texts = arrow.texts(pyarrow.chunked_array([["a", None], ["a"]]))
    assert [texts[code] for code in codes] == ["a", "", "a"]
