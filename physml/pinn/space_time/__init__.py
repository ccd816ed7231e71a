"""Partial differential equations solved by networks, in space and through time."""

from physml.pinn.space_time._pde import pde as pde
from physml.pinn.space_time._solution import PDESolution as PDESolution
