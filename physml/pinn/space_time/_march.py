"""A march through time, slab by slab; elements and spans follow the residual."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from physml.pinn.space_time._elements import Tables, halving, periodic, tabulate, with_end_states
from physml.pinn.space_time._jets import Derivative, PointResidual
from physml.pinn.space_time._problem import Problem
from physml.pinn.space_time._slab import Box, Equation, Fit, System, Table, defects, fit
from physml.results import RESULTS

# Units, functions kept of them, collocation points and the sharpest slope: for the coordinate
# that is cut into elements, for t, and for others, where one layer spans the whole interval.
_ELEMENT = (48, 20, 26, 1.0)
_TIME = (48, 16, 20, 1.0)
_WHOLE = (96, 30, 38, 2.0)
_CAPACITY = 32  # elements in the smallest buffers; then 128, so that few shapes are compiled
_SHORTEST = 1e-13  # window or element, relative to the whole interval


class Slab(NamedTuple):
    """The solution over one window of time."""

    start: float
    span: float
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

    def __init__(self, problem: Problem, rtol: float, max_elements: int, max_steps: int):
        self.problem, self.rtol = problem, rtol
        self.max_elements, self.max_steps = max_elements, max_steps
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

    def steady(self, edges: np.ndarray) -> Any:
        """The one slab of a problem without t."""
        system = self._system("points", (self._interior(),))
        start = self._zeros(len(edges) - 1, self.across)
        while True:
            box = self._box(edges, 0.0, 1.0)
            fitted = self._fit(system, box, start, self._numbers)
            defect = self._judge(fitted, box, self._numbers)
            bad = defect.along > self._tolerance
            if not np.isfinite(defect.worst) or not bad.any() or len(bad) >= self.max_elements:
                break
            edges, start = self._split(edges, self._read(fitted, len(bad)), bad)
        self._keep(0.0, 1.0, edges, self._read(fitted, len(bad)), defect)
        if not np.isfinite(defect.worst):
            return RESULTS.nonlinear_divergence
        return RESULTS.successful if defect.worst <= self._tolerance else RESULTS.unresolved

    def through_time(self, edges: np.ndarray, first_span: float | None, max_windows: int) -> Any:
        """Window after window: narrower where t is not resolved, more elements where x is not."""
        t, t1 = self.problem.intervals[self._time]
        whole = t1 - t
        span = whole / 16 if first_span is None else min(first_span, whole)
        system = self._system("points", (self._interior(), *self._stages()))
        free = np.take(self._numbers, np.arange(1, self.across[self._place]), axis=self._place)
        later = [(0, 0)] * (len(self.across) + 3)
        later[1 + self._place] = (0, self.across[self._place] - 1)
        end = self.tables[self._time].at(np.array([1.0]))[0, 0]

        edges, state, converged = self._initial(edges)
        if not converged:
            return RESULTS.nonlinear_divergence
        num_failed = 0
        while t < t1:
            if not np.isfinite(state).all():
                return RESULTS.nonfinite
            if len(self.slabs) == max_windows:
                return RESULTS.max_steps_reached
            if span < _SHORTEST * whole:
                return RESULTS.window_failed
            left = t1 - t
            span = left if span > 0.99 * left else min(span, left / 2)
            box = self._box(edges, t, span)
            fitted = self._fit(system, box, np.pad(state, later), free)
            defect = self._judge(fitted, box, free)
            ratio = self._tolerance / max(defect.across, 1e-12 * self._tolerance)
            factor = float(np.clip(0.9 * ratio ** (1 / len(end)), 0.25, 4.0))
            if defect.worst <= self._tolerance:
                num_failed = 0
                coefficients = self._read(fitted, len(edges) - 1)
                self._keep(t, span, edges, coefficients, defect)
                t = t1 if span == left else t + span
                state = np.moveaxis(coefficients, 1 + self._place, -1) @ end
                state = np.expand_dims(state, 1 + self._place)
            else:
                self.num_rejected += 1
                coarse = defect.across <= max(defect.along.max(), self._tolerance)
                if coarse and np.isfinite(defect.worst):
                    if len(edges) > self.max_elements:
                        return RESULTS.unresolved
                    edges, state = self._split(edges, state, defect.along > self._tolerance)
                    continue
                # A solution that is not smooth answers slowly to a shorter window.
                num_failed += 1
                factor = min(factor, 0.5**num_failed)
            span *= factor
        return RESULTS.successful

    def _initial(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Elements that resolve the initial state, it, and whether its least squares converged."""
        given = [c for c in self.problem.conditions if c.axis == self._time]
        at_points, at_checks = (
            tuple(
                self._equation(c.residual, c.derivatives, "start", {self.problem.axis: where})
                for c in given
            )
            for where in ("points", "checks")
        )
        system = self._system("start", at_points)
        across = tuple(1 if i == self._place else n for i, n in enumerate(self.across))
        start, free = self._zeros(len(edges) - 1, across), np.arange(int(np.prod(across)))
        while True:
            box = self._box(edges, self.problem.intervals[self._time, 0], 1.0)
            fitted = self._fit(system, box, start, free)
            share = np.sqrt(np.diff(edges) / np.ptp(edges))
            along = defects(at_checks, box, fitted.coefficients, jnp.asarray(free))
            along = np.asarray(along, np.float64).max(axis=0)[: len(share)] * share
            self.initial_defect = float(along.max())
            bad = (along > self._tolerance) & (share > _SHORTEST**0.5)
            if not bad.any() or len(edges) > self.max_elements:
                return edges, self._read(fitted, len(edges) - 1, across), bool(fitted.converged)
            edges, start = self._split(edges, start, bad)

    def _keep(
        self, t: float, span: float, edges: np.ndarray, coefficients: np.ndarray, defect: Defect
    ) -> None:
        flat = coefficients.reshape(len(edges) - 1, -1, *coefficients.shape[-2:])
        shown = flat[..., : self.problem.components or 1]  # what follows are derivatives in t
        self.slabs.append(Slab(float(t), float(span), edges, shown))
        self.defects.append(defect.worst / self._tolerance)

    def _read(
        self, fitted: Fit, num_elements: int, across: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """The coefficients on the host, of the elements that there are."""
        coefficients = np.asarray(fitted.coefficients)[:num_elements]
        across = self.across if across is None else across
        return coefficients.reshape(num_elements, *across, *coefficients.shape[2:])

    def _fit(self, system: System, box: Box, start: np.ndarray, free: np.ndarray) -> Fit:
        """One compiled call."""
        flat = start.reshape(start.shape[0], -1, *start.shape[-2:])
        missing = box.edges.size - 1 - len(flat)
        flat = np.pad(flat, [(0, missing), (0, 0), (0, 0), (0, 0)])
        flat = jnp.asarray(flat, self.problem.dtype)
        fitted = fit(system, box, flat, jnp.asarray(free.ravel()), self.max_steps)
        self.num_iterations += int(fitted.num_iterations)
        across = np.ones((1, 1))
        for index, tables in enumerate(self.tables):
            if index != self.problem.axis:
                across = np.kron(across, tables.at(tables.points)[0])
        tables = self.tables[self.problem.axis]
        along = tables.at(tables.points)[0]
        shown = np.asarray(fitted.coefficients)[..., : self.problem.components or 1]
        across = across[:, : shown.shape[1]] if shown.shape[1] > 1 else np.ones((1, 1))
        values = np.einsum("nq,eqpc,mp->enmc", across, shown, along, optimize=True)
        self.scale = max(self.scale, float(np.nan_to_num(np.abs(values)).max()))
        return fitted

    def _judge(self, fitted: Fit, box: Box, free: np.ndarray) -> Defect:
        lengths = np.diff(np.asarray(box.edges, np.float64))[: int(box.count)]
        if not fitted.converged:
            return Defect(np.full(len(lengths), np.inf), np.inf)
        worst = defects(self._checks(), box, fitted.coefficients, jnp.asarray(free.ravel()))
        # An element counts by its share of the domain, as in the L2 norm.
        worst = np.asarray(worst, np.float64)[:, : len(lengths)] * np.sqrt(lengths / lengths.sum())
        worst = np.nan_to_num(worst, nan=np.inf)
        return Defect(worst[0], float(worst[1:].max(initial=0.0)))

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

    def _split(
        self, edges: np.ndarray, coefficients: np.ndarray, bad: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Halve the elements that are bad."""
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
        return np.zeros((num_elements, *across, self.num_along, self.problem.size))

    @functools.cached_property
    def _numbers(self) -> np.ndarray:
        """The functions across, counted as in the coefficients."""
        return np.arange(int(np.prod(self.across))).reshape(self.across)

    def _box(self, edges: np.ndarray, t: float, span: float) -> Box:
        intervals = self.problem.intervals.copy()
        if self.problem.time is not None:
            intervals[self._time] = t, t + span
        spans = np.diff(intervals)[:, 0]
        if self.problem.time is not None:
            spans[self._time] = span  # without the rounding of t
        lows, spans = (np.delete(x, self.problem.axis) for x in (intervals[:, 0], spans))
        capacity = _CAPACITY
        while capacity < len(edges) - 1:
            capacity *= 4
        padded = np.pad(edges, (0, capacity + 1 - len(edges)), "edge")
        arrays = (jnp.asarray(x, self.problem.dtype) for x in (padded, lows, spans))
        return Box(jnp.asarray(len(edges) - 1), *arrays)

    def _tabulate(self, index: int) -> Tables:
        problem = self.problem
        settings = _ELEMENT if index == problem.axis else _WHOLE
        settings = _TIME if index == problem.time else settings
        units, rank, num_points, slope = settings
        tables = tabulate(
            units,
            rank,
            problem.orders[index] if index != problem.time else 1,
            num_points,
            slope,
            problem.dtype,
        )
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
            values = values[:, :, :1]
        weights = np.ones(len(s)) if weights is None else weights
        return Table(*(jnp.asarray(x, self.problem.dtype) for x in (s, weights, values)))

    def _equation(
        self,
        residual: PointResidual,
        derivatives: tuple[Derivative, ...],
        time: str = "points",
        where: dict[int, str] | None = None,
        components: int | None = None,
    ) -> Equation:
        """A residual at the points of all coordinates, but for those said in `where`."""
        problem = self.problem
        components = problem.components if components is None else components

        def source(derivative: Derivative) -> tuple[Derivative, int]:
            # In a system of first order the n-th derivative in t is that of the (n - 1)-th.
            if problem.time is None or components != problem.components:
                return derivative, 0
            block = min(derivative[problem.time], problem.stages - 1)
            reduced = list(derivative)
            reduced[problem.time] -= block
            return tuple(reduced), block

        places = ["points"] * problem.dim
        if problem.time is not None:
            places[problem.time] = time
        for index, place in (where or {}).items():
            places[index] = place
        tables = [self._table(i, place) for i, place in enumerate(places)]
        along = tables.pop(problem.axis)
        return Equation(
            residual,
            problem.coordinates,
            components,
            derivatives,
            tuple(map(source, derivatives)),
            problem.axis,
            along,
            tuple(tables),
        )

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

    def _stages(self) -> tuple[Equation, ...]:
        """That each derivative in t is the one that the next unknown function stands for."""
        problem = self.problem
        if problem.stages == 1:
            return ()
        split = problem.components or 1

        def residual(u: Any, *point: Any) -> Any:
            return u.t(*point)[:-split] - u(*point)[split:]

        slope = tuple(int(i == self._time) for i in range(problem.dim))
        return (self._equation(residual, ((0,) * problem.dim, slope), components=problem.size),)

    def _system(self, time: str, inside: tuple[Equation, ...]) -> System:
        """The equations inside and the conditions in space."""
        problem, left, right = self.problem, [], []
        for axis, end, residual, derivatives in problem.conditions:
            if axis == problem.time:
                continue
            face = self._equation(residual, derivatives, time, {axis: ("low", "high")[end]})
            if axis == problem.axis:
                (left, right)[end].append(face)
            else:
                inside = (*inside, face)
        joined = problem.coordinates[problem.axis] in problem.periodic
        return System(inside, tuple(left), tuple(right), problem.orders[problem.axis], joined)
