"""Equations with constraints: `pinn.solve_constrained`, `pinn.consistent_start`."""

from physml.pinn.constraints._solution import StatesAndRates as StatesAndRates
from physml.pinn.constraints._solve import solve_constrained as solve_constrained
from physml.pinn.constraints._start import ConsistentStart as ConsistentStart
from physml.pinn.constraints._start import consistent_start as consistent_start
