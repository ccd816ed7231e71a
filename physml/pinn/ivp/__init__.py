"""An initial value problem solved by networks, window after window."""

from physml.pinn.ivp._solve import solve as solve
