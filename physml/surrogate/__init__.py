"""Next-step maps: networks that learn y(t + dt) from y(t), without the equation.

The network gets standardised states and predicts the increment over a step in units of its spread:
a small and smooth function, to which the step adds the identity.
"""

from physml.surrogate._many import Scores, fit_many, refit_many, score_many
from physml.surrogate._rows import network_inputs
from physml.surrogate._stepper import Network, Stepper, StepperState
from physml.surrogate._training import StepperFit, fit, fit_readout

__all__ = [
    "Network",
    "Scores",
    "Stepper",
    "StepperFit",
    "StepperState",
    "fit",
    "fit_many",
    "fit_readout",
    "network_inputs",
    "refit_many",
    "score_many",
]
