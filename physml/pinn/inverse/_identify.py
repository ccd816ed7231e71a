"""Parameters and starts of an equation from noisy observations of its solution."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.checks import is_concrete, require_count, require_one_of
from physml._types import Numbers
from physml.pinn.collocation import OnDemand, WindowNetworks
from physml.pinn.inverse import _shooting as shooting
from physml.pinn.inverse import _task as task
from physml.pinn.inverse._identified import FINEST, Identified, summarise
from physml.pinn.inverse._layout import Layout, Neighbours, lay_out, window_networks
from physml.pinn.inverse._levenberg_marquardt import ShootingFit, fit_windows
from physml.pinn.inverse._parameters import free_parameters
from physml.pinn.inverse._shooting import DataLoss, ShootingProblem
from physml.pinn.inverse._task import Observations, Observe, Unknowns
from physml.results import RESULTS, conclude, is_failure
from physml.solution import Solution
from physml.systems import System, check_problem

_DOUBLINGS = 3
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
    noise: Numbers | None = None,
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
    numbers traced, for instance over hundreds of noise draws. Set `num_windows` then, and look at
    `result`, because nothing is raised.

    Args:
        system: the right-hand side. Its values of the free parameters are the first guess.
        ts: increasing times of the observations, shape (n,).
        ys: the observations, shape (n, obs), float64.
        free: names of the parameters to find: the system's own, or keys of `args`. Every entry
            of an array is a parameter.
        y0: a guess of the state at `t0`, shape (dim,); not needed where all components are
            observed.
        t0: the time of the start, at most `ts[0]`, which is the default.
        args: passed on to the right-hand side.
        observe: what is seen of the state: indices of components, or a function from (dim,) to
            (obs,); all components unless given.
        noise: the standard deviation of the noise, one for all columns or one for each. Unless
            given, one for all columns is estimated.
        bounds: by name, (low, high), either of which may be infinite: (0, inf) keeps a parameter
            positive.
        prior: by name, the standard deviation of a normal prior about the guess, for parameters
            without bounds.
        known_start: y0 is exact, not a guess.
        loss: "squares"; "huber" or "soft_l1" for data with outliers (iteratively reweighted).
        num_windows: the number of windows. Unless given, there is one for every ten observations,
            and the number is doubled, at most three times, until the equation is resolved (never
            under tracing).
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
    start = np.zeros(getattr(system, "dim", 0)) if y0 is None else y0
    system, start = check_problem(system, start, args)
    data = task.check_observations(ts, ys, start, t0=t0, observe=observe, noise=noise)
    guess = free_parameters(system, args, free, bounds or {})
    unknowns = task.check_unknowns(
        guess, start, data, prior=prior or {}, given=y0 is not None, known=known_start
    )
    require_one_of(shooting.LOSSES, loss=loss)
    first = int(np.clip(len(data.ts) // 10, 4, 256))
    counts = [first << n for n in range(_DOUBLINGS + 1)] if num_windows is None else [num_windows]
    require_count(num_windows=counts[0], max_steps=max_steps, units=units, num_points=num_points)

    network, tables = window_networks(system.dim, units, num_points)
    for count in counts:
        layout, smoothers = lay_out(network, tables, system, data, count)
        with single_threaded_blas():
            found = _identify(data, unknowns, layout, smoothers, loss, max_steps)
            found = jax.block_until_ready(found)
        if not is_concrete(found.cost) or not is_failure(found.result):
            break
    # Among many traced fits one that failed must not stop the others.
    return conclude(found, found.result, "pinn.identify", throw=throw and is_concrete(found.cost))


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
    problem = _shooting_problem(data, unknowns, layout, loss, states, at_data(data.ys))
    fitted = fit_windows(problem, problem.prior[0], states, max_steps)
    return summarise(problem, fitted, _solution(data.ts, problem, fitted))


def _shooting_problem(
    data: Observations,
    unknowns: Unknowns,
    layout: Layout,
    loss: DataLoss,
    states: Float[Array, "windows dim"],
    smoothed: Float[Array, "n obs"],
) -> ShootingProblem:
    """What is fitted, in units of the noise and of typical states and parameters."""
    ys, parameters, dtype = data.ys, unknowns.parameters, data.ys.dtype
    size = jnp.sqrt(jnp.mean(ys**2))
    rough = jnp.sqrt(jnp.mean(jnp.square(ys - smoothed)))
    unit = jnp.maximum(rough, FINEST * size) if data.noise is None else data.noise
    unit = jnp.broadcast_to(unit, ys.shape[1:])
    typical_y = jnp.sqrt(jnp.mean(states**2, axis=0))
    typical_y = jnp.where(typical_y > 0, typical_y, 1.0)
    bounded = jnp.isfinite(parameters.low) | jnp.isfinite(parameters.high)
    p = parameters.unconstrain(unknowns.values)
    known = jnp.full(typical_y.size, shooting.HARDEST if unknowns.start_known else 0.0, dtype)
    return ShootingProblem(
        field=parameters,
        observe=data.observe,
        loss=loss,
        known_noise=data.noise is not None,
        num_free=unknowns.count,
        layout=layout,
        ys=ys,
        noise=unit,
        signal=size / jnp.min(unit),
        typical_p=jnp.where(bounded | (p == 0), 1.0, jnp.abs(p)),
        typical_y=typical_y,
        prior=(p, jnp.asarray(unknowns.precision, dtype)),
        start=(unknowns.start, known / typical_y),
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
    stats = {"num_windows": num_windows, "residuals": shooting.window_residuals(problem, point)}
    ts = jnp.asarray(ts)
    states = shooting.states_at_data(problem, point)
    return Solution(ts, states, t0, t1, dense, RESULTS.successful, stats, error)
