"""Equations solved by neural networks."""

from physml.pinn.ivp import solve as solve
