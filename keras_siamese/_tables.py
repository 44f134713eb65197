"""Tables: rows of text in aligned columns or as HTML, and the rows of CSV files.

Contract: standard library only; everything may import it.

    print("\\n".join(aligned([("", "value"), ("EER", "0.0630")], right=(1,))))
    columns, rows = csv_rows("scores.csv", file)        # ["score", "same"], [(2, ["0.9", "1"]), …]
"""

import csv
from html import escape


def aligned(rows, right=()):
    """One line of text for each row of strings, columns two spaces apart and as wide as their widest cell.

    Args:
        rows: rows of as many strings each.
        right: numbers of the columns that are aligned to the right.

    >>> aligned([("", "value"), ("EER", "0.0630"), ("AUC", "")], right=(1,))
    ['      value', 'EER  0.0630', 'AUC']
    """
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if column in right else "<" for column in range(len(widths))]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def html_table(rows):
    """The rows of strings as an HTML table for a notebook; the first is its head, and all text is escaped.

    >>> html_table([("", "value"), ("FMR ≤ <1", "0")])
    '<table><tr><th></th><th>value</th></tr><tr><td>FMR ≤ &lt;1</td><td>0</td></tr></table>'
    """
    head, *others = rows
    lines = [("th", head), *(("td", row) for row in others)]
    cells = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in lines)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def csv_rows(name, file):
    """The columns of a CSV file and an iterator over its rows, `(line number, fields)` each, without empty rows.

    Fields are separated by commas, semicolons or tabs: by the one that the header has most of.

    Args:
        name: what errors call the file.
        file: the file, opened as text with ``newline=""``.

    Raises:
        ValueError: at once if there is no header, from the iterator if a row cannot be split into fields.

    >>> import io
    >>> columns, rows = csv_rows("run.csv", io.StringIO("epoch; loss\\n0;1.5\\n"))
    >>> columns, list(rows)
    (['epoch', 'loss'], [(2, ['0', '1.5'])])
    """
    columns, delimiter = csv_header(name, file.readline())
    return columns, csv_fields(name, file, delimiter, 2)


def csv_header(name, line):
    """The columns that the first line of a CSV file names, and the delimiter of its fields."""
    if not line.strip():
        raise ValueError(f"{name} must begin with a header that names its columns; its first line is empty")
    delimiter = max(",;\t", key=line.count)
    return [column.strip() for column in next(csv.reader([line], delimiter=delimiter))], delimiter


def csv_fields(name, lines, delimiter, first):
    """Yields `(line number, fields)` of each row that is not empty; `first` is the number of the first of `lines`."""
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num + first - 1, fields
    except csv.Error as error:
        raise ValueError(f"{name} must be a CSV file; line {reader.line_num + first - 1}: {error}") from error
