"""Parameters, starts and window networks fitted together: Bock's multiple shooting by collocation.

The solution is cut into windows, and the state at every window's start is an unknown of its own.
A parameter that is far off then spoils a window, not the whole trajectory, which is what makes
the method find its way from poor guesses and through chaos. The jumps between windows are
penalised, weakly first and at last so strongly that nothing is left of them.

Source: H. G. Bock, "Recent advances in parameter identification techniques for O.D.E.", Numerical
Treatment of Inverse Problems in Differential and Integral Equations, Birkhäuser (1983).
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.features import Tables

LOSSES = ("squares", "huber", "soft_l1")
_HUBER = 1.345  # Huber's: 95 % efficient where the noise is normal after all

# Continuity in units of a typical state: from jumps of a third of it to jumps that do not matter.
_FIRST_COUPLING, _COUPLING_FACTOR = 3.0, 10.0
LAST_COUPLING = 1e5  # in units of the data's size by its noise
_FIRST_DAMPING, _LEAST_DAMPING, _HARMLESS_DAMPING, _MOST_DAMPING = 1e2, 1e-8, 1.0, 1e12
_DAMPING_DOWN, _DAMPING_UP = 0.2, 5.0


class Problem(eqx.Module):
    """What is to be fitted to what; `p` below are the free parameters, transformed."""

    field: Callable[..., Array]  # field(t, y, p), a pytree; y of shape (dim, *batch)
    observe: Callable[[Array], Array]  # (dim,) to (obs,)
    loss: str = eqx.field(static=True)
    known_noise: bool = eqx.field(static=True)
    num_free: int = eqx.field(static=True)  # unknown numbers: parameters and start
    tables: Tables
    starts: Float[Array, " windows"]
    halves: Float[Array, " windows"]  # half the windows' widths
    basis: Float[Array, "windows slots rank"]  # values at the observations of a window
    rows: Int[Array, "windows slots"]  # which observations these are
    used: Bool[Array, "windows slots"]  # a window may hold fewer than its slots
    ys: Float[Array, "n obs"]
    noise: Float[Array, " obs"]  # unit of the residual: its standard deviation, where known
    hard: Float[Array, ""]  # the coupling at which jumps no longer matter
    typical_p: Float[Array, " p"]
    typical_y: Float[Array, " dim"]
    # Rows weight * (unknown - mean) of the least-squares problem.
    prior: tuple[Float[Array, " p"], Float[Array, " p"]]  # mean, weight
    start: tuple[Float[Array, " dim"], Float[Array, " dim"]]


class Linear(NamedTuple):
    """The problem linearised about a point, the networks' readouts eliminated."""

    readout_s: Float[Array, "windows size dim"]  # change of the readouts with the starts
    readout_p: Float[Array, "windows size p"]
    end_s: Float[Array, "windows dim dim"]  # and of the ends
    end_p: Float[Array, "windows dim p"]
    jumps: Float[Array, "gaps dim"]
    data_s: Float[Array, "windows rows dim"]
    data_p: Float[Array, "windows rows p"]
    residual: Float[Array, "windows rows"]  # in units of `noise`; zero in unused slots
    newton: Float[Array, " windows"]  # last change of u, in typical states


class Point(NamedTuple):
    """A point of the iteration."""

    p: Float[Array, " p"]
    s: Float[Array, "windows dim"]  # states at the windows' starts
    c: Float[Array, "windows rank dim"]  # readouts in the tables' basis
    linear: Linear


class Fitted(NamedTuple):
    """Where the iteration ended."""

    point: Point
    scale: Float[Array, ""]  # of the residual in units of `noise`
    cost: Float[Array, ""]  # of data and priors, what was minimised
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]


class _State(NamedTuple):
    point: Point
    best: Point
    ventured: Bool[Array, ""]  # past the best point, uphill
    cost: Float[Array, ""]
    scale: Float[Array, ""]
    damping: Float[Array, ""]
    coupling: Float[Array, ""]
    count: Int[Array, ""]
    converged: Bool[Array, ""]


def evaluate(problem: Problem, p: Array, s: Array, c: Array, newton_steps: int = 2) -> Point:
    """The windows solved from their starts s at p, by Newton from the readouts c."""

    def solve(start, half, s, c, basis, rows, used):
        for _ in range(newton_steps):
            c, by_s, by_p, newton = _newton(problem, start, half, s, c, p)
        rank, dim = c.shape
        by = jnp.concatenate([by_s, by_p], axis=1).reshape(rank, dim, -1)
        ahead = jnp.eye(dim, by.shape[-1], dtype=c.dtype)

        end = s + half * (problem.tables.end @ c)
        end_by = ahead + half * jnp.einsum("r,rdk->dk", problem.tables.end, by)
        u = s + half * (basis @ c)
        u_by = ahead + half * jnp.einsum("nr,rdk->ndk", basis, by)

        def observed(u, u_by):
            value, tangent = jax.linearize(problem.observe, u)
            return value, jax.vmap(tangent, 1, 1)(u_by)

        value, value_by = jax.vmap(observed)(u, u_by)
        weight = used[:, None] / problem.noise
        residual = (weight * (value - problem.ys[rows])).ravel()
        value_by = (weight[:, :, None] * value_by).reshape(residual.size, -1)
        return c, end, (by_s, by_p), jnp.split(end_by, [dim], 1), value_by, residual, newton

    c, ends, by, (end_s, end_p), data, residual, newton = jax.vmap(solve)(
        problem.starts, problem.halves, s, c, problem.basis, problem.rows, problem.used
    )
    data_s, data_p = jnp.split(data, [s.shape[1]], axis=2)
    jumps = ends[:-1] - s[1:]
    return Point(p, s, c, Linear(*by, end_s, end_p, jumps, data_s, data_p, residual, newton))


def _newton(problem: Problem, start, half, s, c, p):
    """A Gauss-Newton step of one window's readout, and the readout's derivatives."""
    tables = problem.tables
    times = start + half * (tables.points + 1)
    (rank, dim), root = c.shape, jnp.sqrt(tables.weights)
    u = s[:, None] + half * (tables.values @ c).T
    f, tangent = jax.linearize(lambda u, p: problem.field(times, u, p), u, p)
    eye, eye_p = jnp.eye(dim, dtype=c.dtype), jnp.eye(p.size, dtype=c.dtype)
    directions = jnp.broadcast_to(eye[:, :, None], (dim, *u.shape))
    f_u = jax.vmap(lambda v: tangent(v, jnp.zeros_like(p)))(directions)
    f_p = jax.vmap(lambda v: tangent(jnp.zeros_like(u), v))(eye_p)
    residual = (tables.slopes @ c).T - f
    matrix = jnp.einsum("p,pr,ij->ipjr", root, tables.slopes, eye)
    matrix = matrix - half * jnp.einsum("p,pr,jip->ipjr", root, tables.values, f_u)
    matrix = matrix.transpose(0, 1, 3, 2).reshape(dim * root.size, rank * dim)
    right = root * jnp.concatenate([residual[None], -f_u, -f_p])
    right = right.reshape(right.shape[0], -1).T
    # The triangle of [A B] holds that of A, and Q^T B beside it.
    triangle = jnp.linalg.qr(jnp.concatenate([matrix, right], axis=1), mode="r")
    size = rank * dim
    answer = -jax.scipy.linalg.solve_triangular(triangle[:size, :size], triangle[:size, size:])
    step = answer[:, 0].reshape(rank, dim)
    change = jnp.max(jnp.abs(half * (tables.values @ step)) / problem.typical_y)
    return c + step, answer[:, 1 : 1 + dim], answer[:, 1 + dim :], change


def weigh(loss: str, r: Array) -> tuple[Array, Array, Array]:
    r"""Of a loss $\rho$ of residuals in standard deviations: $\rho, \rho'/(2r), \rho''/2$."""
    if loss == "huber":
        size = jnp.abs(r)
        inside = size <= _HUBER
        cost = jnp.where(inside, r**2, _HUBER * (2 * size - _HUBER))
        weight = _HUBER / jnp.maximum(size, _HUBER)
        return cost, weight, inside.astype(r.dtype)
    if loss == "soft_l1":
        root = jnp.sqrt(1 + r**2)
        return 2 * (root - 1), 1 / root, root**-3
    return r**2, jnp.ones_like(r), jnp.ones_like(r)


def data_cost(problem: Problem, point: Point, scale: Array) -> Float[Array, ""]:
    """The loss of the data, and the squares of the priors' rows."""
    rows = [weight * (x - mean) for x, (mean, weight) in _anchored(problem, point)]
    cost = jnp.sum(weigh(problem.loss, point.linear.residual / scale)[0])
    return cost + sum(jnp.sum(row**2) for row in rows)


def _anchored(problem: Problem, point: Point):
    return (point.s[0], problem.start), (point.p, problem.prior)


def _cost(problem: Problem, point: Point, scale: Array, coupling: Array) -> Float[Array, ""]:
    jumps = point.linear.jumps / problem.typical_y
    gaps = jnp.sum(jumps**2) + jnp.sum(point.linear.newton**2)
    return data_cost(problem, point, scale) + coupling**2 * gaps


def linear_solve(
    problem: Problem,
    point: Point,
    scale: Array,
    coupling: Array,
    damping: Array,
    held=0.0,
    robust=True,
) -> tuple[Array, Array, Array]:
    """Least squares of the linearised problem, eliminating window by window from the last.

    Returns:
        The changes of p and of s, and the triangle of the last problem, in (s[0], p | right).
    """
    linear, dtype = point.linear, point.p.dtype
    num_windows, dim = point.s.shape
    width = dim + point.p.size + 1
    r = linear.residual / scale
    root = jnp.sqrt(weigh(problem.loss, r)[1]) if robust else jnp.ones_like(r)
    data = jnp.concatenate([linear.data_s / scale, linear.data_p / scale, r[:, :, None]], axis=2)
    data = jnp.linalg.qr(root[:, :, None] * data, mode="r")
    data = jnp.pad(data, ((0, 0), (0, max(width - data.shape[1], 0)), (0, 0)))
    weight = coupling / problem.typical_y
    away = -jnp.diag(weight)
    gaps = weight[:, None] * jnp.concatenate(
        [linear.end_s[:-1], linear.end_p[:-1], linear.jumps[:, :, None]], axis=2
    )
    damped = jnp.diag(jnp.sqrt(damping) / problem.typical_y)

    def eliminate(later, window):
        gap, data = window
        zeros = lambda rows, columns: jnp.zeros((rows, columns), dtype)  # noqa: E731
        # Columns: the later start | the earlier start, p, right-hand side. Heavy rows come
        # first, which Householder's QR wants.
        later = jnp.concatenate([later[:, :dim], zeros(width, dim), later[:, dim:]], axis=1)
        matrix = jnp.concatenate(
            [
                jnp.concatenate([away, gap], axis=1),
                later,
                jnp.concatenate([zeros(width, dim), data], axis=1),
                jnp.concatenate([damped, zeros(dim, width)], axis=1),
            ]
        )
        triangle = jnp.linalg.qr(matrix, mode="r")
        return triangle[dim:, dim:], triangle[:dim]

    last, eliminated = jax.lax.scan(eliminate, data[-1], (gaps, data[:-1]), reverse=True)
    anchors = [(weight, weight * (x - mean)) for x, (mean, weight) in _anchored(problem, point)]
    weights, rights = (jnp.concatenate(x) for x in zip(*anchors, strict=True))
    typical = jnp.concatenate([problem.typical_y, problem.typical_p])
    anchor = jnp.concatenate([jnp.diag(weights), rights[:, None]], axis=1)
    extra = jnp.concatenate([jnp.zeros(dim, dtype), jnp.full(point.p.size, held, dtype)])
    damped = jnp.pad(jnp.diag((extra + jnp.sqrt(damping)) / typical), ((0, 0), (0, 1)))
    triangle = jnp.linalg.qr(jnp.concatenate([anchor, last, damped]), mode="r")
    answer = -jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
    first, dp = jnp.split(answer, [dim])

    def substitute(ds, row):
        known = row[:, dim:] @ jnp.concatenate([ds, dp, jnp.ones(1, dtype)])
        ds = -jax.scipy.linalg.solve_triangular(row[:, :dim], known)
        return ds, ds

    _, rest = jax.lax.scan(substitute, first, eliminated)
    return dp, jnp.concatenate([first[None], rest]), triangle


def estimate_scale(problem: Problem, point: Point) -> Float[Array, ""]:
    """The standard deviation of the residual in units of `noise`; 1 where that is known."""
    residual, one = point.linear.residual, jnp.ones((), point.p.dtype)
    if problem.known_noise:
        return one
    number = problem.ys.size
    if problem.loss == "squares":
        return jnp.sqrt(jnp.sum(residual**2) / max(number - problem.num_free, 1))
    # Of the normal distribution, from the median of |r|, which outliers hardly move.
    used = jnp.repeat(problem.used.ravel(), problem.ys.shape[1]).reshape(residual.shape)
    return 1.4826 * jnp.nanmedian(jnp.where(used, jnp.abs(residual), jnp.nan))


def window_residuals(problem: Problem, point: Point) -> Float[Array, " windows"]:
    """The equation's residual in between its points, times the width: a change of u.

    In units of a typical state; the largest of each window.
    """
    tables = problem.tables

    def largest(start, half, s, c):
        u = s[:, None] + half * (tables.check_values @ c).T
        f = problem.field(start + half * (tables.check_points + 1), u, point.p)
        change = 2 * half * jnp.max(jnp.abs((tables.check_slopes @ c).T - f), axis=1)
        return jnp.max(change / problem.typical_y)

    return jax.vmap(largest)(problem.starts, problem.halves, point.s, point.c)


@eqx.filter_jit
def fit(problem: Problem, p: Array, s: Array, max_iterations: int) -> Fitted:
    """Levenberg-Marquardt from p and s; the coupling grows whenever a minimum is near."""
    c = jnp.zeros((s.shape[0], problem.tables.rank, s.shape[1]), s.dtype)
    number = jnp.asarray(problem.ys.size, s.dtype)

    def coupled(point, coupling):
        """Costs at another coupling need another scale of the residual as well."""
        scale = estimate_scale(problem, point)
        return scale, _cost(problem, point, scale, coupling)

    def iterate(state: _State) -> _State:
        point = state.point
        held = jnp.where(state.coupling <= _FIRST_COUPLING, 1e6, 0.0)
        dp, ds, triangle = linear_solve(
            problem, point, state.scale, state.coupling, state.damping, held
        )
        change = jnp.einsum("wrd,wd->wr", point.linear.readout_s, ds)
        change = change + point.linear.readout_p @ dp
        trial = evaluate(
            problem, point.p + dp, point.s + ds, point.c + change.reshape(point.c.shape)
        )
        cost = _cost(problem, trial, state.scale, state.coupling)
        better = cost < state.cost
        # Where a valley is curved a full step climbs its side, and the next comes down again
        # further on: one step uphill is allowed (the watchdog of Chamberlain et al. 1982).
        ventured = ~better & ~state.ventured & jnp.isfinite(cost)
        gain = jnp.abs(state.cost - cost)
        # Nielsen's: the more of what the linear model promised came true, the less damping.
        share = (state.cost - cost) / (state.cost - triangle[-1, -1] ** 2)
        trust = jnp.clip(1 - (2 * share - 1) ** 3, _DAMPING_DOWN, 2.0)
        factor = jnp.where(better, jnp.where(state.ventured, 1.0, trust), _DAMPING_UP)
        damping = state.damping * jnp.where(ventured, 1.0, factor)
        free = state.damping <= _HARMLESS_DAMPING
        hard = state.coupling >= problem.hard
        near = free & (gain < 0.01 * number) | (damping > _MOST_DAMPING)
        converged = hard & free & (gain < 1e-6 * (1 + 1e-3 * state.cost))
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.best)
        point = jax.tree.map(lambda new, old: jnp.where(ventured & ~near, new, old), trial, best)
        cost = jnp.where(better, cost, state.cost)
        coupling = jnp.minimum(state.coupling * _COUPLING_FACTOR, problem.hard)
        scale, raised = coupled(best, coupling)
        up = near & ~hard
        damping = jnp.where(up, jnp.minimum(damping, _HARMLESS_DAMPING), damping)
        return _State(
            point,
            best,
            ventured & ~near,
            jnp.where(up, raised, cost),
            jnp.where(up, scale, state.scale),
            jnp.maximum(damping, _LEAST_DAMPING),
            jnp.where(up, coupling, state.coupling),
            state.count + 1,
            converged,
        )

    with jax.default_matmul_precision("highest"):
        point = evaluate(problem, p, s, c, 6)
        coupling = jnp.asarray(_FIRST_COUPLING, s.dtype)
        scale, cost = coupled(point, coupling)
        state = _State(
            point,
            point,
            jnp.asarray(False),
            cost,
            scale,
            jnp.asarray(_FIRST_DAMPING, s.dtype),
            coupling,
            jnp.asarray(0),
            jnp.asarray(False),
        )
        state = jax.lax.while_loop(
            lambda s: ~s.converged & (s.count < max_iterations) & (s.damping <= 10 * _MOST_DAMPING),
            iterate,
            state,
        )
    return Fitted(
        state.best,
        state.scale,
        data_cost(problem, state.best, state.scale),
        state.converged,
        state.count,
    )
