"""How a solution with delays goes from leg to leg."""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics.quadrature import all_nodes
from physml.pinn.collocation import CorrectedNetworks, Error
from physml.pinn.delays._breaks import Break, Breaks
from physml.pinn.delays._influence import Influence
from physml.pinn.delays._past import (
    JETS,
    History,
    Pieces,
    Region,
    WithPast,
    delay_of,
    history_jets,
)
from physml.pinn.events import Event, Leg, locate
from physml.pinn.ivp import solve
from physml.results import RESULTS, is_failure
from physml.solution import Solution
from physml.systems import DelayedSystem

_NEAR, _MARGIN = 1.1, 1.02  # a leg that goes farther past its end is solved again up to the second
_HALVINGS = 40  # of a leg that cannot be solved past the end of a region
_TOGETHER = 16  # roundings of the time within which two times are one
_POINTS = 30  # Gauss points of a window's fit
TERMS = 3 * _POINTS // 2 + 2  # of a window's corrected polynomial
_WINDOWS = 256  # in one leg; where they do not do, the next leg goes on


@dataclass
class Course:
    """A solution with delays on its way.

    Attributes:
        delayed, history, args, options: what is solved, and how.
        t0: where it begins.
        t, y: where it stands.
        breaks: where it is not smooth.
        influence: its errors.
        pieces, legs: what is behind it.
        crossed: the delay that has just crossed a breaking point, and its order.
    """

    delayed: DelayedSystem
    history: History
    args: PyTree
    options: dict[str, Any]
    t0: float
    t: float
    y: Float[Array, " dim"]
    breaks: Breaks
    influence: Influence
    pieces: Pieces
    legs: list[Leg] = field(default_factory=list)
    crossed: int | None = None
    jumped: WithPast | None = None  # the leg's equation before a time at which f may jump

    def __post_init__(self) -> None:
        self.bounds: dict[int, tuple[Break | None, Break | None]] = {}
        self.changing = [i for i, d in enumerate(self.delayed.delays) if callable(d)]
        self.events = tuple(
            Event(_edge(position, high), direction=1 if high else -1)
            for position in range(len(self.changing))
            for high in (False, True)
        )

    def go_on(self, t1: float) -> RESULTS | None:
        """One leg farther; returns how the course ends, if it does."""
        end, delays = self._farthest(t1)
        if end <= self.t:
            return RESULTS.delay_vanished
        system = self._system(end, delays)
        if self.jumped is not None:
            self._jump(self.jumped, system)
        solution, stop, which = self._look(system, end)
        failed = bool(is_failure(solution.result)) and not _full(solution)
        reached = float(solution.t1) if stop is None else stop
        if t1 - reached <= _TOGETHER * self._spacing(t1) and float(solution.t1) >= t1:
            reached = t1  # between which no window can be
        if reached <= self.t:
            self.legs.append(Leg(solution, self.t, np.zeros((1, self.y.size))))
            return solution.result if failed else RESULTS.delay_vanished
        short = reached - self.t <= self.slack and reached < t1
        self._end_leg(system, solution, reached)
        self.crossed, self.jumped = None, None
        order = None if which is None else self._cross(which)
        if 1 in (order, self.breaks.reach(self.t, self.slack)):
            self.jumped = system
        if failed and stop is None:
            return solution.result
        return RESULTS.delay_vanished if short else None

    @property
    def slack(self) -> float:
        """The distance of two times that are one but for rounding."""
        return _TOGETHER * self._spacing(self.t, self.t0)

    def _spacing(self, *times: float) -> float:
        """The rounding of the largest of some times, in the precision of the states."""
        return float(np.spacing(self.y.dtype.type(max(map(abs, times)))))

    def _farthest(self, t1: float) -> tuple[float, np.ndarray]:
        """Where the next leg has to end, and the delays at its start."""
        t, y = jnp.asarray(self.t, self.y.dtype), self.y
        delays = np.asarray(_delays(self.delayed, t, y, self.args), float)
        for i, delay in enumerate(delays):
            if not (np.isfinite(delay) and delay > 4 * self.slack):
                if self.legs:
                    return self.t, delays
                raise ValueError(
                    f"delays[{i}] must be positive and finite, got {delay} at t = {self.t}"
                )
        end, least = t1, float(delays.min())
        following = self.breaks.next(self.t + self.slack)
        if following < end - self.slack:
            end = following
        # Legs of even length: no delay looks at the leg itself.
        count = max(1, math.ceil((end - self.t) / least * (1 - 1e-12)))
        return (end if count == 1 else self._rounded(self.t + (end - self.t) / count)), delays

    def _rounded(self, t: float) -> float:
        return float(self.y.dtype.type(t))

    def _system(self, end: float, delays: np.ndarray) -> WithPast:
        """The equation of the leg up to `end`."""
        system = self._looking(end, delays, np.ones(len(delays)))
        if self.changing:
            t = jnp.asarray(self.t, self.y.dtype)
            forward = np.asarray(_looks_forward(system, t, self.y, self.args))
            if not forward[self.changing].all():  # another side of a breaking point
                system = self._looking(end, delays, np.where(forward, 1.0, -1.0))
        return system

    def _looking(self, end: float, delays: np.ndarray, signs: np.ndarray) -> WithPast:
        """The same, where each delay's time at the start goes forward or backward."""
        regions, needed = [], []
        for i, delay in enumerate(delays):
            changing, at = i in self.changing, self.t - delay
            rounding = 4 * _TOGETHER * self._spacing(self.t, at, delay)
            at += signs[i] * rounding if changing else (end - self.t) / 2
            region = self._region(i, at, delay)
            regions.append(region)
            if not region.from_history:
                low, high = (float(region.low), float(region.high))
                needed.append((low, high) if changing else (self.t - delay, end - delay))
        lows, highs = zip(*needed, strict=True) if needed else ([np.inf], [-np.inf])
        dim, t0 = self.y.size, jnp.asarray(self.t0, self.y.dtype)
        polynomials = self.pieces.between(min(lows), max(highs))
        names = tuple(f"y{i}" for i in range(dim))
        return WithPast(self.delayed, self.history, polynomials, tuple(regions), t0, dim, names)

    def _region(self, i: int, at: float, delay: float) -> Region:
        """The region of delay i around a time."""
        dtype = self.y.dtype
        before, after = self.bounds[i] = self.breaks.around(at)
        from_history = at < self.t0
        low = -np.inf if before is None else before.time
        high = self.t if after is None else after.time
        if from_history:  # which may jump at its ends: the values inside count
            rounding = self._spacing(0.0 if before is None else low, high, delay)
            low, high = low + rounding, high - rounding
        below = above = None
        if i in self.changing:
            jets = self._history_jets if from_history else self.pieces.jets
            below = np.zeros((JETS, self.y.size)) if np.isinf(low) else jets(low, before=False)
            below, above = (jnp.asarray(x, dtype) for x in (below, jets(high, before=True)))
        low, high = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
        return Region(low, high, jnp.asarray(from_history), below, above)

    def _history_jets(self, t: float, *, before: bool) -> Float[np.ndarray, "jets dim"]:
        del before  # t is inside the region
        return np.asarray(history_jets(self.history, jnp.asarray(t, self.y.dtype), self.y))

    def _look(self, system: WithPast, end: float) -> tuple[Solution, float | None, int | None]:
        """A leg, and where it has to stop before its end, by which event."""
        solution = self._solved(system, end)
        if not self.changing:
            return solution, None, None
        for _ in range(_HALVINGS):  # what lies behind the end of a region need not have a solution
            if not bool(is_failure(solution.result)) or _full(solution):
                break
            if self._first_stop(system, solution) is not None:
                break
            end = self._rounded(self.t + (end - self.t) / 2)
            if end - self.t <= self.slack:
                break
            solution = self._solved(system, end)
        found = self._first_stop(system, solution)
        if found is not None and float(solution.t1) - self.t > _NEAR * (found[0] - self.t):
            end = self._rounded(self.t + _MARGIN * (found[0] - self.t))
            if end - found[0] > self.slack:
                solution = self._solved(system, end)
                found = self._first_stop(system, solution)
        return (solution, None, None) if found is None else (solution, *found)

    def _first_stop(self, system: WithPast, solution: Solution) -> tuple[float, int] | None:
        """The first time at which a delay looks at an end of its region."""
        dtype = self.y.dtype
        edges = jnp.stack([system.regions[i].low for i in self.changing]
                          + [system.regions[i].high for i in self.changing])  # fmt: skip
        first = jnp.asarray([1.0, -1.0] * len(self.changing), dtype)
        delays = tuple(self.delayed.delays[i] for i in self.changing)
        given = edges.reshape(2, -1).T.reshape(-1), delays, self.args
        roots = locate(solution, self.events, given, solution.t1, first, 4)
        time = float(roots.times[0])
        return (time, int(roots.which[0])) if time < np.inf else None

    def _solved(self, system: WithPast, end: float) -> Solution:
        span = end - self.t
        if self.legs:  # that of the widest window of the last leg: a short one would have to grow
            edges = np.asarray(self.legs[-1].solution.stats["edges"])
            span = min(span, float(np.diff(edges).max()))
        with warnings.catch_warnings():  # the whole is judged in the end
            warnings.simplefilter("ignore", UserWarning)
            return solve(
                system, self.y, end, t0=self.t, ts=np.array([end]), args=self.args,
                first_span=span, num_points=_POINTS, max_windows=_WINDOWS, throw=False,
                **self.options,
            )  # fmt: skip

    def _end_leg(self, system: WithPast, solution: Solution, end: float) -> None:
        """Add a leg that ends at `end`, with the errors that it has from its past."""
        dense, error = solution.dense, solution.error
        assert isinstance(dense, CorrectedNetworks) and isinstance(error, Error)
        parts = dense.polynomials, error.signed.coefficients, error.resolution
        polynomials, signed, resolution = jax.tree.map(np.asarray, parts)
        used = max(1, int(np.sum(np.asarray(solution.stats["edges"])[:-1] < end)))
        windows = []
        for k in range(used):
            start, span = float(polynomials.starts[k]), float(polynomials.spans[k])
            terms, degree = polynomials.coefficients[k], len(polynomials.coefficients[k]) - 1
            to_nodes = np.polynomial.legendre.legvander(all_nodes(degree - 1), degree)
            windows.append((start, span, terms, np.abs(to_nodes @ signed[k]) + resolution[k]))
            self.pieces.append(start, span, terms)
        carried = self.influence.along(system, self.args, windows, end)
        self.legs.append(Leg(solution, end, carried))
        self.t, self.y = end, solution(end)

    def _cross(self, which: int) -> int | None:
        """A delay has reached the end of its region: what that makes of the solution here."""
        i = self.crossed = self.changing[which // 2]
        edge = self.bounds[i][which % 2]
        if edge is None:  # the start of the leg, which is smooth
            return None
        self.breaks.add(self.t, edge.order + 1)
        return edge.order + 1

    def _jump(self, before: WithPast, after: WithPast) -> None:
        """Let the errors pass a time at which f jumps, and which is known to rounding only."""
        t = jnp.asarray(self.t, self.y.dtype)
        old, new = (np.asarray(_rate(each, t, self.y, self.args)) for each in (before, after))
        if self.crossed is not None:
            delay, i = self.delayed.delays[self.crossed], self.crossed
            g_t, g_y = (np.asarray(x) for x in _slopes(delay, i, t, self.y, self.args))
            late = g_y / (1 - g_t - g_y @ old)  # of t - delay, which reaches the edge later
            self.influence.turn(np.eye(len(old)) + np.outer(old - new, late))
        rounding = self._spacing(self.t)
        self.influence.add(np.diag(np.abs(old - new) * rounding))


@functools.cache  # so that JAX finds what it has compiled for another solution
def _edge(position: int, high: bool) -> Callable[..., Array]:
    """How far the time at which a delay looks is behind an end of its region."""

    def behind(t: Array, y: Array, given: PyTree) -> Array:
        edges, delays, args = given
        edge = edges[2 * position + high]
        distance = t - delay_of(position, delays[position], t, y, args) - edge
        return jnp.where(jnp.isfinite(edge), distance, 1.0)

    return behind


def _full(solution: Solution) -> bool:
    return bool(solution.result == RESULTS.max_steps_reached)


@eqx.filter_jit
def _delays(delayed: DelayedSystem, t: Array, y: Array, args: PyTree) -> Float[Array, " delays"]:
    return jnp.stack([delay_of(i, d, t, y, args) for i, d in enumerate(delayed.delays)])


@eqx.filter_jit
def _rate(system: WithPast, t: Array, y: Array, args: PyTree) -> Float[Array, " dim"]:
    return system(t, y, args)


@eqx.filter_jit
def _slopes(delay: Any, i: int, t: Array, y: Array, args: PyTree) -> tuple[Array, Array]:
    return jax.grad(lambda t, y: delay_of(i, delay, t, y, args), argnums=(0, 1))(t, y)


@eqx.filter_jit
def _looks_forward(system: WithPast, t: Array, y: Array, args: PyTree) -> Bool[Array, " delays"]:
    """Whether the times at which the delays look grow."""
    rate = system(t, y, args)
    return (
        jax.jvp(lambda t, y: system.sees(t, y, args)[0], (t, y), (jnp.ones_like(t), rate))[1] >= 0
    )
