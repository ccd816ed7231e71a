"""One accurate solution of an initial value problem, by Diffrax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import check_tolerances, is_concrete, require_count, times_in
from physml._numerics.compiled import watched
from physml._numerics.quadrature import piece_at
from physml._types import Numbers
from physml.reference._certificate import certificate
from physml.reference._method import Method, StopAtRoundoff
from physml.results import RESULTS, conclude
from physml.solution import Dense, Solution, as_written
from physml.systems import System, flatten_problem

# In float64 and float32: what the method reaches before round-off dominates.
_DEFAULT_RTOL, _DEFAULT_STIFF_RTOL = (1e-13, 3e-6), (1e-10, 1e-5)


@checked
def solve(
    system: System | Callable[..., Any],
    y0: PyTree,
    ts: Numbers,
    *,
    t0: Numbers | None = None,
    args: PyTree = None,
    rtol: float | PyTree | None = None,
    atol: float | PyTree | None = None,
    stiff: bool = False,
    certify: bool = False,
    max_steps: int = 65536,
    throw: bool = True,
) -> Solution:
    r"""The solution of $dy/dt = f(t, y), y(t_0) = y_0$ to nearly the precision of the dtype.

    Dormand and Prince's method of order 8 (stiff: Kvaerno's of order 5) keeps the local error
    below `rtol` times the size of each component. The solver steps exactly to every time in `ts`
    and to every jump of the right-hand side, and `solution(t)` takes one step from the solver's
    own last step before t: nothing is interpolated.

    With `certify=False` it can be called under `jax.jit`, `jax.vmap` and `jax.grad`; `ts` must
    not be traced if the system depends on time. Each solution then keeps buffers of `max_steps`
    states.

    Args:
        system: the right-hand side: a system, or a function `f(t, y, args)` or `f(t, y)`.
        y0: the state at `t0`, shape (dim,); its dtype is the solution's. For a function, or a
            system made by `systems.from_function(f, like=...)`, also a dict, a tuple, a named
            tuple, an array of any shape or complex numbers: states are written so everywhere.
        ts: increasing times at which `solution.ys` is wanted; or decreasing ones, for which the
            solver runs backwards in time.
        t0: the time of `y0`, `ts[0]` by default, which it must not be past.
        args: passed on to the right-hand side.
        rtol, atol: relative and absolute tolerance of a step. Default in float64 1e-13, with
            `stiff` 1e-10; in float32 3e-6 and 1e-5. With `atol`, in the units of the state, it
            is `atol + rtol |y|` that is kept; without, `rtol` refers to what a component has been
            in this step and the last ones, whatever its unit. They may be written as a state is,
            with one for each number; of `rtol` the least counts.
        stiff: use the implicit solver.
        certify: solve again by an independent code (SciPy's DOP853 or Radau), so that the
            solution has an error estimate, the difference, and `valid_until`.
        max_steps: the number of steps after which the solver gives up.
        throw: raise if the solve fails; otherwise warn: `solution.result` says how it ended, the
            solution is defined up to `solution.t1`, and rows of `ys` after that are NaN.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: the solve failed; the message says where and how.

    Example:
        >>> spring = systems.from_function(lambda t, y, args: [y[1], -y[0]], dim=2)
        >>> solution = reference.solve(spring, [1.0, 0.0], jnp.linspace(0, 20, 201))
        >>> solution.ys.shape, solution(3.7).round(4)
        ((201, 2), Array([-0.8481,  0.5298], dtype=float64))
    """
    backwards = _is_backwards(ts, t0)
    first = float(np.asarray(ts)[0] if t0 is None else np.asarray(t0)) if backwards else 0.0
    flat = flatten_problem(system, y0, args, t0=first, backwards=backwards)
    system, y0, form, args = flat
    dtype = y0.dtype
    ts = times_in(dtype, "ts", form.times(ts))
    start = ts[0] if t0 is None else form.time(jnp.asarray(t0, dtype))
    if start.ndim:
        raise ValueError(f"t0 must be a number, got shape {start.shape}")
    concrete = is_concrete(ts) and is_concrete(start)
    if concrete and not (jnp.isfinite(start) and start <= ts[0] and start < ts[-1]):
        how = ("at least", "more") if backwards else ("at most", "less")
        raise ValueError(
            f"t0 must be {how[0]} ts[0] = {form.time(ts[0])} and {how[1]} than ts[-1] = "
            f"{form.time(ts[-1])}, got {form.time(start)}"
        )
    defaults = _DEFAULT_STIFF_RTOL if stiff else _DEFAULT_RTOL
    tolerances = check_tolerances(*form.tolerances(rtol, atol, y0.size), dtype, defaults)
    require_count(max_steps=max_steps)
    if certify and not (concrete and all(is_concrete(x) for x in jax.tree.leaves((system, y0)))):
        raise ValueError("certify must be False under jit and vmap, got True: it runs SciPy")
    jumps = None if system.autonomous else _jumps(system, start, ts, concrete)

    method = Method(system, args, jumps, *tolerances, stiff)
    solved = _integrate(method, y0, start, ts, max_steps)
    if is_concrete(solved.t1):
        solved = _trim(solved)
    solution = as_written(solved, form)
    details = _last_state(solution, stiff)
    solution = conclude(solution, solution.result, "reference.solve", details, throw=throw)
    if certify:
        error = certificate(system, solved, args, tolerances, stiff, jumps)
        solution = as_written(dataclasses.replace(solved, error=error), form)
    return solution


def _is_backwards(ts: Any, t0: Any) -> bool:
    """Whether times that are known fall from the start to the end."""
    if not (is_concrete(ts) and is_concrete(t0)) or np.ndim(ts) != 1 or np.ndim(t0) != 0:
        return False
    times = np.asarray(ts)
    first = t0 if times.size == 1 and t0 is not None else times[:1]
    return bool(np.any(times[-1:] < first))


@checked
@jax.jit
def dopri8(
    system: System, y0: Float[Array, " dim"], ts: Float[Array, " n"], rtol: Float[ArrayLike, ""]
) -> Float[Array, "n dim"]:
    """Diffrax's Dopri8 without any additions, from y0 at `ts[0]`, to compare other solvers with.

    It is one compiled program for all tolerances; `rtol` is relative and absolute. Rows of `ts`
    between the solver's own steps are interpolated, nothing is checked, and rows that were not
    reached are infinite. `solve` is the function to trust.
    """
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(system),
        diffrax.Dopri8(),
        ts[0],
        ts[-1],
        None,
        y0,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),  # pyright: ignore[reportArgumentType]
        max_steps=100_000,
        throw=False,
    )
    assert solution.ys is not None  # they were asked for
    return solution.ys


def _jumps(system: System, t0: Array, ts: Array, concrete: bool) -> Array | None:
    if not concrete:
        raise ValueError("ts and t0 must not be traced for a system that depends on time")
    jumps = system.jump_times(float(t0), float(ts[-1]))
    jumps = np.unique(jumps[jumps > float(t0)])
    return jnp.asarray(jumps, ts.dtype) if len(jumps) else None


@watched
@eqx.filter_jit
def _integrate(method: Method, y0: Array, t0: Array, ts: Array, max_steps: int) -> Solution:
    system, args, jumps = method.system, method.args, method.jumps
    end, method = ts[-1], method.started(t0, ts[-1], y0)
    if jumps is not None:  # the right-hand side's value at a jump belongs to what follows it
        end = jnp.where(jumps[-1] == end, jnp.nextafter(end, -jnp.inf), end)
    controller = StopAtRoundoff(
        diffrax.ClipStepSizeController(method.controller, step_ts=ts, jump_ts=jumps)
    )
    solved = diffrax.diffeqsolve(
        diffrax.ODETerm(system),
        method.solver,
        t0,
        end,
        None,
        y0,
        args,
        saveat=diffrax.SaveAt(t0=True, steps=True),
        stepsize_controller=controller,
        max_steps=max_steps,
        throw=False,
    )
    assert solved.ts is not None and solved.ys is not None  # they were asked for
    knots, states, last = solved.ts, solved.ys, solved.stats["num_accepted_steps"]
    result, reached = RESULTS.promote(solved.result), knots[last]

    # Why a solve failed: is the right-hand side NaN a little further on, or did u run away?
    ahead = 64 * jnp.finfo(ts.dtype).eps * jnp.abs(reached)
    slope = system(reached, states[last], args)
    beyond = system(reached + ahead, states[last] + ahead * slope, args)
    finite = jnp.all(jnp.isfinite(slope) & jnp.isfinite(beyond))
    stuck = result == RESULTS.dt_min_reached
    cause = RESULTS.where(finite, RESULTS.diverged, RESULTS.nonfinite)  # pyright: ignore[reportArgumentType]
    result = RESULTS.where(stuck, cause, result)

    reached = jnp.where(result == RESULTS.successful, ts[-1], reached)
    # Every time in ts that was reached is a knot; at a jump the knot is up to two ulps later.
    landed = jnp.nextafter(jnp.nextafter(ts, jnp.inf), jnp.inf)
    rows = states[jnp.searchsorted(knots, landed, side="right") - 1]
    ys = jnp.where((ts <= reached)[:, None], rows, jnp.nan)
    return Solution(ts, ys, t0, reached, _Steps(method, knots, states), result, solved.stats)


class _Steps(Dense):
    """The solver's own accepted steps; in between, one shorter step of the same method."""

    method: Method
    knots: Float[Array, " steps"]
    states: Float[Array, "steps dim"]

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        method, jumps = self.method, self.method.jumps
        index = piece_at(self.knots, t)
        left, y = self.knots[index], self.states[index]
        if jumps is not None:  # do not look at the right-hand side from the jump on
            padded = jnp.concatenate([jumps, jnp.full(1, jnp.inf, t.dtype)])
            jump = padded[jnp.searchsorted(jumps, left, side="right")]
            t = jnp.minimum(t, jnp.nextafter(jump, -jnp.inf))
        solver = method.solver
        if method.stiff:
            finder = diffrax.VeryChord(method.rtol, method.floor)  # pyright: ignore[reportArgumentType]
            solver = diffrax.Kvaerno5(root_finder=finder)
        term = diffrax.ODETerm(method.system)
        state = solver.init(term, left, t, y, method.args)
        y_t, *_ = solver.step(term, left, t, y, method.args, state, made_jump=jnp.asarray(False))
        return jnp.where(t > left, y_t, y)

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        return self.method.system(t, self.evaluate(t), self.method.args)


def _trim(solution: Solution) -> Solution:
    """Buffers cut to a power of two past the steps taken, so that few shapes are compiled."""
    assert isinstance(solution.dense, _Steps)
    steps = int(solution.stats["num_accepted_steps"]) + 1
    size = max(256, 1 << (steps - 1).bit_length())
    return eqx.tree_at(
        lambda s: (s.dense.knots, s.dense.states),
        solution,
        (solution.dense.knots[:size], solution.dense.states[:size]),
    )


def _last_state(solution: Solution, stiff: bool) -> str:
    """Where a failed solve stopped, in words; nothing for one that succeeded or is traced."""
    if not is_concrete(solution.t1) or solution.result == RESULTS.successful:
        return ""
    remedies = (
        (RESULTS.diverged, "End ts before it" + ("." if stiff else ", or try stiff=True.")),
        (RESULTS.nonfinite, "End ts before it, or mend the right-hand side there."),
        (
            RESULTS.max_steps_reached,
            "Raise max_steps or rtol" + ("." if stiff else ", or try stiff=True."),
        ),
    )
    remedy = next((words for end, words in remedies if solution.result == end), "")
    return (
        f"It stopped at t = {solution.t1}, before ts[-1] = {solution.ts[-1]}, "
        f"with y = {solution(solution.t1)}. {remedy}".rstrip()
    )
