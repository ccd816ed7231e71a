"""Tables as aligned plain text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    if isinstance(columns, Mapping):
        found: list[list[Any]] = [[dict(row).get(key) for key in columns] for row in rows]
        columns = list(columns.values())
    else:
        found = [list(row) for row in rows]
    for row in found:
        if len(row) != len(columns):
            raise ValueError(f"rows must have {len(columns)} cells for {list(columns)}, got {row}")
    cells = [[_cell(value) for value in row] for row in found]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [not any(isinstance(row[i], str) for row in found) for i in range(len(columns))]

    def line(words: Sequence[str]) -> str:
        aligned = (
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    head = [title] if title else []
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*head, line(columns), rule, *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool | int):
        return str(value)
    number = float(value)
    if not math.isfinite(number) or number == 0 or 1e-2 <= abs(number) < 1e5:
        return f"{number:.4g}"
    return f"{number:.1e}"
