"""The functions of each coordinate, and a problem's equations at their points."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml.pinn.space_time import _elements as elements
from physml.pinn.space_time._elements import AxisFunctions, AxisTable
from physml.pinn.space_time._equations import Box, SlabEquation, SlabEquations
from physml.pinn.space_time._jets import Derivative, Field, PointResidual
from physml.pinn.space_time._problem import PDEProblem

# Units, functions kept of them, collocation points and the sharpest slope: for the coordinate
# that is cut into elements (with t and without), for t, and for others, where one layer spans the
# whole interval.
_ELEMENT = (48, 20, 26, 0.7)
_STEADY = (48, 20, 26, 1.0)
_TIME = (48, 16, 20, 0.7)
_WHOLE = (96, 30, 38, 2.0)
_CAPACITY = 32  # elements in the smallest buffers; then 128, so that few shapes are compiled


class Discretisation:
    """The functions that make up u on a slab of space and time, and the equations for them.

    Coefficients of u have the shape (elements, *functions of the other coordinates, functions
    along an element, components); those of an initial state have one function of t.
    """

    def __init__(self, problem: PDEProblem):
        self.problem = problem
        self.functions = tuple(_functions(problem, i) for i in range(problem.dim))
        sizes = [functions.num_functions for functions in self.functions]
        self.num_along = sizes.pop(problem.axis)
        self.across = tuple(sizes)
        self.numbers = np.arange(int(np.prod(sizes))).reshape(sizes)  # as in flat coefficients
        self._points = [functions.at_points() for functions in self.functions]

    @property
    def time(self) -> int:
        """The index of t, for problems that have it."""
        assert self.problem.time is not None
        return self.problem.time

    @property
    def place(self) -> int:
        """The index of t among the coordinates that are not cut into elements."""
        return self.time - (self.time > self.problem.axis)

    def box(self, edges: Float[np.ndarray, " edges"], t: float, span: float) -> Box:
        """The place of a slab that starts at t, with elements between these edges."""
        problem = self.problem
        lows, spans = problem.intervals[:, 0].copy(), np.diff(problem.intervals)[:, 0]
        if problem.time is not None:
            lows[problem.time], spans[problem.time] = t, span
        lows, spans = (np.delete(x, problem.axis) for x in (lows, spans))
        capacity = _CAPACITY
        while capacity < len(edges) - 1:
            capacity *= 4
        padded = np.pad(edges, (0, capacity + 1 - len(edges)), "edge")
        padded, lows, spans = (jnp.asarray(x, problem.dtype) for x in (padded, lows, spans))
        units = jnp.ones(problem.size, problem.dtype)
        return Box(jnp.asarray(len(edges) - 1), padded, lows, spans, units)

    def bumps(self) -> Float[np.ndarray, "along 2"]:
        """The coefficients along an element of two functions whose state is zero at both ends.

        They are about (1 - s^2)^m and s (1 - s^2)^m, both of size 1.
        """
        functions = self.functions[self.problem.axis]
        s, order = functions.points, functions.order
        shapes = np.stack([(1 - s**2) ** order, 2 * s * (1 - s**2) ** order], axis=1)
        inner = functions.num_functions - 2 * order
        bumps = np.zeros((functions.num_functions, 2))
        bumps[:inner] = np.linalg.lstsq(functions.at(s)[0, :, :inner], shapes)[0]
        return bumps

    def largest(
        self, coefficients: Float[np.ndarray, "elements across along components"]
    ) -> Float[np.ndarray, "elements components"]:
        """The largest value of each unknown on each element, also of an initial state."""
        values = [functions.at(functions.points)[0] for functions in self.functions]
        along = values.pop(self.problem.axis)
        across = np.ones((1, 1))
        if coefficients.shape[1] > 1:
            for value in values:
                across = np.kron(across, value)
        across = across[:, : coefficients.shape[1]]
        u = np.einsum("nq,eqpc,mp->enmc", across, coefficients, along, optimize=True)
        return np.abs(u).max(axis=(1, 2))

    def equations(self) -> SlabEquations:
        """The equations of a window, or of the whole domain of a problem without t."""
        problem = self.problem
        inside = (self._equation(problem.residual, problem.derivatives), *self._stages())
        return self._with_faces(inside, {})

    def initial(self) -> tuple[SlabEquations, tuple[SlabEquation, ...]]:
        """The equations of an initial state, and its conditions between the points."""
        problem = self.problem
        given = [c for c in problem.conditions if c.axis == self.time]
        start = {self.time: self.functions[self.time].first_at_start()}
        between = {**start, problem.axis: self.functions[problem.axis].at_checks()}
        inside, checks = (
            tuple(self._equation(c.residual, c.derivatives, tables) for c in given)
            for tables in (start, between)
        )
        return self._with_faces(inside, start), checks

    def checks(self) -> tuple[SlabEquation, ...]:
        """The equation between the points along, then between those of each other axis."""
        problem = self.problem
        between = [{i: functions.at_checks()} for i, functions in enumerate(self.functions)]
        between.insert(0, between.pop(problem.axis))
        return tuple(self._equation(problem.residual, problem.derivatives, t) for t in between)

    def _stages(self) -> tuple[SlabEquation, ...]:
        """For a higher order in t: the derivative in t of each unknown is the next unknown."""
        problem = self.problem
        if problem.stages == 1:
            return ()
        split = problem.components or 1

        def residual(u: Field, *point: Array) -> Array:
            return u.t(*point)[:-split] - u(*point)[split:]

        slope = tuple(int(i == problem.time) for i in range(problem.dim))
        return (self._equation(residual, ((0,) * problem.dim, slope), components=problem.size),)

    def _with_faces(
        self, inside: tuple[SlabEquation, ...], tables: Mapping[int, AxisTable]
    ) -> SlabEquations:
        """Equations inside, with the problem's conditions in space."""
        problem = self.problem
        sides: tuple[list, list] = [], []
        for axis, end, residual, derivatives in problem.conditions:
            if axis == problem.time:
                continue
            end_table = self.functions[axis].at_end(end)
            face = self._equation(residual, derivatives, {**tables, axis: end_table})
            if axis == problem.axis:
                sides[end].append(face)
            else:
                inside = (*inside, face)
        joined = problem.coordinates[problem.axis] in problem.periodic
        left, right = map(tuple, sides)
        return SlabEquations(inside, left, right, problem.orders[problem.axis], joined)

    def _equation(
        self,
        residual: PointResidual,
        derivatives: tuple[Derivative, ...],
        tables: Mapping[int, AxisTable] = {},
        components: int | None = None,
    ) -> SlabEquation:
        """A residual at the collocation points, and at other points in some coordinates."""
        problem = self.problem
        every = [tables.get(i, points) for i, points in enumerate(self._points)]
        along = every.pop(problem.axis)
        sources = [(d, 0) if components is not None else _source(problem, d) for d in derivatives]
        return SlabEquation(
            residual,
            problem.coordinates,
            problem.components if components is None else components,
            derivatives,
            tuple(sources),
            problem.axis,
            along,
            tuple(every),
        )


def _source(problem: PDEProblem, derivative: Derivative) -> tuple[Derivative, int]:
    """Where a derivative of u is found: block n of the unknowns is the n-th derivative in t."""
    if problem.time is None:
        return derivative, 0
    block = min(derivative[problem.time], problem.stages - 1)
    lowered = (d - block * (i == problem.time) for i, d in enumerate(derivative))
    return tuple(lowered), block


def _functions(problem: PDEProblem, index: int) -> AxisFunctions:
    """The functions of one coordinate."""
    element = _STEADY if problem.time is None else _ELEMENT
    settings = element if index == problem.axis else _WHOLE
    units, rank, num_points, slope = _TIME if index == problem.time else settings
    order = 1 if index == problem.time else problem.orders[index]
    functions = elements.axis_functions(units, rank, order, num_points, slope, problem.dtype)
    if index == problem.axis:
        return elements.with_end_states(functions)
    if problem.coordinates[index] in problem.periodic:
        return elements.with_equal_ends(functions)
    return functions
