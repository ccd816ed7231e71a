"""Trajectories as data: next-step pairs, windows, splits, standardisation, files."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from physml._numerics.checks import floating_array, is_concrete, require_finite, require_uniform


class Pairs(NamedTuple):
    """States, the states one step later, and the times of the former."""

    inputs: Float[Array, "n dim"]
    targets: Float[Array, "n dim"]
    times: Float[Array, " n"]


class Windows(NamedTuple):
    """Stretches of consecutive states, and the time of each stretch's first row."""

    ys: Float[Array, "n length dim"]
    times: Float[Array, " n"]


class Trajectories(eqx.Module):
    """Trajectories of one system on one uniform grid of relative times.

    Trajectory i is `ys[i]`, at the times `t0s[i] + ts`. `trajectories[index]` selects
    trajectories by a slice or an integer array, `len(trajectories)` counts them.

    Attributes:
        ts: the grid, relative to each trajectory's start.
        ys: the states.
        t0s: each trajectory's start time; it matters where the system is driven.
        names: the names of the state's components.
        system: what made the data, for the record.

    Raises:
        ValueError: shapes that do not fit together, fewer than two times, or a grid that does
            not increase uniformly.
    """

    ts: Float[Array, " time"]
    ys: Float[Array, "num time dim"]
    t0s: Float[Array, " num"]
    names: tuple[str, ...] = eqx.field(static=True)
    system: str = eqx.field(static=True, default="")

    def __check_init__(self):
        num, time, dim = self.ys.shape
        if self.ts.shape[0] != time or time < 2 or num < 1 or dim < 1:
            raise ValueError(
                "ys must have shape (num, time, dim) with num >= 1, dim >= 1 and the "
                f"time >= 2 of ts, got ys {self.ys.shape} and ts {self.ts.shape}"
            )
        if self.t0s.shape != (num,):
            raise ValueError(f"t0s must have shape ({num},), got {self.t0s.shape}")
        if len(self.names) != dim:
            raise ValueError(f"names must have {dim} entries, got {self.names}")
        if is_concrete(self.ts):
            require_uniform("ts", np.asarray(self.ts))

    @property
    def dt(self) -> float:
        """The time step, the grid's span over its number of steps."""
        return float(self.ts[-1] - self.ts[0]) / (self.ts.shape[0] - 1)

    def __len__(self) -> int:
        return self.ys.shape[0]

    def __getitem__(self, index: slice | Int[Array | np.ndarray, " k"]) -> "Trajectories":
        return Trajectories(self.ts, self.ys[index], self.t0s[index], self.names, self.system)

    def pairs(self) -> Pairs:
        """The next-step pairs (y_j, y_{j+1}) of every trajectory, none across two.

        num trajectories of m + 1 rows give exactly num * m pairs, trajectory by trajectory, in
        order of time.
        """
        dim = self.ys.shape[2]
        return Pairs(
            self.ys[:, :-1].reshape(-1, dim),
            self.ys[:, 1:].reshape(-1, dim),
            (self.t0s[:, None] + self.ts[None, :-1]).reshape(-1),
        )

    def windows(self, length: int, stride: int = 1) -> Windows:
        """All stretches of `length` rows that start every `stride` rows, none across two.

        Raises:
            ValueError: `length` is not in 1..time, or `stride` < 1.
        """
        time = self.ys.shape[1]
        if not 1 <= length <= time:
            raise ValueError(f"length must be in 1..{time}, the rows there are, got {length}")
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        return _windows(self, length, stride)


@eqx.filter_jit  # one program in place of a dozen small ones
def _windows(trajectories: Trajectories, length: int, stride: int) -> Windows:
    num, time, dim = trajectories.ys.shape
    first = np.arange(0, time - length + 1, stride)
    rows = first[:, None] + np.arange(length)[None, :]
    return Windows(
        trajectories.ys[:, rows].reshape(num * len(first), length, dim),
        (trajectories.t0s[:, None] + trajectories.ts[first][None, :]).reshape(-1),
    )


def split(
    trajectories: Trajectories, fractions: Sequence[float], key: PRNGKeyArray
) -> tuple[Trajectories, ...]:
    """A random partition by whole trajectories, so that no part has seen another's.

    Example:
        train, valid, test = split(trajectories, (0.8, 0.1, 0.1), key)

    Raises:
        ValueError: the fractions are not positive or do not add to one, or a part is empty.
    """
    shares = np.asarray(fractions, float)
    if shares.ndim != 1 or shares.size == 0 or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and add to 1, got {tuple(fractions)}")
    num = len(trajectories)
    edges = np.rint(np.cumsum(shares) * num).astype(int)
    sizes = np.diff(edges, prepend=0)
    if (sizes == 0).any():
        raise ValueError(
            f"fractions {tuple(fractions)} of {num} trajectories leave a part empty: "
            f"sizes {tuple(sizes.tolist())}"
        )
    order = np.asarray(jax.random.permutation(key, num))
    return tuple(trajectories[part] for part in np.split(order, edges[:-1]))


class Standardizer(eqx.Module):
    """The affine map to mean 0 and standard deviation 1, per component.

    `standardizer(x)` is (x - mean) / std and `inverse` undoes it, on arrays (..., dim). A
    component that is constant has std 1: it is centred and otherwise left alone.
    """

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]

    @classmethod
    def fit(cls, x: Float[Array, "*batch dim"]) -> "Standardizer":
        """Mean and (population) standard deviation over all axes but the last.

        Raises:
            ValueError: x has no rows, or values that are not finite.
        """
        x = floating_array("x", x)
        if x.ndim < 2 or x.size == 0:
            raise ValueError(f"x must have shape (..., dim) with rows in it, got {x.shape}")
        require_finite("x", x)
        rows = x.reshape(-1, x.shape[-1])
        mean = rows.mean(axis=0)
        std = jnp.sqrt(jnp.mean((rows - mean[None]) ** 2, axis=0))
        constant = std <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
        return cls(mean, jnp.where(constant, 1.0, std))

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        return (x - jnp.broadcast_to(self.mean, x.shape)) / jnp.broadcast_to(self.std, x.shape)

    def inverse(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """x * std + mean."""
        return x * jnp.broadcast_to(self.std, x.shape) + jnp.broadcast_to(self.mean, x.shape)


def from_arrays(
    ts: Any,
    ys: Any,
    *,
    t0s: Any = None,
    names: Sequence[str] | None = None,
    system: str = "",
    dtype: Any = None,
) -> Trajectories:
    """A user's own trajectories, checked.

    Args:
        ts: uniform times (time,). Without `t0s` they are the trajectories' own times.
        ys: states (num, time, dim), or (time, dim) for one trajectory.
        t0s: start times (num,); then `ts` is relative to them.
        names: names of the components; y0, y1, ... by default.
        dtype: a floating dtype; that of `ys` by default.

    Raises:
        ValueError: shapes that do not fit, times that do not increase uniformly, NaN or
            infinities (the first is named), float64 while JAX's x64 mode is off.
        TypeError: values that are not real numbers.
    """
    ys = floating_array("ys", ys, dtype)
    ys = ys[None] if ys.ndim == 2 else ys
    if ys.ndim != 3 or ys.size == 0:
        raise ValueError(f"ys must have shape (num, time, dim) or (time, dim), got {ys.shape}")
    require_finite("ys", ys)
    times = np.asarray(ts, float)
    require_uniform("ts", times)
    starts = np.full(len(ys), times[0]) if t0s is None else np.asarray(t0s, float)
    require_finite("t0s", starts)
    if ys.shape[:2] != (*starts.shape, *times.shape):
        raise ValueError(
            f"ys of shape {ys.shape} needs ts of shape ({ys.shape[1]},) and t0s of shape "
            f"({ys.shape[0]},), got {times.shape} and {starts.shape}"
        )
    return Trajectories(
        jnp.asarray(times - times[0] if t0s is None else times, ys.dtype),
        ys,
        jnp.asarray(starts, ys.dtype),
        tuple(names) if names is not None else tuple(f"y{i}" for i in range(ys.shape[2])),
        system,
    )


def to_csv(path: str | os.PathLike, trajectories: Trajectories, *, trajectory: str) -> None:
    """Write trajectories as a table that `from_csv` reads back to the last bit.

    The header holds the name `trajectory`, "t", which is the time since each trajectory's start,
    and the names of the state; the rows of one trajectory, numbered from 0, follow another's.

    Args:
        path: the file; what it held is replaced.
        trajectory: the name of the column that says which trajectory a row belongs to.
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
    dtype: Any = None,
) -> Trajectories:
    """Trajectories from a table with a header line, one state a row.

    Args:
        path: the file.
        time: the name of the time column.
        trajectory: the name of a column that says which trajectory a row belongs to (any
            text; rows of one need not be adjacent). Without it the file is one trajectory.
        columns: the state's columns; all others by default.
        delimiter: what separates columns.
        dtype: a floating dtype; JAX's default by default.

    Raises:
        ValueError: a missing column, a cell that is not a finite number (its line and column
            are named), trajectories of different lengths or steps, times that do not increase
            uniformly.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = [(i, line) for i, line in enumerate(file.read().splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty, expected a header line and rows")
    header = [cell.strip() for cell in lines[0][1].split(delimiter)]
    special = (time,) if trajectory is None else (time, trajectory)
    columns = tuple(columns or (name for name in header if name not in special))
    missing = [name for name in (*special, *columns) if name not in header]
    if missing or not columns:
        raise ValueError(f"{path} must have columns {[*special, *columns]}, its header is {header}")
    wanted = [header.index(name) for name in (time, *columns)]
    groups: dict[str, list[list[float]]] = {}
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in line.split(delimiter)]
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {number}: expected {len(header)} cells, got {len(cells)}"
            )
        row = [_finite_cell(cells[i], f"{path}, line {number}, column {header[i]}") for i in wanted]
        name = "" if trajectory is None else cells[header.index(trajectory)]
        groups.setdefault(name, []).append(row)
    lengths = {name: len(rows) for name, rows in groups.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: trajectories must have equally many rows, got {lengths}")
    table = np.asarray(list(groups.values()))
    times = table[:, :, 0]
    for name, own in zip(groups, times, strict=True):
        require_uniform(f"{path}, {time} of trajectory {name!r}", own)
    grid = times - times[:, :1]
    if not np.allclose(grid, grid[:1], rtol=0, atol=1e-4 * grid[0, 1]):
        raise ValueError(f"{path}: trajectories must share one time step")
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    ys = floating_array("the table", table[:, :, 1:], dtype)
    return from_arrays(grid[0], ys, t0s=times[:, 0], names=columns, system=Path(path).name)


def save_npz(path: str | os.PathLike, trajectories: Trajectories) -> None:
    """Writes trajectories and what is known of them; the file appears whole or not at all."""
    path = Path(path)
    metadata = {
        "format": "physml.trajectories/1",
        "names": trajectories.names,
        "system": trajectories.system,
        "dt": trajectories.dt,
    }
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(
                file,
                ts=np.asarray(trajectories.ts),
                ys=np.asarray(trajectories.ys),
                t0s=np.asarray(trajectories.t0s),
                metadata=np.asarray(json.dumps(metadata)),
            )
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_npz(path: str | os.PathLike, *, dtype: Any = None) -> Trajectories:
    """Reads what `save_npz` wrote, with every check of `from_arrays`.

    Raises:
        ValueError: the file is not one of ours or is damaged, or holds float64 while JAX's
            x64 mode is off and no `dtype` says to round.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            ts, ys, t0s = file["ts"], file["ys"], file["t0s"]
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is no file of trajectories that save_npz wrote") from error
    if metadata.get("format") != "physml.trajectories/1":
        raise ValueError(f"{path} has format {metadata.get('format')!r}, which is not known here")
    return from_arrays(
        ts, ys, t0s=t0s, names=metadata["names"], system=metadata["system"], dtype=dtype
    )


def _finite_cell(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: expected a number, got {text!r}") from None
    if not np.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {text!r}")
    return value
