"""One network for the solutions from a whole box of starts and parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml._numerics import checks
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.devices import mesh_of
from physml._numerics.interrupt import ctrl_c
from physml.pinn.collocation import Tolerance, hidden_layer, tabulate
from physml.pinn.family._box import Box, check_box, spread, stops_of
from physml.pinn.family._bundle import Bundle, sampled_errors
from physml.pinn.family._march import Clouds, Task, march
from physml.results import RESULTS, conclude, raise_if_interrupted
from physml.systems import System

# In float64 and float32, for a residual that is largest over the box.
_DEFAULT_RTOL = (1e-6, 1e-4)
# Of the box, for each unit of a hidden layer. With 3 there are too few points in the tails of a
# stretched image of the box to fix the units there: windows must be up to five times as narrow.
_POINTS_PER_UNIT = 6


@checked
def bundle(
    system: System | Callable[..., Any],
    y0: PyTree,
    t1: float,
    *,
    key: PRNGKeyArray,
    parameters: Mapping[str, tuple[float, float]] | None = None,
    t0: float = 0.0,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    units: int = 300,
    time_units: int = 40,
    num_points: int = 20,
    num_checks: int = 200,
    max_windows: int = 256,
    devices: Sequence[object] | None = None,
    throw: bool = True,
) -> Bundle:
    r"""Trains one network to solve $dy/dt = f(t, y; p)$ from all starts and parameters in a box.

    It learns from the equation's residual alone; nothing is integrated. [t0, t1] is cut into
    windows, and the network has a layer for each: frozen tanh units of the state at the window's
    start and of the parameters, times functions of the time in it, and a readout that is fitted
    by least squares to make the residual vanish over a cloud of points of the box, all at once.
    The start is built in. A window whose residual at other points of the box (times its span, so
    that it is a change of u) is above `rtol` times the size of a component is tried narrower.

    A network from the start alone, without intermediate states, would answer at any time by one
    layer, but the map from starts to late states of a nonlinear system is too rough for that
    (Lorenz at t = 0.5: errors near 0.1 with 600 units, 1e-8 in layers of 0.1).
    So an answer costs a layer for each window before it, the more the wider the box and the more
    nonlinear the flow. About ten layers for ten thousand solutions take a half to a quarter of
    the time of vmapped Tsit5 at equal error, so that the training pays after some 100,000
    solutions (`benchmarks/bundle.py`). It is meant for flows that are not stiff: stiff ones ask
    for very narrow windows.

    Args:
        system: the right-hand side: a system, or a function `f(t, y, args)` or `f(t, y)`.
        y0: corners (low, high) of the box of starts, shape (2, dim), or one start for all,
            shape (dim,). Its dtype is the solutions'. For a function, or a system made by
            `systems.from_function(f, like=...)`, one state written as for `pinn.solve`, or a list
            of two, `[low, high]`; the bundle is then called with such starts and answers so.
        t1: the end; later than `t0`.
        key: draws the hidden units.
        parameters: by name, the range (low, high) of each parameter that the network takes; as
            in `systems.with_parameters`.
        t0: the time of the starts.
        args: passed on to the right-hand side.
        rtol, atol: tolerances of the residual, largest over the box. Default 1e-6 in float64 and
            1e-4 in float32. With `atol`, in the units of the state, `atol + rtol |u|` is allowed;
            without, `rtol` refers to the largest value of a component so far, whatever its unit.
        units: the number of tanh units of a layer; more make fewer, wider windows.
        time_units, num_points: tanh units and Gauss points in the time of a window.
        num_checks: the number of points of the box where residuals are judged, and solutions
            whose error is sampled at the end.
        max_windows: the number of windows after which training stops.
        devices: the points of the box are shared out among these, for instance `jax.devices()`.
            They must divide `units` and `num_checks`. The units are drawn on the host.
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
    t0, t1 = checks.check_interval(t0, t1)
    if not all(checks.is_concrete(leaf) for leaf in jax.tree.leaves((system, y0, args, key))):
        raise ValueError("system, y0, args and key must not be traced: the network is a constant")
    box = check_box(system, y0, parameters, args)
    dtype = box.low.dtype
    tolerance = Tolerance(*checks.check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL))
    checks.require_count(2, units=units, time_units=time_units, num_points=num_points)
    checks.require_count(num_checks=num_checks, max_windows=max_windows)
    mesh = mesh_of(devices)
    if mesh is not None:
        checks.require_multiple("devices", mesh.size, units=units, num_checks=num_checks)
    stops = stops_of(box, t0, t1)

    num_fitted = _POINTS_PER_UNIT * units
    points = box.at(spread(len(box.low), num_fitted + num_checks))
    first_span = _first_span(box, points, tolerance, t0, t1)
    draws = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    time_features = hidden_layer(time_units, box.equation.dim, dtype=dtype)
    tables = tabulate(time_features, num_points, dtype)
    task = Task(box.equation, tables, tolerance, stops, draws, units, mesh)
    clouds = Clouds(points[:num_fitted], points[num_fitted:])
    with single_threaded_blas(), ctrl_c() as interrupted:
        layers, result, stats = march(task, clouds, t0, first_span, max_windows, interrupted)
    edges = jnp.asarray(stats.pop("edges"), dtype)
    details = (
        f"The march stopped at t = {edges[-1]}, before t1 = {t1}, after {len(layers)} windows"
        f"{', that is max_windows' if len(layers) == max_windows else ''}." + tolerance.advice
    )
    if not layers:
        raise_if_interrupted(result)
        conclude(None, result, "pinn.bundle", details, throw=True)
    trained = Bundle(
        equation=box.equation,
        low=jnp.asarray(box.low, dtype),
        high=jnp.asarray(box.high, dtype),
        edges=edges,
        layers=jax.tree.map(lambda *rows: jnp.stack(rows), *layers),
        tables=tables,
        time_features=time_features,
        result=result,
        stats=stats,
        structure=box.structure,
    )
    sample = jnp.asarray(box.at(draws.random((num_checks, len(box.low)))), dtype)
    with single_threaded_blas():
        trained, worse = _judged(trained, sample, float(tolerance.rtol))
    return conclude(trained, trained.result, "pinn.bundle", worse or details, throw=throw)


def _judged(
    bundle: Bundle, sample: Float[Array, "num inputs"], rtol: float
) -> tuple[Bundle, str | None]:
    """The bundle with the errors of a sample of solutions; and why it is suspect, if it is."""
    errors = np.asarray(sampled_errors(bundle, sample))
    median, largest = float(np.median(errors)), float(errors.max())
    stats = bundle.stats | {"error_median": np.array(median), "error_max": np.array(largest)}
    result, details = bundle.result, None
    if result == RESULTS.successful and not largest <= rtol**0.5:
        result = RESULTS.suspect
        details = (
            f"Of {len(errors)} solutions sampled in the box the worst has a relative error near "
            f"{largest:.1e} by the estimate, the median {median:.1e}; a smaller box, an earlier t1 "
            "or a smaller rtol may help."
        )
    return eqx.tree_at(lambda b: (b.stats, b.result), bundle, (stats, result)), details


def _first_span(box: Box, points: np.ndarray, tolerance: Tolerance, t0: float, t1: float) -> float:
    """The time in which some component of some solution changes by its own size."""
    equation, dtype = box.equation, box.low.dtype
    slopes = eqx.filter_jit(equation)(jnp.asarray(t0, dtype), jnp.asarray(points.T, dtype))
    checks.require_finite("the right-hand side in the box at t0", slopes)
    size = np.abs(points[:, : equation.dim]).max(axis=0)
    if tolerance.atol is not None:
        size = size + float(tolerance.atol / tolerance.rtol)
    rate = np.abs(slopes).max(axis=1) / np.where(size > 0, size, np.inf)
    return 1.0 / max(float(np.max(rate)), 1.0 / (t1 - t0))
