"""Parameters and starts of an equation from noisy observations of its solution."""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, is_concrete, require_count, require_one_of
from physml._numerics.compiled import watched
from physml._numerics.units import max_of, min_of
from physml._types import Numbers
from physml.pinn.collocation import OnDemand, WindowNetworks, free_parameters
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse import _task as task
from physml.pinn.inverse._experiments import (
    Experiment,
    Observe,
    Start,
    as_experiments,
)
from physml.pinn.inverse._identified import Identified, in_words, summarise
from physml.pinn.inverse._layout import Layout, Neighbours, lay_out, window_networks
from physml.pinn.inverse._levenberg_marquardt import ShootingFit, fit_windows
from physml.pinn.inverse._noise_arguments import AnyNoise
from physml.pinn.inverse._shooting import DataLoss, Scales, ShootingProblem
from physml.pinn.inverse._task import Observations, Unknowns
from physml.results import RESULTS, conclude, is_failure
from physml.solution import Solution
from physml.systems import System, check_problem, flatten_problem
from physml.systems.states import Form

_DOUBLINGS, _MOST_DOUBLINGS = 3, 6  # the most where each one brings the solution nearer
_SMOOTHEST = 1e-5  # the smallest first guess of the noise, as a share of a column's spread
# XLA on a CPU may wait for ever where two threads run the program of this fit.
_ONE_AT_A_TIME = threading.Lock()
_PARTS = 4  # windows of the error's estimate in each window


@checked
def identify(
    system: System | Callable[..., Any],
    ts: Numbers | Sequence[Experiment],
    ys: Numbers | None = None,
    *,
    free: Sequence[str],
    y0: Start | PyTree = None,
    t0: float | None = None,
    args: PyTree = None,
    observe: Observe = None,
    noise: AnyNoise = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    prior: Mapping[str, float] | None = None,
    ties: Mapping[str, Callable[[dict[str, Array]], Numbers]] | None = None,
    known_start: bool = False,
    loss: DataLoss = "squares",
    num_windows: int | None = None,
    units: int = 20,
    num_points: int = 14,
    max_steps: int = 300,
    throw: bool = True,
) -> Identified:
    r"""Parameters and start of $dy/dt = f(t, y; p)$ from observations of its solution.

    Minimises $\sum_i \rho((h(u(t_i)) - y_i) / \text{noise})$ over p and the start, where u is the
    solution by window networks as in `solve`. The solution and the parameters are found together:
    every window has a start of its own, the jumps between windows are penalised weakly at first
    and in the end so strongly that they vanish, and each Levenberg-Marquardt step moves networks,
    starts and parameters at once (multiple shooting by collocation). The method converges from
    guesses that are off by half, without data of all components, and through chaos.

    It may be called under `jax.jit` and `jax.vmap` with `ys`, `y0`, `noise` and the system's
    numbers traced, for instance over hundreds of noise draws, or over data sets that are divided
    among devices. Set `num_windows` then, and look at `result`, because nothing is raised.

    Args:
        system: the right-hand side. Its values of the free parameters are the first guess. Or a
            function `f(t, y, args)`, with the guess in `args`, of states like y0.
        ts: times of the observations, shape (n,), which do not decrease. Or several
            `Experiment`s, which share the free parameters and have starts of their own; then
            `y0`, `t0`, `observe`, `noise` and `known_start` count for those that do not say theirs.
        ys: the observations, shape (n, obs), NaN where nothing was seen; none with `Experiment`s.
            All is computed in float64, float32 data too.
        free: names of the parameters to find: the system's own, or keys of `args`. Every entry
            of an array is a parameter.
        y0: a guess of the state at `t0`, shape (dim,); not needed where all components are
            observed. Or a function of the values of the parameters, a dict, that says what the
            start is. A state may be written as for `solve`; `observe` and the solution then have it
            so, and `y0` and `y0_sd` of what is found are vectors of its numbers.
        t0: the time of the start, at most `ts[0]`, which is the default.
        args: passed on to the right-hand side.
        observe: what is seen of the state: indices of components, or a function from (dim,) to
            (obs,); all components unless given.
        noise: a model of `physml.noises`, or one for each column: its scale is estimated for each
            column unless it is given. Or the standard deviation of normal noise: one for all
            columns, one for each, one for each observation, (n, obs), or a function of the observed
            values, from (n, obs) to (n, obs), such as `lambda y: 0.1 * y`, whose values count as
            at least a thousandth of their root mean square. Unless given, noise is normal, and
            one for each column is estimated. Experiments that are seen by the same `observe`
            share what is estimated, except for those with a noise of their own.
        bounds: by name, (low, high), either of which may be infinite: (0, inf) keeps a parameter
            positive.
        prior: by name, the standard deviation of a normal prior about the guess, for parameters
            without bounds.
        ties: by name, what a parameter is that is not free, as a function of the values of the
            others, a dict: `{"b": lambda p: p["a"] + p["gap"]}` with `gap` free and positive keeps
            b above a.
        known_start: y0 is exact, not a guess.
        loss: "squares"; "huber" or "soft_l1" for data with outliers (iteratively reweighted, for
            normal noise).
        num_windows: the number of windows of each experiment. Unless given, there is one for every
            ten times of observations, and the number is doubled until the windows' own error does
            not show beside the noise, or as long as that helps (never under tracing).
        units, num_points: tanh units and Gauss points of a window.
        max_steps: Levenberg-Marquardt steps.
        throw: raise if the fit fails; otherwise `result` says how it ended.

    Returns:
        An `Identified`: values, standard deviations, intervals, and of each experiment its start,
        system and solution.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision; times
            before `t0`; fewer observations than unknowns; bounds that exclude the guess; numbers
            that the noise cannot have given.
        RuntimeError: the fit did not converge, or the windows do not resolve the solution.

    Warns:
        UserWarning: a parameter is not identifiable from these data, or the fit does not explain
            them (a wrong model, or a local minimum).

    Sources: H. G. Bock, "Recent advances in parameter identification techniques for O.D.E." (1983),
    for multiple shooting; J. O. Ramsay, G. Hooker, D. Campbell, J. Cao, "Parameter estimation for
    differential equations: a generalized smoothing approach", J. R. Statist. Soc. B 69 (2007), for
    the penalty that grows.

    Example:
        >>> ts = np.linspace(0.0, 2.0, 50)
        >>> noise = 0.01 * np.random.default_rng(0).standard_normal((50, 1))
        >>> ys = np.exp(-1.3 * ts)[:, None] + noise
        >>> guess = systems.from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 1.0})
        >>> found = pinn.identify(guess, ts, ys, free=("k",))
        >>> print(f"{found.values['k']:.2f} ± {found.sd['k']:.2f}")
        1.29 ± 0.01
    """
    task.require_double("pinn.identify")
    experiments = as_experiments(ts, ys)
    args = getattr(system, "args", None) if args is None else args
    form = Form(getattr(system, "structure", None))
    if not (y0 is None or callable(y0)) and not (isinstance(system, System) and form == Form()):
        system, y0, form, args = flatten_problem(system, y0, args)
    start = np.zeros(getattr(system, "dim", 0)) if y0 is None or callable(y0) else y0
    start = floating_array("y0", start, jnp.float64)
    system, start, args = check_problem(system, start, args)  # pyright: ignore[reportArgumentType]
    fixed = [x.fixed for x in experiments]
    guess = free_parameters(system, args, free, bounds or {}, fixed=fixed, ties=ties)
    experiments = [
        x.completed(t0=t0, y0=cast(Start, y0), known_start=known_start, observe=observe).seen_by(
            form
        )
        for x in experiments
    ]
    data = task.check_observations(experiments, system.dim, noise)
    unknowns = task.check_unknowns(guess, experiments, data, prior or {})
    require_one_of(shooting.LOSSES, loss=loss)
    if loss != "squares" and not data.likelihood.is_normal:
        raise ValueError(f'loss must be "squares" unless the noise is normal, got {loss!r}')
    require_count(max_steps=max_steps, units=units, num_points=num_points)
    counts = _window_counts(num_windows, experiments)
    network, tables = window_networks(system.dim, units, num_points)

    def fit(count: Sequence[int]) -> Identified:
        layout, smoothers = lay_out(network, tables, guess[0], experiments, data, count)
        with _ONE_AT_A_TIME, single_threaded_blas():
            found = _identify(data, unknowns, layout, smoothers, loss, max_steps)
            return jax.block_until_ready(found)

    def told(best: Identified, details: str = "", throw: bool = throw) -> Identified:
        return conclude(best.as_written(form), best.result, "pinn.identify", details, throw=throw)

    best = fit(counts[0])
    if not is_concrete(best.cost):  # among many traced fits one that failed is no error
        return told(best, throw=False)
    for doublings, count in enumerate(counts[1:], start=1):
        if best.stats["coarseness"] < 1 and not is_failure(best.result):
            break
        found = fit(count)
        helped = _is_better(found, best)
        best = found if helped else best
        if not (helped or is_failure(best.result)):
            break
        if doublings >= _DOUBLINGS and not (helped and best.result == RESULTS.unresolved):
            break
    return told(best, in_words(best))


def _window_counts(
    num_windows: int | None, experiments: Sequence[Experiment]
) -> list[tuple[int, ...]]:
    """The numbers of windows that are tried: the given one, or a first one and its doublings."""
    if num_windows is not None:
        require_count(num_windows=num_windows)
        return [(num_windows,) * len(experiments)]
    times = (len(np.unique(experiment.ts)) for experiment in experiments)
    first = [int(np.clip(number // 10, 4, 256)) for number in times]
    return [tuple(count << n for count in first) for n in range(_MOST_DOUBLINGS + 1)]


def _is_better(found: Identified, other: Identified) -> bool:
    """Whether a fit ended better than another, or in the same way with half its error or less."""
    failed, other_failed = bool(is_failure(found.result)), bool(is_failure(other.result))
    if failed != other_failed:
        return other_failed
    return bool(2 * found.stats["coarseness"] < other.stats["coarseness"])


@watched
@eqx.filter_jit
def _identify(
    data: Observations,
    unknowns: Unknowns,
    layout: Layout,
    smoothers: tuple[Neighbours, Neighbours],
    loss: DataLoss,
    max_steps: int,
) -> Identified:
    """One fit; the smoothers give the data at the windows' starts, and at their own times."""
    at_starts, at_data = smoothers
    states = unknowns.starts.guess[layout.experiment]
    first = at_starts(data.ys)
    least = data.likelihood.least(data.ys, jnp.asarray(data.seen))
    for number, ((a, b), rows) in enumerate(zip(layout.own, data.rows, strict=True)):
        shown = data.shown[number]
        if shown:
            lowest = min_of(jnp.where(data.seen, least, jnp.inf)[slice(*rows)], axis=0)
            seen = jnp.maximum(first[a:b], lowest[None])[:, : len(shown)]
            states = states.at[a:b, np.asarray(shown)].set(seen)
        if unknowns.given[number]:
            states = states.at[a].set(unknowns.starts.guess[number])
    states = _off_zero(unknowns, layout, states)
    problem = _shooting_problem(data, unknowns, layout, loss, states, at_data(data.ys))
    fitted = fit_windows(problem, problem.prior[0], states, max_steps)
    problem = dataclasses.replace(problem, scales=fitted.scales)
    return summarise(problem, fitted, _solutions(problem, fitted))


def _shooting_problem(
    data: Observations,
    unknowns: Unknowns,
    layout: Layout,
    loss: DataLoss,
    states: Float[Array, "windows dim"],
    smoothed: Float[Array, "n obs"],
) -> ShootingProblem:
    """What is fitted, with a first guess of the noise and of all scales."""
    parameters, likelihood, dtype = unknowns.parameters, data.likelihood, data.ys.dtype
    every = [_sizes(data.ys[slice(*rows)], data.seen[slice(*rows)]) for rows in data.rows]
    sizes, spreads = (jnp.concatenate(x) for x in zip(*every, strict=True))
    unit = jnp.where(likelihood.relative(), 1.0, spreads)
    first = likelihood.scales(smoothed, data.ys, lambda group, *x: group.noise.guess(*x))
    p = parameters.unconstrain(unknowns.values)
    indices = np.arange(states.shape[1])
    return ShootingProblem(
        field=parameters,
        loss=loss,
        num_free=unknowns.count,
        layout=layout,
        data=data,
        held=None,
        first_scale=jnp.maximum(first, _SMOOTHEST * unit),
        size=sizes,
        unit=unit,
        scales=_first_scales(unknowns, layout, states, p),
        seen=np.stack([np.isin(indices, shown) for shown in data.shown]),
        prior=(p, jnp.asarray(unknowns.precision, dtype)),
        starts=unknowns.starts,
    )


def _sizes(
    ys: Float[Array, "n obs"], seen: Bool[np.ndarray | Array, "n obs"]
) -> tuple[Float[Array, "n obs"], Float[Array, "n obs"]]:
    """The root mean square of an experiment's columns, and their spread, for each observation."""
    count = jnp.maximum(jnp.sum(jnp.asarray(seen), axis=0), 1).astype(ys.dtype)

    def mean(x):
        return jnp.sum(jnp.where(seen, x, 0.0), axis=0) / count

    sizes = jnp.sqrt(mean(ys**2))
    sizes = jnp.where(sizes > 0, sizes, max_of(sizes))
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    spreads = jnp.maximum(jnp.sqrt(mean((ys - mean(ys)[None]) ** 2)), _SMOOTHEST * sizes)
    return jnp.broadcast_to(sizes[None], ys.shape), jnp.broadcast_to(spreads[None], ys.shape)


def _off_zero(
    unknowns: Unknowns, layout: Layout, states: Float[Array, "windows dim"]
) -> Float[Array, "windows dim"]:
    """The guess, where a component that is zero all along takes a size that can be seen.

    Zero has no size to measure steps with. The component takes the one at which it would change
    another, in the whole time, by that one's size.
    """
    parameters, starts = unknowns.parameters, jnp.asarray(layout.starts)
    p, lengths = parameters.unconstrain(unknowns.values), _lengths(layout)
    windows = starts, states, layout.experiment
    slopes = jax.vmap(lambda t, y, e: parameters(t, y, p, e))(*windows)
    by = jax.vmap(lambda t, y, e: jax.jacfwd(lambda y: parameters(t, y, p, e))(y))(*windows)
    change = lengths[:, None] * jnp.sqrt(layout.average(slopes**2))
    effects = lengths[:, None, None] * jnp.sqrt(layout.average(by**2))
    given = jnp.sqrt(layout.average(states**2))
    sizes = jnp.where(given > 0, given, jnp.where(jnp.isfinite(change), change, 1.0))

    def reach(_, sizes):  # one component further from those that have a size
        weights = jnp.where(sizes > 0, 1 / sizes, 0.0)[:, :, None]
        effect = max_of(effects * weights, axis=1)
        lost = (sizes == 0) & (effect > 0) & jnp.isfinite(effect)
        return jnp.where(lost, 1 / effect, sizes)

    reached = jax.lax.fori_loop(0, states.shape[1], reach, sizes)
    moved = jnp.where(sizes[layout.experiment] > 0, states, reached[layout.experiment])
    firsts = np.asarray(layout.firsts)
    held = jnp.asarray(unknowns.starts.held)[:, None]
    return moved.at[firsts].set(jnp.where(held, states[firsts], moved[firsts]))


def _lengths(layout: Layout) -> Float[Array, " experiments"]:
    return jnp.stack([2 * jnp.sum(jnp.asarray(layout.halves[a:b])) for a, b in layout.own])


def _first_scales(
    unknowns: Unknowns, layout: Layout, states: Float[Array, "windows dim"], p: Array
) -> Scales:
    """The sizes of the guess; a component that is zero takes what its slope gives in all."""
    parameters, precision = unknowns.parameters, unknowns.precision
    windows = jnp.asarray(layout.starts), states, layout.experiment
    slopes = jax.vmap(lambda t, y, e: parameters(t, y, p, e))(*windows)
    change = _lengths(layout)[:, None] * jnp.sqrt(layout.average(slopes**2))
    y = jnp.sqrt(layout.average(states**2))
    y = jnp.where(y > 0, y, change)
    given = jnp.where(p == 0, 1 / jnp.where(precision > 0, precision, 1.0), jnp.abs(p))
    return Scales(
        jnp.where((y > 0) & jnp.isfinite(y), y, 1.0), jnp.where(parameters.bounded, 1.0, given)
    )


def _solutions(problem: ShootingProblem, fitted: ShootingFit) -> list[Solution]:
    """Each experiment's networks as a function of time, with the error for these parameters."""
    point, layout, data = fitted.point, problem.layout, problem.data
    starts, spans = jnp.asarray(layout.starts), 2 * jnp.asarray(layout.halves)
    readouts = jnp.einsum("nr,wrd->wnd", layout.tables.readout, point.c)
    still, errors = jnp.zeros_like(point.s), shooting.window_errors(problem, point)
    states, solutions = shooting.states_at_data(problem, point), []
    for number, (a, b) in enumerate(layout.own):
        windows = (starts[a:b], spans[a:b], layout.network)
        dense = WindowNetworks(*windows, point.s[a:b], still[a:b], readouts[a:b])
        t0, t1, error = starts[a], starts[b - 1] + spans[b - 1], None
        if not layout.has_jumps[number]:  # the windows of the estimate would not end at the jumps
            system, args = problem.field.at(point.p, number)
            error = OnDemand(system, args, dense, point.s[a], t0, t1, _PARTS * (b - a))
        stats = {"num_windows": b - a, "errors": errors[a:b]}
        ts, ys = jnp.asarray(data.ts[number]), states[slice(*data.rows[number])]
        solutions.append(Solution(ts, ys, t0, t1, dense, RESULTS.successful, stats, error))
    return solutions
