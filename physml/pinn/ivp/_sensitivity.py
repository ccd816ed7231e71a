"""Derivatives of a solution by windows, by the implicit function theorem."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml._numerics.quadrature import gauss, legendre_transform
from physml.pinn.collocation import Polynomials, jacobian_at, propagate
from physml.solution import Solution

Problem = tuple[Any, Array, Any]
"""The system, y0 and args."""


def differentiable(solution: Solution, problem: Problem) -> Solution:
    r"""The solution as a function of its problem, the windows held fixed.

    Its values $u_i$ at the Gauss points fulfil $u_i = u_0 + \tfrac h2 \sum_j W_{ij} f(t_j, u_j)$,
    so that their derivative in a direction of the problem, in which f changes by $\dot f$ and the
    start by $\dot u_0$, solves

    $$\dot u_i - \tfrac h2 \sum_j W_{ij} f_y(t_j, u_j)\, \dot u_j
    = \dot u_0 + \tfrac h2 \sum_j W_{ij} \dot f(t_j, u_j),$$

    and its value at a window's end is the next one's start. However the windows were found, these
    are linear equations, so that they serve both forward and reverse mode, and again for the
    derivative of a derivative. A window's matrix is kept for the way back.
    """
    dense: Any = solution.dense
    coefficients = _of_problem(dense.polynomials, problem, solution.t0)
    dense = eqx.tree_at(lambda d: d.polynomials.coefficients, dense, coefficients)
    reached = (solution.ts <= solution.t1)[:, None]
    ys = jnp.where(reached, jax.vmap(dense.evaluate)(solution.ts), jnp.nan)
    return eqx.tree_at(lambda s: (s.dense, s.ys), solution, (dense, ys))


@eqx.filter_custom_jvp
def _of_problem(
    polynomials: Polynomials, problem: Problem, t0: Float[Array, ""]
) -> Float[Array, "windows terms dim"]:
    """The coefficients, which depend on the problem by their derivative only."""
    return polynomials.coefficients


@_of_problem.def_jvp
def _(primals, tangents):
    polynomials, problem, t0 = primals
    _, change, _ = tangents
    coefficients = _of_problem(polynomials, problem, t0)
    num_points = coefficients.shape[1] - 2
    dtype = coefficients.dtype
    rule = gauss(num_points)
    integrals = jnp.asarray(rule.integrals.astype(float), dtype)
    transform = legendre_transform(num_points, dtype)
    # Windows that are not used do nothing, at a state where f can be asked.
    used = jnp.isfinite(polynomials.starts)
    starts = jnp.where(used, polynomials.starts, t0)
    halves = jnp.where(used, polynomials.spans / 2, 0.0)
    times = starts[:, None] + halves[:, None] * (jnp.asarray(rule.points, dtype) + 1)[None]
    nodes = jnp.einsum("pn,wnd->wpd", jnp.linalg.inv(transform), coefficients)
    u = jnp.where(used[:, None, None], nodes[:, 1:-1], problem[1][None, None])

    def rates(problem):
        system, _, args = problem
        return jax.vmap(lambda t, u: system(t, u.T, args).T)(times, u)

    _, rate_changes = eqx.filter_jvp(rates, (problem,), (change,))
    system, y0, args = problem

    def advance(start, window):
        t, u, half, rate = window
        jacobian = jacobian_at(lambda t, u: system(t, u, args), t, u.T)
        known = start[:, None] + half * (rate.T @ integrals.T)
        change = propagate(jacobian, half, integrals, known)
        return change[:, -1], jnp.concatenate([start[:, None], change], axis=1).T

    start = jnp.zeros_like(y0) if change[1] is None else change[1]
    with jax.default_matmul_precision("highest"):
        _, changes = jax.lax.scan(advance, start, (times, u, halves, rate_changes))
        return coefficients, jnp.einsum("np,wpd->wnd", transform, changes)
