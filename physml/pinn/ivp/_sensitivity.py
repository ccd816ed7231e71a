"""Derivatives of a solution by windows, by the implicit function theorem."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml._numerics.quadrature import legendre_transform
from physml.pinn.collocation import CorrectedNetworks, Polynomials, linearise, nodes_in
from physml.pinn.ivp._march import InitialValueProblem
from physml.solution import Solution


def differentiable(solution: Solution, problem: InitialValueProblem) -> Solution:
    r"""The solution as a function of its problem, the windows held fixed.

    Its values $u_i$ at the Gauss points fulfil $u_i = u_0 + \tfrac h2 \sum_j W_{ij} f(t_j, u_j)$,
    so that their derivative in a direction of the problem, in which f changes by $\dot f$ and the
    start by $\dot u_0$, solves

    $$\dot u_i - \tfrac h2 \sum_j W_{ij} f_y(t_j, u_j)\, \dot u_j
    = \dot u_0 + \tfrac h2 \sum_j W_{ij} \dot f(t_j, u_j),$$

    and its value at a window's end is its start in the next window. These equations are linear,
    however the windows were found: JAX can use them in forward and in reverse mode, and
    differentiate them again. Reverse mode keeps the matrix of each window.
    """
    dense = solution.dense
    assert isinstance(dense, CorrectedNetworks)
    coefficients = _of_problem(dense.polynomials, problem, solution.t0)
    dense = eqx.tree_at(lambda d: d.polynomials.coefficients, dense, coefficients)
    reached = (solution.ts <= solution.t1)[:, None]
    ys = jnp.where(reached, jax.vmap(dense.evaluate)(solution.ts), jnp.nan)
    return eqx.tree_at(lambda s: (s.dense, s.ys), solution, (dense, ys))


@eqx.filter_custom_jvp
def _of_problem(
    polynomials: Polynomials, problem: InitialValueProblem, t0: Float[Array, ""]
) -> Float[Array, "windows terms dim"]:
    """The coefficients, whose derivative in the problem is defined below."""
    return polynomials.coefficients


@_of_problem.def_jvp
def _(primals, tangents):
    polynomials, problem, t0 = primals
    _, change, _ = tangents
    coefficients = _of_problem(polynomials, problem, t0)
    num_points = coefficients.shape[1] - 2
    transform = legendre_transform(num_points, coefficients.dtype).hi
    # Unused windows have a span of zero, and a state at which f is finite.
    used = jnp.isfinite(polynomials.starts)
    starts = jnp.where(used, polynomials.starts, t0)
    spans = jnp.where(used, polynomials.spans, 0.0)
    values = jnp.einsum("pn,wnd->wdp", jnp.linalg.inv(transform), coefficients)
    values = jnp.where(used[:, None, None], values, problem.y0[None, :, None])
    times = jax.vmap(lambda start, span: nodes_in(start, span, num_points).times)(starts, spans)

    def rates(problem):
        return jax.vmap(problem.rates)(times, values[:, :, 1:-1])

    found, rate_changes = eqx.filter_jvp(rates, (problem,), (change,))
    if rate_changes is None:  # the start alone changes
        rate_changes = jnp.zeros_like(found)

    def advance(start, window):
        begin, span, values, rate_change = window
        nodes = nodes_in(begin, span, num_points)
        known = start[:, None] + nodes.half * (rate_change @ nodes.integrals.T)
        later = linearise(problem.rates, nodes, values).solve(known)
        return later[:, -1], jnp.concatenate([start[:, None], later], axis=1).T

    start = jnp.zeros_like(problem.y0) if change.y0 is None else change.y0
    with jax.default_matmul_precision("highest"):
        _, changes = jax.lax.scan(advance, start, (starts, spans, values, rate_changes))
        return coefficients, jnp.einsum("np,wpd->wnd", transform, changes)
