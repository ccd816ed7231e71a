"""One window: a network on a frozen hidden layer, fitted to the equation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.collocation import Tables, Tolerance, VectorField, iterate
from physml.pinn.ivp._audit import audit

# Gauss-Newton's steps shrink quadratically: after a step of ten tolerances the next one would be
# far below one tolerance.
_SMALL_STEP = 10.0


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
    noise: Float[Array, ""]  # of the residual, in the same units: what rounding makes of it
    contracted: Bool[Array, ""]  # whether the fixed-point iterations did
    num_iterations: Int[Array, ""]


class _Ansatz(NamedTuple):
    """A window's network as a function of its coefficients, and the equation it has to fulfil."""

    field: VectorField
    tables: Tables
    tolerance: Tolerance
    start: Float[Array, ""]
    half: Float[Array, ""]  # of the span
    y: Float[Array, " dim"]
    slope: Float[Array, " dim"]

    def times(self, points: Float[Array, " points"]) -> Float[Array, " points"]:
        return self.start + self.half * (points + 1)

    def values(
        self, coefficients: Array, basis: Array, points: Array
    ) -> Float[Array, "dim points"]:
        ramp = jnp.outer(self.slope, points + 1)
        return self.y[:, None] + self.half * (ramp + coefficients @ basis.T)

    def size(self, step: Float[Array, "dim rank"], u: Array) -> Float[Array, ""]:
        """The change of u that a step makes, in units of the tolerance."""
        change = jnp.max(jnp.abs(self.half * (step @ self.tables.values.T)), axis=1)
        return jnp.max(change / self.tolerance.of(u))

    def picard(self, coefficients: Float[Array, "dim rank"]) -> tuple[Array, Array]:
        """A fixed-point step: subtract the residual's projection on the derivative features."""
        tables = self.tables
        u = self.values(coefficients, tables.values, tables.points)
        rates = self.field(self.times(tables.points), u)
        residual = self.slope[:, None] + coefficients @ tables.slopes.T - rates
        step = residual @ (tables.weights[:, None] * tables.slopes)
        return coefficients - step, self.size(step, u)

    def gauss_newton(self, coefficients: Float[Array, "dim rank"]) -> tuple[Array, Array]:
        """A step of Gauss-Newton, a dense least-squares problem that is solved by QR."""
        tables, (dim, rank) = self.tables, coefficients.shape
        root, identity = jnp.sqrt(tables.weights), jnp.eye(dim, dtype=coefficients.dtype)
        u = self.values(coefficients, tables.values, tables.points)
        times = self.times(tables.points)
        f, tangent = jax.linearize(lambda u: self.field(times, u), u)
        directions = jnp.broadcast_to(identity[:, :, None], (dim, *u.shape))
        jacobian = jax.vmap(tangent)(directions)  # (direction, component, point)
        residual = root[None] * (self.slope[:, None] + coefficients @ tables.slopes.T - f)
        slopes = jnp.einsum("p,pr,ij->ipjr", root, tables.slopes, identity)
        values = root[:, None] * tables.values
        matrix = slopes - self.half * jnp.einsum("pr,jip->ipjr", values, jacobian)
        matrix = matrix.reshape(dim * root.size, dim * rank)
        # The triangle of [A b] holds that of A, and Q^T b beside it.
        triangle = jnp.linalg.qr(
            jnp.concatenate([matrix, residual.reshape(-1, 1)], axis=1), mode="r"
        )
        step = jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
        step = step.reshape(dim, rank)
        return coefficients - step, self.size(step, u)


def fit_window(
    field: VectorField,
    tables: Tables,
    tolerance: Tolerance,
    start: Float[Array, ""],
    span: Float[Array, ""],
    margins: Float[Array, "2"],
    y: Float[Array, " dim"],
    max_steps: Int[Array, ""] | None,
) -> Window:
    r"""Find the readout that makes the residual $r = u' - f(t, u)$ vanish.

    Fixed-point iterations from C = 0 come first and need no linear algebra. Where the span is
    moderate in units of the time scale of f they contract faster than geometrically, as for all
    Volterra equations. Where they do not, as in stiff problems, Gauss-Newton minimises the
    integral of $r^2$, again from C = 0, in at most `max_steps` steps; without `max_steps` the
    program has no Gauss-Newton in it.

    The window's error is the residual where it was not fitted (see `audit`), times the span, which
    makes it a change of u, and relative to `atol + rtol max |u|` of each component. It is not
    judged closer to the start and to the end than the two `margins`.
    """
    half = span / 2
    slope = field(start + half * (tables.points[0] + 1), y)
    ansatz = _Ansatz(field, tables, tolerance, start, half, y, slope)
    zero = jnp.zeros((y.shape[0], tables.rank), y.dtype)
    # Iterate down to round-off, and beyond while it helps; give up after a step of a thousand |u|.
    round_off = 16 * jnp.finfo(y.dtype).eps / tolerance.rtol
    coefficients, last, tried = iterate(
        ansatz.picard, zero, enough=round_off, limit=1e3 / tolerance.rtol, polish=True
    )
    contracted = last <= round_off

    solved, count = contracted, tried
    if max_steps is not None:
        most = jnp.asarray(jnp.finfo(y.dtype).max, y.dtype)
        coefficients, last, steps = jax.lax.while_loop(
            lambda c: (c[1] > _SMALL_STEP) & (c[2] < max_steps),
            lambda c: (*ansatz.gauss_newton(c[0]), c[2] + 1),
            (
                jnp.where(contracted, coefficients, zero),
                jnp.where(contracted, 0.0, most),
                jnp.asarray(0),
            ),
        )
        solved, count = last <= _SMALL_STEP, tried + steps
    error, noise = audit(field, tables, tolerance, start, span, margins, y, slope, coefficients)
    error = jnp.where(solved & jnp.isfinite(error), error, jnp.inf)
    return Window(start, span, y, slope, coefficients.T, error, noise, contracted, count)


def hand_over(tables: Tables, window: Window) -> Float[Array, " dim"]:
    """The network's value at the window's end, where the next window starts."""
    return window.y + window.span / 2 * (2 * window.slope + tables.end @ window.coefficients)


def nodal_values(tables: Tables, windows: Window) -> Float[Array, "windows nodes dim"]:
    """The networks' values at the start, at the Gauss points, and at the end of their windows."""
    start, half = windows.y[:, None], windows.span[:, None, None] / 2
    edges = jnp.concatenate([tables.points + 1, jnp.full(1, 2.0, start.dtype)])
    basis = jnp.concatenate([tables.values, tables.end[None]])
    rest = jnp.einsum("pr,wrd->wpd", basis, windows.coefficients)
    ramp = windows.slope[:, None] * edges[None, :, None]
    return jnp.concatenate([start, start + half * (ramp + rest)], axis=1)
