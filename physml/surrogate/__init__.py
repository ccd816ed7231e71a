"""Next-step maps: networks that learn y(t + dt) from y(t), without the equation.

The network gets standardised states and predicts the increment over a step in units of its spread:
a small and smooth function, to which the step adds the identity.
"""

from physml.surrogate._many import Scores as Scores
from physml.surrogate._many import fit_many as fit_many
from physml.surrogate._many import refit_many as refit_many
from physml.surrogate._many import score_many as score_many
from physml.surrogate._rows import network_inputs as network_inputs
from physml.surrogate._stepper import Network as Network
from physml.surrogate._stepper import Stepper as Stepper
from physml.surrogate._stepper import StepperState as StepperState
from physml.surrogate._training import StepperFit as StepperFit
from physml.surrogate._training import fit as fit
from physml.surrogate._training import fit_readout as fit_readout
