"""The error of a solution by window networks, from its residual along the linearised flow."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.polynomial import legendre

from physml._double_double import DoubleDouble, add, exact, mul, two_sum
from physml._elementary import constant, negative
from physml._extended import in_double_double, total
from physml.pinn.features import Tables, gauss
from physml.pinn.window import Window
from physml.solution import Dense


class Polynomials(Dense):
    """A polynomial in each window; buffers as in `WindowNetworks`."""

    starts: Float[Array, " windows"]
    widths: Float[Array, " windows"]
    coefficients: Float[Array, "windows terms dim"]  # of Legendre polynomials in s

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t), by the polynomial of the window that t lies in."""
        index = jnp.maximum(jnp.searchsorted(self.starts, t, side="right") - 1, 0)
        s = (t - self.starts[index]) / (self.widths[index] / 2) - 1
        coefficients = self.coefficients[index]

        def step(carry, n):
            last, current = carry
            return (current, ((2 * n + 1) * s * current - n * last) / (n + 1)), current

        degrees = jnp.arange(coefficients.shape[0]).astype(s.dtype)
        _, terms = jax.lax.scan(step, (jnp.zeros_like(s), jnp.ones_like(s)), degrees)
        with jax.default_matmul_precision("highest"):
            return terms @ coefficients

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """The derivative of the polynomial."""
        return jax.jvp(self.evaluate, (t,), (jnp.ones_like(t),))[1]


class Error(eqx.Module):
    """The distance of a solution from its corrected form."""

    solved: Dense
    corrected: Dense

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        error = jnp.abs(self.solved.evaluate(t) - self.corrected.evaluate(t))
        return jnp.where(jnp.isnan(error), jnp.inf, error)


def correct(
    field: Callable,
    tables: Tables,
    windows: Window,
    count: Int[Array, ""],
    end: Float[Array, ""],
) -> tuple[Polynomials, Float[Array, "windows points dim"]]:
    r"""Windows corrected by what their residual amounts to, and the corrections.

    In exact arithmetic the solution is a polynomial in each window through the values $u_i$ of its
    network at the Gauss points, and jumps by a rounding from one window to the next. With W the
    integrals of the points' Lagrange polynomials its defect and, to first order, its distance c
    from the truth are

    $$r_i = u_0 + \tfrac h2 \sum_j W_{ij} f(t_j, u_j) - u_i, \qquad
    c_i = c_0 + \tfrac h2 \sum_j W_{ij} f'(t_j, u_j)\, c_j + r_i.$$

    r is at the level of rounding and is computed in double-double, so that c, carried from window
    to window, is the error itself with its sign and not a bound.
    """
    points = tables.points
    quadrature = gauss(points.shape[0])
    nodes = constant(np.array([Fraction(float(x)) for x in quadrature.points]), points)
    integrals = constant(quadrature.integrals, points)
    extended = in_double_double(field)
    dim = windows.y.shape[1]
    identity = jnp.eye(dim, dtype=points.dtype)
    one = exact(jnp.ones_like(points))

    # All at once and before the loop: computed where it is used, u could be rounded differently
    # from one use to the next.
    ramp = windows.slope[:, None] * (points + 1)[None, :, None]
    ramp = ramp + jnp.einsum("pr,wrd->wpd", tables.values, windows.coefficients)
    reach = 2 * windows.slope + jnp.einsum("r,wrd->wd", tables.end, windows.coefficients)
    half = windows.width[:, None] / 2
    u = windows.y[:, None] + half[:, None] * ramp
    values = jnp.concatenate(
        [windows.y[:, None], u, (windows.y + half * reach)[:, None]], axis=1
    )

    def advance(k, carry):
        truth, corrections = carry
        last = k + 1 == count
        close = jnp.where(last, end, windows.start[jnp.where(last, k, k + 1)])
        half = jax.tree.map(lambda x: 0.5 * x, two_sum(close, -windows.start[k]))
        spread = lambda x, like: jax.tree.map(lambda part: jnp.broadcast_to(part, like.shape), x)
        times = add(
            exact(jnp.broadcast_to(windows.start[k], points.shape)),
            mul(spread(half, points), add(nodes, one)),
        )
        y, reached = values[k, 0], values[k, 1:]
        u = reached[:-1].T
        rates = extended(times, exact(u))
        shape = (integrals.hi.shape[0], dim, points.shape[0])
        products = mul(
            jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], shape), integrals),
            jax.tree.map(lambda x: jnp.broadcast_to(x, shape), rates),
        )
        integral = total(products, (2,))  # (points + 1, dim)
        change = mul(spread(half, integral.hi), integral)
        rest = two_sum(jnp.broadcast_to(y, reached.shape), -reached)
        defect = add(change, rest).hi
        start = add(truth, exact(-y)).hi
        _, tangent = jax.linearize(lambda u: field(times.hi, u), u)
        directions = jnp.broadcast_to(identity[:, :, None], (dim, *u.shape))
        jacobian = half.hi * jax.vmap(tangent)(directions)  # (direction, component, point)
        flow = jnp.einsum("pq,jiq->piqj", integrals.hi, jacobian).reshape(-1, dim * points.shape[0])
        known = (start + defect).reshape(-1)
        size = dim * points.shape[0]
        inside = jnp.linalg.solve(jnp.eye(size, dtype=u.dtype) - flow[:size], known[:size])
        c_end = known[size:] + flow[size:] @ inside
        c = jnp.concatenate([start[None], inside.reshape(-1, dim), c_end[None]])
        return two_sum(reached[-1], c_end), corrections.at[k].set(c)

    size = windows.start.shape[0]
    _, corrections = jax.lax.fori_loop(
        0, count, advance, (exact(windows.y[0]), jnp.zeros_like(values))
    )
    positions = np.concatenate([[-1.0], quadrature.points, [1.0]])
    transform = np.linalg.inv(legendre.legvander(positions, len(positions) - 1))
    coefficients = jnp.einsum(
        "np,wpd->wnd", jnp.asarray(transform, points.dtype), values + corrections
    )
    used = jnp.arange(size) < count
    starts = jnp.where(used, windows.start, jnp.inf)
    return Polynomials(starts, windows.width, coefficients), corrections
