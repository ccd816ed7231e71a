"""Trajectories more accurate than float64: Taylor series of quadratic systems in double-double."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from physml._numerics import checks
from physml._numerics import double_double as dd
from physml._numerics.calls import checked
from physml._numerics.compiled import watched
from physml._numerics.devices import few_shapes, for_each_chunk, num_cores
from physml._types import Numbers
from physml.data import Trajectories
from physml.reference._batch import check_starts, first_disagreement
from physml.reference._taylor import FOLLOWED, MAX_SUBSTEPS, NOT_QUADRATIC, TaylorFlow
from physml.results import RESULTS, conclude
from physml.systems import System

_CHUNK = 256  # trajectories whose series fit in a core's cache
_FINER = 40, 0.5  # the order, and the longest step in units of the grid's, of `extended_horizon`


@checked
def extended_trajectories(
    system: System,
    y0s: Numbers,
    ts: Numbers,
    *,
    args: PyTree = None,
    max_substeps: int = MAX_SUBSTEPS,
    chunk: int = _CHUNK,
    throw: bool = True,
) -> Trajectories:
    r"""Trajectories of a quadratic system by Taylor series in double-double, rounded to float64.

    For $\dot y = c + L y + B(y, y)$ the coefficients of $y(t + s h) = \sum_k Y_k s^k$ follow from
    one another,

    $$Y_{k+1} = \frac{h}{k+1} \Big(c\,\delta_{k0} + L Y_k + \sum_{j=0}^k B(Y_j, Y_{k-j})\Big).$$

    Automatic differentiation of the system at zero gives c, L and B, and only entries of B that
    are not zero cost time. A series ends where two coefficients in a row are below 1e-31 of the
    component's largest. A step whose series does not get there is taken again, shorter, by what
    the coefficients' decay tells of the radius of convergence; so a step of the grid takes as many
    steps as it needs. Rounding is about 1e-30 of the state in each. `extended_horizon` measures
    what errors add up to. At each step the right-hand side is compared with its expansion, so that
    a kink is noticed where the trajectory meets it.

    Row k is the state at `ts[0]` + k dt with dt the float64 `Trajectories.dt`: all steps are equal
    to the last bit, while those of a grid of rounded times are not.

    Args:
        system: the right-hand side; Lorenz, Rossler, Lorenz96, LotkaVolterra, any linear system
            and a function of the user's are quadratic if they are autonomous.
        y0s: starts, shape (num, dim), float64; they are taken as exact.
        ts: uniform increasing times; `y0s` are the states at `ts[0]`.
        args: passed on to the right-hand side.
        max_substeps: the number of steps in a step of the grid at which a trajectory counts as
            failed.
        chunk: trajectories computed as one state, which share their steps; chunks go to a pool of
            threads.
        throw: raise if trajectories fail; otherwise warn, and their rows are NaN from there on.

    Raises:
        TypeError: the starts are not float64.
        ValueError: the system is driven or is not quadratic, shapes do not fit, the times are not
            uniform, or a count is not positive.
        RuntimeError: trajectories blow up, or need more steps than are allowed; the message names
            them.

    Source: K. R. Jackson, N. S. Nedialkov, Some recent advances in validated methods for IVPs for
    ODEs, Appl. Numer. Math. 42 (2002) 269, section 2, for the recurrence.
    """
    y0s, times = check_starts(y0s, ts)
    checks.require_count(chunk=chunk, max_substeps=max_substeps)
    flow = TaylorFlow.create(system, float(times[-1] - times[0]) / (len(times) - 1), args=args)
    ys, states = _march_all(flow, y0s, len(times) - 1, max_substeps, chunk)
    name = type(system).__name__
    kinked = np.argwhere(states == NOT_QUADRATIC)
    if len(kinked):
        number, row = kinked[np.argmin(kinked[:, 1])]
        raise ValueError(
            f"system must be quadratic, got {name}, which differs from its expansion at zero after "
            f"t = {times[row]:.6g} from {np.asarray(y0s[number])}: use reference.trajectories_from"
        )
    found = Trajectories(
        jnp.asarray(times), jnp.asarray(ys), jnp.zeros(len(ys)), system.state_names, name
    )
    reached = (states == FOLLOWED).sum(axis=1)
    failed = np.flatnonzero(reached < len(times) - 1)
    if not len(failed):
        return found
    worst = failed[np.argmin(reached[failed])]
    details = (
        f"{len(failed)} of {len(ys)} trajectories failed, numbers {failed[:10].tolist()}"
        f"{' ...' if len(failed) > 10 else ''}, the first after t = {times[reached[worst]]:.6g} "
        f"from {np.asarray(y0s[worst])}: a step of {flow.dt:.3g} takes more than max_substeps = "
        f"{max_substeps} series. End the times before it, or raise max_substeps; for a stiff "
        "system use reference.solve(..., stiff=True)."
    ) + " throw=False keeps all, with NaN from there on." * throw
    name = "reference.extended_trajectories"
    return conclude(found, RESULTS.diverged, name, details, throw=throw)


@checked
def extended_horizon(
    system: System,
    trajectories: Trajectories,
    *,
    scale: Numbers,
    threshold: float = 0.4,
    args: PyTree = None,
) -> Float[Array, " num"]:
    """How long trajectories agree with those of series of a higher order and shorter steps.

    Rounding and truncation both differ, so where the two agree they are the truth. The method and
    the arithmetic are the same; the tests compare them with independent ones.

    Args:
        system: what `extended_trajectories` was given.
        trajectories: what it gave.
        scale, threshold: as for `agreement_horizon`.
        args: as for `extended_trajectories`.

    Returns:
        A time for each trajectory, relative to its first row; the last time where they agree to
        the end.

    Raises:
        TypeError, ValueError: as `extended_trajectories` and `agreement_horizon`.
    """
    scale = checks.check_scale(scale, trajectories.ys.shape[2], trajectories.ys.dtype)
    checks.require_positive(threshold=threshold)
    starts, times = check_starts(trajectories.ys[:, 0], trajectories.ts)
    order, longest = _FINER
    flow = TaylorFlow.create(system, trajectories.dt, args=args)
    flow = dataclasses.replace(flow, order=order, longest=longest)
    other, _ = _march_all(flow, starts, len(times) - 1, MAX_SUBSTEPS, _CHUNK)
    return first_disagreement(trajectories, jnp.asarray(other), scale, threshold)


def _march_all(
    flow: TaylorFlow, y0s: Array, steps: int, max_substeps: int, chunk: int
) -> tuple[Float[np.ndarray, "num times dim"], Int[np.ndarray, "num steps"]]:
    """The rows of all trajectories, and how each of their steps ended."""
    if y0s.dtype != jnp.float64:
        raise TypeError(f"y0s must be float64, got {y0s.dtype}")
    checks.require_finite("y0s", y0s)
    num, dim = y0s.shape
    if dim != flow.system.dim:
        raise ValueError(f"y0s must have {flow.system.dim} components, got {y0s.shape}")
    starts, out = np.asarray(y0s), np.empty((num, steps + 1, dim))
    out[:, 0] = starts
    states = np.empty((num, steps), int)

    def work(index: np.ndarray, rows: slice) -> None:
        found = _march(flow, jnp.asarray(starts[index].T), steps, jnp.asarray(max_substeps))
        ys, ends = (np.asarray(x)[..., : rows.stop - rows.start] for x in found)
        out[rows, 1:], states[rows] = ys.transpose(2, 0, 1), ends.T

    workers = num_cores()
    for_each_chunk(work, num, few_shapes(num, chunk, workers), workers)
    return out, states


@watched
@eqx.filter_jit
def _march(
    flow: TaylorFlow, y0: Float[Array, "dim chunk"], steps: int, max_substeps: Int[Array, ""]
) -> tuple[Float[Array, "steps dim chunk"], Int[Array, "steps chunk"]]:
    def step(followed, _):
        followed = flow.advance(followed, max_substeps)
        gone = jnp.broadcast_to(followed.state != FOLLOWED, followed.y.hi.shape)
        return followed, (jnp.where(gone, jnp.nan, followed.y.hi), followed.state)

    return jax.lax.scan(step, flow.begin(dd.exact(y0)), length=steps)[1]
