"""A window solved at more points in double-double, and the error that remains."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics import double_double as dd
from physml._numerics.double_double import DoubleDouble, add, exact
from physml._numerics.interpreter import in_double_double
from physml._numerics.quadrature import gauss, interpolation, radau
from physml.pinn.collocation import ExactNodes, exact_nodes_in, left_out
from physml.pinn.constraints._equation import Equation
from physml.pinn.constraints._window import Factors, factorise, finer

_PASSES = 3  # of simplified Newton, from a solution that is right to the tolerance


class Refined(NamedTuple):
    """What is known of a window at the end.

    Attributes:
        values: at the start and the points.
        error: what is to be added to the solution, at the start and at more points.
        left_out: what these leave out of the error.
        end: the state at the end.
    """

    values: Float[Array, "nodes dim"]
    error: Float[Array, "more_nodes dim"]
    left_out: Float[Array, " dim"]
    end: DoubleDouble


@eqx.filter_jit
def refine(
    equation: Equation,
    start: Float[Array, ""],
    end: Float[Array, ""],
    y: DoubleDouble,
    rates: Float[Array, "dim points"],
    error: Float[Array, " dim"],
) -> Refined:
    r"""Solve a window at half as many points again, and carry the solution's error through it.

    What the equations miss is computed in double-double, so that simplified Newton's method makes
    the solution right to rounding. Then the polynomial's miss is found at half as many points once
    more, and the linearised equations turn it into the error, with its sign:
    $F_y c + F_{y'} c' = -F$, from the error at the start of the window.

    Args:
        equation: F.
        start, end: of the window.
        y: the state at the start.
        rates: the derivatives at the points of the fit.
        error: that of y.
    """
    coarse = rates.shape[1]
    fine, finest = finer(coarse), finer(finer(coarse))
    nodes = exact_nodes_in(start, end, fine, radau)
    z = exact(rates @ _between(radau(coarse).points, radau(fine).points, rates.dtype).T)
    factors = _factors(equation, nodes, y, z)

    def improve(_: Array, z: DoubleDouble) -> DoubleDouble:
        missed = _missed(equation, nodes, _states(nodes, y, z), z)
        return add(z, exact(factors.solve(-missed)))

    z = jax.lax.fori_loop(0, _PASSES, improve, z)
    u = _states(nodes, y, z)
    values = jnp.concatenate([y.hi[:, None], u.hi], axis=1)

    more = exact_nodes_in(start, end, finest, radau)
    between = exact(z.hi @ _between(radau(fine).points, radau(finest).points, rates.dtype).T)
    seen = _states(more, y, between)
    _, by_state, by_rate = equation.linearised(more.times.hi, seen.hi, between.hi)
    missed = _missed(equation, more, seen, between)
    carried = missed + jnp.einsum("pil,l->ip", by_state, error)
    half, integrals = more.half.hi, more.integrals.hi[:-1]
    change = factorise(by_state, by_rate, half, integrals).solve(-carried)
    found = error[:, None] + half * (change @ integrals.T)
    to_gauss = _between(radau(fine).points, gauss(fine).points, rates.dtype)
    beyond = left_out(nodes.leading, z.hi @ to_gauss.T)
    return Refined(
        values.T,
        jnp.concatenate([error[:, None], found], axis=1).T,
        beyond,
        jax.tree.map(lambda x: x[:, -1], u),
    )


def _states(nodes: ExactNodes, y: DoubleDouble, z: DoubleDouble) -> DoubleDouble:
    """The states at the points."""
    integrals = jax.tree.map(lambda x: x[:-1].T, nodes.integrals)
    change = dd.mul(_spread(nodes.half, z.hi.shape), dd.matmul(z, integrals))
    first = jax.tree.map(lambda x: x[:, None], y)
    return add(_spread(first, z.hi.shape), change)


def _missed(
    equation: Equation, nodes: ExactNodes, u: DoubleDouble, z: DoubleDouble
) -> Float[Array, "dim points"]:
    return in_double_double(equation.missed)(nodes.times, u, z).hi


def _factors(
    equation: Equation, nodes: ExactNodes, y: DoubleDouble, z: DoubleDouble
) -> Factors:
    u = _states(nodes, y, z)
    _, by_state, by_rate = equation.linearised(nodes.times.hi, u.hi, z.hi)
    return factorise(by_state, by_rate, nodes.half.hi, nodes.integrals.hi[:-1])


def _between(points: np.ndarray, others: np.ndarray, dtype: np.dtype) -> Float[Array, "others points"]:
    return jnp.asarray(interpolation(points, others), dtype)


def _spread(x: DoubleDouble, shape: tuple[int, ...]) -> DoubleDouble:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), x)
