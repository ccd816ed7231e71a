"""How far a solution can be trusted, by a second one from another code and another method."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.units import max_of, rounding
from physml.solution import Solution
from physml.systems import System


class Difference(eqx.Module):
    """The absolute difference of two solutions at some times; in between, the larger neighbour."""

    ts: Float[Array, " n"]
    values: Float[Array, "n dim"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        last = self.ts.shape[0] - 1
        right = jnp.clip(jnp.searchsorted(self.ts, t), 0, last)
        left = jnp.clip(jnp.searchsorted(self.ts, t, side="right") - 1, 0, last)
        return jnp.maximum(self.values[left], self.values[right])


def certificate(
    system: System,
    solution: Solution,
    args: PyTree,
    tolerances: tuple[Array, Array | None],
    stiff: bool,
    jumps: Array | None,
) -> Difference:
    """The difference of a solution from SciPy's, by DOP853 or, for a stiff system, Radau.

    They are compared at the solution's own times and at 256 even ones. SciPy's tolerance is a
    hundred times tighter, down to round-off. With the same tolerance, the errors of two methods
    of order 8 would be alike, and their difference smaller than either.
    """
    t0, t1 = float(solution.t0), float(solution.t1)
    own = np.asarray(solution.ts, float)
    times = np.unique(np.concatenate([np.linspace(t0, t1, 256), own[own <= t1]]))
    breaks = np.zeros(0) if jumps is None else np.asarray(jumps, float)
    y0 = np.asarray(solution(t0), float)
    at = jnp.asarray(times, solution.ts.dtype)
    ours = solution(jnp.clip(at, solution.t0, solution.t1))
    rtol, atol = tolerances
    atol = _own_sizes(system, at, ours, args, rtol) if atol is None else atol
    other = integrate(system, y0, times, args, (rtol, atol), stiff, breaks)
    return Difference(at, jnp.abs(ours - jnp.asarray(other, ours.dtype)))


def _own_sizes(
    system: System, times: Array, ys: Float[Array, "n dim"], args: PyTree, rtol: Array
) -> Float[Array, " dim"]:
    """An absolute tolerance for each component: of its typical size, or what rounding leaves."""
    size = jnp.median(jnp.abs(ys), axis=0)
    size = jnp.where(size > 0, size, max_of(jnp.abs(ys), axis=0))
    step = (times[-1] - times[0]) / len(times)
    floor = step * rounding(lambda t, y: system(t, y, args), times, ys.T)
    tolerance = jnp.maximum(rtol * size, floor)
    return jnp.where(tolerance > 0, tolerance, 1.0)  # a component that is zero has no error


def integrate(
    system: Callable,
    y0: np.ndarray,
    times: np.ndarray,
    args: PyTree,
    tolerances: tuple[Array, Array],
    stiff: bool,
    jumps: np.ndarray,
) -> np.ndarray:
    """SciPy's solution at increasing times from `times[0]`; the solver steps to each of them.

    `y0` is (dim,) or (dim, batch), which is one long state for SciPy. Rows after a failure are
    NaN.
    """
    from scipy import integrate as scipy_integrate  # heavy, and only needed here

    shape, dtype = y0.shape, jax.eval_shape(lambda: jnp.zeros(())).dtype
    right = jax.jit(lambda t, y: system(t, y.reshape(shape), args).reshape(-1))
    jacobian = jax.jit(jax.jacfwd(lambda y, t: system(t, y.reshape(shape), args).reshape(-1)))
    rtol, atol = float(tolerances[0]), np.asarray(tolerances[1], float)
    options: dict[str, Any] = {"rtol": max(rtol / 100, 3e-14), "atol": atol / 100}
    if stiff:
        method = scipy_integrate.Radau
        options["jac"] = lambda t, y: np.asarray(jacobian(y.astype(dtype), dtype.type(t)))
    else:
        method = scipy_integrate.DOP853

    breaks = [t for t in jumps if times[0] < t < times[-1]]
    rows, y = [y0.reshape(-1)], y0.reshape(-1)
    for start, end in zip([times[0], *breaks], [*breaks, times[-1]], strict=True):
        inside, last = np.nextafter(start, np.inf), np.nextafter(end, -np.inf)

        def f(t, y, inside=inside, last=last):
            t = min(max(t, inside), last)  # a jump's value belongs to one side only
            return np.asarray(right(dtype.type(t), y.astype(dtype)))

        solver = method(f, start, y, end, **options)
        stops = [t for t in times if start < t <= end]
        for stop in stops if stops and stops[-1] == end else [*stops, end]:
            solver.t_bound, solver.status = stop, "running"
            while solver.status == "running":
                solver.step()
            if solver.status == "failed":
                rows += [np.full_like(y, np.nan)] * (len(times) - len(rows))
                return np.stack(rows).reshape(len(times), *shape)
            if stop in stops:
                rows.append(solver.y)
        y = solver.y
    return np.stack(rows).reshape(len(times), *shape)
