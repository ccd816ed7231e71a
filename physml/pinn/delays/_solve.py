"""Equations with delays, solved by steps."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from physml._numerics import checks
from physml._numerics.calls import (
    answer,
    as_traced,
    ask,
    check_components,
    checked,
    require_instance,
    trace,
    with_arrays,
)
from physml._numerics.compiled import constant
from physml._numerics.interrupt import ctrl_c
from physml._types import Numbers
from physml.pinn.delays._breaks import Breaks
from physml.pinn.delays._course import TERMS, Course
from physml.pinn.delays._influence import Influence
from physml.pinn.delays._past import History, Pieces, as_history, delay_of
from physml.pinn.events import join
from physml.results import RESULTS, conclude
from physml.solution import Solution, as_written, in_vectors
from physml.systems import DelayedSystem
from physml.systems.states import Form, take_apart_state
from physml.systems.with_delays import FunctionDelayedSystem


@checked
def solve_delays(
    system: DelayedSystem,
    history: PyTree,
    t1: float,
    *,
    t0: float = 0.0,
    y0: PyTree = None,
    ts: Numbers | None = None,
    args: PyTree = None,
    history_jumps: Sequence[float] = (),
    rtol: float | PyTree | None = None,
    atol: float | PyTree | None = None,
    max_window: float | None = None,
    max_legs: int = 10_000,
    throw: bool = True,
) -> Solution:
    r"""Solve an equation with delays, by steps: each leg is an equation whose past is known.

    $$\dot y(t) = f(t, y(t), y(t - \tau_1), y(t - \tau_2), \dots), \qquad y(t) = h(t), \; t < t_0$$

    A leg is solved as by `pinn.solve`, and is no longer than the smallest delay. Where the history
    meets the solution a derivative jumps, and each time a delay looks there a higher one does: legs
    end at these breaking points, the sums of constant delays, and the roots of
    $t - \tau(t, y) = \xi$ for delays that depend on the state, which are located to rounding. One
    program serves all legs.

    `error_estimate` has the errors of each leg carried along the linearised equation with delays,
    so that what comes later has those that it sees in its past; causes of unknown sign are added
    by their absolute values. The history is taken as exact, unless it is a solution with an
    estimate of its own.

    Equations whose right-hand side takes delayed derivatives (neutral ones) are not of this kind.
    Nor may a delay become zero; one that is very small costs a leg for each of its lengths.

    It runs on the host, with compiled calls for the legs: it cannot be used in `jax.jit`,
    `jax.grad` or `jax.vmap`. Call it once for each value; a derivative is a difference of two
    solutions.

    Args:
        system: the right-hand side and its delays, see `systems.delayed`.
        history: the states before `t0`: a function history(t) that JAX traces, a constant state, or
            an earlier `Solution`, which is so continued: it must be known up to `t0`, and as far
            back as a delay looks. A state has the shape (dim,), or it is a number, a dict, a tuple,
            a named tuple or an array of any shape, nested in any way, of real or complex numbers;
            then f sees such states, see `systems.delayed`.
        t1, ts, args, rtol, atol, max_window: see `pinn.solve`.
        t0: where the solution begins.
        y0: the state at `t0`, if it is not history(t0).
        history_jumps: times before `t0` at which the history or its slope jumps. Others are found,
            at the cost of narrow windows. Those of an earlier solution with delays are known.
        max_legs: the number of legs after which to stop.
        throw: raise if the solution stops before `t1`; otherwise `solution.result` says why.

    Returns:
        A `Solution` from `t0` to `t1`; `stats["breaks"]` are the breaking points that were kept,
        and `stats["break_orders"]` the orders of the derivatives that jump there.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision; a delay that
            is not positive at `t0`; an earlier solution that is too short; arguments that are
            traced by JAX.
        RuntimeError: the solution stopped early.

    Source: A. Bellen, M. Zennaro, Numerical Methods for Delay Differential Equations (Oxford 2003),
    chapter 3, for the method of steps.

    Example:
        >>> decay = systems.delayed(lambda t, y, past, args: -past[0], 1.0)
        >>> solution = pinn.solve_delays(decay, jnp.ones(1), t1=2.0)
        >>> print(solution(jnp.array([0.5, 2.0]))[:, 0].round(12))  # 1 - t, then + (t - 1)^2 / 2
        [ 0.5 -0.5]
    """
    require_instance(DelayedSystem, system=system)
    t0, t1 = checks.check_interval(t0, t1)
    args = getattr(system, "args", None) if args is None else args
    checks.require_untraced("pinn.solve_delays", (system, history, y0, args))
    system, past, y, form = _start(system, history, y0, t0)
    checks.require_untraced("pinn.solve_delays", (past, y))
    rtol, atol = form.tolerances(rtol, atol, y.size)
    ts = checks.check_times(ts, t0, t1, y.dtype)
    checks.require_count(max_legs=max_legs)
    jumps = sorted(float(time) for time in history_jumps)
    if jumps and not (np.isfinite(jumps).all() and jumps[-1] < t0):
        raise ValueError(f"history_jumps must be finite and before t0 = {t0}, got {jumps}")
    fixed = [float(delay) for delay in system.delays if not callable(delay)]
    system = jax.tree.map(lambda x: constant(x) if isinstance(x, float) else x, system)
    t = jnp.asarray(t0, y.dtype)
    system, args = with_arrays(lambda args: _checked_functions(system, t, y, args), args)
    if isinstance(history, Solution):
        _require_known(history, system, t0, y, args)
    breaks = Breaks(fixed)
    for time in (*jumps, t0):
        breaks.add(time, 0)
    for time, order in _breaks_of(history):
        if time < t0:
            breaks.add(time, order)
    memory = max(fixed) if len(fixed) == len(system.delays) else np.inf
    earlier = None
    if isinstance(history, Solution) and history.error is not None:
        earlier = in_vectors(history)
    influence = Influence(y.size, memory, earlier, t0 if y0 is None else None)
    course = Course(
        system, past, args, {"rtol": rtol, "atol": atol, "max_window": max_window}, t0, t0, y,
        breaks, influence, Pieces((TERMS, y.size), y.dtype),
    )  # fmt: skip
    result = None
    with ctrl_c() as interrupted:
        while result is None and course.t < t1:
            result = course.go_on(t1)
            if interrupted():
                result = RESULTS.interrupted
            elif result is None and len(course.legs) >= max_legs and course.t < t1:
                result = RESULTS.max_steps_reached
    result = RESULTS.successful if result is None else result
    solution = join(course.legs, ts, result)
    kept = {
        "breaks": jnp.asarray(breaks.times, y.dtype),
        "break_orders": jnp.asarray(breaks.orders),
    }
    solution = eqx.tree_at(lambda s: s.stats, solution, solution.stats | kept)
    solution = as_written(solution, form)
    details = f"The solution has reached t = {course.t} of t1 = {t1} in {len(course.legs)} legs."
    return conclude(solution, solution.result, "pinn.solve_delays", details, throw=throw)


def _checked_functions(system: DelayedSystem, t: Array, y: Array, args: PyTree) -> DelayedSystem:
    """The system; what is wrong with a user's functions is raised before anything is solved."""
    traced = []
    for i, delay in enumerate(system.delays):
        own = Partial(delay_of, i, delay, args=args)
        traced.append(check_components(f"delays[{i}]", own, t=t, y=y))
    past = jnp.broadcast_to(y, (len(system.delays), y.size))
    traced.append(check_components("f", Partial(_rate, system, args), t=t, y=y, delayed_ys=past))
    checks.require_untraced("pinn.solve_delays", [each.closed.consts for each in traced])
    return as_traced(system, *traced)


def _rate(system: DelayedSystem, args: PyTree, t: Array, y: Array, past: Array) -> Array:
    return system.rate(t, y, past, args)


def _breaks_of(history: PyTree) -> list[tuple[float, int]]:
    """Where an earlier solution with delays is not smooth, and which derivative jumps there."""
    stats = history.stats if isinstance(history, Solution) else {}
    if "break_orders" not in stats:
        return []
    times, orders = (np.asarray(stats[name]).tolist() for name in ("breaks", "break_orders"))
    return list(zip(times, orders, strict=True))


def _require_known(
    history: Solution, system: DelayedSystem, t0: float, y: Array, args: PyTree
) -> None:
    """Raise ValueError where an earlier solution does not have what is seen at the start."""
    low, high = sorted((float(history.t0), float(history.t1)))
    at = jnp.asarray(t0, y.dtype)
    for i, delay in enumerate(system.delays):
        seen = t0 - float(delay_of(i, delay, at, y, args))
        if seen < low - float(np.finfo(y.dtype).eps) * (abs(seen) + abs(t0)):
            raise ValueError(
                f"history must be known from t = {seen} on, where delays[{i}] looks from t0, got a "
                f"solution from t = {low} to {high}"
            )


def _start(
    system: DelayedSystem, history: PyTree, y0: PyTree, t0: float
) -> tuple[DelayedSystem, History, Array, Form]:
    """The system and the history of vectors, the state at t0, and how the user writes states."""
    name, given = ("history", history) if y0 is None else ("y0", y0)
    if isinstance(history, Solution):
        known = sorted((float(history.t0), float(history.t1)))
        if not known[0] <= t0 <= known[1]:
            raise ValueError(f"t0 must lie in {known}, where the history is known, got {t0}")
        given = history(t0) if y0 is None else y0
    elif y0 is None and callable(history):
        at = jnp.asarray(t0, jnp.zeros(()).dtype)
        given = ask("history", "history(t)", history, at)
        if given is None:
            answer("history", "a state", given)
    structure, y = take_apart_state(name, given)
    form = Form(None if structure.is_vector else structure)
    if form.structure is not None:
        if not isinstance(system, FunctionDelayedSystem):
            raise ValueError(f"{name} must be a state of shape (dim,), got {structure.words}")
        system = system.of(structure)
    past = as_history(history, structure, y.dtype)
    t = jnp.asarray(t0, y.dtype)
    past(t, y.shape, y.dtype)  # raises what is wrong with it
    traced, _ = trace(Partial(_seen, past, y), t)
    return system, as_traced(past, traced), y, form


def _seen(past: History, like: Array, t: Array) -> Array:
    return past(t, like.shape, like.dtype)
