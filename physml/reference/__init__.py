"""Truth by Diffrax: one solution, batches of trajectories, and how far both can be trusted."""

from physml.reference.batch import (
    agreement_horizon,
    attractor_starts,
    trajectories,
    trajectories_from,
)
from physml.reference.extended import TaylorFlow, extended_horizon, extended_trajectories
from physml.reference.flow import FlowMap, runge_kutta
from physml.reference.initial_value import solve

__all__ = [
    "FlowMap",
    "TaylorFlow",
    "agreement_horizon",
    "attractor_starts",
    "extended_horizon",
    "extended_trajectories",
    "runge_kutta",
    "solve",
    "trajectories",
    "trajectories_from",
]
