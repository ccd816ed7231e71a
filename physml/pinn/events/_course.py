"""How a solution goes from event to event."""

import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml.pinn.events._event import Event, cross, signs
from physml.pinn.events._legs import Leg, end_leg
from physml.pinn.events._roots import locate
from physml.pinn.ivp import solve
from physml.results import RESULTS, is_failure
from physml.solution import Solution
from physml.systems import System

_FAR = 4.0  # how much farther than an event a leg may look without harm
_AT_A_TIME = 32  # roots that are located together
_AHEAD = 3.0  # the next event is looked for as many times as far as the last one was
_CLOSER = 100.0  # how much shorter the next leg is where events may have been missed
_SHORTEST = 1e-6  # of the whole way, below which that is given up
_TOGETHER = 16  # roundings of the time within which events happen at once


class Happened(NamedTuple):
    """An event that has happened."""

    time: float
    which: int
    before: Float[np.ndarray, " dim"]
    after: Float[np.ndarray, " dim"]
    time_error: float


class _Looked(NamedTuple):
    """A leg.

    Attributes:
        solution: the leg itself.
        found: the events on it, by their times.
        cut: whether there are more of them.
        missed: whether some may be missing among them.
    """

    solution: Solution
    found: list[tuple[float, int]]
    cut: bool
    missed: bool


@dataclass
class Course:
    """A solution on its way.

    Attributes:
        system, events, args, options: what is solved, and how.
        t0: where it begins.
        t, y: where it stands.
        ahead: how far the next leg looks.
        errors: small changes of y, a column for each cause.
        legs, happened: what is behind it.
        restarts: how many of the events had a restart.
        restarted: when the last one of these was.
        touched: the events that have just happened, whose functions are zero but for rounding.
    """

    system: System
    events: tuple[Event, ...]
    args: PyTree
    options: dict[str, Any]
    t0: float
    t: float
    y: Float[Array, " dim"]
    ahead: float
    errors: Float[np.ndarray, "dim columns"]
    legs: list[Leg] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    restarts: int = 0
    restarted: float = -np.inf
    touched: tuple[int, ...] = ()

    def go_on(self, t1: float) -> RESULTS | None:
        """One leg farther; returns how the course ends, if it does."""
        if self.t + self.ahead <= self._late(self.t):
            return RESULTS.accumulated
        solution, found, cut, missed = self._look(min(t1, self.t + self.ahead))
        stop = self._first_stop(found)
        if stop is not None and float(solution.t1) - self.t > _FAR * (stop - self.t):
            # What comes far behind the event may be large, and its digits are those of the window.
            solution, found, cut, missed = self._look(min(t1, self.t + 2 * (stop - self.t)))
            stop = self._first_stop(found)
        if missed and self.ahead > _SHORTEST * (t1 - self.t0):
            self.ahead = float(solution.t1 - self.t) / _CLOSER
            return None
        if missed:
            self._end_leg(solution, float(solution.t1), [])
            return RESULTS.roots_missed
        if stop is None:
            self._end_leg(solution, found[-1][0] if cut else float(solution.t1), found)
            self.touched = (found[-1][1],) if cut else ()
            self.ahead *= _AHEAD
            return solution.result if not cut and bool(is_failure(solution.result)) else None
        late = self._late(stop)
        at_once = [(t, e) for t, e in found if stop <= t <= late]
        self._end_leg(solution, stop, [(t, e) for t, e in found if t < stop])
        for _, which in sorted(at_once, key=lambda pair: pair[1]):
            self._cross(which)
        if not np.isfinite(self.y).all():  # what a restart has made of it
            return RESULTS.nonfinite
        self.touched = tuple(which for _, which in at_once)
        self.ahead = _AHEAD * (stop - max(self.restarted, self.t0))
        if any(self.events[which].terminal for which in self.touched):
            return RESULTS.successful
        short = stop - self.restarted <= late - stop
        self.restarted = stop
        return RESULTS.accumulated if short else None

    def _look(self, end: float) -> "_Looked":
        solution = self._solved(end)
        roots = locate(solution, self.events, self.args, solution.t1, self._signs(), _AT_A_TIME)
        missed = bool(jax.tree.map(np.asarray, roots.result) == RESULTS.roots_missed)
        times = np.asarray(roots.times, float)
        found = [(float(t), int(e)) for t, e in zip(times, roots.which, strict=True) if t < np.inf]
        return _Looked(solution, found, int(roots.count) > len(found), missed)

    def _late(self, t: float) -> float:
        """Until when something happens at once with what happens at t."""
        return t + _TOGETHER * _spacing(t, self.y)

    def _first_stop(self, found: list[tuple[float, int]]) -> float | None:
        return next((t for t, which in found if self.events[which].stops), None)

    def _solved(self, end: float) -> Solution:
        with warnings.catch_warnings():  # the whole is judged in the end
            warnings.simplefilter("ignore", UserWarning)
            return solve(
                self.system, self.y, end, t0=self.t, ts=np.array([end]), args=self.args,
                first_span=self.first_span, throw=False, **self.options,
            )  # fmt: skip

    @property
    def first_span(self) -> float | None:
        """That of the widest window of the last leg: a short one would have to grow first."""
        if not self.legs:
            return None
        edges: np.ndarray = np.asarray(self.legs[-1].solution.stats["edges"])
        return float(np.diff(edges).max())

    def _signs(self) -> Float[Array, " events"]:
        """The sign of each function right after the start, where its value there is rounding."""
        t = jnp.asarray(self.t, self.y.dtype)
        touched = np.isin(np.arange(len(self.events)), self.touched)
        at = jnp.asarray(touched, self.y.dtype)
        return signs(self.events, self.system, t, self.y, self.args, at)

    def _end_leg(self, solution: Solution, end: float, passed: list[tuple[float, int]]) -> None:
        """Add a leg that ends at `end`, and the events that changed nothing on its way."""
        begun = self.errors
        leg, self.errors = end_leg(self.system, self.args, solution, end, begun)
        own = np.asarray(solution.error_estimate(end))
        self.legs.append(leg)
        self.errors = np.concatenate([self.errors, np.diag(own)], axis=1)
        for time, which in passed:
            y = solution(time)
            crossing = cross(
                self.events[which], self.system, jnp.asarray(time, y.dtype), y, self.args
            )
            now = np.asarray(solution.error_estimate(time)) + leg.carried.max(axis=0)
            late = float(np.abs(np.asarray(crossing.delays)) @ now + crossing.rounding)
            late += _spacing(time, y)
            self.happened.append(Happened(time, which, np.asarray(y), np.asarray(y), late))
        self.t, self.y = end, solution(end)

    def _cross(self, which: int) -> None:
        """Let an event happen."""
        event, t = self.events[which], jnp.asarray(self.t, self.y.dtype)
        crossing = cross(event, self.system, t, self.y, self.args)
        rounding = float(crossing.rounding)
        late = float(np.sum(np.abs(np.asarray(crossing.delays) @ self.errors))) + rounding
        late += _spacing(self.t, self.y)
        after = np.asarray(crossing.after)
        self.happened.append(Happened(self.t, which, np.asarray(self.y), after, late))
        if event.restart is not None:
            jolt = np.asarray(crossing.jolt)[:, None] * rounding
            moved = np.asarray(crossing.errors) @ self.errors
            self.errors = np.concatenate([moved, jolt], axis=1)
            self.y = crossing.after
            self.restarts += 1


def _spacing(t: float, y: Float[Array, " dim"]) -> float:
    """The rounding of a time in the precision of the states."""
    return float(np.finfo(np.asarray(y).dtype).eps) * abs(t)
