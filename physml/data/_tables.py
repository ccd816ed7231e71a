"""Tables as trajectories: what each column is, and the rows of each trajectory."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import DTypeLike

from physml._numerics import checks
from physml._numerics.calls import require_instance
from physml.data._arguments import checked_names
from physml.data._trajectories import Trajectories, from_arrays

START = "t0"
"""The column of a trajectory's start, where its times are relative."""
_UNIT = re.compile(r"\s*(\[[^\]]*\]|\([^)]*\)|\s/\s*\S+)$")  # t [s], t (s), t / s
_INDEX = ("", "index", "Unnamed: 0")  # what pandas makes of the numbers of its rows


class Table(NamedTuple):
    """A table of any kind, with a state a row.

    Attributes:
        where: the table, for the messages.
        place: where a row of the table stands, for the messages.
        header: the names of its columns.
        column: gives the cells of one column.
        numbers: gives some of the columns as finite numbers (rows, columns).
    """

    where: str
    place: Callable[[int], str]
    header: Sequence[str]
    column: Callable[[int], Sequence[object]]
    numbers: Callable[[list[int]], np.ndarray]


def columns_of(trajectories: Trajectories, trajectory: str) -> dict[str, np.ndarray]:
    """The columns of the table that holds trajectories, by their names, a state a row.

    They are the number of the trajectory, "t0" for the starts unless all times count from 0, "t"
    for the times, and the components.

    Raises:
        ValueError: two columns would have one name.
    """
    num, length, dim = trajectories.ys.shape
    ts, t0s, ys = map(np.asarray, (trajectories.ts, trajectories.t0s, trajectories.ys))
    numbers = np.repeat(np.arange(num), length)
    columns = [(trajectory, numbers), ("t", np.tile(ts, num))]
    columns += zip(trajectories.names, ys.reshape(-1, dim).T, strict=True)
    started = bool(t0s.any()) or ts[0] != 0
    if started:
        columns.insert(1, (START, np.repeat(t0s, length)))
    names = [name for name, _ in columns]
    if len(set(names)) < len(names) or (START in names and not started):
        raise ValueError(f"names must differ from each other, from t and from t0, got {names}")
    return dict(columns)


class _Columns(NamedTuple):
    """The numbers of the columns of a table, by what they are."""

    time: int
    trajectory: int | None
    start: int | None
    states: list[int]


def _find_columns(
    table: Table, time: str | None, trajectory: str | None, columns: Sequence[str] | None
) -> _Columns:
    """What each column of a table is, where the caller chose these names."""
    where, header = table.where, table.header
    for name, value in (("time", time), ("trajectory", trajectory)):
        if value is not None:
            require_instance(str, **{name: value})
    at_time = find_time(where, header) if time is None else _find(where, header, time)
    if at_time is None:
        raise ValueError(
            f"{where} must have columns with the time, named t or time, and the states, got "
            f"{list(header)}: name the time's column by time="
        )
    at_trajectory = None if trajectory is None else _find(where, header, trajectory)
    special = [at_time, *([] if at_trajectory is None else [at_trajectory])]
    at_start = None
    if columns is not None:
        states = [_find(where, header, name) for name in checked_names("columns", columns)]
    else:
        if START in header and header.index(START) not in special:
            at_start = _find(where, header, START)
            special.append(at_start)
        others = [i for i in range(len(header)) if i not in special]
        states = [i for i in others if not _counts_rows(i, header[i], table.column)]
    used = [*special, *states]
    if not all(header[i] for i in used):
        raise ValueError(f"{where} must have a name for each column, got {list(header)}")
    names = [header[i] for i in used]
    twice = sorted({name for name in names if names.count(name) > 1 or header.count(name) > 1})
    if twice:
        raise ValueError(
            f"{where} must have each column once, as the time, the trajectory or a component, got "
            f"{', '.join(map(repr, twice))} twice"
        )
    if not states:
        raise ValueError(
            f"{where} must have columns with the states beside {names}, got {list(header)}"
        )
    return _Columns(at_time, at_trajectory, at_start, states)


def _find(where: str, header: Sequence[str], name: str) -> int:
    """The one column with this name, or else with this name before a unit."""
    found = [i for i, other in enumerate(header) if other == name]
    found = found or [i for i, other in enumerate(header) if _UNIT.sub("", other) == name]
    if len(found) != 1:
        raise ValueError(
            f"{where} must have columns with one {name!r} among them, got {list(header)}"
        )
    return found[0]


def find_time(where: str, header: Sequence[str]) -> int | None:
    """The one column that is named like a time; raises ValueError where several are."""
    bare = [_UNIT.sub("", name) for name in header]
    for names in (
        [name == "t" for name in header],
        [name == "time" for name in header],
        [name == "t" or name.lower() == "time" for name in bare],
    ):
        if sum(names) > 1:
            twice = [name for name, is_time in zip(header, names, strict=True) if is_time]
            raise ValueError(f"{where} must have each column once, got the times {twice}")
        if any(names):
            return names.index(True)
    return None


def _counts_rows(at: int, name: str, column: Callable[[int], Sequence[object]]) -> bool:
    """Whether a column holds nothing, or the numbers of the rows."""
    if at and name:
        return False
    cells = column(at)
    if not name and not any(cell not in ("", None) for cell in cells):
        return True  # below a separator at the end of each line
    if at or name not in _INDEX:
        return False
    try:
        numbers = np.asarray(cells, float)
    except (TypeError, ValueError):
        return False
    follows = (np.diff(numbers) == 1) | (numbers[1:] == numbers[0])
    return bool(numbers[0] in (0, 1) and follows.all())


def read_trajectories(
    table: Table,
    *,
    time: str | None,
    trajectory: str | None,
    columns: Sequence[str] | None,
    system: str,
    dtype: DTypeLike | None,
) -> Trajectories:
    """Trajectories from the rows of a table; arguments and errors as `from_csv`."""
    where, place, header = table.where, table.place, table.header
    at = _find_columns(table, time, trajectory, columns)
    special = [at.time, *([] if at.start is None else [at.start])]
    values = table.numbers([*special, *at.states])
    labels = [None] * len(values) if at.trajectory is None else table.column(at.trajectory)
    groups: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    lengths = {label: len(rows) for label, rows in groups.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"{where} must have equally many rows a trajectory, got {lengths}: cut the longer ones"
        )
    rows = np.asarray(list(groups.values()))
    times = values[rows, 0]
    for own_rows, own in zip(rows, times, strict=True):
        _require_uniform(
            repr(header[at.time]), own, lambda i, own_rows=own_rows: place(int(own_rows[i]))
        )
    states = values[:, 1:][rows]
    starts, grid = times[:, 0], times - times[:, :1]
    if at.start is not None:
        starts, grid, states = states[:, 0, 0], times, states[:, :, 1:]
        changed = values[rows, 1] != starts[:, None]
        if changed.any():
            row = int(rows[changed][0])
            raise ValueError(
                f"{place(row)}, column {START!r} must be the same in all rows of a trajectory, "
                f"got {values[row, 1]}"
            )
    if not np.allclose(grid, grid[:1], rtol=0, atol=1e-4 * (grid[0, 1] - grid[0, 0])):
        steps = dict(zip(groups, (grid[:, 1] - grid[:, 0]).tolist(), strict=True))
        raise ValueError(f"{where} must have one time step for all trajectories, got {steps}")
    names = [header[i] for i in at.states]
    try:
        return from_arrays(grid[0], states, t0s=starts, names=names, system=system, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error


def _require_uniform(name: str, times: np.ndarray, place: Callable[[int], str]) -> None:
    try:
        checks.require_uniform(name, times)
    except ValueError as error:
        steps = np.diff(times) if len(times) > 1 else np.zeros(1)
        uneven = np.abs(steps - steps.mean()) if (steps > 0).all() else steps <= 0
        worst = min(int(np.argmax(uneven)) + 1, len(times) - 1)
        raise ValueError(
            f"{place(worst)}, column {error}: a trajectory's rows follow in equal steps of time; "
            "name the column that tells several trajectories apart by trajectory="
        ) from error
