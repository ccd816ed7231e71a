"""One network for the solutions from a whole box of starts and parameters."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from physml._numerics.blas import single_threaded_blas
from physml._numerics.checks import (
    check_interval,
    check_tolerances,
    floating_array,
    is_concrete,
    require_finite,
)
from physml.pinn.collocation import Tables, tabulate
from physml.pinn.collocation import hidden_layer as time_layer
from physml.pinn.family._bundle import Bundle, Equation, sampled_errors
from physml.pinn.family._layers import Fitted, Hidden, Layer, fit_layer, hidden_layer
from physml.results import RESULTS
from physml.systems import ParametricSystem, System, check_problem, with_parameters

# In float64 and float32, for a residual that is largest over the box.
_DEFAULT_RTOL = (1e-6, 1e-4)
# Of the box, for each unit of a hidden layer. With 3, the few in the tails of a stretched image
# of the box leave the units free there, and windows up to five times as narrow are needed.
_POINTS_PER_UNIT = 6
_MOST_TRIED = 12  # spans of a window
# Of a unit over one standard deviation of its inputs. Gentle units are far better for a map as
# smooth as they are: at 0.5 the error of the flow of Lorenz over 0.1 is 30 times that at 0.2.
_SLOPES = (0.2, 0.5, 1.0)


def bundle(
    system: System,
    y0: Any,
    t1: float,
    *,
    key: PRNGKeyArray,
    parameters: Mapping[str, tuple[float, float]] | None = None,
    t0: float = 0.0,
    args: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    units: int = 300,
    time_units: int = 40,
    num_points: int = 20,
    num_checks: int = 200,
    max_windows: int = 256,
    throw: bool = True,
) -> Bundle:
    r"""Trains one network to solve $dy/dt = f(t, y; p)$ from all starts and parameters in a box.

    It learns from the equation's residual alone; nothing is integrated. [t0, t1] is cut into
    windows, and the network has a layer for each: frozen tanh units of the state at the window's
    start and of the parameters, times functions of the time in it, and a readout that is fitted
    by least squares to make the residual vanish over a cloud of points of the box, all at once.
    The start is built in. A window whose residual at other points of the box is above
    `atol + rtol |u|` (times its span, so that it is a change of u) is tried narrower.

    What this trades: a network from the start alone, without intermediate states, would answer
    at any time by one layer, but the map from starts to late states of a nonlinear system is
    too rough for that (Lorenz at t = 0.5: errors near 0.1 with 600 units, 1e-8 in layers of 0.1).
    So an answer costs a layer for each window before it, the more the wider the box and the more
    nonlinear the flow. About ten layers for ten thousand solutions take a half to a quarter of
    the time of vmapped Tsit5 at equal error, so that the training pays after some 100,000
    solutions (`benchmarks/bundle.py`). It is meant for flows that are not stiff: stiff ones ask
    for very narrow windows.

    Args:
        system: the right-hand side.
        y0: corners (low, high) of the box of starts, shape (2, dim), or one start for all,
            shape (dim,). Its dtype is the solutions'.
        t1: the end; later than `t0`.
        key: draws the hidden units.
        parameters: by name, the range (low, high) of each parameter that the network takes; as
            in `systems.with_parameters`.
        t0: the time of the starts.
        args: passed on to the right-hand side.
        rtol, atol: tolerances of the residual, largest over the box. Default 1e-6 in float64 and
            1e-4 in float32; `atol` defaults to `rtol`.
        units: the number of tanh units of a layer; more make fewer, wider windows.
        time_units, num_points: tanh units and Gauss points in the time of a window.
        num_checks: the number of points of the box where residuals are judged, and solutions
            whose error is sampled at the end.
        max_windows: the number of windows after which training stops.
        throw: raise if it stops before `t1`; otherwise `result` says why, and the bundle answers
            up to `edges[-1]`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision; a box with
            nothing in it or nothing that varies; unknown parameters; a right-hand side that is
            not finite in the box, or whose jumps move in it.
        RuntimeError: training stopped early; the message says where and why.

    Warns:
        UserWarning: the residual is small, but the sampled error is not (`RESULTS.suspect`).

    Source: L. Lu et al., "Learning nonlinear operators via DeepONet", Nature Machine Intelligence
    3 (2021), for products of units of the time and of the input; S. Wang, H. Wang, P. Perdikaris,
    "Learning the solution operator of parametric partial differential equations with
    physics-informed DeepONets", Science Advances 7 (2021), for training these by the residual.

    Example:
        >>> box = jnp.array([[0.5, 0.5], [1.5, 1.5]])
        >>> bundle = pinn.bundle(
        ...     systems.DrivenOscillator(), box, 1.0, parameters={"gamma": (0.1, 0.3)}, key=key
        ... )
        >>> state = bundle(0.7, jnp.ones(2), {"gamma": 0.2})
    """
    t0, t1 = check_interval(t0, t1)
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((system, y0, args, key))):
        raise ValueError("system, y0, args and key must not be traced: the network is a constant")
    equation, low, high = _check_box(system, y0, parameters, args)
    dtype = low.dtype
    rtol_, atol_ = check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL)
    for name, value, least in (
        ("units", units, 2),
        ("time_units", time_units, 2),
        ("num_points", num_points, 2),
        ("num_checks", num_checks, 1),
        ("max_windows", max_windows, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    stops = _stops(equation, low, high, t0, t1)

    cloud, fresh = np.split(
        low + (high - low) * _spread(len(low), _POINTS_PER_UNIT * units + num_checks),
        [_POINTS_PER_UNIT * units],
    )
    both = jnp.asarray(np.concatenate([cloud, fresh]), dtype)
    slopes = eqx.filter_jit(equation)(jnp.asarray(t0, dtype), both.T)
    require_finite("the right-hand side in the box at t0", slopes)
    # The time in which some component changes by its own size.
    scale = np.abs(both[:, : equation.dim]).max(axis=0) + float(atol_ / rtol_)
    rate = np.abs(slopes).max(axis=1) / np.where(scale > 0, scale, np.inf)
    first = 1.0 / max(float(np.max(rate)), 1.0 / (t1 - t0))

    draws = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    time_features = time_layer(time_units, equation.dim, dtype=dtype)
    tables = tabulate(time_features, num_points, dtype)
    with single_threaded_blas():
        task = _Task(equation, tables, draws, units, rtol_, atol_)
        layers, stats, reason = _march(task, cloud, fresh, stops, t0, first, max_windows)
    edges = jnp.asarray(stats.pop("edges"), dtype)
    if reason is not None and (throw or not layers):
        raise RuntimeError(f"pinn.bundle stopped at t = {edges[-1]}, before t1 = {t1}: {reason}")
    result: Any = RESULTS.successful
    if reason is not None:
        full = len(layers) == max_windows
        result = RESULTS.max_steps_reached if full else RESULTS.window_failed
    trained = Bundle(
        equation=equation,
        low=jnp.asarray(low, dtype),
        high=jnp.asarray(high, dtype),
        edges=edges,
        layers=jax.tree.map(lambda *rows: jnp.stack(rows), *layers),
        tables=tables,
        time_features=time_features,
        result=result,
        stats=stats,
    )
    sample = low + (high - low) * draws.random((num_checks, len(low)))
    with single_threaded_blas():
        return _judge(trained, jnp.asarray(sample, dtype), float(rtol_))


def _check_box(
    system: System, y0: Any, parameters: Mapping[str, Any] | None, args: Any
) -> tuple[Equation, np.ndarray, np.ndarray]:
    """The equation, and the corners of the box of its inputs."""
    corners = floating_array("y0", y0)
    dim = getattr(system, "dim", None)
    if corners.ndim == 1:
        corners = jnp.stack([corners, corners])
    if corners.shape != (2, dim) and isinstance(system, System):
        raise ValueError(
            f"y0 must be one start, ({dim},), or corners (low, high), (2, {dim}); "
            f"got shape {np.shape(y0)}"
        )
    system, _ = check_problem(system, corners[0], args)
    low, high = (np.asarray(corner) for corner in corners)
    require_finite("y0", corners)
    if not np.all(low <= high):
        raise ValueError(f"y0 must be corners low <= high, got {low} and {high}")
    if parameters:
        for name, interval in parameters.items():
            if np.shape(interval) != (2,):
                raise ValueError(f"{name} must have a range (low, high), got {interval}")
        system = with_parameters(system, **parameters)
        ranges = np.asarray(system.ranges, low.dtype).T
        low, high = np.concatenate([low, ranges[0]]), np.concatenate([high, ranges[1]])
    if np.all(low == high):
        raise ValueError("nothing varies in the box: pinn.solve solves for one start")
    return Equation(system, args), low, high


def _stops(
    equation: Equation, low: np.ndarray, high: np.ndarray, t0: float, t1: float
) -> np.ndarray:
    """The times that no window crosses: jumps of the right-hand side, and the end."""
    jumps = equation.system.jump_times(t0, t1)
    if isinstance(equation.system, ParametricSystem):
        for corner in (low, high):
            moved = equation.system.at(jnp.asarray(corner[equation.dim :])).jump_times(t0, t1)
            if not np.array_equal(moved, jumps):
                raise ValueError(
                    f"parameters {equation.names} move the times at which the right-hand side "
                    "jumps: windows that all solutions share cannot stop there"
                )
    stops = np.append(jumps, t1)
    return np.unique(stops[stops > t0])


def _spread(dim: int, num: int) -> Float[np.ndarray, "num dim"]:
    """Points that fill the unit cube evenly, but denser towards its faces.

    They are a Kronecker sequence with the density of Chebyshev's points: polynomials through
    even points, and units as smooth as ours, are far off near the faces.
    """
    ratio = 1.5
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (dim + 1))  # the root of x^(dim + 1) = x + 1
    steps = ratio ** -np.arange(1.0, dim + 1)
    even = (0.5 + np.arange(1, num + 1)[:, None] * steps) % 1.0
    return 0.5 - 0.5 * np.cos(np.pi * even)


class _Task(NamedTuple):
    """What stays the same from window to window."""

    equation: Equation
    tables: Tables
    draws: np.random.Generator
    units: int
    rtol: Array
    atol: Array


class _Step(NamedTuple):
    """A window that was accepted: the least that the march goes on with."""

    layer: Layer
    fitted: Fitted
    span: float
    slope: float  # of its units


def _march(
    task: _Task,
    cloud: np.ndarray,
    fresh: np.ndarray,
    stops: np.ndarray,
    t0: float,
    span: float,
    max_windows: int,
) -> tuple[list[Layer], dict[str, Any], str | None]:
    """Layer after layer, each as wide as the tolerance allows; and why it stopped, if it did."""
    edges, layers, residuals, num_fits, reason = [t0], [], [], 0, None
    dim = task.equation.dim
    slope = _SLOPES[0]
    while edges[-1] < stops[-1]:
        if len(layers) == max_windows:
            reason = "that is max_windows"
            break
        start = edges[-1]
        stop = float(stops[np.searchsorted(stops, start, side="right")])
        step, tried = _widest(task, slope, cloud, fresh, start, stop, span)
        num_fits += tried
        if step is None:
            reason = "no window is narrow enough for the tolerance"
            break
        layers.append(step.layer)
        residuals.append(float(step.fitted.error))
        cloud = np.concatenate([step.fitted.ends, cloud[:, dim:]], axis=1)
        fresh = np.concatenate([step.fitted.fresh_ends, fresh[:, dim:]], axis=1)
        span, slope = step.span, step.slope
        edges.append(stop if span == stop - start else start + span)
    stats = {
        "edges": np.array(edges),
        "residuals": np.array(residuals),
        "num_windows": np.array(len(layers)),
        "num_rejected": np.array(num_fits - len(layers)),
    }
    return layers, stats, reason


def _widest(
    task: _Task,
    slope: float,
    cloud: np.ndarray,
    fresh: np.ndarray,
    start: float,
    stop: float,
    span: float,
) -> tuple[_Step | None, int]:
    """About the widest window that is accepted, if any is, and the number of those tried."""
    dtype, left = task.rtol.dtype, stop - start
    resolution = 100 * float(jnp.finfo(dtype).eps)

    def fit(hidden: Hidden, span: float) -> Fitted:
        parts = start, span, cloud, hidden.basis, fresh, hidden.fresh_basis
        arrays: Any = [jnp.asarray(part, dtype) for part in (*parts, task.rtol, task.atol)]
        return fit_layer(task.equation, task.tables, *arrays)

    def even(span: float) -> float:
        """About this span, such that what is left is a whole number of windows."""
        return left / float(np.ceil(left / span * (1 - 1e-9)))

    def draw(slope: float) -> Hidden:
        return hidden_layer(task.draws, task.units, slope, cloud, fresh, resolution)

    first = even(span)
    hidden = draw(slope)
    if not fit(hidden, first).error <= 1:
        others = {other: draw(other) for other in _SLOPES if other != slope} | {slope: hidden}
        slope = min(others, key=lambda slope: float(fit(others[slope], first).error))
        hidden = others[slope]
    # Only the readout depends on the span.
    best, widest, tried = None, 0.0, set()
    while even(span) not in tried and len(tried) < _MOST_TRIED:
        span = even(span)
        tried.add(span)
        fitted = fit(hidden, span)
        error = float(fitted.error)
        if error <= 1 and span > widest:
            best, widest = fitted, span
        if error <= 1 and (span == left or error > 0.1):
            break
        span *= float(np.clip(0.9 * max(error, 1e-9) ** (-1 / 8), 0.3, 2.0))
        if span <= 1.1 * widest:
            break
    if best is None:
        return None, len(tried)
    readout = np.einsum("uk,krd->urd", hidden.readout, best.coefficients)
    parts = start, widest, hidden.kernel, hidden.bias, readout
    layer = Layer(*(jnp.asarray(part, dtype) for part in parts))
    return _Step(layer, best, widest, slope), len(tried)


def _judge(bundle: Bundle, sample: Float[Array, "num inputs"], rtol: float) -> Bundle:
    """The bundle with its sampled error, and the verdict on it."""
    errors = np.asarray(sampled_errors(bundle, sample))
    median, largest = float(np.median(errors)), float(errors.max())
    stats = bundle.stats | {"error_median": np.array(median), "error_max": np.array(largest)}
    result = bundle.result
    if result == RESULTS.successful and not largest <= rtol**0.5:
        result: Any = RESULTS.suspect
        warnings.warn(
            f"pinn.bundle: {RESULTS[RESULTS.suspect]} Of {len(errors)} solutions sampled in the "
            f"box the worst has a relative error near {largest:.1e} by the estimate, the median "
            f"{median:.1e}; a smaller box, an earlier t1 or a smaller rtol may help.",
            stacklevel=3,
        )
    return eqx.tree_at(lambda b: (b.stats, b.result), bundle, (stats, result))
