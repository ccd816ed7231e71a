"""Tables as aligned plain text, and as a terminal shows them."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Rows = Sequence[Sequence[Any]] | Sequence[Mapping[str, Any]]
Columns = Sequence[str] | Mapping[str, str]

TIMES = {"seconds": "seconds", "compile_seconds": "compiling"}
"""The columns of the figures that `Row.time` gives."""


def format_table(rows: Rows, columns: Columns, *, title: str | None = None) -> str:
    """Rows as aligned plain text: words to the left, numbers to the right, None as a dash.

    Args:
        rows: the cells of each row in order, or by key.
        columns: the columns' names; for cells by key, the names by the key of their cells. Only
            these columns are shown, and a cell that a row lacks is a dash.
        title: lines above the table.

    Raises:
        ValueError: a row in order does not have one cell for each column.

    Example:
        >>> print(experiment.format_table([["MLP", 7.1e-12], ["GRU", None]], ["network", "eps1"]))
        network     eps1
        -------  -------
        MLP      7.1e-12
        GRU            -
    """
    head, cells, numeric = _cells(rows, columns)
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]

    def line(words: Sequence[str]) -> str:
        aligned = (
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*([title] if title else []), line(head), rule, *map(line, cells)])


def print_table(rows: Rows, columns: Columns, *, title: str | None = None) -> None:
    """Print rows and an empty line: by rich at a terminal, elsewhere as `format_table` does.

    At a terminal, cells are wrapped where the table would be wider than the window. Arguments and
    errors as for `format_table`.
    """
    if not sys.stdout.isatty():
        print(format_table(rows, columns, title=title), end="\n\n", flush=True)
        return
    from rich import box  # takes a moment, and files need it not
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # which keeps brackets, where a plain string is markup

    head, cells, numeric = _cells(rows, columns)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in zip(head, numeric, strict=True):
        table.add_column(Text(name), justify="right" if right else "left", vertical="bottom")
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console()
    if title:
        console.print(Text(title, "bold"))
    console.print(table)


class _Cells(NamedTuple):
    """A table in words: the columns' names, the cells by rows, which columns hold numbers."""

    head: list[str]
    cells: list[list[str]]
    numeric: list[bool]


def _cells(rows: Rows, columns: Columns) -> _Cells:
    if isinstance(columns, Mapping):
        found: list[list[Any]] = [[dict(row).get(key) for key in columns] for row in rows]
        columns = list(columns.values())
    else:
        found = [list(row) for row in rows]
    for row in found:
        if len(row) != len(columns):
            raise ValueError(f"rows must have {len(columns)} cells for {list(columns)}, got {row}")
    cells = [[_cell(value) for value in row] for row in found]
    numeric = [not any(isinstance(row[i], str) for row in found) for i in range(len(columns))]
    return _Cells(list(columns), cells, numeric)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool | int):
        return str(value)
    number = float(value)
    if not math.isfinite(number) or number == 0 or 1e-2 <= abs(number) < 1e5:
        return f"{number:.4g}"
    return f"{number:.1e}"
