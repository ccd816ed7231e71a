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

__all__ = [
    "LyapunovSpectrum",
    "ValidTime",
    "error_growth",
    "growth_rate",
    "kaplan_yorke_dimension",
    "lyapunov_spectrum",
    "normalized_error",
    "one_step_error",
    "relative_l2",
    "rollout",
    "valid_prediction_time",
]
