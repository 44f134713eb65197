"""Tables of scores read by pyarrow, which is several times faster than Python.

Contract: the bytes of whole lines of a CSV file in, or a Parquet file; pyarrow tables out, whose columns `numbers` and
`texts` turn into NumPy arrays. The lines of a CSV file are read only if pyarrow is installed and reads exactly what
Python would. For all others the result is None. Only this room imports this module.

    table = csv_table(b"0.9,1\\n0.2,0\\n", 2, [0, 1], ",")
    if table is not None:
        scores, (codes, labels) = numbers(table.column(0)), texts(table.column(1))
"""

import csv
import importlib.util

from keras_siamese._checks import check_installed

BATCH = 2**19  # rows of a Parquet file read at a time


def csv_table(data, columns, places, delimiter):
    """The columns at `places`, a number first and then texts, of lines with as many `columns`; None if in doubt."""
    if importlib.util.find_spec("pyarrow") is None or not is_plain(data):
        return None
    import pyarrow
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

    score, *others = map(str, places)
    types = {score: pyarrow.float64(), **dict.fromkeys(others, pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))}
    reading = ReadOptions(column_names=[str(place) for place in range(columns)])
    parsing = ParseOptions(delimiter=delimiter, quote_char=False)
    # Without null values, an empty cell is no number.
    converting = ConvertOptions(column_types=types, include_columns=list(types), null_values=[])
    try:
        return read_csv(pyarrow.py_buffer(data), reading, parsing, converting)
    except pyarrow.ArrowInvalid:
        return None


def is_plain(data):
    """Whether Python and pyarrow split these lines alike: no quotes, usual ends of lines, UTF-8, no huge field."""
    if b'"' in data or b"\0" in data or data.count(b"\r") != data.count(b"\r\n"):
        return False
    start, limit = 0, csv.field_size_limit()
    while start + limit < len(data):  # look for a line that is longer than a field may be
        start = data.rfind(b"\n", start, start + limit + 1) + 1
        if not start:
            return False
    try:
        return data.isascii() or data.decode() is not None
    except UnicodeDecodeError:
        return False


def parquet_batches(name, file):
    """The number of batches that `parquet_tables` yields, about."""
    return -(-opened_parquet(name, file).metadata.num_rows // BATCH)


def parquet_tables(name, file, places_of):
    """Yields `(number of the first row, table)`, with the columns and names of `places_of(name, column names)`."""
    pyarrow = check_installed("pyarrow", "tables")
    parquet = opened_parquet(name, file)
    columns = parquet.schema_arrow.names
    places = places_of(name, columns)
    columns, first = [columns[place] for place in places.values()], 1
    try:
        for batch in parquet.iter_batches(BATCH, columns=columns):
            table = pyarrow.Table.from_batches([batch]).select(columns)
            table = table.set_column(0, "score", table.column(0).cast(pyarrow.float64(), safe=False))
            yield first, table.rename_columns(list(places))
            first += len(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} must be a Parquet file whose scores are numbers; {error}") from error


def opened_parquet(name, file):
    pyarrow = check_installed("pyarrow", "tables")
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} must be a Parquet file; {error}") from error


def numbers(column):
    """A column of floats as float64 `(n,)`, NaN where there is no value."""
    return column.to_numpy()


def texts(column):
    """A column as codes `(n,)` and the text of each code; a missing value is an empty text."""
    column = column.unify_dictionaries() if hasattr(column.type, "index_type") else column.dictionary_encode()
    column = column.combine_chunks()
    values = column.dictionary.to_pylist()
    return column.indices.fill_null(len(values)).to_numpy(), [*("" if v is None else str(v) for v in values), ""]
