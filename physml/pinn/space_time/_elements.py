"""Frozen hidden layers on an interval, as orthonormal functions with their derivatives."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.compiled import watched
from physml._numerics.quadrature import gauss, legendre_polynomials
from physml.nn import MLP
from physml.pinn.collocation import hidden_layer

# Gauss points that resolve tanh(2 s) on [-1, 1] to rounding: polynomials converge as 2.06^-n.
_FINE = 64


class Basis(eqx.Module):
    """Functions of s in [-1, 1], combinations of a frozen hidden layer, as Legendre series.

    A readout of the layer would take small differences of large numbers.
    """

    series: Float[Array, "terms functions"]

    def __call__(self, s: Float[Array, ""]) -> Float[Array, " functions"]:
        """All functions at one point."""
        with jax.default_matmul_precision("highest"):
            return legendre_polynomials(s, self.series.shape[0]) @ self.series


class AxisTable(eqx.Module):
    """The functions of one axis at some points: derivatives in the scaled coordinate s."""

    points: Float[Array, " points"]  # s
    weights: Float[Array, " points"]  # of quadrature
    values: Float[Array, "derivatives points functions"]


class AxisFunctions(NamedTuple):
    """The functions of one axis, with their derivatives in s up to the order m.

    The series are in NumPy's `longdouble`: the derivatives belong to each other, and neighbours
    join, to the last digit of the tables. Jumps of 1e-14 at edges would move a shock by 1e-12.
    """

    series: np.ndarray  # of Legendre polynomials: (derivatives, terms, functions)
    points: Float[np.ndarray, " points"]  # of Gauss-Legendre quadrature, for the residual
    weights: Float[np.ndarray, " points"]
    checks: Float[np.ndarray, " checks"]  # between the points, where the residual is judged
    dtype: DTypeLike

    @property
    def order(self) -> int:
        """$m$."""
        return len(self.series) - 1

    @property
    def num_functions(self) -> int:
        """How many functions there are."""
        return self.series.shape[2]

    @property
    def basis(self) -> Basis:
        """The functions themselves, without the degrees that none of them has."""
        terms = np.flatnonzero(self.series[0].any(axis=1))[-1] + 1
        return Basis(jnp.asarray(self.series[0, :terms].astype(float), self.dtype))

    def at(self, s: Float[np.ndarray, " at"]) -> Float[np.ndarray, "derivatives at functions"]:
        """All derivatives at any points."""
        return self.exactly_at(s).astype(float)

    def exactly_at(self, s: Float[np.ndarray, " at"]) -> np.ndarray:
        """All derivatives at any points, in `longdouble`."""
        s = np.asarray(s, np.longdouble)
        return np.polynomial.legendre.legvander(s, self.series.shape[1] - 1) @ self.series

    def at_points(self) -> AxisTable:
        """The table at the collocation points."""
        return self._table(self.points, self.weights)

    def at_checks(self) -> AxisTable:
        """The table between the collocation points."""
        return self._table(self.checks, np.ones_like(self.checks))

    def at_end(self, end: int) -> AxisTable:
        """The table at s = -1 (`end` is 0) or s = 1 (1)."""
        return self._table(np.array([2.0 * end - 1.0]), np.ones(1))

    def first_at_start(self) -> AxisTable:
        """The first function alone, at s = -1."""
        table = self.at_end(0)
        return AxisTable(table.points, table.weights, table.values[:, :, :1])

    def _table(self, s: Float[np.ndarray, " at"], weights: Float[np.ndarray, " at"]) -> AxisTable:
        arrays = s, weights, self.at(s)
        return AxisTable(*(jnp.asarray(x, self.dtype) for x in arrays))


def axis_functions(
    units: int, rank: int, order: int, num_points: int, slope: float, dtype: DTypeLike
) -> AxisFunctions:
    r"""A polynomial of degree m - 1, then functions whose state at s = -1 is zero.

    The state is the value and the derivatives below the order m, the highest in the equation. The
    m-th derivatives of the latter functions are the leading left singular vectors of those of the
    features, orthonormal on [-1, 1]. The lower derivatives are their integrals: a readout of the
    features would take small differences of large numbers.
    """
    with jax.ensure_compile_time_eval():  # constants, whatever is traced around them
        hidden = hidden_layer(units, 1, slope=slope, dtype=dtype)
        fine, weights, _ = gauss(_FINE)
        s = jnp.asarray(fine, dtype)
        features = np.asarray(_derivative(hidden, order, s), np.float64)
    # In orthonormal Legendre polynomials. Degrees that the features do not have are rounding, and
    # the collocation points would not resolve them; there must also be room for the integrals.
    legendre = np.polynomial.legendre.legvander(fine, _FINE - order - 1)
    legendre = legendre * np.sqrt(np.arange(_FINE - order) + 0.5)
    terms = legendre.T @ (weights[:, None] * features)
    sizes, eps = np.abs(terms).max(axis=1), float(jnp.finfo(dtype).eps)
    degrees = np.arange(1 + np.flatnonzero(sizes > 8 * eps * sizes.max())[-1])
    left, singular, _ = np.linalg.svd(terms[degrees], full_matrices=False)
    rank = min(rank, int(np.sum(singular > 50 * eps * singular[0])))
    series = np.zeros((order + 1, _FINE, order + rank), np.longdouble)
    series[order, degrees, order:] = np.sqrt(degrees + 0.5)[:, None] * left[:, :rank]
    for i in reversed(range(order)):
        series[i] = np.polynomial.legendre.legint(series[i + 1, :-1], lbnd=-1, axis=0)
        series[i, 0, i] += 1.0
    points, weights, _ = gauss(num_points)
    edges = np.concatenate([[-1.0], points, [1.0]])
    return AxisFunctions(series, points, weights, (edges[1:] + edges[:-1]) / 2, dtype)


def with_end_states(functions: AxisFunctions) -> AxisFunctions:
    """The same functions combined so that neighbours are easily joined.

    The first functions have a state of zero at both ends. Then come m functions, each of which has
    a one in one component of the state at the left end and zeros elsewhere; then m for the right.
    """
    order = functions.order
    ends = functions.at(np.array([1.0]))[:order, 0]
    polynomial, others = np.split(ends, [order], axis=1)
    rank = others.shape[1]
    inverse = np.linalg.pinv(others)
    change = np.zeros((order + rank, order + rank))
    change[order:, : rank - order] = np.linalg.svd(others)[2][order:].T
    change[:order, rank - order : rank] = np.eye(order)
    change[order:, rank - order : rank] = -inverse @ polynomial
    change[order:, rank:] = inverse
    exact = np.asarray(change, np.longdouble)
    states = functions.exactly_at(np.array([-1.0, 1.0]))[:order].swapaxes(0, 1)
    states = states.reshape(2 * order, -1)
    for _ in range(2):
        missed = states @ exact
        missed[:, -2 * order :] -= np.eye(2 * order)
        exact = exact - exact[:, -2 * order :] @ missed
    return _combined(functions, exact)


def with_equal_ends(functions: AxisFunctions) -> AxisFunctions:
    """The combinations of the functions whose states at both ends are the same."""
    start, end = np.moveaxis(functions.at(np.array([-1.0, 1.0]))[: functions.order], 1, 0)
    change = np.linalg.svd(end - start)[2][functions.order :].T
    return _combined(functions, change)


def halving(functions: AxisFunctions) -> np.ndarray:
    """The maps from an element's coefficients to those of its halves: (2, functions, functions).

    For functions `with_end_states`. The halves keep the states at their ends, so that they join.
    """
    order, num_functions = functions.order, functions.num_functions
    num_bubbles = num_functions - 2 * order
    root = np.sqrt(functions.weights)[:, None]
    top = root * functions.at(functions.points)[order]
    scale = 0.5 ** np.arange(order + 1)[:, None, None]
    halves = np.zeros((2, num_functions, num_functions))
    for half, shift in zip(halves, (-0.5, 0.5), strict=True):
        states = (scale * functions.at(np.array([-1.0, 1.0]) / 2 + shift))[:order]
        half[num_bubbles:] = np.concatenate([states[:, 0], states[:, 1]])
        target = root * (scale * functions.at(functions.points / 2 + shift))[order]
        rest = target - top[:, num_bubbles:] @ half[num_bubbles:]
        half[:num_bubbles] = np.linalg.lstsq(top[:, :num_bubbles], rest)[0]
    return halves


def _combined(functions: AxisFunctions, change: np.ndarray) -> AxisFunctions:
    return functions._replace(series=functions.series @ change)


@watched
@eqx.filter_jit
def _derivative(
    hidden: MLP, order: int, s: Float[Array, " points"]
) -> Float[Array, "points units"]:
    """The derivative of the features of this order."""

    def function(s: Array) -> Array:
        return hidden.features(s[None]).astype(s.dtype)

    for _ in range(order):
        function = jax.jacfwd(function)
    return jax.vmap(function)(s)
