"""Frozen hidden layers on an interval, as orthonormal functions with their derivatives."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.quadrature import gauss
from physml.nn import MLP
from physml.pinn.collocation import hidden_layer

# Gauss points that resolve tanh(2 s) on [-1, 1] to rounding: polynomials converge as 2.06^-n.
_FINE = 64


class Basis(eqx.Module):
    r"""Functions of s in [-1, 1]: a frozen hidden layer, beside it a polynomial, and a readout.

    $b(s) = ((1, s + 1, \ldots, (s + 1)^{m - 1} / (m - 1)!, \phi_1(s), \phi_2(s), \ldots) K) M$

    K is as large as a readout of tanh has to be, and M is not. Keeping K and M apart confines the
    rounding of K to functions that hardly count; the product K M would spread it to all.
    """

    hidden: MLP  # its readout is not used
    kernel: Float[Array, "inputs rank"]
    mixing: Float[Array, "rank functions"]
    order: int = eqx.field(static=True)  # m above

    def __call__(self, s: Float[Array, ""]) -> Float[Array, " functions"]:
        """All functions at one point."""
        with jax.default_matmul_precision("highest"):
            polynomial, term = [], jnp.ones_like(s)
            for i in range(self.order):
                polynomial.append(term)
                term = term * (s + 1) / (i + 1)
            features = self.hidden.features(s[None]).astype(s.dtype)
            return jnp.concatenate([jnp.stack(polynomial), features]) @ self.kernel @ self.mixing


class AxisTable(eqx.Module):
    """The functions of one axis at some points: derivatives in the scaled coordinate s."""

    points: Float[Array, " points"]  # s
    weights: Float[Array, " points"]  # of quadrature
    values: Float[Array, "derivatives points functions"]


class AxisFunctions(NamedTuple):
    """The functions of one axis, with their derivatives in s up to the order m."""

    basis: Basis
    fine: Float[np.ndarray, "derivatives fine functions"]  # on a grid that determines them
    points: Float[np.ndarray, " points"]  # of Gauss-Legendre quadrature, for the residual
    weights: Float[np.ndarray, " points"]
    checks: Float[np.ndarray, " checks"]  # between the points, where the residual is judged

    @property
    def order(self) -> int:
        """$m$."""
        return self.basis.order

    def at(self, s: Float[np.ndarray, " at"]) -> Float[np.ndarray, "derivatives at functions"]:
        """All derivatives at any points."""
        return np.polynomial.legendre.legvander(s, _FINE - 1) @ _to_legendre() @ self.fine

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
        return AxisTable(*(jnp.asarray(x, self.basis.kernel.dtype) for x in arrays))


def axis_functions(
    units: int, rank: int, order: int, num_points: int, slope: float, dtype: DTypeLike
) -> AxisFunctions:
    r"""A polynomial of degree m - 1, then functions whose state at s = -1 is zero.

    The state is the value and the derivatives below the order m, the highest in the equation. The
    m-th derivatives of the latter functions are the leading left singular vectors of those of the
    features, orthonormal on [-1, 1]. The lower derivatives are their integrals, on a grid that
    resolves tanh to rounding: a readout would take small differences of large numbers.
    """
    with jax.ensure_compile_time_eval():  # constants, whatever is traced around them
        hidden = hidden_layer(units, 1, slope=slope, dtype=dtype)
        fine, weights, rational = gauss(_FINE)
        integrals = rational[:-1].astype(float)
        s = jnp.asarray(np.append(-1.0, fine), dtype)
        features = np.asarray(_derivatives(hidden, order, s), np.float64)
    # Take off the highest degrees, which are rounding, so that the grid also resolves integrals.
    low = np.polynomial.legendre.legvander(fine, _FINE - 1 - order)
    low = low @ _to_legendre()[: _FINE - order]
    root = np.sqrt(weights)[:, None]
    left, singular, right = np.linalg.svd(root * features[order, 1:], full_matrices=False)
    rank = min(rank, int(np.sum(singular > 50 * float(jnp.finfo(dtype).eps) * singular[0])))
    readout = right[:rank].T / singular[:rank]
    kernel = np.zeros((order + units, order + rank))
    kernel[:order, :order] = np.eye(order)
    kernel[:order, order:], kernel[order:, order:] = -features[:order, 0] @ readout, readout

    values = np.zeros((order + 1, _FINE, order + rank))
    values[order, :, order:] = low @ (left[:, :rank] / root)
    for i in reversed(range(order)):
        values[i] = integrals @ values[i + 1]
        values[i, :, i] += 1.0
    points, weights, _ = gauss(num_points)
    edges = np.concatenate([[-1.0], points, [1.0]])
    arrays = [jnp.asarray(x, dtype) for x in (kernel, np.eye(order + rank))]
    basis = Basis(hidden, *arrays, order=order)
    return AxisFunctions(basis, values, points, weights, (edges[1:] + edges[:-1]) / 2)


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
    return _combined(functions, change)


def with_equal_ends(functions: AxisFunctions) -> AxisFunctions:
    """The combinations of the functions whose states at both ends are the same."""
    start, end = np.moveaxis(functions.at(np.array([-1.0, 1.0]))[: functions.order], 1, 0)
    change = np.linalg.svd(end - start)[2][functions.order :].T
    return _combined(functions, change)


def halving(functions: AxisFunctions) -> np.ndarray:
    """The maps from an element's coefficients to those of its halves: (2, functions, functions).

    For functions `with_end_states`. The halves keep the states at their ends, so that they join.
    """
    order, num_functions = functions.order, functions.fine.shape[2]
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


@functools.cache
def _to_legendre() -> np.ndarray:
    """The map from values on the fine grid to Legendre coefficients."""
    points, weights, _ = gauss(_FINE)
    degrees = np.arange(_FINE)[:, None]
    return (degrees + 0.5) * np.polynomial.legendre.legvander(points, _FINE - 1).T * weights


def _combined(functions: AxisFunctions, change: np.ndarray) -> AxisFunctions:
    mixing = np.asarray(functions.basis.mixing, np.float64) @ change
    mixing = jnp.asarray(mixing, functions.basis.mixing.dtype)
    basis = Basis(functions.basis.hidden, functions.basis.kernel, mixing, functions.order)
    return functions._replace(basis=basis, fine=functions.fine @ change)


@eqx.filter_jit
def _derivatives(
    hidden: MLP, order: int, s: Float[Array, " points"]
) -> Float[Array, "derivatives points units"]:
    """Derivatives 0 to `order` of the features."""

    def function(s: Array) -> Array:
        return hidden.features(s[None]).astype(s.dtype)

    functions: list[Callable[[Array], Array]] = [function]
    for _ in range(order):
        functions.append(jax.jacfwd(functions[-1]))
    return jnp.stack([jax.vmap(f)(s) for f in functions])
