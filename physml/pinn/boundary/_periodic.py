"""Periodic orbits: a boundary value problem whose length may be unknown."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml import reference
from physml._numerics import checks
from physml._numerics.calls import checked
from physml._types import Numbers
from physml.pinn.boundary._infinite import Ends
from physml.pinn.boundary._mesh import Settings
from physml.pinn.boundary._problem import Guess, as_guess, take_apart_guess
from physml.pinn.boundary._run import Task, check_settings, run, state_problem
from physml.pinn.boundary._solution import BoundarySolution
from physml.systems import System
from physml.systems.states import Form

_STATES = 400  # in a period of the guess, where it is looked at
_PERIODS = 2.4  # that a state runs for
_LAGS = (0.8, 1.25)  # the range of periods, in units of the given one


class _Closed(eqx.Module):
    """The conditions of a periodic orbit: it ends where it starts."""

    def __call__(self, y0: Float[Array, " dim"], y1: Float[Array, " dim"]) -> Array:
        return y1 - y0


class _ClosedAndFixed(eqx.Module):
    """The same, and it starts on a plane, because every shift in time of an orbit is an orbit.

    Attributes:
        point: on the plane.
        normal: of the plane.
    """

    point: Float[Array, " dim"]
    normal: Float[Array, " dim"]

    def __call__(self, y0: Float[Array, " dim"], y1: Float[Array, " dim"]) -> Array:
        return jnp.append(y1 - y0, self.normal @ (y0 - self.point))


@checked
def periodic_orbit(
    system: System | Callable[..., Any],
    guess: PyTree | Callable[[Array], PyTree],
    period: float,
    *,
    t0: float = 0.0,
    ts: Numbers | None = None,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    num_points: int = 20,
    max_windows: int = 1024,
    max_steps: int = 50,
    throw: bool = True,
) -> BoundarySolution:
    r"""A periodic solution of $dy/dt = f(t, y)$ near a guess, stable or not, and its period.

    It is solved as by `solve_boundary`, with $y(t_0 + T) = y(t_0)$. Where f does not depend on the
    time, the period T is unknown, and the orbit starts on the plane through the guess's start that
    the guess crosses there at a right angle. Where it does, the period is the given one, a multiple
    of the driving force's.

    Args:
        system: the right-hand side: a system, or a function `f(t, y, args)` or `f(t, y)`.
        guess: a state near the orbit, from which the system runs, and the part of its trajectory
            that nearly closes is the guess; or states at even times from t0 to t0 + period, shape
            (times, dim); or a function of the time, such as a solution that has come near the
            orbit.
        period: the period, or a guess of it, to 20 % where a state is given.
        t0: the first time.
        ts: increasing times in the first period at which `solution.ys` is wanted.
        args, rtol, atol, num_points, max_windows, max_steps, throw: as for `solve_boundary`.

    Returns:
        A `BoundarySolution` over one period, with `period`, `period_error` and the Floquet
        `multipliers`: the orbit is stable where all of them, but the one that is 1, are smaller
        than 1. The error of the solution at a time includes that of the period.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape or precision.
        RuntimeError: no orbit was found; the message says why.

    Example:
        >>> orbit = pinn.periodic_orbit(systems.VanDerPol(mu=1.0), jnp.array([2.0, 0.0]), 6.6)
        >>> print(f"{orbit.period:.10f}")
        6.6632868593
    """
    checks.require_positive(period=period)
    checks.require_finite("t0", t0)
    t0, period = float(t0), float(period)
    if guess is None:
        raise TypeError("guess must be given, got None")
    system, guess, structure = take_apart_guess(system, guess, t0)
    start, dtype = as_guess(guess, system.dim, (t0, t0 + period))
    settings = check_settings(rtol, atol, num_points, max_windows, max_steps, dtype)
    if not callable(guess) and np.ndim(guess) == 1:
        states, period = _recurrence(system, args, start(np.asarray(t0)), t0, period)
        start, _ = as_guess(states, system.dim, (t0, t0 + period))
    task = _task(system, args, start, (t0, period), dtype, settings)
    task = task._replace(form=Form(structure))
    return run(task, ts, "pinn.periodic_orbit", throw=throw)


def _recurrence(
    system: System, args: PyTree, y0: Float[np.ndarray, " dim"], t0: float, period: float
) -> tuple[Float[np.ndarray, "times dim"], float]:
    """A period of the trajectory from y0: the states at even times, and its length.

    Where f does not depend on the time, it is the part of about the given length that comes nearest
    to where it began. Else it is the second period.
    """
    times = t0 + period * np.linspace(0.0, _PERIODS, int(_STATES * _PERIODS) + 1)
    found = reference.solve(system, y0, times, t0=t0, args=args).ys
    checks.require_untraced("pinn.periodic_orbit", found)
    states = np.asarray(found)
    if not system.autonomous:
        return states[_STATES : 2 * _STATES + 1], period
    scaled = states / np.maximum(np.max(np.abs(states), axis=0), np.finfo(states.dtype).tiny)
    first, lags = np.arange(_STATES), np.arange(*(int(_STATES * x) for x in _LAGS))
    distance = np.linalg.norm(scaled[first[:, None] + lags] - scaled[first][:, None], axis=2)
    begin, lag = np.unravel_index(np.argmin(distance), distance.shape)
    return states[begin : begin + lags[lag] + 1], float(period * lags[lag] / _STATES)


def _task(
    system: System,
    args: PyTree,
    start: Guess,
    first: tuple[float, float],
    dtype: np.dtype,
    settings: Settings,
) -> Task:
    """The orbit as a boundary value problem; `first` is the first time and the period."""
    t0, period = first
    equation, given = (system, args, ()), (start, t0, dtype)
    if not system.autonomous:
        problem, unknown = state_problem(equation, _Closed(), given, num_states=2)
        ends = Ends(t0, t0 + period)
        return Task(problem, start, unknown, ends, np.array([ends.t0, ends.t1]), settings, period)
    states = start(np.linspace(t0, t0 + period, _STATES))
    size = np.max(np.abs(states), axis=0)
    at = jnp.asarray(states[0])
    with_args = getattr(system, "args", None) if args is None else args
    rates = np.asarray(system(jnp.asarray(t0, dtype), at, with_args))
    normal = rates / np.where(size > 0, size, 1.0) ** 2
    conditions = _ClosedAndFixed(at, jnp.asarray(normal))
    problem, unknown = state_problem(equation, conditions, given, num_states=2, period=period)
    unit, even = Ends(0.0, 1.0), np.array([0.0, 1.0])
    return Task(problem, lambda s: start(t0 + period * s), unknown, unit, even, settings, period)
