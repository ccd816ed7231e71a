"""An initial value problem solved by networks, window after window."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.compiled import constant
from physml._numerics.devices import placed_as
from physml._numerics.parts import fixed
from physml._types import Numbers
from physml.nn import FeatureNetwork
from physml.pinn.collocation import (
    CorrectedNetworks,
    Tolerance,
    WindowNetworks,
    hidden_layer,
    tabulate,
)
from physml.pinn.ivp._audit import audit_points
from physml.pinn.ivp._march import Course, InitialValueProblem, Limits, March
from physml.pinn.ivp._programs import Ended, Task, in_one_program, in_programs
from physml.pinn.ivp._room import for_stiff
from physml.pinn.ivp._sensitivity import differentiable
from physml.results import RESULTS, conclude
from physml.solution import Solution, as_written
from physml.systems import System, flatten_problem
from physml.systems.states import Form, is_backwards

# For float64 and float32: near the smallest residual that a window can reach.
_DEFAULT_RTOL = (1e-10, 1e-4)


@checked
def solve(
    system: System | Callable[..., Any],
    y0: PyTree,
    t1: float,
    *,
    t0: float = 0.0,
    ts: Numbers | None = None,
    args: PyTree = None,
    rtol: float | PyTree | None = None,
    atol: float | PyTree | None = None,
    units: int = 40,
    num_points: int = 30,
    key: PRNGKeyArray | None = None,
    network: FeatureNetwork | None = None,
    first_span: float | None = None,
    max_window: float | None = None,
    max_steps: int = 10,
    max_windows: int = 4096,
    correct: bool = True,
    throw: bool = True,
) -> Solution:
    r"""Solves $dy/dt = f(t, y), y(t_0) = y_0$ by neural networks, to an integrator's precision.

    [t0, t1] is cut into windows. In each one the solution is a network with a frozen hidden
    layer in the scaled time $s \in [-1, 1]$, the same in all windows, and a readout of its own;
    the initial condition is built in. Fixed-point iterations find the readout that makes the
    equation's residual at Gauss points small. Where they do not contract, as in stiff problems,
    Gauss-Newton finds it. The value at the window's end starts the next window. A window is
    rejected and tried narrower if its residual between those points, times its span (which makes
    it a change of u), is above `rtol` times the size of a component; a change that a stiff problem
    forgets in the window counts by what is left of it. The spans follow the residual, whatever the
    time scale. No window crosses a jump of the right-hand side that the
    system declares; other jumps and kinks are found by bisection, and a window's edge is put there.

    Then the error of these networks, mostly rounding, is computed from their residual in
    double-double arithmetic and the linearised flow, and subtracted. The error that remains is
    estimated in the same way: it is `solution.error_estimate(t)`. A solution whose residual is
    small but whose error is not gets the result `RESULTS.suspect` and a warning: its end is past
    what the precision allows, or it repels all other solutions.

    Up to 12 components, a stiff window costs the factorisation of a matrix of all its points. Of
    more, one Jacobian a window is formed and reduced by some 40 complex factorisations of its size
    (dim x dim), the iterations apply the true one, and the memory is some 100 dim^2 numbers: about
    a minute for the heat equation in 500 points if every component depended on every other. Where
    the problem is not traced and few components depend on each other, as in equations by lines,
    the components are ordered into blocks, and time and memory of a factorisation are proportional
    to dim. Windows that are not stiff need no matrix. The buffers begin with room for some 32,000
    states (a window's state is dim numbers) and grow as they are needed.

    It may be called under `jax.jit` and `jax.vmap` with `system`, `y0` and `args` traced; each
    solution then keeps buffers of `max_windows` windows, and a batch marches as long as its
    slowest member. It can be differentiated in them, in forward and in reverse mode; the windows
    are then held fixed.

    On accelerators the iterations are products of small matrices, in full precision whatever the
    default is; only stiff windows need QR, LU and eigenvalues. In float32 the correction works in
    pairs of float32: the result is right to rounding, as long as the problem does not amplify
    errors (the driven oscillator over 20 time units: relative L2 below 1e-6).

    Args:
        system: the right-hand side: a system, or a function `f(t, y, args)` or `f(t, y)`.
        y0: the state at `t0`, shape (dim,); its dtype is the solution's. For a function, or a
            system made by `systems.from_function(f, like=...)`, also a dict, a tuple, a named
            tuple, an array of any shape or complex numbers: states are written so everywhere.
        t1: the end. If it is earlier than `t0`, the solution runs backwards in time.
        t0: the time of `y0`.
        ts: times from t0 to t1, in this order, at which `solution.ys` is wanted; 1001 evenly spaced
            ones unless given. `solution(t)` answers at any other time.
        args: passed on to the right-hand side.
        rtol, atol: relative and absolute tolerance. Default 1e-10 in float64 and 1e-4 in
            float32. With `atol`, in the units of the state, `atol + rtol |u|` is allowed; without,
            `rtol` refers to the largest value of a component so far, whatever its unit. Give it
            where small values mean nothing. For digits of what has fallen by many powers of ten,
            solve on from a later time; `error_estimate` beside the value says whether they are
            there. They may be written as a state is, with one for each number; of `rtol` the least
            counts.
        units: the number of tanh units of the hidden layer.
        num_points: the number of Gauss points in a window.
        key: draws the hidden layer at random; without one it is deterministic.
        network: a network to take the hidden layer from instead: a module whose `features`
            turns (..., 1) into (..., units), such as `nn.MLP(1, (32, 32), dim, ...)`.
        first_span: the span of the first window in units of time; found from f unless given.
        max_window: the widest window in units of time. A pulse in time is met if it lasts about a
            hundredth of a window or, where nothing is traced, a three-thousandth of t1 - t0.
            Windows of fifty times its width meet a shorter one.
        max_steps: Gauss-Newton steps, where those are needed, after which a window is
            tried narrower.
        max_windows: the number of windows after which the march stops.
        correct: subtract the networks' error; otherwise the solution is that of the networks, and
            `error_estimate` is the estimate of their error.
        throw: raise if the march stops before `t1`; otherwise `solution.result` says why, the
            solution is defined up to `solution.t1`, and rows of `ys` after that are NaN.

    Returns:
        A `Solution`. `stats` holds `num_windows`, `num_rejected`, `num_iterations`, and for each
        window its `edges` and `residuals` (in units of the tolerance; 1 is what is accepted).
        `solution.dense.network(i)` is the network of window i, and `solution.dense.networks` all
        of them, before their error was subtracted; they have no derivative in the problem.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: the march stopped early; the message says where and why.

    Source: G. Fabiani, E. Galaris, L. Russo, C. Siettos, "Parsimonious physics-informed random
    projection neural networks for initial value problems", Chaos 33 (2023), arXiv 2203.05337.

    Example:
        >>> solution = pinn.solve(systems.Lorenz(), jnp.ones(3), t1=2.0)
        >>> state, rate = solution(1.7), solution.derivative(1.7)
        >>> bool(jnp.all(solution.error_estimate(1.7) < 1e-12))
        True
    """
    backwards = is_backwards(t0, t1)
    flat = flatten_problem(system, y0, args, t0=t0, backwards=backwards)
    system, y0, form, args = flat
    t0, t1 = checks.check_interval(form.time(t0), form.time(t1))
    dtype, rtols = y0.dtype, form.tolerances(rtol, atol, y0.size)
    tolerance = Tolerance(*checks.check_tolerances(*rtols, dtype, _DEFAULT_RTOL))
    ts = checks.check_times(form.times(ts), t0, t1, dtype)
    checks.require_count(2, units=units, num_points=num_points)
    checks.require_count(max_steps=max_steps, max_windows=max_windows)
    if first_span is not None:
        checks.require_positive(first_span=first_span)
    if max_window is not None:
        checks.require_positive(max_window=max_window)
    network = _hidden_network(network, key, units, system.dim, dtype)
    tables = tabulate(network, num_points, dtype, audit_points(128))
    course = _course(system, t0, t1, first_span, max_window, dtype)
    problem = InitialValueProblem(system, y0, args)
    held = fixed(problem)
    task = Task(held, tables, tolerance, course, Limits(max_steps, max_windows))
    if _all_concrete(held):
        marched, ended = in_programs(task, ts, correct)
    else:
        task = task._replace(tables=for_stiff(task.problem, task.tables, None))
        with single_threaded_blas():
            marched, ended = jax.block_until_ready(in_one_program(task, ts, correct))
    solution = _solution(marched, ended, network, course, ts)
    details = ""
    if checks.is_concrete(solution.t1):
        if float(solution.t1) == float(solution.t0) and _all_concrete(problem):
            checks.require_finite("the right-hand side at t0", problem.rates(solution.t0, y0))
        solution = _trim(solution)
        details = _details(solution, held, tolerance, t1, form)
    if not _all_concrete(problem):
        solution = differentiable(solution, problem)
    solution = as_written(solution, form)
    return conclude(solution, solution.result, "pinn.solve", details, throw=throw)


def _course(
    system: System,
    t0: float,
    t1: float,
    first_span: float | None,
    max_window: float | None,
    dtype: DTypeLike,
) -> Course:
    stops = np.append(system.jump_times(t0, t1), t1)
    return Course(
        constant(t0, dtype),
        constant(np.unique(stops[stops > t0]), dtype),
        None if first_span is None else jnp.asarray(first_span, dtype),
        constant(np.inf if max_window is None else max_window, dtype),
    )


def _all_concrete(problem: InitialValueProblem) -> bool:
    return all(checks.is_concrete(x) for x in jax.tree.leaves(problem))


def _hidden_network(
    network: FeatureNetwork | None, key: PRNGKeyArray | None, units: int, dim: int, dtype: DTypeLike
) -> FeatureNetwork:
    """The network that was handed in, or one whose hidden layer is drawn by the key or fixed."""
    if network is not None and key is not None:
        raise ValueError("network must be None where a key draws one, got both")
    if key is not None and not checks.is_concrete(key):
        raise ValueError("key must not be traced: the hidden layer it draws is a constant")
    return hidden_layer(units, dim, key=key, dtype=dtype) if network is None else network


def _solution(
    marched: March, ended: Ended, network: FeatureNetwork, course: Course, ts: Float[Array, " n"]
) -> Solution:
    """What the programs have computed, put together for the user."""
    corrected, windows = ended.corrected, marched.windows
    starts = corrected.polynomials.starts
    networks = WindowNetworks(
        starts, windows.span, network, windows.y, windows.slope, ended.readouts
    )
    stats = {
        "num_windows": marched.num_windows,
        "num_rejected": marched.num_rejected,
        "num_iterations": marched.num_iterations,
        "edges": ended.edges,
        "residuals": ended.residuals,
    }
    return Solution(
        ts=ts,
        ys=ended.ys,
        t0=course.t0,
        t1=marched.t,
        dense=CorrectedNetworks(corrected.polynomials, networks),
        result=ended.result,
        stats=stats,
        error=corrected.error,
    )


def _trim(solution: Solution) -> Solution:
    """The solution with buffers for a power of two of windows, so that few shapes are compiled."""
    count = int(solution.stats["num_windows"])
    size = max(64, 1 << (count - 1).bit_length()) if count else 64
    dense = solution.dense
    assert isinstance(dense, CorrectedNetworks)
    hidden = dense.networks.hidden  # the one part without a leading axis of windows
    buffers = eqx.tree_at(lambda d: d.networks.hidden, dense, None), solution.error
    # On the host, where nothing has to be compiled.
    dense, error = jax.tree.map(lambda x: placed_as(np.asarray(x)[:size], x), buffers)
    dense = eqx.tree_at(lambda d: d.networks.hidden, dense, hidden, is_leaf=lambda x: x is None)
    stats = dict(solution.stats)
    stats["edges"] = constant(np.asarray(stats["edges"])[: count + 1])
    stats["residuals"] = constant(np.asarray(stats["residuals"])[:count])
    return eqx.tree_at(lambda s: (s.dense, s.stats, s.error), solution, (dense, stats, error))


def _not_unique(solution: Solution, problem: InitialValueProblem, form: Form) -> str:
    """A sentence, if an infinite estimate comes from where f has no finite derivative."""
    edges = solution.stats["edges"]
    lost = ~np.isfinite(np.asarray(solution.error_estimate(edges))).all(axis=1)
    times = edges[np.flatnonzero(lost)]
    slopes = jax.vmap(jax.jacfwd(problem.rates, argnums=1))(times, solution(times))
    steep = ~np.isfinite(np.asarray(slopes)).all(axis=(1, 2))
    if not steep.any():
        return ""
    return (
        f" At t = {form.time(times[np.argmax(steep)]):.6g} the right-hand side has no finite "
        "derivative in y: it is not Lipschitz there, and more than one solution may start from "
        "there."
    )


def _details(
    solution: Solution, problem: InitialValueProblem, tolerance: Tolerance, t1: float, form: Form
) -> str:
    """What the message says of a solution that is suspect, or that ends before t1."""
    result = jax.tree.map(np.asarray, solution.result)  # whose comparisons compile nothing
    if result == RESULTS.suspect:
        until, _ = solution.valid_until(float(tolerance.rtol) ** 0.5)
        return (
            f"By the estimate, half of the digits asked for are right until t = "
            f"{form.time(until):.6g} of {form.time(solution.t1):.6g}; see solution.error_estimate."
            f"{_not_unique(solution, problem, form)}"
        )
    full = result == RESULTS.max_steps_reached
    return (
        f"The march stopped at t = {form.time(solution.t1)}, before t1 = {form.time(t1)}, after "
        f"{solution.stats['num_windows']} windows{', that is max_windows' if full else ''}."
        + ("" if result == RESULTS.nonfinite else tolerance.advice)
    )
