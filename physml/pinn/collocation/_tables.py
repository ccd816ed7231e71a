"""The frozen hidden layer that every window shares, and its tables at the collocation points."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from physml._numerics.checks import is_concrete
from physml._numerics.compiled import constant
from physml._numerics.quadrature import gauss
from physml._types import FeatureNetwork
from physml.nn import MLP, Frozen
from physml.pinn.collocation._jacobian import Band
from physml.pinn.collocation._stages import Stages, stages

# Slope of the sharpest unit over half a window. Between 2 and 4 it makes little difference.
_SLOPE = 2.0


def hidden_layer(
    units: int,
    out_features: int,
    *,
    key: PRNGKeyArray | None = None,
    dtype: DTypeLike | None = None,
    slope: float = _SLOPE,
) -> MLP:
    r"""An MLP of one frozen tanh layer for s in [-1, 1], and a readout that is zero.

    Unit j is $\tanh(w_j (s - c_j))$ with $w_j \in (0, slope)$ and $c_j \in (-1, 1)$. The pairs
    $(w_j, c_j)$ fill their rectangle evenly: they are points of a Kronecker sequence, or, with a
    key, one random point in each row and column of a units x units grid (a Latin hypercube).

    Source of the sequence: generalised golden ratio, M. Roberts (2018), "The unreasonable
    effectiveness of quasirandom sequences".
    """
    own = jnp.dtype(jax.dtypes.canonicalize_dtype(float if dtype is None else dtype))
    network = nnx.merge(*_outline(units, out_features, own), copy=True)
    (layer,), readout = network.hidden, network.readout
    slopes, centres = _evenly(units) if key is None else _latin_hypercube(units, key)
    slopes, centres = slope * slopes, 2.0 * centres - 1.0
    # Linear's annotations know of Param only; it reads any Variable.
    layer.kernel = Frozen(constant(slopes[None], own))  # pyright: ignore[reportAttributeAccessIssue]
    layer.bias = Frozen(constant(-slopes * centres, own))  # pyright: ignore[reportAttributeAccessIssue]
    readout.kernel = nnx.Param(constant(np.zeros((units, out_features)), own))
    readout.bias = nnx.Param(constant(np.zeros(out_features), own))
    return network


@functools.cache
def _outline(units: int, out_features: int, dtype: np.dtype) -> tuple[nnx.GraphDef, PyTree]:
    """The structure of a network. No weights are drawn, so that nothing has to be compiled."""
    network = nnx.eval_shape(lambda: MLP(1, (units,), out_features, dtype=dtype, rngs=nnx.Rngs(0)))
    return nnx.split(network)


def _evenly(units: int) -> tuple[np.ndarray, np.ndarray]:
    ratio = 1.32471795724474602596  # the real root of x^3 = x + 1
    steps = np.arange(1, units + 1)
    return (0.5 + steps / ratio) % 1.0, (0.5 + steps / ratio**2) % 1.0


def _latin_hypercube(units: int, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray]:
    with jax.ensure_compile_time_eval():
        order_key, *jitter_keys = jax.random.split(key, 3)
        order = np.asarray(jax.random.permutation(order_key, units))
        jitter = [np.asarray(jax.random.uniform(k, (units,))) for k in jitter_keys]
    return (order + jitter[0]) / units, (np.arange(units) + jitter[1]) / units


class ImplicitTables(eqx.Module):
    r"""What solves a stiff window whose Jacobian J is taken as constant.

    The residual of coefficients C is $C S^T - h f(y + C V^T)$ with `slopes` S and `values` V. It is
    projected so that $V^T W r = 0$, with the quadrature's weights W. For strong damping this is
    what least squares demand, and a component that decays at once is forgotten. (With
    $S^T W r = 0$ it would be kept, with alternating sign.) Let P be the projection for which
    P S = 1. Then Newton's equation has the matrix P V, and `Stages` solves it.
    """

    projection: Float[Array, "rank points"]
    stages: Stages
    band: Band | None  # where the Jacobian is not zero


class Tables(eqx.Module):
    r"""A hidden layer's features as an orthonormal basis, at the points where it is needed.

    The features $\phi_j$ are taken relative to the window's start, $\phi_j(s) - \phi_j(-1)$, so
    that the initial condition is met by construction. Their derivatives at the Gauss points,
    weighted by the roots of the weights, have a singular value decomposition $U S V^T$; the
    readout $C = V S^{-1} a$ is parametrised by the coefficients a of its leading part, and a
    least-squares problem in a is well conditioned. Each column of `slopes` and `values` is one
    basis function: its derivative in s, and its value.

    A value is the integral of the derivative by Gauss quadrature. A difference of tanh features
    would carry round-off in proportion to the readout, the same in every window, so that it would
    add up.
    """

    points: Float[Array, " points"]
    weights: Float[Array, " points"]  # of Gauss-Legendre quadrature
    slopes: Float[Array, "points rank"]
    values: Float[Array, "points rank"]
    end: Float[Array, " rank"]  # values at s = 1
    check_points: Float[Array, " checks"]  # in between, where the residual is judged
    check_slopes: Float[Array, "checks rank"]
    check_values: Float[Array, "checks rank"]
    readout: Float[Array, "units rank"]  # the map from a to C
    implicit: ImplicitTables | None  # for stiff systems of many components

    @property
    def rank(self) -> int:
        """The number of basis functions."""
        return self.slopes.shape[1]


def tabulate(
    network: FeatureNetwork,
    num_points: int,
    dtype: DTypeLike,
    more_checks: Float[np.ndarray, " more"] | None = None,
) -> Tables:
    """The tables of a network's features, computed on the host in float64.

    Args:
        network: the features.
        num_points: of the Gauss points.
        dtype: of the tables.
        more_checks: points in [-1, 1] that follow those between the Gauss points in `check_points`.

    Raises:
        ValueError: the features depend on traced values or are not finite.
    """
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves(network)):
        raise ValueError("network (or key) must not be traced: its features are constants")
    points, weights, integrals = gauss(num_points)
    edges = np.concatenate([[-1.0], points, [1.0]])
    checks = (edges[1:] + edges[:-1]) / 2
    checks = checks if more_checks is None else np.append(checks, more_checks)
    everywhere = np.concatenate([[-1.0], points, checks])
    features, slopes = (x.astype(np.float64) for x in _on_host(network, everywhere, dtype))
    if not (np.isfinite(features).all() and np.isfinite(slopes).all()):
        raise ValueError("network.features is not finite on [-1, 1]")
    at_points, at_checks = slice(1, 1 + num_points), slice(1 + num_points, None)
    root = np.sqrt(weights)[:, None]
    left, singular, right = np.linalg.svd(root * slopes[at_points], full_matrices=False)
    rank = int(np.sum(singular > 50 * float(jnp.finfo(dtype).eps) * singular[0]))
    rank = min(rank, num_points - 1)  # more equations than unknowns
    readout = right[:rank].T / singular[:rank]
    basis = left[:, :rank] / root
    tables = {
        "points": points,
        "weights": weights,
        "slopes": basis,
        "values": integrals[:-1].astype(float) @ basis,
        "end": weights @ basis,
        "check_points": checks,
        "check_slopes": slopes[at_checks] @ readout,
        "check_values": (features[at_checks] - features[0]) @ readout,
        "readout": readout,
    }
    arrays = {name: constant(table, dtype) for name, table in tables.items()}
    return Tables(**arrays, implicit=None)


def with_implicit(tables: Tables, band: Band | None) -> Tables:
    """The tables with those for stiff systems of many components."""
    dtype = tables.values.dtype
    points, slopes, weights = map(np.asarray, (tables.values, tables.slopes, tables.weights))
    weighted = (points * weights[:, None]).T.astype(float)
    projection = np.linalg.solve(weighted @ slopes, weighted)
    implicit = ImplicitTables(constant(projection, dtype), stages(projection @ points, dtype), band)
    return dataclasses.replace(tables, implicit=implicit)


def basis_at(network: FeatureNetwork, tables: Tables, s: np.ndarray) -> np.ndarray:
    """The basis functions' values at any scaled times, of shape (*s.shape, rank), on the host."""
    features, _ = _on_host(network, np.append(s.ravel(), -1.0), tables.points.dtype)
    return ((features[:-1] - features[-1]) @ np.asarray(tables.readout)).reshape(*s.shape, -1)


def _on_host(
    network: FeatureNetwork, s: Float[np.ndarray, " points"], dtype: DTypeLike
) -> tuple[np.ndarray, np.ndarray]:
    """The features at given points and their derivatives, also while something else is traced."""
    column = constant(s[:, None], dtype)
    unit = constant(np.ones_like(column), dtype)
    with jax.ensure_compile_time_eval():
        # Both are handed in: with constants of its own, the function would be compiled in parts.
        features, slopes = _features(network, column, unit)
    return np.asarray(features), np.asarray(slopes)


@eqx.filter_jit
def _features(
    network: FeatureNetwork, s: Float[Array, "points 1"], unit: Array
) -> tuple[Array, Array]:
    return jax.jvp(network.features, (s,), (unit,))
