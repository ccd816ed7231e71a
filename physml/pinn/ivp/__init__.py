"""An initial value problem solved by networks, window after window."""

from physml.pinn.ivp._sensitivity import flow as flow
from physml.pinn.ivp._solve import solve as solve
