"""Next-step maps: networks that learn y(t + dt) from y(t), and never see the equation.

The network predicts the increment over a step in units of its spread, from standardised inputs;
what it learns is small and smooth, and the identity comes for free.
"""

from physml.surrogate._many import Regularised, Scores, fit_many, refit_many, score_many
from physml.surrogate._stepper import State, Stepper, network_inputs, turns
from physml.surrogate._training import SurrogateFit, fit, fit_readout

__all__ = [
    "Regularised",
    "Scores",
    "State",
    "Stepper",
    "SurrogateFit",
    "fit",
    "fit_many",
    "fit_readout",
    "network_inputs",
    "refit_many",
    "score_many",
    "turns",
]
