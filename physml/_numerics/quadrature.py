"""Gauss and Radau quadrature on [-1, 1], polynomials through points, and pieces of intervals."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float

from physml._numerics.double_double import DoubleDouble, exact, matmul

_BITS = 192  # behind the point of integers that stand for numbers in [-1, 1]
_COLUMNS = 4096  # of a product in double-double, which needs room for some ten floats for each
_OF_A_ROUNDING = 1.15  # the digits of a sum in which the rounding of its terms does not show


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
    bits, num_points = _BITS, len(points)
    every = _legendre_at(points, num_points + 1)
    polynomials, x = every[:, :-1], every[:, 1]
    inverse = _integers(inverse_of((polynomials / (1 << bits)).astype(float)))
    identity = np.diag(np.full(num_points, 1 << bits, "O"))
    for _ in range(2):  # Newton's iteration
        inverse = inverse @ (2 * identity - (polynomials @ inverse >> bits)) >> bits
    integrals = [x + (1 << bits)]
    integrals += [(every[:, n + 1] - every[:, n - 1]) // (2 * n + 1) for n in range(1, num_points)]
    last = [[2 << bits, *[0] * (num_points - 1)]]
    integrals = np.concatenate([np.stack(integrals, axis=1), last]) @ inverse >> bits
    rational = np.vectorize(lambda a: Fraction(a, 1 << bits), otypes="O")(integrals)
    return Quadrature(points, rational[-1].astype(float), rational)


def _integers(numbers: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Numbers in units of the last bit."""
    return np.vectorize(lambda a: int(Fraction(float(a)) * (1 << _BITS)), otypes="O")(numbers)


def _legendre_at(points: Float[np.ndarray, " points"], num_terms: int) -> np.ndarray:
    """The values of Legendre polynomials, (points, terms), in units of the last bit."""
    x = _integers(points)
    every = [np.full(len(x), 1 << _BITS), x]
    for n in range(1, num_terms - 1):
        every.append(((2 * n + 1) * (x * every[n] >> _BITS) - n * every[n - 1]) // (n + 1))
    return np.stack(every, axis=1)


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


def legendre_transform(num_points: int, dtype: DTypeLike) -> DoubleDouble:
    """The matrix from values at the start, Gauss points and the end to Legendre coefficients."""
    hi, lo = to_legendre(tuple(all_nodes(num_points)))
    leading = hi.astype(dtype)
    rest = (hi - leading + lo).astype(dtype)
    return DoubleDouble(*jax.lax.optimization_barrier((jnp.asarray(leading), jnp.asarray(rest))))


@functools.cache
def to_legendre(
    nodes: tuple[float, ...],
) -> tuple[Float[np.ndarray, "terms nodes"], Float[np.ndarray, "terms nodes"]]:
    """The matrix from values at nodes to Legendre coefficients, rounded, and what rounding left.

    Its entries have 29 digits. By an inverse in floats a line would have high terms, which come to
    ten roundings at the ends of a window.
    """
    polynomials = _legendre_at(np.array(nodes), len(nodes))
    inverse = np.linalg.inv((polynomials / (1 << _BITS)).astype(float))
    identity = np.diag(np.full(len(nodes), 1 << _BITS, "O"))
    missing = identity - (polynomials @ _integers(inverse) >> _BITS)
    rest = inverse @ (missing / (1 << _BITS)).astype(float)  # Newton's iteration
    rounded = inverse + rest
    return rounded, rest - (rounded - inverse)


def legendre_coefficients(
    values: Float[Array, "windows nodes dim"],
) -> Float[Array, "windows terms dim"]:
    """The Legendre coefficients of polynomials through values at windows' starts, points and ends.

    They have as many digits as a float holds. A product of floats would leave noise in the high
    terms that is several roundings of the largest value.
    """
    _, num_nodes, dim = values.shape
    transform = legendre_transform(num_nodes - 2, values.dtype)

    def in_window(values: Float[Array, "nodes dim"]) -> Float[Array, "terms dim"]:
        return matmul(transform, exact(values), digits=_OF_A_ROUNDING).hi

    return jax.lax.map(in_window, values, batch_size=max(1, _COLUMNS // dim))


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
