"""Frozen hidden layers on an interval, as orthonormal bases with their tables of derivatives."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float
from numpy.polynomial import legendre

from physml._numerics.quadrature import gauss
from physml.pinn.collocation import hidden_layer

# Gauss points that resolve tanh(2 s) on [-1, 1] to rounding: polynomials converge as 2.06^-n.
_FINE = 64


class Basis(eqx.Module):
    r"""Functions of s in [-1, 1]: a frozen hidden layer, beside it a polynomial, and a readout.

    $b(s) = ((1, s + 1, \ldots, (s + 1)^{m - 1} / (m - 1)!, \phi_1(s), \phi_2(s), \ldots) K) M$

    K is as large as a readout of tanh has to be, and M is not: with their product in place of both
    its rounding would reach all functions, where now it meets those alone that hardly count.
    """

    hidden: Any  # an MLP; its readout is not used
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


class Tables(NamedTuple):
    """Derivatives in s of all functions of a basis: axis 0 is the order, 0 to m."""

    basis: Basis
    fine: np.ndarray  # (m + 1, fine points, functions): all that is known of them
    points: np.ndarray  # of Gauss-Legendre quadrature, where the residual is made small
    weights: np.ndarray
    checks: np.ndarray  # in between, where it is judged

    @property
    def order(self) -> int:
        """m."""
        return self.basis.order

    def at(self, s: np.ndarray) -> np.ndarray:
        """All derivatives at any points: (m + 1, points, functions)."""
        return legendre.legvander(s, _FINE - 1) @ _to_legendre() @ self.fine


def tabulate(
    units: int, rank: int, order: int, num_points: int, slope: float, dtype: DTypeLike
) -> Tables:
    r"""A polynomial of degree m - 1, then functions whose state at s = -1 is zero.

    The state is the value and the derivatives below the order m, the highest that the equation
    has. The m-th derivatives of the latter functions are the leading left singular vectors of
    those of the features, orthonormal on [-1, 1], and what is below them comes by integrating
    on a grid that resolves tanh to rounding, so that no digits are lost to the large readouts that
    take small differences of it.
    """
    with jax.ensure_compile_time_eval():  # constants, whatever is traced around them
        hidden = hidden_layer(units, 1, slope=slope, dtype=dtype)
        fine, weights, rational = gauss(_FINE)
        integrals = rational[:-1].astype(float)
        s = jnp.asarray(np.append(-1.0, fine), dtype)
        features = np.asarray(_derivatives(hidden, order, s), np.float64)
    # What takes off the highest degrees, which are rounding, so that the grid holds integrals too.
    low = legendre.legvander(fine, _FINE - 1 - order) @ _to_legendre()[: _FINE - order]
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
    return Tables(basis, values, points, weights, (edges[1:] + edges[:-1]) / 2)


def with_end_states(tables: Tables) -> Tables:
    """The same functions combined so that neighbours are easily joined.

    First those that vanish with their state at both ends, then m for each component of the state
    at the left end, which is one, all else zero; then m for the right end.
    """
    order = tables.order
    ends = tables.at(np.array([1.0]))[:order, 0]
    polynomial, functions = np.split(ends, [order], axis=1)
    rank = functions.shape[1]
    inverse = np.linalg.pinv(functions)
    change = np.zeros((order + rank, order + rank))
    change[order:, : rank - order] = np.linalg.svd(functions)[2][order:].T
    change[:order, rank - order : rank] = np.eye(order)
    change[order:, rank - order : rank] = -inverse @ polynomial
    change[order:, rank:] = inverse
    return _combined(tables, change)


def periodic(tables: Tables) -> Tables:
    """The combinations of the functions whose states at both ends are the same."""
    start, end = np.moveaxis(tables.at(np.array([-1.0, 1.0]))[: tables.order], 1, 0)
    change = np.linalg.svd(end - start)[2][tables.order :].T
    return _combined(tables, change)


def halving(tables: Tables) -> np.ndarray:
    """What the coefficients become in each half of an element: (2, functions, functions).

    For tables `with_end_states`. States are taken as they are, so that the halves join.
    """
    order, num_functions = tables.order, tables.fine.shape[2]
    num_bubbles = num_functions - 2 * order
    root = np.sqrt(tables.weights)[:, None]
    top = root * tables.at(tables.points)[order]
    scale = 0.5 ** np.arange(order + 1)[:, None, None]
    halves = np.zeros((2, num_functions, num_functions))
    for half, shift in zip(halves, (-0.5, 0.5), strict=True):
        states = (scale * tables.at(np.array([-1.0, 1.0]) / 2 + shift))[:order]
        half[num_bubbles:] = np.concatenate([states[:, 0], states[:, 1]])
        target = root * (scale * tables.at(tables.points / 2 + shift))[order]
        rest = target - top[:, num_bubbles:] @ half[num_bubbles:]
        half[:num_bubbles] = np.linalg.lstsq(top[:, :num_bubbles], rest)[0]
    return halves


@functools.cache
def _to_legendre() -> np.ndarray:
    """The map from values on the fine grid to Legendre coefficients."""
    points, weights, _ = gauss(_FINE)
    degrees = np.arange(_FINE)[:, None]
    return (degrees + 0.5) * legendre.legvander(points, _FINE - 1).T * weights


def _combined(tables: Tables, change: np.ndarray) -> Tables:
    mixing = np.asarray(tables.basis.mixing, np.float64) @ change
    mixing = jnp.asarray(mixing, tables.basis.mixing.dtype)
    basis = Basis(tables.basis.hidden, tables.basis.kernel, mixing, tables.order)
    return tables._replace(basis=basis, fine=tables.fine @ change)


@eqx.filter_jit
def _derivatives(hidden: Any, order: int, s: Float[Array, " points"]) -> Array:
    """Derivatives 0 to `order` of the features: (order + 1, points, units)."""

    def function(s: Array) -> Array:
        return hidden.features(s[None]).astype(s.dtype)

    functions: list[Any] = [function]
    for _ in range(order):
        functions.append(jax.jacfwd(functions[-1]))
    return jnp.stack([jax.vmap(f)(s) for f in functions])
