"""A window solved at more points in double-double, and the error that remains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics import double_double as dd
from physml._numerics.compiled import compiling, lower
from physml._numerics.double_double import DoubleDouble, add, exact
from physml._numerics.interpreter import in_double_double
from physml._numerics.quadrature import gauss, interpolation, radau
from physml.pinn.collocation import Tolerance, exact_nodes_in, left_out, nodes_in
from physml.pinn.constraints._equation import Equation
from physml.pinn.constraints._window import (
    Factors,
    Guess,
    Window,
    factorise,
    finer,
    fit_window,
    integrals_of,
)

_PASSES = 3  # of simplified Newton, from a solution that is right to the tolerance


class Refined(NamedTuple):
    """What is known of a window at the end.

    Attributes:
        values: at the start and the points.
        rates: the derivatives at the points.
        error: what is to be added to the solution, at the start and at more points.
        left_out: what these leave out of the error.
        end: the state at the end.
    """

    values: Float[np.ndarray, "nodes dim"]
    rates: Float[np.ndarray, "points dim"]
    error: Float[np.ndarray, "more_nodes dim"]
    left_out: Float[np.ndarray, " dim"]
    end: DoubleDouble


class Programs(NamedTuple):
    """What solves windows of one equation, in parts that compile beside each other.

    One program of all of it would take four times as long to compile.
    """

    fit: Callable[..., Window]
    states: Callable[..., "At"]
    factors: Callable[..., Factors]
    improve: Callable[..., DoubleDouble]
    between: Callable[..., "At"]
    missed: Callable[..., Array]
    carry: Callable[..., tuple[Array, Array]]

    def refine(
        self,
        equation: Equation,
        edges: tuple[np.ndarray, np.ndarray],
        y: DoubleDouble,
        rates: Float[np.ndarray, "dim points"],
        error: Float[np.ndarray, " dim"],
    ) -> Refined:
        r"""Solve a window at half as many points again, and carry the solution's error through it.

        What the equations miss is computed in double-double, so that simplified Newton's method
        makes the solution right to rounding. Then the polynomial's miss is found at half as many
        points once more, and the linearised equations turn it into the error, with its sign:
        $F_y c + F_{y'} c' = -F$, from the error at the start of the window.

        Args:
            equation: F.
            edges: the start and the end of the window.
            y: the state at the start.
            rates: the derivatives at the points of the fit.
            error: that of y.
        """
        fine = finer(rates.shape[1])
        to_fine = interpolation(radau(rates.shape[1]).points, radau(fine).points)
        z = known((rates @ to_fine.T).astype(rates.dtype))
        at = self.states(edges, y, z)
        factors = self.factors(equation, at, edges)
        for _ in range(_PASSES):
            z = self.improve(factors, z, self.missed(equation, *_padded(at)))
            at = self.states(edges, y, z)
        more = self.between(edges, y, z)
        missed = self.missed(equation, *more)
        found, beyond = self.carry(equation, more, edges, z.hi, missed, error)
        values = np.concatenate([y.hi[:, None], at.states.hi], axis=1)
        end = jax.tree.map(lambda x: np.asarray(x)[:, -1], at.states)
        rates = np.asarray(z.hi).T
        return Refined(values.T, rates, np.asarray(found).T, np.asarray(beyond), end)


class At(NamedTuple):
    """Times, states and derivatives in double-double."""

    times: DoubleDouble
    states: DoubleDouble
    rates: DoubleDouble


def make_programs(
    equation: Equation, tolerance: Tolerance, y0: Float[Array, " dim"], num_points: int
) -> Programs:
    """The programs for states like y0, compiled beside each other."""
    dtype, (dim,) = y0.dtype, y0.shape
    fine, most = finer(num_points), finer(finer(num_points))

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def double(*shape: int) -> DoubleDouble:
        return DoubleDouble(array(*shape), array(*shape))  # pyright: ignore[reportArgumentType]

    def made(function: Callable, *args: PyTree) -> Callable[..., Any]:
        return compiling(lower(function, *args), quickly=True)

    def at(count: int) -> At:
        return At(double(count), double(dim, count), double(dim, count))

    edges, z, y = (array(), array()), double(dim, fine), double(dim)
    lu, unknown = array(dim * fine, dim * fine), array(dim * fine)
    pivots = jax.ShapeDtypeStruct(unknown.shape, np.int32)
    guess = Guess(array(dim, num_points), array(dim, num_points))  # pyright: ignore[reportArgumentType]
    steps = jax.ShapeDtypeStruct((), np.int32)
    factors = Factors(lu, pivots, unknown, unknown)  # pyright: ignore[reportArgumentType]
    return Programs(
        fit=made(fit_window, equation, tolerance, edges, array(dim), guess, array(dim), steps),
        states=made(_states, edges, y, z),
        factors=made(_factors, equation, at(fine), edges),
        improve=made(_improve, factors, z, array(dim, most)),
        between=made(_between, edges, y, z),
        missed=made(_missed, equation, *at(most)),
        carry=made(
            _carry, equation, at(most), edges, array(dim, fine), array(dim, most), array(dim)
        ),
    )


def _padded(at: At) -> At:
    """The last point repeated, so that one program finds misses at few points and at many."""
    fill = finer(at.times.hi.size) - at.times.hi.size
    return jax.tree.map(lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, fill)], "edge"), at)


def known(x: np.ndarray) -> DoubleDouble:
    """Floats on the host as double-doubles."""
    return DoubleDouble(x, np.zeros_like(x))  # pyright: ignore[reportArgumentType]


def _states(edges: tuple[Array, Array], y: DoubleDouble, z: DoubleDouble) -> At:
    """The times of the points, and the states there, of derivatives z."""
    nodes = exact_nodes_in(*edges, z.hi.shape[1], radau)
    integrals = jax.tree.map(lambda x: x[:-1].T, nodes.integrals)
    change = dd.mul(_spread(nodes.half, z.hi.shape), dd.matmul(z, integrals))
    first = jax.tree.map(lambda x: x[:, None], y)
    return At(nodes.times, add(_spread(first, z.hi.shape), change), z)


def _between(edges: tuple[Array, Array], y: DoubleDouble, z: DoubleDouble) -> At:
    """The same at half as many points again, of the polynomial through z."""
    fine = z.hi.shape[1]
    matrix = interpolation(radau(fine).points, radau(finer(fine)).points)
    return _states(edges, y, exact(z.hi @ jnp.asarray(matrix.T, z.hi.dtype)))


def _factors(equation: Equation, at: At, edges: tuple[Array, Array]) -> Factors:
    _, by_state, by_rate = equation.linearised(at.times.hi, at.states.hi, at.rates.hi)
    return factorise(by_state, by_rate, (edges[1] - edges[0]) / 2)


def _missed(
    equation: Equation, times: DoubleDouble, states: DoubleDouble, rates: DoubleDouble
) -> Float[Array, "dim points"]:
    return in_double_double(equation.missed)(times, states, rates).hi


def _improve(factors: Factors, z: DoubleDouble, missed: Float[Array, "dim more"]) -> DoubleDouble:
    return add(z, exact(factors.solve(-missed[:, : z.hi.shape[1]])))


def _carry(
    equation: Equation,
    at: At,
    edges: tuple[Array, Array],
    z: Float[Array, "dim points"],
    missed: Float[Array, "dim more"],
    error: Float[Array, " dim"],
) -> tuple[Float[Array, "dim nodes"], Float[Array, " dim"]]:
    """The error at the start and the points, and what these leave out."""
    _, by_state, by_rate = equation.linearised(at.times.hi, at.states.hi, at.rates.hi)
    half = (edges[1] - edges[0]) / 2
    known = missed + jnp.einsum("pil,l->ip", by_state, error)
    change = factorise(by_state, by_rate, half).solve(-known)
    integrals = integrals_of(at.times.hi.size, half.dtype)
    found = error[:, None] + half * (change @ integrals.T)
    fine = z.shape[1]
    to_gauss = jnp.asarray(interpolation(radau(fine).points, gauss(fine).points), z.dtype)
    beyond = left_out(nodes_in(edges[0], edges[1] - edges[0], fine), z @ to_gauss.T)
    return jnp.concatenate([error[:, None], found], axis=1), beyond


def _spread(x: DoubleDouble, shape: tuple[int, ...]) -> DoubleDouble:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), x)
