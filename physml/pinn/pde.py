"""A partial differential equation solved by networks, in space and through time."""

import warnings
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml._blas import single_threaded_blas
from physml.pinn.jets import PointResidual, derivatives_in
from physml.pinn.space_march import Condition, March, Problem
from physml.pinn.space_time import PDESolution
from physml.solution import RESULTS

Face = tuple[str, float]
"""A face of the domain: the name of a coordinate and one end of its interval."""

_POINTS = np.array([[0.31, 0.57, 0.43], [0.67, 0.23, 0.71], [0.13, 0.83, 0.29]])
_DEFAULT_RTOL = (1e-10, 1e-3)  # in float64 and float32


def pde(
    residual: PointResidual,
    domain: Mapping[str, tuple[float, float]],
    conditions: Mapping[Face, PointResidual],
    *,
    periodic: Collection[str] = (),
    components: int | None = None,
    rtol: float | None = None,
    elements: int = 4,
    max_elements: int = 128,
    window: float | None = None,
    max_windows: int = 1000,
    max_iterations: int = 12,
    dtype: DTypeLike | None = None,
    throw: bool = True,
) -> PDESolution:
    problem = _problem(residual, domain, conditions, periodic, components, dtype)
    dtype = problem.dtype
    if rtol is None:
        rtol = _DEFAULT_RTOL[0 if dtype == jnp.float64 else 1]
    for name, value, least in (
        ("elements", elements, 1),
        ("max_elements", max_elements, elements),
        ("max_windows", max_windows, 1),
        ("max_iterations", max_iterations, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 < rtol < 1:
        raise ValueError(f"rtol must be positive and less than 1, got {rtol}")
    if window is not None and not 0 < window < np.inf:
        raise ValueError(f"window must be positive and finite, got {window}")
    march = March(problem, rtol, max_elements, max_iterations)
    edges = np.linspace(*problem.intervals[problem.axis], elements + 1)
    with single_threaded_blas():
        if problem.time is None:
            result = march.steady(edges)
        else:
            result = march.through_time(edges, window, max_windows)
    solution = _solution(march, result)
    if result != RESULTS.successful:
        reached = "" if problem.time is None else f" at t = {solution.domain[problem.time, 1]:.6g}"
        words = f"pinn.pde stopped{reached}: {RESULTS[result]}"
        if throw:
            raise RuntimeError(words)
        warnings.warn(words, stacklevel=2)
    return solution


def _problem(
    residual: PointResidual,
    domain: Mapping[str, tuple[float, float]],
    conditions: Mapping[Face, PointResidual],
    periodic: Collection[str],
    components: int | None,
    dtype: DTypeLike | None,
) -> Problem:
    """The problem, with every static fact checked."""
    intervals = _intervals(domain)
    coordinates = "".join(domain)
    if components is not None and components < 1:
        raise ValueError(f"components must be at least 1, or None for a scalar u, got {components}")
    for name in periodic:
        if name not in domain or name == "t":
            raise ValueError(f"periodic must name coordinates of space, got {name!r}")
    # Three points in general position, and their projections on a face.
    inside = intervals[:, 0] + np.ptp(intervals, axis=1) * _POINTS[:, : len(intervals)]
    derivatives, num_rows = derivatives_in("residual", residual, coordinates, components, inside)
    if num_rows != (components or 1):
        raise ValueError(
            f"residual must return a number for each of {components or 1} components, got {num_rows}"
        )
    problem = Problem(
        coordinates,
        intervals,
        residual,
        derivatives,
        (),
        frozenset(periodic),
        components,
        jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype),
    )
    found = [_condition(problem, face, of, inside) for face, of in conditions.items()]
    counts = {name: 0 for name in domain}
    for condition, rows in found:
        counts[coordinates[condition.axis]] += rows
    for index, (name, count) in enumerate(counts.items()):
        if name == "t" and count != problem.orders[index] * (components or 1):
            raise ValueError(
                f"conditions at t = {intervals[index, 0]} must return "
                f"{problem.orders[index] * (components or 1)} numbers for each point, since the "
                f"equation has the derivative {problem.orders[index]} in t, got {count}"
            )
        if name != "t" and not count and name not in periodic:
            raise ValueError(f"conditions name no face of {name}, and it is not periodic")
        if name != "t" and count and name in periodic:
            raise ValueError(f"conditions name a face of {name}, which is periodic")
    return problem._replace(conditions=tuple(condition for condition, _ in found))


def _intervals(domain: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """The intervals of all coordinates, (dim, 2)."""
    for name, interval in domain.items():
        if len(name) != 1 or not name.isalpha():
            raise ValueError(f"domain must name coordinates by single letters, got {name!r}")
        low, high = interval
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"domain[{name!r}] must be finite with low < high, got {interval}")
    if not set(domain) - {"t"}:
        raise ValueError(f"domain must have a coordinate of space, got {dict(domain)}")
    if len(domain) > 3:
        raise ValueError(f"domain must have at most three coordinates, got {dict(domain)}")
    return np.array([[float(low), float(high)] for low, high in domain.values()])


def _condition(
    problem: Problem, face: Face, residual: PointResidual, inside: np.ndarray
) -> tuple[Condition, int]:
    """A condition and the number of its rows."""
    name, position = face
    ends = dict(zip(problem.coordinates, problem.intervals, strict=True)).get(name)
    if ends is None or position not in ends or (name == "t" and position != ends[0]):
        raise ValueError(
            f"conditions must name faces of the domain, such as ('x', {problem.intervals[0, 0]}), "
            f"and the start of t; got {face}"
        )
    axis, end = problem.coordinates.index(name), int(position == ends[1])
    points = inside.copy()
    points[:, axis] = position
    label = f"the condition at {name} = {position}"
    derivatives, rows = derivatives_in(
        label, residual, problem.coordinates, problem.components, points
    )
    for derivative in derivatives:
        if any(d > o - (i == axis) for i, (d, o) in enumerate(zip(derivative, problem.orders, strict=True))):
            raise ValueError(f"{label} has a derivative as high as the equation's, or higher")
    return Condition(axis, end, residual, derivatives), rows


def _solution(march: March, result: RESULTS) -> PDESolution:
    """The slabs put together, with buffers as long as the longest."""
    problem, slabs = march.problem, march.slabs
    components = problem.components or 1
    size = max((len(slab.edges) for slab in slabs), default=2)
    shape = size - 1, int(np.prod(march.across)), march.num_along, components
    edges = np.full((max(len(slabs), 1), size), np.inf)
    readouts = np.full((len(edges), *shape), np.nan)
    for i, slab in enumerate(slabs):
        edges[i, : len(slab.edges)] = slab.edges
        readouts[i, : len(slab.edges) - 1] = slab.coefficients
    intervals = problem.intervals.copy()
    if problem.time is not None:
        low = intervals[problem.time, 0]
        intervals[problem.time, 1] = slabs[-1].start + slabs[-1].width if slabs else low
        if result == RESULTS.successful:
            intervals[problem.time] = problem.intervals[problem.time]
    arrays = (
        intervals,
        np.array([slab.start for slab in slabs]),
        np.array([slab.width for slab in slabs]),
        edges,
        readouts,
    )
    stats = {
        "num_windows": len(slabs),
        "num_rejected": march.num_rejected,
        "num_iterations": march.num_iterations,
        "num_elements": [len(slab.edges) - 1 for slab in slabs],
        "residuals": march.defects,
        "initial_defect": march.initial_defect,
    }
    return PDESolution(
        problem.coordinates,
        problem.residual,
        problem.components,
        problem.axis,
        tuple(tables.basis for tables in march.tables),
        *(jnp.asarray(x, problem.dtype) for x in arrays),
        result,
        stats,
    )
