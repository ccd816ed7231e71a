"""Subtract a solution's error, and estimate what is left."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.batch import largest_of_batch, map_used, where_needed
from physml._numerics.double_double import DoubleDouble, add, exact, neg
from physml._numerics.quadrature import (
    all_nodes,
    interpolation,
    legendre_coefficients,
    legendre_transform,
)
from physml._numerics.units import ROUNDINGS, in_units, max_of
from physml.pinn.collocation import (
    FEW_COMPONENTS,
    Error,
    ExactNodes,
    Linearised,
    MatrixFree,
    Polynomials,
    Tables,
    Tolerance,
    VectorField,
    apply_linearised,
    exact_defect,
    exact_nodes_in,
    iterate,
    largest_real_part,
    left_out,
    linearise,
)
from physml.pinn.ivp._audit import beyond
from physml.pinn.ivp._jumps import Jump, change_across, jump_in
from physml.pinn.ivp._march import March
from physml.pinn.ivp._window import Window, nodal_values

_LINEAR = 1e-2  # the largest error, beside a component's value, that a linear equation carries well
_PASSES = 2  # pass 1 is subtracted; pass 2 estimates the error that remains


class Standing(NamedTuple):
    """What one window hands over to the next.

    Attributes:
        index: the index of the next window.
        truths: the corrected state at its start, one for each pass.
        growth: the largest Re lambda(f_y) times span in the windows so far.
        small: whether all corrections so far were small.
        noise: what rounding in all windows so far may have added to each component.
    """

    index: Int[Array, ""]
    truths: DoubleDouble
    growth: Float[Array, ""]
    small: Bool[Array, ""]
    noise: Float[Array, " dim"]


class Carried(NamedTuple):
    """The error, carried along the windows up to `standing`.

    Attributes:
        standing: between the last window and the next.
        stiff: whether it stopped there because the next window needs LU.
        scale: the largest absolute value of each component.
        values: the solution less its error, at each window's start, points and end.
        corrections: the error of `values`, which the last pass has found.
        unresolved: what the last pass's quadrature of f leaves out in each window.
        growths: `growth` at each window's end.
    """

    standing: Standing
    stiff: Bool[Array, ""]
    scale: Float[Array, " dim"]
    values: Float[Array, "windows nodes dim"]
    corrections: Float[Array, "windows nodes dim"]
    unresolved: Float[Array, "windows dim"]
    growths: Float[Array, " windows"]


class Corrected(NamedTuple):
    """A solution less its error, and an estimate of the error that remains."""

    polynomials: Polynomials
    error: Error
    trusted: Bool[Array, ""]  # whether at least half of the digits asked for are right


def carry_error(
    field: VectorField,
    tables: Tables,
    tolerance: Tolerance,
    marched: March,
    subtract: bool,
    begun: Carried | None,
    *,
    lu: bool,
) -> Carried:
    r"""Subtract a solution's error, known from its residual to first order, and find the rest.

    The linearised equation (see `collocation`) turns the defect r of a network's values into
    the correction c. It takes half as many Gauss points again as the fit. A good network's defect
    is at the level of rounding: it is computed in double-double, so that c is the error with its
    sign and not a bound. Pass 1 is subtracted; pass 2 estimates the error that remains, which is of
    second order. From the first window on in which c exceeds a tenth of the solution, nothing is
    subtracted.

    Args:
        field: f(t, u) of times (points,) and states (dim, points).
        tables, tolerance: those that the windows were fitted with.
        marched: the windows.
        subtract: without it the values stay as they are, and the estimate is that of their error.
        begun: where to go on; None at the beginning.
        lu: whether the program has LU and eigenvalues in it. Without them it compiles faster, and
            it stops, with `stiff` set, before the first window that needs them.

    Source: P. E. Zadunaisky, On the estimation of errors propagated in the numerical integration
    of ordinary differential equations, Numer. Math. 27 (1976) 21, for errors by the defect.
    """
    windows, count = marched.windows, marched.num_windows
    coarse, ends = tables.points.shape[0], _ends(marched)
    used = jnp.arange(len(ends)) < count
    finer = jnp.asarray(interpolation(all_nodes(coarse), all_nodes(_finer(coarse))), ends.dtype)
    values = map_used(
        lambda some: jnp.einsum("pn,wnd->wpd", finer, nodal_values(tables, some)), windows, count
    )
    scale = max_of(jnp.where(used[:, None, None], jnp.abs(values), 0.0), axis=(0, 1))

    def advance(carried: Carried) -> Carried:
        before = carried.standing
        k = before.index
        beside = jnp.maximum(windows.span[jnp.maximum(k - 1, 0)], windows.span[k + 1])
        piece = _look_at(field, tables, windows.start[k], ends[k], beside, values[k].T)
        nodes, linearised = piece.nodes, piece.linearised

        def correction(carry, given):
            (y, small), (truth, counted) = carry, given
            step, rates, repelled, stiff = piece.error(y, truth, lu=lu)
            spoilt = max_of(jnp.abs(rates - linearised.rates), axis=1)
            spoilt += jnp.finfo(scale.dtype).eps * linearised.terms
            noise = before.noise + 2 * ROUNDINGS * nodes.half.hi * spoilt
            small &= jnp.all(jnp.abs(step) <= tolerance.share(0.1, scale, noise)[:, None])
            corrected = add(y, exact(jnp.where(small, step, 0.0)))
            unresolved = jnp.where(counted, piece.unresolved(rates), 0.0)
            # It gets the sign of the error, so that it adds up from window to window.
            signed = jnp.where(step[:, -1] < 0, -unresolved, unresolved)
            last = jax.tree.map(lambda x: x[:, -1], y)
            truth = add(last, exact(step[:, -1] + signed))
            found = y.hi, step, unresolved
            return (corrected, small), (truth, found, repelled, small, noise, stiff)

        start = exact(values[k].T), before.small
        last_pass = jnp.arange(_PASSES) == _PASSES - 1
        _, steps = jax.lax.scan(correction, start, (before.truths, last_pass))
        truths, (ys, corrections, unresolved), repelled, small, noise, stiff = steps
        growth = jnp.maximum(before.growth, max_of(repelled))
        after, stiff = Standing(k + 1, truths, growth, small[0], noise[0]), jnp.any(stiff)
        if not lu:
            after = jax.tree.map(lambda old, new: jnp.where(stiff, old, new), before, after)
        rows = ys[-1].T, corrections[-1].T, unresolved[-1], growth
        buffers = carried.values, carried.corrections, carried.unresolved, carried.growths
        buffers = (buffer.at[k].set(row) for buffer, row in zip(buffers, rows, strict=True))
        return Carried(after, stiff, scale, *buffers)

    def unfinished(carried: Carried) -> Array:
        goes_on = carried.standing.index < largest_of_batch(count)
        return goes_on if lu else goes_on & ~carried.stiff

    begun = _at_start(values, scale, subtract) if begun is None else begun
    return jax.lax.while_loop(unfinished, advance, begun._replace(stiff=jnp.asarray(False)))


def _ends(marched: March) -> Float[Array, " windows"]:
    """The windows' ends; of unused ones, which a loop over a batch visits, their start."""
    starts, number = marched.windows.start, jnp.arange(len(marched.windows.start)) + 1
    ends = jnp.where(number == marched.num_windows, marched.t, jnp.append(starts[1:], marched.t))
    return jnp.where(number <= marched.num_windows, ends, starts)


class _Piece(NamedTuple):
    """One window, with the equation linearised along its values.

    Attributes:
        field: f(t, u).
        nodes: the times.
        linearised: the linearised equation.
        jump: the jump of f in it, if there is one.
        at_ends: what the quadrature of f leaves out close to its ends.
    """

    field: VectorField
    nodes: ExactNodes
    linearised: Linearised | MatrixFree
    jump: Jump
    at_ends: Float[Array, " dim"]

    def unresolved(self, rates: Float[Array, "dim points"]) -> Float[Array, " dim"]:
        """What the quadrature of these values of f leaves out of the window."""
        smooth = left_out(self.nodes.leading, rates) + self.at_ends
        return jnp.where(self.jump.there, self.jump.unresolved, smooth)

    def error(
        self, y: DoubleDouble, truth: DoubleDouble, *, lu: bool
    ) -> tuple[Float[Array, "dim all_nodes"], Float[Array, "dim nodes"], Array, Array]:
        """The error of the values y, which should begin at `truth`.

        Returns the error, f along y, how fast f repels, and whether LU is needed to find out.
        """
        first, last = jax.tree.map(lambda x: x[:, 0], y), jax.tree.map(lambda x: x[:, -1], y)
        begin = add(truth, neg(first)).hi
        missing, rates = exact_defect(self.field, self.nodes, y)
        step, repelled, stiff = _carry(self.linearised, begin[:, None] + missing, lu=lu)
        step = jnp.concatenate([begin[:, None], step], axis=1)
        change = exact(change_across(self.field, self.jump, truth.hi))
        across = add(add(truth, change), neg(last)).hi - begin
        fractions = (jnp.asarray(all_nodes(rates.shape[1]), across.dtype) + 1) / 2
        across = begin[:, None] + jnp.outer(across, fractions)
        return jnp.where(self.jump.there, across, step), rates, repelled, stiff


def _look_at(
    field: VectorField,
    tables: Tables,
    start: Float[Array, ""],
    end: Float[Array, ""],
    beside: Float[Array, ""],
    values: Float[Array, "dim all_nodes"],
) -> _Piece:
    """The window [start, end], whose longer neighbour has the span `beside`."""
    nodes = exact_nodes_in(start, end, values.shape[1] - 2)
    if len(values) <= FEW_COMPONENTS:
        linearised = linearise(field, nodes.leading, values)
    else:
        band = None if tables.implicit is None else tables.implicit.band
        linearised = apply_linearised(field, nodes.leading, values, band)
    jump = jump_in(start, end, beside, linearised.rates)
    at_ends = beyond(field, nodes.leading, start, values, linearised.rates, linearised.terms)
    return _Piece(field, nodes, linearised, jump, at_ends)


def _at_start(
    values: Float[Array, "windows nodes dim"], scale: Float[Array, " dim"], subtract: bool
) -> Carried:
    """What is carried into the first window."""
    truths = jax.tree.map(lambda x: jnp.stack([x[0, 0]] * _PASSES), exact(values))
    zero, clean = jnp.zeros((), values.dtype), jnp.zeros_like(scale)
    start = Standing(jnp.asarray(0), truths, zero, jnp.asarray(subtract), clean)
    buffers = jnp.zeros_like(values), jnp.zeros_like(values), jnp.zeros_like(values[:, 0])
    growths = jnp.zeros(len(values), values.dtype)
    return Carried(start, jnp.asarray(False), scale, *buffers, growths)


def judge(tolerance: Tolerance, marched: March, carried: Carried) -> Corrected:
    r"""The solution less its error as a function of time, and the estimate of what remains.

    The estimate is the last correction plus what the quadrature of f leaves out, truncation (the
    next term of each polynomial, by the decay of the last ones) and rounding, also that of the
    time. Where f repels faster than a
    window can follow, $\mathrm{Re}\,\lambda(f_y) \, h$ above the number of points, it is infinite
    from there on, because any error at all would have grown past all bounds.
    """
    windows, num_points = marched.windows, carried.values.shape[1] - 2
    used = jnp.arange(windows.start.shape[0]) < marched.num_windows
    starts = jnp.where(used, windows.start, jnp.inf)
    transform = legendre_transform(num_points, carried.values.dtype).hi
    terms, errors = map_used(
        lambda found: (
            legendre_coefficients(found[0]),
            jnp.einsum("np,wpd->wnd", transform, found[1]),
        ),
        (carried.values, carried.corrections),
        marched.num_windows,
    )
    polynomials, signed = (Polynomials(starts, windows.span, x) for x in (terms, errors))
    resolution = polynomials.truncation() + _rounding(windows, carried.values) + carried.unresolved
    resolution = jnp.where(carried.growths[:, None] > num_points, jnp.inf, resolution)

    largest = max_of(jnp.abs(carried.corrections), axis=1) + resolution
    finite = jnp.all(jnp.isfinite(carried.corrections), axis=1)
    few_digits = tolerance.share(jnp.sqrt(tolerance.rtol), carried.scale, carried.standing.noise)
    trusted = jnp.all(finite & (largest <= few_digits[None]) | ~used[:, None])
    nonlinear = largest > _LINEAR * max_of(jnp.abs(carried.values), axis=1)
    lasting = jax.lax.cummax(jnp.where(nonlinear & finite, largest, 0.0), axis=0)
    resolution = jnp.maximum(resolution, lasting)
    return Corrected(polynomials, Error(signed, resolution), trusted)


def _finer(num_points: int) -> int:
    """The number of the correction's points, so large that they leave out no more than rounding.

    At the points of the fit a network is right to far more digits than between them.
    """
    return 3 * num_points // 2


def _rounding(
    windows: Window, values: Float[Array, "windows nodes dim"]
) -> Float[Array, "windows dim"]:
    """What two roundings of u change, and half a rounding of the time, at u's largest slope."""
    eps = jnp.finfo(values.dtype).eps
    steps = jnp.asarray(np.diff(all_nodes(values.shape[1] - 2)), values.dtype)
    spans = jnp.where(windows.span > 0, windows.span, 1.0)  # of unused windows it is zero
    slopes = max_of(jnp.abs(jnp.diff(values, axis=1)) / steps[None, :, None], axis=1)
    slopes = slopes / (spans[:, None] / 2)
    late = jnp.maximum(jnp.abs(windows.start), jnp.abs(windows.start + windows.span))
    return 2.0 * eps * max_of(jnp.abs(values), axis=1) + 0.5 * eps * late[:, None] * slopes


def _carry(
    linearised: Linearised | MatrixFree, known: Float[Array, "dim nodes"], *, lu: bool
) -> tuple[Float[Array, "dim nodes"], Float[Array, ""], Bool[Array, ""]]:
    r"""Returns (c, growth, stiff): the c of the linearised equation, and how fast f repels.

    Fixed-point iterations find c, and LU where they do not contract, as in stiff problems. Only
    there can f repel faster than a window can follow: growth is computed there and zero elsewhere,
    and c is infinite where growth is too large. Without `lu`, stiff says that the iterations do
    not contract, so that c means nothing.
    """
    half, integrals = linearised.half, linearised.integrals
    inside, at_end = known[:, :-1], known[:, -1:]
    num_points = inside.shape[1]
    eps, units = jnp.finfo(known.dtype).eps, linearised.units
    root = jnp.sqrt(eps)
    limit = max_of(max_of(jnp.abs(known), axis=1) / units) / root

    def step(c: Array) -> tuple[Array, Array]:
        new = inside + linearised.change(c, integrals[:-1])
        size, moved = (max_of(jnp.abs(x), axis=1) for x in (new, new - c))
        enough = root * (size + eps * units)  # the next pass sees what this leaves
        diverges = ~(max_of(moved / units) <= limit)
        return new, jnp.where(diverges, jnp.inf, max_of(in_units(moved, enough, jnp.inf)))

    c, last, _ = iterate(step, inside, enough=1.0, limit=jnp.inf)

    def measure(_: Array, still: Array) -> Array:
        if isinstance(linearised, MatrixFree):
            growth = 2 * jnp.where(still, half, 0.0) * _largest_repulsion(linearised, num_points)
        else:
            some = jnp.where(still, linearised.jacobian[:, :, ::6], 0.0)
            growth = 2 * half * max_of(_repulsion(some.transpose(2, 0, 1)))
        return jnp.where(growth <= num_points, growth, jnp.inf)

    def solve(_: Array, still: Array) -> Array:
        taken = linearised._replace(half=jnp.where(still, half, 0.0))
        return taken.solve(known)[:, :-1]

    implicit, growth = ~(last <= 1), jnp.zeros_like(half)
    if lu:
        # The second waits for the first: a batched call of LAPACK waits for XLA's threads, and
        # two at once could each hold threads that the other waits for.
        growth = where_needed(implicit, measure, growth)
        follows = jnp.isfinite(growth)
        c = where_needed(implicit & follows, solve, c)
        c = jnp.where(follows, c, jnp.inf)
    c = jnp.concatenate([c, at_end + linearised.change(c, integrals[-1:])], axis=1)
    return c, growth, jnp.asarray(False) if lu else implicit


def _largest_repulsion(linearised: MatrixFree, num_points: int) -> Float[Array, ""]:
    """An upper bound of the real parts of the Jacobians' eigenvalues; as exact as it has to be.

    Gershgorin's circles suffice where they say that f repels slowly enough to be followed. Of a
    Jacobian in blocks nothing more is known.
    """
    enough = num_points / (2 * linearised.half)

    def at(index: Array) -> Array:
        jacobian = linearised.jacobian_at(index, jnp.ones_like(linearised.size))
        scaled = linearised.jacobian_at(index, linearised.units)
        bound = jnp.minimum(largest_real_part(jacobian), largest_real_part(scaled))
        if not isinstance(scaled, Array):
            return bound
        return where_needed(
            bound > enough,
            lambda _, now: _repulsion(jnp.where(now, scaled, 0.0)[None])[0],
            bound,
        )

    return max_of(jax.lax.map(at, jnp.arange(0, num_points, 6)))


def _repulsion(matrices: Float[Array, "points dim dim"]) -> Float[Array, " points"]:
    """The largest real part of each matrix's eigenvalues; on a TPU, without `eigvals`, a bound."""

    def exactly(matrices: Array) -> Array:
        return max_of(jnp.linalg.eigvals(matrices).real, axis=-1)

    def at_most(matrices: Array) -> Array:
        return jnp.linalg.eigvalsh((matrices + matrices.mT) / 2)[..., -1]

    return jax.lax.platform_dependent(matrices, tpu=at_most, default=exactly)
