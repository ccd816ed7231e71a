"""Accurate solutions and batches of trajectories by Diffrax, and how far both can be trusted."""

from physml.reference._batch import (
    agreement_horizon,
    attractor_starts,
    driven_trajectories,
    trajectories,
    trajectories_from,
)
from physml.reference._extended import TaylorFlow, extended_horizon, extended_trajectories
from physml.reference._flow import FlowMap, RungeKutta4, runge_kutta
from physml.reference._initial_value import dopri8, solve
from physml.reference._pde import cole_hopf, reaction_diffusion

__all__ = [
    "FlowMap",
    "RungeKutta4",
    "TaylorFlow",
    "agreement_horizon",
    "attractor_starts",
    "cole_hopf",
    "dopri8",
    "driven_trajectories",
    "extended_horizon",
    "extended_trajectories",
    "reaction_diffusion",
    "runge_kutta",
    "solve",
    "trajectories",
    "trajectories_from",
]
