"""The figures by which a forecaster is judged, all from one rollout."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from physml._types import StepMap
from physml.dynamics.forecast import (
    error_growth,
    one_step_error,
    rollout,
    valid_prediction_time,
)


class Skill(NamedTuple):
    """How well a step map forecasts a set of true trajectories.

    Attributes:
        predicted: the forecasts, row 0 at their starts.
        eps1: the one-step error relative to the spread, over each forecast's first five steps,
            every one made from true rows.
        times: the valid prediction times, in the units of `dt`.
        censored: which of them the truth's own horizon cut short.
        errors: the typical (median) error at each row.
    """

    predicted: Float[Array, "num steps dim"]
    eps1: Float[Array, ""]
    times: Float[Array, " num"]
    censored: Bool[Array, " num"]
    errors: Float[Array, " steps"]

    def summary(self, unit: float = 1.0) -> dict[str, float]:
        """The figures of a table: eps1, mean, median and 5th percentile of times, share censored.

        Args:
            unit: the time that counts as one, such as a Lyapunov time.
        """
        times = np.asarray(self.times) / unit
        return {
            "eps1": float(self.eps1),
            "vpt_mean": float(times.mean()),
            "vpt_median": float(np.median(times)),
            "vpt_p5": float(np.percentile(times, 5)),
            "censored": float(jnp.mean(self.censored.astype(self.times.dtype))),
        }


def forecast_skill(
    step_map: StepMap,
    truth: Float[Array, "num time dim"],
    *,
    scale: Float[Array, " dim"],
    history: int = 1,
    threshold: float = 0.4,
    horizon: ArrayLike | None = None,
    t0: ArrayLike = 0.0,
) -> Skill:
    """Forecast every true trajectory from its first rows to its end, and score the forecasts.

    Args:
        step_map: the map.
        truth: trajectories, rows `step_map.dt` apart.
        scale: the standard deviation of each component on the attractor.
        history: how many true rows the map sees first; the last of them is where a forecast starts.
        threshold, horizon: as for `valid_prediction_time`; times count from a forecast's start.
        t0: the time of each trajectory's first row, a scalar or one for each.

    Raises:
        ValueError: `history` leaves no row to forecast; and as the functions that this one calls.
    """
    if not 1 <= history < truth.shape[1]:
        raise ValueError(
            f"history must be at least 1 and less than the {truth.shape[1]} rows; got {history}"
        )
    start = jnp.asarray(t0, truth.dtype) + (history - 1) * step_map.dt
    ahead = truth[:, history - 1 :]
    predicted = rollout(step_map, truth[:, :history], ahead.shape[1] - 1, t0=start)
    valid = valid_prediction_time(
        predicted, ahead, step_map.dt, scale=scale, threshold=threshold, horizon=horizon
    )
    near = truth[:, : history + 5]  # a few steps of each trajectory are many together
    return Skill(
        predicted,
        one_step_error(step_map, near, scale=scale, history=history, t0=t0),
        valid.times,
        valid.censored,
        error_growth(predicted, ahead, scale),
    )
