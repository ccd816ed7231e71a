"""Trajectories in files: tables (CSV) and NumPy archives (npz)."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml._numerics.checks import floating_array, require_uniform
from physml.data._trajectories import Trajectories, from_arrays

_FORMAT = "physml.trajectories/1"


def to_csv(path: str | os.PathLike, trajectories: Trajectories, *, trajectory: str) -> None:
    """Write trajectories as a table that `from_csv` reads back to the last bit.

    The header holds the name `trajectory`, "t" for the time since each trajectory's start, and the
    names of the state's components. The trajectories, numbered from 0, follow one another.

    Args:
        path: the file; what it held is replaced.
        trajectory: the name of the column that says to which trajectory a row belongs.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join((trajectory, "t", *trajectories.names)) + "\n")
        for number, ys in enumerate(trajectories.ys.tolist()):
            for t, y in zip(trajectories.ts.tolist(), ys, strict=True):
                file.write(",".join((str(number), *map(repr, (t, *y)))) + "\n")


def from_csv(
    path: str | os.PathLike,
    *,
    time: str = "t",
    trajectory: str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    dtype: DTypeLike | None = None,
) -> Trajectories:
    """Trajectories from a table with a header line, one state a row.

    Args:
        path: the file.
        time: the name of the time column.
        trajectory: the name of the column that says to which trajectory a row belongs (any text;
            the rows of one trajectory need not be adjacent). Without it the file is one trajectory.
        columns: the state's columns; all others by default.
        delimiter: what separates columns.
        dtype: a floating dtype; JAX's default by default.

    Raises:
        ValueError: a missing column, a cell that is not a finite number (the message names its line
            and column), trajectories of different lengths or steps, times that do not increase
            uniformly.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = [(i, line) for i, line in enumerate(file.read().splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} must hold a header line and rows, got an empty file")
    header = [cell.strip() for cell in lines[0][1].split(delimiter)]
    special = (time,) if trajectory is None else (time, trajectory)
    columns = tuple(columns or (name for name in header if name not in special))
    missing = [name for name in (*special, *columns) if name not in header]
    if missing or not columns:
        raise ValueError(f"{path} must have columns {[*special, *columns]}, got header {header}")
    wanted = [header.index(name) for name in (time, *columns)]
    groups: dict[str, list[list[float]]] = {}
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in line.split(delimiter)]
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {number} must have {len(header)} cells, got {len(cells)}"
            )
        row = [_finite_cell(cells[i], f"{path}, line {number}, column {header[i]}") for i in wanted]
        name = "" if trajectory is None else cells[header.index(trajectory)]
        groups.setdefault(name, []).append(row)
    lengths = {name: len(rows) for name, rows in groups.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path} must have equally many rows a trajectory, got {lengths}")
    table = np.asarray(list(groups.values()))
    times = table[:, :, 0]
    for name, own in zip(groups, times, strict=True):
        require_uniform(f"{path}, {time} of trajectory {name!r}", own)
    grid = times - times[:, :1]
    if not np.allclose(grid, grid[:1], rtol=0, atol=1e-4 * grid[0, 1]):
        steps = dict(zip(groups, grid[:, 1].tolist(), strict=True))
        raise ValueError(f"{path} must have one time step for all trajectories, got {steps}")
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    ys = floating_array("the table", table[:, :, 1:], dtype)
    return from_arrays(grid[0], ys, t0s=times[:, 0], names=columns, system=Path(path).name)


def save_npz(path: str | os.PathLike, trajectories: Trajectories) -> None:
    """Write trajectories with their names and system; the file appears whole or not at all."""
    path = Path(path)
    metadata = {
        "format": _FORMAT,
        "names": trajectories.names,
        "system": trajectories.system,
        "dt": trajectories.dt,
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez(
                file,
                ts=np.asarray(trajectories.ts),
                ys=np.asarray(trajectories.ys),
                t0s=np.asarray(trajectories.t0s),
                metadata=np.asarray(json.dumps(metadata)),
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_npz(path: str | os.PathLike, *, dtype: DTypeLike | None = None) -> Trajectories:
    """Read what `save_npz` wrote, with every check of `from_arrays`.

    Raises:
        ValueError: the file was not written by `save_npz` or is damaged, or holds float64 while
            JAX's x64 mode is off and no `dtype` asks for rounding.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            ts, ys, t0s = file["ts"], file["ys"], file["t0s"]
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} must be a file that save_npz wrote: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} must have format {_FORMAT!r}, got {metadata.get('format')!r}")
    return from_arrays(
        ts, ys, t0s=t0s, names=metadata["names"], system=metadata["system"], dtype=dtype
    )


def _finite_cell(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{where} must be a finite number, got {text!r}")
    return value
