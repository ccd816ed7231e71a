"""The error of any approximate solution: its residual, carried along the linearised flow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.quadrature import all_nodes
from physml._numerics.units import max_of
from physml.pinn.collocation._linearised import VectorField, defect, linearise, nodes_in
from physml.pinn.collocation._pieces import Polynomials
from physml.solution import Dense
from physml.systems import System

_NUM_POINTS = 8  # Gauss points in a window of `estimate`


class Error(eqx.Module):
    """The absolute error of each component as a function of a scalar time."""

    signed: Polynomials
    resolution: Float[Array, "windows dim"]  # what a window's polynomial and dtype leave out

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        index, signed = self.signed.piece(t)
        error = jnp.abs(signed) + self.resolution[index]
        return jnp.where(jnp.isnan(error), jnp.inf, error)


def estimate(
    field: VectorField,
    dense: Dense,
    y0: Float[Array, " dim"],
    t0: Float[Array, ""],
    t1: Float[Array, ""],
    num_windows: int,
) -> Error:
    r"""The error of any approximate trajectory u: its residual, carried along the linearised flow.

    The error $c = y - u$ starts from $y_0 - u(t_0)$ and obeys, to first order,

    $$\dot c = f_y(t, u)\, c + f(t, u) - \dot u.$$

    It is solved by Gauss collocation in equal windows, in integral form: if u passes from one
    solution to another between two points, no point may show its residual, but the integral does.
    Once the error is no longer small, a large estimate means "large"; its value means nothing.

    Args:
        field: f(t, u) of times (points,) and states (dim, points).
        dense: u.
        y0: the state at `t0`, which u may miss.
        t0, t1: where u starts and ends.
        num_windows: so many that u and f(t, u) are smooth in each window.
    """
    dtype, dim = y0.dtype, y0.shape[0]
    starts = t0 + (t1 - t0) * jnp.asarray(np.arange(num_windows) / num_windows, dtype)
    span = (t1 - t0) / num_windows
    nodes = jnp.asarray(all_nodes(_NUM_POINTS) + 1, dtype)
    ones = jnp.tile(jnp.eye(dim, dtype=dtype)[:, None], (1, _NUM_POINTS + 1, 1))

    def window(start: Array) -> tuple[Array, Array]:
        """Returns u at the nodes, and [A, b] of c = A c_0 + b at all nodes but the first."""
        values = jax.vmap(dense.evaluate)(start + span / 2 * nodes)
        window = nodes_in(start, span, _NUM_POINTS)
        missing = defect(field, window, values.T)
        known = jnp.concatenate([ones, missing[:, :, None]], axis=2)
        return values, linearise(field, window, values.T).solve(known)

    def carry_over(error: Array, step: Array) -> tuple[Array, Array]:
        later = step[:, :, :dim] @ error + step[:, :, dim]
        later = jnp.concatenate([error[:, None], later], axis=1).T
        return later[-1], later

    with jax.default_matmul_precision("highest"):
        values, maps = jax.vmap(window)(starts)
        _, errors = jax.lax.scan(carry_over, y0 - values[0, 0], maps)
        signed = Polynomials.through(starts, jnp.full_like(starts, span), errors)
    rounding = 2.0 * jnp.finfo(dtype).eps * max_of(jnp.abs(values), axis=1)
    return Error(signed, rounding)


class OnDemand(eqx.Module):
    """`estimate` as the error of a solution, computed only when it is asked for.

    Attributes:
        system, args: the equation.
        dense, y0, t0, t1, num_windows: as for `estimate`.
    """

    system: System
    args: PyTree
    dense: Dense
    y0: Float[Array, "*batch dim"]
    t0: Float[Array, "*batch"]
    t1: Float[Array, "*batch"]
    num_windows: int = eqx.field(static=True)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        def field(t: Array, y: Array) -> Array:
            return self.system(t, y, self.args)

        # The estimate does not depend on t: for many times at once it is computed once.
        return estimate(field, self.dense, self.y0, self.t0, self.t1, self.num_windows)(t)
