"""The solution of a partial equation on a box, as a function of space and time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml.pinn.space_time._jets import PointResidual
from physml.pinn.space_time._pointwise import Pointwise
from physml.pinn.space_time.boxes._lines import Lines
from physml.results import RESULTS
from physml.solution import Solution


class BoxSolution(Pointwise):
    """What `pinn.pde` returns in two coordinates of space and t: polynomials of networks in time.

    It is called as a `PDESolution` is: `solution(x, y, t)`, `solution.derivative("xx", x, y, t)`,
    `solution.residual(x, y, t)`, `solution.error_estimate(x, y, t)` and `solution.field`.

    The estimate of the error is one number for all places at a time: the largest error of the
    values on the grid in time, and the largest error of the grid itself, from what a coarser one
    found.

    Attributes:
        coordinates: the names of the coordinates, a letter each.
        domain: the interval of each coordinate; that of t ends at the time that was reached.
        in_time: the values at the points of the grid, the `Solution` of an initial value problem.
        result: how the solve ended, one of `RESULTS`.
        stats: what the solver counted.
    """

    coordinates: str = eqx.field(static=True)
    equation: PointResidual = eqx.field(static=True)
    components: int | None = eqx.field(static=True)
    lines: Lines = eqx.field(static=True)
    domain: Float[Array, "dim 2"]
    in_time: Solution
    times: Float[Array, " times"]  # at which the error in space was looked at
    errors: Float[Array, "times components"]  # of u, of the space alone
    result: RESULTS
    stats: dict[str, PyTree]

    def _evaluate(self, *point: Array) -> Array:
        lines = self.lines
        t = point[lines.time]
        places = [x for i, x in enumerate(point) if i != lines.time]
        u = lines.values(t, self.in_time.dense.evaluate(t))[0].reshape(*lines.grid.shape, -1)
        with jax.default_matmul_precision("highest"):
            for axis, x in zip(lines.grid.axes, places, strict=True):
                row = axis.functions(x) @ jnp.asarray(axis.modes, u.dtype)
                u = jnp.tensordot(row, u, 1)
        return u[0] if self.components is None else u

    def _error(self, point: Float[Array, " dim"]) -> Array:
        lines = self.lines
        t = point[lines.time]
        assert self.in_time.error is not None
        free = lines.grid.free
        in_time = jnp.zeros(lines.components * len(lines.grid.points), t.dtype)
        in_time = in_time.at[free].set(self.in_time.error(t)[: len(free)])
        in_time = in_time.reshape(lines.components, -1).max(axis=1)
        later = jnp.searchsorted(self.times, t)
        beside = jnp.stack([later - 1, later]).clip(0, len(self.times) - 1)
        in_space = self.errors[beside].max(axis=0)
        error = in_time + in_space
        return error[0] if self.components is None else error
