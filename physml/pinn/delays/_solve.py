"""Equations with delays, solved by steps."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from physml._numerics import checks
from physml._numerics.calls import checked, require_instance
from physml._numerics.compiled import constant
from physml._numerics.interrupt import ctrl_c
from physml._types import Numbers
from physml.pinn.delays._breaks import Breaks
from physml.pinn.delays._course import TERMS, Course
from physml.pinn.delays._influence import Influence
from physml.pinn.delays._past import History, Pieces, as_history
from physml.pinn.events import join
from physml.results import RESULTS, conclude
from physml.solution import Solution
from physml.systems import DelayedSystem


@checked
def solve_delays(
    system: DelayedSystem,
    history: object,
    t1: float,
    *,
    t0: float = 0.0,
    y0: Numbers | None = None,
    ts: Numbers | None = None,
    args: PyTree = None,
    history_jumps: Sequence[float] = (),
    rtol: float | None = None,
    atol: float | None = None,
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
        history: the states before `t0`: a function history(t) that JAX traces, a constant state of
            shape (dim,), or an earlier `Solution`, which is so continued. A solution must be known
            from where the delays first look up to `t0`.
        t1, ts, args, rtol, atol, max_window: see `pinn.solve`.
        t0: where the solution begins.
        y0: the state at `t0`, if it is not history(t0).
        history_jumps: times before `t0` at which the history or its slope jumps. Others are found,
            at the cost of narrow windows.
        max_legs: the number of legs after which to stop.
        throw: raise if the solution stops before `t1`; otherwise `solution.result` says why.

    Returns:
        A `Solution` from `t0` to `t1`; `stats["breaks"]` are the breaking points that were kept.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision; a delay that
            is not positive at `t0`; a history that is not known as far back as constant delays
            look; arguments that are traced by JAX.
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
    fixed = [float(delay) for delay in system.delays if not callable(delay)]
    past, y = _start(history, y0, t0, max(fixed, default=0.0))
    checks.require_untraced("pinn.solve_delays", (past, y))
    ts = checks.check_times(ts, t0, t1, y.dtype)
    checks.require_count(max_legs=max_legs)
    jumps = sorted(float(time) for time in history_jumps)
    if jumps and not (np.isfinite(jumps).all() and jumps[-1] < t0):
        raise ValueError(f"history_jumps must be finite and before t0 = {t0}, got {jumps}")
    system = jax.tree.map(lambda x: constant(x) if isinstance(x, float) else x, system)
    breaks = Breaks(fixed)
    for time in (*jumps, t0):
        breaks.add(time, 0)
    memory = max(fixed) if len(fixed) == len(system.delays) else np.inf
    earlier = history if isinstance(history, Solution) and history.error is not None else None
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
    kept = jnp.asarray(breaks.times, y.dtype)
    solution = eqx.tree_at(lambda s: s.stats, solution, solution.stats | {"breaks": kept})
    details = f"The solution has reached t = {course.t} of t1 = {t1} in {len(course.legs)} legs."
    return conclude(solution, solution.result, "pinn.solve_delays", details, throw=throw)


def _start(history: object, y0: Numbers | None, t0: float, delay: float) -> tuple[History, Array]:
    """The history as a function, known as far back as a delay, and the state at t0."""
    past = as_history(history)
    if past.ends is not None and not np.all(past.is_known(jnp.array([t0 - delay, t0]))):
        low, high = map(float, past.ends)
        raise ValueError(
            f"history must be known from t = {t0 - delay} to t0 = {t0}, got a solution from {low} "
            f"to {high}"
        )
    like = None if y0 is None else checks.floating_array("y0", y0)
    if past.constant is not None:
        like = past.constant if like is None else like
    elif like is None:
        dtype = history.ys.dtype if isinstance(history, Solution) else jnp.zeros(()).dtype
        like = past.at(jnp.asarray(t0, dtype))
    if like.ndim != 1 or like.size == 0:
        name = "history" if y0 is None else "y0"
        raise ValueError(f"{name} must be a state of shape (dim,), got shape {like.shape}")
    checks.require_finite("history" if y0 is None else "y0", like)
    past(jnp.asarray(t0, like.dtype), like.shape, like.dtype)  # raises what is wrong with it
    return past, like
