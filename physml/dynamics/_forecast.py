"""Forecasts by a step map, and how long and how well they hold."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, DTypeLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import (
    check_scale,
    is_concrete,
    require_count,
    require_finite,
    require_not_negative,
    require_positive,
)
from physml._numerics.compiled import watched
from physml._numerics.devices import for_each_chunk, num_cores, on_one_cpu
from physml.dynamics._batch import flatten, per_item, time_series
from physml.step_maps import StepMap

# Forecasts that are computed as one state on a CPU. XLA's products of 64 rows or more round as
# those of a whole batch do; those of fewer rows may not.
_CHUNK = 64


class ValidTime(NamedTuple):
    """How long forecasts stay good.

    Attributes:
        times: the valid prediction times, in the units of `dt`.
        censored: whether the forecast was still good when the truth ended, so that its time is a
            lower bound.
    """

    times: Float[Array, "*batch"]
    censored: Bool[Array, "*batch"]


@checked
def rollout(
    step_map: StepMap,
    history: Float[Array, "*batch time dim"],
    num_steps: int,
    *,
    t0: ArrayLike = 0.0,
) -> Float[Array, "*batch steps dim"]:
    """Forecast `num_steps` steps from the end of each observed history.

    Row k is `observe(step^k(init(history, t0)))`, the forecast at time t0 + k dt; row 0 repeats the
    last observation. The rollout is one compiled scan, vmapped over the leading axes. Histories
    that are divided among devices are forecast where they lie. A forecast that diverges continues
    with inf and NaN without an error and does not change the others of its batch.

    Args:
        step_map: the map.
        history: observations `step_map.dt` apart, oldest first; one row is enough for a map
            without memory.
        num_steps: how many steps, zero or more.
        t0: the time of each history's last row, a scalar or one for each history.

    Returns:
        An array (*batch, num_steps + 1, dim), in the coordinates of `observe`.

    Raises:
        ValueError: the history has no time axis, no rows or values that are not finite, `t0` does
            not fit its batch, or `num_steps` is negative.
    """
    require_count(0, num_steps=num_steps)
    histories, t0s, batch = flatten(history, t0)
    concrete = all(is_concrete(x) for x in (t0s, *jax.tree.leaves((step_map, histories))))
    if concrete and len(histories) > _CHUNK and on_one_cpu(histories):
        ys = _rollout_in_chunks(step_map, histories, t0s, num_steps)
    else:
        ys = _rollout(step_map, histories, t0s, num_steps)
    return ys.reshape(*batch, *ys.shape[1:])


def _rollout_in_chunks(step_map: StepMap, histories: Array, t0s: Array, num_steps: int) -> Array:
    """`_rollout` on all cores: XLA runs the body of a loop on one."""
    starts, times = np.asarray(histories), np.asarray(t0s)
    found: dict[int, np.ndarray] = {}

    def work(index: np.ndarray, rows: slice) -> None:
        ys = _rollout(step_map, starts[index], times[index], num_steps)
        found[rows.start] = np.asarray(ys)[: rows.stop - rows.start]

    for_each_chunk(work, len(histories), _CHUNK, num_cores())
    return jnp.asarray(np.concatenate([found[first] for first in sorted(found)]))


@watched
@eqx.filter_jit
def _rollout(
    step_map: StepMap, histories: Array | np.ndarray, t0s: Array | np.ndarray, num_steps: int
) -> Array:
    def forecast(history, t0):
        def advance(state, _):
            state = step_map.step(state)
            return state, step_map.observe(state)

        start = step_map.init(history, t0)
        _, ys = jax.lax.scan(advance, start, length=num_steps)
        return jnp.concatenate([step_map.observe(start)[None], ys])

    return jax.vmap(forecast)(histories, t0s)


@checked
def one_step_error(
    step_map: StepMap,
    ys: Float[Array, "*batch time dim"],
    *,
    scale: Float[Array, " dim"],
    history: int = 1,
    t0: ArrayLike = 0.0,
) -> Float[Array, ""]:
    """eps1, the root-mean-square error of one step relative to the spread of the data.

    eps1^2 = mean over k and i of ((step(y_k)_i - y_{k+1,i}) / scale_i)^2. Each step starts from the
    true rows y_{k-history+1} .. y_k.

    Args:
        step_map: the map.
        ys: true trajectories, rows `step_map.dt` apart.
        scale: the standard deviation of each component on the attractor.
        history: how many true rows the map sees before it steps (a recurrent map's warm-up).
        t0: the time of each trajectory's first row, a scalar or one for each trajectory.

    Raises:
        ValueError: the trajectories are not finite or no longer than `history`, or the shapes do
            not fit.
    """
    trajectories, t0s, _ = flatten(ys, t0, name="ys")
    *_, rows, dim = trajectories.shape
    scale = check_scale(scale, dim)
    require_count(1, (rows - 1, "which leaves a row to forecast"), history=history)
    return _one_step_error(step_map, trajectories, t0s, scale, history)


@watched
@eqx.filter_jit
def _one_step_error(
    step_map: StepMap, trajectories: Array, t0s: Array, scale: Array, history: int
) -> Array:
    num, rows, _ = trajectories.shape

    def square(item):
        index, first = item
        window = jax.lax.dynamic_slice_in_dim(trajectories[index], first, history)
        t = t0s[index] + (first + history - 1).astype(t0s.dtype) * step_map.dt
        following = step_map.observe(step_map.step(step_map.init(window, t)))
        return (((following - trajectories[index, first + history]) / scale) ** 2).mean()

    windows = jnp.meshgrid(jnp.arange(num), jnp.arange(rows - history), indexing="ij")
    items = tuple(axis.reshape(-1) for axis in windows)
    # Block by block, so that a wide network's features of all windows are never held at once.
    return jnp.sqrt(jax.lax.map(square, items, batch_size=4096).mean())


@checked
def normalised_error(
    predicted: Float[Array, "*batch time dim"],
    truth: Float[Array, "*batch time dim"],
    scale: Float[Array, " dim"],
) -> Float[Array, "*batch time"]:
    """sqrt(mean_i ((predicted_i - truth_i) / scale_i)^2), inf where the prediction is not finite.

    Args:
        predicted: forecasts; rows may have diverged to inf or NaN.
        truth: the truth on the same rows.
        scale: the standard deviation of each component on the attractor.

    Raises:
        ValueError: the shapes differ or are empty, the truth is not finite, or the scale is not
            positive.
    """
    predicted, truth = _pair(predicted, truth)
    return errors_of(predicted, truth, check_scale(scale, truth.shape[-1]))


@jax.jit
def errors_of(predicted: Array, truth: Array, scale: Array) -> Array:
    """`normalised_error` of what is checked already."""
    spread = scale.reshape((1,) * (truth.ndim - 1) + (-1,))
    errors = jnp.sqrt((((predicted - truth) / spread) ** 2).mean(axis=-1))
    return jnp.where(jnp.isnan(errors), jnp.inf, errors)


def _pair(predicted: Array, truth: Array) -> tuple[Array, Array]:
    """Both as arrays of one shape (*batch, time, dim), the truth finite."""
    predicted, truth = time_series("predicted", predicted), time_series("truth", truth)
    if predicted.shape != truth.shape:
        raise ValueError(
            f"predicted must have the truth's shape {truth.shape}, got {predicted.shape}"
        )
    require_finite("truth", truth)
    return predicted, truth


@checked
def relative_l2(
    predicted: Float[Array, "*batch time dim"], truth: Float[Array, "*batch time dim"]
) -> Float[Array, "*batch dim"]:
    """||predicted_i - truth_i|| / ||truth_i|| over the rows, for each component i.

    PINN benchmarks report the worst component of it.

    Args:
        predicted: a solution; where it is not finite, so is the result.
        truth: the truth on the same rows, nowhere zero for a whole component.

    Raises:
        ValueError: the shapes differ or are empty, or the truth is not finite.
    """
    return _relative_l2(*_pair(predicted, truth))


@jax.jit
def _relative_l2(predicted: Array, truth: Array) -> Array:
    return jnp.linalg.norm(predicted - truth, axis=-2) / jnp.linalg.norm(truth, axis=-2)


@checked
def relative_l2_until(
    predicted: Float[Array, "time dim"],
    truth: Float[Array, "time dim"],
    dt: float,
    ends: Sequence[int | float],
) -> dict[int | float, float]:
    """`relative_l2` of the worst component on [0, T] for each T, which PINN benchmarks print.

    Args:
        predicted: a solution, row 0 at time 0.
        truth: the truth on the same rows.
        dt: the time between rows.
        ends: the times T, each near one of the rows'.

    Raises:
        ValueError: as `relative_l2`, or an end lies outside of the rows.
    """
    require_positive(dt=dt)
    last = dt * (truth.shape[0] - 1)
    counts = {end: round(end / dt) + 1 for end in ends}
    for end, count in counts.items():
        if not 1 < count <= truth.shape[0]:
            raise ValueError(f"ends must be in (0, {last:g}], the time of the rows, got {end}")
    # On the host, where the rows of each end are no program of their own.
    ours, true = (np.asarray(x) for x in _pair(predicted, truth))
    norms = {n: np.linalg.norm((ours - true)[:n], axis=0) for n in counts.values()}
    return {
        end: float((norms[n] / np.linalg.norm(true[:n], axis=0)).max()) for end, n in counts.items()
    }


@checked
def valid_prediction_time(
    predicted: Float[Array, "*batch time dim"],
    truth: Float[Array, "*batch time dim"],
    dt: float,
    *,
    scale: Float[Array, " dim"],
    threshold: float = 0.4,
    horizon: ArrayLike | None = None,
) -> ValidTime:
    """The time until a forecast's error first passes the threshold.

    The first grid time t_k = k dt with sqrt(mean_i ((predicted_i - truth_i)^2 / scale_i^2)) >
    threshold; a row that is not finite has passed it. Nothing is interpolated. The time of a
    forecast that outlives the truth is the truth's horizon, marked as censored. Divide by the
    Lyapunov time 1 / lambda_1 to compare systems.

    Args:
        predicted: forecasts, row 0 at the start.
        truth: the truth on the same rows.
        dt: the time between rows.
        scale: the standard deviation of each component on the attractor.
        threshold: the error that is too large, as a share of `scale`.
        horizon: the time until which the truth can be trusted, a scalar or one for each forecast;
            by default, and at most, the last row's.

    Raises:
        ValueError: the shapes do not fit, the truth is not finite, or a number is not positive.
    """
    require_positive(dt=dt, threshold=threshold)
    errors = normalised_error(predicted, truth, scale)
    limit = limit_of(horizon, errors.shape[:-1], errors.dtype)
    return first_crossing(errors, threshold, dt, limit)


def limit_of(horizon: ArrayLike | None, batch: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A horizon for each forecast; infinite where none is given."""
    if horizon is None:
        horizon = math.inf
    else:
        require_positive(horizon=horizon)
    return per_item("horizon", horizon, batch, dtype)


@jax.jit
def first_crossing(errors: Array, threshold: ArrayLike, dt: ArrayLike, limit: Array) -> ValidTime:
    """When errors (*batch, time) first pass the threshold, at most the limit."""
    # The last row's time is rounded as every row's is, so a crossing there is not censored.
    times = jnp.arange(errors.shape[-1]).astype(errors.dtype) * dt
    limit = jnp.minimum(limit, times[-1])
    wrong = errors > threshold
    crossing = jnp.where(wrong.any(axis=-1), times[jnp.argmax(wrong, axis=-1)], jnp.inf)
    return ValidTime(jnp.minimum(crossing, limit), crossing > limit)


@checked
def error_growth(
    predicted: Float[Array, "*batch time dim"],
    truth: Float[Array, "*batch time dim"],
    scale: Float[Array, " dim"],
) -> Float[Array, " time"]:
    """The typical error of a set of forecasts at each row: the median of `normalised_error`.

    The median of errors that grow as exp(lambda_1 t) grows at that rate too, and neither a lucky
    forecast nor one that has diverged changes it; the worst forecast would dominate a mean. Where
    more than half have diverged it is inf.

    Args:
        predicted: forecasts; rows may have diverged to inf or NaN.
        truth: the truth on the same rows.
        scale: the standard deviation of each component on the attractor.

    Raises:
        ValueError: as `normalised_error`.
    """
    errors = normalised_error(predicted, truth, scale)
    return jnp.median(errors.reshape(-1, errors.shape[-1]), axis=0)


@checked
def growth_rate(
    errors: Float[Array, " time"], dt: float, *, floor: float | None = None, ceiling: float = 0.1
) -> Float[Array, ""]:
    """The exponential rate at which errors grow: the least-squares slope of log(error) over time.

    The fit uses the rows from the first one above `floor` to the last one before the error first
    passes `ceiling`: after the noise at the start, and before the error saturates at the
    attractor's size. For the forecasts of a good map the slope is the largest Lyapunov exponent.

    Args:
        errors: a typical error at each row, from `error_growth`.
        dt: the time between rows.
        floor: the largest error that counts as noise; by default ten times the first one above 0.
        ceiling: the error at which saturation begins, as a share of the attractor's spread.

    Raises:
        ValueError: fewer than three rows lie between floor and ceiling, or `dt` is not positive.
    """
    require_positive(dt=dt, ceiling=ceiling)
    if floor is not None:
        require_not_negative(floor=floor)
    values = np.asarray(errors)
    if floor is None:
        floor = 10.0 * float(values[values > 0][0]) if (values > 0).any() else 0.0
    above, over = values > floor, values > ceiling
    first = int(np.argmax(above)) if above.any() else len(values)
    last = int(np.argmax(over)) if over.any() else len(values)
    if last - first < 3:
        raise ValueError(
            f"errors must have three rows between floor {floor:.2g} and ceiling {ceiling:.2g}, "
            f"got {max(last - first, 0)}"
        )
    ts = dt * np.arange(first, last)
    return jnp.asarray(np.polyfit(ts, np.log(values[first:last]), 1)[0], errors.dtype)
