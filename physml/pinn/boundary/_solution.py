"""The solution of a boundary value problem."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from physml._numerics.calls import numbers_in, summary
from physml._numerics.compiled import watched
from physml._numerics.quadrature import all_nodes, legendre_coefficients
from physml.pinn.boundary._correction import Corrected
from physml.pinn.boundary._mesh import Found, transform
from physml.pinn.boundary._problem import BoundaryProblem
from physml.pinn.collocation import Error, Polynomials
from physml.results import RESULTS
from physml.solution import Solution

ILL_POSED = 1e-2
"""The condition number times rounding, from which on a solution is not determined."""

_INTERPOLATED = 3.0  # the error of a polynomial through nodes, in units of the term that it lacks


class BoundarySolution(Solution):
    """The solution of a boundary value problem: a `Solution`, and what was unknown beside it.

    Attributes:
        parameters: the free parameters by name.
        parameter_errors: their errors, as estimated.
        period: the period of a periodic solution.
        period_error: its error, as estimated; zero where the period was given.
        multipliers: the Floquet multipliers of a periodic solution, the largest first: by how much
            a small change at the start has grown after one period. Without a driving force one of
            them is 1.
    """

    parameters: dict[str, Array] = eqx.field(default_factory=dict)
    parameter_errors: dict[str, Array] = eqx.field(default_factory=dict)
    period: Float[Array, ""] | None = None
    period_error: Float[Array, ""] | None = None
    multipliers: Complex[Array, " dim"] | None = None

    def __repr__(self) -> str:
        if not isinstance(self.t0, jax.Array):  # a tree of something else
            return super().__repr__()
        states = {} if self.structure is None else {"states": self.structure.words}
        facts: dict[str, object] = {**states, "t0": self.t0, "t1": self.t1}
        for name, value in self.parameters.items():
            facts[name] = _with_error(value, self.parameter_errors[name])
        if self.period is not None and self.period_error is not None:
            facts["period"] = _with_error(self.period, self.period_error)
        if self.multipliers is not None:
            facts["multipliers"] = ", ".join(f"{x:.4g}" for x in np.asarray(self.multipliers))
        facts["error"] = "see error_estimate(t), valid_until(rtol)"
        facts |= {**numbers_in(self.stats), "result": RESULTS[self.result]}
        return summary(f"BoundarySolution with {self._dim} components", facts)


def _with_error(value: Array, error: Array) -> object:
    return value if value.ndim else f"{float(value):.15g} ± {float(error):.1g}"


class Judged(eqx.Module):
    """Arrays of a solution, and whether they can be trusted."""

    polynomials: Polynomials
    error: Error
    ys: Float[Array, "n dim"]
    trusted: bool


def judge(
    problem: BoundaryProblem,
    found: Found,
    corrected: Corrected,
    beyond: Float[np.ndarray, " dim"],
    ts: Float[Array, " n"],
    tolerance: tuple[float, float],
) -> Judged:
    """The solution as a function of time, the estimate of its error, and the verdict.

    Args:
        problem: what was solved.
        found: the mesh, and what rounding may have spoilt.
        corrected: the solution and what is left of its error.
        beyond: the error of each component that the cut of an infinite interval makes.
        ts: times.
        tolerance: the relative and the absolute one.
    """
    values, unknown = corrected.x
    error, left_out = corrected.error, corrected.left_out
    eps = np.finfo(values.dtype).eps
    size = np.max(np.abs(values), axis=1)
    times = problem.times(found.edges, unknown)
    slopes = _largest_slopes(values, np.diff(times))
    late = np.maximum(np.abs(times[:-1]), np.abs(times[1:]))[:, None]
    rounding = 2 * eps * size + 0.5 * eps * late * slopes
    resolution = np.max(left_out.values, axis=1) + rounding + beyond
    if problem.unknown_period:
        off = _unknown_errors(corrected)[-1] / unknown[-1]
        resolution = resolution + off * (times[1:, None] - times[0]) * slopes
    if not corrected.condition * eps < ILL_POSED:
        resolution = np.full_like(resolution, np.inf)
    kept = _buffers(times, values, error.values, resolution)
    polynomials, signed, resolution, ys = _finish(kept, ts)
    total = np.asarray(resolution)[: len(size)] + np.max(np.abs(error.values), axis=1)
    rtol, atol = tolerance
    enough = rtol**0.5 * np.max(size, axis=0) + atol + np.max(rounding, axis=0) + found.noise
    return Judged(polynomials, Error(signed, resolution), ys, bool(np.all(total <= enough)))


def _unknown_errors(corrected: Corrected) -> np.ndarray:
    """The errors of the unknown numbers, as estimated."""
    rounding = np.finfo(corrected.x.unknown.dtype).eps * np.abs(corrected.x.unknown)
    return np.abs(corrected.error.unknown) + corrected.left_out.unknown + rounding


def unknown_numbers(problem: BoundaryProblem, corrected: Corrected) -> dict[str, PyTree]:
    """The fields of a solution that hold its free parameters."""
    if problem.free is None:
        return {}
    count = problem.num_unknown - problem.unknown_period
    values, errors = corrected.x.unknown[:count], _unknown_errors(corrected)[:count]
    return {
        "parameters": problem.free.split(jnp.asarray(values)),
        "parameter_errors": problem.free.split(jnp.asarray(errors)),
    }


def periodic_facts(
    period: float, problem: BoundaryProblem, corrected: Corrected
) -> dict[str, PyTree]:
    """The fields of a periodic solution; `period` is the given one."""
    dtype, found, error = problem.dtype, np.asarray(period), np.zeros(())
    if problem.unknown_period:
        found, error = corrected.x.unknown[-1], _unknown_errors(corrected)[-1]
    multipliers = np.full(problem.dim, np.nan)
    if len(corrected.maps):
        whole = functools.reduce(lambda before, one: one @ before, corrected.maps)
        multipliers = np.linalg.eigvals(whole)
    order = np.argsort(-np.abs(multipliers))
    return {
        "period": jnp.asarray(found, dtype),
        "period_error": jnp.asarray(error, dtype),
        "multipliers": jnp.asarray(multipliers[order].astype(np.result_type(dtype, np.complex64))),
    }


def _largest_slopes(values: np.ndarray, spans: np.ndarray) -> Float[np.ndarray, "windows dim"]:
    """The largest slope between two nodes of each window."""
    steps = np.diff(all_nodes(values.shape[1] - 2))[:, None] * spans[:, None, None] / 2
    return np.max(np.abs(np.diff(values, axis=1)) / steps, axis=1)


def _buffers(
    times: np.ndarray, values: np.ndarray, error: np.ndarray, resolution: np.ndarray
) -> tuple[Array, ...]:
    """Starts, spans, values of the solution, its error's coefficients, and the resolution.

    They have room for a power of two of windows, so that few shapes are compiled.
    """
    count = len(values)
    fill = max(64, 1 << (count - 1).bit_length()) - count
    matrix = transform(values.shape[1] - 2)
    signed = np.einsum("np,kpi->kni", matrix, error).astype(values.dtype)
    starts = np.pad(times[:-1], (0, fill), constant_values=np.inf)
    spans = np.pad(np.diff(times), (0, fill), constant_values=1.0)
    padded = (
        np.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1)) for x in (values, signed, resolution)
    )
    return tuple(jnp.asarray(x, values.dtype) for x in (starts, spans, *padded))


@watched
@eqx.filter_jit
def _finish(
    buffers: tuple[Array, ...], ts: Float[Array, " n"]
) -> tuple[Polynomials, Polynomials, Array, Array]:
    """The solution, its error, the resolution with what the polynomials leave out, and `ys`."""
    starts, spans, values, error, resolution = buffers
    terms = legendre_coefficients(values)
    polynomials = Polynomials(starts, spans, terms)
    signed = Polynomials(starts, spans, error)
    ys = jax.vmap(polynomials.evaluate)(ts)
    # Integrals of n values of f have the degree n: the term beyond it, n + 1, is left out.
    left_out = Polynomials(starts, spans, terms[:, :-1]).truncation()
    return polynomials, signed, resolution + _INTERPOLATED * left_out, ys
