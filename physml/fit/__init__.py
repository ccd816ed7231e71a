"""How a model is fitted: one loop, gradient descent, sweeps of it, least squares and a readout."""

from physml._types import Loss
from physml.fit import checkpoint
from physml.fit._chunks import Augment
from physml.fit._fit import Fit
from physml.fit._gradient import FitState as FitState
from physml.fit._gradient import GradientStep as GradientStep
from physml.fit._gradient import gradient
from physml.fit._gradient import nonfinite as nonfinite
from physml.fit._least_squares import cramer_rao, least_squares
from physml.fit._loop import Callback, Report, loop
from physml.fit._objective import mean_square
from physml.fit._projection import ProjectionStep as ProjectionStep
from physml.fit._projection import VariableProjection, variable_projection
from physml.fit._readout import Readout, readout
from physml.fit._schedule import Cosine, OneCycle, scheduled
from physml.fit._sweep import Sweep, sweep

__all__ = [
    "Augment",
    "Callback",
    "Cosine",
    "Fit",
    "Loss",
    "OneCycle",
    "Readout",
    "Report",
    "Sweep",
    "VariableProjection",
    "checkpoint",
    "cramer_rao",
    "gradient",
    "least_squares",
    "loop",
    "mean_square",
    "readout",
    "scheduled",
    "sweep",
    "variable_projection",
]
