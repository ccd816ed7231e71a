"""Subtract a solution's error, and estimate what is left."""

from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.batch import largest_of_batch
from physml._numerics.double_double import (
    DoubleDouble,
    add,
    exact,
    matmul,
    mul,
    neg,
    rational,
    two_sum,
)
from physml._numerics.interpreter import in_double_double
from physml._numerics.quadrature import gauss, interpolation, legendre_transform
from physml.pinn.collocation import Error, Polynomials, Tables, VectorField, jacobian_at, propagate
from physml.pinn.ivp._window import Window

_CORRECTIONS = 2  # pass 1 is subtracted; pass 2 estimates the error that remains
_MOST_PICARD = 60  # more would cost as much as LU


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
    subtract: bool,
) -> Corrected:
    r"""Subtract a solution's error, which its residual says to first order, and estimate the rest.

    At Gauss points of a window, half as many again as it was fitted at, let $u_i$ be the values of
    its network, and $u_0$ its start. With W the integrals of the points' Lagrange polynomials and h
    the span, their defect r and what has to be added to them, c, are

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
        subtract: without it the values stay as they are, and the estimate is that of their error.

    Source: P. E. Zadunaisky, On the estimation of errors propagated in the numerical integration
    of ordinary differential equations, Numer. Math. 27 (1976) 21, for errors by the defect.
    """
    num_points, size = _finer(tables.points.shape[0]), windows.start.shape[0]
    used = jnp.arange(size) < count
    ends = jnp.append(windows.start[1:], end)
    ends = jnp.where(jnp.arange(size) + 1 == count, end, ends)
    ends = jnp.where(used, ends, windows.start)  # the loop below may pass over unused ones
    finer = jnp.asarray(interpolation(tables.points.shape[0], num_points), end.dtype)
    values = jnp.einsum("pn,wnd->wpd", finer, nodal_values(tables, windows))
    scale = jnp.max(jnp.abs(values), axis=(0, 1), where=used[:, None, None], initial=0.0)
    limit = 0.1 * scale + atol

    def advance(k, carry):
        truths, growth, small, *results = carry
        window = _linearised(field, windows.start[k], ends[k], values[k].T)

        def correction(carry, truth):
            y, small = carry
            first, last = jax.tree.map(lambda x: x[:, 0], y), jax.tree.map(lambda x: x[:, -1], y)
            begin = add(truth, neg(first)).hi
            step, repelled = window.carry(begin[:, None] + window.defect(y))
            step = jnp.concatenate([begin[:, None], step], axis=1)
            small &= jnp.all(jnp.abs(step) <= limit[:, None])
            corrected = add(y, exact(jnp.where(small, step, 0.0)))
            return (corrected, small), (add(last, exact(step[:, -1])), y.hi, step, repelled, small)

        _, steps = jax.lax.scan(correction, (exact(values[k].T), small), truths)
        truths, ys, corrections, repelled, small = steps
        growth = jnp.maximum(growth, jnp.max(repelled))
        rows = ys[-1].T, corrections[-1].T, growth
        results = [buffer.at[k].set(row) for buffer, row in zip(results, rows, strict=True)]
        return truths, growth, small[0], *results

    truths = jax.tree.map(lambda x: jnp.stack([x[0, 0]] * _CORRECTIONS), exact(values))
    buffers = jnp.zeros_like(values), jnp.zeros_like(values), jnp.zeros_like(windows.start)
    init = (truths, jnp.zeros_like(end), jnp.asarray(subtract), *buffers)
    *_, values, corrections, growths = jax.lax.fori_loop(0, largest_of_batch(count), advance, init)
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
    error = Error(Polynomials(starts, windows.span, errors), resolution)

    largest = jnp.max(jnp.abs(corrections), axis=1) + resolution
    small = largest <= jnp.sqrt(rtol) * scale[None] + atol  # false where it is NaN
    trusted = jnp.all(small | ~used[:, None])
    return Corrected(coefficients, error, trusted)


def nodal_values(tables: Tables, windows: Window) -> Float[Array, "windows nodes dim"]:
    """The networks' values at the start, at the Gauss points, and at the end of their windows."""
    start, half = windows.y[:, None], windows.span[:, None, None] / 2
    edges = jnp.concatenate([tables.points + 1, jnp.full(1, 2.0, start.dtype)])
    basis = jnp.concatenate([tables.values, tables.end[None]])
    rest = jnp.einsum("pr,wrd->wpd", basis, windows.coefficients)
    ramp = windows.slope[:, None] * edges[None, :, None]
    return jnp.concatenate([start, start + half * (ramp + rest)], axis=1)


def _finer(num_points: int) -> int:
    """The points of the correction, so many that what they leave out is rounding.

    At a window's own points its network is right to far more digits than between them.
    """
    return 3 * num_points // 2


class _Linearised(NamedTuple):
    """A window's equation, and its linearisation about the values that it was made at."""

    field: VectorField
    times: DoubleDouble
    half: DoubleDouble  # of the span
    integrals: DoubleDouble
    jacobian: Float[Array, "dim dim points"]

    def defect(self, y: DoubleDouble) -> Float[Array, "dim nodes"]:
        """The start plus the integral of f, less the values: at the points, then at the end."""
        first, rest = jax.tree.map(lambda x: x[:, :1], y), jax.tree.map(lambda x: x[:, 1:], y)
        rates = in_double_double(self.field)(self.times, jax.tree.map(lambda x: x[:, :-1], rest))
        integrals = jax.tree.map(jnp.transpose, self.integrals)
        change = mul(_spread(self.half, rest.hi.shape), matmul(rates, integrals))
        target = add(_spread(first, rest.hi.shape), change)
        return add(target, neg(rest)).hi

    def carry(
        self, known: Float[Array, "dim nodes"]
    ) -> tuple[Float[Array, "dim nodes"], Float[Array, ""]]:
        r"""The c of $c = known + \tfrac h2 W f_y c$, and whether f lets a window follow it.

        By fixed-point iterations; by LU where those do not contract, as in stiff problems. Only
        there can f repel by more than a window can follow.
        """
        half, integrals = self.half.hi, self.integrals.hi
        inside, at_end = known[:, :-1], known[:, -1:]
        num_points = inside.shape[1]
        eps = jnp.finfo(known.dtype).eps
        largest = jnp.max(jnp.abs(known))
        enough = jnp.sqrt(eps) * largest  # what that leaves is seen by the next correction
        scaled = half * self.jacobian

        def change(c: Array, integrals: Array) -> Array:
            return jnp.sum(scaled * c[None], axis=1) @ integrals.T

        def iterate(carry: Any) -> Any:
            c, _, count = carry
            new = inside + change(c, integrals[:-1])
            return new, jnp.max(jnp.abs(new - c)), count + 1

        def measure(carry: Any) -> Any:
            _, still = carry
            jacobian = jnp.where(still, self.jacobian[:, :, ::6], 0.0)
            growth = 2 * half * jnp.max(_repulsion(jacobian.transpose(2, 0, 1)))
            return jnp.where(growth <= num_points, growth, jnp.inf), jnp.asarray(False)

        def solve(carry: Any) -> Any:
            _, still = carry
            span = jnp.where(still, half, 0.0)
            c = propagate(self.jacobian, span, integrals, known)
            return c[:, :-1], jnp.asarray(False)

        most = jnp.asarray(jnp.finfo(known.dtype).max, known.dtype)
        c, last, _ = jax.lax.while_loop(
            lambda c: (
                (c[1] > enough)
                & (c[2] < _MOST_PICARD)
                & ((c[1] < largest / jnp.sqrt(eps)) | (c[2] < 1))
            ),
            iterate,
            (inside, most, jnp.asarray(0)),
        )
        # Loops of one turn, not conditions: in a batch they are not entered where no one needs
        # them, if they depend on what they carry (else the compiler does their work before). And
        # the second waits for the first, as it must: a batch of LAPACK's waits for XLA's threads,
        # which two of them at once could hold between them for ever.
        implicit = last > enough
        zero = jnp.zeros_like(half)
        growth, _ = jax.lax.while_loop(lambda c: c[1], measure, (zero, implicit))
        follows = jnp.isfinite(growth)
        c, _ = jax.lax.while_loop(lambda c: c[1], solve, (c, implicit & follows))
        c = jnp.where(follows, c, jnp.inf)
        return jnp.concatenate([c, at_end + change(c, integrals[-1:])], axis=1), growth


def _linearised(
    field: VectorField, start: Array, end: Array, values: Float[Array, "dim nodes"]
) -> _Linearised:
    num_points = values.shape[1] - 2
    rule, dtype = gauss(num_points), start.dtype
    nodes = rational(np.array([Fraction(float(x)) + 1 for x in rule.points]), dtype)
    integrals = rational(rule.integrals, dtype)
    half = jax.tree.map(lambda x: 0.5 * x, two_sum(end, -start))
    times = add(_spread(exact(start), (num_points,)), mul(_spread(half, (num_points,)), nodes))
    jacobian = jacobian_at(field, times.hi, values[:, 1:-1])
    return _Linearised(field, times, half, integrals, jacobian)


def _repulsion(matrices: Float[Array, "points dim dim"]) -> Float[Array, " points"]:
    """The largest real part of an eigenvalue of each; on a TPU, which has none, a bound of it."""

    def exactly(matrices: Array) -> Array:
        return jnp.max(jnp.linalg.eigvals(matrices).real, axis=-1)

    def at_most(matrices: Array) -> Array:
        return jnp.linalg.eigvalsh((matrices + matrices.mT) / 2)[..., -1]

    return jax.lax.platform_dependent(matrices, tpu=at_most, default=exactly)


def _spread(x: DoubleDouble, shape: tuple[int, ...]) -> DoubleDouble:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), x)
