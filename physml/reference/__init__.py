"""Truth by Diffrax: one solution, batches of trajectories, and how far both can be trusted."""

from physml.reference.batch import (
    agreement_horizon,
    attractor_starts,
    trajectories,
    trajectories_from,
)
from physml.reference.flow import FlowMap
from physml.reference.initial_value import solve

__all__ = [
    "FlowMap",
    "agreement_horizon",
    "attractor_starts",
    "solve",
    "trajectories",
    "trajectories_from",
]
