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

from physml.pinn.collocation import Tables

LOSSES = ("squares", "huber", "soft_l1")
_HUBER = 1.345  # Huber's: 95 % efficient where the noise is normal after all

# Continuity is weighed in units of a typical state: from jumps of a third of it, which is as good
# as no condition, to jumps of a 1e-5th of what the data's noise is.
_FIRST_COUPLING, _COUPLING_FACTOR = 3.0, 10.0
_LAST_COUPLING, HARDEST = 1e5, 1e9  # the first times the data's size by its noise
_FINEST = 1e-6  # noise below this share of the data's size is taken for it
# Damping is the cost of changing a parameter, or a start, by its own size.
_FIRST_DAMPING, _LEAST_DAMPING, _HARMLESS_DAMPING, _MOST_DAMPING = 1e2, 1e-8, 1.0, 1e12
_DAMPING_DOWN, _DAMPING_UP = 0.2, 5.0
# A minimum is near where a step gains less than a hundredth of a standard deviation squared for
# each observation, and reached where it gains nothing that matters to a likelihood.
_NEAR, _CONVERGED = 1e-2, 1e-8


class Problem(eqx.Module):
    """What is to be fitted to what; `p` below are the free parameters, transformed."""

    field: Callable[..., Array]  # field(t, y, p), a pytree; y of shape (dim, *batch)
    observe: Callable[[Array], Array]  # (dim,) to (obs,)
    loss: str = eqx.field(static=True)
    known_noise: bool = eqx.field(static=True)
    num_free: int = eqx.field(static=True)  # unknown numbers: parameters and start
    tables: Tables
    starts: Float[Array, " windows"]
    halves: Float[Array, " windows"]  # half the windows' spans
    basis: Float[Array, "windows slots rank"]  # values at the observations of a window
    rows: Int[Array, "windows slots"]  # which observations these are
    used: Bool[Array, "windows slots"]  # a window may hold fewer than its slots
    ys: Float[Array, "n obs"]
    noise: Float[Array, " obs"]  # unit of the residual: its standard deviation, where known
    signal: Float[Array, ""]  # the data's size in units of `noise`
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
        c = jax.lax.fori_loop(
            1, newton_steps, lambda _, c: _newton(problem, start, half, s, c, p)[0], c
        )
        c, by_s, by_p, newton = _newton(problem, start, half, s, c, p)
        rank, dim = c.shape
        by = jnp.concatenate([by_s, by_p], axis=1).reshape(rank, dim, -1)
        ahead = jnp.eye(dim, by.shape[-1], dtype=c.dtype)

        end = s + half * (problem.tables.end @ c)
        end_by = ahead + half * jnp.einsum("r,rdk->dk", problem.tables.end, by)
        u = s[None] + half * (basis @ c)
        u_by = ahead[None] + half * jnp.einsum("nr,rdk->ndk", basis, by)

        def observed(u, u_by):
            value, tangent = jax.linearize(problem.observe, u)
            return value, jax.vmap(tangent, 1, 1)(u_by)

        value, value_by = jax.vmap(observed)(u, u_by)
        weight = jnp.where(used[:, None], 1 / problem.noise[None], 0.0)
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
    right = root[None, None] * jnp.concatenate([residual[None], -f_u, -f_p])
    right = right.reshape(right.shape[0], -1).T
    # The triangle of [A B] holds that of A, and Q^T B beside it.
    triangle = jnp.linalg.qr(jnp.concatenate([matrix, right], axis=1), mode="r")
    size = rank * dim
    answer = -jax.scipy.linalg.solve_triangular(triangle[:size, :size], triangle[:size, size:])
    step = answer[:, 0].reshape(rank, dim)
    change = jnp.max(jnp.abs(half * (tables.values @ step)) / problem.typical_y[None])
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
    cost = jnp.sum(weigh(problem.loss, point.linear.residual / scale)[0])
    return cost + jnp.sum(_anchors(problem, point) ** 2)


def _anchors(problem: Problem, point: Point) -> Float[Array, " unknowns"]:
    """The priors' rows at a point: of the start, and of p."""
    anchored = (point.s[0], *problem.start), (point.p, *problem.prior)
    return jnp.concatenate([weight * (x - mean) for x, mean, weight in anchored])


def _cost(problem: Problem, point: Point, scale: Array, coupling: Array) -> Float[Array, ""]:
    jumps = point.linear.jumps / problem.typical_y[None]
    gaps = jnp.sum(jumps**2) + jnp.sum(point.linear.newton**2)
    return data_cost(problem, point, scale) + coupling**2 * gaps


class Step(NamedTuple):
    """The solution of the linearised problem."""

    p: Float[Array, " p"]
    s: Float[Array, "windows dim"]
    promised: Float[Array, ""]  # decrease of the cost, damping counted as cost
    triangle: Float[Array, "unknowns unknowns"]  # of QR, in s[0] and p, all later starts eliminated


def linear_solve(
    problem: Problem,
    point: Point,
    scale: Array,
    coupling: Array,
    damping: Array,
    *,
    hold: Array | float = 0.0,
    robust: bool = True,
) -> Step:
    """Least squares of the linearised problem by QR, eliminating the starts from the last one.

    Args:
        hold: damping of p alone.
        robust: weigh the data by the loss; otherwise all alike.
    """
    linear, dtype = point.linear, point.p.dtype
    dim = point.s.shape[1]
    columns = dim + point.p.size + 1
    r = linear.residual / scale
    root = jnp.sqrt(weigh(problem.loss, r)[1]) if robust else jnp.ones_like(r)
    data = jnp.concatenate([linear.data_s / scale, linear.data_p / scale, r[:, :, None]], axis=2)
    data = jnp.linalg.qr(root[:, :, None] * data, mode="r")
    data = jnp.pad(data, ((0, 0), (0, max(columns - data.shape[1], 0)), (0, 0)))
    weight = coupling / problem.typical_y
    away = -jnp.diag(weight)
    gaps = weight[None, :, None] * jnp.concatenate(
        [linear.end_s[:-1], linear.end_p[:-1], linear.jumps[:, :, None]], axis=2
    )
    still = jnp.diag(jnp.sqrt(damping) / problem.typical_y)
    beside, below = jnp.zeros((columns, dim), dtype), jnp.zeros((dim, columns), dtype)

    def eliminate(later, window):
        gap, data = window
        # Columns: the later start | the earlier start, p, right-hand side. Heavy rows come
        # first, which Householder's QR wants.
        matrix = jnp.block(
            [
                [away, gap],
                [later[:, :dim], beside, later[:, dim:]],
                [beside, data],
                [still, below],
            ]
        )
        triangle = jnp.linalg.qr(matrix, mode="r")
        return triangle[dim:, dim:], triangle[:dim]

    last, eliminated = jax.lax.scan(eliminate, data[-1], (gaps, data[:-1]), reverse=True)
    anchors = _anchors(problem, point)
    weights = jnp.concatenate([problem.start[1], problem.prior[1]])
    steady = jnp.sqrt(damping) + jnp.where(jnp.arange(columns - 1) < dim, 0.0, hold)
    steady = steady / jnp.concatenate([problem.typical_y, problem.typical_p])
    anchored = jnp.concatenate([jnp.diag(weights), anchors[:, None]], axis=1)
    steady = jnp.pad(jnp.diag(steady), ((0, 0), (0, 1)))
    triangle = jnp.linalg.qr(jnp.concatenate([anchored, last, steady]), mode="r")
    answer = -jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
    first, dp = jnp.split(answer, [dim])

    def substitute(ds, row):
        known = row[:, dim:] @ jnp.concatenate([ds, dp, jnp.ones(1, dtype)])
        ds = -jax.scipy.linalg.solve_triangular(row[:, :dim], known)
        return ds, ds

    _, rest = jax.lax.scan(substitute, first, eliminated)
    now = jnp.sum((root * r) ** 2) + jnp.sum(gaps[:, :, -1] ** 2) + jnp.sum(anchors**2)
    ds = jnp.concatenate([first[None], rest])
    return Step(dp, ds, now - triangle[-1, -1] ** 2, triangle[:-1, :-1])


def last_coupling(problem: Problem, scale: Array) -> Float[Array, ""]:
    """At which jumps no longer matter."""
    return jnp.minimum(_LAST_COUPLING * problem.signal / scale, HARDEST)


def used_rows(problem: Problem) -> Bool[Array, "windows rows"]:
    """Which entries of the residual are data: a row for each observed number of a slot."""
    return jnp.repeat(problem.used, problem.ys.shape[1], axis=1)


def estimate_scale(problem: Problem, point: Point) -> Float[Array, ""]:
    """The standard deviation of the residual in units of `noise`; 1 where that is known."""
    residual = point.linear.residual
    if problem.known_noise:
        return jnp.ones((), residual.dtype)
    number = problem.ys.size
    least = _FINEST * problem.signal
    if problem.loss == "squares":
        variance = jnp.sum(residual**2) / max(number - problem.num_free, 1)
        return jnp.maximum(jnp.sqrt(variance), least)
    # Of the normal distribution, from the median of |r|, which outliers hardly move.
    size = jnp.where(used_rows(problem), jnp.abs(residual), jnp.nan)
    return jnp.maximum(1.4826 * jnp.nanmedian(size), least)


def window_residuals(problem: Problem, point: Point) -> Float[Array, " windows"]:
    """The equation's residual in between its points, times the span: a change of u.

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
def fit(problem: Problem, p: Array, s: Array, max_steps: int) -> Fitted:
    """Levenberg-Marquardt from p and s; the coupling grows whenever a minimum is near.

    At the first coupling p is held, so that the starts that are not observed come near a solution
    before p follows them.
    """
    with jax.default_matmul_precision("highest"):
        c = jnp.zeros((s.shape[0], problem.tables.rank, s.shape[1]), s.dtype)
        point = evaluate(problem, p, s, c, 6)
        coupling = jnp.asarray(_FIRST_COUPLING, s.dtype)
        scale = estimate_scale(problem, point)
        state = _State(
            point=point,
            best=point,
            ventured=jnp.asarray(False),
            cost=_cost(problem, point, scale, coupling),
            scale=scale,
            damping=jnp.asarray(_FIRST_DAMPING, s.dtype),
            coupling=coupling,
            count=jnp.asarray(0),
            converged=jnp.asarray(False),
        )
        state = jax.lax.while_loop(
            lambda state: (
                ~state.converged
                & (state.count < max_steps)
                & (state.damping <= _MOST_DAMPING)
                & jnp.isfinite(state.cost)
            ),
            lambda state: _iterate(problem, state),
            state,
        )
    cost = data_cost(problem, state.best, state.scale)
    return Fitted(state.best, cost, state.converged, state.count)


def _iterate(problem: Problem, state: _State) -> _State:
    """A step, accepted or not, and a harder coupling where the step gains little."""
    point = state.point
    hold = jnp.where(state.coupling <= _FIRST_COUPLING, 1e6, 0.0)
    step = linear_solve(problem, point, state.scale, state.coupling, state.damping, hold=hold)
    change = jnp.einsum("wrd,wd->wr", point.linear.readout_s, step.s)
    change = change + point.linear.readout_p @ step.p
    readouts = point.c + change.reshape(point.c.shape)
    trial = evaluate(problem, point.p + step.p, point.s + step.s, readouts)
    cost = _cost(problem, trial, state.scale, state.coupling)

    better = cost < state.cost
    gain = jnp.abs(state.cost - cost)
    free = state.damping <= _HARMLESS_DAMPING
    near = free & (gain < _NEAR * problem.ys.size)
    last = last_coupling(problem, state.scale)
    hard = state.coupling >= last
    # Where a valley is curved a full step climbs its side, and the next comes down again further
    # on: one step uphill is allowed (the watchdog of Chamberlain et al., Math. Prog. Study 1982).
    ventured = ~better & ~state.ventured & ~near & jnp.isfinite(cost)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.best)
    point = jax.tree.map(lambda new, old: jnp.where(ventured, new, old), trial, best)
    # Nielsen's rule: the more of what the linear problem promised came true, the less damping.
    share = (state.cost - cost) / step.promised
    trust = jnp.clip(1 - (2 * share - 1) ** 3, _DAMPING_DOWN, 2.0)
    kept = ventured | (better & state.ventured)
    factor = jnp.where(kept, 1.0, jnp.where(better, trust, _DAMPING_UP))
    # At another coupling the residual has another scale, and the cost is another.
    harder = near & ~hard
    coupling = jnp.minimum(state.coupling * _COUPLING_FACTOR, last)
    coupling = jnp.where(harder, coupling, state.coupling)
    scale = jnp.where(harder, estimate_scale(problem, best), state.scale)
    return _State(
        point=point,
        best=best,
        ventured=ventured,
        cost=_cost(problem, best, scale, coupling),
        scale=scale,
        damping=jnp.maximum(state.damping * factor, _LEAST_DAMPING),
        coupling=coupling,
        count=state.count + 1,
        converged=hard & free & (gain < _CONVERGED * (1 + state.cost)),
    )
