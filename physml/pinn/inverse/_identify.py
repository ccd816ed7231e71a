"""Parameters and starts of an equation from noisy observations of its solution."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from physml._numerics.blas import single_threaded_blas
from physml._numerics.checks import floating_array, is_concrete, require_finite, require_increasing
from physml._numerics.parts import as_pytree
from physml._numerics.pieces import piece_at
from physml.pinn.collocation import (
    OnDemand,
    Tables,
    WindowNetworks,
    basis_at,
    hidden_layer,
    tabulate,
)
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse._parameters import Parameters, free_parameters
from physml.pinn.inverse._uncertainty import FINEST, Identified, judge, summarise
from physml.results import RESULTS
from physml.solution import Solution
from physml.systems import System, check_problem

_NEIGHBOURS = 15  # observations that a smoothed value is made of
_DOUBLINGS = 3
_PARTS = 4  # of a window, for the error's estimate


def identify(
    system: System,
    ts: Any,
    ys: Any,
    *,
    free: Sequence[str],
    y0: Any = None,
    t0: float | None = None,
    args: Any = None,
    observe: Sequence[int] | Callable[[Array], Array] | None = None,
    noise: Any = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    prior: Mapping[str, float] | None = None,
    known_start: bool = False,
    loss: str = "squares",
    num_windows: int | None = None,
    units: int = 20,
    num_points: int = 14,
    max_steps: int = 300,
    throw: bool = True,
) -> Identified:
    r"""Parameters and start of $dy/dt = f(t, y; p)$ from observations of its solution.

    Minimises $\sum_i \rho((h(u(t_i)) - y_i) / \text{noise})$ over p and the start, u being the
    solution by window networks as in `solve`. The solution and the parameters are found together:
    every window has a start of its own, the jumps between the windows are penalised softly first
    and at last out of existence, and each Levenberg-Marquardt step moves networks, starts and
    parameters at once (multiple shooting by collocation). It finds its way from guesses that are
    off by half, without data of all components, and through chaos. All systems of equations are
    solved by QR.

    It may be called under `jax.jit` and `jax.vmap` with `ys`, `y0`, `noise` and the system's
    numbers traced, over hundreds of noise draws for instance; set `num_windows` then.

    Args:
        system: the right-hand side. Its values of the free parameters are the first guess.
        ts: increasing times of the observations, shape (n,).
        ys: the observations, shape (n, obs), float64.
        free: names of the parameters to find: the system's own, or keys of `args`. An array is
            as many parameters as it has entries.
        y0: a guess of the state at `t0`, shape (dim,); not needed where all components are
            observed.
        t0: the time of the start, at most `ts[0]`, which is the default.
        args: passed on to the right-hand side.
        observe: what is seen of the state: indices of components, or a function from (dim,) to
            (obs,); all components unless given.
        noise: the standard deviation of the noise, one for all or one for each observed column.
            Without it one for all is estimated.
        bounds: by name, (low, high), either of which may be infinite; (0, inf) for a positive one.
        prior: by name, the standard deviation of a normal prior about the guess, for parameters
            without bounds.
        known_start: y0 is exact, not a guess.
        loss: "squares"; "huber" or "soft_l1" for data with outliers (iteratively reweighted).
        num_windows: the number of windows; unless given, one for ten observations, and doubled
            up to three times until the equation is resolved (under tracing not doubled).
        units, num_points: tanh units and Gauss points of a window.
        max_steps: Levenberg-Marquardt steps.
        throw: raise if the fit fails; otherwise `result` says how it ended.

    Returns:
        An `Identified`: values, standard deviations, intervals, the system and the solution.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision; times
            before `t0`; fewer observations than unknowns; bounds that exclude the guess.
        RuntimeError: the fit did not converge, or the windows do not resolve the solution.

    Warns:
        UserWarning: a parameter is not identifiable from these data, or the fit does not explain
            them (a wrong model, or a local minimum).

    Source: H. G. Bock (1983), above all; J. O. Ramsay, G. Hooker, D. Campbell,
    J. Cao, "Parameter estimation for differential equations: a generalized smoothing approach",
    J. R. Statist. Soc. B 69 (2007), for the penalty that grows.

    Example:
        >>> found = pinn.identify(Lorenz(rho=40.0), ts, ys, free=("rho",))
        >>> found.values["rho"], found.intervals()["rho"]
    """
    if not isinstance(system, System):
        check_problem(system, (), None)  # says so
    args = getattr(system, "args", None) if args is None else args
    ts, ys, t0 = _check_data(ts, ys, t0)
    guess = np.zeros(system.dim) if y0 is None else y0
    system, guess = check_problem(system, guess, args)
    observe, indices = _observation(observe, system.dim, guess.dtype, ys.shape[1])
    if y0 is None and (known_start or set(indices) != set(range(system.dim))):
        raise ValueError("y0 must be given, a guess, unless all components are observed")
    parameters, values = free_parameters(system, args, free, bounds or {})
    precision = _precisions(parameters, prior or {})
    if all(is_concrete(x) for x in jax.tree.leaves((parameters, guess))):
        where, state = "the guess", guess
        if y0 is None:
            where, state = "the first observation", guess.at[np.asarray(indices)].set(ys[0])
        slope = system(jnp.asarray(t0), state, args)
        require_finite(f"the right-hand side at {where}", slope)
    num_free = int(np.sum(precision == 0)) + (0 if known_start else system.dim)
    if ys.size < num_free:
        raise ValueError(
            f"ys must hold at least as many numbers as are unknown, {num_free}, got {ys.size}"
        )
    if noise is not None:
        noise = floating_array("noise", noise)
        if noise.shape not in ((), (ys.shape[1],)):
            raise ValueError(f"noise must be a number or {ys.shape[1]}, got shape {noise.shape}")
        if is_concrete(noise) and not bool(np.all((np.asarray(noise) > 0) & np.isfinite(noise))):
            raise ValueError(f"noise must be positive and finite, got {noise}")
    if loss not in shooting.LOSSES:
        raise ValueError(f"loss must be one of {shooting.LOSSES}, got {loss!r}")
    for name, value in (("num_windows", num_windows or 1), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")

    with jax.ensure_compile_time_eval():
        network = hidden_layer(units, system.dim, dtype=ys.dtype)
        tables = tabulate(network, num_points, ys.dtype)
    first = int(np.clip(len(ts) // 10, 4, 256))
    counts = [num_windows] if num_windows else [first << n for n in range(_DOUBLINGS + 1)]
    failures = (RESULTS.unresolved, RESULTS.not_converged, RESULTS.nonfinite)
    jumps = parameters.system.jump_times(t0, float(ts[-1])).size
    for count in counts:
        layout = _lay_out(network, tables, parameters.system, t0, ts, count)
        with single_threaded_blas():
            found = _identify(
                parameters,
                observe,
                indices,
                network,
                layout,
                jnp.asarray(ts),
                ys,
                guess,
                values,
                noise,
                jnp.asarray(precision),
                y0 is None,
                known_start,
                loss,
                num_free,
                max_steps,
            )
            found = jax.block_until_ready(found)
        if not jumps:  # where f jumps, the estimate's windows would not end there
            found = _with_error(found, count)
        if not is_concrete(found.cost):
            return found
        if found.result not in failures:
            break
    return judge(found, throw)


def _with_error(found: Identified, num_windows: int) -> Identified:
    """With an estimate of the solution's error, given the parameters and the start."""
    solution = found.solution
    error = OnDemand(
        found.system,
        found.args,
        solution.dense,
        found.y0,
        solution.t0,
        solution.t1,
        _PARTS * num_windows,
    )
    return eqx.tree_at(lambda f: f.solution.error, found, error, is_leaf=lambda x: x is None)


def _check_data(ts: Any, ys: Any, t0: Any) -> tuple[np.ndarray, Array, float]:
    if not (is_concrete(ts) and is_concrete(t0)):
        raise ValueError("ts and t0 must not be traced: the windows are laid out by them")
    ts = np.asarray(ts, float)
    require_increasing("ts", ts)
    ys = floating_array("ys", ys, jnp.float64)
    if ys.ndim != 2 or ys.shape[0] != len(ts):
        raise ValueError(f"ys must have shape ({len(ts)}, obs), a row a time, got {ys.shape}")
    require_finite("ys", ys)
    start = float(ts[0]) if t0 is None else float(t0)
    if not (np.isfinite(start) and start <= ts[0] and start < ts[-1]):
        raise ValueError(
            f"ts must lie within the horizon that starts at t0 = {start}, and hold a later time; "
            f"got {ts[0]} to {ts[-1]}"
        )
    return ts, ys, start


class _Components(eqx.Module):
    """The components of a state that are observed."""

    indices: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, y: Float[Array, " dim"]) -> Float[Array, " obs"]:
        return y[np.asarray(self.indices)]


def _observation(observe: Any, dim: int, dtype: Any, columns: int) -> tuple[Any, tuple[int, ...]]:
    """The observation as a function, and the components that it shows as they are."""
    indices: tuple[int, ...] = ()
    if not callable(observe):
        indices = tuple(range(dim)) if observe is None else tuple(int(i) for i in observe)
        if not indices or len(set(indices)) < len(indices) or not set(indices) <= set(range(dim)):
            raise ValueError(f"observe must hold different indices below {dim}, got {observe}")
        observe = _Components(indices)
    out = jax.eval_shape(observe, jax.ShapeDtypeStruct((dim,), dtype))
    if out.shape != (columns,) or out.dtype != dtype:
        raise ValueError(
            f"ys must have the columns that are observed, shape (n, obs): observe gives shape "
            f"{out.shape} and dtype {out.dtype}, ys has {columns} columns"
        )
    return as_pytree(observe), indices


def _precisions(parameters: Parameters, prior: Mapping[str, float]) -> np.ndarray:
    """1 / (standard deviation of the prior) for each entry of the parameters; 0 without one."""
    if set(prior) - set(parameters.names):
        raise ValueError(f"prior must name free parameters {parameters.names}, got {sorted(prior)}")
    precisions, bounded = [], np.isfinite(parameters.low) | np.isfinite(parameters.high)
    first = 0
    for name, shape in zip(parameters.names, parameters.shapes, strict=True):
        size = int(np.prod(shape))
        sd = prior.get(name, np.inf)
        if not sd > 0 or (name in prior and bounded[first : first + size].any()):
            raise ValueError(
                f"prior of {name} must be a positive standard deviation, and {name} without "
                f"bounds; got {sd}"
            )
        precisions.append(np.full(size, 1 / sd))
        first += size
    return np.concatenate(precisions)


class _Neighbours(NamedTuple):
    """Local quadratic regression: the smoothed value is weights @ ys[rows]."""

    rows: np.ndarray
    weights: np.ndarray

    def __call__(self, ys: Float[Array, "n obs"]) -> Float[Array, "at obs"]:
        return jnp.einsum("ak,ako->ao", self.weights, ys[self.rows])


def _smoother(ts: np.ndarray, at: np.ndarray) -> _Neighbours:
    count = min(_NEIGHBOURS, len(ts))
    first = np.clip(np.searchsorted(ts, at) - count // 2, 0, len(ts) - count)
    rows = first[:, None] + np.arange(count)
    distance = ts[rows] - at[:, None]
    x = distance / (1.001 * np.abs(distance).max(axis=1, keepdims=True))
    root = (1 - np.abs(x) ** 3) ** 1.5  # of the tricube weights
    powers = x[:, :, None] ** np.arange(min(3, count))
    solution = np.linalg.pinv(root[:, :, None] * powers)[:, 0]
    return _Neighbours(rows, solution * root)


class _Layout(NamedTuple):
    """The windows, and the observations in them."""

    tables: Tables
    starts: np.ndarray
    halves: np.ndarray
    basis: np.ndarray
    rows: np.ndarray
    used: np.ndarray
    nodes: _Neighbours  # smooths to the windows' starts
    smooth: _Neighbours  # and to the observations' own times


def _lay_out(network, tables, system, t0, ts, count) -> _Layout:
    edges = np.linspace(t0, ts[-1], count + 1)
    edges = np.union1d(edges, system.jump_times(t0, float(ts[-1])))
    edges = edges[np.append(True, np.diff(edges) > 1e-12 * (ts[-1] - t0))]
    edges[-1] = ts[-1]
    starts, halves = edges[:-1], np.diff(edges) / 2
    window = piece_at(starts, ts)
    counts = np.bincount(window, minlength=len(starts))
    slots = np.arange(counts.max())
    used = slots < counts[:, None]
    rows = np.where(used, (np.cumsum(counts) - counts)[:, None] + slots, 0)
    s = np.where(used, (ts[rows] - starts[:, None]) / halves[:, None] - 1, 0.0)
    basis = basis_at(network, tables, s)
    return _Layout(
        tables, starts, halves, basis, rows, used, _smoother(ts, starts), _smoother(ts, ts)
    )


@eqx.filter_jit
def _identify(
    parameters: Parameters,
    observe: Any,
    indices: tuple[int, ...],
    network: nnx.Module,
    layout: _Layout,
    ts: Array,
    ys: Array,
    guess: Array,
    values: Array,
    noise: Array | None,
    precision: Array,
    start_from_data: bool,
    known_start: bool,
    loss: str,
    num_free: int,
    max_steps: int,
) -> Identified:
    tables, dtype = layout.tables, ys.dtype
    dim, num_windows = guess.size, len(layout.starts)
    s = jnp.broadcast_to(guess, (num_windows, dim))
    if indices:
        s = s.at[:, np.asarray(indices)].set(layout.nodes(ys))
    if not start_from_data:
        s = s.at[0].set(guess)
    size = jnp.sqrt(jnp.mean(ys**2))
    rough = jnp.sqrt(jnp.mean(jnp.square(ys - layout.smooth(ys))))
    unit = jnp.maximum(rough, FINEST * size) if noise is None else noise
    unit = jnp.broadcast_to(unit, ys.shape[1:])
    typical_y = jnp.sqrt(jnp.mean(s**2, axis=0))
    typical_y = jnp.where(typical_y > 0, typical_y, 1.0)
    bounded = jnp.isfinite(parameters.low) | jnp.isfinite(parameters.high)
    p = parameters.unconstrain(values)
    known = jnp.full(dim, shooting.HARDEST if known_start else 0.0, dtype)
    problem = shooting.Problem(
        field=parameters,
        observe=observe,
        loss=loss,
        known_noise=noise is not None,
        num_free=num_free,
        tables=tables,
        starts=jnp.asarray(layout.starts, dtype),
        halves=jnp.asarray(layout.halves, dtype),
        basis=jnp.asarray(layout.basis, dtype),
        rows=jnp.asarray(layout.rows),
        used=jnp.asarray(layout.used),
        ys=ys,
        noise=unit,
        signal=size / jnp.min(unit),
        typical_p=jnp.where(bounded | (p == 0), 1.0, jnp.abs(p)),
        typical_y=typical_y,
        prior=(p, jnp.asarray(precision, dtype)),
        start=(guess, known / typical_y),
    )
    fitted = shooting.fit(problem, p, s, max_steps)
    point = fitted.point
    readouts = jnp.einsum("nr,wrd->wnd", tables.readout, point.c)
    spans = 2 * problem.halves
    dense = WindowNetworks(
        problem.starts, spans, network, point.s, jnp.zeros_like(point.s), readouts
    )
    states = jax.vmap(dense.evaluate)(ts)
    solution = Solution(
        ts=ts,
        ys=states,
        t0=problem.starts[0],
        t1=problem.starts[-1] + spans[-1],
        dense=dense,
        result=RESULTS.successful,
        stats={"num_windows": num_windows, "residuals": shooting.window_residuals(problem, point)},
    )
    return summarise(parameters, problem, fitted, solution)
