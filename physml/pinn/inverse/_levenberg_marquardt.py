"""Multiple shooting by Levenberg-Marquardt: a step by QR, and a coupling that grows."""

import dataclasses
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.compiled import watched
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._shooting import Scales, ShootingPoint, ShootingProblem

# The coupling weighs jumps in units of a typical state. A jump of 1/3 of it costs 1 at first,
# which is as good as no condition; `last_coupling` tolerates 1e-5 of the noise.
_FIRST_COUPLING, _COUPLING_FACTOR = 3.0, 10.0
_LEAST_COUPLING_FACTOR = 1.5  # by less, a step that fails is not the coupling's fault
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
    triangle: Float[Array, "unknowns unknowns"]  # R of the starts and p, other windows eliminated


def linear_solve(
    problem: ShootingProblem,
    point: ShootingPoint,
    scale: Array,
    coupling: Array,
    damping: Array,
    *,
    hold: Array,
    robust: Array,
) -> ShootingStep:
    """Least squares of the linearised problem by QR, eliminating the starts from the last one.

    Where an experiment begins, its start is eliminated without a link to the window before.

    Args:
        scale: of the noise of each observation.
        hold: additional damping, of p alone.
        robust: whether the loss weighs the data; otherwise all count alike.
    """
    layout, dtype, dim = problem.layout, point.p.dtype, point.s.shape[1]
    columns = dim + point.p.size + 1
    rows = shooting.data_rows(problem, point, scale)
    root = jnp.where(robust, jnp.sqrt(rows.weight), 1.0)
    r = root * rows.r
    data = jnp.concatenate([root[:, :, None] * rows.jacobian, r[:, :, None]], axis=2)
    data = jnp.linalg.qr(data, mode="r")
    data = jnp.pad(data, ((0, 0), (0, max(columns - data.shape[1], 0)), (0, 0)))
    anchors = shooting.anchor_rows(problem, point)
    away, links, still = _links(problem, point, anchors, coupling, damping)
    beside, below = jnp.zeros((columns, dim), dtype), jnp.zeros((dim, columns), dtype)

    def eliminate(later, window):
        away, link, still, data = window
        # Columns: the later start | the earlier start, p, right-hand side. Householder's QR is
        # accurate where heavy rows come first.
        matrix = jnp.block(
            [[away, link], [later[:, :dim], beside, later[:, dim:]], [beside, data], [still, below]]
        )
        triangle = jnp.linalg.qr(matrix, mode="r")
        return triangle[dim:, dim:], triangle[:dim]

    windows = away, links, still, data[:-1]
    last, eliminated = jax.lax.scan(eliminate, data[-1], windows, reverse=True)
    steady = jnp.sqrt(damping) + jnp.where(jnp.arange(columns - 1) < dim, 0.0, hold)
    steady = steady / jnp.concatenate([problem.scales.y[0], problem.scales.p])
    steady = jnp.pad(jnp.diag(steady), ((0, 0), (0, 1)))
    prior = shooting.prior_rows(problem, point)
    priors = jnp.concatenate([jnp.diag(problem.prior[1]), prior[:, None]], axis=1)
    priors = jnp.pad(priors, ((0, 0), (dim, 0)))
    triangle = jnp.linalg.qr(jnp.concatenate([anchors[0], priors, last, steady]), mode="r")
    answer = -jax.scipy.linalg.solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
    first, dp = jnp.split(answer, [dim])

    def substitute(ds, row):
        known = row[:, dim:] @ jnp.concatenate([ds, dp, jnp.ones(1, dtype)])
        ds = -jax.scipy.linalg.solve_triangular(row[:, :dim], known)
        return ds, ds

    _, rest = jax.lax.scan(substitute, first, eliminated)
    ds = jnp.concatenate([first[None], rest])
    # A link is a jump between windows, or holds the start of another experiment.
    now = jnp.sum(r**2) + jnp.sum(links[:, :, -1] ** 2)
    now = now + jnp.sum(prior**2) + jnp.sum(anchors[0, :, -1] ** 2)
    promised = now - triangle[-1, -1] ** 2
    # The other experiments' starts stand before the first one's and p.
    others = eliminated[np.asarray(layout.firsts[1:], int) - 1]
    return ShootingStep(dp, ds, promised, _joined(triangle[:-1, :-1], others))


def _links(
    problem: ShootingProblem,
    point: ShootingPoint,
    anchors: Float[Array, "experiments dim columns"],
    coupling: Array,
    damping: Array,
) -> tuple[Array, Array, Array]:
    """What ties each window but the first: rows of its own start, of what is before, damping."""
    layout, dim = problem.layout, point.s.shape[1]
    of_window, sizes = layout.experiment[1:], problem.scales.y[layout.experiment[1:]]
    weight, follows = coupling / sizes, jnp.asarray(layout.follows)[:, None, None]
    here = anchors[of_window]
    away = jnp.where(follows, -jax.vmap(jnp.diag)(weight), here[:, :, :dim])
    gaps = weight[:, :, None] * point.linear.jumps
    links = jnp.where(follows, gaps, here.at[:, :, :dim].set(0.0))
    return away, links, jax.vmap(jnp.diag)(jnp.sqrt(damping) / sizes)


def _joined(
    triangle: Float[Array, "rest rest"], others: Float[Array, "experiments dim columns"]
) -> Float[Array, "unknowns unknowns"]:
    """A square root of the information of all starts, in order, then of p."""
    count, dim, columns = others.shape
    num_p = triangle.shape[0] - dim
    starts = jax.scipy.linalg.block_diag(*others[:, :, :dim]) if count else jnp.zeros((0, 0))
    by_p = others[:, :, 2 * dim : columns - 1].reshape(count * dim, num_p)
    top = [triangle[:, :dim], jnp.zeros((dim + num_p, count * dim)), triangle[:, dim:]]
    bottom = [jnp.zeros((count * dim, dim)), starts, by_p]
    return jnp.block([top, bottom])


class ShootingFit(NamedTuple):
    """Where the iteration ended."""

    point: ShootingPoint
    triangle: Float[Array, "unknowns unknowns"]  # R of starts and p, undamped, all data alike
    cost: Float[Array, ""]  # of data and priors, what was minimised
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]
    scales: Scales
    scale: Float[Array, "n obs"]  # of the noise of each observation


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
    scale: Float[Array, "n obs"]  # of the noise
    damping: Float[Array, ""]
    coupling: Float[Array, ""]
    reached: Float[Array, ""]  # the coupling at which steps last succeeded
    settled: Float[Array, ""]  # the damping there
    count: Int[Array, ""]
    converged: Bool[Array, ""]
    ended: Bool[Array, ""]


@watched
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
        unknowns = problem.scales.y.size + p.size
        state = _Iteration(
            guess=_Guess(p, s, c, one, jnp.zeros((unknowns, unknowns), s.dtype)),
            best=nowhere,
            ventured=jnp.asarray(True),  # so that the damping stays
            cost=jnp.inf * one,  # the first guess is accepted
            scales=problem.scales,
            scale=problem.first_scale,
            damping=_FIRST_DAMPING * one,
            coupling=_FIRST_COUPLING * one,
            reached=_FIRST_COUPLING * one,
            settled=_FIRST_DAMPING * one,
            count=jnp.asarray(-1),
            converged=jnp.asarray(False),
            ended=jnp.asarray(False),
        )
        state = jax.lax.while_loop(
            lambda state: ~state.ended, lambda state: _iterate(problem, state, max_steps), state
        )
    problem = dataclasses.replace(problem, scales=state.scales)
    scale = shooting.estimate_scale(problem, state.best, state.coupling)
    cost = shooting.data_cost(problem, state.best, scale)
    triangle, end = state.guess.triangle, (state.converged, state.count)
    return ShootingFit(state.best, triangle, cost, *end, state.scales, scale)


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
    cost = shooting.total_cost(problem, trial, state.scale, state.coupling)

    better = first | (cost < state.cost)
    gain = jnp.abs(state.cost - cost)
    free = state.damping <= _HARMLESS_DAMPING
    near = free & (gain < _NEAR * problem.data.count)
    # In a curved valley a full step climbs its side, and the next step comes down further on. So
    # one step uphill is allowed (the watchdog of Chamberlain et al., Math. Prog. Study 1982).
    ventured = ~better & ~state.ventured & ~near & jnp.isfinite(cost)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.best)
    last = shooting.last_coupling(problem, best, state.scale)
    hard = state.coupling >= last
    damping = _next_damping(state, cost, better, ventured)
    # At another coupling noise and scales are estimated anew, so the cost is computed anew below.
    # Where the first steps after that fail, the minimum has moved too far, and half way is enough.
    harder = near & ~hard
    eased = ~better & ~ventured & ~near & (state.coupling > _LEAST_COUPLING_FACTOR * state.reached)
    damping = jnp.where(eased, state.settled, damping)
    coupling = jnp.minimum(state.coupling * _COUPLING_FACTOR, last)
    halfway = jnp.sqrt(state.coupling * state.reached)
    coupling = jnp.where(harder, coupling, jnp.where(eased, halfway, state.coupling))
    reached = jnp.where(better, state.coupling, state.reached)
    settled = jnp.where(better, damping, state.settled)
    harder = harder | eased
    last_scale = shooting.estimate_scale(problem, best, coupling)
    scale = jnp.where(first | harder, last_scale, state.scale)
    scales = shooting.rescale(problem, best, first)
    scales = jax.tree.map(partial(jnp.where, first | harder), scales, state.scales)
    problem = dataclasses.replace(problem, scales=scales)
    exhausted = state.count + 1 >= max_steps
    tolerance = jnp.where(exhausted, _GOOD_ENOUGH, _CONVERGED)
    converged = hard & free & (gain < tolerance * (1 + state.cost))
    cost = shooting.total_cost(problem, best, scale, coupling)
    ended = converged | exhausted | (damping > _MOST_DAMPING)
    ended = ended | ~jnp.isfinite(cost)
    # At the end the linear problem is that of the covariance: undamped, with all data alike.
    onwards = ventured & ~ended
    point = jax.tree.map(lambda new, old: jnp.where(onwards, new, old), trial, best)
    step = linear_solve(
        problem,
        point,
        jnp.where(ended, last_scale, scale),
        jnp.where(ended, shooting.last_coupling(problem, best, last_scale), coupling),
        jnp.where(ended, 0.0, damping),
        hold=jnp.where(ended | (coupling > _FIRST_COUPLING), 0.0, 1e6),
        robust=~ended,
    )
    return _Iteration(
        guess=_guess(problem, point, step),
        best=best,
        ventured=ventured,
        cost=cost,
        scales=scales,
        scale=scale,
        damping=damping,
        coupling=coupling,
        reached=reached,
        settled=settled,
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


def _guess(problem: ShootingProblem, point: ShootingPoint, step: ShootingStep) -> _Guess:
    """The guess that a step leads to, with the readouts to first order.

    A start that is held is put where it belongs: what a step leaves of it is of second order, and
    would cost so much that only tiny steps were taken.
    """
    by_s, by_p = jnp.split(point.linear.readouts, [point.s.shape[1]], axis=2)
    change = jnp.einsum("wrd,wd->wr", by_s, step.s) + by_p @ step.p
    readouts = point.c + change.reshape(point.c.shape)
    p, s, firsts = point.p + step.p, point.s + step.s, np.asarray(problem.layout.firsts)
    held = np.asarray(problem.starts.held)[:, None]
    s = s.at[firsts].set(jnp.where(held, problem.starts.at(problem.field, p), s[firsts]))
    return _Guess(p, s, readouts, step.promised, step.triangle)
