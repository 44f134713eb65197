"""Text tables and CSV files."""

import io

import pytest

from keras_siamese._tables import aligned, csv_rows


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("", "value", "note"), ("EER", "0.0630", ""), ("d′", "2", "a longer note")]
    assert aligned(rows) == ["     value   note", "EER  0.0630", "d′   2       a longer note"]
    assert aligned(rows, right=(1, 2)) == [
        "      value           note",
        "EER  0.0630",
        "d′        2  a longer note",
    ]
    assert aligned([]) == []


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        aligned([("a", "b"), ("c",)])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_by_any_delimiter(delimiter):
    text = 'Epoch , loss\r\n0,1.5\r\n\r\n"1",2\r\n'.replace(",", delimiter)
    columns, rows = csv_rows("run.csv", io.StringIO(text, newline=""))
    assert columns == ["Epoch", "loss"]
    assert list(rows) == [(2, ["0", "1.5"]), (4, ["1", "2"])]


def test_quoted_fields_hold_delimiters_and_lines():
    _, rows = csv_rows("run.csv", io.StringIO('a,b\n"x,\ny",2\n3,4\n', newline=""))
    assert list(rows) == [(3, ["x,\ny", "2"]), (4, ["3", "4"])]


@pytest.mark.parametrize("text", ["", "\n1,2\n", "  \n"])
def test_a_file_without_a_header_is_refused(text):
    with pytest.raises(ValueError, match="run.csv must begin with a header that names its columns"):
        csv_rows("run.csv", io.StringIO(text))


def test_a_field_that_csv_cannot_hold_is_named_by_its_line():
    _, rows = csv_rows("run.csv", io.StringIO("a,b\n1,2\n" + "x" * 200_000 + ",3\n"))
    assert next(rows) == (2, ["1", "2"])
    with pytest.raises(ValueError, match="run.csv must be a CSV file; line 3: field larger than field limit"):
        next(rows)
