"""One window: a network on a frozen hidden layer, fitted to the equation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.collocation import Tables, VectorField

_MOST_PICARD = 60  # more would cost as much as Gauss-Newton


class Window(NamedTuple):
    r"""The network of the window [start, start + span].

    With $s = 2 (t - start) / span - 1$ it is
    $u(t) = y + \frac{span}{2} ((s + 1) f + \sum_j (\phi_j(s) - \phi_j(-1)) C_j)$,
    which is y at the start whatever the readout C.
    """

    start: Float[Array, ""]
    span: Float[Array, ""]
    y: Float[Array, " dim"]
    slope: Float[Array, " dim"]  # f above: the right-hand side near the start
    coefficients: Float[Array, "rank dim"]  # of C in the tables' basis
    error: Float[Array, ""]  # the residual in units of the tolerance; infinite if not solved
    contracted: Bool[Array, ""]  # the fixed-point iterations
    num_iterations: Int[Array, ""]


def fit_window(
    field: VectorField,
    tables: Tables,
    start: Float[Array, ""],
    span: Float[Array, ""],
    y: Float[Array, " dim"],
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> Window:
    r"""Find the readout that makes the residual $r = u' - f(t, u)$ vanish.

    First by fixed-point (Picard) iterations from C = 0, which subtract the projection of r on the
    derivative features and need no linear algebra: where the span is moderate in units of the
    time scale of f they contract faster than geometrically, as all Volterra equations do. Where
    they do not, as in stiff problems, Gauss-Newton minimises the integral of $r^2$, again from
    C = 0, in at most `max_steps`; each is a dense least-squares problem, solved by QR.

    The residual is judged in between the points it was brought down at: times the span, which
    makes it the change of u that it stands for, and relative to `atol + rtol max |u|` of each
    component.
    """
    half = span / 2
    times = start + half * (tables.points + 1)
    slope = field(times[0], y)
    (dim,), rank = y.shape, tables.rank
    root = jnp.sqrt(tables.weights)
    identity = jnp.eye(dim, dtype=y.dtype)
    slopes = jnp.einsum("p,pr,ij->ipjr", root, tables.slopes, identity)
    values = root[:, None] * tables.values

    def network(coefficients: Array, basis: Array, points: Array) -> Float[Array, "dim points"]:
        return y[:, None] + half * (jnp.outer(slope, points + 1) + coefficients @ basis.T)

    def size(step: Array, u: Array) -> Float[Array, ""]:
        """The change of u that a step makes, in units of the tolerance."""
        scale = atol + rtol * jnp.max(jnp.abs(u), axis=1)
        return jnp.max(jnp.max(jnp.abs(half * (step @ tables.values.T)), axis=1) / scale)

    def picard(carry):
        coefficients, last, _, count = carry
        u = network(coefficients, tables.values, tables.points)
        residual = slope[:, None] + coefficients @ tables.slopes.T - field(times, u)
        step = residual @ (tables.weights[:, None] * tables.slopes)
        return coefficients - step, size(step, u), last, count + 1

    def gauss_newton(carry):
        coefficients, _, count = carry
        u = network(coefficients, tables.values, tables.points)
        f, tangent = jax.linearize(lambda u: field(times, u), u)
        directions = jnp.broadcast_to(identity[:, :, None], (dim, *u.shape))
        jacobian = jax.vmap(tangent)(directions)  # (direction, component, point)
        residual = root[None] * (slope[:, None] + coefficients @ tables.slopes.T - f)
        matrix = slopes - half * jnp.einsum("pr,jip->ipjr", values, jacobian)
        matrix = matrix.reshape(dim * root.size, dim * rank)
        # The triangle of [A b] holds that of A, and Q^T b beside it.
        triangle = jnp.linalg.qr(
            jnp.concatenate([matrix, residual.reshape(-1, 1)], axis=1), mode="r"
        )
        step = jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
        step = step.reshape(dim, rank)
        return coefficients - step, size(step, u), count + 1

    zero, zeroth = jnp.zeros((dim, rank), y.dtype), jnp.asarray(0)
    most = jnp.asarray(jnp.finfo(y.dtype).max, y.dtype)
    # Down to round-off, and as long after that as it helps; not once u has grown a thousandfold.
    round_off = 16 * jnp.finfo(y.dtype).eps / rtol
    coefficients, last, _, tried = jax.lax.while_loop(
        lambda c: (
            ((c[1] > round_off) | (c[1] < 0.7 * c[2]))
            & (c[3] < _MOST_PICARD)
            & ((c[1] < 1e3 / rtol) | (c[3] == 0))
        ),
        picard,
        (zero, most, most, zeroth),
    )
    contracted = last <= round_off

    # Steps shrink quadratically: after one of ten tolerances the next would be far below one.
    small = 10.0
    coefficients, last, count = jax.lax.while_loop(
        lambda c: (c[1] > small) & (c[2] < max_steps),
        gauss_newton,
        (jnp.where(contracted, coefficients, zero), jnp.where(contracted, 0.0, most), zeroth),
    )

    u = network(coefficients, tables.check_values, tables.check_points)
    f = field(start + half * (tables.check_points + 1), u)
    residual = slope[:, None] + coefficients @ tables.check_slopes.T - f
    scale = atol + rtol * jnp.max(jnp.abs(u), axis=1)
    error = jnp.max(span * jnp.max(jnp.abs(residual), axis=1) / scale)
    solved: Bool[Array, ""] = (last <= small) & jnp.isfinite(error)
    error = jnp.where(solved, error, jnp.inf)
    return Window(start, span, y, slope, coefficients.T, error, contracted, tried + count)


def hand_over(tables: Tables, window: Window) -> Float[Array, " dim"]:
    """The network's value at the window's end, where the next window starts."""
    return window.y + window.span / 2 * (2 * window.slope + tables.end @ window.coefficients)
