"""Gauss and Radau quadrature on [-1, 1], polynomials through points, and pieces of intervals."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float


class Quadrature(NamedTuple):
    """Points and weights, and the integrals from -1 to each point, then to 1."""

    points: np.ndarray
    weights: np.ndarray
    integrals: np.ndarray  # (points + 1, points), rational numbers


@functools.cache
def gauss(num_points: int) -> Quadrature:
    r"""The quadrature of polynomials by their values at Gauss points.

    It uses Legendre polynomials, $\int_{-1}^s P_n = (P_{n+1}(s) - P_{n-1}(s)) / (2n + 1)$, and
    integers of many bits: an error of 1e-15 here would be a drift in every window, and one of 1e-17
    would hide the drift that rounding causes.
    """
    points, weights = np.polynomial.legendre.leggauss(num_points)
    degrees = np.arange(num_points)

    def inverse_of(polynomials: np.ndarray) -> np.ndarray:
        """By discrete orthogonality, up to the points' rounding."""
        return (degrees + 0.5)[:, None] * polynomials.T * weights

    return _exact_quadrature(points, inverse_of)


@functools.cache
def radau(num_points: int) -> Quadrature:
    r"""The quadrature by values at the right Radau points, the last of which is the end, 1.

    The points are the zeros of $P_n - P_{n-1}$. Collocation at them forgets errors of algebraic and
    of strongly damped components. The last two rows of `integrals` are the same.

    Source: E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (1996), IV.5.
    """
    polynomial = np.zeros(num_points + 1)
    polynomial[-2:] = [-1.0, 1.0]
    points = np.sort(np.polynomial.legendre.legroots(polynomial).real)
    points[-1] = 1.0
    return _exact_quadrature(points, np.linalg.inv)


def _exact_quadrature(
    points: Float[np.ndarray, " points"], inverse_of: Callable[[np.ndarray], np.ndarray]
) -> Quadrature:
    """The quadrature of given points, and of a function that inverts a matrix nearly."""
    bits, num_points = 192, len(points)
    x = np.array([int(Fraction(float(point)) * (1 << bits)) for point in points])
    every = [np.full(num_points, 1 << bits), x]
    for n in range(1, num_points):
        every.append(((2 * n + 1) * (x * every[n] >> bits) - n * every[n - 1]) // (n + 1))
    polynomials = np.stack(every[:-1], axis=1)
    inverse = inverse_of((polynomials / (1 << bits)).astype(float))
    inverse = np.vectorize(lambda a: int(Fraction(a) * (1 << bits)), otypes="O")(inverse)
    identity = np.diag(np.full(num_points, 1 << bits, "O"))
    for _ in range(2):  # Newton's iteration
        inverse = inverse @ (2 * identity - (polynomials @ inverse >> bits)) >> bits
    integrals = [x + (1 << bits)]
    integrals += [(every[n + 1] - every[n - 1]) // (2 * n + 1) for n in range(1, num_points)]
    last = [[2 << bits, *[0] * (num_points - 1)]]
    integrals = np.concatenate([np.stack(integrals, axis=1), last]) @ inverse >> bits
    rational = np.vectorize(lambda a: Fraction(a, 1 << bits), otypes="O")(integrals)
    return Quadrature(points, rational[-1].astype(float), rational)


def all_nodes(num_points: int) -> Float[np.ndarray, " nodes"]:
    """The start, the Gauss points and the end of [-1, 1]."""
    return np.concatenate([[-1.0], gauss(num_points).points, [1.0]])


def interpolation(
    points: Float[np.ndarray, " points"], others: Float[np.ndarray, " others"]
) -> Float[np.ndarray, "others points"]:
    """The matrix from a polynomial's values at some points to those at others."""
    vandermonde, degree = np.polynomial.legendre.legvander, len(points) - 1
    matrix = vandermonde(others, degree) @ np.linalg.inv(vandermonde(points, degree))
    same = others[:, None] == points[None]
    return np.where(np.any(same, axis=1, keepdims=True), same, matrix)  # these must not change


def legendre_transform(num_points: int, dtype: DTypeLike) -> Float[Array, "terms nodes"]:
    """The matrix from values at the start, Gauss points and the end to Legendre coefficients."""
    values = np.polynomial.legendre.legvander(all_nodes(num_points), num_points + 1)
    return jnp.asarray(np.linalg.inv(values), dtype)


def legendre_polynomials(s: Float[Array, ""], terms: int) -> Float[Array, " terms"]:
    """The first Legendre polynomials at a point, by their recurrence."""

    def step(carry: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], Array]:
        last, current = carry
        return (current, ((2 * n + 1) * s * current - n * last) / (n + 1)), current

    degrees = jnp.arange(terms).astype(s.dtype)
    return jax.lax.scan(step, (jnp.zeros_like(s), jnp.ones_like(s)), degrees)[1]


def piece_at(starts: Float[Array | np.ndarray, " pieces"], t: Float[ArrayLike, "*shape"]) -> Any:
    """The index of the last piece that starts at or before t; of the first if none does.

    NumPy arrays are searched on the host, JAX arrays under any transformation. In a buffer, the
    starts of pieces that do not exist are infinite.
    """
    if isinstance(starts, np.ndarray):
        return np.maximum(np.searchsorted(starts, t, side="right") - 1, 0)
    last = starts.shape[0] - 1
    levels = last.bit_length()

    def advance(level: Array, piece: Array) -> Array:
        ahead = jnp.minimum(piece + (1 << (levels - 1 - level)), last)
        return jnp.where(starts[ahead] <= t, ahead, piece)

    # By hand: `jnp.searchsorted` takes far longer to compile.
    return jax.lax.fori_loop(0, levels, advance, jnp.zeros_like(t, int))
