"""Trajectories from data frames of any library, none of which is imported; pandas and xarray."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml._numerics.calls import require_instance
from physml._numerics.checks import require_installed
from physml.data._arguments import checked_names
from physml.data._tables import START, Table, columns_of, find_time, read_trajectories
from physml.data._trajectories import Trajectories, from_arrays

_TRAJECTORY, _TIME = "trajectory", "time"


@runtime_checkable
class Frame(Protocol):
    """What a data frame of pandas, polars and others offers."""

    @property
    def columns(self) -> Sequence[object]: ...

    def to_numpy(self) -> np.ndarray: ...


def from_dataframe(
    frame: Frame,
    *,
    time: str | None = None,
    trajectory: str | None = None,
    columns: Sequence[str] | None = None,
    system: str = "",
    dtype: DTypeLike | None = None,
) -> Trajectories:
    """Trajectories from a data frame, one state a row.

    The frame is of pandas, of polars or of another library: it has `columns`, the names, and
    `to_numpy()`, an array (rows, columns). The columns are told apart as by `from_csv`. Without a
    column of times the index of a pandas frame is the time, unless it only counts rows.

    >>> import types
    >>> frame = types.SimpleNamespace(
    ...     columns=["time [s]", "x"], to_numpy=lambda: np.array([[0.0, 1.0], [0.5, 2.0]])
    ... )
    >>> data.from_dataframe(frame).ys.tolist()
    [[[1.0], [2.0]]]

    Args:
        frame: the table.
        time: the name of the time's column, or of the index; by default t or time.
        trajectory: the name of the column that says to which trajectory a row belongs. Without it
            the frame is one trajectory.
        columns: the state's columns; all others by default.
        system: the name of what made the data.
        dtype: a floating dtype; that of the frame's numbers by default.

    Returns:
        Trajectories of shape (num, time, dim), in the order of their first rows.

    Raises:
        TypeError: arguments of another kind.
        ValueError: a missing column, or two with one name; a cell that is not a finite number (the
            message names its row, counted from 0, and column); trajectories of different lengths
            or steps; times that do not increase uniformly; float64 while JAX's x64 mode is off.
    """
    if not isinstance(frame, Frame):
        raise TypeError(
            f"frame must be a data frame, with columns and to_numpy(), got {type(frame).__name__}"
        )
    require_instance(str, system=system)
    header, cells = [str(name) for name in frame.columns], np.asarray(frame.to_numpy())
    if cells.ndim != 2 or cells.shape[1] != len(header) or not cells.size:
        raise ValueError(
            f"frame must have rows and {len(header)} columns, got an array {cells.shape}"
        )
    dtype = _dtype(cells) if dtype is None else dtype
    in_index = _times_in_index(frame, header, time)
    if in_index is not None:
        name, times = in_index
        header, time = [*header, name], name
        cells = np.column_stack([cells.astype(object), times.astype(object)])
    table = Table(
        "frame",
        _place,
        header,
        column=lambda i: cells[:, i].tolist(),
        numbers=lambda columns: _numbers(header, cells, columns),
    )
    return read_trajectories(
        table, time=time, trajectory=trajectory, columns=columns, system=system, dtype=dtype
    )


def to_dataframe(trajectories: Trajectories, *, trajectory: str) -> Any:
    """A data frame of pandas, one state a row, which `from_dataframe` reads back to the last bit.

    Its columns are `trajectory` with the number of each trajectory, "t0" with the starts unless all
    times count from 0, "t" with the times `ts`, and the state's components by their names.

    >>> trajectories = data.from_arrays([0.0, 0.5], [[1.0], [2.0]], names=("x",))
    >>> frame = data.to_dataframe(trajectories, trajectory="run")
    >>> print(frame.to_string(index=False))
     run   t   x
       0 0.0 1.0
       0 0.5 2.0

    Args:
        trajectories: what is written, num * time rows of dim components.
        trajectory: the name of the column that says to which trajectory a row belongs.

    Raises:
        TypeError: arguments of another kind.
        ValueError: two columns would have one name.
        ImportError: pandas is not installed (`pip install "physml[frames]"`).
    """
    require_instance(Trajectories, trajectories=trajectories)
    require_instance(str, trajectory=trajectory)
    return require_installed("pandas", "frames").DataFrame(columns_of(trajectories, trajectory))


def to_xarray(trajectories: Trajectories) -> Any:
    """A data set of xarray with a variable (trajectory, time) for each component.

    The coordinate "time" holds the times `ts`, to which each trajectory's start, the coordinate
    "t0", is to be added. The system's name is an attribute. `from_xarray` reads it back.

    >>> trajectories = data.from_arrays([0.0, 0.5], [[1.0], [2.0]], names=("x",))
    >>> data.to_xarray(trajectories).x.sel(time=0.5).values
    array([2.])

    Raises:
        TypeError: arguments of another kind.
        ValueError: a component has the name of a coordinate: trajectory, time or t0.
        ImportError: xarray is not installed (`pip install "physml[frames]"`).
    """
    require_instance(Trajectories, trajectories=trajectories)
    taken = {_TRAJECTORY, _TIME, START} & set(trajectories.names)
    if taken:
        raise ValueError(f"names must differ from those of the coordinates, got {sorted(taken)}")
    ys = np.moveaxis(np.asarray(trajectories.ys), -1, 0)
    components = zip(trajectories.names, ys, strict=True)
    return require_installed("xarray", "frames").Dataset(
        {name: ((_TRAJECTORY, _TIME), values) for name, values in components},
        coords={
            _TRAJECTORY: np.arange(len(trajectories)),
            _TIME: np.asarray(trajectories.ts),
            START: (_TRAJECTORY, np.asarray(trajectories.t0s)),
        },
        attrs={"system": trajectories.system},
    )


def from_xarray(
    dataset: Any,
    *,
    time: str = _TIME,
    trajectory: str = _TRAJECTORY,
    columns: Sequence[str] | None = None,
    system: str | None = None,
    dtype: DTypeLike | None = None,
) -> Trajectories:
    """Trajectories from a data set of xarray, a variable for each component of the state.

    The variables have the axes (trajectory, time), in any order, or the time alone. The times are
    the coordinate of that axis. Where there is a coordinate "t0", they are relative to it.

    Args:
        dataset: an `xarray.Dataset`; `array.to_dataset("component")` makes one of an array.
        time: the name of the time's axis.
        trajectory: the name of the trajectories' axis.
        columns: the variables that are the state's components; all by default.
        system: the name of what made the data; the attribute of this name by default.
        dtype: a floating dtype; that of the first variable by default.

    Raises:
        TypeError: arguments of another kind.
        ValueError: a variable or coordinate that is missing or has other axes; values that are not
            finite; times that do not increase uniformly; float64 while JAX's x64 mode is off.
    """
    if not all(hasattr(dataset, name) for name in ("data_vars", "coords", "attrs")):
        raise TypeError(f"dataset must be an xarray.Dataset, got {type(dataset).__name__}")
    require_instance(str, time=time, trajectory=trajectory)
    listed = list(dataset.data_vars) if columns is None else checked_names("columns", columns)
    missing = [name for name in (*listed, time) if name not in dataset.variables]
    if missing or time not in dataset.coords or not listed:
        raise ValueError(
            f"dataset must have the variables {[*listed]} and the coordinate {time!r}, got "
            f"{list(dataset.variables)}"
        )
    axes = [axis for axis in (trajectory, time) if axis in dataset[listed[0]].dims]
    for name in listed:
        if {*dataset[name].dims} != {*axes, time}:
            raise ValueError(
                f"dataset must have variables with the axes {axes}, got {name!r} with "
                f"{list(dataset[name].dims)}"
            )
    ys = np.stack([dataset[name].transpose(*axes).values for name in listed], axis=-1)
    t0s = np.atleast_1d(dataset[START].values) if START in dataset.coords else None
    return from_arrays(
        dataset[time].values,
        ys,
        t0s=t0s,
        names=[str(name) for name in listed],
        system=str(dataset.attrs.get("system", "")) if system is None else system,
        dtype=dtype,
    )


def _dtype(cells: np.ndarray) -> DTypeLike:
    """The floating dtype of an array, JAX's default for integers, float64 where kinds are mixed."""
    if cells.dtype.kind in "iu":
        return jnp.zeros(()).dtype
    return cells.dtype if jnp.issubdtype(cells.dtype, jnp.floating) else np.dtype(float)


def _times_in_index(
    frame: Frame, header: list[str], time: str | None
) -> tuple[str, np.ndarray] | None:
    """The name and the times of an index that holds times, where no column does."""
    index = getattr(frame, "index", None)
    if index is None or callable(index):
        return None
    name, values = getattr(index, "name", None), np.asarray(index)
    if time is None:
        counts = name is None and values.dtype.kind in "iu"
        return None if counts or find_time("frame", header) is not None else (name or "t", values)
    return (time, values) if name == time and time not in header else None


def _place(row: int) -> str:
    return f"frame, row {row}"


def _numbers(header: list[str], cells: np.ndarray, columns: list[int]) -> np.ndarray:
    """Some of the columns as finite numbers (rows, columns)."""
    values = np.empty((len(cells), len(columns)))
    for to, i in enumerate(columns):
        for row, cell in enumerate(cells[:, i].tolist()):
            try:
                values[row, to] = np.nan if isinstance(cell, str | bool) else float(cell)
            except (TypeError, ValueError):  # dates, what pandas marks as missing
                values[row, to] = np.nan
            if not np.isfinite(values[row, to]):
                raise ValueError(
                    f"{_place(row)}, column {header[i]!r} must be a finite number, got {cell!r}: "
                    "fill what is missing, choose the columns of numbers by columns=, and count "
                    "times from a start in one unit"
                )
    return values
