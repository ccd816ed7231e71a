r"""One window: polynomials through Radau points, fitted to the implicit equations.

The unknowns are the derivatives $z_j$ at the points $t_j$. With W the integrals of the points'
Lagrange polynomials and h the window's span, the state is

$$y_j = y_0 + \tfrac h2 \sum_k W_{jk} z_k,$$

and the equations are $F(t_j, y_j, z_j) = 0$. The last point is the window's end, so that the
algebraic equations hold there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from physml._numerics.quadrature import interpolation, radau
from physml._numerics.units import ROUNDINGS, in_units, max_of, responses
from physml.pinn.collocation import Tolerance
from physml.pinn.constraints._equation import Equation

_STEP_TO_STAY = 1e-2  # the largest last step, in units of the tolerance; steps shrink quadratically
_SWEEPS = 4  # over rows and columns
_DIVERGES = 1e3  # a step of that many times the size of a component


class Window(NamedTuple):
    """What a fit has found.

    Attributes:
        values: at the points; those at the end are the last.
        rates: z.
        error: of the window alone, in units of the tolerance; infinite where it was not solved.
        steps: Newton's.
        spoilt: what rounding, and errors that are tolerated in others, make of each component.
    """

    values: Float[Array | np.ndarray, "dim points"]
    rates: Float[Array | np.ndarray, "dim points"]
    error: Float[Array | np.ndarray, ""]
    steps: Int[Array | np.ndarray, ""]
    spoilt: Float[Array | np.ndarray, " dim"]


class Guess(NamedTuple):
    """The values and derivatives that Newton's method starts from; they need not agree."""

    values: Float[Array | np.ndarray, "dim points"]
    rates: Float[Array | np.ndarray, "dim points"]


def finer(num_points: int) -> int:
    """The number of points at which a window is judged, and that of its correction."""
    return 3 * num_points // 2


class Factors(NamedTuple):
    """The LU factors of Newton's matrix, after its rows and columns were multiplied."""

    lu: Float[Array, "unknown unknown"]
    pivots: Int[Array, " unknown"]
    rows: Float[Array, " unknown"]
    columns: Float[Array, " unknown"]

    def solve(
        self, known: Float[Array, "dim points *columns"]
    ) -> Float[Array, "dim points *columns"]:
        """The changes of z that take up `known`."""
        dim, points, *columns = known.shape
        flat = self.rows[:, None] * jnp.swapaxes(known, 0, 1).reshape(dim * points, -1)
        found = jax.scipy.linalg.lu_solve((self.lu, self.pivots), flat, check_finite=False)
        found = (self.columns[:, None] * found).reshape(points, dim, *columns)
        return jnp.swapaxes(found, 0, 1)


def factorise(
    by_state: Float[Array, "points dim dim"],
    by_rate: Float[Array, "points dim dim"],
    half: Float[Array, ""],
) -> Factors:
    """The factors of the matrix of Newton's method for the derivatives at the points."""
    points, dim, _ = by_rate.shape
    integrals = integrals_of(points, half.dtype)
    identity = jnp.eye(points, dtype=half.dtype)
    matrix = jnp.einsum("jil,jk->jikl", by_rate, identity)
    matrix += jnp.einsum("jil,jk->jikl", by_state, half * integrals)
    matrix = matrix.reshape(points * dim, points * dim)
    rows, columns = jnp.ones((2, points * dim), half.dtype)
    for _ in range(_SWEEPS):  # so that no unit of an equation or a component chooses the pivots
        size = jnp.abs(rows[:, None] * matrix * columns[None])
        largest = max_of(size, axis=1), max_of(size, axis=0)
        by_row, by_column = (1 / jnp.sqrt(jnp.where(x > 0, x, 1.0)) for x in largest)
        rows, columns = rows * by_row, columns * by_column
    balanced = rows[:, None] * matrix * columns[None]
    lu, pivots = jax.scipy.linalg.lu_factor(balanced, check_finite=False)
    return Factors(lu, pivots, rows, columns)


def fit_window(
    equation: Equation,
    tolerance: Tolerance,
    edges: tuple[Float[Array, ""], Float[Array, ""]],
    y: Float[Array, " dim"],
    guess: Guess,
    seen: Float[Array, " dim"],
    max_steps: Int[Array, ""],
) -> Window:
    r"""Newton's method for the derivatives at a window's points, and the error that they leave.

    The error is found at half as many points again, where the equations were not solved: what they
    miss there is turned into a change of the state by the linearised equations. It is relative to
    the tolerance of each component, or to what rounding, and errors that are tolerated in others,
    leave of it where that is more.

    Args:
        equation: F.
        tolerance: of the state.
        edges: the start and the end of the window.
        y: the state at its start.
        guess: where Newton's method starts.
        seen: the largest size of each component so far.
        max_steps: of Newton's steps.
    """
    num_points = guess.rates.shape[1]
    start, half = edges[0], (edges[1] - edges[0]) / 2
    times, integrals = _points(num_points, start, half)

    def allowed(u: Array, spoilt: Array) -> Array:
        return jnp.maximum(tolerance.of(u, seen), spoilt)

    def step(carry: tuple) -> tuple:
        u, z, _, count, _ = carry
        missed, by_state, by_rate = equation.linearised(times, u, z)
        whole = y[:, None] + half * (z @ integrals.T)
        missed = missed + jnp.einsum("pil,lp->ip", by_state, whole - u)
        known = [-missed, *_spoilt(equation, tolerance, times, whole, z)]
        factors = factorise(by_state, by_rate, half)
        change = factors.solve(jnp.stack(known, axis=2))
        moved = max_of(jnp.abs(half * jnp.einsum("ikc,pk->ipc", change, integrals)), axis=1)
        z = z + change[:, :, 0]
        u = y[:, None] + half * (z @ integrals.T)
        spoilt = max_of(moved[:, 1:], axis=1)
        last = max_of(in_units(moved[:, 0], allowed(u, spoilt), jnp.inf))
        return u, z, jnp.where(jnp.isnan(last), jnp.inf, last), count + 1, spoilt

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        last, count = carry[2], carry[3]
        fine = (last < _DIVERGES / tolerance.rtol) | (count < 2)
        return (last > _STEP_TO_STAY) & (count < max_steps) & fine

    begin = (*map(jnp.asarray, guess), jnp.asarray(jnp.inf, y.dtype), jnp.asarray(0), y)
    u, z, last, count, spoilt = jax.lax.while_loop(unfinished, step, begin)

    more = finer(num_points)
    times, integrals = _points(more, start, half)
    z_between = z @ _to_finer(num_points, more, z.dtype).T
    u_between = y[:, None] + half * (z_between @ integrals.T)
    missed, by_state, by_rate = equation.linearised(times, u_between, z_between)
    change = factorise(by_state, by_rate, half).solve(-missed)
    left = max_of(jnp.abs(half * (change @ integrals.T)), axis=1)
    error = max_of(in_units(left, allowed(u_between, spoilt), jnp.inf))
    sound = (last <= _STEP_TO_STAY) & jnp.all(jnp.isfinite(z)) & jnp.isfinite(error)
    return Window(u, z, jnp.where(sound, error, jnp.inf), count, spoilt)


def _points(num_points: int, start: Array, half: Array) -> tuple[Array, Array]:
    """The times of the points, and the integrals up to each of them."""
    rule = radau(num_points)
    times = start + half * (jnp.asarray(rule.points, half.dtype) + 1)
    return times, integrals_of(num_points, half.dtype)


def integrals_of(num_points: int, dtype: DTypeLike) -> Float[Array, "points points"]:
    """W: the integrals from the start to each point, by the values at all of them."""
    return jnp.asarray(radau(num_points).integrals[:-1].astype(float), dtype)


def _to_finer(few: int, many: int, dtype: DTypeLike) -> Float[Array, "many few"]:
    return jnp.asarray(interpolation(radau(few).points, radau(many).points), dtype)


def _spoilt(
    equation: Equation, tolerance: Tolerance, times: Array, u: Array, z: Array
) -> list[Float[Array, "dim points"]]:
    """How far rounding of the state and the derivative, and tolerated errors, spoil F."""
    dim, eps = len(u), jnp.finfo(u.dtype).eps

    def of_both(times: Array, both: Array) -> Array:
        return equation.missed(times, both[:dim], both[dim:])

    def of_state(times: Array, u: Array) -> Array:
        return equation.missed(times, u, z)

    rounded = responses(of_both, times, jnp.concatenate([u, z]), 4 * eps)
    return [ROUNDINGS / 4 * rounded, responses(of_state, times, u, tolerance.rtol)]
