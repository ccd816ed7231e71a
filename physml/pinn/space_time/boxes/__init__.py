"""Partial differential equations in two coordinates of space and time, by lines."""

from physml.pinn.space_time.boxes._on_grid import OnGrid as OnGrid
from physml.pinn.space_time.boxes._on_grid import on_grid as on_grid
from physml.pinn.space_time.boxes._solution import BoxSolution as BoxSolution
from physml.pinn.space_time.boxes._solve import solve_box as solve_box
