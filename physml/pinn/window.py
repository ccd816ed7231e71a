"""One window: a network on a frozen hidden layer, fitted to the equation by Gauss-Newton."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.features import Tables

VectorField = Callable[[Array, Float[Array, "dim *batch"]], Float[Array, "dim *batch"]]


class Window(NamedTuple):
    r"""The network of the window [start, start + width].

    With $s = 2 (t - start) / width - 1$ it is
    $u(t) = y + \frac{width}{2} ((s + 1) f + \sum_j (\phi_j(s) - \phi_j(-1)) C_j)$,
    which is y at the start whatever the readout C.
    """

    start: Float[Array, ""]
    width: Float[Array, ""]
    y: Float[Array, " dim"]
    slope: Float[Array, " dim"]  # f above: the right-hand side near the start
    coefficients: Float[Array, "rank dim"]  # of C in the tables' basis
    error: Float[Array, ""]  # the residual in units of the tolerance; infinite if not solved
    num_iterations: Int[Array, ""]


def fit_window(
    field: VectorField,
    tables: Tables,
    start: Float[Array, ""],
    width: Float[Array, ""],
    y: Float[Array, " dim"],
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
    max_iterations: int,
) -> Window:
    r"""Minimise the integral of the squared residual $u' - f(t, u)$ over the readout.

    Gauss-Newton from C = 0; each step is a dense least-squares problem, solved by QR. The
    residual is judged in between the points it was minimised at: times the width, which makes it
    the change of u that it stands for, and relative to `atol + rtol max |u|` of each component.
    """
    half = width / 2
    times = start + half * (tables.points + 1)
    slope = field(times[0], y)
    (dim,), rank = y.shape, tables.rank
    root = jnp.sqrt(tables.weights)
    identity = jnp.eye(dim, dtype=y.dtype)
    slopes = jnp.einsum("p,pr,ij->ipjr", root, tables.slopes, identity)
    values = root[:, None] * tables.values

    def network(coefficients: Array, basis: Array, points: Array) -> Float[Array, "dim points"]:
        return y[:, None] + half * (jnp.outer(slope, points + 1) + (basis @ coefficients).T)

    def iterate(carry):
        coefficients, _, count = carry
        u = network(coefficients, tables.values, tables.points)
        f, tangent = jax.linearize(lambda u: field(times, u), u)
        directions = jnp.broadcast_to(identity[:, :, None], (dim, *u.shape))
        jacobian = jax.vmap(tangent)(directions)  # (direction, component, point)
        residual = root[None] * (slope[:, None] + (tables.slopes @ coefficients).T - f)
        matrix = slopes - half * jnp.einsum("pr,jip->ipjr", values, jacobian)
        matrix = matrix.reshape(dim * root.size, dim * rank)
        # The triangle of [A b] holds that of A, and Q^T b beside it.
        triangle = jnp.linalg.qr(
            jnp.concatenate([matrix, residual.reshape(-1, 1)], axis=1), mode="r"
        )
        step = jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
        step = step.reshape(dim, rank).T
        scale = atol + rtol * jnp.max(jnp.abs(u), axis=1)
        size = jnp.max(jnp.max(jnp.abs(half * (tables.values @ step)), axis=0) / scale)
        return coefficients - step, size, count + 1

    # Steps shrink quadratically: after one of ten tolerances the next would be far below one.
    small = 10.0
    start_of_search = (jnp.zeros((rank, dim), y.dtype), jnp.asarray(1e30, y.dtype), jnp.asarray(0))
    coefficients, size, count = jax.lax.while_loop(
        lambda carry: (carry[1] > small) & (carry[2] < max_iterations),
        iterate,
        start_of_search,
    )

    u = network(coefficients, tables.check_values, tables.check_points)
    f = field(start + half * (tables.check_points + 1), u)
    residual = slope[:, None] + (tables.check_slopes @ coefficients).T - f
    scale = atol + rtol * jnp.max(jnp.abs(u), axis=1)
    error = jnp.max(width * jnp.max(jnp.abs(residual), axis=1) / scale)
    solved: Bool[Array, ""] = (size <= small) & jnp.isfinite(error)
    error = jnp.where(solved, error, jnp.inf)
    return Window(start, width, y, slope, coefficients, error, count)


def hand_over(tables: Tables, window: Window) -> Float[Array, " dim"]:
    """The network's value at the window's end, where the next window starts."""
    return window.y + window.width / 2 * (2 * window.slope + tables.end @ window.coefficients)
