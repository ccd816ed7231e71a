"""A boundary value problem on one mesh: the equation at Gauss points, and the conditions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from physml._numerics.quadrature import gauss
from physml.pinn.boundary._linear import Factors, Linearisation, Step
from physml.pinn.boundary._problem import POINTS_AT_ONCE, BoundaryProblem, Programs

Array = np.ndarray
_ROUNDINGS = 8  # by which a step may be spoilt
_MEANINGLESS = 1e-3  # of a component's size: a step that rounding spoils so much


class Iterate(NamedTuple):
    """The values at the start, the Gauss points and the end of each window, and the unknowns."""

    values: Float[Array, "windows nodes dim"]
    unknown: Float[Array, " unknown"]

    def plus(self, step: Step, share: float = 1.0) -> "Iterate":
        """The iterate after a share of a step."""
        return Iterate(self.values + share * step.values, self.unknown + share * step.unknown)


class Look(NamedTuple):
    """What an iterate misses, and the derivatives there."""

    defects: Float[Array, "windows later dim"]
    misses: Float[Array, " conditions"]
    rates: Float[Array, "windows points dim"]
    linear: Linearisation

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        arrays = self.defects, self.misses, *self.linear[2:6]
        return all(bool(np.isfinite(x).all()) for x in arrays)


class Sizes(NamedTuple):
    """The size of each component and of each unknown number."""

    state: Float[Array, " dim"]
    unknown: Float[Array, " unknown"]

    @classmethod
    def of(cls, x: Iterate | Step) -> "Sizes":
        """The sizes of an iterate or a step."""
        return cls(np.max(np.abs(x.values), axis=(0, 1)), np.abs(x.unknown))

    def up_to(self, other: "Sizes", share: float = 1.0) -> "Sizes":
        """The larger of these sizes and a multiple of others."""
        return Sizes(*(np.maximum(a, share * b) for a, b in zip(self, other, strict=True)))

    def positive(self) -> "Sizes":
        """The same, with 1 in place of zero."""
        return Sizes(*(np.where(x > 0, x, 1.0) for x in self))

    def norm(self, step: Step) -> float:
        """The size of a step: the largest root mean square of a component, or unknown number."""
        state, unknown = self.positive()
        mean = np.sqrt(np.mean((step.values / state) ** 2, axis=(0, 1)))
        return float(np.max(np.concatenate([mean, np.abs(step.unknown / unknown)])))


class Discretisation:
    """The equation in integral form at the Gauss points of the windows of a mesh.

    Attributes:
        edges: of the windows.
        num_points: in a window.
    """

    def __init__(
        self,
        problem: BoundaryProblem,
        programs: Programs,
        edges: Float[Array, " edges"],
        places: Float[Array, " states"],
        num_points: int,
    ):
        """The mesh.

        Args:
            problem, programs: what is solved.
            edges: of the windows.
            places: the conditions' times, each of them an edge.
            num_points: in a window.
        """
        rule = gauss(num_points)
        self.problem, self.programs, self.edges = problem, programs, edges
        self.num_points, self._times_of_conditions = num_points, places
        self._integrals = rule.integrals.astype(float).astype(edges.dtype)
        self.half = np.diff(edges) / 2
        self.times = edges[:-1, None] + self.half[:, None] * (rule.points + 1)
        self.times = self.times.astype(edges.dtype)
        # The elimination runs from the first edge to the last, whatever the conditions ask for.
        self._asked = np.searchsorted(edges, places)
        self._places = np.union1d(self._asked, [0, len(edges) - 1])

    def nodes(self) -> Float[Array, "windows nodes"]:
        """The times of all nodes."""
        return np.concatenate([self.edges[:-1, None], self.times, self.edges[1:, None]], axis=1)

    def states(self, values: Float[Array, "windows nodes dim"]) -> Float[Array, "states dim"]:
        """The states that the conditions ask for."""
        last = len(values) - 1
        return np.stack(
            [values[k, 0] if k <= last else values[last, -1] for k in self._asked.tolist()]
        )

    def look(self, x: Iterate) -> Look:
        """What an iterate misses."""
        rates, by_state, by_unknown = self._linearise(x)
        change = np.einsum("pq,kqi->kpi", self._integrals, rates)
        defects = x.values[:, :1] + self.half[:, None, None] * change - x.values[:, 1:]
        asked = self.programs.conditions(self.problem, self.states(x.values), x.unknown)
        misses, of_asked, of_unknown = map(np.asarray, asked)
        of_states = np.zeros((len(misses), len(self._places), x.values.shape[2]), rates.dtype)
        for k, place in enumerate(np.searchsorted(self._places, self._asked)):
            of_states[:, place] += of_asked[:, k]  # two times may be one edge
        linear = Linearisation(
            self.half,
            self._integrals,
            by_state,
            by_unknown,
            of_states,
            of_unknown,
            tuple(self._places.tolist()),
        )
        return Look(defects, misses, rates, linear)

    def factorise(self, look: Look, sizes: Sizes) -> Factors:
        """The equations linearised there, factorised: raises LinAlgError if they are singular."""
        # A component that is zero so far has the unit of what its rate makes of it.
        span = self.edges[-1] - self.edges[0]
        reach = span * np.max(np.abs(look.rates), axis=(0, 1))
        state = np.where(sizes.state > 0, sizes.state, reach)
        state = np.where(state > 0, state, 1.0)
        # An unknown number has the unit in which it changes the state by the state's own size.
        pushed = span * np.max(np.abs(look.linear.by_unknown), axis=(0, 1)) / state[:, None]
        most = np.max(pushed, axis=0)
        return Factors(look.linear, state, 1 / np.where(most > 0, most, 1.0))

    def rounding(self, look: Look, x: Iterate) -> Float[Array, "windows dim"]:
        """How far rounding spoils each component in each window."""
        size = np.max(np.abs(x.values), axis=1)
        terms = np.max(np.abs(look.linear.by_state), axis=1) @ size[:, :, None]
        return np.finfo(size.dtype).eps * (size + self.half[:, None] * terms[:, :, 0])

    def noise(self, look: Look, x: Iterate, factors: Factors) -> Sizes:
        """How far rounding may spoil a step from an iterate; zero where that would say nothing."""
        defects, linear = np.zeros_like(look.defects), look.linear
        random = np.random.default_rng(0)
        ends = self.rounding(look, x)
        defects[:, -1] = ends * random.choice([-1.0, 1.0], ends.shape)
        states = np.concatenate([x.values[:, 0], x.values[-1:, -1]])[list(linear.places)]
        terms = np.abs(linear.of_states.reshape(len(look.misses), -1)) @ np.abs(states).ravel()
        terms += np.abs(linear.of_unknown) @ np.abs(x.unknown)
        misses = np.finfo(terms.dtype).eps * terms * random.choice([-1.0, 1.0], terms.shape)
        step = Sizes.of(factors.solve(defects, misses))
        spoilt = Sizes(*(_ROUNDINGS * size for size in step))
        shares = np.concatenate(
            [spoilt.state / factors.units, spoilt.unknown / factors.unknown_units]
        )
        return spoilt if np.max(shares) < _MEANINGLESS else Sizes(*map(np.zeros_like, step))

    def _linearise(self, x: Iterate) -> tuple[Array, Array, Array]:
        """f, f_y and f_p at all points, computed in batches of one shape."""
        windows, points = self.times.shape
        dim, total = x.values.shape[2], windows * points
        fill = -total % POINTS_AT_ONCE
        # The last point is repeated, so that nothing is asked for where f may not be defined.
        times = np.pad(self.times.ravel(), (0, fill), mode="edge")
        states = np.pad(x.values[:, 1:-1].reshape(total, dim), ((0, fill), (0, 0)), mode="edge")
        found: list[list[Array]] = [[], [], []]
        for first in range(0, total, POINTS_AT_ONCE):
            some = slice(first, first + POINTS_AT_ONCE)
            given = times[some], np.ascontiguousarray(states[some].T), x.unknown
            for kept, one in zip(
                found, self.programs.linearised(self.problem, *given), strict=True
            ):
                kept.append(np.asarray(one))
        rates, by_state, by_unknown = (np.concatenate(x, axis=-1)[..., :total] for x in found)
        shape = windows, points, dim
        return (
            np.moveaxis(rates, -1, 0).reshape(shape),
            np.moveaxis(by_state, -1, 0).reshape(*shape, dim),
            np.moveaxis(by_unknown, -1, 0).reshape(*shape, by_unknown.shape[1]),
        )
