"""An initial value problem solved by networks, window after window."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml.nn import FeatureNetwork
from physml.pinn.collocation import (
    CorrectedNetworks,
    Tables,
    Tolerance,
    WindowNetworks,
    hidden_layer,
    tabulate,
)
from physml.pinn.ivp._correction import Corrected
from physml.pinn.ivp._correction import correct as correct_error
from physml.pinn.ivp._march import Course, InitialValueProblem, Limits, March, march
from physml.pinn.ivp._sensitivity import differentiable
from physml.results import RESULTS, conclude
from physml.solution import Solution
from physml.systems import System, check_problem

# In float64 and float32: near what the residual of a window can be brought down to.
_DEFAULT_RTOL = (1e-10, 1e-4)


def solve(
    system: System,
    y0: Any,
    t1: float,
    *,
    t0: float = 0.0,
    ts: Any = None,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    units: int = 40,
    num_points: int = 30,
    key: PRNGKeyArray | None = None,
    network: FeatureNetwork | None = None,
    first_span: float | None = None,
    max_steps: int = 10,
    max_windows: int = 4096,
    correct: bool = True,
    throw: bool = True,
) -> Solution:
    r"""Solves $dy/dt = f(t, y), y(t_0) = y_0$ by neural networks, to an integrator's precision.

    [t0, t1] is cut into windows. In each one the solution is a network with a frozen hidden
    layer in the scaled time $s \in [-1, 1]$, the same in all windows, and a readout of its own;
    the initial condition is built in. The readout that brings the equation's residual at Gauss
    points down is found by fixed-point iterations, and where those do not contract, as in stiff
    problems, by Gauss-Newton; the value at the window's end starts the next window. A window whose
    residual, judged in between those points, is above `atol + rtol |u|` (times its span, so that
    it is a change of u) is rejected and tried narrower; the spans follow the residual, whatever
    the time scale. No window crosses a jump of the right-hand side.

    Then the error that is left, mostly rounding, is found from the residual in double-double
    arithmetic and the linearised flow, and subtracted; what that leaves is estimated in the same
    way, as `solution.error_estimate(t)`. A solution whose residual is small but whose error is
    not, because its horizon is past what the precision allows or because it repels all others,
    gets the result `RESULTS.suspect` and a warning.

    It may be called under `jax.jit` and `jax.vmap` with `system`, `y0` and `args` traced; each
    solution then keeps buffers of `max_windows` windows, and a batch marches as long as its
    slowest member. It can be differentiated in them, in both modes, the windows held fixed.

    On accelerators the iterations are products of small matrices, in full precision whatever the
    default is; QR, LU and eigenvalues are only reached in stiff windows. In float32 the correction
    works in pairs of float32: errors are those of rounding the result, as long as the problem does
    not amplify them (the driven oscillator over 20 time units: relative L2 below 1e-6).

    Args:
        system: the right-hand side.
        y0: the state at `t0`, shape (dim,); its dtype is the solution's.
        t1: the end; later than `t0`.
        t0: the time of `y0`.
        ts: increasing times in [t0, t1] at which `solution.ys` is wanted; 1001 even ones unless
            given. `solution(t)` answers in between.
        args: passed on to the right-hand side.
        rtol, atol: relative and absolute tolerance. Default 1e-10 in float64 and 1e-4 in
            float32; `atol` defaults to `rtol`.
        units: the number of tanh units of the hidden layer.
        num_points: the number of Gauss points in a window.
        key: draws the hidden layer at random; without one it is deterministic.
        network: a network to take the hidden layer from instead: a module whose `features`
            turns (..., 1) into (..., units), such as `nn.MLP(1, (32, 32), dim, ...)`.
        first_span: the span of the first window in units of time; found from f unless given.
        max_steps: Gauss-Newton steps, where those are needed, after which a window is
            tried narrower.
        max_windows: the number of windows after which the march stops.
        correct: subtract the error found; without it the solution is that of the networks, and
            `error_estimate` that of theirs.
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
    t0, t1 = checks.check_interval(t0, t1)
    system, y0 = check_problem(system, y0, args)
    dtype = y0.dtype
    if all(checks.is_concrete(x) for x in jax.tree.leaves((system, y0, args))):
        checks.require_finite("the right-hand side at t0", system(jnp.asarray(t0, dtype), y0, args))
    tolerance = Tolerance(*checks.check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL))
    ts = checks.check_times(ts, t0, t1, dtype)
    checks.require_count(least=2, units=units, num_points=num_points)
    checks.require_count(max_steps=max_steps, max_windows=max_windows)
    if first_span is not None:
        checks.require_positive(first_span=first_span)
    network = _hidden_network(network, key, units, system.dim, dtype)
    tables = tabulate(network, num_points, dtype)
    stops = np.append(system.jump_times(t0, t1), t1)
    course = Course(
        jnp.asarray(t0, dtype),
        jnp.asarray(np.unique(stops[stops > t0]), dtype),
        None if first_span is None else jnp.asarray(first_span, dtype),
    )
    problem = InitialValueProblem(system, y0, args)
    held = jax.tree.map(
        lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, problem
    )
    limits = Limits(max_steps, max_windows)
    with single_threaded_blas():
        solution = _solve(held, tables, network, tolerance, course, ts, limits, correct=correct)
        solution = jax.block_until_ready(solution)
    details = ""
    if checks.is_concrete(solution.t1):
        solution = _trim(solution)
        details = _details(solution, float(tolerance.rtol), t1)
    if not all(checks.is_concrete(x) for x in jax.tree.leaves(problem)):
        solution = differentiable(solution, problem)
    return conclude(solution, solution.result, "pinn.solve", details, throw=throw)


def _hidden_network(
    network: FeatureNetwork | None, key: PRNGKeyArray | None, units: int, dim: int, dtype: DTypeLike
) -> FeatureNetwork:
    """The network that was handed in, or one whose hidden layer is drawn by the key or fixed."""
    if network is not None and key is not None:
        raise ValueError("network must be None where a key draws one, got both")
    if key is not None and not checks.is_concrete(key):
        raise ValueError("key must not be traced: the hidden layer it draws is a constant")
    if network is not None:
        return network
    with jax.ensure_compile_time_eval():
        return hidden_layer(units, dim, key=key, dtype=dtype)


@eqx.filter_jit
def _solve(
    problem: InitialValueProblem,
    tables: Tables,
    network: FeatureNetwork,
    tolerance: Tolerance,
    course: Course,
    ts: Float[Array, " n"],
    limits: Limits,
    *,
    correct: bool,
) -> Solution:
    with jax.default_matmul_precision("highest"):
        marched = march(problem, tables, tolerance, course, limits)
        windows, count = marched.windows, marched.num_windows
        readouts = jnp.einsum("wr,nrd->nwd", tables.readout, windows.coefficients)
        corrected = correct_error(
            problem.rates, tables, tolerance, windows, count, marched.t, subtract=correct
        )

    used = jnp.arange(limits.max_windows) < count
    starts = corrected.polynomials.starts
    networks = WindowNetworks(starts, windows.span, network, windows.y, windows.slope, readouts)
    dense = CorrectedNetworks(corrected.polynomials, networks)
    stats = {
        "num_windows": count,
        "num_rejected": marched.num_rejected,
        "num_iterations": marched.num_iterations,
        "edges": jnp.append(jnp.where(used, windows.start, marched.t), marched.t),
        "residuals": jnp.where(used, windows.error, 0.0),
    }
    return Solution(
        ts=ts,
        ys=jnp.where((ts <= marched.t)[:, None], jax.vmap(dense.evaluate)(ts), jnp.nan),
        t0=course.t0,
        t1=marched.t,
        dense=dense,
        result=_result(problem, marched, corrected, course.stops[-1], limits),
        stats=stats,
        error=corrected.error,
    )


def _result(
    problem: InitialValueProblem, marched: March, corrected: Corrected, t1: Array, limits: Limits
) -> RESULTS:
    choose: Any = RESULTS.where  # its annotations take a member for a plain literal
    finite = jnp.all(jnp.isfinite(problem.rates(marched.t, marched.y)))
    result = choose(finite, RESULTS.window_failed, RESULTS.nonfinite)
    full = marched.num_windows == limits.max_windows
    result = choose(full, RESULTS.max_steps_reached, result)
    verdict = choose(corrected.trusted, RESULTS.successful, RESULTS.suspect)
    return choose(marched.t >= t1, verdict, result)


def _trim(solution: Solution) -> Solution:
    """Buffers cut to a power of two past the windows used, so that few shapes are compiled."""
    count = int(solution.stats["num_windows"])
    size = max(64, 1 << (count - 1).bit_length()) if count else 64
    dense: Any = solution.dense
    hidden = dense.networks.hidden  # the one part without a leading axis of windows
    buffers = eqx.tree_at(lambda d: d.networks.hidden, dense, None), solution.error
    dense, error = jax.tree.map(lambda x: x[:size], buffers)
    dense = eqx.tree_at(lambda d: d.networks.hidden, dense, hidden, is_leaf=lambda x: x is None)
    stats = dict(solution.stats)
    stats["edges"] = stats["edges"][: count + 1]
    stats["residuals"] = stats["residuals"][:count]
    return eqx.tree_at(lambda s: (s.dense, s.stats, s.error), solution, (dense, stats, error))


def _details(solution: Solution, rtol: float, t1: float) -> str:
    """What is to be said of a solution that is suspect, or that ends before t1."""
    if solution.result == RESULTS.suspect:
        until, _ = solution.valid_until(rtol**0.5)
        return (
            f"By the estimate, half of the digits asked for are right until t = {until:.6g} of "
            f"{solution.t1:.6g}; see solution.error_estimate."
        )
    full = solution.result == RESULTS.max_steps_reached
    return (
        f"The march stopped at t = {solution.t1}, before t1 = {t1}, after "
        f"{solution.stats['num_windows']} windows{', that is max_windows' if full else ''}."
    )
