"""Partial differential equations solved by networks, in space and through time."""

from physml.pinn.space_time._pde import pde as pde
from physml.pinn.space_time._solution import PDESolution as PDESolution
from physml.pinn.space_time.boxes import BoxSolution as BoxSolution
from physml.pinn.space_time.boxes import OnGrid as OnGrid
from physml.pinn.space_time.boxes import on_grid as on_grid
