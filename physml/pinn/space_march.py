"""A march through time by slabs of space and time, whose elements and widths follow the residual."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml.pinn.elements import Tables, halving, periodic, tabulate, with_end_states
from physml.pinn.jets import Derivative, PointResidual
from physml.pinn.slab import Box, Equation, Fit, Table, defects, fit
from physml.solution import RESULTS

# Units, functions kept of them, collocation points and the sharpest slope: for the coordinate
# that is cut into elements, for t, and for others, where one layer spans the whole interval.
_ELEMENT = (48, 20, 26, 1.0)
_TIME = (48, 16, 20, 1.0)
_WHOLE = (96, 30, 38, 2.0)
_MULTIPLE = 4  # of elements, so that few shapes are compiled
_SHORTEST = 1e-13  # window or element, relative to the whole interval


class Condition(NamedTuple):
    """A residual on a face of the domain."""

    axis: int
    end: int  # 0 or 1
    residual: PointResidual
    derivatives: tuple[Derivative, ...]


class Problem(NamedTuple):
    """An equation, its domain and its conditions, checked."""

    coordinates: str
    intervals: np.ndarray  # (dim, 2)
    residual: PointResidual
    derivatives: tuple[Derivative, ...]
    conditions: tuple[Condition, ...]
    periodic: frozenset[str]
    components: int | None
    dtype: DTypeLike

    @property
    def time(self) -> int | None:
        """The index of t."""
        return self.coordinates.index("t") if "t" in self.coordinates else None

    @property
    def axis(self) -> int:
        """The index of the coordinate that is cut into elements: the first of space."""
        return next(i for i, name in enumerate(self.coordinates) if name != "t")

    @property
    def orders(self) -> tuple[int, ...]:
        """The highest derivative of each coordinate."""
        return tuple(max(1, *orders) for orders in zip(*self.derivatives, (0,) * self.dim))

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return len(self.coordinates)


class Slab(NamedTuple):
    """The solution over one window of time."""

    start: float
    width: float
    edges: np.ndarray
    coefficients: np.ndarray  # (elements, across, along, components)


class Defect(NamedTuple):
    """The residual off the collocation points, as a change of u; infinite if not solved."""

    along: np.ndarray  # of each element, between its points
    across: float  # between the points in t, or in another coordinate

    @property
    def worst(self) -> float:
        """The larger."""
        return max(float(self.along.max()), self.across)


class March:
    """Solves a problem slab by slab, on the host; a slab is one compiled call.

    Coefficients have the shape (elements, *functions of the other coordinates, functions along an
    element, components); a `state`, at one time, has as many functions of t as there are initial
    conditions.
    """

    def __init__(self, problem: Problem, rtol: float, max_elements: int, max_iterations: int):
        self.problem, self.rtol = problem, rtol
        self.max_elements, self.max_iterations = max_elements, max_iterations
        self.tables = tuple(self._tabulate(i) for i in range(problem.dim))
        self.halves = halving(self.tables[problem.axis])
        sizes = [tables.fine.shape[2] for tables in self.tables]
        self.num_along = sizes.pop(problem.axis)
        self.across = tuple(sizes)
        self.slabs: list[Slab] = []
        self.defects: list[float] = []
        self.num_rejected = self.num_iterations = 0
        self.scale = 0.0
        self.initial_defect = 0.0

    def steady(self, edges: np.ndarray) -> RESULTS:
        """The one slab of a problem without t."""
        equations, left, right = self._faces("points")
        equations = (self._interior(), *equations)
        start = self._zeros(len(edges) - 1, self.across)
        free = np.arange(start[0, ..., 0, 0].size)
        while True:
            box = self._box(edges, 0.0, 1.0)
            fitted = self._fit((equations, left, right), box, start, free)
            defect = self._judge(fitted, box, free)
            bad = defect.along > self._tolerance
            if not np.isfinite(defect.worst) or not bad.any() or len(bad) >= self.max_elements:
                break
            edges, start = self._split(edges, np.asarray(fitted.coefficients), bad)
            start = start.reshape(len(edges) - 1, *self.across, self.num_along, -1)
        self._keep(0.0, 1.0, edges, fitted, defect)
        if not np.isfinite(defect.worst):
            return RESULTS.nonlinear_divergence
        return RESULTS.successful if defect.worst <= self._tolerance else RESULTS.unresolved

    def through_time(self, edges: np.ndarray, window: float | None, max_windows: int) -> RESULTS:
        """Window after window: narrower where t is not resolved, more elements where x is not."""
        t, t1 = self.problem.intervals[self._time]
        span = t1 - t
        width = span / 16 if window is None else min(window, span)
        system = self._faces("points")
        system = ((self._interior(), *system[0]), *system[1:])
        order, size = self.problem.orders[self._time], self.across[self._place]
        numbers = np.arange(int(np.prod(self.across))).reshape(self.across)
        free = np.take(numbers, np.arange(order, size), axis=self._place).ravel()
        padding = [(0, 0)] * (len(self.across) + 3)
        padding[1 + self._place] = (0, size - order)
        end = self.tables[self._time].at(np.array([1.0]))[:order, 0]

        edges, state = self._initial(edges, width)
        while t < t1:
            if not np.isfinite(state).all():
                return RESULTS.nonfinite
            if len(self.slabs) == max_windows:
                return RESULTS.max_steps_reached
            if width < _SHORTEST * span:
                return RESULTS.window_failed
            left = t1 - t
            wanted, width = width, left if width > 0.99 * left else min(width, left / 2)
            state = self._rescaled(state, width / wanted)
            box = self._box(edges, t, width)
            fitted = self._fit(system, box, np.pad(state, padding), free)
            defect = self._judge(fitted, box, free)
            factor = 0.9 * (self._tolerance / max(defect.across, 1e-300)) ** (1 / (size - order))
            factor = float(np.clip(factor, 0.25, 2.0))
            if defect.worst <= self._tolerance:
                coefficients = self._keep(t, width, edges, fitted, defect)
                t = t1 if width == left else t + width
                state = np.moveaxis(coefficients, 1 + self._place, -1) @ end.T
                state = np.moveaxis(state, -1, 1 + self._place)
            else:
                self.num_rejected += 1
                if defect.across <= max(defect.along.max(), self._tolerance):
                    if len(edges) > self.max_elements:
                        return RESULTS.unresolved
                    edges, state = self._split(edges, state, defect.along > self._tolerance)
                    factor = 1.0
            state = self._rescaled(state, factor)
            width *= factor
        return RESULTS.successful

    def _initial(self, edges: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """The initial state by least squares, on elements that resolve it."""
        equations, left, right = self._faces("start")
        given = [c for c in self.problem.conditions if c.axis == self._time]
        equations = (*(self._equation(c.residual, c.derivatives, "start") for c in given), *equations)
        checks = tuple(
            self._equation(c.residual, c.derivatives, "start", {self.problem.axis: "checks"})
            for c in given
        )
        across = list(self.across)
        across[self._place] = self.problem.orders[self._time]
        start = self._zeros(len(edges) - 1, tuple(across))
        free = np.arange(int(np.prod(across)))
        while True:
            box = self._box(edges, self.problem.intervals[self._time, 0], width)
            fitted = self._fit((equations, left, right), box, start, free)
            lengths = np.diff(edges) / np.ptp(edges)
            along = np.asarray(defects(checks, box, fitted.coefficients, jnp.asarray(free)))
            along = along * np.sqrt(lengths)
            self.initial_defect = float(along.max())
            bad = (along > self._tolerance) & (lengths > _SHORTEST)
            if not bad.any() or len(edges) > self.max_elements:
                state = np.asarray(fitted.coefficients)
                return edges, state.reshape(start.shape)
            edges, start = self._split(edges, start, bad)

    def _keep(
        self, t: float, width: float, edges: np.ndarray, fitted: Fit, defect: Defect
    ) -> np.ndarray:
        coefficients = np.asarray(fitted.coefficients)
        self.slabs.append(Slab(float(t), float(width), edges, coefficients))
        self.defects.append(defect.worst / self._tolerance)
        shape = len(edges) - 1, *self.across, *coefficients.shape[2:]
        return coefficients.reshape(shape)

    def _fit(self, system: Any, box: Box, start: np.ndarray, free: np.ndarray) -> Fit:
        """One compiled call; `system` holds the equations inside, at the left and at the right."""
        problem = self.problem
        flat = start.reshape(start.shape[0], -1, *start.shape[-2:])
        fitted = fit(
            *system,
            box,
            jnp.asarray(flat, problem.dtype),
            jnp.asarray(free),
            problem.orders[problem.axis],
            problem.coordinates[problem.axis] in problem.periodic,
            self.max_iterations,
        )
        self.num_iterations += int(fitted.num_iterations)
        self.scale = max(self.scale, float(np.nan_to_num(fitted.scale)))
        return fitted

    def _judge(self, fitted: Fit, box: Box, free: np.ndarray) -> Defect:
        lengths = np.diff(np.asarray(box.edges))
        if not fitted.converged:
            return Defect(np.full(len(lengths), np.inf), np.inf)
        # An element counts by its share of the domain, as in the L2 norm.
        share = np.sqrt(lengths / lengths.sum())
        along, *across = [
            np.nan_to_num(np.asarray(worst, np.float64) * share, nan=np.inf)
            for worst in (
                defects((check,), box, fitted.coefficients, jnp.asarray(free))
                for check in self._checks()
            )
        ]
        return Defect(along, max((float(x.max()) for x in across), default=0.0))

    @property
    def _tolerance(self) -> float:
        return self.rtol * self.scale

    @property
    def _time(self) -> int:
        time = self.problem.time
        assert time is not None
        return time

    @property
    def _place(self) -> int:
        """Of t among the coordinates that are not cut into elements."""
        return self._time - (self._time > self.problem.axis)

    def _rescaled(self, state: np.ndarray, factor: float) -> np.ndarray:
        """The state in a window that is wider by a factor: it holds derivatives in s."""
        shape = [1] * state.ndim
        shape[1 + self._place] = -1
        return state * (factor ** np.arange(state.shape[1 + self._place])).reshape(shape)

    def _split(
        self, edges: np.ndarray, coefficients: np.ndarray, bad: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Halve the elements that are bad, and the longest others up to the next multiple."""
        lengths = np.diff(edges)
        bad = bad.copy()
        missing = -(len(lengths) + int(bad.sum())) % _MULTIPLE
        others = np.flatnonzero(~bad)
        bad[others[np.argsort(-lengths[others], kind="stable")[:missing]]] = True
        rows, ends = [], [edges[:1]]
        for i, halve in enumerate(bad):
            row = coefficients[i]
            if halve:
                rows += [np.moveaxis(np.tensordot(h, row, (1, -2)), 0, -2) for h in self.halves]
                ends.append((edges[i : i + 1] + edges[i + 1 : i + 2]) / 2)
            else:
                rows.append(row)
            ends.append(edges[i + 1 : i + 2])
        return np.concatenate(ends), np.stack(rows)

    def _zeros(self, num_elements: int, across: tuple[int, ...]) -> np.ndarray:
        return np.zeros((num_elements, *across, self.num_along, self.problem.components or 1))

    def _box(self, edges: np.ndarray, t: float, width: float) -> Box:
        intervals = self.problem.intervals.copy()
        if self.problem.time is not None:
            intervals[self._time] = t, t + width
        widths = np.diff(intervals)[:, 0]
        if self.problem.time is not None:
            widths[self._time] = width  # without the rounding of t
        lows, widths = (np.delete(x, self.problem.axis) for x in (intervals[:, 0], widths))
        return Box(*(jnp.asarray(x, self.problem.dtype) for x in (edges, lows, widths)))

    def _tabulate(self, index: int) -> Tables:
        problem = self.problem
        settings = _ELEMENT if index == problem.axis else _WHOLE
        settings = _TIME if index == problem.time else settings
        width, rank, num_points, slope = settings
        tables = tabulate(width, rank, problem.orders[index], num_points, slope, problem.dtype)
        if index == problem.axis:
            return with_end_states(tables)
        return periodic(tables) if problem.coordinates[index] in problem.periodic else tables

    def _table(self, index: int, where: str) -> Table:
        tables = self.tables[index]
        weights = None
        if where == "points":
            s, weights = tables.points, tables.weights
        elif where == "checks":
            s = tables.checks
        else:
            s = np.array([1.0 if where == "high" else -1.0])
        values = tables.at(s)
        if where == "start":
            values = values[:, :, : tables.order]
        weights = np.ones(len(s)) if weights is None else weights
        return Table(*(jnp.asarray(x, self.problem.dtype) for x in (s, weights, values)))

    def _equation(
        self,
        residual: PointResidual,
        derivatives: tuple[Derivative, ...],
        time: str = "points",
        where: dict[int, str] | None = None,
    ) -> Equation:
        """A residual at the points of all coordinates, but for those said in `where`."""
        problem = self.problem
        places = ["points"] * problem.dim
        if problem.time is not None:
            places[problem.time] = time
        for index, place in (where or {}).items():
            places[index] = place
        tables = [self._table(i, place) for i, place in enumerate(places)]
        along = tables.pop(problem.axis)
        shared = problem.coordinates, problem.components, derivatives, problem.axis
        return Equation(residual, *shared, along, tuple(tables))

    def _interior(self) -> Equation:
        return self._equation(self.problem.residual, self.problem.derivatives)

    @functools.cache  # noqa: B019 -- a march lives as long as its call
    def _checks(self) -> tuple[Equation, ...]:
        """The equation between the points along, then between those in each other coordinate."""
        problem = self.problem
        order = [problem.axis, *(i for i in range(problem.dim) if i != problem.axis)]
        return tuple(
            self._equation(problem.residual, problem.derivatives, where={i: "checks"})
            for i in order
        )

    def _faces(self, time: str) -> tuple[tuple[Equation, ...], ...]:
        """The conditions in space: on faces along the elements, at their first and last edge."""
        inside, left, right = [], [], []
        for axis, end, residual, derivatives in self.problem.conditions:
            if axis == self.problem.time:
                continue
            face = self._equation(residual, derivatives, time, {axis: ("low", "high")[end]})
            group = (left, right)[end] if axis == self.problem.axis else inside
            group.append(face)
        return tuple(inside), tuple(left), tuple(right)
