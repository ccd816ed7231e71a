"""How a model is fitted: one loop, gradient descent, sweeps of it, least squares and a readout."""

from physml.fit import checkpoint
from physml.fit._parts import take_apart
from physml.fit.gradient import GradientStep, State, gradient, nonfinite
from physml.fit.least_squares import cramer_rao, least_squares
from physml.fit.loop import Augment, Callback, Outcome, Report, loop
from physml.fit.objective import mean_square
from physml.fit.projection import (
    ProjectionStep,
    VariableProjection,
    traced,
    variable_projection,
)
from physml.fit.readout import Readout, readout
from physml.fit.result import RESULTS, Fit, raise_if_interrupted
from physml.fit.schedule import Cosine, OneCycle, scheduled
from physml.fit.sweep import Sweep, sweep

__all__ = [
    "RESULTS",
    "Augment",
    "Callback",
    "Cosine",
    "Fit",
    "GradientStep",
    "OneCycle",
    "Outcome",
    "ProjectionStep",
    "Readout",
    "Report",
    "State",
    "Sweep",
    "VariableProjection",
    "checkpoint",
    "cramer_rao",
    "gradient",
    "least_squares",
    "loop",
    "mean_square",
    "nonfinite",
    "raise_if_interrupted",
    "readout",
    "scheduled",
    "sweep",
    "take_apart",
    "traced",
    "variable_projection",
]
