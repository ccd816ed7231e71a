"""Boundary value problems: `pinn.solve_boundary`, `pinn.periodic_orbit`."""

from physml.pinn.boundary._periodic import periodic_orbit as periodic_orbit
from physml.pinn.boundary._solution import BoundarySolution as BoundarySolution
from physml.pinn.boundary._solve import solve_boundary as solve_boundary
