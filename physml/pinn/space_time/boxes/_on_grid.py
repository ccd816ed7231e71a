"""A partial equation as a system of ordinary ones, for whatever takes systems."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml._types import Numbers
from physml.pinn.space_time._conditions import Face, checked_conditions
from physml.pinn.space_time._jets import PointResidual
from physml.pinn.space_time._problem import make_problem
from physml.pinn.space_time.boxes._grid import make_grid, space_of
from physml.pinn.space_time.boxes._lines import Lines
from physml.systems import System, from_function


class OnGrid(NamedTuple):
    """A partial equation on a grid: what `pinn.on_grid` returns.

    Attributes:
        system: how the values on the grid change, with the parameters as its `args`.
        start: these values at the start, from the conditions there.
        lines: the grid behind both.
    """

    system: System
    start: Float[Array, " dim"]
    lines: Lines

    @checked
    def at(self, **coordinates: Numbers) -> Callable[[Array], Array]:
        """A function of the state, u at places: what sensors there see.

        Args:
            coordinates: for each coordinate of space its values at the places, shape (k,).

        Returns:
            A function from (dim,) to (k,), or to (k * components,), the components of a place
            side by side.

        Raises:
            ValueError: a coordinate is missing, or lies outside the domain, or the shapes differ.
        """
        lines = self.lines
        problem, grid = lines.problem, lines.grid
        names = [problem.coordinates[i] for i in space_of(problem)]
        if {*coordinates} != {*names}:
            raise ValueError(
                f"coordinates must be {', '.join(names)}, got {', '.join(coordinates)}"
            )
        places = np.broadcast_arrays(*(np.atleast_1d(coordinates[name]) for name in names))
        weights = np.ones((len(places[0]), 1))
        for name, axis, x in zip(names, grid.axes, places, strict=True):
            if not np.all((x >= axis.low) & (x <= axis.high)):
                raise ValueError(f"{name} must lie in [{axis.low}, {axis.high}], got {x}")
            weights = np.einsum("ki,kj->kij", weights, axis.at(x)).reshape(len(x), -1)
        t0 = jnp.asarray(problem.intervals[lines.time, 0])

        def seen(state: Array) -> Array:
            return (jnp.asarray(weights, state.dtype) @ lines.values(t0, state)[0]).ravel()

        return seen


@checked
def on_grid(
    residual: PointResidual,
    domain: Mapping[str, tuple[float, float]],
    conditions: Mapping[Face, PointResidual],
    *,
    args: PyTree,
    points: int = 16,
    periodic: Collection[str] = (),
    components: int | None = None,
) -> OnGrid:
    r"""A partial differential equation as the system of its values on a grid, for `identify`.

    In space, u is the polynomial (in periodic coordinates the trigonometric one) through its
    values at Chebyshev-Lobatto points; the equation holds at the points, and the values on the
    faces follow from the conditions (the method of lines). What is left is a system of ordinary
    differential equations, whose parameters `pinn.identify` finds with their intervals::

        grid = pinn.on_grid(residual, domain, conditions, args={"diffusivity": 1.0})
        found = pinn.identify(
            grid.system, ts, ys, y0=grid.start, known_start=True,
            free=("diffusivity",), observe=grid.at(x=sensors),
        )

    Nothing says how far the grid is from the equation: solve it by `pinn.pde` with the values
    found, or find them again with more points.

    Args:
        residual: `residual(u, *point, args)`, otherwise as for `pinn.pde`, and linear in the
            highest derivative in t.
        domain: as for `pinn.pde`: t, and one or two coordinates of space. Of t the low end alone
            counts.
        conditions: as for `pinn.pde`, without the parameters; on the faces of space linear in u
            and constant in time, in t without derivatives in space.
        args: the parameters, a dictionary: the guess.
        points: of each coordinate.
        periodic, components: as for `pinn.pde`.

    Raises:
        TypeError, ValueError: as for `pinn.pde`; conditions that change in time.

    Example:
        >>> grid = pinn.on_grid(
        ...     lambda u, x, t, args: u.t(x, t) - args["k"] * u.xx(x, t),
        ...     {"x": (0.0, 1.0), "t": (0.0, 1.0)},
        ...     {
        ...         ("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(jnp.pi * x),
        ...         ("x", 0.0): lambda u, x, t: u(x, t),
        ...         ("x", 1.0): lambda u, x, t: u(x, t),
        ...     },
        ...     args={"k": 0.1},
        ... )
        >>> end = pinn.solve(grid.system, grid.start, 1.0)(1.0)
        >>> float(grid.at(x=[0.5])(end)[0].round(6)), float(jnp.exp(-0.1 * jnp.pi**2).round(6))
        (0.372708, 0.372708)
    """
    require_count(4, points=points)

    def known(u: object, *point: Array) -> Array | tuple[Array, ...]:
        return residual(u, *point, args)

    problem = make_problem(known, domain, periodic, components, None)
    if problem.time is None:
        raise ValueError(f"domain must have the coordinate t, got {dict(domain)}")
    problem = problem._replace(conditions=checked_conditions(problem, conditions))
    grid = make_grid(problem, (points,) * (problem.dim - 1))
    lines = Lines(problem._replace(residual=residual), grid, args)
    lines.require_constant_faces()
    start = jnp.asarray(lines.free(lines.start()), problem.dtype)
    system = from_function(lines, lines.dim, args=args, autonomous=False)
    return OnGrid(system, start, lines)
