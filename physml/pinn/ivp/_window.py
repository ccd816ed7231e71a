"""One window: a network on a frozen hidden layer, fitted to the equation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.batch import where_needed
from physml._numerics.units import (
    ROUNDINGS,
    in_units,
    max_of,
    powers_of_two,
    response,
    responses,
    rounding,
)
from physml.pinn.collocation import (
    Tables,
    Tolerance,
    VectorField,
    accelerate,
    factorise,
    iterate,
    jacobian_of,
    resolve,
    solve_stages,
)
from physml.pinn.ivp._audit import Audit, Place, audit, between

# Gauss-Newton's steps shrink quadratically, but in fast components only from where a step is small
# in units of their present value, which may be far below their tolerance.
_SMALL_STEP = 1e-3
_FINE_STEP = 10.0  # where rounding keeps steps from getting smaller
_BEGINS = 1e3  # a component that grows by this factor in a window has just begun
_STEP_TO_STAY = 1e-2  # the largest last step of simplified Newton, which converges linearly
_MOST_JACOBIANS = 2  # in a window; where that is not enough a narrower one is cheaper


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
    rounded: Float[Array, ""]  # what rounding t and u changes, in the same units
    contracted: Bool[Array, ""]  # whether the fixed-point iterations did
    num_iterations: Int[Array, ""]


class Seen(NamedTuple):
    """What a march has seen of the solution's units.

    Attributes:
        size: the largest absolute value of each component.
        noise: how far rounding spoils the right-hand side; zero where that has not mattered.
        leeway: by how much a component that has just begun to grow may miss its tolerance.
    """

    size: Float[Array, " dim"]
    noise: Float[Array, " dim"]
    leeway: Float[Array, ""]


def unseen(y0: Float[Array, " dim"]) -> Seen:
    """What is known at the start of a march."""
    return Seen(jnp.abs(y0), jnp.zeros_like(y0), jnp.ones((), y0.dtype))


class _Ansatz(NamedTuple):
    """A window's network as a function of its coefficients, and the equation it has to fulfil."""

    field: VectorField
    tables: Tables
    tolerance: Tolerance
    start: Float[Array, ""]
    half: Float[Array, ""]  # of the span
    y: Float[Array, " dim"]
    slope: Float[Array, " dim"]
    seen: Seen

    def times(self, points: Float[Array, " points"]) -> Float[Array, " points"]:
        return self.start + self.half * (points + 1)

    def values(
        self, coefficients: Array, basis: Array, points: Array
    ) -> Float[Array, "dim points"]:
        ramp = jnp.outer(self.slope, points + 1)
        return self.y[:, None] + self.half * (ramp + coefficients @ basis.T)

    def allowed(self, u: Float[Array, "dim points"], noise: Array) -> Float[Array, " dim"]:
        """The tolerance of each component, or what spoils it where that is more."""
        return jnp.maximum(self.tolerance.of(u, self.seen.size), 2 * self.half * noise)

    def largest(self, change: Array, u: Float[Array, "dim points"], noise: Array) -> Array:
        """The largest change of a component, in units of what is allowed."""
        return max_of(in_units(change, self.allowed(u, noise), jnp.inf))

    def error(self, change: Array, u: Float[Array, "dim points"], noise: Array) -> Array:
        """The same, with leeway for components that have just begun."""
        begins = max_of(jnp.abs(u), axis=1) > _BEGINS * self.seen.size
        return self.largest(change / jnp.where(begins, self.seen.leeway, 1.0), u, noise)

    def round_off(self, u: Float[Array, "dim points"], noise: Array) -> Float[Array, " dim"]:
        """What counts as rounding: of the values in this window, however large u was before."""
        share = 1 / (self.whole * self.tolerance.rtol)
        return jnp.maximum(share * self.tolerance.of(u), 2 * self.half * noise)

    def moved(self, step: Float[Array, "dim rank"]) -> Float[Array, " dim"]:
        """The change of u that a step makes."""
        return max_of(jnp.abs(self.half * (step @ self.tables.values.T)), axis=1)

    @property
    def whole(self) -> float:
        """The size of a step as large as u, in units of round-off."""
        return 1 / (16 * float(jnp.finfo(self.y.dtype).eps))

    def constant(self) -> Float[Array, "dim rank"]:
        """The coefficients with which u stays y, nearly.

        A stiff equation pulls its solution towards states that change slowly. Beside these the
        slope is steep, and in a wide window a line along it leads far away.
        """
        return -jnp.outer(self.slope, self.tables.weights @ self.tables.slopes)

    def picard(self, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        """A fixed-point step by the residual's projection; its size is in units of round-off."""
        coefficients, _ = carry
        tables = self.tables
        u = self.values(coefficients, tables.values, tables.points)
        rates = self.field(self.times(tables.points), u)
        residual = self.slope[:, None] + coefficients @ tables.slopes.T - rates
        step = residual @ (tables.weights[:, None] * tables.slopes)
        moved, unit = self.moved(step), self.round_off(u, self.seen.noise)
        return (coefficients - step, moved), max_of(in_units(moved, unit, self.whole))

    def gauss_newton(self, coefficients: Float[Array, "dim rank"]) -> tuple[Array, Array, Array]:
        """A step of Gauss-Newton, a dense least-squares problem that is solved by QR.

        Returns the coefficients, the step's size in units of the tolerance, and how far rounding
        spoils the right-hand side.
        """
        tables, (dim, rank) = self.tables, coefficients.shape
        root, identity = jnp.sqrt(tables.weights), jnp.eye(dim, dtype=coefficients.dtype)
        u = self.values(coefficients, tables.values, tables.points)
        times = self.times(tables.points)
        size = self.tolerance.of(u, self.seen.size) / self.tolerance.rtol
        f, units, filters = self.filters(times, u, size)
        residual = (self.slope[:, None] + coefficients @ tables.slopes.T - f) / units[:, None]
        residual = root[:, None] * jnp.einsum("pij,jp->pi", filters, residual)
        # The filter times the residual's derivative, which is the slopes less h J times the values.
        slopes = jnp.einsum("pr,pij->pijr", root[:, None] * tables.slopes, filters)
        values = jnp.einsum("pr,pij->pijr", root[:, None] * tables.values, identity[None] - filters)
        matrix = slopes + values
        matrix = matrix.reshape(dim * root.size, dim * rank)
        # The triangle of [A b] holds that of A, and Q^T b beside it.
        triangle = jnp.linalg.qr(
            jnp.concatenate([matrix, residual.reshape(-1, 1)], axis=1), mode="r"
        )
        step = jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
        step = units[:, None] * step.reshape(dim, rank)
        noise = rounding(self.field, times, u)
        moved = in_units(self.moved(step), self.allowed(u, noise), 1 / self.tolerance.rtol)
        return coefficients - step, max_of(moved), noise

    def simplified_newton(
        self, coefficients: Float[Array, "dim rank"], at: Float[Array, " dim"]
    ) -> tuple[Array, Array, Int[Array, ""]]:
        """Newton's iterations with one Jacobian, that at the state `at`, for the whole window.

        Returns the coefficients, the last step's size in units of the tolerance, and the number of
        steps.
        """
        tables, implicit = self.tables, self.tables.implicit
        assert implicit is not None
        eps, times = jnp.finfo(at.dtype).eps, self.times(tables.points)
        u = self.values(coefficients, tables.values, tables.points)
        size = self.tolerance.of(u, self.seen.size) / self.tolerance.rtol
        noise = rounding(self.field, times, u)
        units = powers_of_two(size, 2 * self.half * noise / (ROUNDINGS * eps))
        middle = self.start + self.half
        _, tangent = jax.linearize(lambda u: self.field(middle, u), at)
        jacobian = jacobian_of(tangent, units, implicit.band)
        factors = factorise(implicit.stages, jacobian, self.half)

        def step(coefficients: Array) -> tuple[Array, Array]:
            u = self.values(coefficients, tables.values, tables.points)
            residual = self.slope[:, None] + coefficients @ tables.slopes.T - self.field(times, u)
            known = residual @ implicit.projection.T / units[:, None]
            step = units[:, None] * solve_stages(implicit.stages, factors, known)
            unit = self.allowed(u, self.seen.noise)
            moved = in_units(self.moved(step), unit, 1 / self.tolerance.rtol)
            return coefficients - step, max_of(moved)

        limit = 1e3 / self.tolerance.rtol
        return accelerate(step, coefficients, 1 / units, enough=_STEP_TO_STAY, limit=limit)

    def filters(
        self, times: Float[Array, " points"], u: Float[Array, "dim points"], size: Array
    ) -> tuple[Array, Array, Float[Array, "points dim dim"]]:
        r"""What turns a residual at each point into the change of u that it makes, over the span.

        A residual r changes a mode that decays at the rate $\lambda$ by $r / \lambda$, one that
        hardly decays by r times the span: the resolvent $(1 - h J)^{-1}$ with half of the span h
        does both, as RADAU5 uses it for its error estimate.

        Returns f, the units of the components, and the resolvents in these units.
        """
        f, tangent = jax.linearize(lambda u: self.field(times, u), u)
        identity = jnp.eye(len(u), dtype=u.dtype)
        directions = jnp.broadcast_to(identity[:, :, None], (len(u), *u.shape))
        jacobian = jax.vmap(tangent)(directions)  # (direction, component, point)
        terms = size @ max_of(jnp.abs(jacobian), axis=2)
        units = powers_of_two(size, 2 * self.half * terms)
        jacobian = units[:, None, None] * jacobian / units[None, :, None]
        return f, units, jnp.linalg.inv(identity[None] - self.half * jacobian.transpose(2, 1, 0))

    def follows(self, audited: Audit) -> tuple[Array, Array, Array]:
        r"""The changes of u that remain of a residual where fast modes decay in the window.

        Returns those of the audited residual, of what rounding spoils, and of errors that are
        tolerated in u, each divided by the span but the first.
        """
        times, u, eps = audited.times, audited.states, jnp.finfo(self.y.dtype).eps
        spoilt = ROUNDINGS / 4 * responses(self.field, times, u, 4 * eps)
        tolerated = responses(self.field, times, u, self.tolerance.rtol)
        known = jnp.stack([audited.changes, spoilt, tolerated])
        size = self.tolerance.of(u, self.seen.size) / self.tolerance.rtol
        if self.tables.implicit is None:
            _, units, filters = self.filters(times, u, size)
            left = jnp.einsum("pij,kjp->kip", filters, known / units[None, :, None])
        else:
            middle, noise = len(self.tables.points) // 2, max_of(jnp.abs(spoilt), axis=1)
            units = powers_of_two(size, 2 * self.half * noise / (ROUNDINGS * eps))
            _, tangent = jax.linearize(lambda u: self.field(times[middle], u), u[:, middle])
            jacobian = jacobian_of(tangent, units, self.tables.implicit.band)
            left = resolve(jacobian, self.half, known / units[None, :, None])
        change = units[None] * max_of(jnp.abs(left), axis=2)
        return change[0], change[1], change[2]

    def noise(self, u: Float[Array, "dim checks"]) -> Float[Array, " dim"]:
        """How far rounding spoils the right-hand side between the points of the fit."""
        return rounding(self.field, self.times(between(self.tables)), u)

    def implied(self, u: Float[Array, "dim checks"]) -> Float[Array, " dim"]:
        """How far the right-hand side is spoilt by errors that are tolerated in u."""
        return response(self.field, self.times(between(self.tables)), u, self.tolerance.rtol)


def fit_window(
    field: VectorField,
    tables: Tables,
    tolerance: Tolerance,
    place: Place,
    seen: Seen,
    max_steps: Int[Array, ""] | None,
) -> tuple[Window, Seen]:
    r"""Find the readout that makes the residual $r = u' - f(t, u)$ vanish.

    Fixed-point iterations from C = 0 come first and need no linear algebra. Where the span is
    moderate in units of the time scale of f they contract faster than geometrically, as for all
    Volterra equations. Where they do not, as in stiff problems, Gauss-Newton minimises the
    integral of the square of the change of u that r makes there (see `_Ansatz.filters`), from a
    constant u, in at most `max_steps` steps; without `max_steps` the program has no Gauss-Newton
    in it.

    The window's error is the residual where it was not fitted (see `audit`), times the span, which
    makes it a change of u, or filtered where the iterations do not contract. It is relative to the
    tolerance of each component, or to what rounding, and errors tolerated elsewhere, leave of the
    right-hand side where that is more. It is not judged closer to the start and to the end than the
    place's `margins`.
    """
    start, span, y = place.start, place.span, place.y
    half, zero = span / 2, jnp.zeros((y.shape[0], tables.rank), y.dtype)
    slope = field(start + half * (tables.points[0] + 1), y)
    ansatz = _Ansatz(field, tables, tolerance, start, half, y, slope, seen)
    # Iterate down to round-off, and beyond while it helps; give up after a step of a thousand |u|.
    # Only one step more than there are components may be larger: by then all have acted on those
    # that start at zero, or nearly.
    limit = 1e3 * ansatz.whole
    (coefficients, moved), last, tried = iterate(
        ansatz.picard, (zero, y), enough=1.0, limit=limit, spared=y.shape[0] + 1, polish=True
    )
    audited = audit(field, tables, place, slope, coefficients)

    # Where the iterations contract, errors that are tolerated elsewhere bound the tolerance of a
    # component from below. What rounding leaves is measured only where it may be in the way.
    implied, change = ansatz.implied(audited.u), audited.change
    doubtful = (last < limit) & ~((last <= 1) & (ansatz.error(change, audited.u, implied) <= 1))
    noise = where_needed(
        doubtful, lambda _, now: ansatz.noise(jnp.where(now, audited.u, 0.0)), jnp.zeros_like(y)
    )
    still = max_of(in_units(moved, ansatz.round_off(audited.u, noise), jnp.inf))
    # Iterates that grow may be so large that f overflows beside them: that excuses nothing.
    contracted = (last <= 1) | ((still <= 1) & jnp.all(jnp.isfinite(noise)))
    spoilt, solved, steps = noise, contracted, jnp.asarray(0)
    if max_steps is not None:

        def again(begun: tuple, _: Array) -> tuple:
            coefficients, noise = begun[0], begun[2]
            start = jnp.where(contracted, coefficients, ansatz.constant())
            ended = _where_stiff(ansatz, start, contracted, noise, max_steps)
            coefficients, solved, noise, steps = ended
            audited = audit(field, tables, place, slope, coefficients)
            return coefficients, audited, noise, *ansatz.follows(audited), solved, steps

        begun = coefficients, audited, noise, change, spoilt, implied, solved, steps
        coefficients, audited, noise, change, spoilt, implied, solved, steps = where_needed(
            ~contracted, again, begun
        )
        if tables.implicit is not None:
            noise = ansatz.noise(audited.u)
            spoilt = jnp.where(contracted, noise, spoilt)
    # Rounding of the time matters where f changes much in a few roundings of it.
    late = jnp.where(contracted, audited.rounded / span, 0.0)
    spoilt = jnp.maximum(jnp.maximum(spoilt, implied), late)
    worst = ansatz.error(change, audited.u, spoilt)
    worst = jnp.where(solved & jnp.isfinite(worst), worst, jnp.inf)
    size = jnp.maximum(seen.size, max_of(jnp.abs(audited.u), axis=1))
    rounded = ansatz.largest(audited.rounded, audited.u, jnp.maximum(noise, implied))
    window = Window(
        start, span, y, slope, coefficients.T, worst, rounded, contracted, tried + steps
    )
    return window, Seen(size, noise, jnp.ones_like(seen.leeway))


def _where_stiff(
    ansatz: _Ansatz,
    coefficients: Float[Array, "dim rank"],
    done: Bool[Array, ""],
    noise: Float[Array, " dim"],
    max_steps: Int[Array, ""],
) -> tuple[Array, Bool[Array, ""], Array, Int[Array, ""]]:
    """Newton's method for a window in which the iterations did not contract.

    Returns the coefficients, whether it converged, how far rounding spoils the right-hand side,
    and the number of steps.
    """
    if ansatz.tables.implicit is not None:
        coefficients, converged, steps = _with_few_jacobians(ansatz, coefficients, done, max_steps)
        return coefficients, converged, noise, steps
    most = jnp.asarray(jnp.finfo(noise.dtype).max, noise.dtype)
    coefficients, last, noise, steps = jax.lax.while_loop(
        lambda c: (c[1] > _SMALL_STEP) & (c[3] < max_steps),
        lambda c: (*ansatz.gauss_newton(c[0]), c[3] + 1),
        (coefficients, jnp.where(done, 0.0, most), noise, jnp.asarray(0)),
    )
    return coefficients, last <= _FINE_STEP, noise, steps


def _with_few_jacobians(
    ansatz: _Ansatz,
    coefficients: Float[Array, "dim rank"],
    done: Bool[Array, ""],
    max_steps: Int[Array, ""],
) -> tuple[Array, Bool[Array, ""], Int[Array, ""]]:
    """Simplified Newton with the Jacobian at the start; then, if need be, at what it has found.

    Returns the coefficients, whether it converged, and the number of its steps.
    """
    middle = ansatz.tables.points.size // 2
    most = jnp.asarray(jnp.finfo(coefficients.dtype).max, coefficients.dtype)

    def newton(carry: tuple) -> tuple:
        coefficients, _, steps, turns = carry
        u = ansatz.values(coefficients, ansatz.tables.values, ansatz.tables.points)
        at = jnp.where(turns == 0, ansatz.y, u[:, middle])
        coefficients, last, count = ansatz.simplified_newton(coefficients, at)
        return coefficients, last, steps + count, turns + 1

    turns = jnp.minimum(max_steps, _MOST_JACOBIANS)
    zero, last = jnp.asarray(0), jnp.where(done, 0.0, most)
    coefficients, last, steps, _ = jax.lax.while_loop(
        lambda c: (c[1] > _STEP_TO_STAY) & (c[3] < turns), newton, (coefficients, last, zero, zero)
    )
    return coefficients, last <= _STEP_TO_STAY, steps


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
