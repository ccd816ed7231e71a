"""Tables in text files: encodings, separators, comments and header lines; cells as numbers."""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

COMMENTS = ("#", "%")
_DELIMITERS = "\t;|, "  # in the order of trying
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?")  # D: as Fortran prints them
_SEVERAL = re.compile(r"[+-]?[\d.]+\s+[+-]?[\d.]+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_MARKS = {  # a UTF-32 mark begins with a UTF-16 mark, so the longer ones come first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TextTable(NamedTuple):
    """The cells of a text file below its header."""

    path: str | os.PathLike[str]
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # where each row ends in the file, from 1

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def numbers(self, columns: Sequence[int], decimal: str | None) -> np.ndarray:
        """Some of the columns as numbers (rows, columns).

        Without `decimal` the comma is the decimal sign where cells have commas and none has a
        point.

        Raises:
            ValueError: a cell is not a finite number, or the decimal sign cannot be told.
        """
        cells = [[row[i] for i in columns] for row in self.rows]
        decimal = self._decimal_sign(cells, columns) if decimal is None else decimal
        values = np.empty((len(cells), len(columns)))
        for row, texts in enumerate(cells):
            for i, text in enumerate(texts):
                values[row, i] = _number(text, decimal)
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong):
            row, i = map(int, wrong[0])
            raise ValueError(
                f"{self.place(row)}, column {self.header[columns[i]]!r} must be a finite number "
                f"(the decimal sign is {decimal!r}), got {cells[row][i]!r}: "
                + _remedy(cells[row][i])
            )
        return values

    def _decimal_sign(self, cells: list[list[str]], columns: Sequence[int]) -> str:
        commas = [
            (row, i) for row, texts in enumerate(cells) for i, t in enumerate(texts) if "," in t
        ]
        if not commas or any("." in text for texts in cells for text in texts):
            return "."
        if all(_THOUSANDS.fullmatch(cells[row][i]) for row, i in commas):
            row, i = commas[0]
            raise ValueError(
                f"{self.place(row)}, column {self.header[columns[i]]!r} must show which sign is "
                f"the decimal one, got {cells[row][i]!r}, which may be a fraction or thousands: "
                "pass decimal=',' for a fraction, or take the commas out"
            )
        return ","


def read_table(
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None,
    delimiter: str | None,
    encoding: str | None,
) -> TextTable:
    """The cells of a text file; arguments and errors as `from_csv`."""
    text = _read_text(path, encoding)
    if declared := re.match(r"sep=(.)[ \t]*(?=[\r\n])", text):  # a line by which Excel is told
        text = text[declared.end() :]
        delimiter = delimiter or declared[1]
    delimiter = delimiter or _find_delimiter(path, text)
    records = list(_records(path, text, delimiter))
    if not records:
        raise ValueError(f"{path} must hold a header line and rows, got an empty file")
    header = None if names is None else list(names)
    if header is None and all(map(_like_number, records[0][1])):
        header = _commented_header(text, records[0], delimiter)
    elif header is None:
        header = [" ".join(cell.split()) for cell in records.pop(0)[1]]
    if not records:
        raise ValueError(f"{path} must hold rows below its header, got {header} alone")
    if header is None:
        width = len(records[0][1])
        advice = ("t", *(f"y{i}" for i in range(width - 1)))
        raise ValueError(
            f"{path}, line {records[0][0]} must be a header of names, got {records[0][1]}: "
            f"where the file has none, pass names={advice!r} or the like"
        )
    for line, cells in records:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {line} must have {len(header)} cells, separated by {delimiter!r}, "
                f"as {header} say, got {len(cells)}: {_ragged(len(header), cells, delimiter)}"
            )
    lines, rows = zip(*records, strict=True)
    return TextTable(path, header, list(rows), list(lines))


def _read_text(path: str | os.PathLike[str], encoding: str | None) -> str:
    """What a text file says, without a byte order mark.

    Args:
        path: the file.
        encoding: a name that Python knows. By default a byte order mark decides; without one it is
            UTF-8 where the bytes are valid UTF-8 and Windows-1252 otherwise.

    Raises:
        ValueError: the bytes are no text in this encoding.
    """
    content = Path(path).read_bytes()
    name = encoding or _encoding(content)
    try:
        text = content.decode(name)
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line} must be text in {name}, got the byte {content[error.start]:#04x}:"
            " name the encoding that it was written in, such as encoding='latin-1'"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{path} must be a table of text, got a binary file or another encoding: save the "
            "table as CSV, pass encoding='utf-16-le', or read it with pandas and pass the frame "
            "to from_dataframe"
        )
    return text.removeprefix("\ufeff")


def _encoding(content: bytes) -> str:
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _records(
    path: str | os.PathLike[str], text: str, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, and the line that it ends in; no comments, no empty rows.

    A blank as delimiter stands for any blanks and tabs.
    """
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for line in io.StringIO(text, newline=""):
            number += 1
            if not line.lstrip().startswith(COMMENTS):
                yield line.replace("\t", " ").strip() + "\n" if delimiter == " " else line

    reader = csv.reader(lines(), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {number} must close each quote that begins a cell, got {error}"
        ) from error


def _find_delimiter(path: str | os.PathLike[str], text: str) -> str:
    """The first that cuts the first two rows into equally many cells, or else into the most."""
    widths = {}
    for delimiter in _DELIMITERS:
        rows: list[list[str]] = []
        try:
            rows.extend(cells for _, cells in islice(_records(path, text, delimiter), 2))
        except ValueError:
            pass  # a quote that is not closed, which is said when all is read
        # Decimal commas between blanks: a comma would cut in the middle of two numbers.
        if (
            rows
            and len(rows[0]) == len(rows[-1]) > 1
            and not any(map(_SEVERAL.fullmatch, rows[-1]))
        ):
            return delimiter
        widths[delimiter] = len(rows[0]) if rows else 0
    return max(widths, key=lambda delimiter: (widths[delimiter], delimiter == ","))


def _commented_header(text: str, record: tuple[int, list[str]], delimiter: str) -> list[str] | None:
    """The names in the comment above the first row, where `numpy.savetxt` writes them."""
    number, cells = record
    line = io.StringIO(text, newline="").readlines()[number - 2].strip() if number > 1 else ""
    if not line.startswith(COMMENTS):
        return None
    line = line.lstrip("".join(COMMENTS)).strip()
    for names in (next(csv.reader([line], delimiter=delimiter), []), line.split()):
        names = [" ".join(name.split()) for name in names]
        if len(names) == len(cells) and not all(map(_like_number, names)):
            return names
    return None


def _like_number(text: str) -> bool:
    return not text or bool(_NUMBER.fullmatch(_plain(text).replace(",", ".")))


def _plain(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-")


def _number(text: str, decimal: str) -> float:
    """The number in a cell; NaN where there is none."""
    text = _plain(text)
    if decimal == ",":  # a point is then no part of a number: it may separate thousands
        text = text.replace(".", "?").replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return np.nan
    return float(text.replace("d", "e").replace("D", "e"))


def _remedy(text: str) -> str:
    if text.strip("-").lower() in ("", "na", "nan", "n/a", "null", "none"):
        return "fill what is missing, or cut the trajectories before it"
    if re.search(r"\d[.,]\d", text):
        return "write numbers without signs between thousands, with one decimal sign in all cells"
    return "choose the columns of numbers by columns=; times count from a start, in one unit"


def _ragged(width: int, cells: list[str], delimiter: str) -> str:
    if delimiter == "," and len(cells) == 2 * width:
        return "where the comma is the decimal sign, separate the cells by semicolons"
    return "pass delimiter= where another sign separates the cells, and begin comments with #"
