"""How a model is fitted: one loop, gradient descent, least squares and a linear readout."""

from physml.fit.gradient import Fit, State, gradient
from physml.fit.loop import RESULTS, Outcome, Report, loop
from physml.fit.objective import mean_square
from physml.fit.readout import Readout, readout

__all__ = [
    "RESULTS",
    "Fit",
    "Outcome",
    "Readout",
    "Report",
    "State",
    "gradient",
    "loop",
    "mean_square",
    "readout",
]
