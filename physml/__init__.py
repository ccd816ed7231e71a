"""Physics-informed machine learning for ordinary differential equations, in JAX and Flax."""

from physml import classify as classify
from physml import convolution as convolution
from physml import data as data
from physml import dynamics as dynamics
from physml import fit as fit
from physml import neuron as neuron
from physml import nn as nn
from physml import pinn as pinn
from physml import reference as reference
from physml import residuals as residuals
from physml import results as results
from physml import solution as solution
from physml import step_maps as step_maps
from physml import surrogate as surrogate
from physml import systems as systems
