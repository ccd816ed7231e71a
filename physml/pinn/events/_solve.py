"""Solutions that begin anew where something happens."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree, Shaped

from physml._numerics import checks
from physml._numerics.calls import (
    as_traced,
    check_components,
    checked,
    reads_traced,
    require_instance,
    summary,
    with_arrays,
)
from physml._numerics.interrupt import ctrl_c
from physml._types import Numbers
from physml.pinn.events._course import Course, Happened
from physml.pinn.events._event import Event, restarted, value
from physml.pinn.events._legs import join
from physml.results import RESULTS, conclude
from physml.solution import Solution, as_written
from physml.systems import System, flatten_problem
from physml.systems.states import is_backwards

_TRACED = "{}: pinn.solve and pinn.find_roots may be, and give derivatives"


class EventSolution(eqx.Module):
    """A solution, and what happened on its way.

    Attributes:
        solution: the whole solution; at the time of an event it has the state after it.
        times: of the events, in their order.
        which: the number of each event in the sequence that was given.
        before, after: the states at each event, written as the start was.
        time_errors: how far each time may be off, as estimated.
    """

    solution: Solution
    times: Float[Array, " happened"]
    which: Int[Array, " happened"]
    before: PyTree[Shaped[Array, "..."]]
    after: PyTree[Shaped[Array, "..."]]
    time_errors: Float[Array, " happened"]

    def __call__(self, t: Numbers) -> PyTree[Shaped[Array, "..."]]:
        """u(t), see `Solution`."""
        return self.solution(t)

    def __repr__(self) -> str:
        if not isinstance(self.times, jax.Array):  # a tree of something else
            return super().__repr__()
        facts = {
            "times": f"{len(self.times)} events",
            "solution": f"from t = {self.solution.t0} to {self.solution.t1}",
            "result": RESULTS[self.solution.result],
        }
        return summary("EventSolution", facts)


@checked
def solve_events(
    system: System | Callable[..., Any],
    y0: PyTree,
    t1: float,
    events: Event | Sequence[Event],
    *,
    t0: float = 0.0,
    ts: Numbers | None = None,
    args: PyTree = None,
    rtol: float | PyTree | None = None,
    atol: float | PyTree | None = None,
    max_window: float | None = None,
    max_events: int = 10_000,
    throw: bool = True,
) -> EventSolution:
    """Solve as `pinn.solve`, and look for events on the way: roots of functions of t and y.

    From each event that has a restart the solution goes on from another state: a ball that bounces,
    a neuron that fires, a body that sticks. Events are located to rounding on the solution in
    continuous time, as by `pinn.find_roots`; events that happen at once happen in their order in
    `events`. An event at `t1` counts, one at `t0` does not, nor does zero that is only approached.

    The error is carried through the events: one of the state before moves the time of the event,
    and both change the state after. `solution.error_estimate` and `time_errors` say so. Close to an
    event, as close as its time is known, the solution may be off by the whole restart.

    A mode, such as sticking and slipping, can be one more component of the state whose derivative
    is zero, which restarts set, and by which the right-hand side chooses with `jnp.where`.

    Args:
        system, y0, t1, t0, args, rtol, atol, max_window: see `pinn.solve`. Functions of events see
            states as y0 is written.
        events: what to look for. Where time runs backwards, events happen in the order of the way,
            and their direction is that along the way.
        ts: times from t0 to t1 at which `solution.ys` is wanted; 1001 evenly spaced ones
            unless given. Rows after a terminal event are NaN.
        max_events: the number of events with a restart after which to stop.
        throw: raise if the solution stops before `t1` without a terminal event; otherwise
            `solution.result` says why.

    Returns:
        An `EventSolution`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision; y0 and args
            must not be traced by JAX.
        RuntimeError: the solution stopped early. Where events follow each other ever faster, as the
            bounces of a ball that comes to rest, the message says so; and where the function of an
            event is noise, or varies too fast to be followed.

    Example:
        >>> fall = systems.from_function(lambda t, y, args: jnp.array([y[1], -9.81]), dim=2)
        >>> floor = pinn.Event(lambda t, y, args: y[0], lambda t, y, args: y * jnp.array([0, -0.9]))
        >>> ball = pinn.solve_events(fall, jnp.array([1.0, 0.0]), 3.0, floor)
        >>> print(ball.times.round(6))
        [0.451524 1.264266 1.995734 2.654056]
    """
    backwards = is_backwards(t0, t1)
    flat = flatten_problem(system, y0, args, t0=t0, backwards=backwards)
    system, y, form, _ = flat
    t0, t1 = checks.check_interval(form.time(t0), form.time(t1))
    if not all(checks.is_concrete(x) for x in jax.tree.leaves((system, y, args))):
        raise TypeError(_TRACED.format("y0, args and system must not be traced"))
    ts = checks.check_times(form.times(ts), t0, t1, y.dtype)
    checks.require_count(max_events=max_events)
    events = (events,) if isinstance(events, Event) else tuple(events)
    checks.require_not_empty(events=events)
    require_instance(Event, **{f"events[{i}]": event for i, event in enumerate(events)})
    t, seen = jnp.asarray(t0, y.dtype), [event.seen_by(form) for event in events]
    events, args = with_arrays(
        lambda args: tuple(_tried(event, t, y, args) for event in seen), args, flat.args
    )
    rtol, atol = form.tolerances(rtol, atol, y.size)
    options = {"rtol": rtol, "atol": atol, "max_window": max_window}
    course = Course(system, events, args, options, t0, t0, y, t1 - t0, np.zeros((y.size, 0)))
    result = None
    with ctrl_c() as interrupted:
        while result is None and course.t < t1:
            result = course.go_on(t1)
            if interrupted():
                result = RESULTS.interrupted
            elif result is None and course.restarts >= max_events and course.t < t1:
                result = RESULTS.max_steps_reached
    solution = join(course.legs, ts, RESULTS.successful if result is None else result)
    times, which, before, after, late = _columns(course.happened, y)
    before, after = form.state(before), form.state(after)
    solution = as_written(solution, form)
    found = EventSolution(solution, form.time(times), which, before, after, late)
    details = (
        f"The solution has reached t = {form.time(course.t)} of t1 = {form.time(t1)} after "
        f"{len(found.times)} events, {course.restarts} of them with a restart."
    )
    if not np.isfinite(course.y).all():
        details += f" The last restart has returned {np.asarray(course.y)}."
    return conclude(found, solution.result, "pinn.solve_events", details, throw=throw)


def _tried(event: Event, t: Array, y: Array, args: PyTree) -> Event:
    """The event; what is wrong with a user's functions is raised before anything is solved."""
    traced = [
        check_components(name, Partial(_at, function, event, args), t=t, y=y)
        for name, function in (("root", value), ("restart", restarted))
    ]
    if any(map(reads_traced, traced)):
        raise TypeError(_TRACED.format("root and restart must not read traced numbers"))
    if np.isnan(value(event, t, y, args)):
        raise ValueError("root must be a number at t0, got nan")
    root, restart = (as_traced(function, *traced) for function in (event.root, event.restart))
    return dataclasses.replace(event, root=root, restart=restart)


def _at(function: Callable, event: Event, args: PyTree, t: Array, y: Array) -> Array:
    return function(event, t, y, args)


def _columns(happened: list[Happened], like: Array) -> tuple[Array, Array, Array, Array, Array]:
    """The fields of an `EventSolution`."""
    times, which, before, after, late = zip(*happened, strict=True) if happened else [()] * 5
    dtype, shape = like.dtype, (len(happened), like.size)
    ahead, behind = (jnp.asarray(np.reshape(rows, shape), dtype) for rows in (before, after))
    numbers = jnp.asarray(which, int)
    return jnp.asarray(times, dtype), numbers, ahead, behind, jnp.asarray(late, dtype)
