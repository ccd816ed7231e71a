"""How a model is fitted: one loop, gradient descent, sweeps of it, least squares and a readout."""

from physml._types import Loss as Loss
from physml.fit import checkpoint as checkpoint
from physml.fit._chunks import Augment as Augment
from physml.fit._fit import Fit as Fit
from physml.fit._gradient import FitState as FitState
from physml.fit._gradient import GradientStep as GradientStep
from physml.fit._gradient import gradient as gradient
from physml.fit._gradient import nonfinite as nonfinite
from physml.fit._least_squares import cramer_rao as cramer_rao
from physml.fit._least_squares import least_squares as least_squares
from physml.fit._loop import Callback as Callback
from physml.fit._loop import Report as Report
from physml.fit._loop import loop as loop
from physml.fit._objective import mean_square as mean_square
from physml.fit._projection import ProjectionStep as ProjectionStep
from physml.fit._projection import VariableProjection as VariableProjection
from physml.fit._projection import variable_projection as variable_projection
from physml.fit._readout import Readout as Readout
from physml.fit._readout import readout as readout
from physml.fit._schedule import Cosine as Cosine
from physml.fit._schedule import OneCycle as OneCycle
from physml.fit._schedule import scheduled as scheduled
from physml.fit._sweep import Sweep as Sweep
from physml.fit._sweep import sweep as sweep
