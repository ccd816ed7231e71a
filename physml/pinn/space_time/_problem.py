"""A partial differential equation with its domain, checked."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml._numerics.checks import require_count, require_one_of
from physml.pinn.space_time._jets import Derivative, PointResidual, derivatives_in

# In the unit cube, in general position.
_POINTS = np.array([[0.31, 0.57, 0.43], [0.67, 0.23, 0.71], [0.13, 0.83, 0.37]])


class PDECondition(NamedTuple):
    """A residual on a face of the domain."""

    axis: int
    end: int  # 0 or 1
    residual: PointResidual
    derivatives: tuple[Derivative, ...]


class PDEProblem(NamedTuple):
    """An equation, its domain and its conditions."""

    coordinates: str
    axis: int  # the index of the coordinate that is cut into elements
    intervals: np.ndarray  # (dim, 2)
    residual: PointResidual
    derivatives: tuple[Derivative, ...]
    conditions: tuple[PDECondition, ...]
    periodic: frozenset[str]
    components: int | None
    dtype: DTypeLike

    @property
    def time(self) -> int | None:
        """The index of t."""
        return self.coordinates.index("t") if "t" in self.coordinates else None

    @property
    def orders(self) -> tuple[int, ...]:
        """The highest derivative of each coordinate."""
        return tuple(max(1, *orders) for orders in zip(*self.derivatives, strict=True))

    @property
    def stages(self) -> int:
        """The order in t; u and its lower derivatives in t are unknowns of their own."""
        return 1 if self.time is None else self.orders[self.time]

    @property
    def size(self) -> int:
        """The number of unknown functions."""
        return self.stages * (self.components or 1)

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return len(self.coordinates)


def make_problem(
    residual: PointResidual,
    domain: Mapping[str, tuple[float, float]],
    periodic: Collection[str],
    components: int | None,
    dtype: DTypeLike | None,
) -> PDEProblem:
    """The problem, still without conditions, with every static fact checked."""
    intervals = _intervals(domain)
    coordinates = "".join(domain)
    if components is not None:
        require_count(components=components)
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    require_one_of((jnp.dtype("float32"), jnp.dtype("float64")), dtype=dtype)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"dtype must be float32 while jax_enable_x64 is off, got {dtype}")
    for name in periodic:
        if name not in domain or name == "t":
            raise ValueError(f"periodic must name coordinates of space, got {name!r}")
    residual, derivatives, num_rows = derivatives_in(
        "residual", residual, coordinates, components, points_inside(intervals)
    )
    if num_rows != (components or 1):
        raise ValueError(
            f"residual must return a number for each of {components or 1} components, "
            f"got {num_rows}"
        )
    axis = next(i for i, name in enumerate(coordinates) if name != "t")
    return PDEProblem(
        coordinates,
        axis,
        intervals,
        residual,
        derivatives,
        (),
        frozenset(periodic),
        components,
        dtype,
    )


def points_inside(intervals: np.ndarray) -> np.ndarray:
    """Three points of the domain in general position, (3, dim)."""
    return intervals[:, 0] + np.ptp(intervals, axis=1) * _POINTS[:, : len(intervals)]


def _intervals(domain: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """The intervals of all coordinates, (dim, 2)."""
    for name, interval in domain.items():
        if len(name) != 1 or not name.isalpha():
            raise ValueError(f"domain must name coordinates by single letters, got {name!r}")
        low, high = interval
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"domain[{name!r}] must be finite with low < high, got {interval}")
    if not set(domain) - {"t"}:
        raise ValueError(f"domain must have a coordinate of space, got {dict(domain)}")
    if len(set(domain) - {"t"}) > 2:
        raise ValueError(f"domain must have at most two coordinates of space, got {dict(domain)}")
    return np.array([[float(low), float(high)] for low, high in domain.values()])
