"""What a step map does over time: rollouts, valid prediction time, Lyapunov spectra, climate.

The functions need only what a `StepMap` offers: `init`, `step`, `observe` and `dt`. They take any
leading axes as a batch and are compiled once for each set of shapes.
"""

from physml.dynamics._climate import (
    Climate,
    Distances,
    climate_distances,
    climate_floor,
    measure_climate,
)
from physml.dynamics._forecast import (
    ValidTime,
    error_growth,
    growth_rate,
    normalized_error,
    one_step_error,
    relative_l2,
    relative_l2_until,
    rollout,
    valid_prediction_time,
)
from physml.dynamics._lyapunov import LyapunovSpectrum, kaplan_yorke_dimension, lyapunov_spectrum
from physml.dynamics._skill import Skill, bootstrap, forecast_skill
from physml.dynamics._statistics import (
    hellinger,
    jensen_shannon,
    kullback_leibler,
    maxima,
    power_spectrum,
    return_map_error,
)

__all__ = [
    "Climate",
    "Distances",
    "LyapunovSpectrum",
    "Skill",
    "ValidTime",
    "bootstrap",
    "climate_distances",
    "climate_floor",
    "error_growth",
    "forecast_skill",
    "growth_rate",
    "hellinger",
    "jensen_shannon",
    "kaplan_yorke_dimension",
    "kullback_leibler",
    "lyapunov_spectrum",
    "maxima",
    "measure_climate",
    "normalized_error",
    "one_step_error",
    "power_spectrum",
    "relative_l2",
    "relative_l2_until",
    "return_map_error",
    "rollout",
    "valid_prediction_time",
]
