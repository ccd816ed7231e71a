"""The error of a solution by window networks: their residual, carried along the linearised flow."""

from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int
from numpy.polynomial import legendre

from physml._double_double import DoubleDouble, add, dot, exact, mul, neg, rational, two_sum
from physml._extended import in_double_double
from physml.pinn.dense import Polynomials
from physml.pinn.features import Tables, gauss
from physml.pinn.window import VectorField, Window

_CORRECTIONS = 2  # the first is made, the second is the estimate of what it left


class Error(eqx.Module):
    """The absolute error of each component as a function of a scalar time."""

    signed: Polynomials
    resolution: Float[Array, "windows dim"]  # of a window's values, by its polynomial and dtype

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        index = jnp.maximum(jnp.searchsorted(self.signed.starts, t, side="right") - 1, 0)
        error = jnp.abs(self.signed.evaluate(t)) + self.resolution[index]
        return jnp.where(jnp.isnan(error), jnp.inf, error)


class Corrected(NamedTuple):
    """A solution less its error, and an estimate of what is left of that."""

    coefficients: Float[Array, "windows terms dim"]  # of Legendre polynomials in s
    error: Error
    trusted: Bool[Array, ""]  # whether half of the digits asked for are left


def correct(
    field: VectorField,
    tables: Tables,
    windows: Window,
    count: Int[Array, ""],
    end: Float[Array, ""],
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
) -> Corrected:
    r"""Subtract a solution's error, which its residual says to first order, and estimate the rest.

    At the Gauss points of a window let $u_i$ be the values of its network, and $u_0$ its start.
    With W the integrals of the points' Lagrange polynomials and h the width, their defect r and
    what has to be added to them, c, are

    $$r_i = u_0 + \tfrac h2 \sum_j W_{ij} f(t_j, u_j) - u_i, \qquad
    c_i = c_0 + r_i + \tfrac h2 \sum_j W_{ij} f_y(t_j, u_j)\, c_j.$$

    The same at the end gives $c_0$ of the next window. A good network's defect is at the level of
    rounding: it is taken in double-double, so that c is the error with its sign and not a bound.
    The second time it is the first's, of second order, and the error that is left.

    To that comes what the polynomials do not hold: the next term of each, by the decay of the last
    ones, and rounding. Where f repels faster than a window can follow, $\mathrm{Re}\,\lambda(f_y)
    \, h$ above the number of points, the error is infinite from there on: any other solution would
    have left. From where a correction is a tenth of the solution, it is not made.

    Args:
        field: f(t, u) of times (points,) and states (dim, points).
        tables: those that the windows were fitted with.
        windows: with a leading axis, longer than or as long as their number.
        count: the number of windows.
        end: where the last one ends.
        rtol, atol: the tolerances that the windows were fitted to.

    Source: P. E. Zadunaisky, On the estimation of errors propagated in the numerical integration
    of ordinary differential equations, Numer. Math. 27 (1976) 21, for errors by the defect.
    """
    num_points, size = tables.points.shape[0], windows.start.shape[0]
    used = jnp.arange(size) < count
    ends = jnp.append(windows.start[1:], end)
    ends = jnp.where(jnp.arange(size) + 1 == count, end, ends)
    values = nodal_values(tables, windows)
    scale = jnp.max(jnp.abs(values), axis=(0, 1), where=used[:, None, None], initial=0.0)

    def correction(_: Any, carry: Any) -> Any:
        values, *_ = carry

        def advance(k, carry):
            truth, growth, corrections, growths = carry
            y = jax.tree.map(lambda x: x[k], values)
            step, repelled = _window_correction(field, tables, windows.start[k], ends[k], y, truth)
            growth = jnp.maximum(growth, repelled)
            truth = add(jax.tree.map(lambda x: x[-1], y), exact(step[-1]))
            return truth, growth, corrections.at[k].set(step), growths.at[k].set(growth)

        start = jax.tree.map(lambda x: x[0, 0], values)
        zeros = jnp.zeros_like(values.hi), jnp.zeros_like(windows.start)
        init = (start, jnp.zeros_like(end), *zeros)
        _, _, corrections, growths = jax.lax.fori_loop(0, count, advance, init)
        small = jnp.all(jnp.abs(corrections) <= 0.1 * scale[None, None] + atol, axis=(1, 2))
        small = jnp.cumprod(small)[:, None, None] > 0
        corrected = add(values, exact(jnp.where(small, corrections, 0.0)))
        return corrected, values.hi, corrections, growths

    init = (exact(values), values, jnp.zeros_like(values), jnp.zeros_like(windows.start))
    _, values, corrections, growths = jax.lax.fori_loop(0, _CORRECTIONS, correction, init)
    transform = legendre_transform(num_points, end.dtype)
    coefficients, errors = (jnp.einsum("np,wpd->wnd", transform, x) for x in (values, corrections))
    # Pairs, for a function that is even or odd.
    last, before = (
        jnp.max(jnp.abs(coefficients[:, pair]), axis=1) for pair in (slice(-2, None), slice(-4, -2))
    )
    tail = last * jnp.minimum(last / jnp.where(before > 0, before, 1.0), 1.0)
    rounding = 2.0 * jnp.finfo(end.dtype).eps * jnp.max(jnp.abs(values), axis=1)
    resolution = jnp.where(growths[:, None] > num_points, jnp.inf, tail + rounding)
    starts = jnp.where(used, windows.start, jnp.inf)
    error = Error(Polynomials(starts, windows.width, errors), resolution)

    largest = jnp.max(jnp.abs(corrections), axis=1) + resolution
    trusted = jnp.all((largest <= jnp.sqrt(rtol) * scale[None] + atol) | ~used[:, None])
    return Corrected(coefficients, error, trusted)


def nodal_values(tables: Tables, windows: Window) -> Float[Array, "windows nodes dim"]:
    """The networks' values at the start, at the Gauss points, and at the end of their windows."""
    start, half = windows.y[:, None], windows.width[:, None, None] / 2
    edges = jnp.concatenate([tables.points + 1, jnp.full(1, 2.0, start.dtype)])
    basis = jnp.concatenate([tables.values, tables.end[None]])
    rest = jnp.einsum("pr,wrd->wpd", basis, windows.coefficients)
    ramp = windows.slope[:, None] * edges[None, :, None]
    return jnp.concatenate([start, start + half * (ramp + rest)], axis=1)


def legendre_transform(num_points: int, dtype: DTypeLike) -> Float[Array, "terms nodes"]:
    """From values at the start, the Gauss points and the end to coefficients of a polynomial."""
    nodes = np.concatenate([[-1.0], gauss(num_points).points, [1.0]])
    return jnp.asarray(np.linalg.inv(legendre.legvander(nodes, num_points + 1)), dtype)


def collocation_matrix(
    field: VectorField, times: Array, u: Float[Array, "points dim"], half: Array, integrals: Array
) -> tuple[Float[Array, "rows columns"], Float[Array, "points dim dim"]]:
    r"""The matrix of $c \mapsto \tfrac h2 \sum_j W_{ij} f_y(t_j, u_j)\, c_j$, and $f_y$."""
    num_points, dim = u.shape
    _, tangent = jax.linearize(lambda u: field(times, u), u.T)
    directions = jnp.broadcast_to(jnp.eye(dim, dtype=u.dtype)[:, :, None], (dim, dim, num_points))
    jacobian = jax.vmap(tangent)(directions).transpose(2, 1, 0)
    matrix = half * jnp.einsum("pq,qij->piqj", integrals, jacobian)
    return matrix.reshape(-1, dim * num_points), jacobian


def _window_correction(
    field: VectorField,
    tables: Tables,
    start: Float[Array, ""],
    end: Float[Array, ""],
    values: DoubleDouble,
    truth: DoubleDouble,
) -> tuple[Float[Array, "nodes dim"], Float[Array, ""]]:
    """What has to be added to a window's values, given the truth at its start, and its growth."""
    num_points, dim = tables.points.shape[0], values.hi.shape[1]
    rule, dtype = gauss(num_points), start.dtype
    nodes = rational(np.array([Fraction(float(x)) + 1 for x in rule.points]), dtype)
    integrals = rational(rule.integrals, dtype)

    def part(x: DoubleDouble, *index: Any) -> DoubleDouble:
        return jax.tree.map(lambda x: x[index], x)

    def spread(x: DoubleDouble, *shape: int) -> DoubleDouble:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), x)

    width = two_sum(end, -start)
    half = jax.tree.map(lambda x: 0.5 * x, width)
    times = add(spread(exact(start), num_points), mul(spread(half, num_points), nodes))
    first, rest = part(values, 0), part(values, slice(1, None))
    u = part(rest, slice(-1))
    rates = in_double_double(field)(times, jax.tree.map(jnp.transpose, u))
    columns = jax.tree.map(lambda x: x.T[:, :, None], integrals)
    rows = jax.tree.map(lambda x: x.T[:, None], rates)
    change = mul(spread(half, num_points + 1, dim), dot(columns, rows))
    target = add(spread(first, num_points + 1, dim), change)
    defect = add(target, neg(rest)).hi
    begin = add(truth, neg(first)).hi

    matrix, jacobian = collocation_matrix(field, times.hi, u.hi, half.hi, integrals.hi)
    known, size = (begin[None] + defect).reshape(-1), dim * num_points
    inside = jnp.linalg.solve(jnp.eye(size, dtype=dtype) - matrix[:size], known[:size])
    last = known[size:] + matrix[size:] @ inside
    rates_of_growth = jnp.linalg.eigvals(jacobian[::6]).real
    growth = width.hi * jnp.max(rates_of_growth)
    steps = jnp.concatenate([begin[None], inside.reshape(num_points, dim), last[None]])
    return steps, jnp.where(jnp.isnan(growth), jnp.inf, growth)
