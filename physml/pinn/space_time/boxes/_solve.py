"""A partial equation on a box: marches on finer and finer grids, until space is resolved."""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.compiled import watched
from physml.pinn.ivp import solve
from physml.pinn.space_time._problem import PDEProblem
from physml.pinn.space_time.boxes._axis import GridAxis
from physml.pinn.space_time.boxes._grid import make_grid
from physml.pinn.space_time.boxes._lines import Lines
from physml.pinn.space_time.boxes._solution import BoxSolution
from physml.results import RESULTS
from physml.solution import Dense, Solution

_FIRST, _FEWER = 12, 4  # points of a coordinate at first, and by how many a check has fewer
_MOST_STATES = 1600  # a window costs some forty factorisations of matrices of this size
_TIMES = 17  # even ones, beside the edges of windows, at which space is looked at
_SAMPLE = 25  # points of a coordinate at which two grids are compared
_SAFETY = 3.0  # of the estimate in space: the largest error is some three times the mean one
_ROUNDINGS = 2  # of the largest value of u, for each point of a coordinate


class Stop(NamedTuple):
    """Why a solve ended."""

    result: RESULTS
    details: str = ""


class _Marched(NamedTuple):
    """A march on one grid, and what it shows of space."""

    lines: Lines
    solution: Solution
    times: Float[np.ndarray, " times"]
    values: Float[np.ndarray, "times components x y"]
    sizes: Float[np.ndarray, " components"]
    tails: tuple[float, ...]  # for each coordinate, relative to the sizes
    needed: tuple[float, ...]  # points, as the decay of the coefficients has it


class _Resting(Dense):
    """A solution that never left its start."""

    state: Float[Array, " dim"]

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        return self.state

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        return jnp.zeros_like(self.state)


class _Unknown(eqx.Module):
    """The error of a solution that never left its start."""

    dim: int = eqx.field(static=True)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        return jnp.full(self.dim, jnp.inf, jnp.asarray(t).dtype)


def solve_box(
    problem: PDEProblem, rtol: float, first_span: float | None, max_windows: int, max_steps: int
) -> tuple[BoxSolution, Stop, Float[np.ndarray, " components"]]:
    """The solution, why it ended there, and the sizes of the unknowns."""
    lines, stop = _first_grid(problem, rtol)
    if stop is not None:
        return _unmoved(lines, stop), stop, np.ones(lines.components)
    options = {"first_span": first_span, "max_windows": max_windows, "max_steps": max_steps}
    coarse = None
    while True:
        fine = _march(lines, rtol, None if coarse is None else coarse.sizes, options)
        resolved = max(fine.tails) <= rtol
        lost = not np.isfinite(fine.values).all()  # a finer grid would lose it too
        if resolved or lost or fine.solution.result == RESULTS.max_steps_reached:
            break
        sizes = _grown(fine, rtol)
        if _num_states(problem, sizes) > _MOST_STATES:
            return *_ended(rtol, fine, coarse, _unresolved(fine)), fine.sizes
        lines, coarse = Lines(problem, make_grid(problem, sizes)), fine
    complete = coarse is not None and coarse.solution.result == RESULTS.successful
    if fine.solution.result == RESULTS.successful and not complete:
        fewer = tuple(n - _FEWER for n in fine.lines.grid.shape)
        coarse = _march(Lines(problem, make_grid(problem, fewer)), rtol, fine.sizes, options)
    return *_ended(rtol, fine, coarse, _verdict(fine)), fine.sizes


def _num_states(problem: PDEProblem, sizes: tuple[int, ...]) -> int:
    """The numbers that a grid has, those on the faces too."""
    return problem.stages * (problem.components or 1) * int(np.prod(sizes))


def _verdict(fine: _Marched) -> Stop:
    """How the march on the last grid ended."""
    reached, t1 = float(fine.solution.t1), fine.lines.problem.intervals[fine.lines.time, 1]
    words = "See solution.error_estimate." if reached == t1 else f"It stopped at t = {reached:.6g}."
    result = fine.solution.result
    return Stop(result, "" if result == RESULTS.successful else words)


def _unresolved(fine: _Marched) -> Stop:
    names = [c for c in fine.lines.problem.coordinates if c != "t"]
    counts = ", ".join(
        f"{axis.size} in {name} (about {need:.0f} would be needed)"
        for axis, name, need in zip(fine.lines.grid.axes, names, fine.needed, strict=True)
    )
    return Stop(RESULTS.unresolved, f"The grid had {counts} points. Raise rtol.")


def _first_grid(problem: PDEProblem, rtol: float) -> tuple[Lines, Stop | None]:
    """The lines on the smallest grid that resolves the initial values, if one does."""
    sizes = (_FIRST,) * (problem.dim - 1)
    while True:
        lines = Lines(problem, make_grid(problem, sizes))
        start = lines.start()
        values = np.moveaxis(start, 2, 1).reshape(len(start), -1, *lines.grid.shape)
        largest = np.abs(values).max(axis=(2, 3), keepdims=True)
        scaled = values / np.where(largest > 0, largest, 1.0)
        tails = [a.tail(np.moveaxis(scaled, 2 + i, -1)) for i, a in enumerate(lines.grid.axes)]
        if max(tails) <= rtol:
            break
        counts = zip(lines.grid.shape, tails, strict=True)
        grown = tuple(n + n // 3 if tail > rtol else n for n, tail in counts)
        if _num_states(problem, grown) > _MOST_STATES:
            words = f"{max(lines.grid.shape)} points in a coordinate do not resolve the start: "
            return lines, Stop(RESULTS.unresolved, f"{words}it has a kink, or is too sharp.")
        sizes = grown
    held = np.asarray(
        lines.values(jnp.asarray(problem.intervals[lines.time, 0]), jnp.asarray(lines.free(start)))
    )
    missed = np.abs(held - start)[0].max(axis=0)
    if np.any(missed > np.sqrt(rtol) * np.maximum(np.abs(start[0]).max(axis=0), missed * rtol)):
        return lines, Stop(
            RESULTS.unresolved,
            f"The initial values miss the conditions on the faces by {missed.max():.2g}.",
        )
    return lines, None


def _march(lines: Lines, rtol: float, sizes: np.ndarray | None, options: dict) -> _Marched:
    """March on one grid, and look at the coefficients in space on the way."""
    problem = lines.problem
    t0, t1 = map(float, problem.intervals[lines.time])
    start = lines.start()
    y0 = jnp.asarray(lines.free(start), problem.dtype)
    largest = np.abs(start).max(axis=1)
    if sizes is not None:
        largest[0] = np.maximum(largest[0], sizes)
    for stage in range(1, len(largest)):
        largest[stage] = np.maximum(largest[stage], largest[stage - 1] / (t1 - t0))
    atol = None
    if largest.min() > 0:
        shape = len(start), lines.components, len(lines.grid.points)
        every = np.broadcast_to(largest[:, :, None], shape)
        atol = jnp.asarray(rtol / 2 * lines.free(np.moveaxis(every, 1, 2)), problem.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is said is said of the whole
        solution = solve(
            lines, y0, t1, t0=t0, ts=[t0, t1], rtol=rtol / 2, atol=atol, throw=False, **options
        )
    reached = float(solution.t1)
    edges = np.asarray(solution.stats["edges"], float)
    times = np.unique(np.concatenate([np.linspace(t0, reached, _TIMES), edges]))
    times = times[(times >= t0) & (times <= reached)]
    values = np.asarray(_values_at(lines, solution, jnp.asarray(times, problem.dtype)), float)
    found = np.abs(values).max(axis=(0, 2, 3))
    scaled = values / np.where(found > 0, found, 1.0)[:, None, None]
    tails, needed = [], []
    for i, axis in enumerate(lines.grid.axes):
        along = np.moveaxis(scaled, 2 + i, -1)
        tails.append(axis.tail(along))
        needed.append(_points_needed(axis, along, rtol))
    return _Marched(lines, solution, times, values, found, tuple(tails), tuple(needed))


@watched
@eqx.filter_jit
def _values_at(lines: Lines, solution: Solution, times: Array) -> Array:
    """u at all points of the grid, (times, components, *points of each coordinate)."""

    def at(t: Array) -> Array:
        u = lines.values(t, solution.dense.evaluate(t))[0]
        return u.T.reshape(lines.components, *lines.grid.shape)

    return jax.lax.map(at, times)


def _points_needed(axis: GridAxis, along: np.ndarray, rtol: float) -> float:
    """How many points would bring the last coefficients below rtol, if they decay as they do."""
    sizes = np.abs(along @ axis.modes.T).reshape(-1, axis.size).max(axis=0)
    last = max(sizes[-2:].max(), 1e-300)
    middle = max(sizes[axis.size // 2 - 1 : axis.size // 2 + 1].max(), 1e-300)
    if last <= rtol:
        return float(axis.size)
    decay = np.log(middle / last) / (axis.size - 1.5 - axis.size // 2)
    return float(axis.size + np.log(last / rtol) / decay) if decay > 0 else np.inf


def _grown(fine: _Marched, rtol: float) -> tuple[int, ...]:
    """The points of the next grid: by the decay of the coefficients, at least a fifth more."""
    sizes = []
    for n, tail, need in zip(fine.lines.grid.shape, fine.tails, fine.needed, strict=True):
        least = n + max(2, n // 5)
        more = int(min(max(least, np.ceil(need) + 2), 10 * n)) if tail > rtol else n
        sizes.append(more)
    return tuple(sizes)


def _ended(
    rtol: float, fine: _Marched, coarse: _Marched | None, stop: Stop
) -> tuple[BoxSolution, Stop]:
    """The solution on the last grid, with the estimate of what the grid leaves out."""
    errors = np.full((len(fine.times), len(fine.sizes)), np.inf)
    if coarse is not None:
        errors = _space_errors(fine, coarse)
    if stop.result == RESULTS.successful and np.any(errors > np.sqrt(rtol) * fine.sizes):
        stop = Stop(RESULTS.suspect, "See solution.error_estimate.")
    return _solution(fine.lines, fine.solution, fine.times, errors, stop), stop


def _space_errors(fine: _Marched, coarse: _Marched) -> Float[np.ndarray, "times components"]:
    """The difference between two grids, of which the finer one has what its coefficients have."""
    times = np.minimum(fine.times, float(coarse.solution.t1))
    dtype = coarse.lines.problem.dtype
    other = np.asarray(_values_at(coarse.lines, coarse.solution, jnp.asarray(times, dtype)), float)
    found = []
    for lines, values in ((fine.lines, fine.values), (coarse.lines, other)):
        for i, axis in enumerate(lines.grid.axes):
            sample = np.linspace(axis.low, axis.high, _SAMPLE)
            values = np.moveaxis(np.tensordot(axis.at(sample), values, (1, 2 + i)), 0, 2 + i)
        found.append(values)
    gaps = np.sqrt(np.mean((found[0] - found[1]) ** 2, axis=(2, 3)))
    share = min(1.0, max(fine.tails) / max(*coarse.tails, 1e-300))
    rounding = _ROUNDINGS * max(fine.lines.grid.shape) * float(jnp.finfo(dtype).eps)
    return _SAFETY * share * gaps + rounding * np.abs(fine.values).max(axis=(2, 3))


def _unmoved(lines: Lines, stop: Stop) -> BoxSolution:
    """A solution that has the initial values alone."""
    problem = lines.problem
    t0 = jnp.asarray(problem.intervals[lines.time, 0], problem.dtype)
    y0 = jnp.asarray(lines.free(lines.start()), problem.dtype)
    resting = _Resting(y0), stop.result, {"num_windows": 0, "num_rejected": 0, "num_iterations": 0}
    in_time = Solution(t0[None], y0[None], t0, t0, *resting, _Unknown(len(y0)))
    unknown = np.full((1, lines.components), np.inf)
    return _solution(lines, in_time, np.asarray(t0)[None], unknown, stop)


def _solution(
    lines: Lines, in_time: Solution, times: np.ndarray, errors: np.ndarray, stop: Stop
) -> BoxSolution:
    problem = lines.problem
    domain = problem.intervals.copy()
    domain[lines.time, 1] = float(in_time.t1)
    counts = {name: in_time.stats[f"num_{name}"] for name in ("windows", "rejected", "iterations")}
    return BoxSolution(
        coordinates=problem.coordinates,
        equation=problem.residual,
        components=problem.components,
        lines=lines,
        domain=jnp.asarray(domain, problem.dtype),
        in_time=in_time,
        times=jnp.asarray(times, problem.dtype),
        errors=jnp.asarray(errors, problem.dtype),
        result=stop.result,
        stats={
            **{f"num_{name}": int(count) for name, count in counts.items()},
            "num_points": lines.grid.shape,
        },
    )
