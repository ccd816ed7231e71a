"""How a model is fitted: one loop, gradient descent, sweeps of it, least squares and a readout."""

from physml._numerics.parts import take_apart
from physml._types import Loss
from physml.fit import checkpoint
from physml.fit._fit import Fit
from physml.fit._gradient import GradientStep, State, gradient, nonfinite
from physml.fit._least_squares import cramer_rao, least_squares
from physml.fit._loop import Augment, Callback, Outcome, Report, loop
from physml.fit._objective import mean_square
from physml.fit._projection import ProjectionStep, VariableProjection, traced, variable_projection
from physml.fit._readout import Readout, readout
from physml.fit._schedule import Cosine, OneCycle, scheduled
from physml.fit._sweep import Sweep, sweep

__all__ = [
    "Augment",
    "Callback",
    "Cosine",
    "Fit",
    "GradientStep",
    "Loss",
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
    "readout",
    "scheduled",
    "sweep",
    "take_apart",
    "traced",
    "variable_projection",
]
