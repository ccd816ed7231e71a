"""An initial value problem solved by networks, window after window."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from physml._numerics.batch import largest_of_batch
from physml._numerics.blas import single_threaded_blas
from physml._numerics.checks import (
    check_interval,
    check_times,
    check_tolerances,
    is_concrete,
    require_finite,
)
from physml.pinn.collocation import (
    CorrectedNetworks,
    Polynomials,
    Tables,
    WindowNetworks,
    hidden_layer,
    tabulate,
)
from physml.pinn.ivp._correction import correct as correct_error
from physml.pinn.ivp._sensitivity import differentiable
from physml.pinn.ivp._window import Window, fit_window, hand_over
from physml.results import RESULTS
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
    args: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    units: int = 40,
    num_points: int = 30,
    key: PRNGKeyArray | None = None,
    network: nnx.Module | None = None,
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
    gets the result `RESULTS.suspect` and a warning. See `pinn.error`.

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
    t0, t1 = check_interval(t0, t1)
    system, y0 = check_problem(system, y0, args)
    dtype = y0.dtype
    if all(is_concrete(x) for x in jax.tree.leaves((system, y0, args))):
        require_finite("the right-hand side at t0", system(jnp.asarray(t0, dtype), y0, args))
    tolerances = check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL)
    ts = check_times(ts, t0, t1, dtype)
    for name, value, least in (
        ("units", units, 2),
        ("num_points", num_points, 2),
        ("max_steps", max_steps, 1),
        ("max_windows", max_windows, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if first_span is not None and not 0 < first_span < np.inf:
        raise ValueError(f"first_span must be positive and finite, got {first_span}")
    if network is not None and key is not None:
        raise ValueError("give a network or a key that draws one, not both")
    if key is not None and not is_concrete(key):
        raise ValueError("key must not be traced: the hidden layer it draws is a constant")
    if network is None:
        with jax.ensure_compile_time_eval():
            network = hidden_layer(units, system.dim, key=key, dtype=dtype)
    tables = tabulate(network, num_points, dtype)
    stops = np.append(system.jump_times(t0, t1), t1)
    stops = jnp.asarray(np.unique(stops[stops > t0]), dtype)

    first = None if first_span is None else jnp.asarray(first_span, dtype)
    problem = system, y0, args
    system, y0, args = jax.tree.map(
        lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, problem
    )
    with single_threaded_blas():
        solution = _march(
            system,
            y0,
            args,
            tables,
            network,
            jnp.asarray(t0, dtype),
            stops,
            ts,
            *tolerances,
            first,
            max_steps,
            max_windows,
            correct,
        )
        solution = jax.block_until_ready(solution)
    if is_concrete(solution.t1):
        solution = _trim(solution)
        _warn(solution, tolerances[0])
    if not all(is_concrete(x) for x in jax.tree.leaves(problem)):
        solution = differentiable(solution, problem)
    return _throw(solution, t1) if throw else solution


class _March(eqx.Module):
    """Where the march stands, and what it has left behind."""

    t: Float[Array, ""]
    y: Float[Array, " dim"]
    span: Float[Array, ""]
    implicit: Bool[Array, ""]  # whether Gauss-Newton may solve what the iterations do not
    narrowed: Bool[Array, ""]  # since they did not contract in a wider window from here
    num_windows: Array
    num_rejected: Array
    num_iterations: Array
    windows: Window  # each field with a leading axis


@eqx.filter_jit
def _march(
    system,
    y0,
    args,
    tables: Tables,
    network,
    t0,
    stops,
    ts,
    rtol,
    atol,
    first,
    max_steps: int,
    size: int,
    subtract: bool,
) -> Solution:
    def field(t, y):
        return system(t, y, args)

    def fit(t, span, y, implicit):
        most = jnp.where(implicit, max_steps, 0)
        return fit_window(field, tables, t, span, y, rtol, atol, most)

    def shortest(t):
        return 16 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(t1))

    def unfinished(m: _March) -> Array:
        return (m.t < t1) & (m.num_windows < size) & (m.span > shortest(m.t))

    def advance(march: _March) -> _March:
        stop = stops[jnp.searchsorted(stops, march.t, side="right")]
        # No sliver is left before a stop: what remains is taken whole, or halved.
        left = stop - march.t
        near = march.t + jnp.minimum(march.span, 0.5 * left)
        end = jnp.where(march.span > 0.99 * left, stop, near)
        window = fit(march.t, end - march.t, march.y, march.implicit)
        active = unfinished(march)
        accepted = active & (window.error <= 1)
        factor = jnp.clip(0.9 * window.error ** (-2.0 / tables.rank), 0.3, 2.0)
        factor = jnp.where(window.contracted | march.implicit, factor, 0.5)
        # Gauss-Newton costs some hundred iterations, in a batch for all if for one: it is kept for
        # where the residual would have let pass twice the span, at which those did not contract.
        limiting = march.narrowed & (window.error < 0.5 ** (tables.rank / 2))
        implicit = jnp.where(window.contracted, limiting & accepted, march.implicit)
        narrowed = ~accepted & (march.narrowed | ~window.contracted)
        count = march.num_windows
        return _March(
            t=jnp.where(accepted, end, march.t),
            y=jnp.where(accepted, hand_over(tables, window), march.y),
            span=jnp.where(active, window.span * factor, march.span),
            implicit=implicit,
            narrowed=narrowed,
            num_windows=count + accepted.astype(count.dtype),
            num_rejected=march.num_rejected + (active & ~accepted).astype(count.dtype),
            num_iterations=march.num_iterations + jnp.where(active, window.num_iterations, 0),
            # A rejected window is overwritten by the next.
            windows=jax.tree.map(lambda rows, row: rows.at[count].set(row), march.windows, window),
        )

    t1 = stops[-1]
    with jax.default_matmul_precision("highest"):
        slope = field(t0, y0)
        if first is None:
            # A tenth of the time in which some component changes by its own size.
            size_of = jnp.abs(y0) + atol / rtol
            rate = jnp.max(jnp.abs(slope) / jnp.where(size_of > 0, size_of, jnp.inf))
            first = 0.1 / jnp.maximum(rate, 1 / (t1 - t0))
        zero = jnp.asarray(0)
        yes, no = jnp.asarray(True), jnp.asarray(False)
        shapes = jax.eval_shape(fit, t0, t0, y0, yes)
        empty = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), shapes)
        march = jax.lax.while_loop(
            lambda m: largest_of_batch(unfinished(m)),
            advance,
            _March(t0, y0, first, yes, no, zero, zero, zero, empty),
        )
        windows, count = march.windows, march.num_windows
        readouts = jnp.einsum("wr,nrd->nwd", tables.readout, windows.coefficients)
        corrected = correct_error(field, tables, windows, count, march.t, rtol, atol, subtract)

    used = jnp.arange(size) < count
    starts = jnp.where(used, windows.start, jnp.inf)
    networks = WindowNetworks(starts, windows.span, network, windows.y, windows.slope, readouts)
    polynomials = Polynomials(starts, windows.span, corrected.coefficients)
    dense = CorrectedNetworks(polynomials, networks)
    finite = jnp.all(jnp.isfinite(field(march.t, march.y)))
    choose: Any = RESULTS.where  # its annotations take a member for a plain literal
    result = choose(finite, RESULTS.window_failed, RESULTS.nonfinite)
    result = choose(count == size, RESULTS.max_steps_reached, result)
    verdict = choose(corrected.trusted, RESULTS.successful, RESULTS.suspect)
    result = choose(march.t >= t1, verdict, result)
    ys = jnp.where((ts <= march.t)[:, None], jax.vmap(dense.evaluate)(ts), jnp.nan)
    stats = {
        "num_windows": count,
        "num_rejected": march.num_rejected,
        "num_iterations": march.num_iterations,
        "edges": jnp.append(jnp.where(used, windows.start, march.t), march.t),
        "residuals": jnp.where(used, windows.error, 0.0),
    }
    return Solution(ts, ys, t0, march.t, dense, result, stats, corrected.error)


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


def _warn(solution: Solution, rtol: Array) -> None:
    if solution.result == RESULTS.suspect:
        until, _ = solution.valid_until(float(rtol) ** 0.5)
        warnings.warn(
            f"pinn.solve: {RESULTS[RESULTS.suspect]} By the estimate, half of the digits asked for "
            f"are right until t = {until:.6g} of {solution.t1:.6g}; see solution.error_estimate.",
            stacklevel=3,
        )


def _throw(solution: Solution, t1: float) -> Solution:
    failed = (solution.result != RESULTS.successful) & (solution.result != RESULTS.suspect)
    if not is_concrete(failed):
        return solution.result.error_if(solution, failed)
    if failed:
        full = solution.result == RESULTS.max_steps_reached
        reason = "that is max_windows" if full else RESULTS[solution.result]
        raise RuntimeError(
            f"pinn.solve stopped at t = {solution.t1}, before t1 = {t1}, after "
            f"{solution.stats['num_windows']} windows: {reason}"
        )
    return solution
