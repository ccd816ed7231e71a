"""One network for the solutions from a whole box of starts and parameters."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

from physml._blas import single_threaded_blas
from physml._checks import floating_array, is_concrete, require_finite, require_increasing
from physml.pinn import features
from physml.pinn.dense import Polynomials
from physml.pinn.error import legendre_transform
from physml.pinn.features import Tables
from physml.pinn.ivp import check_interval
from physml.pinn.layers import Fitted, Hidden, Layer, fit_layer, hidden_layer, linearised_error
from physml.reference.initial_value import check_problem, check_tolerances
from physml.solution import RESULTS
from physml.systems import System, with_parameters
from physml.systems.parametric import ParametricSystem

# In float64 and float32. A residual of 1e-7 is an error near 1e-6 in the examples below.
_DEFAULT_RTOL = (1e-7, 1e-4)
# Of the box, for each unit of a hidden layer. With 3, the few in the tails of a stretched image
# of the box leave the units free there, and windows five times as narrow are needed.
_POINTS_PER_UNIT = 6
_MOST_TRIED = 12  # widths of a window
# Of a unit over one standard deviation of its inputs. Gentle units are far better for a map as
# smooth as they are: at 0.5 the error of the flow of Lorenz over 0.1 is 30 times that at 0.2.
_SLOPES = (0.2, 0.5, 1.0)
_CHUNK = 500  # solutions at once: their hidden units fit a processor's cache


class Equation(eqx.Module):
    """The right-hand side of an input z = (y, p): a state, and parameters, if any are free."""

    system: System  # a `ParametricSystem` if there are parameters
    args: Any

    @property
    def dim(self) -> int:
        """The number of state variables, without the parameters."""
        parametric = isinstance(self.system, ParametricSystem)
        return self.system.system.dim if parametric else self.system.dim

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the free parameters."""
        return self.system.names if isinstance(self.system, ParametricSystem) else ()

    def __call__(self, t: Array, z: Float[Array, "inputs *batch"]) -> Float[Array, "dim *batch"]:
        return self.system(t, z, self.args)[: self.dim]


class Bundle(eqx.Module):
    r"""The solutions from a box of starts and parameters, as one network; made by `bundle`.

    Its k-th layer takes the state at the start of the k-th window and the parameters to the
    state at any time in that window (see `Layer`); the next layer takes the state at its end. So
    it is a residual network as deep as there are windows before t, and starts, parameters and
    time are its inputs.

    It is a pytree. Calls may be under `jax.jit` and `jax.vmap`, and be differentiated in the time,
    the start and the parameters. Outside the box, and outside [t0, t1], they raise a ValueError;
    where that cannot be seen, as the arguments are traced, the answer is NaN.

    Attributes:
        equation: what is solved.
        low, high: the corners of the box of inputs (y, p).
        edges: those of the windows.
        layers: a `Layer` with a leading axis of windows.
        result: `RESULTS.successful`, or `RESULTS.suspect` where the residual is small but the
            sampled error is not.
        stats: `num_windows`, `num_rejected`, `residuals` (of the windows, in units of the
            tolerance, at points that were not trained on), and over a sample of the box
            `error_median` and `error_max`: the largest error in time as `error_estimate` has it,
            relative to the largest |u| of the component over the box.
    """

    equation: Equation
    low: Float[Array, " inputs"]
    high: Float[Array, " inputs"]
    edges: Float[Array, " edges"]
    layers: Layer
    tables: Tables
    time_features: nnx.Module
    result: RESULTS
    stats: dict[str, Any]

    @property
    def dim(self) -> int:
        """The number of state variables."""
        return self.equation.dim

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that the network takes."""
        return self.equation.names

    def __call__(
        self, t: Any, y0: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Float[Array, " dim"]:
        """u(t), of shape (dim,), for one time, start and set of parameters.

        Args:
            t: a time in [t0, t1].
            y0: the state at t0, shape (dim,); not needed where the box has only one.
            parameters: a number for each of `names`.

        Raises:
            TypeError, ValueError: as said above; or the shapes are wrong, or names are unknown or
                missing.
        """
        t, z, inside = self._inputs(t, y0, parameters)
        return jnp.where(inside, _evaluate(self, t, z), jnp.nan)

    def derivative(
        self, t: Any, y0: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Float[Array, " dim"]:
        """du/dt of the network: arguments and errors as for `bundle(t, y0, parameters)`."""
        t, z, inside = self._inputs(t, y0, parameters)
        return jnp.where(inside, _derivative(self, t, z), jnp.nan)

    def residual(
        self, t: Any, y0: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Float[Array, " dim"]:
        """du/dt - f(t, u): arguments and errors as for `bundle(t, y0, parameters)`."""
        t, z, inside = self._inputs(t, y0, parameters)
        return jnp.where(inside, _residual(self, t, z), jnp.nan)

    def error_estimate(
        self, t: Any, y0: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Float[Array, " dim"]:
        """The absolute error of u(t) per component: its residual along the linearised flow.

        To first order in the residual; it costs about as much as an integrator. Arguments and
        errors as for `bundle(t, y0, parameters)`.
        """
        t, z, inside = self._inputs(t, y0, parameters)
        return jnp.where(inside, _error(self, t, z), jnp.nan)

    def solutions(
        self, ts: Any, y0s: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Float[Array, "num time dim"]:
        """Many solutions at the same times, much quicker than one by one.

        Args:
            ts: increasing times in [t0, t1], shape (time,); not traced.
            y0s: starts, shape (num, dim), or one for all, (dim,); not needed where the box has
                only one.
            parameters: for each of `names` one number, or one for each solution, shape (num,).

        Raises:
            TypeError, ValueError: as for a call.
        """
        ts = jnp.asarray(ts, self.low.dtype)
        require_increasing("ts", ts)
        if not is_concrete(ts):
            raise ValueError("ts must not be traced: the windows of the times are looked up")
        times, edges = np.asarray(ts), np.asarray(self.edges)
        if times[0] < edges[0] or times[-1] > edges[-1]:
            raise ValueError(f"ts must lie in [{edges[0]}, {edges[-1]}], got {ts}")
        z = self._join(y0s, parameters, batched=True)
        inside = self._inside(z)
        # Each window's times, as a table that is filled up with repetitions.
        windows = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
        first = np.searchsorted(windows, windows)
        place = np.arange(len(times)) - first
        table = np.repeat(edges[:-1, None], place.max() + 1, axis=1)
        table[windows, place] = times
        ys = _solutions(self, jnp.asarray(table), windows, place, z)
        return jnp.where(inside[:, None, None], ys, jnp.nan)

    def _inputs(
        self, t: Any, y0: Any, parameters: Mapping[str, Any] | None
    ) -> tuple[Float[Array, ""], Float[Array, " inputs"], Bool[Array, ""]]:
        t = jnp.asarray(t, self.low.dtype)
        if t.ndim != 0:
            raise ValueError(f"t must be a scalar (vmap, or use solutions), got shape {t.shape}")
        if is_concrete(t) and is_concrete(self.edges):
            edges = np.asarray(self.edges)
            if not edges[0] <= np.asarray(t) <= edges[-1]:
                raise ValueError(f"t must lie in [{edges[0]}, {edges[-1]}], got {t}")
        z = self._join(y0, parameters, batched=False)
        in_time = (t >= self.edges[0]) & (t <= self.edges[-1])
        return t, z, in_time & self._inside(z)

    def _join(
        self, y0: Any, parameters: Mapping[str, Any] | None, batched: bool
    ) -> Float[Array, "*batch inputs"]:
        parameters, dtype, dim = dict(parameters or {}), self.low.dtype, self.dim
        if set(parameters) != set(self.names):
            raise ValueError(
                f"parameters must name each of {self.names}, got {tuple(sorted(parameters))}"
            )
        if y0 is None:
            if is_concrete(self.low) and np.any(self.low[:dim] != self.high[:dim]):
                raise ValueError("y0 must be given: the box holds more than one start")
            y0 = self.low[:dim]
        parts = [jnp.asarray(y0, dtype)]
        parts += [jnp.asarray(parameters[name], dtype) for name in self.names]
        most = 1 if batched else 0
        sizes = {part.shape[0] for part in parts[1:] if part.ndim == 1}
        sizes |= {parts[0].shape[0]} if parts[0].ndim == 2 else set()
        wrong = any(part.ndim > most for part in parts[1:]) or len(sizes) > 1
        if parts[0].shape[-1:] != (dim,) or parts[0].ndim > 1 + most or wrong:
            expected = f"({dim},)" + (f" or (num, {dim})" if batched else "")
            raise ValueError(
                f"y0 must have shape {expected} and a parameter () {'or (num,)' * batched}; got "
                f"{parts[0].shape} and {[part.shape for part in parts[1:]]}"
            )
        shape = ((sizes or {1}).pop(),) if batched else ()
        columns = [jnp.broadcast_to(part[..., None], (*shape, 1)) for part in parts[1:]]
        return jnp.concatenate([jnp.broadcast_to(parts[0], (*shape, dim)), *columns], axis=-1)

    def _inside(self, z: Float[Array, "*batch inputs"]) -> Bool[Array, "*batch"]:
        """Whether inputs are in the box, up to rounding.

        Raises:
            ValueError: they are not, and are known.
        """
        slack = 4 * float(jnp.finfo(z.dtype).eps) * jnp.maximum(jnp.abs(self.low), self.high)
        low, high = (jnp.broadcast_to(x, z.shape) for x in (self.low - slack, self.high + slack))
        good = (z >= low) & (z <= high)
        if is_concrete(good) and not np.all(good):
            index = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
            names, i = self.equation.system.state_names, index[-1]
            raise ValueError(
                f"{names[i]} = {z[index]} is outside the box, [{self.low[i]}, {self.high[i]}]"
                + (f" (solution {index[0]})" if len(index) > 1 else "")
                + ": the network knows nothing there"
            )
        return jnp.all(good, axis=-1)


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
    width: int = 40,
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
    `atol + rtol |u|` (times its width, so that it is a change of u) is tried narrower.

    What this trades: a network from the start alone, without intermediate states, would answer
    at any time by one layer, but the map from starts to late states of a nonlinear system is
    too rough for that (Lorenz at t = 0.5: errors near 0.1 with 600 units, 1e-8 in layers of 0.1).
    So an answer costs a layer for each window before it, as many as the box is wide and the flow
    nonlinear; up to some ten layers it is much quicker than an integrator.

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
        rtol, atol: tolerances of the residual, largest over the box. Default 1e-7 in float64 and
            1e-4 in float32; `atol` defaults to `rtol`.
        units: the number of tanh units of a layer; more make fewer, wider windows.
        width, num_points: tanh units and Gauss points in the time of a window.
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
        >>> box = [[0.5, 0.5], [1.5, 1.5]]
        >>> bundle = pinn.bundle(
        ...     DrivenOscillator(), box, 20.0, parameters={"gamma": (0.1, 0.3)}, key=key
        ... )
        >>> bundle(3.7, [1.0, 1.0], {"gamma": 0.2})
        >>> bundle.solutions(ts, y0s, {"gamma": gammas})
    """
    t0, t1 = check_interval(t0, t1)
    equation, low, high = _check_box(system, y0, parameters, args)
    dtype = low.dtype
    rtol_, atol_ = check_tolerances(rtol, atol, dtype, _DEFAULT_RTOL)
    for name, value, least in (
        ("units", units, 2),
        ("width", width, 2),
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
    rate = np.abs(slopes).max(axis=1) / (np.abs(both[:, : equation.dim]).max(axis=0) + 1e-300)
    first = 1.0 / max(float(np.max(rate)), 1.0 / (t1 - t0))

    with jax.ensure_compile_time_eval(), single_threaded_blas():
        time_features = features.hidden_layer(width, equation.dim, dtype=dtype)
        tables = features.tabulate(time_features, num_points, dtype)
        march = _march(
            equation, tables, key, units, cloud, fresh, stops, t0, first, rtol_, atol_, max_windows
        )
    layers, stats, reason = march
    if reason is not None and (throw or not layers):
        end = stats["edges"][-1]
        raise RuntimeError(f"pinn.bundle stopped at t = {end}, before t1 = {t1}: {reason}")
    edges = jnp.asarray(stats.pop("edges"), dtype)
    result: Any = RESULTS.successful
    if reason is not None:
        full = len(layers) == max_windows
        result = RESULTS.max_steps_reached if full else RESULTS.window_failed
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *layers)
    trained = Bundle(
        equation,
        *(jnp.asarray(corner, dtype) for corner in (low, high)),
        edges,
        stacked,
        tables,
        time_features,
        result,
        stats,
    )
    sample_key = jax.random.fold_in(key, max_windows)
    sample = low + (high - low) * np.asarray(jax.random.uniform(sample_key, (num_checks, len(low))))
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
    if not is_concrete(corners):
        raise ValueError("y0 must not be traced: the box is a constant of the network")
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


def _march(
    equation: Equation,
    tables: Tables,
    key: PRNGKeyArray,
    units: int,
    cloud: np.ndarray,
    fresh: np.ndarray,
    stops: np.ndarray,
    t0: float,
    step: float,
    rtol: Array,
    atol: Array,
    max_windows: int,
) -> tuple[list[Layer], dict[str, Any], str | None]:
    """Layer after layer, each as wide as the tolerance allows; and why it stopped, if it did."""
    dtype, dim = tables.points.dtype, equation.dim
    resolution = 100 * float(jnp.finfo(dtype).eps)
    edges, layers, residuals, num_fits = [t0], [], [], 0
    reason = None
    while edges[-1] < stops[-1]:
        start = edges[-1]
        if len(layers) == max_windows:
            reason = "that is max_windows"
            break
        stop = float(stops[np.searchsorted(stops, start, side="right")])
        own_key = jax.random.fold_in(key, len(layers))

        def fit(hidden: Hidden, span: float) -> Fitted:
            points = cloud, hidden.basis, fresh, hidden.fresh_basis  # noqa: B023
            arrays = (jnp.asarray(x, dtype) for x in (start, span, *points))  # noqa: B023
            return fit_layer(equation, tables, *arrays, rtol, atol)

        layers_of = [
            hidden_layer(own_key, units, slope, cloud, fresh, resolution) for slope in _SLOPES
        ]
        span = _even(step, stop - start)
        hidden = min(layers_of, key=lambda hidden: float(fit(hidden, span).error))
        fitted, span, tried = _widest(lambda span: fit(hidden, span), span, stop - start)
        num_fits += tried
        if fitted is None:
            reason = "no window is narrow enough for the tolerance"
            break
        layers.append(_as_layer(hidden, fitted, start, span, dtype))
        cloud = np.concatenate([fitted.ends, cloud[:, dim:]], axis=1)
        fresh = np.concatenate([fitted.fresh_ends, fresh[:, dim:]], axis=1)
        edges.append(stop if span == stop - start else start + span)
        residuals.append(float(fitted.error))
        step = span
    stats = {
        "edges": edges,
        "num_windows": len(layers),
        "num_rejected": num_fits - len(layers),
        "residuals": np.array(residuals),
    }
    return layers, stats, reason


def _even(step: float, left: float) -> float:
    """About a step, such that what is left is a whole number of them."""
    return left / np.ceil(left / step * (1 - 1e-9))


def _widest(
    fit: Callable[[float], Fitted], step: float, left: float
) -> tuple[Fitted | None, float, int]:
    """The widest window found to be accepted, its width, and the number of those tried."""
    best, widest, tried = None, 0.0, set()
    while (span := _even(step, left)) not in tried and len(tried) < _MOST_TRIED:
        tried.add(span)
        fitted = fit(span)
        error = float(fitted.error)
        if error <= 1 and span > widest:
            best, widest = fitted, span
        if error <= 1 and (span == left or error > 0.1):
            break
        step = span * float(np.clip(0.9 * max(error, 1e-9) ** (-1 / 8), 0.3, 2.0))
        if step <= 1.1 * widest:
            break
    return best, widest, len(tried)


def _as_layer(hidden: Hidden, fitted: Fitted, start: float, width: float, dtype: Any) -> Layer:
    readout = np.einsum("uk,krd->urd", hidden.readout, fitted.coefficients)
    parts = start, width, hidden.kernel, hidden.bias, readout
    return Layer(*(jnp.asarray(part, dtype) for part in parts))


def _basis(bundle: Bundle, s: Float[Array, ""]) -> Float[Array, " rank"]:
    network: Any = bundle.time_features
    points = jnp.stack([s, -jnp.ones_like(s)])
    at, start = network.features(points[:, None])
    return (at - start) @ bundle.tables.readout


@eqx.filter_jit
def _evaluate(bundle: Bundle, t: Float[Array, ""], z: Float[Array, " inputs"]) -> Array:
    layers, dim = bundle.layers, bundle.dim
    index = jnp.clip(jnp.searchsorted(bundle.edges, t, side="right") - 1, 0, len(layers.start) - 1)

    def advance(z, layer: Layer):
        end = z[:dim] + layer.change(layer.hidden(z), bundle.tables.end)
        return jnp.concatenate([end, z[dim:]]), z

    _, inputs = jax.lax.scan(advance, z, layers)
    layer = jax.tree.map(lambda x: x[index], layers)
    s = 2 * (t - layer.start) / layer.width - 1
    z = inputs[index]
    return z[:dim] + layer.change(layer.hidden(z), _basis(bundle, s))


@eqx.filter_jit
def _derivative(bundle: Bundle, t: Array, z: Array) -> Array:
    return jax.jvp(lambda t: _evaluate(bundle, t, z), (t,), (jnp.ones_like(t),))[1]


@eqx.filter_jit
def _residual(bundle: Bundle, t: Array, z: Array) -> Array:
    u, slope = jax.jvp(lambda t: _evaluate(bundle, t, z), (t,), (jnp.ones_like(t),))
    return slope - bundle.equation(t, jnp.concatenate([u, z[bundle.dim :]]))


@eqx.filter_jit
def _solutions(bundle: Bundle, table: Array, windows: Any, place: Any, z: Array) -> Array:
    layers, dim, tables = bundle.layers, bundle.dim, bundle.tables
    s = 2 * (table - layers.start[:, None]) / layers.width[:, None] - 1
    basis = jax.vmap(jax.vmap(lambda s: _basis(bundle, s)))(s)
    half = layers.width / 2
    # The functions of time are folded into the readouts once, for all solutions.
    at_times = jnp.einsum("w,wgr,wurd->wugd", half, basis, layers.readout)
    at_end = jnp.einsum("w,r,wurd->wud", half, tables.end, layers.readout)

    def solve(z: Float[Array, "chunk inputs"]) -> Float[Array, "chunk time dim"]:
        def advance(z, window):
            layer, at_times, at_end = window
            units = jnp.tanh(z @ layer.kernel + layer.bias[None])
            ys = z[:, None, :dim] + jnp.einsum("nu,ugd->ngd", units, at_times)
            end = z[:, :dim] + units @ at_end
            return jnp.concatenate([end, z[:, dim:]], axis=1), ys

        ys = jax.lax.scan(advance, z, (layers, at_times, at_end))[1]
        return ys[windows, :, place].swapaxes(0, 1)

    num = z.shape[0]
    chunks = -(-num // _CHUNK)
    size = -(-num // chunks)
    padded = jnp.concatenate([z, jnp.broadcast_to(z[:1], (chunks * size - num, z.shape[1]))])
    ys = jax.lax.map(solve, padded.reshape(chunks, size, -1))
    return ys.reshape(chunks * size, len(windows), dim)[:num]


@eqx.filter_jit
def _error(bundle: Bundle, t: Array, z: Array) -> Array:
    errors, _ = _errors(bundle, z)
    transform = legendre_transform(bundle.tables.points.shape[0], z.dtype)
    coefficients = jnp.einsum("np,wpd->wnd", transform, errors)
    layers = bundle.layers
    return jnp.abs(Polynomials(layers.start, layers.width, coefficients).evaluate(t))


def _errors(bundle: Bundle, z: Array) -> tuple[Float[Array, "windows nodes dim"], Array]:
    """The error at the start, the Gauss points and the end of each window; and the starts."""
    tables, dim = bundle.tables, bundle.dim

    def advance(carry, layer: Layer):
        z, error = carry
        inside, last = linearised_error(bundle.equation, tables, layer, z, error)
        nodes = jnp.concatenate([error[None], inside, last[None]])
        end = z[:dim] + layer.change(layer.hidden(z), tables.end)
        return (jnp.concatenate([end, z[dim:]]), last), (nodes, z[:dim])

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(advance, (z, jnp.zeros_like(z[:dim])), bundle.layers)[1]


@eqx.filter_jit
def _sampled_errors(bundle: Bundle, sample: Float[Array, "num inputs"]) -> Float[Array, " num"]:
    """The largest error of each solution, relative to the largest |u| of any."""
    errors, states = jax.lax.map(lambda z: _errors(bundle, z), sample)
    scale = jnp.max(jnp.abs(states), axis=(0, 1))
    largest = jnp.max(jnp.abs(errors), axis=(1, 2)) / jnp.where(scale > 0, scale, 1.0)[None]
    return jnp.nan_to_num(jnp.max(largest, axis=1), nan=jnp.inf)


def _judge(bundle: Bundle, sample: Float[Array, "num inputs"], rtol: float) -> Bundle:
    """The bundle with its sampled error, and the verdict on it."""
    errors = np.asarray(_sampled_errors(bundle, sample))
    median, largest = float(np.median(errors)), float(errors.max())
    stats = bundle.stats | {"error_median": median, "error_max": largest}
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
