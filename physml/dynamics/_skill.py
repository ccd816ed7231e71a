"""The figures by which a forecaster is judged, all from one rollout, and their intervals."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from physml._numerics.calls import ask, checked
from physml._numerics.checks import (
    check_scale,
    require_count,
    require_finite,
    require_inner_share,
    require_positive,
)
from physml._numerics.units import max_of
from physml.dynamics._forecast import (
    ValidTime,
    errors_of,
    first_crossing,
    limit_of,
    one_step_error,
    rollout,
)
from physml.step_maps import StepMap


class Skill(NamedTuple):
    """How well a step map forecasts a set of true trajectories.

    Attributes:
        predicted: the forecasts, row 0 at their starts.
        eps1: the one-step error relative to the spread, over five steps of each trajectory, every
            one from true rows.
        times: the valid prediction times, in the units of `dt`.
        censored: which of them the truth's own horizon cut short.
        errors: the typical (median) error at each row.
        at: the valid prediction times at other thresholds, by threshold.
        diverged: which forecasts blow up or leave the attractor at any time.
    """

    predicted: Float[Array, "num steps dim"]
    eps1: Float[Array, ""]
    times: Float[Array, " num"]
    censored: Bool[Array, " num"]
    errors: Float[Array, " steps"]
    at: dict[float, ValidTime]
    diverged: Bool[Array, " num"]

    @checked
    def summary(self, unit: float = 1.0) -> dict[str, float]:
        """The figures of a table: eps1, mean, median and 5th percentile of the times, shares.

        The names of those at other thresholds hold the threshold, such as `vpt_mean_at_0.1`.

        Args:
            unit: the time that counts as one, such as a Lyapunov time.

        Raises:
            ValueError: the unit is not positive and finite.
        """
        require_positive(unit=unit)
        figures = {
            "eps1": float(self.eps1),
            **_percentiles(ValidTime(self.times, self.censored), unit),
            "diverged": float(np.asarray(self.diverged).mean()),
        }
        for threshold, valid in self.at.items():
            named = _percentiles(valid, unit)
            figures |= {f"{key}_at_{threshold:g}": value for key, value in named.items()}
        return figures


def _percentiles(valid: ValidTime, unit: float) -> dict[str, float]:
    times = np.asarray(valid.times) / unit
    return {
        "vpt_mean": float(times.mean()),
        "vpt_median": float(np.median(times)),
        "vpt_p5": float(np.percentile(times, 5)),
        "censored": float(np.asarray(valid.censored).mean()),
    }


@checked
def forecast_skill(
    step_map: StepMap,
    truth: Float[Array, "num time dim"],
    *,
    scale: Float[Array, " dim"],
    history: int = 1,
    threshold: float = 0.4,
    thresholds: Sequence[float] = (),
    horizon: ArrayLike | None = None,
    escape: float = 3.0,
    t0: ArrayLike = 0.0,
) -> Skill:
    """Forecasts of all true trajectories from their first rows to their ends, and their scores.

    Args:
        step_map: the map.
        truth: trajectories, rows `step_map.dt` apart.
        scale: the standard deviation of each component on the attractor.
        history: how many true rows the map sees first; a forecast starts from the last of them.
        threshold, horizon: as for `valid_prediction_time`; times count from a forecast's start.
        thresholds: other thresholds for valid prediction times.
        escape: a forecast has diverged if it is not finite, or if its largest distance from the
            truth's mean is more than this many times the truth's own largest distance, both as
            root mean squares in units of `scale`.
        t0: the time of each trajectory's first row, a scalar or one for each.

    Raises:
        ValueError: `history` leaves no row to forecast, or `escape` is not above 1; and as the
            functions that this one calls.
    """
    require_count(1, (truth.shape[1] - 1, "which leaves a row to forecast"), history=history)
    require_positive(
        threshold=threshold, **{f"thresholds[{i}]": x for i, x in enumerate(thresholds)}
    )
    if not 1 < escape < np.inf:
        raise ValueError(f"escape must be finite and above 1, got {escape}")
    require_finite("truth", truth)
    start = np.asarray(t0, truth.dtype) + (history - 1) * step_map.dt
    # A few steps of each trajectory are many together.
    seen, near, ahead = _cut(truth, history, history + 5)
    predicted = rollout(step_map, seen, ahead.shape[1] - 1, t0=start)
    eps1 = one_step_error(step_map, near, scale=scale, history=history, t0=t0)
    limit = limit_of(horizon, truth.shape[:1], truth.dtype)
    scale = check_scale(scale, truth.shape[2])
    limits = np.asarray([threshold, *thresholds], truth.dtype)
    errors, valid, diverged = _scored(predicted, ahead, scale, limits, step_map.dt, limit, escape)
    at = {other: ValidTime(*(x[i] for x in valid)) for i, other in enumerate(thresholds, start=1)}
    times, censored = (x[0] for x in valid)
    return Skill(predicted, eps1, times, censored, errors, at, diverged)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _cut(truth: Array, history: int, near: int) -> tuple[Array, Array, Array]:
    return truth[:, :history], truth[:, :near], truth[:, history - 1 :]


@jax.jit
def _scored(
    predicted: Array,
    truth: Array,
    scale: Array,
    thresholds: Array,
    dt: ArrayLike,
    limit: Array,
    escape: ArrayLike,
) -> tuple[Array, ValidTime, Array]:
    """The typical error, the valid times at each threshold, and what has diverged."""
    errors = errors_of(predicted, truth, scale)
    valid = jax.lax.map(lambda threshold: first_crossing(errors, threshold, dt, limit), thresholds)
    mean = truth.mean(axis=(0, 1))

    def farthest(ys: Array) -> Array:
        squares = ((ys - mean[None, None]) / scale[None, None]) ** 2
        return squares.mean(axis=-1).max(axis=-1)

    diverged = ~(farthest(predicted) <= escape**2 * max_of(farthest(truth)))
    return jnp.median(errors, axis=0), valid, diverged


@checked
def bootstrap(
    values: Float[Array | np.ndarray, "seeds starts"],
    generator: np.random.Generator,
    *,
    statistic: Callable[[np.ndarray], SupportsFloat] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """A percentile interval of a statistic whose values depend on random seeds and random starts.

    All seeds forecast from the same starts. So rows and columns are resampled, with replacement and
    independently of each other; entries of one row, or of one column, stay together because they
    depend on each other. The interval is rather too wide than too narrow. With one seed it covers
    only the choice of starts.

    Args:
        values: such as valid prediction times, a row for each seed.
        generator: the random numbers.
        statistic: a function of a matrix of values as a whole.
        level: the probability that the interval covers the statistic.
        resamples: the number of draws.

    Raises:
        ValueError: there are no values, the level is not in (0, 1), or `resamples` < 1.

    Source: A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007) 386.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values must have shape (seeds, starts), not empty, got {values.shape}")
    require_finite("values", values)
    require_inner_share(level=level)
    require_count(resamples=resamples)
    seeds, starts = values.shape

    def resampled(rows: np.ndarray) -> float:
        sample = values[rows][:, generator.integers(starts, size=starts)]
        found = ask("statistic", "statistic(values)", statistic, sample)
        if not isinstance(found, SupportsFloat) or np.ndim(np.asarray(found)):
            raise TypeError(f"statistic must return a number, got {found!r}")
        return float(found)

    drawn = [
        resampled(rows)
        for rows in (generator.integers(seeds, size=seeds) for _ in range(resamples))
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
