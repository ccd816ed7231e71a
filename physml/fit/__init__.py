"""How a model is fitted: one loop, gradient descent, sweeps of it, least squares and a readout."""

from physml.fit import checkpoint
from physml.fit.gradient import State, gradient
from physml.fit.least_squares import least_squares
from physml.fit.loop import Callback, Outcome, Report, loop
from physml.fit.objective import mean_square
from physml.fit.readout import Readout, readout
from physml.fit.result import RESULTS, Fit
from physml.fit.sweep import Sweep, sweep

__all__ = [
    "RESULTS",
    "Callback",
    "Fit",
    "Outcome",
    "Readout",
    "Report",
    "State",
    "Sweep",
    "checkpoint",
    "gradient",
    "least_squares",
    "loop",
    "mean_square",
    "readout",
    "sweep",
]
