"""Multiple shooting by Levenberg-Marquardt: a step by QR, and a coupling that grows."""

import dataclasses
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._shooting import Scales, ShootingPoint, ShootingProblem

# The coupling weighs jumps in units of a typical state. A jump of 1/3 of it costs 1 at first,
# which is as good as no condition; `last_coupling` tolerates 1e-5 of the noise.
_FIRST_COUPLING, _COUPLING_FACTOR = 3.0, 10.0
# Damping is the cost of changing a parameter, or a start, by its own size.
_FIRST_DAMPING, _LEAST_DAMPING, _HARMLESS_DAMPING, _MOST_DAMPING = 1e2, 1e-8, 1.0, 1e12
_DAMPING_DOWN, _DAMPING_UP = 0.2, 5.0
# A minimum is near where a step gains less than a hundredth of a standard deviation squared for
# each observation, and reached where a step gains nothing that matters to a likelihood.
# Along what the data do not determine, small gains may go on: after all steps they are enough.
_NEAR, _CONVERGED, _GOOD_ENOUGH = 1e-2, 1e-8, 1e-4
_FIRST_NEWTON_STEPS = 6  # from readouts of zero


class ShootingStep(NamedTuple):
    """The solution of the linearised problem."""

    p: Float[Array, " p"]
    s: Float[Array, "windows dim"]
    promised: Float[Array, ""]  # decrease of the cost, damping counted as cost
    triangle: Float[Array, "unknowns unknowns"]  # R of s[0] and p, the later starts eliminated


def linear_solve(
    problem: ShootingProblem,
    point: ShootingPoint,
    noise: Array,
    coupling: Array,
    damping: Array,
    *,
    hold: Array,
    robust: Array,
) -> ShootingStep:
    """Least squares of the linearised problem by QR, eliminating the starts from the last one.

    Args:
        hold: additional damping, of p alone.
        robust: whether the loss weighs the data; otherwise all count alike.
    """
    linear, dtype = point.linear, point.p.dtype
    dim = point.s.shape[1]
    columns = dim + point.p.size + 1
    r = shooting.standardised(problem, point, noise)
    root = jnp.where(robust, jnp.sqrt(shooting.weigh(problem.loss, r)[1]), 1.0)
    data = root[:, :, None] * shooting.data_rows(problem, point, noise)
    data = jnp.linalg.qr(data, mode="r")
    data = jnp.pad(data, ((0, 0), (0, max(columns - data.shape[1], 0)), (0, 0)))
    weight = coupling / problem.scales.y
    away = -jnp.diag(weight)
    gaps = weight[None, :, None] * linear.jumps
    still = jnp.diag(jnp.sqrt(damping) / problem.scales.y)
    beside, below = jnp.zeros((columns, dim), dtype), jnp.zeros((dim, columns), dtype)

    def eliminate(later, window):
        gap, data = window
        # Columns: the later start | the earlier start, p, right-hand side. Householder's QR is
        # accurate where heavy rows come first.
        matrix = jnp.block(
            [[away, gap], [later[:, :dim], beside, later[:, dim:]], [beside, data], [still, below]]
        )
        triangle = jnp.linalg.qr(matrix, mode="r")
        return triangle[dim:, dim:], triangle[:dim]

    last, eliminated = jax.lax.scan(eliminate, data[-1], (gaps, data[:-1]), reverse=True)
    anchors = shooting.prior_rows(problem, point)
    weights = jnp.concatenate([problem.start[1] / problem.scales.y, problem.prior[1]])
    steady = jnp.sqrt(damping) + jnp.where(jnp.arange(columns - 1) < dim, 0.0, hold)
    steady = steady / jnp.concatenate(problem.scales)
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
    return ShootingStep(dp, ds, now - triangle[-1, -1] ** 2, triangle[:-1, :-1])


class ShootingFit(NamedTuple):
    """Where the iteration ended."""

    point: ShootingPoint
    triangle: Float[Array, "unknowns unknowns"]  # R of s[0] and p, undamped, all data alike
    cost: Float[Array, ""]  # of data and priors, what was minimised
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]
    scales: Scales
    noise: Float[Array, "rows obs"]


class _Guess(NamedTuple):
    """What is evaluated next."""

    p: Float[Array, " p"]
    s: Float[Array, "windows dim"]
    c: Float[Array, "windows rank dim"]
    promised: Float[Array, ""]  # decrease of the cost
    triangle: Float[Array, "unknowns unknowns"]  # of the linear problem that led here


class _Iteration(NamedTuple):
    """Where the iteration stands."""

    guess: _Guess
    best: ShootingPoint
    ventured: Bool[Array, ""]  # whether the last step went uphill from the best point
    cost: Float[Array, ""]
    scales: Scales
    noise: Float[Array, "rows obs"]
    damping: Float[Array, ""]
    coupling: Float[Array, ""]
    count: Int[Array, ""]
    converged: Bool[Array, ""]
    ended: Bool[Array, ""]


@eqx.filter_jit
def fit_windows(problem: ShootingProblem, p: Array, s: Array, max_steps: int) -> ShootingFit:
    """Levenberg-Marquardt from p and s; the coupling grows whenever a minimum is near.

    At the first coupling p is held, so that components that are not observed come near a solution
    before p follows them.
    """
    with jax.default_matmul_precision("highest"):
        c = jnp.zeros((s.shape[0], problem.layout.tables.rank, s.shape[1]), s.dtype)
        one = jnp.ones((), s.dtype)
        shapes = jax.eval_shape(lambda: shooting.evaluate(problem, p, s, c, 1))
        nowhere = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        noise_shape = jax.eval_shape(lambda: shooting.estimate_noise(problem, nowhere, one)).shape
        unknowns = s.shape[1] + p.size
        state = _Iteration(
            guess=_Guess(p, s, c, one, jnp.zeros((unknowns, unknowns), s.dtype)),
            best=nowhere,
            ventured=jnp.asarray(True),  # so that the damping stays
            cost=jnp.inf * one,  # the first guess is accepted
            scales=problem.scales,
            noise=jnp.broadcast_to(problem.first_noise, noise_shape),
            damping=_FIRST_DAMPING * one,
            coupling=_FIRST_COUPLING * one,
            count=jnp.asarray(-1),
            converged=jnp.asarray(False),
            ended=jnp.asarray(False),
        )
        state = jax.lax.while_loop(
            lambda state: ~state.ended, lambda state: _iterate(problem, state, max_steps), state
        )
    problem = dataclasses.replace(problem, scales=state.scales)
    noise = shooting.estimate_noise(problem, state.best, state.coupling)
    cost = shooting.data_cost(problem, state.best, noise)
    triangle, end = state.guess.triangle, (state.converged, state.count)
    return ShootingFit(state.best, triangle, cost, *end, state.scales, noise)


def _iterate(problem: ShootingProblem, state: _Iteration, max_steps: int) -> _Iteration:
    """Evaluate a guess, accept it or not, couple harder where it gained little, guess the next.

    The first guess is where the iteration starts, and is accepted. The program holds the evaluation
    and the linear problem only once, for the first guess and for the covariance at the end as well,
    because each of them takes long to compile.
    """
    problem = dataclasses.replace(problem, scales=state.scales)
    first = state.count < 0
    p, s, readouts, _, _ = state.guess
    trial = shooting.evaluate(problem, p, s, readouts, jnp.where(first, _FIRST_NEWTON_STEPS, 2))
    cost = shooting.total_cost(problem, trial, state.noise, state.coupling)

    better = first | (cost < state.cost)
    gain = jnp.abs(state.cost - cost)
    free = state.damping <= _HARMLESS_DAMPING
    near = free & (gain < _NEAR * problem.ys.size)
    last = shooting.last_coupling(problem, state.noise)
    hard = state.coupling >= last
    # In a curved valley a full step climbs its side, and the next step comes down further on. So
    # one step uphill is allowed (the watchdog of Chamberlain et al., Math. Prog. Study 1982).
    ventured = ~better & ~state.ventured & ~near & jnp.isfinite(cost)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.best)
    damping = _next_damping(state, cost, better, ventured)
    # At another coupling noise and scales are estimated anew, so the cost is computed anew below.
    harder = near & ~hard
    coupling = jnp.minimum(state.coupling * _COUPLING_FACTOR, last)
    coupling = jnp.where(harder, coupling, state.coupling)
    last_noise = shooting.estimate_noise(problem, best, coupling)
    noise = jnp.where(first | harder, last_noise, state.noise)
    scales = shooting.rescale(problem, best, first)
    scales = jax.tree.map(partial(jnp.where, first | harder), scales, state.scales)
    problem = dataclasses.replace(problem, scales=scales)
    exhausted = state.count + 1 >= max_steps
    tolerance = jnp.where(exhausted, _GOOD_ENOUGH, _CONVERGED)
    converged = hard & free & (gain < tolerance * (1 + state.cost))
    cost = shooting.total_cost(problem, best, noise, coupling)
    ended = converged | exhausted | (damping > _MOST_DAMPING)
    ended = ended | ~jnp.isfinite(cost)
    # At the end the linear problem is that of the covariance: undamped, with all data alike.
    onwards = ventured & ~ended
    point = jax.tree.map(lambda new, old: jnp.where(onwards, new, old), trial, best)
    step = linear_solve(
        problem,
        point,
        jnp.where(ended, last_noise, noise),
        jnp.where(ended, shooting.last_coupling(problem, last_noise), coupling),
        jnp.where(ended, 0.0, damping),
        hold=jnp.where(ended | (coupling > _FIRST_COUPLING), 0.0, 1e6),
        robust=~ended,
    )
    return _Iteration(
        guess=_guess(point, step),
        best=best,
        ventured=ventured,
        cost=cost,
        scales=scales,
        noise=noise,
        damping=damping,
        coupling=coupling,
        count=state.count + 1,
        converged=converged,
        ended=ended,
    )


def _next_damping(state: _Iteration, cost: Array, better: Array, ventured: Array) -> Array:
    """The damping after a step to this cost, by Nielsen's rule.

    The closer the gain is to what the linear problem promised, the less damping. A step uphill, and
    the step after it, leave the damping as it is.
    """
    share = (state.cost - cost) / state.guess.promised
    trust = jnp.clip(1 - (2 * share - 1) ** 3, _DAMPING_DOWN, 2.0)
    kept = ventured | (better & state.ventured)
    factor = jnp.where(kept, 1.0, jnp.where(better, trust, _DAMPING_UP))
    return jnp.maximum(state.damping * factor, _LEAST_DAMPING)


def _guess(point: ShootingPoint, step: ShootingStep) -> _Guess:
    """The guess that a step leads to, with the readouts to first order."""
    by_s, by_p = jnp.split(point.linear.readouts, [point.s.shape[1]], axis=2)
    change = jnp.einsum("wrd,wd->wr", by_s, step.s) + by_p @ step.p
    readouts = point.c + change.reshape(point.c.shape)
    return _Guess(point.p + step.p, point.s + step.s, readouts, step.promised, step.triangle)
