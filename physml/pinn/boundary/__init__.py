"""Boundary value problems: `pinn.solve_boundary`, `periodic_orbit`, `follow_branch`."""

from physml.pinn.boundary._branch import Branch as Branch
from physml.pinn.boundary._branch import follow_branch as follow_branch
from physml.pinn.boundary._periodic import periodic_orbit as periodic_orbit
from physml.pinn.boundary._solution import BoundarySolution as BoundarySolution
from physml.pinn.boundary._solve import solve_boundary as solve_boundary
