"""Trajectories to and from data sets of xarray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import DTypeLike

from physml._numerics.calls import require_instance
from physml._numerics.checks import require_installed
from physml.data._arguments import checked_names
from physml.data._tables import START
from physml.data._trajectories import Trajectories, from_arrays

_TRAJECTORY, _TIME = "trajectory", "time"


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
