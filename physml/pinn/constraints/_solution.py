"""The windows of a constrained problem as one solution, judged."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.compiled import constant, watched
from physml._numerics.quadrature import radau, to_legendre
from physml.pinn.collocation import Error, Polynomials, Tolerance
from physml.pinn.constraints._march import Corrected, Marched
from physml.results import RESULTS
from physml.solution import Dense, Solution

_INTERPOLATED = 3.0  # the error of a polynomial through nodes, in units of its last terms


class StatesAndRates(Dense):
    """States and their derivatives, by polynomials of their own in each window.

    The derivative of the states' polynomials would have fewer digits than the derivatives that the
    equations were solved for.
    """

    states: Polynomials
    rates: Polynomials

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t)."""
        return self.states.evaluate(t)

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """du/dt at a scalar t."""
        return self.rates.evaluate(t)


def put_together(
    marched: Marched,
    corrected: Corrected,
    ts: Float[Array, " n"],
    tolerance: Tolerance,
    num_hidden: int,
) -> Solution:
    """The solution in continuous time, the estimate of its error, and the verdict.

    Args:
        marched, corrected: the windows.
        ts: the times asked for.
        tolerance: of the state.
        num_hidden: the number of components at the end that are left out.
    """
    result, shown = marched.result, corrected.values.shape[2] - num_hidden
    edges = marched.edges if marched.rates else np.repeat(marched.edges, 2)
    resolution, trusted = _judge(edges, corrected, tolerance, marched.spoilt)
    if result == RESULTS.successful and not trusted:
        result = RESULTS.suspect
    starts, spans = edges[:-1], np.diff(edges)
    points = radau(corrected.rates.shape[1]).points
    more = radau(corrected.error.shape[1] - 1).points
    states = _pieces(starts, spans, np.append(-1.0, points), corrected.values[..., :shown])
    rates = _pieces(starts, spans, points, corrected.rates[..., :shown])
    signed = _pieces(starts, spans, np.append(-1.0, more), corrected.error[..., :shown])
    dense, t1 = StatesAndRates(states, rates), constant(edges[-1])
    fill = len(states.starts) - len(starts)
    padded = np.pad(resolution[:, :shown], ((0, fill), (0, 0)))
    return Solution(
        ts=ts,
        ys=_values_at(dense, ts, t1),
        t0=constant(edges[0]),
        t1=t1,
        dense=dense,
        result=result,
        stats={
            "num_windows": constant(len(marched.rates)),
            "num_rejected": constant(marched.rejected),
            "num_iterations": constant(marched.steps),
            "edges": constant(marched.edges),
            "residuals": constant(np.asarray(marched.errors, edges.dtype)),
            "multipliers": constant(np.max(np.abs(corrected.values[..., shown:]), axis=(0, 1))),
        },
        error=Error(signed, constant(padded)),
    )


def _judge(
    edges: np.ndarray, corrected: Corrected, tolerance: Tolerance, spoilt: np.ndarray
) -> tuple[Float[np.ndarray, "windows dim"], bool]:
    """The errors of each window beside the signed ones, and whether half of the digits are right.

    A component that is but rounding, or what tolerated errors of others make of it, has no digits.
    """
    values, rates, error, left_out = corrected
    eps, size = np.finfo(values.dtype).eps, np.max(np.abs(values), axis=1)
    late = np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))[:, None]
    rounding = 2 * eps * size + 0.5 * eps * late * np.max(np.abs(rates), axis=1)
    nodes = np.append(-1.0, radau(rates.shape[1]).points)
    last = np.max(np.abs(_legendre(nodes, values)[:, -2:]), axis=1)
    resolution = left_out + rounding + _INTERPOLATED * last
    largest = np.max(np.abs(error), axis=1) + resolution
    enough = float(tolerance.rtol) ** 0.5 * np.max(size, axis=0) + np.max(rounding, axis=0) + spoilt
    if tolerance.atol is not None:
        enough = enough + np.asarray(tolerance.atol)
    return resolution, bool(np.all(largest <= enough))


def _legendre(
    nodes: Float[np.ndarray, " nodes"], values: Float[np.ndarray, "windows nodes dim"]
) -> Float[np.ndarray, "windows terms dim"]:
    """The Legendre coefficients of the polynomials through the values."""
    return np.einsum("np,kpi->kni", to_legendre(tuple(nodes))[0], values).astype(values.dtype)


def _pieces(
    starts: np.ndarray, spans: np.ndarray, nodes: np.ndarray, values: np.ndarray
) -> Polynomials:
    """Polynomials in buffers for a power of two of windows, so that few shapes are compiled."""
    fill = max(64, 1 << (len(starts) - 1).bit_length()) - len(starts)
    terms = _legendre(nodes, values)
    return Polynomials(
        constant(np.pad(starts, (0, fill), constant_values=np.inf)),
        constant(np.pad(np.where(spans > 0, spans, 1.0), (0, fill), constant_values=1.0)),
        constant(np.pad(terms, ((0, fill), (0, 0), (0, 0)))),
    )


@watched
@eqx.filter_jit
def _values_at(dense: Dense, ts: Float[Array, " n"], t1: Array) -> Float[Array, "n dim"]:
    found = jax.vmap(dense.evaluate)(jnp.minimum(ts, t1))
    return jnp.where((ts <= t1)[:, None], found, jnp.nan)
