"""Batches of accurate trajectories on a uniform grid, and how far they can be trusted."""

from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from physml._numerics import checks
from physml._numerics.calls import checked
from physml._types import Numbers
from physml.data import Trajectories
from physml.reference._march import march
from physml.systems import System


@checked
def trajectories(
    system: System,
    key: PRNGKeyArray,
    num: int,
    ts: Numbers,
    *,
    box: Numbers | None = None,
    dtype: DTypeLike | None = None,
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

        >>> ts = jnp.linspace(0, 8, 801)
        >>> reference.trajectories(systems.Lorenz(), key, 100, ts).pairs().inputs.shape
        (80000, 3)
    """
    return trajectories_from(system, _starts(system, key, num, box, dtype), ts, **options)


@checked
def driven_trajectories(
    system: System,
    key: PRNGKeyArray,
    num: int,
    ts: Numbers,
    *,
    phase_dtype: DTypeLike = float,
    **options: Any,
) -> Trajectories:
    """`trajectories` of a driven system, from random starts at random phases of the drive.

    Args:
        system: the right-hand side, with a period T.
        key: a random key for the starts and the phases.
        num: the number of trajectories.
        ts: uniform increasing times, counted from each trajectory's own t0, which is in [0, T).
        phase_dtype: of the random t0; float32 makes phases that both precisions can hold.
        options: those of `trajectories`.

    Raises:
        ValueError: the system has no period.
    """
    if system.period is None:
        raise ValueError(f"system must have a period, got {type(system).__name__} without one")
    checks.require_count(num=num)
    start, phase = jax.random.split(key)
    t0s = jax.random.uniform(phase, (num,), phase_dtype, maxval=float(system.period))
    return trajectories(system, start, num, ts, t0s=t0s, **options)


@checked
def trajectories_from(
    system: System,
    y0s: Numbers,
    ts: Numbers,
    *,
    t0s: Numbers | None = None,
    args: PyTree = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_substeps: int = 1000,
    chunk: int | None = None,
    devices: Sequence[object] | None = None,
    throw: bool = True,
) -> Trajectories:
    r"""Trajectories from given starts; the solver steps exactly to every time of the grid.

    Every interval of the grid is divided into as many equal steps of Dormand and Prince's
    method of order 8 as keep the sum of their embedded error estimates below
    `rtol |y|` in each component. This bounds the error of one step of the grid: the
    estimate is that of a method of order 7, and the error is some ten times smaller.

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
        rtol, atol: tolerances of one step of the grid; `rtol` is 1e-12 in float64 and 1e-5 in
            float32. With `atol`, in the units of the state, `atol + rtol |y|` is allowed; without,
            |y| is the larger one of the step's two ends.
        max_substeps: the number of steps in an interval of the grid at which a trajectory
            counts as failed.
        chunk: trajectories in a chunk at most; by default 512 on a CPU, 32768 on an accelerator.
        devices: the trajectories are shared out among these, for instance `jax.devices()`, and stay
            there, divided along their first axis if the devices divide their number.
        throw: raise if trajectories fail; otherwise warn, and their rows are NaN from there on.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape, order or precision.
        RuntimeError: trajectories diverged or could not be followed; the message names them.
    """
    y0s, times = check_starts(y0s, ts)
    starts = np.zeros(len(y0s)) if t0s is None else np.asarray(t0s, float)
    checks.require_finite("t0s", starts)
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
        devices=devices,
        throw=throw,
    )
    return Trajectories(
        jnp.asarray(times, ys.dtype),
        ys,
        jnp.asarray(starts, ys.dtype),
        system.state_names,
        type(system).__name__,
    )


def check_starts(y0s: Numbers, ts: Numbers) -> tuple[Float[Array, "num dim"], np.ndarray]:
    """Starts of a batch as an array, and its uniform times in float64, both checked."""
    y0s = checks.floating_array("y0s", y0s)
    checks.require_finite("y0s", y0s)
    if y0s.ndim != 2 or y0s.shape[0] == 0:
        raise ValueError(f"y0s must have shape (num, dim) with num >= 1, got {y0s.shape}")
    times = np.asarray(ts, float)
    checks.require_uniform("ts", times)
    return y0s, times


@checked
def attractor_starts(
    system: System,
    key: PRNGKeyArray,
    num: int,
    burn_in: float = 20.0,
    dt: float = 0.01,
    **options: Any,
) -> Float[Array, "num dim"]:
    """States on the attractor: where random starts in the box are after the time `burn_in`.

    A driven system starts at the time `-burn_in`, so that its states are those at time 0.

    Args:
        system: the right-hand side.
        key: a random key for the starts.
        num: the number of states.
        burn_in: how long to wait, in time units.
        dt: the grid on which the error is controlled.
        options: `box` and `dtype` as for `trajectories`, the others as for `trajectories_from`.
    """
    checks.require_positive(dt=dt, burn_in=burn_in)
    if dt > burn_in:
        raise ValueError(f"burn_in must be at least dt = {dt}, got {burn_in}")
    starts = _starts(system, key, num, options.pop("box", None), options.pop("dtype", None))
    times = np.linspace(-burn_in, 0.0, round(burn_in / dt) + 1)
    return march(system, starts, times, np.zeros(num), last_only=True, **options)[:, 0]


@checked
def agreement_horizon(
    system: System,
    trajectories: Trajectories,
    *,
    scale: Numbers,
    threshold: float = 0.4,
    **options: Any,
) -> Float[Array, " num"]:
    r"""How long each trajectory agrees with that of an independent method, Tsitouras' of order 5.

    The first relative time t on the grid at which
    $\sqrt{\mathrm{mean}_i\,(u_i - v_i)^2/\sigma_i^2}$ exceeds the threshold; the last time if
    it never does. Past that time the trajectory is no truth to score a forecast with.

    Args:
        system: the right-hand side that the trajectories follow.
        trajectories: those that are examined.
        scale: the standard deviation $\sigma$ of each component on the attractor, (dim,).
        threshold: the largest difference that counts as agreement.
        options: those of `trajectories_from`; `rtol` is 1e-13 in float64 by default.

    Returns:
        A time for each trajectory, relative to its first row.

    Raises:
        ValueError: `scale` is not dim positive numbers, or `threshold` is not positive.
    """
    ys, times = trajectories.ys, np.asarray(trajectories.ts, float)
    scale = checks.check_scale(scale, ys.shape[2], ys.dtype)
    checks.require_positive(threshold=threshold)
    if ys.dtype == jnp.float64:
        options = {"rtol": 1e-13} | options
    t0s = np.asarray(trajectories.t0s, float)
    other = march(system, ys[:, 0], times, t0s, solver=diffrax.Tsit5(), **options)
    return first_disagreement(trajectories, other, scale, threshold)


@eqx.filter_jit
def first_disagreement(
    trajectories: Trajectories, other: Array, scale: Float[Array, " dim"], threshold: float
) -> Float[Array, " num"]:
    """The relative time at which each trajectory is first too far from the other, or the last."""
    ys = trajectories.ys
    relative = (ys - other) / jnp.broadcast_to(scale, ys.shape)
    apart = ~(jnp.sqrt(jnp.mean(relative**2, axis=2)) <= threshold)
    first = jnp.where(apart.any(axis=1), apart.argmax(axis=1), ys.shape[1] - 1)
    return trajectories.ts[first] - trajectories.ts[0]


def _starts(
    system: System, key: PRNGKeyArray, num: int, box: Numbers | None, dtype: DTypeLike | None
) -> Float[Array, "num dim"]:
    checks.require_count(num=num)
    corners = np.asarray(system.box if box is None else box, float)
    if corners.shape != (2, system.dim) or not np.all(corners[0] <= corners[1]):
        raise ValueError(f"box must be corners (low, high) of {system.dim} numbers, got {box}")
    # On the host, where nothing small is to be compiled.
    low, high = np.asarray(checks.floating_array("box", corners.tolist(), dtype))
    unit = np.asarray(jax.random.uniform(key, (num, system.dim), low.dtype))
    return jnp.asarray(low + (high - low) * unit)
