"""Accurate solutions and batches of trajectories by Diffrax, and how far both can be trusted."""

from physml.reference._batch import agreement_horizon as agreement_horizon
from physml.reference._batch import attractor_starts as attractor_starts
from physml.reference._batch import driven_trajectories as driven_trajectories
from physml.reference._batch import trajectories as trajectories
from physml.reference._batch import trajectories_from as trajectories_from
from physml.reference._cole_hopf import cole_hopf as cole_hopf
from physml.reference._extended import extended_horizon as extended_horizon
from physml.reference._extended import extended_trajectories as extended_trajectories
from physml.reference._flow import FlowMap as FlowMap
from physml.reference._flow import RungeKutta4 as RungeKutta4
from physml.reference._flow import runge_kutta as runge_kutta
from physml.reference._initial_value import dopri8 as dopri8
from physml.reference._initial_value import solve as solve
from physml.reference._pde import reaction_diffusion as reaction_diffusion
from physml.reference._taylor import TaylorFlow as TaylorFlow
