"""Steps along a branch of solutions, by its arclength."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask
from physml.pinn.boundary._discretisation import Discretisation, Iterate, Sizes
from physml.pinn.boundary._linear import Factors, Step
from physml.pinn.boundary._mesh import Found
from physml.pinn.boundary._problem import called
from physml.pinn.boundary._run import Task, finish, make_search
from physml.pinn.boundary._solution import BoundarySolution
from physml.results import RESULTS

FIRST_STEP = 0.02
"""The first step along an arc, in units of the sizes of the states and of the parameter's range."""

_SHORTEST_STEP = 1e-6
_STRAIGHT = 0.9  # the cosine of the angle between neighbouring tangents
_MOST_TRIES = 40  # to find where a test is zero


class OnArc(eqx.Module):
    """A user's conditions, and one more: how far along the branch the solution lies.

    Attributes:
        conditions: of the states and the parameters.
        names: of the parameters, in their order.
        states, unknown: where the arc's last solution lies.
        by_states, by_unknown: the arc's direction, weighted so that it has the length 1.
        step: the distance along it.
    """

    conditions: Callable
    names: tuple[str, ...] = eqx.field(static=True)
    states: Float[Array, "states dim"]
    unknown: Float[Array, " unknown"]
    by_states: Float[Array, "states dim"]
    by_unknown: Float[Array, " unknown"]
    step: Float[Array, ""]

    def __call__(self, *given: PyTree) -> Array:
        *states, parameters = given
        found = ask("conditions", called(given), self.conditions, *given)
        dim, unknown = self.states.shape[1], self.unknown.size
        what = f"{dim + unknown - 1} numbers, one for each component and each parameter in free"
        rows = answer("conditions", what, found, None, self.step.dtype)
        if rows.shape != (dim + unknown - 1,):
            raise ValueError(f"conditions must return {what}, got shape {rows.shape}")
        now = jnp.concatenate([jnp.ravel(parameters[name]) for name in self.names])
        along = jnp.sum(self.by_states * (jnp.stack(states) - self.states))
        return jnp.append(rows, along + self.by_unknown @ (now - self.unknown) - self.step)


class Point(NamedTuple):
    """A solution on the branch.

    Attributes:
        found: it on its mesh.
        tangent: the direction in which the branch goes on, of length 1.
        factors: the equations there, the one of the arc included.
    """

    found: Found
    tangent: Step
    factors: Factors


class Arc:
    """A branch of solutions of a problem whose conditions are `OnArc`, followed step by step."""

    def __init__(self, task: Task, conditions: OnArc, width: float):
        """A branch of which nothing is known yet.

        Args:
            task: the problem and its guess.
            conditions: of the problem, of any place on the arc.
            width: the range of the parameter, the last of the names of the conditions.
        """
        self._conditions, self._width, self.names = conditions, width, conditions.names
        self.task, self.search = task, make_search(task)
        ends, dtype = task.ends, task.problem.dtype
        self._stops = ends.stops(task.problem.system.jump_times(*ends.cut), dtype)
        self._places = ends.places(task.at, dtype)

    def first(self, direction: float) -> tuple[Found, Point | None]:
        """The solution at the parameter's first value, and its tangent if there is one."""
        task = self.task
        x = Iterate(task.guess(task.at)[None], task.unknown)
        along = Step(np.zeros_like(x.values), np.zeros_like(x.unknown))
        along.unknown[-1] = self._width**2
        self._look_along(x, along, 0.0)
        found = self.search.from_guess(self._stops, self._places, task.guess, task.unknown)
        good = found.result == RESULTS.successful
        return found, self._point(found, direction) if good else None

    def step(self, point: Point, step: float) -> tuple[Point | None, float]:
        """The next solution, and the step that led there: a shorter one where that is needed."""
        while step >= _SHORTEST_STEP:
            found = self._at(point, step, adapt=True)
            if found.result == RESULTS.successful:
                following = self._point(found)
                straight = self._product(found.x, following.tangent, point.tangent)
                if straight > _STRAIGHT or step < FIRST_STEP / 8:
                    return following, step
            step /= 2
        return None, step

    def solution(self, found: Found) -> tuple[BoundarySolution, str]:
        """A solution on a mesh, corrected and judged, and the words for how it ended."""
        nothing = np.zeros(self.task.problem.dim, found.edges.dtype)
        return finish(self.task, self.search, found, nothing, None)

    def fold(self, point: Point, step: float) -> Found:
        """The solution within a step at which the parameter turns back."""
        return self._where(point, step, self._turning)

    def crossing(self, point: Point, step: float) -> Found:
        """The solution within a step at which another branch crosses."""
        found = self._where(point, step, self._signed)
        return found._replace(result=RESULTS.successful)  # singular is what it has to be

    def crosses(self, point: Point, step: float) -> bool:
        """Whether another branch crosses within a step."""
        return self._signed(point, step) * self._signed(point, 0.0) < 0

    def _where(self, point: Point, step: float, test: Callable[[Point, float], float]) -> Found:
        """The solution within a step at which a test is zero, by the secant method (Illinois)."""
        ends, values = [0.0, step], [test(point, 0.0), test(point, step)]
        last = -1
        for _ in range(_MOST_TRIES):
            new = ends[1] - values[1] * (ends[1] - ends[0]) / (values[1] - values[0])
            value = test(point, new)
            side = int(value * values[1] > 0)  # the end that it replaces
            done = abs(new - ends[side]) <= 4 * np.finfo(float).eps * step or value == 0
            ends[side], values[side] = new, value
            if done:
                break
            if side == last:
                values[1 - side] /= 2
            last = side
        return self._at(point, new, adapt=True)

    def _at(self, point: Point, step: float, *, adapt: bool) -> Found:
        """The solution a step further along the branch; its mesh adapts, or stays."""
        x = point.found.x
        self._look_along(x, point.tangent, step)
        ahead = x.plus(point.tangent, step)
        go = self.search.from_values if adapt else self.search.on_values
        return go(point.found.edges, self._stops, self._places, ahead)

    def _point(self, found: Found, direction: float = 1.0) -> Point:
        """A solution with its tangent; the direction of the first is that of the parameter."""
        tangent = self._tangent(found)
        share = direction / self._product(found.x, tangent, tangent) ** 0.5
        tangent = Step(share * tangent.values, share * tangent.unknown)
        self._look_along(found.x, tangent, 0.0)
        return Point(found, tangent, self._factors(found))

    def _space(self, found: Found) -> Discretisation:
        """The problem on the mesh of a solution, with the last condition as it is now."""
        return self.search.on_mesh(found.edges, self._places)

    def _factors(self, found: Found) -> Factors:
        """The equations at a solution, factorised."""
        space = self._space(found)
        return space.factorise(space.look(found.x), Sizes.of(found.x))

    def _tangent(self, found: Found) -> Step:
        """The direction of the branch at a solution, 1 along the last condition."""
        values, unknown = found.x
        misses = np.zeros(values.shape[2] + len(unknown), values.dtype)
        misses[-1] = -1.0
        return self._factors(found).solve(np.zeros_like(values[:, 1:]), misses)

    def _units(self, x: Iterate) -> tuple[np.ndarray, np.ndarray]:
        """The sizes of components and unknown numbers in the length of an arc."""
        state, unknown = Sizes.of(x).positive()
        unknown = unknown.copy()
        unknown[-1] = self._width
        return state * (2 * len(state)) ** 0.5, unknown

    def _product(self, x: Iterate, a: Step, b: Step) -> float:
        """The scalar product of two directions at a solution."""
        (state, unknown), ends = (
            self._units(x),
            [(s.values[0, 0], s.values[-1, -1]) for s in (a, b)],
        )
        ends = [np.stack(pair) / state for pair in ends]
        along = np.sum(ends[0] * ends[1]) + (a.unknown / unknown) @ (b.unknown / unknown)
        return float(along)

    def _look_along(self, x: Iterate, tangent: Step, step: float) -> None:
        """Let the last condition be the distance from a solution along a tangent."""
        state, unknown = self._units(x)
        arrays = (
            np.stack([x.values[0, 0], x.values[-1, -1]]),
            x.unknown,
            np.stack([tangent.values[0, 0], tangent.values[-1, -1]]) / state**2,
            tangent.unknown / unknown**2,
            np.asarray(step),
        )
        problem, dtype = self.search.problem, x.values.dtype
        arrays = (jnp.asarray(array, dtype) for array in arrays)
        conditions = OnArc(self._conditions.conditions, self.names, *arrays)
        self.search.problem = dataclasses.replace(problem, conditions=conditions)

    def _signed(self, point: Point, step: float) -> float:
        """How far the equations are from being singular, with a sign, on the mesh of a solution."""
        factors = point.factors
        if step:
            factors = self._factors(self._at(point, step, adapt=False))
        return factors.sign * factors.smallest

    def _turning(self, point: Point, step: float) -> float:
        """The parameter's share of the tangent a step further."""
        if not step:
            return float(point.tangent.unknown[-1])
        return float(self._tangent(self._at(point, step, adapt=False)).unknown[-1])
