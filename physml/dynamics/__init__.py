"""What a step map does over time: rollouts, valid prediction time, error growth, Lyapunov spectra.

Everything here asks only what a `StepMap` offers: `init`, `step`, `observe` and `dt`. The functions
take any leading axes as a batch and are compiled once for each set of shapes.
"""

from physml.dynamics.forecast import (
    ValidTime,
    error_growth,
    growth_rate,
    normalized_error,
    one_step_error,
    relative_l2,
    rollout,
    valid_prediction_time,
)
from physml.dynamics.lyapunov import (
    LyapunovSpectrum,
    kaplan_yorke_dimension,
    lyapunov_spectrum,
)
from physml.dynamics.skill import Skill, forecast_skill

__all__ = [
    "LyapunovSpectrum",
    "Skill",
    "ValidTime",
    "error_growth",
    "forecast_skill",
    "growth_rate",
    "kaplan_yorke_dimension",
    "lyapunov_spectrum",
    "normalized_error",
    "one_step_error",
    "relative_l2",
    "rollout",
    "valid_prediction_time",
]
