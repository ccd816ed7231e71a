"""Batches of accurate trajectories on a uniform grid, and how far they can be trusted."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from physml._numerics.checks import floating_array, require_finite, require_uniform
from physml.data import Trajectories
from physml.reference._march import march
from physml.systems import System


def trajectories(
    system: System,
    key: PRNGKeyArray,
    num: int,
    ts: Any,
    *,
    box: Any = None,
    dtype: Any = None,
    **options: Any,
) -> Trajectories:
    """Trajectories from starts drawn uniformly from a box.

    Args:
        system: the right-hand side.
        key: a random key for the starts.
        num: the number of trajectories.
        ts: uniform increasing times; the starts are the states at `ts[0]`.
        box: corners (low, high), each of shape (dim,); the system's own by default.
        dtype: a floating dtype; JAX's default by default.
        options: those of `trajectories_from`, which says what is computed and raised.

    Example:
        The lecture's data set, 100 trajectories of the Lorenz system and 80,000 pairs:

        >>> data = reference.trajectories(Lorenz(), key, 100, jnp.linspace(0, 8, 801))
        >>> data.pairs()
    """
    return trajectories_from(system, _starts(system, key, num, box, dtype), ts, **options)


def driven_trajectories(
    system: System,
    key: PRNGKeyArray,
    num: int,
    ts: Any,
    *,
    phase_dtype: Any = float,
    **options: Any,
) -> Trajectories:
    """`trajectories` of a driven system, each from a start in the box and any phase of the drive.

    Args:
        system: the right-hand side, with a period T.
        key: a random key for the starts and the phases.
        num: the number of trajectories.
        ts: uniform increasing times, counted from each trajectory's own t0, which is in [0, T).
        phase_dtype: in which each t0 is drawn; float32 for phases that both precisions can hold.
        options: those of `trajectories`.

    Raises:
        ValueError: the system has no period.
    """
    if system.period is None:
        raise ValueError(f"system must have a period, {type(system).__name__} has none")
    start, phase = jax.random.split(key)
    t0s = jax.random.uniform(phase, (num,), phase_dtype, maxval=float(system.period))
    return trajectories(system, start, num, ts, t0s=t0s, **options)


def trajectories_from(
    system: System,
    y0s: Any,
    ts: Any,
    *,
    t0s: Any = None,
    args: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_substeps: int = 1000,
    chunk: int | None = None,
    throw: bool = True,
) -> Trajectories:
    r"""Trajectories from given starts, each state on the grid a step's own value.

    Every interval of the grid is divided into as many equal steps of Dormand and Prince's
    method of order 8 as keep the sum of their embedded error estimates below
    `atol + rtol |y|` in each component. So this bounds the error of one step of the grid. The
    estimate is that of order 7, and the error some ten times smaller.

    A chunk of trajectories is one state of shape (dim, chunk) and shares its steps; several
    chunks are computed at once, one a core, and written into one array. Memory is the output
    and a few chunks. Trajectory i depends on its chunk's other members only within tolerance.

    Args:
        system: the right-hand side.
        y0s: starts, shape (num, dim); their dtype is the trajectories'.
        ts: uniform increasing times; `y0s` are the states at `ts[0]`.
        t0s: start times, shape (num,): trajectory i is at the times `t0s[i] + ts`, which a
            driven system sees. Zeros by default.
        args: passed on to the right-hand side.
        rtol, atol: tolerances of one step of the grid; in float64 1e-12, in float32 1e-5.
        max_substeps: the number of steps in an interval of the grid at which a trajectory
            counts as failed.
        chunk: trajectories in a chunk at most; by default 512 on a CPU.
        throw: raise if trajectories fail; otherwise their rows are NaN from there on.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: trajectories diverged or could not be followed; the message names them.
    """
    y0s = floating_array("y0s", y0s)
    if y0s.ndim != 2 or y0s.shape[0] == 0:
        raise ValueError(f"y0s must have shape (num, dim) with num >= 1, got {y0s.shape}")
    times = np.asarray(ts, float)
    starts = np.zeros(len(y0s)) if t0s is None else np.asarray(t0s, float)
    require_uniform("ts", times)
    require_finite("t0s", starts)

    if starts.shape != (len(y0s),):
        raise ValueError(f"t0s must have shape ({len(y0s)},), got {starts.shape}")
    ys = march(
        system,
        y0s,
        times,
        starts,
        args=args,
        rtol=rtol,
        atol=atol,
        max_substeps=max_substeps,
        chunk=chunk,
        throw=throw,
    )
    return Trajectories(
        jnp.asarray(times, ys.dtype),
        ys,
        jnp.asarray(starts, ys.dtype),
        system.state_names,
        type(system).__name__,
    )


def attractor_starts(
    system: System,
    key: PRNGKeyArray,
    num: int,
    burn_in: float = 20.0,
    dt: float = 0.01,
    **options: Any,
) -> Float[Array, "num dim"]:
    """States on the attractor: where random starts in the box have gone after `burn_in`.

    The states of a driven system are those at time 0, from starts at `-burn_in`.

    Args:
        system: the right-hand side.
        key: a random key for the starts.
        num: the number of states.
        burn_in: how long to wait, in time units.
        dt: the grid on which the error is controlled.
        options: `box` and `dtype` as for `trajectories`, the others as for `trajectories_from`.
    """
    if not (0 < dt <= burn_in < np.inf):
        raise ValueError(f"expected 0 < dt <= burn_in, got dt = {dt} and burn_in = {burn_in}")
    starts = _starts(system, key, num, options.pop("box", None), options.pop("dtype", None))
    times = np.linspace(-burn_in, 0.0, round(burn_in / dt) + 1)
    return march(system, starts, times, np.zeros(num), last_only=True, **options)[:, 0]


def agreement_horizon(
    system: System,
    trajectories: Trajectories,
    *,
    scale: Any,
    threshold: float = 0.4,
    **options: Any,
) -> Float[Array, " num"]:
    r"""How far each trajectory agrees with one of an independent method, Tsitouras' of order 5.

    The first relative time t on the grid at which
    $\sqrt{\mathrm{mean}_i\,(u_i - v_i)^2/\sigma_i^2}$ exceeds the threshold; the last time if
    it never does. A forecast cannot be scored past it.

    Args:
        system: the right-hand side that the trajectories follow.
        trajectories: what is asked about.
        scale: the standard deviation $\sigma$ of each component on the attractor, (dim,).
        threshold: the largest difference that counts as agreement.
        options: those of `trajectories_from`; `rtol` is 1e-13 in float64 by default.

    Returns:
        A time for each trajectory, relative to its first row.

    Raises:
        ValueError: `scale` is not dim positive numbers, or `threshold` is not positive.
    """
    ys, times = trajectories.ys, np.asarray(trajectories.ts, float)
    scale = check_scale(trajectories, scale, threshold)
    if ys.dtype == jnp.float64:
        options = {"rtol": 1e-13} | options
    t0s = np.asarray(trajectories.t0s, float)
    other = march(system, ys[:, 0], times, t0s, solver=diffrax.Tsit5(), **options)
    return first_disagreement(trajectories, other, scale, threshold)


def check_scale(trajectories: Trajectories, scale: Any, threshold: float) -> Float[Array, " dim"]:
    """The scale of a comparison as an array, if it and the threshold are positive."""
    ys = trajectories.ys
    scale = jnp.asarray(scale, ys.dtype)
    if scale.shape != ys.shape[2:] or not jnp.all(scale > 0) or not threshold > 0:
        raise ValueError(
            f"scale must be {ys.shape[2]} positive numbers and threshold positive, "
            f"got {scale} and {threshold}"
        )
    return scale


@eqx.filter_jit
def first_disagreement(
    trajectories: Trajectories, other: Array, scale: Float[Array, " dim"], threshold: float
) -> Float[Array, " num"]:
    """The relative time at which each trajectory is first too far from another, or the last."""
    ys = trajectories.ys
    relative = (ys - other) / jnp.broadcast_to(scale, ys.shape)
    apart = ~(jnp.sqrt(jnp.mean(relative**2, axis=2)) <= threshold)
    first = jnp.where(apart.any(axis=1), apart.argmax(axis=1), ys.shape[1] - 1)
    return trajectories.ts[first] - trajectories.ts[0]


def _starts(system: System, key: PRNGKeyArray, num: int, box: Any, dtype: Any) -> Array:
    if not isinstance(system, System):
        raise TypeError(f"system must be a System, got {type(system).__name__}")
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    low, high = (
        floating_array("box", [float(x) for x in corner], dtype)
        for corner in (system.box if box is None else box)
    )
    if low.shape != (system.dim,) or high.shape != (system.dim,) or not jnp.all(low <= high):
        raise ValueError(f"box must be corners (low, high) of {system.dim} numbers, got {box}")
    unit = jax.random.uniform(key, (num, system.dim), low.dtype)
    return low[None] + (high - low)[None] * unit
