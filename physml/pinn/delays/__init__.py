"""Equations with delays, by steps: from their history, leg after leg."""

from physml.pinn.delays._solve import solve_delays as solve_delays
