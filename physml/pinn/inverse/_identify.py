"""Parameters and starts of an equation from noisy observations of its solution."""

import dataclasses
import threading
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, is_concrete, require_count, require_one_of
from physml._types import Numbers
from physml.pinn.collocation import OnDemand, WindowNetworks, free_parameters
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse import _task as task
from physml.pinn.inverse._identified import Identified, in_words, summarise
from physml.pinn.inverse._layout import Layout, Neighbours, lay_out, window_networks
from physml.pinn.inverse._levenberg_marquardt import ShootingFit, fit_windows
from physml.pinn.inverse._shooting import DataLoss, Scales, ShootingProblem
from physml.pinn.inverse._task import Noise, Observations, Observe, Unknowns
from physml.results import RESULTS, conclude, is_failure
from physml.solution import Solution
from physml.systems import System, check_problem

_DOUBLINGS, _MOST_DOUBLINGS = 3, 6  # the most where each one brings the solution nearer
_SMOOTHEST = 1e-5  # the smallest first guess of the noise, as a share of a column's spread
# XLA on a CPU may wait for ever where two threads run the program of this fit.
_ONE_AT_A_TIME = threading.Lock()
_PARTS = 4  # windows of the error's estimate in each window


@checked
def identify(
    system: System,
    ts: Numbers,
    ys: Numbers,
    *,
    free: Sequence[str],
    y0: Numbers | None = None,
    t0: float | None = None,
    args: PyTree = None,
    observe: Observe = None,
    noise: Noise = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    prior: Mapping[str, float] | None = None,
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
        system: the right-hand side. Its values of the free parameters are the first guess.
        ts: increasing times of the observations, shape (n,).
        ys: the observations, shape (n, obs). All is computed in float64, float32 data too.
        free: names of the parameters to find: the system's own, or keys of `args`. Every entry
            of an array is a parameter.
        y0: a guess of the state at `t0`, shape (dim,); not needed where all components are
            observed.
        t0: the time of the start, at most `ts[0]`, which is the default.
        args: passed on to the right-hand side.
        observe: what is seen of the state: indices of components, or a function from (dim,) to
            (obs,); all components unless given.
        noise: the standard deviation of the noise: one for all columns, one for each, one for each
            observation, (n, obs), or a function of the observed values, from (n, obs) to (n, obs),
            such as `lambda y: 0.1 * y`, whose values count as at least a thousandth of their root
            mean square. Unless given, one for each column is estimated.
        bounds: by name, (low, high), either of which may be infinite: (0, inf) keeps a parameter
            positive.
        prior: by name, the standard deviation of a normal prior about the guess, for parameters
            without bounds.
        known_start: y0 is exact, not a guess.
        loss: "squares"; "huber" or "soft_l1" for data with outliers (iteratively reweighted).
        num_windows: the number of windows. Unless given, there is one for every ten observations,
            and the number is doubled until the windows' own error does not show beside the noise,
            or as long as that helps (never under tracing).
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
    args = getattr(system, "args", None) if args is None else args
    task.require_double("pinn.identify")
    start = np.zeros(getattr(system, "dim", 0)) if y0 is None else y0
    start = floating_array("y0", start, jnp.float64)
    system, start = check_problem(system, start, args)
    data = task.check_observations(ts, ys, start, t0=t0, observe=observe, noise=noise)
    guess = free_parameters(system, args, free, bounds or {})
    unknowns = task.check_unknowns(
        guess, start, data, prior=prior or {}, given=y0 is not None, known=known_start
    )
    require_one_of(shooting.LOSSES, loss=loss)
    require_count(max_steps=max_steps, units=units, num_points=num_points)
    counts = _window_counts(num_windows, len(data.ts))
    network, tables = window_networks(system.dim, units, num_points)

    def fit(count: int) -> Identified:
        layout, smoothers = lay_out(network, tables, system, data, count)
        with _ONE_AT_A_TIME, single_threaded_blas():
            found = _identify(data, unknowns, layout, smoothers, loss, max_steps)
            return jax.block_until_ready(found)

    best = fit(counts[0])
    if not is_concrete(best.cost):  # among many traced fits one that failed is no error
        return conclude(best, best.result, "pinn.identify", throw=False)
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
    return conclude(best, best.result, "pinn.identify", in_words(best), throw=throw)


def _window_counts(num_windows: int | None, num_times: int) -> list[int]:
    """The numbers of windows that are tried: the given one, or a first one and its doublings."""
    if num_windows is not None:
        require_count(num_windows=num_windows)
        return [num_windows]
    first = int(np.clip(num_times // 10, 4, 256))
    return [first << n for n in range(_MOST_DOUBLINGS + 1)]


def _is_better(found: Identified, other: Identified) -> bool:
    """Whether a fit ended better than another, or in the same way with half its error or less."""
    failed, other_failed = bool(is_failure(found.result)), bool(is_failure(other.result))
    if failed != other_failed:
        return other_failed
    return bool(2 * found.stats["coarseness"] < other.stats["coarseness"])


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
    states = jnp.broadcast_to(unknowns.start, (len(layout.starts), unknowns.start.size))
    if data.indices:
        states = states.at[:, np.asarray(data.indices)].set(at_starts(data.ys))
    if unknowns.start_given:
        states = states.at[0].set(unknowns.start)
    states = _off_zero(unknowns, layout, states)
    problem = _shooting_problem(data, unknowns, layout, loss, states, at_data(data.ys))
    fitted = fit_windows(problem, problem.prior[0], states, max_steps)
    problem = dataclasses.replace(problem, scales=fitted.scales)
    return summarise(problem, fitted, _solution(data.ts, problem, fitted))


def _shooting_problem(
    data: Observations,
    unknowns: Unknowns,
    layout: Layout,
    loss: DataLoss,
    states: Float[Array, "windows dim"],
    smoothed: Float[Array, "n obs"],
) -> ShootingProblem:
    """What is fitted, with a first guess of the noise and of all scales."""
    ys, parameters, dtype = data.ys, unknowns.parameters, data.ys.dtype
    sizes = jnp.sqrt(jnp.mean(ys**2, axis=0))
    sizes = jnp.where(sizes > 0, sizes, jnp.max(sizes))
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    spreads = jnp.maximum(jnp.std(ys, axis=0), _SMOOTHEST * sizes)
    first_noise = jnp.sqrt(jnp.mean(jnp.square(ys - smoothed), axis=0))
    p = parameters.unconstrain(unknowns.values)
    known = jnp.full(len(unknowns.start), shooting.HARDEST if unknowns.start_known else 0.0, dtype)
    return ShootingProblem(
        field=parameters,
        observe=data.observe,
        loss=loss,
        num_free=unknowns.count,
        layout=layout,
        ys=ys,
        noise=data.noise,
        first_noise=jnp.maximum(first_noise, _SMOOTHEST * spreads),
        size=sizes,
        spread=spreads,
        scales=_first_scales(unknowns, layout, states, p),
        seen=jnp.asarray(np.isin(np.arange(len(unknowns.start)), data.indices)),
        prior=(p, jnp.asarray(unknowns.precision, dtype)),
        start=(unknowns.start, known),
        start_known=unknowns.start_known,
    )


def _off_zero(
    unknowns: Unknowns, layout: Layout, states: Float[Array, "windows dim"]
) -> Float[Array, "windows dim"]:
    """The guess, where a component that is zero all along takes a size that can be seen.

    Zero has no size to measure steps with. The component takes the one at which it would change
    another, in the whole time, by that one's size.
    """
    parameters, starts = unknowns.parameters, jnp.asarray(layout.starts)
    p, length = parameters.unconstrain(unknowns.values), 2 * jnp.sum(layout.halves)
    slopes = jax.vmap(lambda t, y: parameters(t, y, p))(starts, states)
    by = jax.vmap(jax.jacfwd(lambda t, y: parameters(t, y, p), 1))(starts, states)
    change, effects = (length * jnp.sqrt(jnp.mean(x**2, axis=0)) for x in (slopes, by))
    given = jnp.sqrt(jnp.mean(states**2, axis=0))
    sizes = jnp.where(given > 0, given, jnp.where(jnp.isfinite(change), change, 1.0))

    def reach(_, sizes):  # one component further from those that have a size
        effect = jnp.max(effects * jnp.where(sizes > 0, 1 / sizes, 0.0)[:, None], axis=0)
        lost = (sizes == 0) & (effect > 0) & jnp.isfinite(effect)
        return jnp.where(lost, 1 / effect, sizes)

    reached = jax.lax.fori_loop(0, sizes.size, reach, sizes)
    moved = jnp.where(sizes > 0, states, reached)
    return moved.at[0].set(states[0]) if unknowns.start_known else moved


def _first_scales(
    unknowns: Unknowns, layout: Layout, states: Float[Array, "windows dim"], p: Array
) -> Scales:
    """The sizes of the guess; a component that is zero takes what its slope gives in all."""
    parameters, precision = unknowns.parameters, unknowns.precision
    slopes = jax.vmap(lambda t, y: parameters(t, y, p))(jnp.asarray(layout.starts), states)
    change = 2 * jnp.sum(layout.halves) * jnp.sqrt(jnp.mean(slopes**2, axis=0))
    y = jnp.sqrt(jnp.mean(states**2, axis=0))
    y = jnp.where(y > 0, y, change)
    given = jnp.where(p == 0, 1 / jnp.where(precision > 0, precision, 1.0), jnp.abs(p))
    return Scales(
        jnp.where((y > 0) & jnp.isfinite(y), y, 1.0), jnp.where(parameters.bounded, 1.0, given)
    )


def _solution(
    ts: Float[np.ndarray | Array, " n"], problem: ShootingProblem, fitted: ShootingFit
) -> Solution:
    """The fitted networks as a function of time, with its error for the fitted parameters."""
    point, layout = fitted.point, problem.layout
    starts, spans = jnp.asarray(layout.starts), 2 * jnp.asarray(layout.halves)
    readouts = jnp.einsum("nr,wrd->wnd", layout.tables.readout, point.c)
    still = jnp.zeros_like(point.s)
    dense = WindowNetworks(starts, spans, layout.network, point.s, still, readouts)
    t0, t1, num_windows = starts[0], starts[-1] + spans[-1], len(spans)
    error = None
    if not layout.has_jumps:  # the windows of the estimate would not end at the jumps
        system, args = problem.field.at(point.p)
        error = OnDemand(system, args, dense, point.s[0], t0, t1, _PARTS * num_windows)
    stats = {"num_windows": num_windows, "errors": shooting.window_errors(problem, point)}
    ts = jnp.asarray(ts)
    states = shooting.states_at_data(problem, point)
    return Solution(ts, states, t0, t1, dense, RESULTS.successful, stats, error)
